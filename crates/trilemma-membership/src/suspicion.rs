//! How long a suspicion lasts: the shorter, the more members found the suspect silent (Lifeguard, section IV-B).

use std::time::Duration;

use trilemma_core::{Instant, NodeId};

use crate::message::ACCUSERS_MAX;

/// Confirmations beyond the first accuser that shorten a suspicion to its minimum (`K`).
pub(crate) const CONFIRMATIONS: usize = 2;
/// How much longer a suspicion without a confirmation lasts than one with all of them.
pub(crate) const LENGTHENED: u32 = 6;
/// `ln(n+1) / ln(K+1)` in per mille, for n = 0, 1, 2 confirmations and K = 2.
const SHORTENED_PER_MILLE: [u32; CONFIRMATIONS + 1] = [0, 631, 1000];

const _: () = assert!(CONFIRMATIONS + 1 == ACCUSERS_MAX);

/// A suspicion that is neither confirmed nor refuted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suspicion {
    started: Instant,
    /// What is added because this node was not running.
    paused: Duration,
    least: Duration,
    lengthened: u32,
    accusers: Vec<NodeId>,
}

impl Suspicion {
    /// A suspicion by these accusers that lasts at least `least`, and six times as long without a confirmation.
    pub(crate) fn new(now: Instant, least: Duration, accusers: &[NodeId]) -> Self {
        let mut suspicion = Self {
            started: now,
            paused: Duration::ZERO,
            least,
            lengthened: LENGTHENED,
            accusers: Vec::new(),
        };
        for accuser in accusers {
            suspicion.confirm(*accuser);
        }
        suspicion
    }

    /// One of plain SWIM: it lasts that long, however many confirm it.
    pub(crate) fn fixed(now: Instant, least: Duration, accusers: &[NodeId]) -> Self {
        Self {
            lengthened: 1,
            ..Self::new(now, least, accusers)
        }
    }

    /// Counts an accuser; says whether that is news.
    pub(crate) fn confirm(&mut self, accuser: NodeId) -> bool {
        if self.accusers.len() == ACCUSERS_MAX || self.accusers.contains(&accuser) {
            return false;
        }
        self.accusers.push(accuser);
        true
    }

    /// Who found the suspect silent, the first ones.
    pub(crate) fn accusers(&self) -> &[NodeId] {
        &self.accusers
    }

    /// When it ends. `others` is how many members might confirm it: where there are fewer than it takes, fewer suffice.
    pub(crate) fn ends(&self, others: usize) -> Instant {
        let confirmations = self.accusers.len().saturating_sub(1);
        let missing = CONFIRMATIONS.saturating_sub(others);
        let counted = (confirmations + missing).min(CONFIRMATIONS);
        let most = self.least * self.lengthened;
        let shorter = (most - self.least) * SHORTENED_PER_MILLE[counted] / 1000;
        self.started + (most - shorter) + self.paused
    }

    /// Adds time in which this node was not running, so could not receive the refutation.
    pub(crate) fn pause(&mut self, paused: Duration) {
        self.paused += paused;
    }
}

#[cfg(test)]
mod tests {
    //! The timer of Lifeguard.

    use std::time::Duration;

    use trilemma_core::{Instant, NodeId};

    use super::Suspicion;

    const LEAST: Duration = Duration::from_secs(2);

    #[test]
    fn each_confirmation_shortens_it() {
        let mut suspicion = Suspicion::new(Instant::ZERO, LEAST, &[NodeId(1)]);
        assert_eq!(suspicion.ends(10), Instant::ZERO + 6 * LEAST);
        assert!(suspicion.confirm(NodeId(2)));
        let one = suspicion.ends(10).since(Instant::ZERO);
        assert!(
            one > Duration::from_millis(5_600) && one < Duration::from_millis(5_700),
            "{one:?}"
        );
        assert!(!suspicion.confirm(NodeId(2)), "the same accuser twice is no news");
        assert!(suspicion.confirm(NodeId(3)));
        assert_eq!(suspicion.ends(10), Instant::ZERO + LEAST);
        assert!(!suspicion.confirm(NodeId(4)), "more accusers change nothing");
        assert_eq!(suspicion.accusers().len(), 3);
    }

    #[test]
    fn where_nobody_can_confirm_it_lasts_its_minimum() {
        let suspicion = Suspicion::new(Instant::ZERO, LEAST, &[NodeId(1)]);
        assert_eq!(suspicion.ends(0), Instant::ZERO + LEAST);
    }

    #[test]
    fn a_pause_does_not_count() {
        let mut suspicion = Suspicion::fixed(Instant::ZERO, LEAST, &[NodeId(1)]);
        suspicion.pause(Duration::from_secs(9));
        assert_eq!(suspicion.ends(10), Instant::ZERO + LEAST + Duration::from_secs(9));
    }
}
