//! Profiles: kinds of runs that one distribution of scenarios cannot hold. `standard` is [`crate::swarm`]'s; each other
//! draws its sizes, lets the swarm draw the rest for them, and then changes what makes it what it is.

mod client;
mod large;
mod load;
mod long;
mod restart;
mod watch;

use std::fmt;
use std::str::FromStr;

use trilemma_core::Rng;
use trilemma_node::Durability;

use crate::randomness::{Purpose, Randomness};
use crate::scenario::{Protocol, Scenario};
use crate::swarm;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;

/// A kind of runs. Others come at the end: a profile's place names its streams of choices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Small clusters, short runs, everything at once.
    #[default]
    Standard,
    /// Many nodes, operations, clients and bytes, and tiny queues.
    Large,
    /// Progress is demanded while clients write.
    Load,
    /// Crashes while a node starts, and settings that change over a restart.
    Restart,
    /// Minutes of little work.
    Long,
    /// Watchers that are slow, leave, and resume elsewhere.
    Watch,
    /// Clients that go through the client library, and lose connections and sessions.
    Client,
}

/// No profile has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile \"{0}\": expected standard, large, load, restart, long, watch or client")]
pub struct UnknownProfile(String);

impl From<UnknownProfile> for String {
    fn from(error: UnknownProfile) -> Self {
        error.to_string()
    }
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 7] = [
        Profile::Standard,
        Profile::Large,
        Profile::Load,
        Profile::Restart,
        Profile::Long,
        Profile::Watch,
        Profile::Client,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Standard => "standard",
            Profile::Large => "large",
            Profile::Load => "load",
            Profile::Restart => "restart",
            Profile::Long => "long",
            Profile::Watch => "watch",
            Profile::Client => "client",
        }
    }

    /// What it draws, as text.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Profile::Standard => STANDARD,
            Profile::Large => large::DESCRIPTION,
            Profile::Load => load::DESCRIPTION,
            Profile::Restart => restart::DESCRIPTION,
            Profile::Long => long::DESCRIPTION,
            Profile::Watch => watch::DESCRIPTION,
            Profile::Client => client::DESCRIPTION,
        }
    }

    /// The scenario of a seed.
    #[must_use]
    pub fn scenario(self, protocol: Protocol, seed: u64) -> Scenario {
        // Streams of their own: the swarm has those below.
        let rng = Randomness::new(seed).stream(Purpose::Plan, (self as u64) << 32 | protocol as u64);
        let mut scenario = match self {
            Profile::Standard => swarm::scenario(protocol, seed),
            Profile::Large => large::scenario(protocol, seed, Draw(rng)),
            Profile::Load => load::scenario(protocol, seed, Draw(rng)),
            Profile::Restart => restart::scenario(protocol, seed, Draw(rng)),
            Profile::Long => long::scenario(protocol, seed, Draw(rng)),
            Profile::Watch => watch::scenario(protocol, seed, Draw(rng)),
            Profile::Client => client::scenario(protocol, seed, Draw(rng)),
        };
        if matches!(self, Profile::Restart | Profile::Long) {
            scenario.adders = swarm::adders(protocol, seed);
        }
        scenario
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Profile::ALL.into_iter().find(|profile| profile.name() == text);
        found.ok_or_else(|| UnknownProfile(text.chars().take(40).collect()))
    }
}

/// See [`Profile::description`]. The figures are those of [`crate::swarm`].
const STANDARD: &str = "\
standard: small clusters, short runs, everything at once
  nodes          1 to 5, mostly 3
  clients        2 to 10; keys 1 to 150; operations 110 to 169; values to 300 B
  time           heal after 1.5 s, 2.5 s or 4 s
  faults         50 at least, each class with a chance of 40 %
  settings       each with its minimum, something tiny, the default, something huge
";

/// What profiles draw from.
struct Draw(Rng);

impl Draw {
    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.0.below(items.len() as u64) as usize]
    }

    /// From `low` to `high`, both included.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high - low + 1)
    }

    /// A stream for the swarm.
    fn fork(&mut self) -> Rng {
        Rng::new(self.0.next_u64())
    }

    /// What every profile but the first draws: whether a cut lets through what is under way, and what gossip waits for.
    fn common(&mut self, scenario: &mut Scenario) {
        scenario.network.passing = self.0.per_mille(500);
        let durability = self.pick(&[
            Durability::None,
            Durability::Os,
            Durability::Fsync,
            Durability::Fsync,
        ]);
        if scenario.protocol.parts().contains(&Protocol::Gossip) && durability != Durability::Fsync {
            let value = u64::from(durability == Durability::Os);
            scenario.knobs.insert("node.durability".to_owned(), value);
        }
    }
}

/// Sets the bytes of one part of a state that is transferred.
fn chunk_bytes(scenario: &mut Scenario, bytes: u64) {
    for part in scenario.protocol.parts() {
        let name = match part {
            Protocol::Raft => "raft.chunk_bytes",
            Protocol::TwoPhase => "two-phase.chunk_bytes",
            Protocol::Gossip => "gossip.page_bytes",
            Protocol::Paxos | Protocol::Mixed => continue,
        };
        scenario.knobs.insert(name.to_owned(), bytes.max(1));
    }
}
