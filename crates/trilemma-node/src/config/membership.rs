//! How members of a cluster find out who of them works.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use trilemma_core::NodeId;
use trilemma_membership::record::{ADDRESS_BYTES_MAX, ZONE_BYTES_MAX};
use trilemma_membership::{Config, Record, Seed};

/// Shortest and longest time between two probes.
const PERIOD: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_mins(1);
/// Shortest and longest time to wait for an answer.
const ANSWER: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_secs(10);

/// Settings of the failure detector; times are the same on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipSettings {
    /// Where this node listens, as others receive it.
    pub address: String,
    /// The failure domain that this node is in. Default none.
    pub zone: String,
    /// Whom to ask for the member list, and where they listen.
    pub seeds: BTreeMap<NodeId, String>,
    /// Time between two probes of this node, from 50 ms to a minute. Default 900 ms. A failure is first noticed after about
    /// this time; traffic without failures is in inverse proportion.
    pub period: Duration,
    /// How long a probe waits for its answer before others are asked, from 5 ms to 10 s. Default 200 ms: above almost all round
    /// trips. After two and a half times as long the probed member is suspect; `period` must be at least that.
    pub answer: Duration,
}

impl Default for MembershipSettings {
    fn default() -> Self {
        Self {
            address: String::new(),
            zone: String::new(),
            seeds: BTreeMap::new(),
            period: Duration::from_millis(900),
            answer: Duration::from_millis(200),
        }
    }
}

impl MembershipSettings {
    /// Refuses what cannot work.
    pub fn check(&self) -> Result<(), String> {
        for (key, time, range) in [
            ("period_ms", self.period, PERIOD),
            ("answer_ms", self.answer, ANSWER),
        ] {
            if !range.contains(&time) {
                let (from, to) = (range.start(), range.end());
                return Err(format!("{key} is {time:?}: from {from:?} to {to:?} are possible"));
            }
        }
        if self.period < self.verdict() {
            return Err(format!(
                "period_ms is {:?}: it must be at least two and a half times answer_ms ({:?})",
                self.period, self.answer
            ));
        }
        let (bytes, most) = (self.zone.len(), ZONE_BYTES_MAX);
        if bytes > most {
            return Err(format!("zone has {bytes} bytes: the limit is {most}"));
        }
        let addresses = self.seeds.values().chain([&self.address]);
        match addresses.map(String::len).max() {
            Some(bytes) if bytes > ADDRESS_BYTES_MAX => Err(format!(
                "an address has {bytes} bytes: the limit is {ADDRESS_BYTES_MAX}"
            )),
            _ => Ok(()),
        }
    }

    /// When a probe without an answer becomes a suspicion.
    fn verdict(&self) -> Duration {
        self.answer * 5 / 2
    }

    /// The settings of the machine of this node.
    pub(crate) fn config(&self, node: NodeId, random_seed: u64) -> Config {
        let record = Record {
            zone: self.zone.clone(),
            ..Record::new(node, self.address.clone())
        };
        let seed = |(node, address): (&NodeId, &String)| Seed {
            node: *node,
            address: address.clone(),
        };
        Config {
            seeds: self.seeds.iter().map(seed).collect(),
            period: self.period,
            ack_timeout: self.answer,
            nack_timeout: self.answer,
            verdict: self.verdict(),
            // The defaults' proportion.
            latency: self.answer / 20,
            ..Config::new(record, random_seed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_with_the_key_and_the_range() {
        let usual = MembershipSettings::default;
        assert_eq!(usual().check(), Ok(()));
        for (settings, why) in [
            (
                MembershipSettings {
                    period: Duration::from_millis(10),
                    ..usual()
                },
                "period_ms is 10ms: from 50ms to 60s",
            ),
            (
                MembershipSettings {
                    answer: Duration::from_secs(11),
                    ..usual()
                },
                "answer_ms is 11s",
            ),
            (
                MembershipSettings {
                    answer: Duration::from_millis(400),
                    ..usual()
                },
                "at least two and a half times",
            ),
            (
                MembershipSettings {
                    zone: "z".repeat(33),
                    ..usual()
                },
                "zone has 33 bytes",
            ),
            (
                MembershipSettings {
                    address: "a".repeat(129),
                    ..usual()
                },
                "an address has 129 bytes",
            ),
        ] {
            let refused = settings.check().unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
