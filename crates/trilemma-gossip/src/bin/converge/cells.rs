//! What is measured: one cluster for each combination of settings.

use std::time::Duration;

use trilemma_core::{Incarnation, NodeId};
use trilemma_gossip::GossipConfig;
use trilemma_gossip::config::Durability;
use trilemma_gossip::predictor::{Params, Phases};

/// Period of a tick.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// One-way delay: a twentieth of a tick.
pub(crate) const LATENCY: Duration = Duration::from_millis(5);
/// Bytes of a value that is sent whole, and of one that is fetched.
const SMALL: usize = 10;
const LARGE: usize = 1024;
/// Members of a group, where there are any.
const GROUP: u32 = 10;
/// Senders that are preferred, in percent, where any are.
const TOP: u8 = 20;

/// What a cell has beside nodes, fanout, loss and vouchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extra {
    /// Nothing.
    None,
    /// Groups of ten.
    Groups,
    /// Of the senders of most news a fifth is preferred.
    Top,
    /// Both.
    GroupsAndTop,
    /// Values that are sent once, and by name else.
    Lazy,
}

/// One combination of settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) nodes: u32,
    pub(crate) fanout: u32,
    /// Messages lost, in percent.
    pub(crate) loss: u32,
    pub(crate) vouchers: u32,
    pub(crate) phases: Phases,
    pub(crate) extra: Extra,
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        let phases = match self.phases {
            Phases::Random => "",
            Phases::Synchronised => " in-step",
        };
        let extra = match self.extra {
            Extra::None => "",
            Extra::Groups => " groups",
            Extra::Top => " top",
            Extra::GroupsAndTop => " groups top",
            Extra::Lazy => " lazy",
        };
        let Self {
            nodes,
            fanout,
            loss,
            vouchers,
            ..
        } = self;
        format!("N={nodes} F={fanout} loss={loss}% k={vouchers}{phases}{extra}")
    }

    pub(crate) fn is_lazy(&self) -> bool {
        self.extra == Extra::Lazy
    }

    fn has_groups(&self) -> bool {
        matches!(self.extra, Extra::Groups | Extra::GroupsAndTop)
    }

    /// Bytes of a value.
    pub(crate) fn value(&self) -> usize {
        if self.is_lazy() { LARGE } else { SMALL }
    }

    /// The settings of a node, counted from 0.
    pub(crate) fn config(&self, node: u32, seed: u64) -> GossipConfig {
        let members = (1..=self.nodes).map(NodeId);
        let mut config = GossipConfig::new(NodeId(node + 1), Incarnation(1), members, seed);
        config.tick = TICK;
        config.latency = LATENCY;
        config.fanout = self.fanout;
        config.loss = f64::from(self.loss) / 100.0;
        config.vouchers = self.vouchers;
        config.durability = Durability::None;
        config.sync_ticks = u32::MAX;
        if matches!(self.extra, Extra::Top | Extra::GroupsAndTop) {
            config.top_senders_percent = TOP;
        }
        if self.has_groups() {
            let first = node / GROUP * GROUP;
            config.mates = (first..first + GROUP).map(|mate| NodeId(mate + 1)).collect();
        }
        config
    }

    /// What these settings are to the predictor.
    pub(crate) fn params(&self, config: &GossipConfig) -> Params {
        let params = Params {
            phases: self.phases,
            ..config.params()
        };
        if self.is_lazy() { params.fetched() } else { params }
    }
}

/// The cells for so many nodes: the whole table, or with `smoke` one of each family.
pub(crate) fn all(nodes: u32, smoke: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for phases in [Phases::Random, Phases::Synchronised] {
        for fanout in [1, 2, 3, 5] {
            for loss in [0, 10, 30] {
                for vouchers in [1, 2, 3] {
                    let plain = Cell {
                        nodes,
                        fanout,
                        loss,
                        vouchers,
                        phases,
                        extra: Extra::None,
                    };
                    let is_chosen = match fanout {
                        1 => vouchers == 1 && loss == 0,
                        3 => vouchers != 3 && loss == 10,
                        5 => vouchers == 3 && loss == 30,
                        _ => false,
                    };
                    if !smoke || is_chosen {
                        cells.push(plain);
                    }
                    if vouchers == 1 && (!smoke || fanout == 3 && loss == 10) {
                        cells.extend(with_extras(plain));
                    }
                }
            }
        }
    }
    cells
}

fn with_extras(plain: Cell) -> Vec<Cell> {
    let mut extras = vec![Extra::Groups];
    // A fanout of 1 has room for no one who is preferred.
    if plain.fanout > 1 {
        extras.extend([Extra::Top, Extra::GroupsAndTop]);
    }
    if plain.fanout == 3 {
        extras.push(Extra::Lazy);
    }
    extras.into_iter().map(|extra| Cell { extra, ..plain }).collect()
}
