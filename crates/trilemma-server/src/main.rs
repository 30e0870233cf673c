//! The `trilemma` binary: node daemon, client commands and demo.
//!
//! It uses the facade crate `trilemma` alone, as any application would; and, to judge histories, the checkers, which
//! know nothing of nodes.

mod cli;
mod demo;
mod exit;
mod output;
mod tree;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let form = cli.global.output;
    let exit = cli::run(cli).unwrap_or_else(|failure| {
        output::failure(form, &failure);
        failure.exit
    });
    ExitCode::from(exit as u8)
}
