//! The machines' own invariants: each is broken once, and the end of the next step must notice.

use trilemma_core::pending::PendingKind;
use trilemma_core::{AppendSeq, Proposal, Ticket};
use trilemma_testkit::panics::attempt;

use super::node::{end, noop, put};
use super::*;
use crate::hard_state::HardState;
use crate::pending::{InLog, ReplyTo};
use crate::votes::Votes;
use crate::withdrawn::Withdrawn;

/// What `check` says of this node; nothing if all is well.
fn complaint(raft: &Raft) -> Option<String> {
    attempt(|| raft.check()).err()
}

/// Breaks something, and expects the complaint that holds `words`.
fn broken(mut raft: Raft, words: &str, spoil: impl FnOnce(&mut Raft)) {
    assert_eq!(complaint(&raft), None);
    spoil(&mut raft);
    let found = complaint(&raft).unwrap_or_else(|| panic!("nobody notices; expected: {words}"));
    assert!(found.contains(words), "expected {words:?}, found {found:?}");
}

/// A node without a host, so that its state can be corrupted.
struct Bare {
    raft: Raft,
    effects: Out,
    now: Instant,
}

impl Bare {
    fn new() -> Self {
        let mut bare = Self {
            raft: Raft::new(RaftConfig::new(NodeId(1), Incarnation(1), (1..=3).map(NodeId), 1)),
            effects: Effects::default(),
            now: Instant::ZERO + 1000 * MS,
        };
        bare.step(Input::Start);
        let peer = Peer {
            incarnation: trilemma_core::Incarnation(1),
            connected: true,
        };
        let peers = [NodeId(2), NodeId(3)].map(|id| (id, peer)).into();
        bare.step(Input::Peers(PeerView { peers }));
        bare
    }

    fn step(&mut self, input: Input<Message>) {
        let now = Now {
            instant: self.now,
            ..Now::default()
        };
        self.raft.step(now, input, &mut self.effects);
        self.raft.step(now, Input::EndTurn, &mut self.effects);
    }

    fn receive(&mut self, message: Message) {
        let from = NodeId(2);
        self.step(Input::Receive { from, message });
    }

    fn persist(&mut self) {
        let up_to = self.effects.last_append();
        self.step(Input::Persisted { up_to });
    }

    fn stand(&mut self) {
        self.now = self.now + 1000 * MS;
        self.step(Input::Wake);
        let (asked, term, granted) = (Term(1), Term(0), true);
        self.receive(Message::PreVoteReply { asked, term, granted });
    }

    /// Leads with its own entry and one request, which wait for followers.
    fn lead(&mut self) {
        self.stand();
        let (term, granted) = (Term(1), true);
        self.receive(Message::VoteReply { term, granted });
        let (ticket, deadline, request) = (Ticket(1), self.now + 5000 * MS, put(1));
        self.step(Input::Propose(Proposal {
            ticket,
            deadline,
            request,
        }));
        self.step(Input::Wake);
        assert!(self.raft.is_leader());
    }
}

/// A follower with three entries, two of them applied.
fn follower() -> Raft {
    let mut bare = Bare::new();
    bare.receive(Message::Append {
        term: Term(1),
        round: 0,
        prev: LogEnd::default(),
        entries: vec![noop(1), noop(1), noop(1)],
        commit: Index(2),
    });
    bare.persist();
    assert_eq!(bare.raft.shared.applied(), Index(2));
    bare.raft
}

fn candidate() -> Raft {
    let mut bare = Bare::new();
    bare.stand();
    assert!(matches!(bare.raft.role(), Role::Candidate(_)));
    bare.raft
}

fn leader() -> Raft {
    let mut bare = Bare::new();
    bare.lead();
    bare.raft
}

#[test]
fn what_is_applied_is_committed_and_what_is_committed_is_there() {
    broken(follower(), "committed", |raft| raft.shared.commit = Index(1));
    broken(follower(), "committed", |raft| raft.shared.commit = Index(9));
    broken(follower(), "the log begins after", |raft| {
        raft.shared.log = Log::at(end(1, 3));
    });
}

#[test]
fn the_terms_of_a_log_only_grow() {
    broken(follower(), "terms of the log", |raft| {
        raft.shared.log.extend([noop(1), noop(0)])
    });
}

#[test]
fn nothing_is_durable_that_was_not_appended() {
    broken(follower(), "is durable, appended is", |raft| {
        raft.shared.disk.on_persisted(Instant::ZERO, AppendSeq(99));
    });
}

#[test]
fn a_request_has_one_deadline() {
    let waiting = |at: u64| InLog {
        reply_to: ReplyTo::Local(Ticket(9)),
        kind: PendingKind::of(&put(9)),
        term: Term(1),
        deadline: Instant::from_nanos(at),
    };
    broken(follower(), "requests and their deadlines", |raft| {
        raft.shared.pending.put_in_log(Index(9), waiting(1));
        raft.shared.pending.put_in_log(Index(9), waiting(2));
    });
}

#[test]
fn a_request_waits_for_an_entry_that_is_there() {
    let waiting = InLog {
        reply_to: ReplyTo::Local(Ticket(9)),
        kind: PendingKind::of(&put(9)),
        term: Term(1),
        deadline: Instant::NEVER,
    };
    broken(follower(), "the log ends at", |raft| {
        raft.shared.pending.put_in_log(Index(9), waiting);
    });
}

#[test]
fn a_term_is_in_a_record_and_no_entry_is_of_a_later_one() {
    broken(follower(), "appended is", |raft| {
        let mut effects = Out::default();
        for _ in 0..9 {
            effects.append(Record::SnapshotPart(bytes::Bytes::new()));
        }
        raft.shared.hard.enter(Term(9), &mut effects);
    });
    broken(follower(), "an entry of", |raft| {
        raft.shared.hard = HardState::restored(Term(0), None);
    });
}

#[test]
fn entries_wait_for_a_record_that_was_appended() {
    broken(follower(), "never appended", |raft| {
        let last = raft.shared.log.last();
        raft.shared.log.on_appended(AppendSeq(99), Index(1), last);
    });
}

#[test]
fn a_state_comes_from_a_leader_of_no_later_term() {
    let mut bare = Bare::new();
    bare.receive(Message::Snapshot {
        term: Term(2),
        round: 0,
        at: end(1, 5),
        part: 1,
        last: false,
        chunk: bytes::Bytes::from_static(b"part"),
    });
    broken(bare.raft, "a state of", |raft| {
        raft.shared.hard = HardState::restored(Term(1), None);
    });
}

#[test]
fn a_contradiction_is_one_of_what_is_committed() {
    let contradiction = |found| Contradiction {
        leader: NodeId(2),
        term: Term(1),
        differs: Differs::Entry {
            found,
            committed: Term(1),
        },
    };
    broken(follower(), "contradicts nothing", |raft| {
        raft.role = Some(Role::Withdrawn(Withdrawn::new(contradiction(end(9, 9)))));
    });
    broken(follower(), "one that is the same", |raft| {
        raft.role = Some(Role::Withdrawn(Withdrawn::new(contradiction(end(1, 1)))));
    });
}

#[test]
fn a_leader_has_its_own_vote_and_ends_its_log() {
    broken(leader(), "its own vote", |raft| {
        raft.shared.hard = HardState::restored(Term(1), Some(NodeId(2)));
    });
    broken(leader(), "an entry of its own", |raft| {
        raft.shared.hard = HardState::restored(Term(2), Some(NodeId(1)));
    });
}

#[test]
fn a_read_for_a_version_that_is_there_does_not_wait() {
    broken(follower(), "a read waits for", |raft| {
        let read = crate::reads::Read {
            reply_to: ReplyTo::Local(Ticket(9)),
            query: trilemma_core::Query::Get("key".into()),
            deadline: Instant::NEVER,
        };
        let level = trilemma_core::ReadLevel::MinVersion(Version(1));
        raft.shared.version_reads.register(Index(1), read, level);
    });
}

#[test]
fn a_node_does_not_follow_itself() {
    broken(follower(), "does not follow itself", |raft| {
        let Some(Role::Follower(follower)) = &mut raft.role else {
            unreachable!("it follows node 2")
        };
        follower.on_heard(&mut raft.shared, Instant::ZERO, NodeId(1));
    });
}

#[test]
fn a_candidate_has_its_own_vote() {
    broken(candidate(), "its own vote", |raft| {
        raft.shared.hard = HardState::restored(Term(1), Some(NodeId(2)));
    });
    let votes = attempt(|| Votes::default().check(NodeId(1), &[NodeId(1)].into()));
    assert!(votes.is_err(), "votes are asked for without the own one");
}

#[test]
fn a_leader_keeps_what_it_has_sent_and_counts_what_waits() {
    broken(leader(), "first entry", |raft| {
        raft.shared.pending.take_in_log(Index(2));
        raft.shared.log.truncate(Index(1));
    });
    broken(leader(), "bytes that are not applied", |raft| {
        raft.shared.log.extend([noop(1)]);
    });
    // A follower that is believed to have more than is in a record.
    let mut bare = Bare::new();
    bare.lead();
    let (term, round, last) = (Term(1), 0, bare.raft.log_end().index);
    let result = AppendResult::Matched(last);
    bare.receive(Message::AppendReply { term, round, result });
    broken(bare.raft, "our records go up to", |raft| {
        raft.shared.pending.take_in_log(last);
        raft.shared.log.truncate(last);
    });
}

#[test]
fn a_follower_is_sent_only_what_is_in_a_record() {
    let mut bare = Bare::new();
    bare.lead();
    let (term, round, result) = (Term(1), 0, AppendResult::Matched(Index(1)));
    bare.receive(Message::AppendReply { term, round, result });
    broken(bare.raft, "is to get 3, our records go up to 1", |raft| {
        raft.shared.pending.take_in_log(Index(2));
        raft.shared.log.truncate(Index(2));
    });
}

#[test]
fn a_step_ends_with_the_checks() {
    let mut bare = Bare::new();
    bare.raft.shared.commit = Index(9);
    let caught = attempt(|| bare.step(Input::Wake));
    assert!(
        caught.is_err(),
        "a node goes on although it commits what it does not have"
    );
}
