//! Placeholder text until the crate's first change lands.
