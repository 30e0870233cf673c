//! What a node can do now, and why not more.

use trilemma_core::{LiveStatus, Version};

use crate::role::Role;
use crate::shared::Shared;

pub(crate) fn live(role: &Role, shared: &Shared) -> LiveStatus {
    let missing = shared.view.missing(shared.node(), &shared.config.members);
    let leader = role.leader(shared);
    let reaches_leader =
        leader.is_some_and(|leader| leader == shared.node() || shared.view.is_connected(leader));
    let can = shared.reaches_majority() && reaches_leader && role.is_ready(shared);
    let why = if let Some(withdrawn) = role.withdrawn() {
        withdrawn.contradiction().to_string()
    } else if !shared.reaches_majority() {
        format!("no majority can be reached; unreachable: {missing}")
    } else if leader.is_none() {
        "no leader is known, an election is under way".into()
    } else if !can {
        "the leader cannot be reached, or has just been elected".into()
    } else {
        outrun(role, shared)
    };
    let name = match role {
        Role::Follower(_) => "follower",
        Role::PreCandidate(_) => "pre-candidate",
        Role::Candidate(_) => "candidate",
        Role::Leader(_) => "leader",
        Role::Withdrawn(_) => "withdrawn",
    };
    let details = [
        ("term", shared.term().0),
        ("commit", shared.commit.0),
        ("last", shared.log.last().0),
        ("durable", shared.log.durable().0),
        ("entries in memory", shared.log.len() as u64),
    ];
    LiveStatus {
        can_write: can,
        can_read: can,
        why,
        missing,
        leader,
        role: name.into(),
        version: Version(shared.applied().0),
        keys: shared.table.len() as u64,
        in_doubt: 0,
        details: details
            .map(|(name, number)| (name.to_owned(), number.to_string()))
            .into(),
    }
}

/// What a leader's status says of followers that need more of the log than it may keep.
fn outrun(role: &Role, shared: &Shared) -> String {
    let outrun = role.as_leader().map(|leader| leader.outrun()).unwrap_or_default();
    if outrun.is_empty() {
        return String::new();
    }
    let bytes = shared.config.pinned_bytes_max;
    format!(
        "node {outrun} needs more of the log than the {bytes} bytes that are kept for it, so it gets a snapshot"
    )
}
