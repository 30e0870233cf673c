//! What tests of several modules share.

/// What a check says when it fails.
///
/// # Panics
/// If it does not fail.
pub(crate) fn caught(check: impl FnOnce()) -> String {
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
    let said = failed.expect_err("the check sees nothing");
    let text = said.downcast_ref::<String>().cloned();
    text.or_else(|| said.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_default()
}
