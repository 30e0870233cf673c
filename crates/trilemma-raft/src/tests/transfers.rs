//! Snapshots on their way, under a network that reorders.

use std::cell::Cell;
use std::rc::Rc;

use trilemma_core::Command;
use trilemma_testkit::{Verdict, won};

use super::*;

#[test]
fn late_answers_do_not_begin_a_transfer_anew() {
    // Every third answer of the follower comes 2 ms late, behind newer ones, while writes go on.
    let mut cluster = cluster_with(3, 21, |config| config.kept_entries = 4);
    let id = elect(&mut cluster);
    let behind = cluster.ids().into_iter().find(|other| *other != id).unwrap();
    cluster.crash(behind);
    for seq in 1..=200 {
        let command = Command::put(format!("key/{seq}"), "x".repeat(20_000));
        assert!(won(cluster.write(id, seq, command).as_ref()), "write {seq}");
    }
    let begun = Rc::new(Cell::new(0));
    let (firsts, answers) = (Rc::clone(&begun), Cell::new(0));
    cluster.filter = Some(Box::new(move |_, _, message| match message {
        Message::Snapshot { part: 0, .. } => {
            firsts.set(firsts.get() + 1);
            Verdict::Deliver
        }
        Message::SnapshotReply { .. } => {
            answers.set(answers.get() + 1);
            if answers.get() % 3 == 0 {
                Verdict::Delay(2 * MS)
            } else {
                Verdict::Deliver
            }
        }
        _ => Verdict::Deliver,
    }));
    cluster.restart(behind);
    for seq in 201..=220 {
        assert!(won(cluster.write(id, seq, Command::put("key", "x")).as_ref()));
        cluster.run_for(MS);
    }
    assert!(cluster.run_until(5000 * MS, |cluster| {
        cluster.protocol(behind).table().digest() == cluster.protocol(id).table().digest()
    }));
    assert!(
        begun.get() <= 2,
        "{} transfers where one does, and perhaps one of what came since",
        begun.get()
    );
}
