//! Who is counted: founding, lost disks, copies.

use trilemma_testkit::caught;

use super::*;

fn process(node: u32, incarnation: u64, disk: u64) -> ProcessId {
    ProcessId {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        disk: DiskId(disk),
        nonce: incarnation * 1000 + disk,
    }
}

/// A node with its log, in which everything is durable when the test says so.
struct Member {
    peers: Peers,
    log: BTreeMap<NodeId, Kept>,
    last: LogSeq,
}

impl Member {
    fn new(this: ProcessId, members: &[u32]) -> Self {
        let others = members.iter().map(|id| NodeId(*id)).filter(|id| *id != this.node);
        Self {
            peers: Peers::new(this, others, true, false, &BTreeMap::new()),
            log: BTreeMap::new(),
            last: LogSeq(0),
        }
    }

    /// The same directory in another incarnation.
    fn restart(&mut self, members: &[u32]) {
        let mut this = self.peers.this();
        this.incarnation = this.incarnation.next();
        this.nonce += 1;
        let others = members.iter().map(|id| NodeId(*id)).filter(|id| *id != this.node);
        self.peers = Peers::new(this, others, true, self.peers.is_founded(), &self.log);
    }

    fn hear(&mut self, from: &ProcessId) -> bool {
        let Ok(heard) = self.peers.hear(from) else {
            return false;
        };
        self.keep(heard.keep);
        true
    }

    fn keep(&mut self, kept: Option<Kept>) {
        if let Some(kept) = kept {
            self.last = self.last.plus(1);
            self.log.insert(kept.node, kept);
            self.peers.appended(kept.node, self.last);
        }
        self.peers.check();
    }

    fn persist(&mut self) -> Vec<(NodeId, DiskId)> {
        let mut answered = Vec::new();
        self.peers
            .persisted(self.last, |to, disk| answered.push((to, disk)));
        answered
    }
}

/// Every pair meets, where both have the other among their members.
fn meet(members: &mut [Member]) {
    for from in 0..members.len() {
        for to in 0..members.len() {
            let (this, there) = (members[from].peers.this(), members[to].peers.this());
            if this.node == there.node || !members[from].peers.peers.contains_key(&there.node) {
                continue;
            }
            if members[to].hear(&this) {
                members[to].peers.asked(this.node);
            }
            for (node, disk) in members[to].persist() {
                if node == this.node && members[from].hear(&there) {
                    members[from].peers.keeps(there.node, disk);
                }
            }
        }
    }
}

const THREE: [u32; 3] = [1, 2, 3];

fn cluster() -> Vec<Member> {
    let member = |id: u32| Member::new(process(id, 100, id.into()), &THREE);
    THREE.map(member).into()
}

#[test]
fn a_cluster_is_founded_when_every_member_keeps_every_disk() {
    let mut members = cluster();
    let third = members.pop().expect("three members");
    meet(&mut members);
    for member in &members {
        assert!(!member.peers.is_founded(), "node 3 is missing");
        let why = member.peers.why_silent().expect("it is silent");
        assert!(why.contains("nodes 3 have not"), "{why}");
    }
    members.push(third);
    let changes = members[0].peers.changes();
    meet(&mut members);
    assert!(
        members[0].peers.changes() > changes + 1,
        "a peer was met, and the cluster founded"
    );
    for member in &members {
        assert!(member.peers.is_founded());
        assert_eq!(member.peers.why_silent(), None);
        for id in THREE {
            let is_counted = member.peers.is_counted(&process(id, 100, id.into()));
            assert_eq!(is_counted, member.peers.this().node != NodeId(id));
        }
    }
}

#[test]
fn a_disk_is_said_to_be_kept_when_the_log_has_it_and_not_before() {
    let mut one = Member::new(process(1, 100, 1), &THREE);
    assert!(one.hear(&process(2, 100, 2)));
    one.peers.asked(NodeId(2));
    one.peers
        .persisted(LogSeq(0), |_, _| panic!("nothing is durable"));
    assert_eq!(one.persist(), [(NodeId(2), DiskId(2))]);
    assert_eq!(one.persist(), [], "once for each question");
}

#[test]
fn h9_a_member_that_has_lost_its_disk_is_refused_and_taken_back_with_the_one_that_it_had() {
    let mut members = cluster();
    meet(&mut members);
    let lost = process(2, 200, 22);
    members[1] = Member::new(lost, &THREE);
    for member in [0, 2] {
        // What they keep outlives them.
        members[member].restart(&THREE);
    }
    meet(&mut members);
    for member in [0, 2] {
        let peers = &members[member].peers;
        assert!(!peers.is_counted(&lost));
        let refused = peers.admit(&lost).expect_err("another disk").to_string();
        for part in [
            DiskId(2).to_string(),
            DiskId(22).to_string(),
            "keep both".into(),
            format!("--accept-disk 2={}", DiskId(22)),
        ] {
            assert!(refused.contains(&part), "{part}: {refused}");
        }
        assert!(peers.is_founded(), "the others go on");
    }
    let peers = &members[1].peers;
    assert!(!peers.is_founded() && !peers.is_counted(&process(1, 101, 1)));
    assert!(
        peers
            .why_silent()
            .is_some_and(|why| why.contains("nodes 1, 3 have not"))
    );
    // The directory that was not mounted is found again. Nobody had counted on the other one.
    members[1] = Member::new(process(2, 101, 2), &THREE);
    meet(&mut members);
    assert!(members.iter().all(|member| member.peers.is_founded()));
    assert!(members[0].peers.is_counted(&process(2, 101, 2)));
    assert_eq!(members[0].peers.refusal(NodeId(2)), None);
}

#[test]
fn a_disk_that_was_accepted_is_heard_and_not_counted() {
    let mut members = cluster();
    meet(&mut members);
    let new = process(2, 200, 22);
    members[1] = Member::new(new, &THREE);
    for member in [0, 2] {
        let kept = members[member].peers.accept(NodeId(2), DiskId(22));
        members[member].keep(kept);
        assert_eq!(
            members[member].peers.accept(NodeId(2), DiskId(22)),
            None,
            "no news"
        );
        members[member].restart(&THREE);
        assert_eq!(members[member].peers.admit(&new), Ok(()));
    }
    meet(&mut members);
    for member in [0, 2] {
        let peers = &members[member].peers;
        assert!(!peers.is_counted(&new));
        assert!(
            peers
                .refusal(NodeId(2))
                .is_some_and(|why| why.contains("without node 2"))
        );
        let former = process(2, 101, 2);
        let refused = peers
            .admit(&former)
            .expect_err("it has been replaced")
            .to_string();
        assert!(refused.contains("another was accepted"), "{refused}");
    }
    let why = members[1].peers.why_silent().expect("it is silent");
    assert!(why.contains(&DiskId(2).to_string()), "{why}");
}

#[test]
fn before_a_cluster_is_founded_nothing_was_promised_and_a_disk_may_be_replaced() {
    let mut members = cluster();
    let third = members.pop().expect("three members");
    meet(&mut members);
    members[1] = Member::new(process(2, 200, 22), &THREE);
    meet(&mut members);
    members.push(third);
    meet(&mut members);
    assert!(members.iter().all(|member| member.peers.is_founded()));
    assert!(members[0].peers.is_counted(&process(2, 200, 22)));
    assert!(!members[0].peers.is_counted(&process(2, 100, 2)));
}

#[test]
fn where_nobody_counts_majorities_a_new_disk_is_taken_at_once() {
    let this = process(1, 100, 1);
    let mut one = Member::new(this, &THREE);
    one.peers = Peers::new(this, [NodeId(2), NodeId(3)], false, true, &BTreeMap::new());
    for process in [process(2, 100, 2), process(2, 200, 22)] {
        assert_eq!(one.peers.admit(&process), Ok(()));
        assert!(one.hear(&process));
    }
    assert!(one.peers.admit(&process(2, 101, 2)).is_err(), "it was set back");
}

/// Nodes 1 and 2 were given three members, and 3, 4, 5 five, before they have ever met. Without founding, each side
/// would have a majority of its own list.
#[test]
fn fresh_directories_with_different_member_lists_found_no_two_clusters() {
    let five = [1, 2, 3, 4, 5];
    let member = |id: u32| {
        let list: &[u32] = if id < 3 { &THREE } else { &five };
        Member::new(process(id, 100, id.into()), list)
    };
    let mut left: Vec<Member> = [1, 2].map(member).into();
    let mut right: Vec<Member> = [3, 4, 5].map(member).into();
    for _ in 0..3 {
        // The hello keeps lists that differ apart.
        meet(&mut left);
        meet(&mut right);
    }
    assert!(!left.iter().chain(&right).any(|member| member.peers.is_founded()));
}

#[test]
fn h9_a_second_process_of_an_incarnation_is_refused() {
    let mut one = Member::new(process(1, 100, 1), &THREE);
    let first = process(2, 100, 2);
    let copy = ProcessId { nonce: 5, ..first };
    assert!(one.hear(&first));
    assert!(!one.hear(&copy), "its frames are dropped");
    assert!(one.hear(&first));
    one.restart(&THREE);
    assert_eq!(one.peers.admit(&first), Ok(()));
    let refused = one.peers.admit(&copy).expect_err("a copy").to_string();
    for part in [
        format!("{:016x}", 5),
        format!("{:016x}", first.nonce),
        "keep both".into(),
    ] {
        assert!(refused.contains(&part), "{part}: {refused}");
    }
    let later = process(2, 101, 2);
    assert_eq!(one.peers.admit(&later), Ok(()));
    assert!(one.hear(&later));
    let refused = one.peers.admit(&first).expect_err("set back").to_string();
    assert!(refused.contains("set back to an earlier copy"), "{refused}");
    assert!(
        one.hear(&first),
        "what was under way when it restarted still counts"
    );
}

#[test]
fn a_node_alone_needs_nobody() {
    let one = Member::new(process(1, 100, 1), &[1]);
    assert!(one.peers.is_founded());
}

#[test]
fn the_check_sees_a_node_that_waits_for_peers_that_it_does_not_have() {
    let mut alone = Member::new(process(1, 1, 11), &[1]);
    alone.peers.check();
    alone.peers.is_founded = false;
    assert!(caught(|| alone.peers.check()).contains("waits for nobody"));
}

#[test]
fn the_check_sees_what_is_kept_of_another_or_of_nobody() {
    let mut member = Member::new(process(1, 1, 11), &[1, 2]);
    assert!(member.hear(&process(2, 1, 12)));
    let peer = member.peers.peers.get_mut(&NodeId(2)).expect("a peer");
    let kept = peer.kept.take();
    assert!(caught(|| member.peers.check()).contains("was heard and is not kept"));
    let peer = member.peers.peers.get_mut(&NodeId(2)).expect("a peer");
    peer.kept = kept.map(|kept| Kept {
        node: NodeId(3),
        ..kept
    });
    assert!(caught(|| member.peers.check()).contains("is of another"));
}
