//! `watch`: the changes of a range as lines.

use clap::Args;
use serde_json::{Map, Value as Json, json};
use trilemma::{Change, Entry, WatchItem, WatchStart, WatchToken};

use super::Global;
use super::client::open;
use super::keys::key_range;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Form};

/// Follows the changes of a range. The first lines are the current entries, unless the watch is resumed, or begins now.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma watch settings --prefix shop/
  trilemma watch settings --output json --count 10
  trilemma watch settings --resume 0:42
  trilemma watch settings --now

Each JSON line is {\"type\": \"reset\" | \"entry\" | \"put\" | \"delete\", \"key\", \"value\", \"version\", \"token\"}.
`reset` means: forget what you know, the entries that follow are the state now. Lines that became visible together
carry the same token; resume with a token once all its lines are handled. Stop with Ctrl-C: the token to resume
with goes to standard error.")]
pub(crate) struct Watch {
    /// The keyspace
    keyspace: String,
    /// Keys that begin with this
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Resume after this token
    #[arg(long, value_name = "TOKEN")]
    resume: Option<WatchToken>,
    /// Begin with what happens from now on, without the current entries
    #[arg(long, conflicts_with = "resume")]
    now: bool,
    /// Stop after this many entries and changes
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Watch {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let keyspace = open(global, &self.keyspace).await?;
        let start = match self.resume {
            Some(token) => WatchStart::After(token),
            None if self.now => WatchStart::Now,
            None => WatchStart::State,
        };
        let range = key_range(self.prefix, None, None);
        let mut watch = keyspace.watch(range, start).await?;
        let mut shown = Shown {
            form: global.output,
            left: self.count.unwrap_or(u64::MAX),
        };
        let mut token = self.resume;
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        let result = loop {
            if shown.left == 0 {
                break Ok(Exit::Ok);
            }
            tokio::select! {
                _ = &mut interrupted => break Ok(Exit::Ok),
                item = watch.next() => match item {
                    None => {
                        break Err(Failure::new(
                            Exit::Connection,
                            "the watch has ended: the node stopped or the connection broke",
                            "resume at another node with `--resume` and `--server`",
                        ));
                    }
                    Some(Err(error)) => break Err(Failure::from(error)),
                    Some(Ok(item)) => {
                        let whole = shown.item(&item);
                        if output::is_lost() {
                            break Ok(Exit::Ok);
                        }
                        // A token is safe to resume from only when everything before it has been shown.
                        if whole {
                            token = Some(item.token());
                        }
                    }
                },
            }
        };
        if let Some(token) = token {
            output::note(if global.output == Form::Json {
                json!({"resume": token.to_string()}).to_string()
            } else {
                format!("resume with --resume {token}")
            });
        }
        result
    }
}

struct Shown {
    form: Form,
    left: u64,
}

impl Shown {
    /// Prints an item; tells whether it was shown to its end.
    fn item(&mut self, item: &WatchItem) -> bool {
        let token = item.token();
        match item {
            WatchItem::Reset {
                entries, first, last, ..
            } => {
                if *first {
                    self.line("reset", &token, None);
                }
                for Entry { key, state } in entries {
                    if !self.counted(
                        "entry",
                        &token,
                        &Change {
                            key: key.clone(),
                            now: Some(state.clone()),
                        },
                    ) {
                        return false;
                    }
                }
                *last
            }
            WatchItem::Progress { .. } => true,
            WatchItem::Changes { changes, .. } => changes.iter().all(|change| {
                let kind = if change.now.is_some() { "put" } else { "delete" };
                self.counted(kind, &token, change)
            }),
        }
    }

    fn counted(&mut self, kind: &str, token: &WatchToken, change: &Change) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.line(kind, token, Some(change));
        true
    }

    fn line(&self, kind: &str, token: &WatchToken, change: Option<&Change>) {
        match self.form {
            Form::Json => {
                let mut object = Map::new();
                object.insert("type".into(), kind.into());
                if let Some(Change { key, now }) = change {
                    match now {
                        Some(state) => object.extend(output::entry_json(key, state)),
                        None => output::put_bytes(&mut object, "key", key),
                    }
                }
                object.insert("token".into(), token.to_string().into());
                output::line(Json::Object(object).to_string());
            }
            Form::Table => match change {
                None => output::line(format!("# the state now, token {token}")),
                Some(Change {
                    key,
                    now: Some(state),
                }) => output::line(format!("{key} = {}", state.value)),
                Some(Change { key, now: None }) => output::line(format!("{key} deleted")),
            },
            Form::Raw => {
                if let Some(Change { key, now }) = change {
                    let value = now.as_ref().map(|state| &state.value[..]).unwrap_or_default();
                    output::print(&[&key[..], b"\t", value, b"\n"].concat());
                }
            }
        }
    }
}
