//! What a turn does for a keyspace takes no longer than it says, however much the keyspace holds.

use std::time::{Duration, Instant};

use trilemma_core::table::{CHUNK_BYTES, Table};
use trilemma_core::{Command, OpId, SessionId, Version};

fn op(seq: u64) -> OpId {
    OpId {
        session: SessionId::default(),
        seq,
    }
}

/// The shortest time that something takes: what else the machine does only adds to it.
fn shortest(mut what: impl FnMut()) -> Duration {
    let once = |_| {
        let began = Instant::now();
        what();
        began.elapsed()
    };
    (0..30).map(once).min().expect("more than none")
}

fn filled(keys: u64) -> Table {
    let mut table = Table::default();
    for number in 1..=keys {
        let command = Command::put(format!("key/{number:08}"), "value");
        table.apply(op(number), &command, Version(number));
    }
    table
}

#[test]
fn to_take_a_snapshot_costs_the_same_however_many_keys_there_are() {
    // It is taken in a turn of the node, and a million keys have tens of thousands of leaves.
    let (few, many) = (filled(1_000), filled(200_000));
    let take = |table: &Table| shortest(|| drop(table.chunks(CHUNK_BYTES).next()));
    let (few, many) = (take(&few), take(&many));
    assert!(many < few * 50, "{few:?} with 1,000 keys, {many:?} with 200,000");
}

#[test]
fn a_command_of_many_keys_costs_no_more_than_many_commands() {
    // No turn is shorter than a command, so a command must not cost the square of its keys.
    const KEYS: u64 = 4096;
    let put = |number: u64| Command::put(format!("key/{number:08}"), "value");
    let commands: Vec<Command> = (1..=KEYS).map(put).collect();
    let mutations = commands.iter().flat_map(|command| command.mutations.clone());
    let batch = Command {
        guards: Vec::new(),
        mutations: mutations.collect(),
    };
    let one = shortest(|| drop(Table::default().apply(op(1), &batch, Version(1))));
    let many = shortest(|| {
        let mut table = Table::default();
        for (command, at) in commands.iter().zip(1..) {
            drop(table.apply(op(at), command, Version(at)));
        }
    });
    assert!(one < many * 2, "{one:?} as one command, {many:?} as {KEYS}");
}
