//! Which claim is compared, and when.

use trilemma_core::{Command, OpId, SessionId, Version};

use super::*;

fn claim(at: u64, digest: u64) -> Claim {
    let (leader, term, at) = (NodeId(2), Term(1), Index(at));
    Claim {
        leader,
        term,
        at,
        digest,
    }
}

fn table(at: u64) -> Table {
    let mut table = Table::new(1);
    for seq in 1..=at {
        let session = SessionId::default();
        table.apply(OpId { session, seq }, &Command::put("a", "1"), Version(seq));
    }
    table
}

#[test]
fn a_claim_is_compared_at_its_entry_and_nowhere_else() {
    let wrong = |at| table(at).digest() ^ 1;
    let mut claims = Claims::default();
    claims.hear(Index(3), claim(2, wrong(2)));
    assert_eq!(claims.compare(&table(3)), None, "it is of an entry before");
    claims.hear(Index(3), claim(5, wrong(5)));
    assert_eq!(claims.compare(&table(4)), None, "not yet");
    let found = claims.compare(&table(5)).expect("the states differ");
    assert_eq!((found.leader, found.term), (NodeId(2), Term(1)));
    assert_eq!(claims.compare(&table(5)), None, "it is compared once");
    claims.hear(Index(5), claim(5, table(5).digest()));
    assert_eq!(claims.compare(&table(5)), None, "the states are the same");
    // A table that was installed is beyond the entry.
    claims.hear(Index(5), claim(6, wrong(6)));
    assert_eq!(claims.compare(&table(7)), None);
}

#[test]
fn the_nearest_claim_waits() {
    let mut claims = Claims::default();
    claims.hear(Index(0), claim(u64::MAX, 1));
    claims.hear(Index(0), claim(4, table(4).digest() ^ 1));
    claims.hear(Index(0), claim(6, table(6).digest()));
    assert!(
        claims.compare(&table(4)).is_some(),
        "neither one that is never reached nor a later one is in its way"
    );
}
