//! Real processes on loopback: nodes made by `init`, run by `serve`, asked by the client commands.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod commands;
mod crash;
mod demo;
#[cfg(unix)]
mod files;
mod harness;
mod histories;
mod members;
mod predict;
mod refusals;
mod signatures;
mod snapshots;
#[cfg(target_os = "linux")]
mod streams;
mod workload;

// The demo's recorder and checks, used on processes here.
#[allow(dead_code, reason = "the demo uses more of the module than these tests")]
#[path = "../../src/demo/check.rs"]
mod check;
#[allow(dead_code, reason = "the demo uses more of the module than these tests")]
#[path = "../../src/demo/history.rs"]
mod history;
