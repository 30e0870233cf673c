//! A member whose state is not the sequencer's.

use trilemma_core::{Protocol, ReadLevel, Reply, WriteError};
use trilemma_testkit::{get, succeeded, value};

use super::harness::*;
use crate::Message;

/// inside/two-phase#states-that-differ: a member whose state is not the sequencer's serves nobody and prepares nothing.
#[test]
fn d9_a_member_whose_state_is_not_the_sequencers_serves_nobody() {
    let mut cluster = cluster(3, 41);
    rest(&mut cluster);
    let sent = lose(&mut cluster, &[]);
    let ticket = propose_put(&mut cluster, N1, 1, "k", SECOND);
    assert!(succeeded(await_reply(&mut cluster, N1, ticket).as_ref()));
    resolve(&mut cluster);
    let announced = sent
        .borrow()
        .iter()
        .rev()
        .find_map(|(_, to, message)| match message {
            Message::Announce { head } if *to == N2 => Some(*head),
            _ => None,
        });
    let mut head = announced.expect("it was announced");
    assert_eq!(
        head.digest,
        cluster.protocol(N2).digest(),
        "the states are the same"
    );
    inject(&mut cluster, N1, N2, &Message::Announce { head });
    assert_eq!(
        value(cluster.get(N2, "k").as_ref()),
        Ok(Some("1".into())),
        "and nothing happens"
    );
    head.digest ^= 1;
    inject(&mut cluster, N1, N2, &Message::Announce { head });
    for level in [None, Some(ReadLevel::Local)] {
        let read = cluster.propose(N2, get("k", level), SECOND);
        let refused = await_reply(&mut cluster, N2, read);
        assert!(
            matches!(&refused, Some(Reply::Read(Err(refusal))) if refusal.to_string().contains("digest")),
            "{refused:?}"
        );
    }
    let ticket = propose_put(&mut cluster, N2, 2, "k", SECOND);
    let refused = await_reply(&mut cluster, N2, ticket);
    assert!(refused_because(refused.as_ref(), "digest"), "{refused:?}");
    let ticket = propose_put(&mut cluster, N1, 3, "k", SECOND);
    let refused = await_reply(&mut cluster, N1, ticket);
    assert!(
        refused_because(refused.as_ref(), "its state differs"),
        "{refused:?}"
    );
    // Like every refusal, this one is kept: what was refused is not prepared after a restart either.
    let fence = |cluster: &TestCluster| {
        let details = cluster.protocol(N2).status(now(cluster)).details;
        details.into_iter().find(|(name, _)| name == "fence")
    };
    let (before, prepared) = (fence(&cluster), cluster.protocol(N2).decided());
    assert_ne!(
        before,
        Some(("fence".into(), prepared.0.to_string())),
        "it is beyond what was prepared"
    );
    // Who has looked starts it again, and it compares again.
    cluster.crash(N2);
    cluster.restart(N2);
    assert_eq!(fence(&cluster), before);
    resolve(&mut cluster);
    let ticket = propose_put(&mut cluster, N2, 4, "k", SECOND);
    assert!(succeeded(await_reply(&mut cluster, N2, ticket).as_ref()));
}

fn refused_because(reply: Option<&Reply>, why: &str) -> bool {
    matches!(
        reply,
        Some(Reply::Write(Err(WriteError::NotApplied(refusal)))) if refusal.to_string().contains(why)
    )
}
