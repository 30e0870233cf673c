//! Who dials a peer, and again when the connection has ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, VarInt};
use tokio::sync::watch;
use trilemma_core::{NodeId, Rng, codec};

use super::{REASON_BYTES_MAX, Shared, closed, read_hello};
use crate::error::{Refusal, code};
use crate::hello::{Hello, clip};
use crate::identity::server_name;
use crate::{frame, tls};

/// Shortest and longest pause between two attempts to reach a peer. The pause is random below a bound that doubles.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));

/// Keeps a connection to one peer: dials, serves, dials again.
pub(super) struct Dialler {
    pub(super) endpoint: Endpoint,
    pub(super) client: quinn::ClientConfig,
    pub(super) shared: Arc<Shared>,
    pub(super) node: NodeId,
    pub(super) address: SocketAddr,
}

impl Dialler {
    /// Runs until the transport is dropped: `stop` then has no sender.
    pub(super) async fn run(self, mut stop: watch::Receiver<()>) {
        let Self { shared, node, .. } = &self;
        let here = shared.config.process;
        let mut rng = Rng::new(u64::from(here.node.0) << 32 ^ u64::from(node.0) ^ here.nonce);
        let mut bound = BACKOFF.0;
        let mut reported = None;
        loop {
            match self.dial().await {
                Ok((connection, there)) => {
                    bound = BACKOFF.0;
                    reported = None;
                    shared.run_link(connection, &there).await;
                }
                Err(None) => {}
                // The same refusal again and again is reported once.
                Err(reason) if reported == reason => {}
                Err(Some(reason)) => {
                    reported = Some(reason.clone());
                    shared.tell_refused(Some(*node), self.address, reason);
                }
            }
            if shared.context.events.is_closed() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(rng.between(BACKOFF.0 / 2, bound)) => {}
                _ended = stop.changed() => return,
            }
            bound = (bound * 2).min(BACKOFF.1);
        }
    }

    /// One attempt. `Err(None)`: the peer is not there.
    async fn dial(&self) -> Result<(Connection, Hello), Option<Refusal>> {
        let Self { shared, node, .. } = self;
        if shared.context.faults.is_blocked(*node) {
            return Err(None);
        }
        let (name, address) = (server_name(&shared.config.cluster, *node), self.address);
        let connecting = self
            .endpoint
            .connect_with(self.client.clone(), address, &name)
            .map_err(|error| Some(Refusal::Violation(format!("cannot dial {address}: {error}"))))?;
        let connection = match tokio::time::timeout(shared.config.timing.handshake, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(quinn::ConnectionError::TimedOut | quinn::ConnectionError::LocallyClosed)) | Err(_) => {
                return Err(None);
            }
            Ok(Err(error)) => return Err(Some(closed(&error))),
        };
        let greeted =
            tokio::time::timeout(shared.config.timing.handshake, greet(&connection, shared, *node)).await;
        match greeted {
            Ok(Ok(there)) => Ok((connection, there)),
            Ok(Err(reason)) => {
                let text = reason.to_string();
                let text = clip(&text, REASON_BYTES_MAX).as_bytes();
                connection.close(VarInt::from_u32(code::REFUSED), text);
                Err(Some(reason))
            }
            Err(_elapsed) => {
                connection.close(VarInt::from_u32(code::VIOLATION), b"no hello in time");
                Err(None)
            }
        }
    }
}

/// The dialling side: sends our hello, reads and judges the answer.
async fn greet(connection: &Connection, shared: &Shared, node: NodeId) -> Result<Hello, Refusal> {
    let (_, chain) = tls::handshake(connection);
    let proven = shared.peer(&chain)?;
    if proven != node {
        let dialled = connection.remote_address();
        return Err(Refusal::Subject(format!(
            "{dialled} was to be node {node}, its certificate names node {proven}"
        )));
    }
    let (mut send, receive) = connection.open_bi().await.map_err(|error| closed(&error))?;
    frame::write(&mut send, &codec::encode(&shared.hello()))
        .await
        .map_err(Refusal::ByPeer)?;
    let there = match read_hello(receive).await {
        Ok(there) => there,
        // The close that follows tells more than the end of a stream.
        Err(Refusal::ByPeer(_)) => return Err(closed(&connection.closed().await)),
        Err(other) => return Err(other),
    };
    shared.judge(&there, proven)?;
    Ok(there)
}
