//! Words and contracts of Trilemma.

pub mod id;
pub mod time;

pub use id::*;
pub use time::{Instant, Now, WallTime};
