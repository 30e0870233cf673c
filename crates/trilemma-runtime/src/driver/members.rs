//! The members as the node sees them.

use std::time::Duration;

use trilemma_client::wire::{
    MemberOverview, MemberState, MembershipCounts, MembershipOverview, RefusedOverview,
};
use trilemma_node::Members;
use trilemma_node::members::{Counters, Member, Refusal, Role, Seen, State};

use super::Driver;

impl Driver {
    /// Whom this node knows as members; `None` where membership is not configured.
    pub(super) fn members(&self) -> Option<MembershipOverview> {
        self.node.members().map(overview)
    }
}

fn overview(members: &Members) -> MembershipOverview {
    let status = members.status();
    let refusals = members.refusals();
    let refused = |reason: Refusal| {
        let refused = refusals.of(reason);
        (refused.count > 0).then(|| RefusedOverview {
            reason: reason.name().to_owned(),
            count: refused.count,
            from: refused.from,
        })
    };
    MembershipOverview {
        members: members.all().map(member).collect(),
        health: status.health.value(),
        pending_updates: status.pending_updates as u64,
        counts: counts(members.counters()),
        refused: Refusal::ALL.into_iter().filter_map(refused).collect(),
    }
}

fn member((Member { record, standing }, seen): (Member, Option<Seen>)) -> MemberOverview {
    let incarnation = standing.incarnation();
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    MemberOverview {
        node: record.node,
        state: match standing.state() {
            State::Alive => MemberState::Alive,
            State::Suspect => MemberState::Suspect,
            State::Dead => MemberState::Dead,
            State::Left => MemberState::Left,
            State::Evicted => MemberState::Evicted,
        },
        epoch: incarnation.epoch,
        counter: incarnation.counter,
        address: record.address.clone(),
        zone: record.zone.clone(),
        observer: record.role == Role::Observer,
        round_trip_micros: seen.and_then(|seen| seen.round_trip).map(micros),
        since: seen.map(|seen| seen.since),
    }
}

fn counts(counters: Counters) -> MembershipCounts {
    let Counters {
        suspected,
        refuted,
        died,
        accused,
        sent,
        sent_bytes,
        received,
        received_bytes,
    } = counters;
    MembershipCounts {
        suspected,
        refuted,
        died,
        accused,
        sent,
        sent_bytes,
        received,
        received_bytes,
    }
}
