//! The command line of the simulator; `cargo xtask sim` builds and runs it.

mod args;
mod campaign;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match args::parse(&arguments) {
        Ok(args) => campaign::run(&args),
        Err(why) => {
            eprintln!("{why}\n\n{}", args::HELP);
            ExitCode::from(2)
        }
    }
}
