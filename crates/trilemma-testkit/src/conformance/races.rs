//! Checks of operations that run side by side at all nodes.

use std::time::Duration;

use super::{Outcome, Suite, Task, ensure, join_all};
use trilemma_core::data::Command;
use trilemma_core::id::NodeId;

/// Increments that each of two clients per node makes.
const INCREMENTS: u32 = 5;
/// Attempts one increment may take; losing a race is normal, losing this many is not.
const TRIES: u32 = 400;

/// Counters lose no increment: read, compare-and-set, again until it wins.
pub(super) async fn increments(suite: &Suite<'_>) -> Outcome {
    if !suite.descriptor().linearizable_reads {
        return Ok(false);
    }
    let key = suite.key("counter");
    suite
        .write(&suite.first(), Command::put(key.clone(), "0"))
        .await?;
    let clients: Vec<NodeId> = suite.nodes().into_iter().flat_map(|node| [node, node]).collect();
    let expected = clients.len() as u32 * INCREMENTS;
    let run = |node: NodeId, client: usize| -> Task<'_> { Box::pin(increment(suite, node, client)) };
    let clients = clients
        .into_iter()
        .enumerate()
        .map(|(client, node)| run(node, client))
        .collect();
    join_all(clients)
        .await
        .into_iter()
        .collect::<Result<(), String>>()?;
    let found = suite.text(&suite.first(), &key).await?;
    ensure(found == Some(expected.to_string()), || {
        format!("{expected} increments, counter {found:?}")
    })?;
    Ok(true)
}

async fn increment(suite: &Suite<'_>, node: NodeId, client: usize) -> Result<(), String> {
    let at = suite.deployment.replicator(node);
    let key = suite.key("counter");
    for _ in 0..INCREMENTS {
        let mut succeeded = false;
        for _ in 0..TRIES {
            let text = suite.text(&at, &key).await?.ok_or("the counter is gone")?;
            let count: u32 = text
                .parse()
                .map_err(|error| format!("counter {text:?}: {error}"))?;
            let next = (count + 1).to_string();
            let command = Command::compare_and_set(key.clone(), Some(text.into()), Some(next.into()));
            succeeded = suite.write(&at, command).await?.succeeded;
            if succeeded {
                break;
            }
            suite
                .deployment
                .sleep(Duration::from_millis(1 + client as u64))
                .await;
        }
        ensure(succeeded, || {
            format!("client {client} at node {node} lost {TRIES} races in a row")
        })?;
    }
    Ok(())
}

/// While one client writes growing numbers, no reader at any node sees them shrink.
pub(super) async fn monotone(suite: &Suite<'_>) -> Outcome {
    if !suite.descriptor().linearizable_reads {
        return Ok(false);
    }
    let key = suite.key("monotone");
    suite
        .write(&suite.first(), Command::put(key.clone(), "0"))
        .await?;
    let writer = async {
        for number in 1..=40 {
            suite
                .write(&suite.first(), Command::put(key.clone(), number.to_string()))
                .await?;
        }
        Ok(())
    };
    let reader = |nodes: Vec<NodeId>| {
        let key = key.clone();
        async move {
            // Goes around the nodes: a value once read anywhere must be read, or be overtaken, everywhere.
            let mut last = 0_u32;
            for round in 0..60 {
                let at = suite.deployment.replicator(nodes[round % nodes.len()]);
                let text = suite.text(&at, &key).await?.ok_or("the key is gone")?;
                let number: u32 = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
                ensure(number >= last, || format!("read {number} after {last}"))?;
                last = number;
            }
            Ok(())
        }
    };
    let tasks: Vec<Task<'_>> = vec![
        Box::pin(writer),
        Box::pin(reader(suite.nodes())),
        Box::pin(reader(suite.nodes())),
    ];
    join_all(tasks)
        .await
        .into_iter()
        .collect::<Result<(), String>>()?;
    Ok(true)
}
