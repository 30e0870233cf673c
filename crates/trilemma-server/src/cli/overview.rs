//! Commands that show a node: status and keyspaces.

use clap::Args;
use serde_json::{Value as Json, json};
use trilemma::{KeyspaceOverview, MembershipOverview, NodeOverview};

use super::Global;
use super::client::connect;
use super::members::members_json;
use crate::exit::{Exit, Outcome};
use crate::output::{self, Form};

/// Shows a node: its peers, keyspaces and log.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma status
  trilemma status --server 3 --output json")]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = connect(global).await?;
        let overview = client.overview().await?;
        if global.output == Form::Json {
            let members = client.members().await?;
            output::line(node_json(&overview, members.as_ref()).to_string());
            return Ok(Exit::Ok);
        }
        output::line(format!(
            "node {} of cluster \"{}\", incarnation {}, disk {}",
            overview.node, overview.cluster, overview.incarnation, overview.disk
        ));
        output::line("");
        let mut rows = vec![cells(["PEER", "ADDRESS", "CONNECTED", ""])];
        for peer in &overview.peers {
            let connected = if peer.connected { "yes" } else { "no" };
            rows.push(cells([
                &peer.node.to_string(),
                &peer.address,
                connected,
                &peer.refused,
            ]));
        }
        output::table(&rows);
        output::line("");
        output::table(&keyspace_rows(&overview.keyspaces));
        output::line("");
        let log = &overview.log;
        output::line(format!(
            "log: {} records, {} bytes, {} syncs; record {} durable, snapshot up to {}",
            log.records, log.bytes, log.syncs, log.durable, log.snapshot
        ));
        let load = &overview.load;
        output::line(format!(
            "load: longest turn {} ms, {} of {} turns over 20 ms; {} requests refused, {} B of answers wait",
            load.turn_micros_max.div_ceil(1000),
            load.turns_long,
            load.turns,
            load.refused,
            load.answer_bytes
        ));
        if !overview.snapshot_failure.is_empty() {
            output::line(format!(
                "the last snapshot failed, so the log keeps growing: {}",
                overview.snapshot_failure
            ));
        }
        Ok(Exit::Ok)
    }
}

/// Shows what each keyspace can do now on this node, and why not more.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma keyspaces
  trilemma keyspaces --explain          # also what each backend promises
  trilemma keyspaces --output json")]
pub(crate) struct Keyspaces {}

impl Keyspaces {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let overview = connect(global).await?.overview().await?;
        if global.output == Form::Json {
            for keyspace in &overview.keyspaces {
                output::line(keyspace_json(keyspace).to_string());
            }
            return Ok(Exit::Ok);
        }
        output::table(&keyspace_rows(&overview.keyspaces));
        if global.explain {
            let nodes = overview.peers.len() as u32 + 1;
            for keyspace in &overview.keyspaces {
                let descriptor = keyspace.backend.descriptor();
                output::line(format!(
                    "\n{}: {} keeps {}; in a partition it gives up {}\n  writes need {} of {nodes} nodes, cost {}; reads need {}, cost {}",
                    keyspace.name,
                    keyspace.backend,
                    descriptor.keeps,
                    descriptor.gives_up,
                    descriptor.writes_need.count(nodes),
                    descriptor.write_cost,
                    descriptor.reads_need.count(nodes),
                    descriptor.read_cost,
                ));
            }
        }
        Ok(Exit::Ok)
    }
}

fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn keyspace_rows(keyspaces: &[KeyspaceOverview]) -> Vec<Vec<String>> {
    let mut rows = vec![cells([
        "KEYSPACE", "BACKEND", "WRITES", "READS", "ROLE", "LEADER", "VERSION", "KEYS", "WHY NOT",
    ])];
    for KeyspaceOverview {
        name,
        backend,
        status,
        ..
    } in keyspaces
    {
        let able = |able: bool| if able { "yes" } else { "no" };
        rows.push(cells([
            name,
            backend.name(),
            able(status.can_write),
            able(status.can_read),
            &status.role,
            &status
                .leader
                .map_or_else(|| "-".into(), |leader| leader.to_string()),
            &status.version.to_string(),
            &status.keys.to_string(),
            &status.why,
        ]));
    }
    rows
}

/// A keyspace's status as JSON.
pub(crate) fn keyspace_json(keyspace: &KeyspaceOverview) -> Json {
    let status = &keyspace.status;
    let details: serde_json::Map<String, Json> = status
        .details
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect();
    json!({
        "name": keyspace.name,
        "backend": keyspace.backend.name(),
        "can_write": status.can_write,
        "can_read": status.can_read,
        "why": status.why,
        "missing": status.missing.iter().map(|node| node.0).collect::<Vec<_>>(),
        "leader": status.leader.map(|leader| leader.0),
        "role": status.role,
        "version": status.version.0,
        "keys": status.keys,
        "in_doubt": status.in_doubt,
        "details": details,
    })
}

fn node_json(overview: &NodeOverview, members: Option<&MembershipOverview>) -> Json {
    let peers: Vec<Json> = overview
        .peers
        .iter()
        .map(|peer| {
            json!({
                "node": peer.node.0,
                "address": peer.address,
                "connected": peer.connected,
                "refused": peer.refused,
            })
        })
        .collect();
    let (log, load, certificate) = (&overview.log, &overview.load, &overview.certificate);
    json!({
        "node": overview.node.0,
        "cluster": overview.cluster,
        "incarnation": overview.incarnation.0,
        "disk": overview.disk.to_string(),
        "snapshot_failure": overview.snapshot_failure,
        "peers": peers,
        "membership": members.map(members_json),
        "keyspaces": overview.keyspaces.iter().map(keyspace_json).collect::<Vec<_>>(),
        "log": {
            "last": log.last,
            "durable": log.durable,
            "snapshot": log.snapshot,
            "syncs": log.syncs,
            "records": log.records,
            "bytes": log.bytes,
            "sync_micros": log.sync_micros,
            "cpu_ms": log.cpu_ms,
        },
        "load": {
            "turns": load.turns,
            "turn_micros": load.turn_micros,
            "turn_micros_max": load.turn_micros_max,
            "turns_long": load.turns_long,
            "peer_events": load.peer_events,
            "client_events": load.client_events,
            "local_requests": load.local_requests,
            "pending": load.pending,
            "pending_bytes": load.pending_bytes,
            "log_bytes": load.log_bytes,
            "answer_bytes": load.answer_bytes,
            "refused": load.refused,
            "answers_refused": load.answers_refused,
            "messages_dropped": load.messages_dropped,
            "frames_dropped": load.frames_dropped,
            "handshakes_put_off": load.handshakes_put_off,
            "clients_cut_off": load.clients_cut_off,
        },
        "certificate": { "from": certificate.from, "until": certificate.until },
    })
}
