//! What a call is called, the keys it names, and which answers fit it.

use std::fmt;

use super::{Answer, Call, Guard, Step};

impl Guard {
    /// The key that the guard looks at.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Guard::Value { key, .. } | Guard::Version { key, .. } => key,
        }
    }
}

impl Call {
    /// Its name in the history format.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Call::Get { .. } => "get",
            Call::Put { .. } => "put",
            Call::Delete { .. } => "delete",
            Call::Cas { .. } => "cas",
            Call::Range { .. } => "range",
            Call::Command { .. } => "command",
            Call::Add { .. } => "add",
            Call::Members { .. } => "members",
            Call::Append { .. } => "append",
            Call::List { .. } => "list",
            Call::Transaction { .. } => "transaction",
            Call::Acquire { .. } => "acquire",
            Call::Renew { .. } => "renew",
            Call::Release { .. } => "release",
            Call::Use { .. } => "use",
        }
    }

    /// The name of the answer that it gets.
    #[must_use]
    pub const fn answered_by(&self) -> &'static str {
        match self {
            Call::Put { .. }
            | Call::Delete { .. }
            | Call::Add { .. }
            | Call::Append { .. }
            | Call::Renew { .. }
            | Call::Release { .. } => "done",
            Call::Cas { .. } | Call::Command { .. } | Call::Use { .. } => "won",
            Call::Get { .. } => "value",
            Call::Range { .. } => "entries",
            Call::Members { .. } | Call::List { .. } => "elements",
            Call::Acquire { .. } => "token",
            Call::Transaction { .. } => "committed",
        }
    }

    /// Whether `answer` can be one to this call: it is of the kind that the call gets, and a transaction's lists the
    /// steps that were asked, each read with what it found. Says what is wrong and what to do.
    pub fn fits(&self, answer: &Answer) -> Result<(), String> {
        if self.answered_by() != answer.kind() {
            return Err(format!(
                "a {} is answered with \"{}\", found \"{}\"; correct the outcome",
                self.kind(),
                self.answered_by(),
                answer.kind()
            ));
        }
        match (self, answer) {
            (Call::Transaction { steps: asked }, Answer::Committed { steps: answered }) => {
                same_steps(asked, answered)
            }
            _ => Ok(()),
        }
    }
}

/// Whether an answer lists the steps that were asked, in their order, and says what each read found.
fn same_steps(asked: &[Step], answered: &[Step]) -> Result<(), String> {
    if asked.len() != answered.len() {
        return Err(format!(
            "a transaction of {} steps was answered with {}; list the steps that were asked, in their order",
            asked.len(),
            answered.len()
        ));
    }
    for (place, (asked, answered)) in asked.iter().zip(answered).enumerate() {
        let number = place + 1;
        let is_same = match (asked, answered) {
            (Step::Read { key, found: known }, Step::Read { key: other, found }) => {
                if key == other && found.is_none() {
                    return Err(format!(
                        "step {number}, a read of {key}, was answered without what it found; state it as \"found\""
                    ));
                }
                key == other && (known.is_none() || known == found)
            }
            (asked, answered) => asked == answered,
        };
        if !is_same {
            return Err(format!(
                "step {number} of the transaction asked to {asked} and was answered with {answered}; \
                 list the steps that were asked, in their order"
            ));
        }
    }
    Ok(())
}

impl Answer {
    /// Its name in the history format.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Answer::Done { .. } => "done",
            Answer::Won { .. } => "won",
            Answer::Value { .. } => "value",
            Answer::Entries { .. } => "entries",
            Answer::Elements { .. } => "elements",
            Answer::Token { .. } => "token",
            Answer::Committed { .. } => "committed",
        }
    }
}

/// The steps after `heading`, separated by semicolons.
fn list(f: &mut fmt::Formatter<'_>, heading: &str, steps: &[Step]) -> fmt::Result {
    f.write_str(heading)?;
    for (place, step) in steps.iter().enumerate() {
        let separator = if place == 0 { "" } else { "; " };
        write!(f, "{separator}{step}")?;
    }
    Ok(())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Read { key, found: None } => write!(f, "read {key}"),
            Step::Read {
                key,
                found: Some(found),
            } => write!(f, "read {key} = [{}]", found.join(", ")),
            Step::Append { key, element } => write!(f, "append {element} to {key}"),
            Step::Write { key, value } => write!(f, "write {key} = {value}"),
        }
    }
}

fn optional(value: Option<&String>) -> &str {
    value.map_or("nothing", String::as_str)
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Get { key } => write!(f, "get {key}"),
            Call::Put { key, value } => write!(f, "put {key} = {value}"),
            Call::Delete { key } => write!(f, "delete {key}"),
            Call::Cas { key, expected, value } => {
                let (expected, value) = (optional(expected.as_ref()), optional(value.as_ref()));
                write!(f, "cas {key}: {expected} -> {value}")
            }
            Call::Range { start, end, limit } => {
                write!(f, "range [{start}, {})", end.as_deref().unwrap_or("end"))?;
                limit.map_or(Ok(()), |limit| write!(f, " limit {limit}"))
            }
            Call::Command { guards, changes } => {
                f.write_str("command")?;
                for guard in guards {
                    match guard {
                        Guard::Value { key, is } => write!(f, " if {key} is {}", optional(is.as_ref()))?,
                        Guard::Version { key, is } => write!(f, " if {key} is at version {is}")?,
                    }
                }
                for change in changes {
                    write!(f, " {} = {}", change.key, optional(change.value.as_ref()))?;
                }
                Ok(())
            }
            Call::Add { key, element } => write!(f, "add {element} to {key}"),
            Call::Members { key } => write!(f, "members of {key}"),
            Call::Append { key, element } => write!(f, "append {element} to {key}"),
            Call::List { key } => write!(f, "list {key}"),
            Call::Transaction { steps } => list(f, "transaction: ", steps),
            Call::Acquire { lock, .. } => write!(f, "acquire {lock}"),
            Call::Renew { lock, token, .. } => write!(f, "renew {lock} with token {token}"),
            Call::Release { lock, token } => write!(f, "release {lock} with token {token}"),
            Call::Use { lock, token } => write!(f, "use {lock} with token {token}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = |f: &mut fmt::Formatter<'_>, word: &str, version: &Option<u64>| {
            version.map_or(Ok(()), |version| write!(f, " {word} {version}"))
        };
        match self {
            Answer::Done { version: made } => {
                f.write_str("done")?;
                version(f, "version", made)
            }
            Answer::Won {
                succeeded,
                version: at,
            } => {
                f.write_str(if *succeeded { "won" } else { "lost" })?;
                version(f, "version", at)
            }
            Answer::Value {
                value,
                version: made,
                at,
            } => {
                f.write_str(optional(value.as_ref()))?;
                version(f, "version", made)?;
                version(f, "at", at)
            }
            Answer::Entries { entries, more, at } => {
                f.write_str("{")?;
                for (position, entry) in entries.iter().enumerate() {
                    let comma = if position == 0 { "" } else { ", " };
                    write!(f, "{comma}{} = {}", entry.key, entry.value)?;
                }
                f.write_str(if *more { ", …}" } else { "}" })?;
                version(f, "at", at)
            }
            Answer::Elements { elements } => write!(f, "[{}]", elements.join(", ")),
            Answer::Token { token } => write!(f, "token {token}"),
            Answer::Committed { steps } => list(f, "committed: ", steps),
        }
    }
}
