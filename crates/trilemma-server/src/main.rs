//! The `trilemma` binary.
fn main() {}
