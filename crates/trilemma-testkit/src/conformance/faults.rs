//! Checks of what the descriptor claims for a partition: one node alone, the others together.

use std::time::Duration;

use super::{Outcome, Suite, ensure};
use trilemma_core::data::Command;
use trilemma_core::descriptor::Requires;
use trilemma_core::error::{Reason, WriteError};
use trilemma_core::id::NodeId;
use trilemma_core::read::{Query, ReadLevel};

/// The last node is the one that is cut off.
fn victim(suite: &Suite<'_>) -> NodeId {
    *suite.nodes().last().expect("a deployment has nodes")
}

fn possible(requires: Requires, connected: usize, nodes: usize) -> bool {
    connected as u32 >= requires.count(nodes as u32)
}

/// A write at `node` while only `connected` nodes can talk: accepted or refused as the descriptor says.
async fn write_at(suite: &Suite<'_>, node: NodeId, connected: usize, key: &str) -> Result<(), String> {
    let at = suite.deployment.replicator(node);
    let command = Command::put(suite.key(key), format!("by {node}"));
    if possible(suite.descriptor().writes_need, connected, suite.nodes().len()) {
        suite.write(&at, command).await?;
        return Ok(());
    }
    match suite.write_once(&at, command).await {
        Err(WriteError::NotApplied(refusal)) if refusal.reason.is_unavailable() => named(&refusal.reason),
        other => Err(format!(
            "at node {node} with {connected} nodes connected: {other:?}"
        )),
    }
}

/// A refusal for missing nodes names them.
fn named(reason: &Reason) -> Result<(), String> {
    match reason {
        Reason::NoQuorum { missing, .. } | Reason::NotAllParticipants { missing } => {
            ensure(!missing.is_empty(), || format!("names no missing node: {reason}"))
        }
        Reason::NoSequencer { .. } => Ok(()),
        other => Err(format!("does not say who is missing: {other}")),
    }
}

async fn read_at(suite: &Suite<'_>, node: NodeId, connected: usize) -> Result<(), String> {
    let at = suite.deployment.replicator(node);
    let key = suite.key("read-back");
    if possible(suite.descriptor().reads_need, connected, suite.nodes().len()) {
        suite.get(&at, &key).await?;
    } else {
        let refused = suite.read(&at, Query::Get(key.clone()), None).await;
        let reason = refused
            .err()
            .ok_or("a read that needs more nodes was answered")?
            .reason;
        ensure(reason.is_unavailable(), || format!("refused with {reason}"))?;
        named(&reason)?;
    }
    let local = suite.read(&at, Query::Get(key), Some(ReadLevel::Local)).await;
    ensure(local.is_ok(), || {
        format!("a local read at node {node}: {local:?}")
    })
}

pub(super) async fn isolated(suite: &Suite<'_>) -> Outcome {
    let victim = victim(suite);
    suite.deployment.isolate(victim).await;
    write_at(suite, victim, 1, "isolated").await?;
    read_at(suite, victim, 1).await?;
    let claims = suite.deployment.replicator(victim).status().current();
    let can_write = possible(suite.descriptor().writes_need, 1, suite.nodes().len());
    ensure(claims.can_write == can_write, || {
        format!("status says can_write = {}", claims.can_write)
    })?;
    Ok(true)
}

pub(super) async fn others(suite: &Suite<'_>) -> Outcome {
    let victim = victim(suite);
    let connected = suite.nodes().len() - 1;
    for node in suite.nodes().into_iter().filter(|node| *node != victim) {
        write_at(suite, node, connected, "others").await?;
        read_at(suite, node, connected).await?;
    }
    Ok(true)
}

pub(super) async fn convergence(suite: &Suite<'_>) -> Outcome {
    suite.deployment.heal().await;
    // First everything that was refused in the partition must be possible again.
    suite
        .write(&suite.first(), Command::put(suite.key("after"), "healed"))
        .await?;
    suite.everywhere(&suite.key("after"), Some("healed")).await?;
    let mut difference = String::new();
    for _ in 0..100 {
        let mut states = Vec::new();
        for node in suite.nodes() {
            let at = suite.deployment.replicator(node);
            let query = Query::Range {
                range: trilemma_core::read::KeyRange::prefix("conformance/"),
                limit: 0,
            };
            let reply = suite
                .read(&at, query, Some(ReadLevel::Local))
                .await
                .map_err(|error| error.to_string())?;
            states.push(reply.entries);
        }
        let Some(other) = states.iter().position(|state| *state != states[0]) else {
            return Ok(true);
        };
        let unequal = states[0].iter().zip(&states[other]).find(|(a, b)| a != b);
        difference = format!("node {} differs: {unequal:?}", suite.nodes()[other]);
        suite.deployment.sleep(Duration::from_millis(100)).await;
    }
    Err(difference)
}
