//! The protocol instance of a keyspace, of whichever backend, with typed access for the checks of invariants.

use std::sync::Arc;

use trilemma_core::host::{DynProtocol, GroupInput, Host, Output};
use trilemma_core::{
    Backend, Checkpoint, Corrupt, Entry, Incarnation, Instant, KeyRange, LiveStatus, NodeId, Now, View,
};
use trilemma_gossip::signatures::{Authority, DIGEST_BYTES, Digest, SIGNATURE_BYTES, Signature};
use trilemma_gossip::{Gossip, GossipConfig, Signatures};
use trilemma_paxos::{Paxos, PaxosConfig};
use trilemma_raft::{Raft, RaftConfig};
use trilemma_two_phase::{TwoPhase, TwoPhaseConfig};

use crate::EPOCH;
use crate::config::{Durability, KeyspaceConfig, NodeSettings};

/// Changes the settings of protocols before they are built. Everything else about an instance is decided by [`Engine::build`].
pub trait Tune {
    /// Of backend `raft`.
    fn raft(&self, _config: &mut RaftConfig) {}
    /// Of backend `paxos`.
    fn paxos(&self, _config: &mut PaxosConfig) {}
    /// Of backend `gossip`.
    fn gossip(&self, _config: &mut GossipConfig) {}
    /// The keys of this node and its peers, for keyspaces with signatures.
    fn authority(&self) -> Option<Arc<dyn Authority>> {
        None
    }
    /// Of backend `two-phase`.
    fn two_phase(&self, _config: &mut TwoPhaseConfig) {}
}

/// Entries that a turn applies at least in a keyspace that has as many, however many keyspaces there are.
const APPLY_ENTRIES_MIN: usize = 32;

/// Stands for the keys of a node that was given none: it verifies nothing, so that nothing is taken in. Who starts nodes
/// refuses that before.
#[derive(Debug)]
struct NoKeys;

impl Authority for NoKeys {
    fn sign(&self, _: &[u8]) -> Signature {
        [0; SIGNATURE_BYTES]
    }

    fn verify(&self, _: NodeId, _: &[u8], _: &Signature) -> bool {
        false
    }

    fn digest(&self, _: &[u8]) -> Digest {
        [0; DIGEST_BYTES]
    }
}

/// Leaves every setting as it is.
impl Tune for () {}

/// One protocol instance with its host.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each keyspace of each node"
)]
pub enum Engine {
    /// Of backend `raft`.
    Raft(Host<Raft>),
    /// Of backend `paxos`.
    Paxos(Host<Paxos>),
    /// Of backend `gossip`.
    Gossip(Host<Gossip>),
    /// Of backend `two-phase`.
    TwoPhase(Host<TwoPhase>),
}

impl Engine {
    /// The instance of one keyspace for one incarnation of the node. `seed` is fresh randomness.
    #[must_use]
    pub fn build(
        settings: &NodeSettings,
        (name, keyspace): (&str, &KeyspaceConfig),
        incarnation: Incarnation,
        seed: u64,
        tune: &dyn Tune,
    ) -> Self {
        let node = settings.node;
        let (members, cluster) = (settings.members.iter(), &settings.cluster);
        match keyspace.backend {
            Backend::Gossip => {
                let mut gossip = GossipConfig::new(node, incarnation, members, seed);
                gossip.durability = match keyspace.effective_durability() {
                    Durability::None => trilemma_gossip::Durability::None,
                    Durability::Os => trilemma_gossip::Durability::Os,
                    Durability::Fsync => trilemma_gossip::Durability::Fsync,
                };
                let settings = &keyspace.gossip;
                (gossip.tick, gossip.fanout) = (settings.tick, settings.fanout);
                gossip.mates = settings.mates(node).collect();
                gossip.top_senders_percent = settings.top_senders_percent;
                gossip.vouchers = settings.vouchers;
                gossip.trusted = settings.trusted.iter().collect();
                gossip.origins = settings.origins.as_ref().map(|origins| origins.iter().collect());
                gossip.signatures = keyspace.gossip.signatures.then(|| Signatures {
                    domain: format!("{cluster}/{name}"),
                    authority: tune.authority().unwrap_or_else(|| Arc::new(NoKeys)),
                });
                tune.gossip(&mut gossip);
                Engine::Gossip(Host::new(Gossip::new(gossip)))
            }
            Backend::Paxos => {
                let mut paxos = PaxosConfig::new(node, members, incarnation, seed);
                paxos.epoch = EPOCH;
                paxos.round_timeout = settings.tuning.paxos_round_timeout;
                tune.paxos(&mut paxos);
                Engine::Paxos(Host::new(Paxos::new(paxos)))
            }
            Backend::Raft => {
                let mut raft = RaftConfig::new(node, incarnation, members, seed);
                raft.epoch = EPOCH;
                raft.heartbeat = settings.tuning.raft_heartbeat;
                raft.election_timeout = settings.tuning.raft_election_timeout;
                // All keyspaces may have much to apply in the same turn.
                let share = raft.apply_entries_max / settings.keyspaces.len().max(1);
                raft.apply_entries_max = share.max(APPLY_ENTRIES_MIN);
                tune.raft(&mut raft);
                Engine::Raft(Host::new(Raft::new(raft)))
            }
            Backend::TwoPhase => {
                let mut two_phase = TwoPhaseConfig::new(node, members, incarnation, seed);
                two_phase.epoch = EPOCH;
                two_phase.prepare_timeout = settings.tuning.two_phase_prepare_timeout;
                tune.two_phase(&mut two_phase);
                Engine::TwoPhase(Host::new(TwoPhase::new(two_phase)))
            }
        }
    }

    fn group_mut(&mut self) -> &mut dyn DynProtocol {
        match self {
            Engine::Raft(host) => host,
            Engine::Paxos(host) => host,
            Engine::Gossip(host) => host,
            Engine::TwoPhase(host) => host,
        }
    }

    fn group(&self) -> &dyn DynProtocol {
        match self {
            Engine::Raft(host) => host,
            Engine::Paxos(host) => host,
            Engine::Gossip(host) => host,
            Engine::TwoPhase(host) => host,
        }
    }

    /// See [`DynProtocol::restore`].
    pub fn restore(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        self.group_mut().restore(chunk)
    }

    /// See [`DynProtocol::replay`].
    pub fn replay(&mut self, record: &[u8]) -> Result<(), Corrupt> {
        self.group_mut().replay(record)
    }

    /// See [`DynProtocol::step`].
    pub fn step(&mut self, now: Now, input: GroupInput, output: &mut Output) {
        self.group_mut().step(now, input, output);
    }

    /// See [`DynProtocol::wake_at`].
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        self.group().wake_at()
    }

    /// See [`DynProtocol::goes_on`].
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.group().goes_on()
    }

    /// See [`DynProtocol::is_handing_over`].
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.group().is_handing_over()
    }

    /// See [`DynProtocol::checkpoint`].
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.group().checkpoint()
    }

    /// See [`DynProtocol::status`].
    #[must_use]
    pub fn status(&self, now: Now) -> LiveStatus {
        self.group().status(now)
    }

    /// See [`DynProtocol::view`].
    #[must_use]
    pub fn view(&self, range: &KeyRange) -> Box<dyn View> {
        self.group().view(range)
    }

    /// See [`DynProtocol::scan`].
    #[must_use]
    pub fn scan(&self, range: &KeyRange, limit: usize) -> Vec<Entry> {
        self.group().scan(range, limit)
    }
}
