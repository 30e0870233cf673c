//! What writes cost: messages, records and bytes, for many clients that write at the same time.

use std::cell::RefCell;
use std::rc::Rc;

use trilemma_core::{Attempt, Command, Value, codec};
use trilemma_testkit::Verdict;

use super::harness::*;

const CLIENTS: u64 = 256;
const VALUE_BYTES: usize = 256;

#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    messages: usize,
    message_bytes: usize,
    records: usize,
    record_bytes: usize,
}

/// Every client writes its key once, all at the same moment at the same node.
fn write_all(cluster: &mut Paxi, round: u64) {
    let value = Value::from(vec![b'v'; VALUE_BYTES]);
    let tickets: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let command = Command::put(format!("client/{client}/7"), value.clone());
            let request = write_as(op_of(client, round), Attempt::First, command);
            cluster.propose(N1, request, SECOND)
        })
        .collect();
    cluster.run_for(millis(10));
    for ticket in tickets {
        let _ = receipt(cluster.reply(N1, ticket).cloned());
    }
}

/// What one write costs on average, once the registers remember all that they can.
fn costs(rounds: u64) -> Costs {
    let mut cluster = cluster(3, 51);
    for round in 1..=70 {
        write_all(&mut cluster, round);
    }
    for node in cluster.ids() {
        cluster.checkpoint(node);
    }
    let costs = Rc::new(RefCell::new(Costs::default()));
    let shared = Rc::clone(&costs);
    cluster.filter = Some(Box::new(move |_, _, message| {
        let mut costs = shared.borrow_mut();
        costs.messages += 1;
        costs.message_bytes += codec::encode(message).len();
        Verdict::Deliver
    }));
    for round in 71..71 + rounds {
        write_all(&mut cluster, round);
    }
    let mut costs = *costs.borrow();
    for node in cluster.ids() {
        costs.records += cluster.disk(node).len();
        costs.record_bytes += cluster
            .disk(node)
            .iter()
            .map(|record| record.len())
            .sum::<usize>();
    }
    costs
}

#[test]
fn writes_at_the_same_time_share_messages_and_say_little() {
    let rounds = 10;
    let costs = costs(rounds);
    let writes = (rounds * CLIENTS) as usize;
    let said = format!("{costs:?} for {writes} writes");
    // An accept to each of two, an answer of each, and what was chosen to each; and some of anti-entropy.
    assert!(costs.messages <= 7 * rounds as usize, "{said}");
    // Twice the value, key, ballots and result; twice two answers.
    assert!(costs.message_bytes / writes < 2 * (VALUE_BYTES + 160), "{said}");
    // Three times the same.
    assert!(costs.record_bytes / writes < 3 * (VALUE_BYTES + 120), "{said}");
    assert!(costs.records / writes.div_ceil(40) <= 4, "{said}");
}
