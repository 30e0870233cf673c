//! What many keyspaces cost that have nothing to do.

use super::*;
use crate::frame::Coalescer;

const KEYSPACES: usize = 60;
const NODES: u32 = 3;
const MS: Duration = Duration::from_millis(1);

/// Frames that are under way.
type Letters = Vec<(ProcessId, NodeId, bytes::Bytes)>;

/// Runs all nodes for so many milliseconds, one turn each; a frame takes one. Returns how many frames were sent.
fn run(rigs: &mut [Rig], letters: &mut Letters, millis: u32) -> usize {
    let mut sent = 0;
    for _ in 0..millis {
        for (from, to, frame) in std::mem::take(letters) {
            let rig = &mut rigs[to.0 as usize - 1];
            rig.node.on_frame(rig.now, &from, frame);
        }
        for rig in rigs.iter_mut() {
            rig.now.instant = rig.now.instant + MS;
            rig.node.turn(rig.now, &mut rig.effects, &mut ());
            let process = rig.node.process();
            let messages = std::mem::take(&mut rig.effects.messages);
            Coalescer::default().pack(messages, &mut |to, _, frame| letters.push((process, to, frame)));
            rig.effects.replies.clear();
            rig.effects.items.clear();
            let batch = std::mem::take(&mut rig.effects.batch);
            rig.queue
                .submit(rig.now.instant, batch)
                .expect("the disk is sound");
            if rig.queue.write(rig.now.instant).expect("the disk is sound") == Due::Sync {
                rig.queue.sync().expect("the disk is sound");
            }
            let events: Vec<LogEvent> = rig.queue.take_events().collect();
            for event in events {
                rig.node.on_log(rig.now, event).expect("the disk is sound");
            }
        }
        sent += letters.len();
    }
    sent
}

#[test]
fn e3_idle_keyspaces_of_raft_share_one_frame() {
    let start = |node: u32| {
        let mut settings = settings(Backend::Raft, NODES, Limits::default());
        settings.node = NodeId(node);
        let keyspace = settings.keyspaces.remove("k").expect("it has one");
        settings.keyspaces = (0..KEYSPACES)
            .map(|number| (format!("k{number}"), keyspace.clone()))
            .collect();
        let seed = std::cell::Cell::new(u64::from(node) << 32);
        Rig::start_with(&settings, MemoryDisk::new(), &mut || {
            seed.set(seed.get() + 1);
            seed.get()
        })
    };
    let mut rigs: Vec<Rig> = (1..=NODES).map(start).collect();
    let mut letters = Letters::new();
    run(&mut rigs, &mut letters, 2000);
    let leaders: Vec<NodeId> = rigs[0]
        .node
        .replicas()
        .iter()
        .filter_map(|replica| replica.status(rigs[0].now).leader)
        .collect();
    assert_eq!(leaders.len(), KEYSPACES, "all have a leader");
    assert!(
        (1..=NODES).all(|node| leaders.contains(&NodeId(node))),
        "{leaders:?}"
    );
    // In a second, between each two nodes: 20 frames of heartbeats, 20 of answers, and pings.
    let links = (NODES * (NODES - 1)) as usize;
    let sent = run(&mut rigs, &mut letters, 1000);
    assert!(
        sent <= links * 65,
        "{} frames a second over each link",
        sent / links
    );
}
