//! What a panic said: for tests that plant a mistake and see the machine's own check find it.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs, and gives what a panic of it said as the error.
pub fn attempt<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default()
    })
}

/// What a check says when it fails.
///
/// # Panics
/// If it does not fail.
#[must_use]
pub fn caught(check: impl FnOnce()) -> String {
    attempt(check).expect_err("the check sees nothing")
}
