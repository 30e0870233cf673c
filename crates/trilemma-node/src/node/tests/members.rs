//! Membership as a node hosts it: what it announces waits for the disk, and every start outranks the one before.

use trilemma_membership::{Message, State};

use super::*;
use crate::config::{MEMBERSHIP, MembershipSettings};
use crate::message::MemberMessage;

fn with_members() -> NodeSettings {
    let seed = (NodeId(2), "127.0.0.1:2".to_owned());
    NodeSettings {
        membership: Some(MembershipSettings {
            address: "127.0.0.1:1".into(),
            zone: "a".into(),
            seeds: BTreeMap::from([seed]),
            ..MembershipSettings::default()
        }),
        ..settings(Backend::Gossip, 2, Limits::default())
    }
}

impl Rig {
    /// Ends a turn; what of membership it has sent.
    fn said(&mut self, disk: bool) -> Vec<Message> {
        self.now.instant = self.now.instant + Duration::from_millis(50);
        self.node.turn(self.now, &mut self.effects, &mut ());
        let said = self.effects.messages.drain(..);
        let said = said.filter(|envelope| envelope.keyspace == MEMBERSHIP);
        let said: Vec<Message> = said
            .map(|envelope| {
                let message = codec::decode::<MemberMessage>(&envelope.bytes).expect("our own encoding");
                assert_eq!(message.stream, envelope.lane != trilemma_core::Lane::Datagram);
                message.message
            })
            .collect();
        let batch = std::mem::take(&mut self.effects.batch);
        self.queue
            .submit(self.now.instant, batch)
            .expect("the disk is sound");
        if disk {
            self.work_disk();
        }
        said
    }

    /// Until it announces itself; its epoch then.
    fn announced(&mut self) -> u64 {
        for _ in 0..200 {
            if let Some(news) = self.said(true).iter().find_map(Message::news) {
                return news.sender.0.epoch;
            }
        }
        panic!("it never announces itself");
    }
}

/// A node announces epoch 5, the power fails, and it starts with epoch 5 again: what was said of the first run would be
/// taken for the second.
#[test]
fn an_epoch_is_announced_only_once_it_is_durable_and_every_start_has_a_greater_one() {
    let disk = MemoryDisk::new();
    let settings = with_members();
    let mut rig = Rig::start(&settings, disk.clone());
    for _ in 0..100 {
        assert_eq!(rig.said(false), [], "nothing of it is durable yet");
    }
    assert_eq!(rig.announced(), 1);
    drop(rig);
    disk.crash(&mut trilemma_core::Rng::new(1));
    let mut rig = Rig::start(&settings, disk.clone());
    assert_eq!(rig.announced(), 2);
    let mut without = settings.clone();
    without.membership = None;
    rig.node.request_snapshot();
    rig.turns(3);
    drop(rig);
    // Its epoch outlives a time without membership, and the log in front of a snapshot.
    let mut rig = Rig::start(&without, disk.clone());
    assert_eq!(rig.said(true), []);
    rig.node.request_snapshot();
    rig.turns(3);
    drop(rig);
    assert_eq!(Rig::start(&settings, disk).announced(), 3);
}

#[test]
fn whatever_a_peer_says_of_members_ends_nothing() {
    let mut rig = Rig::start(&with_members(), MemoryDisk::new());
    rig.announced();
    let gossip = MemberMessage {
        stream: false,
        message: Message::Gossip(trilemma_membership::News::default()),
    };
    let good = codec::encode(&gossip);
    for bytes in [&b""[..], b"\xff\xff\xff", &good[..good.len() - 1], &good] {
        let mut frame = bytes::BytesMut::new();
        put_item(&mut frame, MEMBERSHIP, bytes);
        rig.node.on_frame(rig.now, &process(2, 9, 1), frame.freeze());
        rig.said(true);
    }
    let members = rig.node.members().expect("it is configured");
    assert_eq!(members.counters().received, 4);
    let own = members.standing(NodeId(1)).expect("it knows itself");
    assert_eq!(own.state(), State::Alive);
}
