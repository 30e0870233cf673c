//! What this node can do, and figures for operators.

use std::time::Duration;

use trilemma_core::{LiveStatus, NodeSet, Now};

use crate::admission::Refusal;
use crate::clock::is_acceptable;
use crate::gossip::Gossip;
use crate::predictor::Prediction;

impl Gossip {
    pub(crate) fn make_status(&self, _now: Now) -> LiveStatus {
        let config = &self.shared.config;
        let missing: NodeSet = self.shared.view.missing(config.node, &config.members);
        let why = [
            self.identity_warning(),
            self.divergence_warning(),
            self.clock_warning(),
            self.deferred_notice(),
            self.contradiction_warning(),
            self.refusal_warning(),
            self.forgery_warning(),
            self.equivocation_warning(),
            self.slowness_warning(),
            (!missing.is_empty()).then(|| {
                format!(
                    "reads and writes are local; node {missing} cannot be reached and will converge once it can"
                )
            }),
        ];
        let why: Vec<String> = why.into_iter().flatten().collect();
        LiveStatus {
            can_write: true,
            can_read: true,
            why: why.join("; "),
            missing,
            leader: None,
            role: "replica".into(),
            version: self.shared.clock.position().version(),
            keys: self.store.visible(),
            in_doubt: 0,
            details: self.details(),
        }
    }

    fn details(&self) -> Vec<(String, String)> {
        let replica = &self.store.replica;
        let laggard = self
            .acknowledgements
            .laggard(self.shared.config.peers(), replica.context());
        let laggard = laggard.map_or_else(|| "none".to_owned(), |node| format!("node {node}"));
        let unmet: NodeSet = self.rejoin.unmet(&self.shared.config).into_iter().collect();
        let unmet = if unmet.is_empty() {
            "none".to_owned()
        } else {
            format!("node {unmet}")
        };
        let predicted = |time: fn(&Prediction) -> Duration| match &self.prediction {
            Ok(prediction) => time(prediction).as_millis().to_string(),
            Err(error) => format!("none: {error}"),
        };
        let divergences: u64 = self.exchange.divergences().values().sum();
        let contradictions: u64 = self.vouching.contradictions().values().sum();
        let refused = |why| self.admission.count(why).to_string();
        let details = [
            ("contested keys", replica.contested().to_string()),
            ("uncollected changes", replica.uncollected().to_string()),
            ("deferred changes", self.store.deferred.len().to_string()),
            ("unvouched changes", self.vouching.len().to_string()),
            ("contradictory changes", contradictions.to_string()),
            ("refused changes", refused(Refusal::NotAnOrigin)),
            ("forged changes", refused(Refusal::Forged)),
            ("equivocal changes", refused(Refusal::Equivocal)),
            ("rumors", self.rumors.len().to_string()),
            ("fetched changes", self.fetches.len().to_string()),
            ("open exchanges", self.exchange.open().to_string()),
            ("context intervals", replica.context().intervals().to_string()),
            ("stable frontier waits for", laggard),
            ("to be met since the disk was empty", unmet),
            ("divergences", divergences.to_string()),
            (
                "predicted convergence ms",
                predicted(|prediction| prediction.mean),
            ),
            (
                "predicted convergence p99 ms",
                predicted(|prediction| prediction.p99),
            ),
            ("predicted arrival ms", millis(self.arrivals.predicted())),
            ("measured arrival ms", millis(self.arrivals.measured())),
            (
                "arrival, measured in percent of predicted",
                or_none(self.arrivals.ratio_percent()),
            ),
            ("digest", format!("{:016x}", self.digest())),
        ];
        details.map(|(name, value)| (name.to_owned(), value)).into()
    }

    fn identity_warning(&self) -> Option<String> {
        let incarnation = self.shared.config.incarnation;
        self.shared.has_identity_clash.then(|| {
            format!(
                "peers know changes of incarnation {incarnation} of this node that it never made, so they will not take \
                 its writes: its identity is used twice, or its disk was lost and the incarnation did not grow; restart \
                 it with a higher one"
            )
        })
    }

    fn divergence_warning(&self) -> Option<String> {
        let peers: NodeSet = self.exchange.divergences().keys().copied().collect();
        (!peers.is_empty()).then(|| {
            format!(
                "the states of this node and of node {peers} differ, or did since it started, although both reflect \
                 the same changes: an error in this program or damage that no checksum saw; what either shows is kept \
                 on both, so a deleted value may be back; please report it"
            )
        })
    }

    fn clock_warning(&self) -> Option<String> {
        let (clock, wall) = (&self.shared.clock, self.shared.wall);
        if !is_acceptable(clock.last(), wall, self.shared.config.accept_drift) {
            let ahead = clock.last().millis().saturating_sub(wall.0) / 1000;
            return Some(format!(
                "the stamps of this node are {ahead} s ahead of its wall clock, so other nodes show its writes only \
                 later: its clock was set back, or is behind; if it is right now, restart the node: new writes then \
                 follow it, provided that changes of other nodes confirm it"
            ));
        }
        let reset = clock.reset_by()?;
        Some(format!(
            "earlier incarnations of this node stamped writes {} s ahead of its wall clock; other nodes show those only \
             when their time comes or the keys are written again; new writes follow the clock",
            reset.as_secs()
        ))
    }

    fn deferred_notice(&self) -> Option<String> {
        let count = self.store.deferred.len();
        let origins: NodeSet = self.store.deferred_origins().into_iter().collect();
        (count > 0).then(|| {
            format!(
                "{count} changes of node {origins} are stamped too far ahead of this node's clock and not shown yet: \
                 one of the clocks is wrong"
            )
        })
    }

    fn contradiction_warning(&self) -> Option<String> {
        let contradictions = self.vouching.contradictions();
        let origins: NodeSet = contradictions.keys().copied().collect();
        (!origins.is_empty()).then(|| {
            let count: u64 = contradictions.values().sum();
            format!(
                "{count} changes of node {origins} came in two versions: that node, or one that passed them on, is broken \
                 or lies; the version with enough vouchers counts"
            )
        })
    }

    fn slowness_warning(&self) -> Option<String> {
        self.arrivals.is_slow().then(|| {
            format!(
                "half of the changes take {} ms or more to this node, {} ms were predicted: loss and latency are above what is \
                 configured, nodes or disks are overloaded, or clocks differ",
                millis(self.arrivals.measured()),
                millis(self.arrivals.predicted())
            )
        })
    }

    fn refusal_warning(&self) -> Option<String> {
        let (count, origins, from) = self.refused(Refusal::NotAnOrigin)?;
        Some(format!(
            "{count} changes of node {origins}, which may not write in this keyspace, were refused; node {from} passed \
             them on"
        ))
    }

    fn forgery_warning(&self) -> Option<String> {
        let (count, origins, from) = self.refused(Refusal::Forged)?;
        Some(format!(
            "{count} changes that name node {origins} as their origin have no valid signature of it for this keyspace and \
             were refused; node {from} sent them: it is broken or lies, it holds changes from before `signatures` were \
             required, or a public key is missing here"
        ))
    }

    fn equivocation_warning(&self) -> Option<String> {
        let (count, origins, from) = self.refused(Refusal::Equivocal)?;
        Some(format!(
            "{count} changes were refused because node {origins} has signed another one of the same name: it lies, or its \
             key is used twice; node {from} sent them"
        ))
    }

    /// How many changes were refused for this reason, of which origins, and who sent them. `None` if there were none.
    fn refused(&self, why: Refusal) -> Option<(u64, NodeSet, NodeSet)> {
        let count = self.admission.count(why);
        let origins = self.admission.refused(why).map(|(origin, ..)| origin);
        let from = self.admission.refused(why).map(|(_, from, _)| from);
        (count > 0).then(|| (count, origins.collect(), from.collect()))
    }
}

fn millis(time: Option<Duration>) -> String {
    or_none(time.map(|time| time.as_millis()))
}

fn or_none(figure: Option<impl ToString>) -> String {
    figure.map_or_else(|| "none".to_owned(), |figure| figure.to_string())
}
