//! The `trilemma` binary: node daemon, client commands and demo.
//!
//! It uses the facade crate `trilemma` alone, as any application would; and, to judge histories, the checkers, which
//! know nothing of nodes.

mod cli;
mod demo;
mod exit;
mod files;
mod log;
mod output;
mod tree;

use std::process::ExitCode;

use clap::Parser;

use exit::Exit;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(help) => return ExitCode::from(printed(&help) as u8),
    };
    let form = cli.global.output;
    let exit = cli::run(cli).unwrap_or_else(|failure| {
        output::failure(form, &failure);
        failure.exit
    });
    ExitCode::from(output::conclude(form, exit) as u8)
}

/// Prints the help that was asked for, or what is wrong with the command line.
fn printed(help: &clap::Error) -> Exit {
    match (help.use_stderr(), help.print()) {
        (true, _) => Exit::Usage,
        (false, Ok(())) => Exit::Ok,
        (false, Err(_)) => Exit::Output,
    }
}
