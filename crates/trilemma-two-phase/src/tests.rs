//! Tests of whole clusters, and the frozen formats.

mod harness;
mod scenarios;
