//! Settings that came later than others, drawn after all else so that seeds keep what they had drawn before.

use super::{DEFAULT, Knobs, Setting, Swarm};
use crate::scenario::Protocol;

/// By protocol, in the order in which they are drawn.
const LATE: &[(Protocol, &[Setting])] = &[
    (
        Protocol::Raft,
        &[("raft.pinned_bytes_max", &[0, 0, 500, DEFAULT])],
    ),
    (
        Protocol::Paxos,
        &[("paxos.sessions_max", &[1, 2, 8, DEFAULT, DEFAULT])],
    ),
    (
        Protocol::Raft,
        &[
            ("raft.apply_entries_max", &[1, 1, 3, DEFAULT, DEFAULT]),
            ("raft.apply_bytes", &[1, 300, DEFAULT, DEFAULT]),
            ("raft.commit_delay", &[0, 20_000, DEFAULT, DEFAULT]),
        ],
    ),
    (
        Protocol::Paxos,
        &[
            ("paxos.chosen_delay", &[0, 20_000, DEFAULT, DEFAULT]),
            ("paxos.turn_rounds", &[1, 2, DEFAULT, DEFAULT]),
        ],
    ),
    (
        Protocol::TwoPhase,
        &[
            ("two-phase.batch_transactions", &[1, 2, DEFAULT, DEFAULT]),
            ("two-phase.turn_operations", &[1, 2, DEFAULT, DEFAULT]),
            ("two-phase.turn_bytes", &[1, 300, DEFAULT, DEFAULT]),
            ("two-phase.forwards_max", &[1, 2, DEFAULT, DEFAULT]),
        ],
    ),
    (
        Protocol::Gossip,
        &[
            ("gossip.turn_items", &[1, 2, 8, DEFAULT, DEFAULT]),
            ("gossip.loss", &[0, 300, DEFAULT]),
            ("gossip.miss_probability", &[1, 200, DEFAULT]),
        ],
    ),
];

/// Of the node, whatever it serves.
const NODE: &[Setting] = &[
    ("node.ping_interval", &[10_000, 25_000, DEFAULT, DEFAULT]),
    ("node.peer_timeout", &[400_000, DEFAULT, DEFAULT]),
    // States are small here: with their size counted, few snapshots would be taken.
    ("node.snapshot_state_percent", &[0, 0, 10, DEFAULT]),
];

/// As [`LATE`], and later.
const LATER: &[(Protocol, &[Setting])] = &[
    (
        Protocol::Raft,
        &[("raft.feed_bytes", &[1, 300, DEFAULT, DEFAULT])],
    ),
    (
        Protocol::Raft,
        &[("raft.transfer_rate", &[30_000, 300_000, DEFAULT, DEFAULT])],
    ),
];

/// As [`LATER`], and later.
const LATEST: &[(Protocol, &[Setting])] = &[(
    Protocol::Gossip,
    &[
        // Changes are small here: with more, none is ever fetched.
        ("gossip.lazy_bytes", &[0, 0, 40, DEFAULT]),
        ("gossip.fetch_ticks", &[1, 2, DEFAULT]),
        ("gossip.fetch_bytes_max", &[1, DEFAULT]),
    ],
)];

/// As [`NODE`], and later.
const NODE_LATER: &[Setting] = &[
    // Records are small here: with less of a window, keyspaces wait for each other.
    ("node.log_window_bytes", &[1, 1, 200, 4000, DEFAULT, DEFAULT]),
];

impl Swarm {
    /// See the module.
    pub(super) fn late_knobs(&mut self, knobs: &mut Knobs) {
        self.draw_of(LATE, knobs);
        self.draw(NODE, knobs);
        self.draw_of(LATER, knobs);
        self.draw(NODE_LATER, knobs);
        self.draw_of(LATEST, knobs);
    }

    fn draw_of(&mut self, settings: &[(Protocol, &[Setting])], knobs: &mut Knobs) {
        for (protocol, settings) in settings {
            if self.protocol.parts().contains(protocol) {
                self.draw(settings, knobs);
            }
        }
    }

    fn draw(&mut self, settings: &[Setting], knobs: &mut Knobs) {
        for (name, values) in settings {
            let value = self.pick(values);
            if value != DEFAULT {
                knobs.insert((*name).to_owned(), value);
            }
        }
    }
}
