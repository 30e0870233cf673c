//! A command as a log holds it, for those who may still need it.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::data::{Command, CommandRef, Mutation};

/// A [`Command`] of which there are cheap clones: in the log, in a record, in a message to each peer.
///
/// One mutation without guards, which is what most commands are, is held in it, and shares its value with all others that have
/// it; other commands are shared as a whole. So a log touches no other memory to count or to copy what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedCommand(Shape);

/// One form for each command: `Many` holds none that could be `One`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    One(Mutation),
    Many(Arc<Command>),
}

impl LoggedCommand {
    /// Its parts.
    #[must_use]
    pub fn parts(&self) -> CommandRef<'_> {
        match &self.0 {
            Shape::One(mutation) => CommandRef {
                guards: &[],
                mutations: std::slice::from_ref(mutation),
            },
            Shape::Many(command) => CommandRef::from(&**command),
        }
    }

    /// See [`Command::size`].
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.0 {
            Shape::One(mutation) => mutation.size(),
            Shape::Many(command) => command.size(),
        }
    }

    /// The command.
    #[must_use]
    pub fn to_command(&self) -> Command {
        let CommandRef { guards, mutations } = self.parts();
        Command {
            guards: guards.to_vec(),
            mutations: mutations.to_vec(),
        }
    }
}

impl From<Command> for LoggedCommand {
    fn from(mut command: Command) -> Self {
        if command.guards.is_empty()
            && command.mutations.len() == 1
            && let Some(mutation) = command.mutations.pop()
        {
            return Self(Shape::One(mutation));
        }
        Self(Shape::Many(Arc::new(command)))
    }
}

impl<'a> From<&'a LoggedCommand> for CommandRef<'a> {
    fn from(command: &'a LoggedCommand) -> Self {
        command.parts()
    }
}

/// As the [`Command`] that it is.
impl Serialize for LoggedCommand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.parts().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LoggedCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Command::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests;
