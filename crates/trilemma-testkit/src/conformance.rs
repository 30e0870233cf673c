//! One suite for every backend: runs against any [`Replicator`](trilemma_core::Replicator) and judges it by its own
//! descriptor.
//!
//! A backend that claims more than it does fails here, and so does one that does less than it claims. The suite needs
//! a [`Deployment`]: some nodes that it may cut off and connect again. It is deterministic where the deployment is.

mod datatypes;
mod faults;
mod operations;
mod races;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;

use trilemma_core::data::{Command, Key};
use trilemma_core::descriptor::Descriptor;
use trilemma_core::error::{ReadError, WriteError};
use trilemma_core::id::{Epoch, NodeId, OpId, SessionId, Version};
use trilemma_core::protocol::Attempt;
use trilemma_core::read::{Query, ReadLevel, ReadReply, ReadRequest};
use trilemma_core::receipt::Receipt;
use trilemma_core::replicator::{OpContext, SharedReplicator};

/// A keyspace served by several nodes, under the control of the suite.
#[async_trait]
pub trait Deployment: Send + Sync {
    /// The nodes, at least three.
    fn nodes(&self) -> Vec<NodeId>;
    /// The keyspace as this node serves it.
    fn replicator(&self, node: NodeId) -> SharedReplicator;
    /// Cuts `node` off from all others, both ways, and returns when all nodes could have noticed.
    async fn isolate(&self, node: NodeId);
    /// Restores all links and returns when all nodes could have noticed.
    async fn heal(&self);
    /// Lets time pass.
    async fn sleep(&self, time: Duration);
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The claim holds.
    Passed,
    /// The descriptor makes no such claim.
    NotClaimed,
    /// The claim does not hold.
    Failed(String),
}

/// What the suite found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each check with its verdict, in order.
    pub checks: Vec<(&'static str, Verdict)>,
}

impl Report {
    /// Whether no check failed and at least one ran.
    #[must_use]
    pub fn passed(&self) -> bool {
        let failed = |(_, verdict): &(_, Verdict)| matches!(verdict, Verdict::Failed(_));
        self.checks.iter().any(|(_, verdict)| *verdict == Verdict::Passed) && !self.checks.iter().any(failed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, verdict) in &self.checks {
            match verdict {
                Verdict::Passed => writeln!(f, "passed       {name}")?,
                Verdict::NotClaimed => writeln!(f, "not claimed  {name}")?,
                Verdict::Failed(why) => writeln!(f, "FAILED       {name}: {why}")?,
            }
        }
        Ok(())
    }
}

/// One of several tasks that run side by side.
type Task<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// A check's own result: `Ok(true)` passed, `Ok(false)` not claimed.
type Outcome = Result<bool, String>;

/// Runs every check, one after the other, on keys below `conformance/`.
pub async fn run(deployment: &dyn Deployment) -> Report {
    let suite = Suite {
        deployment,
        nonce: AtomicU64::new(1),
    };
    let mut report = Report::default();
    macro_rules! check {
        ($name:expr, $check:expr) => {
            let verdict = match $check.await {
                Ok(true) => Verdict::Passed,
                Ok(false) => Verdict::NotClaimed,
                Err(why) => Verdict::Failed(why),
            };
            report.checks.push(($name, verdict));
        };
    }
    check!("a write is read back", operations::read_back(&suite));
    check!("versions tell creation from change", operations::versions(&suite));
    check!("a deleted key is gone", operations::deletion(&suite));
    check!(
        "compare-and-set wins once, or is refused",
        operations::compare_and_set(&suite)
    );
    check!(
        "a batch over keys is atomic, or is refused",
        operations::batch(&suite)
    );
    check!(
        "guards of a batch are checked, or refused",
        operations::guarded_batch(&suite)
    );
    check!(
        "ranges are ordered, bounded and paged",
        operations::ranges(&suite)
    );
    check!("a repeat has no second effect", operations::repeat(&suite));
    check!("an outcome is final", operations::outcome(&suite));
    check!("no read is weaker than asked", operations::never_weaker(&suite));
    check!(
        "bad input is refused and changes nothing",
        operations::bad_input(&suite)
    );
    check!(
        "receipts state at least what is promised",
        operations::receipts(&suite)
    );
    check!(
        "a watch shows every change and resumes",
        operations::watch(&suite)
    );
    check!("concurrent increments all count", races::increments(&suite));
    check!(
        "additions to a counter all count, or are refused",
        datatypes::counter(&suite)
    );
    check!("reads never go back", races::monotone(&suite));
    check!("an isolated node does what it claims", faults::isolated(&suite));
    check!("the others do what they claim", faults::others(&suite));
    check!("all nodes agree after the heal", faults::convergence(&suite));
    report
}

/// What checks share.
struct Suite<'a> {
    deployment: &'a dyn Deployment,
    nonce: AtomicU64,
}

/// How long an operation may take in a check before the suite calls it a hang.
const PATIENCE: Duration = Duration::from_secs(5);
/// Attempts of one write of a check that is refused for now (an election, say).
const ATTEMPTS: u32 = 50;

impl Suite<'_> {
    fn nodes(&self) -> Vec<NodeId> {
        self.deployment.nodes()
    }

    fn first(&self) -> SharedReplicator {
        self.deployment.replicator(self.nodes()[0])
    }

    fn descriptor(&self) -> &'static Descriptor {
        self.first().descriptor()
    }

    fn key(&self, name: &str) -> Key {
        Key::from(format!("conformance/{name}"))
    }

    /// A fresh operation id in a session of its own.
    fn op(&self, at: &SharedReplicator) -> OpId {
        let nonce = 0xc0f0_0000_0000 + self.nonce.fetch_add(1, Ordering::Relaxed);
        let basis: Version = at.status().current().version;
        OpId {
            session: SessionId { basis, nonce },
            seq: 1,
        }
    }

    fn context(&self, op: OpId, attempt: Attempt) -> OpContext {
        OpContext {
            op,
            attempt,
            timeout: PATIENCE,
            epoch: Epoch(1),
        }
    }

    /// One attempt of a write under a fresh id.
    async fn write_once(&self, at: &SharedReplicator, command: Command) -> Result<Receipt, WriteError> {
        let op = self.op(at);
        at.write(&self.context(op, Attempt::First), command).await
    }

    /// A write that must succeed; refusals for now are tried again, under the same id.
    async fn write(&self, at: &SharedReplicator, command: Command) -> Result<Receipt, String> {
        let op = self.op(at);
        let mut attempt = Attempt::First;
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match at.write(&self.context(op, attempt), command.clone()).await {
                Ok(receipt) => return Ok(receipt),
                Err(error @ WriteError::NotApplied(_)) => {
                    let WriteError::NotApplied(refusal) = &error else {
                        unreachable!("matched above")
                    };
                    if !refusal.reason.is_unavailable() {
                        return Err(format!("write refused: {error}"));
                    }
                    last = error.to_string();
                }
                Err(error) => {
                    attempt = Attempt::Retry;
                    last = error.to_string();
                }
            }
            self.deployment.sleep(Duration::from_millis(100)).await;
        }
        Err(format!("no write in {ATTEMPTS} attempts: {last}"))
    }

    async fn read(
        &self,
        at: &SharedReplicator,
        query: Query,
        level: Option<ReadLevel>,
    ) -> Result<ReadReply, ReadError> {
        let op = OpId::default();
        at.read(&self.context(op, Attempt::First), ReadRequest { query, level })
            .await
    }

    /// A read at the strongest level that must succeed, at once or after refusals for now.
    async fn get(&self, at: &SharedReplicator, key: &Key) -> Result<ReadReply, String> {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match self.read(at, Query::Get(key.clone()), None).await {
                Ok(reply) => return Ok(reply),
                Err(error) if error.reason.is_unavailable() => last = error.to_string(),
                Err(error) => return Err(format!("read refused: {error}")),
            }
            self.deployment.sleep(Duration::from_millis(100)).await;
        }
        Err(format!("no read in {ATTEMPTS} attempts: {last}"))
    }

    async fn text(&self, at: &SharedReplicator, key: &Key) -> Result<Option<String>, String> {
        Ok(self.get(at, key).await?.value().map(ToString::to_string))
    }

    /// Waits until a local read at every node shows `expected`.
    async fn everywhere(&self, key: &Key, expected: Option<&str>) -> Result<(), String> {
        for node in self.nodes() {
            let at = self.deployment.replicator(node);
            for round in 0.. {
                let reply = self
                    .read(&at, Query::Get(key.clone()), Some(ReadLevel::Local))
                    .await;
                let found = reply.ok().map(|reply| reply.value().map(ToString::to_string));
                if found == Some(expected.map(str::to_owned)) {
                    break;
                }
                if round == 2 * ATTEMPTS {
                    return Err(format!(
                        "node {node} shows {found:?} of {key}, expected {expected:?}"
                    ));
                }
                self.deployment.sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Runs futures side by side on the current task.
async fn join_all<T>(futures: Vec<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> Vec<T> {
    let mut running: Vec<_> = futures.into_iter().map(Some).collect();
    let mut results: Vec<Option<T>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, result) in running.iter_mut().zip(&mut results) {
            if let Some(run) = future {
                match run.as_mut().poll(cx) {
                    Poll::Ready(value) => {
                        *result = Some(value);
                        *future = None;
                    }
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    results.into_iter().flatten().collect()
}
