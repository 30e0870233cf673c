//! Commands on values of data types: counter, bounded-counter, set, map.

use clap::{Args, Subcommand};
use serde_json::{Map, Value as Json, json};
use trilemma::{Command, Key, Keyspace, NodeId, Update};

use super::client::open;
use super::keys::{value, write};
use super::{Global, WriteOptions};
use crate::exit::{Exit, Outcome};
use crate::output::{self, Form};

/// Which value.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The keyspace, of backend gossip
    keyspace: String,
    /// The key
    key: String,
}

/// A change: which value, and how the write is named.
#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    write: WriteOptions,
}

impl Place {
    async fn open(&self, global: &Global) -> Result<Keyspace, crate::exit::Failure> {
        open(global, &self.keyspace).await
    }
}

impl Change {
    async fn run(self, global: &Global, update: Update) -> Outcome {
        let keyspace = self.place.open(global).await?;
        write(
            global,
            &keyspace,
            &self.write,
            Command::update(self.place.key, update),
        )
        .await
    }
}

/// Counts: additions on all sides of a partition all count (gossip).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma counter add carts visits
  trilemma counter add carts visits -3
  trilemma counter get carts visits --output json
  trilemma counter reset carts visits        # takes what this node has seen; what others add meanwhile stays")]
pub(crate) struct Counter {
    #[command(subcommand)]
    what: CounterCommand,
}

#[derive(Debug, Subcommand)]
enum CounterCommand {
    /// Add; a negative number takes away
    Add {
        #[command(flatten)]
        change: Change,
        /// How much
        #[arg(default_value_t = 1, allow_hyphen_values = true)]
        amount: i64,
    },
    /// Show what was added, as far as the node that answers knows
    Get(Place),
    /// Take away what the node has seen
    Reset(Change),
}

impl Counter {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self.what {
            CounterCommand::Add { change, amount } => change.run(global, Update::Add(amount)).await,
            CounterCommand::Reset(change) => change.run(global, Update::Reset).await,
            CounterCommand::Get(place) => {
                let keyspace = place.open(global).await?;
                let number = keyspace.counter(place.key.as_str()).get().await?;
                shown(global, &place, [("value", number.to_string())], &[]);
                Ok(Exit::Ok)
            }
        }
    }
}

/// Counts what must never be below zero: each node takes what it has the right to (gossip).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma bounded-counter grant carts seats 100
  trilemma bounded-counter spend carts seats 2       # exits with 3 where the nodes asked have no rights left
  trilemma bounded-counter transfer carts seats 3 20 # to node 3, which must have changed the counter before
  trilemma bounded-counter get carts seats")]
pub(crate) struct BoundedCounter {
    #[command(subcommand)]
    what: BoundedCommand,
}

#[derive(Debug, Subcommand)]
enum BoundedCommand {
    /// Add, and give the node the right to take as much away
    Grant {
        #[command(flatten)]
        change: Change,
        /// How much
        amount: u64,
    },
    /// Take away
    Spend {
        #[command(flatten)]
        change: Change,
        /// How much
        #[arg(default_value_t = 1)]
        amount: u64,
    },
    /// Give rights of the node to another one
    Transfer {
        #[command(flatten)]
        change: Change,
        /// The other node
        to: u32,
        /// How many
        amount: u64,
    },
    /// Show how much there is, and who may take it
    Get(Place),
}

impl BoundedCounter {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self.what {
            BoundedCommand::Grant { change, amount } => change.run(global, Update::Grant(amount)).await,
            BoundedCommand::Spend { change, amount } => change.run(global, Update::Spend(amount)).await,
            BoundedCommand::Transfer { change, to, amount } => {
                let to = NodeId(to);
                change.run(global, Update::Transfer { to, amount }).await
            }
            BoundedCommand::Get(place) => {
                let keyspace = place.open(global).await?;
                let reading = keyspace.bounded_counter(place.key.as_str()).reading().await?;
                let rights: Vec<(NodeId, u128)> = reading.rights().collect();
                let numbers = [
                    ("value", reading.value.to_string()),
                    ("lost", reading.lost.to_string()),
                ];
                shown(global, &place, numbers, &rights);
                Ok(Exit::Ok)
            }
        }
    }
}

/// Shows numbers of a value. They may be larger than what JSON's readers take for exact, and are digits there.
fn shown<const N: usize>(
    global: &Global,
    place: &Place,
    numbers: [(&str, String); N],
    rights: &[(NodeId, u128)],
) {
    let value = numbers.first().map_or("0", |(_, digits)| digits);
    match global.output {
        Form::Json => {
            let mut object = Map::new();
            output::put_bytes(&mut object, "key", place.key.as_bytes());
            for (name, digits) in &numbers {
                let number: Result<i64, _> = digits.parse();
                let json = number.map_or_else(|_| Json::from(digits.clone()), Json::from);
                object.insert((*name).into(), json);
            }
            if N > 1 {
                let rights = rights
                    .iter()
                    .map(|(node, amount)| json!({"node": node.0, "rights": amount.to_string()}));
                object.insert("rights".into(), rights.collect());
            }
            output::line(Json::Object(object).to_string());
        }
        Form::Table | Form::Raw => {
            output::line(value);
            for (node, amount) in rights.iter().filter(|_| global.output == Form::Table) {
                output::line(format!("node {node} may take {amount}"));
            }
        }
    }
}

/// Sets of elements: of an addition and a concurrent removal the addition wins (gossip).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma set add carts alice/wishes apple
  trilemma set remove carts alice/wishes apple
  trilemma set members carts alice/wishes --output json")]
pub(crate) struct Set {
    #[command(subcommand)]
    what: SetCommand,
}

#[derive(Debug, Subcommand)]
enum SetCommand {
    /// Add an element
    Add {
        #[command(flatten)]
        change: Change,
        /// The element
        element: String,
    },
    /// Remove an element, as far as the node has seen it added
    Remove {
        #[command(flatten)]
        change: Change,
        /// The element
        element: String,
    },
    /// Show all elements, in order
    Members(Place),
}

impl Set {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self.what {
            SetCommand::Add { change, element } => change.run(global, Update::Insert(element.into())).await,
            SetCommand::Remove { change, element } => {
                change.run(global, Update::Remove(element.into())).await
            }
            SetCommand::Members(place) => {
                let keyspace = place.open(global).await?;
                for element in keyspace.set(place.key.as_str()).members().await? {
                    member(global, &element);
                }
                Ok(Exit::Ok)
            }
        }
    }
}

fn member(global: &Global, element: &Key) {
    match global.output {
        Form::Json => {
            let mut object = Map::new();
            output::put_bytes(&mut object, "element", element);
            output::line(Json::Object(object).to_string());
        }
        Form::Table => output::line(element.to_string()),
        Form::Raw => output::print(&[&element[..], b"\n"].concat()),
    }
}

/// Maps of fields to values: of an assignment and a concurrent removal the assignment wins (gossip).
#[derive(Debug, Args)]
#[command(
    name = "map",
    after_help = "\
Examples:
  trilemma map put carts user/ada mail ada@example.org
  trilemma map remove carts user/ada mail
  trilemma map fields carts user/ada"
)]
pub(crate) struct Fields {
    #[command(subcommand)]
    what: MapCommand,
}

#[derive(Debug, Subcommand)]
enum MapCommand {
    /// Set a field
    Put {
        #[command(flatten)]
        change: Change,
        /// The field
        field: String,
        /// The value; `-`: standard input, `@FILE`: the bytes of a file
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Remove a field, as far as the node has seen it set
    Remove {
        #[command(flatten)]
        change: Change,
        /// The field
        field: String,
    },
    /// Show all fields with their values, in order
    Fields(Place),
}

impl Fields {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self.what {
            MapCommand::Put {
                change,
                field,
                value: text,
            } => {
                let (field, value) = (field.into(), value(&text)?);
                change.run(global, Update::Assign { field, value }).await
            }
            MapCommand::Remove { change, field } => change.run(global, Update::Unassign(field.into())).await,
            MapCommand::Fields(place) => {
                let keyspace = place.open(global).await?;
                for (field, value) in keyspace.map(place.key.as_str()).fields().await? {
                    field_line(global, &field, &value);
                }
                Ok(Exit::Ok)
            }
        }
    }
}

fn field_line(global: &Global, field: &Key, value: &trilemma::Value) {
    match global.output {
        Form::Json => {
            let mut object = Map::new();
            output::put_bytes(&mut object, "field", field);
            output::put_bytes(&mut object, "value", value);
            output::line(Json::Object(object).to_string());
        }
        Form::Table => output::line(format!("{field} = {value}")),
        Form::Raw => output::print(&[&field[..], b"\t", &value[..], b"\n"].concat()),
    }
}
