//! Tasks of the project: `cargo xtask ci` and friends.
//!
//! A task is an entry of [`TASKS`]; adding one is adding an entry and a module. Tasks run from the repository's root,
//! print what they do, and end with exit code 1 and a sentence that says what to do when something is wrong.

mod bench;
mod ci;
mod dependencies;
mod docs;
mod explore;
mod plays;
mod process;
mod programs;
mod sim;
mod source;
mod tidy;
mod workspace;
mod zoo;

use std::process::ExitCode;

use workspace::Workspace;

/// What a task returns: nothing, or the sentence that says what is wrong and what to do.
pub(crate) type Outcome = Result<(), String>;

/// One task.
struct Task {
    name: &'static str,
    summary: &'static str,
    help: &'static str,
    run: fn(&Workspace, &[String]) -> Outcome,
}

/// All tasks, in the order of the help.
const TASKS: &[Task] = &[
    Task {
        name: "ci",
        summary: "everything that must pass before a change goes in",
        help: ci::HELP,
        run: ci::run,
    },
    Task {
        name: "tidy",
        summary: "what the compiler cannot check: layering, purity, lint exceptions, leaks",
        help: tidy::HELP,
        run: tidy::run,
    },
    Task {
        name: "docs",
        summary: "rewrite the generated parts of the documentation, check its links, build the book",
        help: docs::HELP,
        run: docs::run,
    },
    Task {
        name: "bench",
        summary: "build the server in release mode and measure clusters of it",
        help: bench::HELP,
        run: bench::run,
    },
    Task {
        name: "plays",
        summary: "run the protocols' plays, scenarios as text with their recorded traces, or renew them",
        help: plays::HELP,
        run: plays::run,
    },
    Task {
        name: "sim",
        summary: "build the simulator and run seeds or scenarios with it",
        help: sim::HELP,
        run: sim::run,
    },
    Task {
        name: "explore",
        summary: "search all states that three nodes can reach in a few steps",
        help: explore::HELP,
        run: explore::run,
    },
    Task {
        name: "zoo",
        summary: "plant known bugs, one after the other, and see the simulator find each",
        help: zoo::HELP,
        run: zoo::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Outcome {
    let Some((name, rest)) = args.split_first() else {
        println!("{}", overview());
        return Err("no task was given".into());
    };
    if matches!(name.as_str(), "--help" | "-h" | "help") {
        println!("{}", overview());
        return Ok(());
    }
    let task = TASKS
        .iter()
        .find(|task| task.name == name)
        .ok_or_else(|| format!("unknown task \"{name}\"\n\n{}", overview()))?;
    // What follows the first word that is no option belongs to another program, `--help` included.
    let own = rest.iter().take_while(|arg| arg.starts_with('-'));
    if own.into_iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{}", task.help);
        return Ok(());
    }
    (task.run)(&Workspace::find()?, rest)
}

fn overview() -> String {
    let tasks: String = TASKS
        .iter()
        .map(|task| format!("  {:7} {}\n", task.name, task.summary))
        .collect();
    format!("Usage: cargo xtask TASK [OPTIONS]\n\nTasks:\n{tasks}\n`cargo xtask TASK --help` explains one.")
}

/// Takes the flags that a task knows out of `args`; an unknown one is an error.
pub(crate) fn flags<'a>(args: &'a [String], known: &[&'static str]) -> Result<Vec<&'a str>, String> {
    args.iter()
        .map(|arg| {
            if known.contains(&arg.as_str()) {
                Ok(arg.as_str())
            } else {
                Err(format!(
                    "unknown argument \"{arg}\"; known are {} and --help",
                    known.join(", ")
                ))
            }
        })
        .collect()
}
