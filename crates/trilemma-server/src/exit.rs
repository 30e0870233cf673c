//! How the command ends: exit codes and failures as people and scripts see them.

use trilemma::{Error, NotApplied, OpId, ReadError, Reason, Retry, WriteError};

use crate::tree::TreeError;

/// The process's exit code. Part of the command's interface: scripts rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// The key, or what was to be exported, does not exist. Of `check`: the history is illegal.
    NotFound = 1,
    /// The command line, a file or a value is wrong. Nothing was done.
    Usage = 2,
    /// Refused: certainly not applied, and repeating it unchanged will not help.
    Refused = 3,
    /// Unavailable: certainly not applied; nodes, a leader or time were missing.
    Unavailable = 4,
    /// Unknown: the write may have been applied, or may yet be.
    Unknown = 5,
    /// A guard did not hold, so nothing was changed: a compare-and-set lost.
    GuardFailed = 6,
    /// The configuration is wrong, the node did not start or stopped, or the keyspace cannot be opened as asked.
    Start = 7,
    /// No server could be reached.
    Connection = 8,
    /// The demo's verdict: a promise did not hold.
    Verdict = 9,
    /// Done, but what the command had to say could not be delivered: standard output, or the file named, did not take it.
    Output = 10,
}

impl Exit {
    /// Of two ends of parts of one command, the one that the whole reports: the less certain about what happened.
    pub(crate) fn worse(self, other: Exit) -> Exit {
        let rank = |exit: Exit| match exit {
            Exit::Ok => 0,
            Exit::Output => 1,
            Exit::NotFound => 2,
            Exit::GuardFailed => 3,
            Exit::Usage => 4,
            Exit::Refused => 5,
            Exit::Start => 6,
            Exit::Unavailable => 7,
            Exit::Connection => 8,
            Exit::Verdict => 9,
            Exit::Unknown => 10,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// The end of `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  not found: the key, or what was to be exported, does not exist; `check`: the history is illegal
  2  usage: the command line, a file or a value is wrong; nothing was done
  3  refused: certainly not applied, repeating it unchanged will not help
  4  unavailable: certainly not applied; nodes, a leader or time were missing
  5  unknown: the write may have been applied, or may yet be (see `trilemma outcome`)
  6  guard failed: a condition did not hold, nothing was changed
  7  start: wrong configuration, a node that did not start, a keyspace that cannot be opened as asked
  8  connection: no server could be reached
  9  verdict: the demo found a broken promise
  10 output: done, but standard output or the file named did not take what there was to say";

/// What a failed command may have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The command changes nothing in any case.
    None,
    /// Certainly nothing was applied.
    NotApplied,
    /// It may have been applied, or may yet be.
    Unknown,
}

impl Effect {
    /// The word in JSON output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Effect::None => "none",
            Effect::NotApplied => "not-applied",
            Effect::Unknown => "unknown",
        }
    }
}

/// A failed command: one sentence, what to do, and what may have happened.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) advice: String,
    pub(crate) effect: Effect,
    pub(crate) reason: Option<String>,
    pub(crate) retry: Option<String>,
    pub(crate) op: Option<OpId>,
}

/// What commands return.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure before anything was asked of a node.
    pub(crate) fn new(exit: Exit, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            advice: advice.into(),
            effect: Effect::None,
            reason: None,
            retry: None,
            op: None,
        }
    }

    /// A wrong argument.
    pub(crate) fn usage(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message, advice)
    }

    /// What was to be delivered could not be.
    pub(crate) fn output(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Exit::Output, message, advice)
    }

    /// Names the operation, so that the user can ask for its outcome.
    pub(crate) fn with_op(mut self, op: OpId) -> Self {
        self.op = Some(op);
        self
    }
}

impl From<TreeError> for Failure {
    fn from(error: TreeError) -> Self {
        let exit = match error {
            TreeError::Stored { .. } => Exit::Refused,
            _ => Exit::Usage,
        };
        Failure::new(
            exit,
            error.to_string(),
            "nothing was done; correct what the message names, then run the command again",
        )
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Write(WriteError::NotApplied(NotApplied { reason, retry })) => Failure {
                effect: Effect::NotApplied,
                ..refused(message, &reason, &retry)
            },
            Error::Write(WriteError::Unknown { op, .. }) => Failure {
                exit: Exit::Unknown,
                message,
                advice: format!(
                    "ask with `trilemma outcome KEYSPACE {op}`, or repeat the same command with `--op-id {op} --retry`"
                ),
                effect: Effect::Unknown,
                reason: Some("Unknown".into()),
                retry: Some("same-op".into()),
                op: Some(op),
            },
            Error::Read(ReadError { reason, retry }) => refused(message, &reason, &retry),
            Error::Config(_) => Failure::new(
                Exit::Start,
                message,
                "correct the configuration, then start again",
            ),
            Error::Open(_) => Failure::new(
                Exit::Start,
                message,
                "`trilemma keyspaces` lists the keyspaces with their backends",
            ),
            Error::Node(_) => Failure::new(
                Exit::Start,
                message,
                "the message says it; the node's log has what came before",
            ),
            other => {
                let effect = match other.effect() {
                    trilemma::Effect::None => Effect::None,
                    trilemma::Effect::NotApplied => Effect::NotApplied,
                    trilemma::Effect::Unknown => Effect::Unknown,
                };
                let exit = if effect == Effect::Unknown {
                    Exit::Unknown
                } else {
                    Exit::Refused
                };
                Failure {
                    effect,
                    ..Failure::new(exit, message, "see the message")
                }
            }
        }
    }
}

fn refused(message: String, reason: &Reason, retry: &Retry) -> Failure {
    let exit = match reason {
        Reason::Unreachable { .. } => Exit::Connection,
        Reason::NoSuchKeyspace { .. } => Exit::Start,
        reason if reason.is_unavailable() => Exit::Unavailable,
        _ => Exit::Refused,
    };
    let (retry, mut advice) = match retry {
        Retry::Never => (
            "never".into(),
            "change the command or the configuration; repeating it will not help".into(),
        ),
        Retry::After(time) => (
            format!("after {} ms", time.as_millis()),
            "try again later".to_owned(),
        ),
        Retry::ReadAgain => (
            "read-again".into(),
            "read the key again, then decide again".into(),
        ),
        Retry::NewSession => (
            "new-session".into(),
            "repeat the command without `--op-id`".into(),
        ),
    };
    if matches!(
        reason,
        Reason::NoQuorum { .. } | Reason::NotAllParticipants { .. }
    ) {
        advice = "bring the missing nodes back (`trilemma status` shows them), then try again; \
                  `--level local` reads what this node has, possibly stale"
            .into();
    }
    Failure {
        exit,
        message,
        advice,
        effect: Effect::None,
        reason: Some(name_of(reason)),
        retry: Some(retry),
        op: None,
    }
}

/// The variant's name, stable for scripts.
pub(crate) fn name_of(reason: &Reason) -> String {
    let debug = format!("{reason:?}");
    debug.split([' ', '{', '(']).next().unwrap_or_default().into()
}
