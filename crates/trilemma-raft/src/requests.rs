//! Requests of clients: at the leader into the log, elsewhere forwarded to it, or made to wait for one.
//!
//! Exactly-once is section 6.3 of the dissertation; `pending` says what is answered when.

use std::time::Duration;

use trilemma_core::pending::PendingKind;
use trilemma_core::session::Admission;
use trilemma_core::{
    Incarnation, Instant, NodeId, Proposal, ReadLevel, ReadRequest, Reason, Reply, Request, UnknownCause,
};

use crate::Out;
use crate::apply;
use crate::log::{Index, Payload};
use crate::message::Message;
use crate::pending::{AtLeader, Queued, ReplyTo, lost};
use crate::reads::{READS_MAX, Read};
use crate::role::Role;
use crate::shared::Shared;
use crate::withdrawn::Withdrawn;

/// A client's request.
pub(crate) fn on_propose(
    role: &mut Role,
    shared: &mut Shared,
    now: Instant,
    proposal: Proposal,
    effects: &mut Out,
) {
    let Proposal {
        ticket,
        deadline,
        request,
    } = proposal;
    if let Request::Read(read) = &request
        && role.withdrawn().is_none()
        && read_here(shared, ReplyTo::Local(ticket), read, deadline, effects)
    {
        return;
    }
    let give_up = give_up(shared, now, deadline);
    let queued = Queued {
        ticket,
        request,
        deadline,
        give_up,
    };
    route(role, shared, now, queued, effects);
}

/// When a request that finds no leader is answered.
fn give_up(shared: &Shared, now: Instant, deadline: Instant) -> Instant {
    deadline.min(now + shared.config.election_timeout * 4)
}

/// Serves a read that needs no leader, or makes it wait for its version. `false`: it needs the leader.
fn read_here(
    shared: &mut Shared,
    reply_to: ReplyTo,
    read: &ReadRequest,
    deadline: Instant,
    effects: &mut Out,
) -> bool {
    match read.level {
        Some(ReadLevel::Local) => {
            let reply = shared.read_reply(&read.query, ReadLevel::Local, 0);
            reply_to.answer(Reply::Read(Ok(reply)), effects);
            true
        }
        Some(level @ ReadLevel::MinVersion(version)) => {
            let query = read.query.clone();
            let read = Read {
                reply_to,
                query,
                deadline,
            };
            wait_for(shared, Index(version.0), read, level, effects);
            true
        }
        Some(ReadLevel::Linearizable) | None => false,
    }
}

fn wait_for(shared: &mut Shared, index: Index, read: Read, level: ReadLevel, effects: &mut Out) {
    if shared.applied() >= index {
        let reply = shared.read_reply(&read.query, level, 0);
        return read.reply_to.answer(Reply::Read(Ok(reply)), effects);
    }
    if shared.version_reads.is_full() {
        let what = format!("{READS_MAX} reads wait for a version already");
        let refused = PendingKind::Read.refused(Reason::Overloaded { what });
        return read.reply_to.answer(refused, effects);
    }
    shared.version_reads.register(index, read, level);
}

/// Finds the way to the leader for a request of this node's client.
fn route(role: &mut Role, shared: &mut Shared, now: Instant, queued: Queued, effects: &mut Out) {
    let refuse = |reason, effects: &mut Out| {
        effects.reply(queued.ticket, PendingKind::of(&queued.request).refused(reason));
    };
    if let Some(withdrawn) = role.withdrawn() {
        return refuse(withdrawn.reason(), effects);
    }
    if !shared.reaches_majority() {
        return refuse(shared.no_quorum(), effects);
    }
    if is_handed_over(role, shared, &queued.request) {
        return refuse(Reason::Stopping, effects);
    }
    match role.leader(shared) {
        Some(leader) if leader == shared.node() => {
            let to = (ReplyTo::Local(queued.ticket), queued.deadline);
            lead(role, shared, to, queued.request, effects);
        }
        leader => match leader.and_then(|leader| Some((leader, shared.view.reachable(leader)?))) {
            Some(process) => forward(shared, now, process, queued, effects),
            None => shared.pending.enqueue(shared.config.waiting_max, queued, effects),
        },
    }
}

/// Whether a request is left to the next leader: this one is going to stop, and its log must not grow meanwhile.
fn is_handed_over(role: &Role, shared: &Shared, request: &Request) -> bool {
    let is_served = role.as_leader().is_some() && matches!(request, Request::Read(_));
    shared.handover.is_some() && !is_served
}

fn forward(
    shared: &mut Shared,
    now: Instant,
    (leader, incarnation): (NodeId, Incarnation),
    queued: Queued,
    effects: &mut Out,
) {
    let Queued {
        ticket,
        request,
        deadline,
        ..
    } = queued;
    let kind = PendingKind::of(&request);
    let waiting_max = shared.config.waiting_max;
    if shared.pending.is_full_at_leader(waiting_max) {
        let what = format!("{waiting_max} requests are with the leader already");
        return effects.reply(ticket, kind.refused(Reason::Overloaded { what }));
    }
    let waiting = AtLeader {
        ticket,
        kind,
        request,
        leader,
        incarnation,
        deadline,
        sent: now,
        in_vain: 0,
        again_at: Instant::NEVER,
    };
    shared.pending.put_at_leader(now, waiting, effects);
}

/// A request that another node has passed on: the fields of [`Message::Forward`].
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) to: Incarnation,
    pub(crate) id: u64,
    pub(crate) timeout_ms: u32,
    pub(crate) request: Request,
}

/// Another node's client wants something of this leader.
pub(crate) fn on_forward(
    role: &mut Role,
    shared: &mut Shared,
    now: Instant,
    from: NodeId,
    Forward {
        to,
        id,
        timeout_ms,
        request,
    }: Forward,
    effects: &mut Out,
) {
    if to != shared.config.incarnation {
        // What the process that it was meant for has answered, this one does not know. Nobody waits for it any more.
        return tracing::debug!(%from, id, %to, "a forwarded request for another process of this node; ignored");
    }
    let reply_to = ReplyTo::Peer(from, id);
    if !matches!(request, Request::Read(_)) && !shared.pending.dedup.is_first(from, id) {
        return repeat_answer(role, shared, reply_to, &request, effects);
    }
    if role.as_leader().is_none() || is_handed_over(role, shared, &request) {
        return effects.send(from, Message::NotLeader { id });
    }
    if let Request::Write { command, .. } = &request
        && let Err(refused) = command.validate()
    {
        return reply_to.answer(Reply::Write(Err(refused.into())), effects);
    }
    let deadline = now + Duration::from_millis(timeout_ms.into());
    lead(role, shared, (reply_to, deadline), request, effects);
}

/// A second copy of a forwarded request has come: the answer to the first may be lost. What the operation did is final and
/// said again. Nothing else is: a refusal of this copy says nothing about the first one, which may be in the log.
fn repeat_answer(role: &Role, shared: &Shared, reply_to: ReplyTo, request: &Request, effects: &mut Out) {
    let (Request::Write { op, .. } | Request::Outcome { op, .. }) = request else {
        return;
    };
    if let Admission::Repeat(result) = shared.table.sessions().admit(*op) {
        let holders = |index| role.as_leader().map(|leader| leader.holders(index));
        let kind = PendingKind::of(request);
        let answer = apply::resolved(shared, reply_to, kind, Some(result), |index| {
            holders(index).unwrap_or_default()
        });
        reply_to.answer(answer, effects);
    }
}

/// The leader has answered what this node forwarded.
pub(crate) fn on_forward_reply(
    shared: &mut Shared,
    now: Instant,
    from: NodeId,
    (id, reply): (u64, Reply),
    effects: &mut Out,
) {
    let Some(AtLeader { ticket, kind, .. }) = shared.pending.take_answered(now, from, id) else {
        return;
    };
    let is_answer = kind.is_answered_by(&reply);
    effects.reply(
        ticket,
        if is_answer {
            reply
        } else {
            lost(kind, UnknownCause::ReplyLost)
        },
    );
}

/// The node that this one forwarded a request to is not the leader: it did nothing there, so it may go to the node that
/// leads now.
pub(crate) fn on_not_leader(shared: &mut Shared, now: Instant, from: NodeId, id: u64, effects: &mut Out) {
    if let Some(waiting) = shared.pending.take_answered(now, from, id) {
        wait_again(shared, now, waiting, effects);
    }
}

/// A request that did nothing where it was sent waits for the next leader.
fn wait_again(shared: &mut Shared, now: Instant, waiting: AtLeader, effects: &mut Out) {
    let AtLeader {
        ticket,
        request,
        deadline,
        ..
    } = waiting;
    let give_up = give_up(shared, now, deadline);
    let queued = Queued {
        ticket,
        request,
        deadline,
        give_up,
    };
    shared.pending.enqueue(shared.config.waiting_max, queued, effects);
}

/// The leader's part: writes and questions enter the log, reads a round.
fn lead(
    role: &mut Role,
    shared: &mut Shared,
    (reply_to, deadline): (ReplyTo, Instant),
    request: Request,
    effects: &mut Out,
) {
    let kind = PendingKind::of(&request);
    let Role::Leader(leader) = role else {
        return reply_to.answer(kind.refused(Reason::NoLeader), effects);
    };
    let payload = match request {
        Request::Read(read) => return leader.read(shared, (reply_to, deadline), read, effects),
        Request::Write { op, command, .. } => Payload::Write {
            op,
            command: command.into(),
        },
        Request::Outcome { op, .. } => Payload::Fence { op },
    };
    leader.propose(shared, (reply_to, kind, deadline), payload, effects);
}

/// Looks again at everything that waits: a leader is known, or who can be reached has changed. What was with a process
/// that has restarted since is not answered any more.
pub(crate) fn reroute(
    role: &mut Role,
    shared: &mut Shared,
    now: Instant,
    restarted: &[NodeId],
    effects: &mut Out,
) {
    let leader = role.leader(shared);
    let withdrawn = role.withdrawn().map(Withdrawn::reason);
    let is_withdrawn = withdrawn.is_some();
    if let Some(reason) = withdrawn {
        for reply_to in shared.version_reads.take_all() {
            reply_to.answer(PendingKind::Read.refused(reason.clone()), effects);
        }
    }
    let view = &shared.view;
    let gone = shared.pending.take_gone(|with| {
        let is_replaced = leader.is_some_and(|leader| leader != with);
        is_replaced || is_withdrawn || restarted.contains(&with) || !view.is_connected(with)
    });
    for waiting in gone {
        let (ticket, kind) = (waiting.ticket, waiting.kind);
        if matches!(kind, PendingKind::Write { .. }) {
            effects.reply(ticket, lost(kind, UnknownCause::LeaderLost));
        } else {
            // Reads and questions have no effect, so they may be asked again.
            wait_again(shared, now, waiting, effects);
        }
    }
    let is_led = leader.is_some_and(|leader| leader == shared.node() || shared.view.is_connected(leader));
    if is_led || is_withdrawn || !shared.reaches_majority() {
        for queued in shared.pending.take_queue() {
            route(role, shared, now, queued, effects);
        }
    }
}
