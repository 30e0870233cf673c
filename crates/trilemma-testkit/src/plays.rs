//! Plays: scenarios of a protocol as text, the commands above and the recorded trace below.
//!
//! A play is a file that a person reads from top to bottom. It opens with a comment that says what to look for. Then
//! come blocks: one or more commands, a line `----`, and what happened, up to the next empty line.
//!
//! ```text
//! # A write needs one round trip when its leader stands.
//!
//! nodes 3
//! elect 1
//! ----
//! ...
//!
//! put 1 x=a
//! deliver
//! ----
//!    0 ms  1 -> 2  append ...
//! ```
//!
//! The idea is that of etcd's interaction tests (`etcd-io/raft`, `testdata/`). A play runs on the [`crate::Cluster`]: every
//! message takes one millisecond and every sync of a disk one more, nothing is random but what the protocol draws from
//! its seed, and the times of a trace count from the block's first command. Traces show messages, answers and what a
//! disk holds, never a field of a protocol, so they stay when code is moved.
//!
//! [`HELP`] lists the commands. A protocol brings its part as a [`Stage`].

mod actions;
mod script;
mod words;

pub use actions::{HELP, Play};
pub use words::{show_command, show_op, show_reply};

use std::marker::PhantomData;

use trilemma_core::{Incarnation, NodeId, Protocol, Version};

/// What one protocol brings to its plays.
pub trait Stage {
    /// The protocol.
    type Protocol: Protocol;

    /// Makes the instance of a node, with what the command `nodes` said.
    fn build(node: NodeId, incarnation: Incarnation, seed: u64, setup: &Setup) -> Self::Protocol;

    /// A message, one line for each thing that it says; none if a reader need not see it.
    fn show(message: &<Self::Protocol as Protocol>::Message) -> Vec<String>;

    /// A version as readers know it.
    #[must_use]
    fn version(version: Version) -> String {
        version.to_string()
    }

    /// A command that only this protocol has. `None`: there is no such command.
    fn command(play: &mut Play<Self>, words: &[&str]) -> Option<Result<(), String>>
    where
        Self: Sized,
    {
        let _ = (play, words);
        None
    }
}

/// What the command `nodes` said.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Number of nodes.
    pub size: u32,
    /// Settings of the protocol, by name.
    pub options: Vec<(String, String)>,
}

impl Setup {
    /// The members.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.size).map(NodeId)
    }

    /// The value of a setting.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut found = self.options.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// A setting that is a time.
    ///
    /// # Panics
    /// If it is none: a play is wrong.
    #[must_use]
    pub fn duration(&self, name: &str) -> Option<std::time::Duration> {
        self.option(name)
            .map(|text| words::duration(text).expect("a setting of a play is a time, as in 50ms"))
    }

    /// A setting that is a number.
    ///
    /// # Panics
    /// If it is none: a play is wrong.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<usize> {
        self.option(name)
            .map(|text| text.parse().expect("a setting of a play is a number"))
    }
}

/// The plays of one crate. Its test reads the files, and writes those that are renewed: this crate touches no files.
///
/// ```no_run
/// # use trilemma_testkit::plays::{Plays, Stage};
/// # fn plays<OfRaft: Stage>() {
/// let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plays");
/// let mut plays = Plays::<OfRaft>::new(std::env::var("TRILEMMA_PLAYS").ok().as_deref());
/// for file in std::fs::read_dir(folder).expect("there are plays") {
///     let path = file.expect("the folder can be read").path();
///     let recorded = std::fs::read_to_string(&path).expect("a play is text");
///     if let Some(renewed) = plays.perform(&path.display().to_string(), &recorded) {
///         std::fs::write(&path, renewed).expect("a play can be written");
///     }
/// }
/// plays.end();
/// # }
/// ```
pub struct Plays<S: Stage> {
    is_rewrite: bool,
    count: usize,
    report: String,
    stage: PhantomData<S>,
}

impl<S: Stage> Plays<S> {
    /// No play yet. They are renewed rather than compared if the variable `TRILEMMA_PLAYS` is `rewrite`.
    #[must_use]
    pub fn new(variable: Option<&str>) -> Self {
        Self {
            is_rewrite: variable == Some("rewrite"),
            count: 0,
            report: String::new(),
            stage: PhantomData,
        }
    }

    /// Performs one play. Returns what the file must hold if it is to be renewed.
    pub fn perform(&mut self, name: &str, recorded: &str) -> Option<String> {
        self.count += 1;
        match script::perform::<S>(recorded) {
            Err(error) => self.report.push_str(&format!("{name}: {error}\n")),
            Ok(happened) if happened == recorded => {}
            Ok(happened) if self.is_rewrite => return Some(happened),
            Ok(happened) => {
                let difference = script::difference(recorded, &happened);
                self.report.push_str(&format!("{name}\n{difference}"));
            }
        }
        None
    }

    /// Ends the test.
    ///
    /// # Panics
    /// If a trace is not the recorded one, or a command is wrong; the message shows where. Also if there was no play.
    pub fn end(self) {
        assert!(self.count > 0, "no play was found");
        assert!(
            self.report.is_empty(),
            "plays differ from what happened; if that is right, run `cargo xtask plays --rewrite`\n{}",
            self.report
        );
    }
}

#[cfg(test)]
mod tests;
