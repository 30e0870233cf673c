//! Checks of data types: where a backend has them, they keep every change; elsewhere they are refused.

use trilemma_core::data::Command;
use trilemma_core::datatype::{DataType, Number, Update};
use trilemma_core::error::{Reason, WriteError};
use trilemma_core::read::{KeyRange, Query};
use trilemma_core::replicator::SharedReplicator;

use super::{ATTEMPTS, Outcome, Suite, ensure};

fn query(suite: &Suite<'_>, name: &str, of: DataType) -> Query {
    Query::Typed {
        key: suite.key(name),
        of,
        range: KeyRange::all(),
        limit: 0,
    }
}

/// What a counter reads as at a node.
async fn count(suite: &Suite<'_>, at: &SharedReplicator) -> Result<i128, String> {
    let reply = suite.read(at, query(suite, "counter", DataType::Counter), None);
    let reply = reply.await.map_err(|error| error.to_string())?;
    let number = reply
        .entries
        .first()
        .map(|entry| Number::from_value(&entry.state.value));
    number.map_or(Ok(0), |number| Ok(number.map_err(|error| error.to_string())?.0))
}

/// Every node adds to one counter, and all of it counts everywhere; or additions and readings are refused, finally, with what to
/// do instead.
pub(super) async fn counter(suite: &Suite<'_>) -> Outcome {
    let add = |delta| Command::update(suite.key("counter"), Update::Add(delta));
    if !suite.descriptor().data_types {
        let at = suite.first();
        let is_refused = |reason: &Reason| matches!(reason, Reason::Unsupported { .. });
        let write = suite.write_once(&at, add(1)).await;
        ensure(
            matches!(&write, Err(WriteError::NotApplied(refusal)) if is_refused(&refusal.reason)),
            || format!("an addition: {write:?}"),
        )?;
        let read = suite
            .read(&at, query(suite, "counter", DataType::Counter), None)
            .await;
        ensure(matches!(&read, Err(error) if is_refused(&error.reason)), || {
            format!("a reading: {read:?}")
        })?;
        return Ok(true);
    }
    let mut expected = 0;
    for (node, delta) in suite.nodes().into_iter().zip([5, -2, 100].into_iter().cycle()) {
        suite
            .write(&suite.deployment.replicator(node), add(delta))
            .await?;
        expected += i128::from(delta);
    }
    for node in suite.nodes() {
        let at = suite.deployment.replicator(node);
        let mut found = count(suite, &at).await?;
        for _ in 0..2 * ATTEMPTS {
            if found == expected {
                break;
            }
            suite
                .deployment
                .sleep(std::time::Duration::from_millis(100))
                .await;
            found = count(suite, &at).await?;
        }
        ensure(found == expected, || {
            format!("node {node} counts {found}, {expected} were added")
        })?;
    }
    Ok(true)
}
