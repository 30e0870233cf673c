//! Frames of peers: each message is taken, and what one says of members counts once it is whole.

use super::*;

#[test]
fn every_message_of_a_frame_is_handed_on() {
    let mut rig = Rig::start(
        &settings(Backend::Gossip, 2, Limits::default()),
        MemoryDisk::new(),
    );
    let mut frame = bytes::BytesMut::new();
    put_item(&mut frame, ks(), b"one");
    put_item(&mut frame, NODE_RECORDS, &codec::encode(&NodeMessage::Meet));
    put_item(&mut frame, ks(), b"another");
    put_item(&mut frame, NODE_RECORDS, &codec::encode(&NodeMessage::Meet));
    put_item(&mut frame, ks(), b"a third");
    rig.node.on_frame(rig.now, &process(2, 9, 1), frame.freeze());
    assert_eq!((rig.node.replicas()[0].received(), rig.node.received()), (3, 2));
}

impl Rig {
    /// A frame of a peer's process with these messages of the node itself.
    fn hear(&mut self, from: &ProcessId, messages: &[NodeMessage]) {
        let mut frame = bytes::BytesMut::new();
        for message in messages {
            put_item(&mut frame, NODE_RECORDS, &codec::encode(message));
        }
        self.node.on_frame(self.now, from, frame.freeze());
    }
}

/// A ping of incarnation 1 of a peer, which echoes the first ping of this node's incarnation.
fn echoing(node: &Node<u64>) -> NodeMessage {
    NodeMessage::Ping(Ping {
        incarnation: Incarnation(1),
        number: 1,
        echo: Some((node.incarnation(), 1)),
    })
}

/// A node of a founded cluster of three that has just started again, with a write that waits for a majority.
fn restarted_with_a_write() -> (Rig, u64) {
    let disk = MemoryDisk::new();
    let settings = settings(Backend::Paxos, 3, Limits::default());
    let mut rig = Rig::start(&settings, disk.clone());
    let this = rig.node.process().disk;
    for peer in [2, 3] {
        rig.hear(&process(peer, 1, 5), &[NodeMessage::Keeps(this)]);
    }
    assert!(rig.node.peers().is_founded());
    rig.turns(3);
    rig.queue.close().expect("the disk is sound");
    let mut rig = Rig::start(&settings, disk);
    assert!(rig.node.peers().is_founded());
    rig.turn(true);
    let asked = rig.put(1, Attempt::First);
    rig.turn(true);
    assert_eq!(rig.replies.get(&asked), None, "who is there is not known yet");
    (rig, asked)
}

#[test]
fn a_frame_that_proves_a_majority_refuses_nothing_for_want_of_it() {
    let (mut rig, asked) = restarted_with_a_write();
    let ping = echoing(&rig.node);
    rig.hear(&process(2, 1, 5), &[ping]);
    rig.turn(true);
    assert_eq!(rig.replies.get(&asked), None, "node 2 has just been heard");
    let status = rig.node.replicas()[0].status(rig.now);
    assert!(status.can_write, "{status:?}");
}

#[test]
fn a_peer_that_is_counted_again_is_no_news_of_those_who_were_not_heard() {
    let (mut rig, asked) = restarted_with_a_write();
    rig.hear(&process(2, 1, 5), &[NodeMessage::Meet]);
    rig.turn(true);
    assert_eq!(rig.replies.get(&asked), None, "nobody is known to be silent yet");
    // Until all have been silent for long enough.
    rig.now.instant = rig.now.instant + Duration::from_millis(400);
    rig.turn(true);
    let reply = rig.replies.get(&asked);
    assert!(
        matches!(refusal(reply), Some(Reason::NoQuorum { .. })),
        "{reply:?}"
    );
}
