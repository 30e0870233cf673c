//! Tasks of the project: `cargo xtask ci` and friends.
fn main() {}
