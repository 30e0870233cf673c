//! Checks of single operations on a healthy deployment.

use std::future::poll_fn;
use std::pin::Pin;

use futures_core::Stream;

use super::{Outcome, Suite, ensure};
use trilemma_core::data::{Command, Guard, Key, Mutation, Value};
use trilemma_core::descriptor::TransactionScope;
use trilemma_core::error::{Reason, WriteError};
use trilemma_core::id::Version;
use trilemma_core::protocol::Attempt;
use trilemma_core::read::{KeyRange, Query, ReadLevel};
use trilemma_core::receipt::{self, Receipt};
use trilemma_core::replicator::WatchStream;
use trilemma_core::watch::{WatchItem, WatchSpec, WatchStart};

pub(super) async fn read_back(suite: &Suite<'_>) -> Outcome {
    let key = suite.key("read-back");
    for (index, writer) in suite.nodes().into_iter().enumerate() {
        let value = format!("value-{index}");
        suite
            .write(
                &suite.deployment.replicator(writer),
                Command::put(key.clone(), value.as_str()),
            )
            .await?;
        let readers = if suite.descriptor().linearizable_reads {
            suite.nodes()
        } else {
            vec![writer]
        };
        for reader in readers {
            let found = suite.text(&suite.deployment.replicator(reader), &key).await?;
            ensure(found.as_deref() == Some(&value), || {
                format!("written at node {writer}: {value}; read at node {reader}: {found:?}")
            })?;
        }
        suite.everywhere(&key, Some(&value)).await?;
    }
    Ok(true)
}

pub(super) async fn versions(suite: &Suite<'_>) -> Outcome {
    let (at, key) = (suite.first(), suite.key("versions"));
    let first = suite.write(&at, Command::put(key.clone(), "1")).await?;
    let second = suite.write(&at, Command::put(key.clone(), "2")).await?;
    ensure(second.version > first.version, || {
        format!("{} after {}", second.version, first.version)
    })?;
    let reply = suite.get(&at, &key).await?;
    let state = &reply.entries.first().ok_or("the key is not there")?.state;
    ensure(state.modified == second.version, || {
        format!("modified {}, receipt {}", state.modified, second.version)
    })?;
    // A convergent replica may not know the write that made the key; the others do.
    let newest = if suite.descriptor().linearizable_reads {
        first.version
    } else {
        state.modified
    };
    ensure(state.created <= newest && state.created > Version::ABSENT, || {
        format!(
            "created {}, first receipt {}, modified {}",
            state.created, first.version, state.modified
        )
    })?;
    Ok(true)
}

pub(super) async fn deletion(suite: &Suite<'_>) -> Outcome {
    let (at, key) = (suite.first(), suite.key("deletion"));
    suite.write(&at, Command::put(key.clone(), "here")).await?;
    suite.everywhere(&key, Some("here")).await?;
    suite.write(&at, Command::delete(key.clone())).await?;
    let found = suite.text(&at, &key).await?;
    ensure(found.is_none(), || format!("read after the delete: {found:?}"))?;
    suite.everywhere(&key, None).await?;
    suite.write(&at, Command::delete(key.clone())).await?;
    suite.write(&at, Command::put(key.clone(), "again")).await?;
    suite.everywhere(&key, Some("again")).await?;
    Ok(true)
}

/// Whether the error is a certain refusal of something unsupported.
fn unsupported(result: Result<Receipt, WriteError>) -> Result<(), String> {
    match result {
        Err(WriteError::NotApplied(refusal)) if matches!(refusal.reason, Reason::Unsupported { .. }) => {
            Ok(())
        }
        other => Err(format!("expected a refusal as unsupported, got {other:?}")),
    }
}

pub(super) async fn compare_and_set(suite: &Suite<'_>) -> Outcome {
    let (at, key) = (suite.first(), suite.key("cas"));
    let create = Command::compare_and_set(key.clone(), None, Some("a".into()));
    if !suite.descriptor().linearizable_reads {
        unsupported(suite.write_once(&at, create).await)?;
        return Ok(true);
    }
    let succeeded = suite.write(&at, create.clone()).await?;
    ensure(succeeded.succeeded, || {
        "creating an absent key did not win".into()
    })?;
    let other = suite.deployment.replicator(suite.nodes()[1]);
    let lost = suite.write(&other, create).await?;
    ensure(!lost.succeeded && lost.found == succeeded.version, || {
        format!("creating it again: {lost:?}")
    })?;
    let stale = Command::compare_and_set(key.clone(), Some("x".into()), Some("b".into()));
    ensure(!suite.write(&at, stale).await?.succeeded, || {
        "a wrong expectation won".into()
    })?;
    let right = Command::compare_and_set(key.clone(), Some("a".into()), Some("b".into()));
    ensure(suite.write(&other, right).await?.succeeded, || {
        "a right expectation lost".into()
    })?;
    let found = suite.text(&at, &key).await?;
    ensure(found.as_deref() == Some("b"), || format!("afterwards: {found:?}"))?;
    Ok(true)
}

fn put_both(suite: &Suite<'_>, name: &str, value: &str) -> Command {
    let put = |suffix: &str| Mutation::Put {
        key: suite.key(&format!("{name}/{suffix}")),
        value: Value::from(value),
        lease: None,
    };
    Command {
        guards: Vec::new(),
        mutations: vec![put("left"), put("right")],
    }
}

pub(super) async fn batch(suite: &Suite<'_>) -> Outcome {
    let at = suite.first();
    let command = put_both(suite, "batch", "1");
    let (left, right) = (suite.key("batch/left"), suite.key("batch/right"));
    if suite.descriptor().transaction_scope == TransactionScope::Key {
        unsupported(suite.write_once(&at, command).await)?;
        ensure(suite.text(&at, &left).await?.is_none(), || {
            "a refused batch left a trace".into()
        })?;
        return Ok(true);
    }
    let receipt = suite.write(&at, command).await?;
    let reply = suite
        .read(
            &at,
            Query::Range {
                range: KeyRange::prefix(suite.key("batch/")),
                limit: 0,
            },
            None,
        )
        .await
        .map_err(|error| error.to_string())?;
    let versions: Vec<_> = reply
        .entries
        .iter()
        .map(|entry| (&entry.key, entry.state.modified))
        .collect();
    ensure(
        versions == [(&left, receipt.version), (&right, receipt.version)],
        || format!("after a batch at {}: {versions:?}", receipt.version),
    )?;
    Ok(true)
}

pub(super) async fn guarded_batch(suite: &Suite<'_>) -> Outcome {
    let at = suite.first();
    let mut command = put_both(suite, "guarded", "2");
    command.guards.push(Guard::Version {
        key: suite.key("guarded/absent"),
        is: Version(12345),
    });
    if suite.descriptor().transaction_scope != TransactionScope::Keyspace {
        unsupported(suite.write_once(&at, command).await)?;
        return Ok(true);
    }
    let lost = suite.write(&at, command.clone()).await?;
    ensure(!lost.succeeded && lost.found == Version::ABSENT, || {
        format!("a failed guard: {lost:?}")
    })?;
    let left = suite.text(&at, &suite.key("guarded/left")).await?;
    ensure(left.is_none(), || format!("a batch that lost wrote {left:?}"))?;
    command.guards = vec![Guard::Value {
        key: suite.key("guarded/absent"),
        is: None,
    }];
    ensure(suite.write(&at, command).await?.succeeded, || {
        "a batch whose guard holds lost".into()
    })?;
    Ok(true)
}

pub(super) async fn ranges(suite: &Suite<'_>) -> Outcome {
    let at = suite.first();
    for index in (0..10).rev() {
        suite
            .write(
                &at,
                Command::put(suite.key(&format!("range/{index}")), format!("{index}")),
            )
            .await?;
    }
    for index in 0..10 {
        suite
            .everywhere(&suite.key(&format!("range/{index}")), Some(&index.to_string()))
            .await?;
    }
    let range = KeyRange {
        start: suite.key("range/2"),
        end: Some(suite.key("range/8")),
    };
    let query = Query::Range {
        range: range.clone(),
        limit: 4,
    };
    let first = suite
        .read(&at, query, None)
        .await
        .map_err(|error| error.to_string())?;
    let keys: Vec<String> = first.entries.iter().map(|entry| entry.key.to_string()).collect();
    let expected: Vec<String> = (2..6).map(|index| format!("conformance/range/{index}")).collect();
    ensure(keys == expected && first.more, || {
        format!("first page: {keys:?}, more: {}", first.more)
    })?;
    let rest = Query::Range {
        range: KeyRange {
            start: suite.key("range/6"),
            ..range
        },
        limit: 4,
    };
    let second = suite
        .read(&at, rest, None)
        .await
        .map_err(|error| error.to_string())?;
    ensure(second.entries.len() == 2 && !second.more, || {
        format!("second page: {second:?}")
    })?;
    let reversed = KeyRange {
        start: suite.key("z"),
        end: Some(suite.key("a")),
    };
    let empty = suite
        .read(
            &at,
            Query::Range {
                range: reversed,
                limit: 0,
            },
            None,
        )
        .await;
    ensure(empty.as_ref().is_ok_and(|reply| reply.entries.is_empty()), || {
        format!("reversed: {empty:?}")
    })?;
    Ok(true)
}

pub(super) async fn repeat(suite: &Suite<'_>) -> Outcome {
    let (at, key) = (suite.first(), suite.key("repeat"));
    suite.write(&at, Command::put(key.clone(), "0")).await?;
    let op = suite.op(&at);
    let command = Command::put(key.clone(), "1");
    let first = at
        .write(&suite.context(op, Attempt::First), command.clone())
        .await
        .map_err(|error| error.to_string())?;
    suite.write(&at, Command::put(key.clone(), "2")).await?;
    let again = at
        .write(&suite.context(op, Attempt::Retry), command)
        .await
        .map_err(|error| error.to_string())?;
    ensure(
        again.version == first.version && again.succeeded == first.succeeded,
        || format!("first {first:?}, repeat {again:?}"),
    )?;
    let found = suite.text(&at, &key).await?;
    ensure(found.as_deref() == Some("2"), || {
        format!("the repeat took effect: {found:?}")
    })?;
    Ok(true)
}

pub(super) async fn outcome(suite: &Suite<'_>) -> Outcome {
    let (at, key) = (suite.first(), suite.key("outcome"));
    let op = suite.op(&at);
    let command = Command::put(key.clone(), "done");
    let context = suite.context(op, Attempt::First);
    let receipt = at
        .write(&context, command.clone())
        .await
        .map_err(|error| error.to_string())?;
    match at
        .outcome(&suite.context(op, Attempt::Retry), op, Some(command.clone()))
        .await
    {
        Ok(receipt::Outcome::Applied(found))
            if found.version == receipt.version && found.succeeded == receipt.succeeded => {}
        other => return Err(format!("of a write that was acknowledged: {other:?}")),
    }
    let never = suite.op(&at);
    match at
        .outcome(
            &suite.context(never, Attempt::Retry),
            never,
            Some(command.clone()),
        )
        .await
    {
        Ok(receipt::Outcome::NotApplied) => {}
        other => return Err(format!("of a write that was never sent: {other:?}")),
    }
    let late = Command::put(key.clone(), "late");
    match at.write(&suite.context(never, Attempt::Retry), late).await {
        Err(WriteError::NotApplied(refusal)) if refusal.reason == Reason::Fenced => {}
        other => {
            return Err(format!(
                "a late copy of a write reported as not applied: {other:?}"
            ));
        }
    }
    let found = suite.text(&at, &key).await?;
    ensure(found.as_deref() == Some("done"), || {
        format!("afterwards: {found:?}")
    })?;
    Ok(true)
}

pub(super) async fn never_weaker(suite: &Suite<'_>) -> Outcome {
    let (at, key) = (suite.first(), suite.key("read-back"));
    let asked = Some(ReadLevel::Linearizable);
    let reply = suite.read(&at, Query::Get(key.clone()), asked).await;
    if suite.descriptor().linearizable_reads {
        let achieved = reply.map_err(|error| error.to_string())?.achieved;
        ensure(achieved.satisfies(ReadLevel::Linearizable), || {
            format!("served {achieved}")
        })?;
    } else {
        let refused = reply
            .err()
            .is_some_and(|error| matches!(error.reason, Reason::Unsupported { .. }));
        ensure(refused, || "a linearizable read was not refused".into())?;
    }
    let local = suite.read(&at, Query::Get(key), Some(ReadLevel::Local)).await;
    ensure(local.is_ok(), || format!("a local read: {local:?}"))?;
    Ok(true)
}

pub(super) async fn bad_input(suite: &Suite<'_>) -> Outcome {
    let at = suite.first();
    let long = "k".repeat(trilemma_core::data::KEY_BYTES_MAX + 1);
    let large = vec![0_u8; trilemma_core::data::VALUE_BYTES_MAX + 1];
    let commands = [
        Command::put("", "empty key"),
        Command::put(long.as_str(), "long key"),
        Command::put(suite.key("large"), large),
    ];
    for command in commands {
        match suite.write_once(&at, command).await {
            Err(WriteError::NotApplied(refusal))
                if matches!(refusal.reason, Reason::Invalid { .. } | Reason::TooLarge { .. }) => {}
            other => return Err(format!("bad input: {other:?}")),
        }
    }
    ensure(suite.text(&at, &suite.key("large")).await?.is_none(), || {
        "bad input left a trace".into()
    })?;
    bad_questions(suite).await?;
    Ok(true)
}

/// A key that cannot be written cannot be asked for either, and the refusal names the limit.
async fn bad_questions(suite: &Suite<'_>) -> Result<(), String> {
    let at = suite.first();
    let longest = Key::from("k".repeat(trilemma_core::data::KEY_BYTES_MAX));
    let long = Key::from("k".repeat(2 * longest.len()));
    let names_limit = |reason: &Reason| match reason {
        Reason::TooLarge { limit, .. } => *limit == longest.len() as u64,
        Reason::Invalid { .. } => true,
        _ => false,
    };
    let range = |range: KeyRange| Query::Range { range, limit: 1 };
    let bad = [
        Query::Get("".into()),
        Query::Get(long.clone()),
        range(KeyRange::prefix(long.clone())),
    ];
    for query in bad {
        match suite.read(&at, query, Some(ReadLevel::Local)).await {
            Err(error) if names_limit(&error.reason) => {}
            other => return Err(format!("a bad question: {other:?}")),
        }
    }
    // Where the next page begins, if the longest key was the last of one.
    let rest = KeyRange::key(&longest)
        .end
        .map(|start| KeyRange { start, end: None });
    let next = suite
        .read(&at, range(rest.unwrap_or_default()), Some(ReadLevel::Local))
        .await;
    ensure(next.is_ok(), || format!("after the longest key: {next:?}"))?;
    let op = suite.op(&at);
    let spec = WatchSpec::new(KeyRange::prefix(long), WatchStart::State);
    match at.watch(&suite.context(op, Attempt::First), spec).await {
        Err(error) if names_limit(&error.reason) => Ok(()),
        Err(error) => Err(format!("a bad watch: {error}")),
        Ok(_) => Err("a bad watch was opened".into()),
    }
}

pub(super) async fn receipts(suite: &Suite<'_>) -> Outcome {
    let descriptor = suite.descriptor();
    let needed = descriptor.durable_on.count(suite.nodes().len() as u32) as usize;
    for node in suite.nodes() {
        let at = suite.deployment.replicator(node);
        let receipt = suite
            .write(&at, Command::put(suite.key("receipts"), format!("{node}")))
            .await?;
        ensure(receipt.achieved == descriptor.isolation, || {
            format!("achieved {}", receipt.achieved)
        })?;
        ensure(receipt.durable_on.len() >= needed, || {
            format!(
                "at node {node}: durable on {}, promised {needed} nodes",
                receipt.durable_on
            )
        })?;
        ensure(suite.nodes().contains(&receipt.served_by), || {
            format!("served by {}", receipt.served_by)
        })?;
    }
    Ok(true)
}

async fn next(stream: &mut WatchStream) -> Result<WatchItem, String> {
    let item = poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await;
    item.ok_or("the watch ended")?.map_err(|error| error.to_string())
}

pub(super) async fn watch(suite: &Suite<'_>) -> Outcome {
    let at = suite.first();
    let range = KeyRange::prefix(suite.key("watch/"));
    let (one, two): (Key, Key) = (suite.key("watch/1"), suite.key("watch/2"));
    suite.write(&at, Command::put(one.clone(), "before")).await?;
    // A watch shows what its own node has applied, which may be a moment behind the acknowledgement.
    suite.everywhere(&one, Some("before")).await?;
    let open = |start| {
        let op = suite.op(&at);
        let (context, spec) = (
            suite.context(op, Attempt::First),
            WatchSpec::new(range.clone(), start),
        );
        let at = at.clone();
        async move { at.watch(&context, spec).await.map_err(|error| error.to_string()) }
    };
    let mut stream = open(WatchStart::State).await?;
    let mut later = open(WatchStart::Now).await?;
    match next(&mut later).await? {
        WatchItem::Progress { .. } => {}
        other => return Err(format!("first item of a watch from now on: {other:?}")),
    }
    let token = match next(&mut stream).await? {
        WatchItem::Reset {
            token,
            entries,
            first: true,
            last: true,
        } if entries.len() == 1 && entries[0].key == one => token,
        other => return Err(format!("first item: {other:?}")),
    };
    suite.write(&at, Command::put(two.clone(), "after")).await?;
    suite
        .write(&at, Command::put(suite.key("elsewhere"), "not watched"))
        .await?;
    suite.write(&at, Command::delete(one.clone())).await?;
    for mut stream in [stream, later, open(WatchStart::After(token)).await?] {
        let mut seen: Vec<(Key, bool)> = Vec::new();
        while seen.len() < 2 {
            match next(&mut stream).await? {
                WatchItem::Changes { changes, .. } => {
                    seen.extend(
                        changes
                            .into_iter()
                            .map(|change| (change.key, change.now.is_some())),
                    );
                }
                other => return Err(format!("while watching: {other:?}")),
            }
        }
        ensure(seen == [(two.clone(), true), (one.clone(), false)], || {
            format!("seen: {seen:?}")
        })?;
    }
    Ok(true)
}
