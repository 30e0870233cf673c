//! `init`: the files of a new cluster, ready to start.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use trilemma::config::{NEW_NODE_FILE, check_keyspaces};
use trilemma::{Backend, NodeId};

use super::tls::{Secrecy, check_cluster, create_dir, new_authority, refused, write_file, write_issued};
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

/// Most nodes that `init` writes files for; larger clusters are made by tools.
const NODES_MAX: u16 = 99;

/// Writes the configuration and certificates of a new cluster on this machine.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma init
  trilemma init prod --nodes 5 --cluster prod --keyspaces carts=gossip,locks=raft,orders=two-phase

Writes DIR/node-1.toml …, DIR/client.toml, DIR/certs/, and an empty data directory for each node, marked as new. Files that exist are never overwritten unless --force is
given, and then new certificates are made: nodes that have the old ones must get the new ones.")]
pub(crate) struct Init {
    /// Where to write
    #[arg(default_value = "trilemma")]
    dir: PathBuf,
    /// Number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: u16,
    /// The cluster's name
    #[arg(long, default_value = "demo")]
    cluster: String,
    /// UDP port of node 1; the others follow
    #[arg(long, default_value_t = 7400, value_parser = clap::value_parser!(u16).range(1..=i64::from(u16::MAX - NODES_MAX)))]
    base_port: u16,
    /// Keyspaces as NAME=BACKEND, with backends gossip, raft, paxos and two-phase
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "carts=gossip,locks=raft,settings=paxos,orders=two-phase"
    )]
    keyspaces: Vec<String>,
    /// Overwrite files that exist
    #[arg(long)]
    force: bool,
}

impl Init {
    pub(crate) fn run(self) -> Outcome {
        let keyspaces = self.parse_keyspaces()?;
        check_cluster(&self.cluster)?;
        let certs = self.dir.join("certs");
        self.refuse_existing(&certs)?;
        create_dir(&certs)?;
        let authority = new_authority(&self.cluster, &certs, self.force)?;
        for node in 1..=self.nodes {
            let issued = authority
                .issue_node(&self.cluster, NodeId(node.into()))
                .map_err(refused)?;
            write_issued(&certs, &format!("node-{node}"), &issued, self.force)?;
            self.mark_new(node)?;
            let text = self.node_file(node, &keyspaces);
            write_file(
                &self.dir.join(format!("node-{node}.toml")),
                &text,
                Secrecy::Public,
                self.force,
            )?;
        }
        let issued = authority.issue_client(&self.cluster, "client").map_err(refused)?;
        write_issued(&certs, "client", &issued, self.force)?;
        write_file(
            &self.dir.join("client.toml"),
            &self.client_file(),
            Secrecy::Public,
            self.force,
        )?;
        self.next_steps(&keyspaces);
        Ok(Exit::Ok)
    }

    /// Makes a node's data directory and marks it as a new node's, for an empty one is refused otherwise.
    fn mark_new(&self, node: u16) -> Result<(), Failure> {
        let data = self.dir.join(format!("data/node-{node}"));
        create_dir(&data)?;
        let text = "The node whose directory this is may start with it although it is empty. Removed by the first start.\n";
        write_file(&data.join(NEW_NODE_FILE), text, Secrecy::Public, true)
    }

    /// Refuses before the first file is written, so that a directory is never half old and half new.
    fn refuse_existing(&self, certs: &Path) -> Result<(), Failure> {
        let nodes = 1..=self.nodes;
        let names = nodes.flat_map(|node| {
            let cert = |ending: &str| certs.join(format!("node-{node}.{ending}"));
            [
                self.dir.join(format!("node-{node}.toml")),
                cert("pem"),
                cert("key"),
            ]
        });
        let others = ["ca.pem", "ca.key", "client.pem", "client.key"].map(|name| certs.join(name));
        let found = names
            .chain(others)
            .chain([self.dir.join("client.toml")])
            .find(|path| path.exists());
        match found {
            Some(path) if !self.force => Err(Failure::usage(
                format!("{}: exists already", path.display()),
                "nothing was written; choose another directory. --force replaces the authority and all certificates, \
                 so a cluster that uses them needs the new ones on every node and client",
            )),
            _ => Ok(()),
        }
    }

    fn parse_keyspaces(&self) -> Result<Vec<(String, Backend)>, Failure> {
        let mut keyspaces: Vec<(String, Backend)> = Vec::new();
        for text in &self.keyspaces {
            let wrong =
                |what: String| Failure::usage(format!("--keyspaces {text}: {what}"), "give NAME=BACKEND,…");
            let (name, backend) = text.split_once('=').ok_or_else(|| wrong("no \"=\"".into()))?;
            let backend = backend
                .parse::<Backend>()
                .map_err(|error| wrong(error.to_string()))?;
            keyspaces.push((name.into(), backend));
        }
        check_keyspaces(keyspaces.iter().map(|(name, _)| name.as_str()))
            .map_err(|why| Failure::usage(why, "nothing was written; give --keyspaces NAME=BACKEND,…"))?;
        Ok(keyspaces)
    }

    fn address(&self, node: u16) -> String {
        format!("127.0.0.1:{}", self.base_port + node - 1)
    }

    fn addresses(&self, without: Option<u16>) -> String {
        let others = (1..=self.nodes).filter(|node| Some(*node) != without);
        let pairs: Vec<String> = others
            .map(|node| format!("{node} = \"{}\"", self.address(node)))
            .collect();
        if pairs.is_empty() {
            "{}".into()
        } else {
            format!("{{ {} }}", pairs.join(", "))
        }
    }

    fn node_file(&self, node: u16, keyspaces: &[(String, Backend)]) -> String {
        let mut text = format!(
            "# Node {node} of cluster \"{cluster}\". Start it with: trilemma serve --config node-{node}.toml\n\
             # Relative paths are relative to this file. Unknown keys are errors.\n\n\
             cluster = \"{cluster}\"\n\
             node    = {node}                       # never reuse an id for another machine\n\
             listen  = \"{address}\"      # UDP; 0.0.0.0:PORT to be reached from other machines\n\
             data    = \"data/node-{node}\"           # the log and snapshots; belongs to this node alone\n\
             peers   = {peers}\n\n\
             [tls]                              # who has ca.key can become any node: keep it elsewhere\n\
             ca          = \"certs/ca.pem\"\n\
             certificate = \"certs/node-{node}.pem\"\n\
             key         = \"certs/node-{node}.key\"\n\n\
             # The same table on every node: nodes that differ refuse each other.\n\
             [keyspaces]\n",
            cluster = self.cluster,
            address = self.address(node),
            peers = self.addresses(Some(node)),
        );
        let width = keyspaces.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, backend) in keyspaces {
            let descriptor = backend.descriptor();
            writeln!(
                text,
                "# keeps {}; in a partition gives up {}",
                descriptor.keeps, descriptor.gives_up
            )
            .expect("writing to a string cannot fail");
            let more = if *backend == Backend::Gossip {
                ", durability = \"fsync\""
            } else {
                ""
            };
            writeln!(text, "{name:<width$} = {{ backend = \"{backend}\"{more} }}")
                .expect("writing to a string cannot fail");
        }
        text
    }

    fn client_file(&self) -> String {
        format!(
            "# A client of cluster \"{cluster}\". Servers are tried in the order of their ids.\n\
             # Relative paths are relative to this file.\n\n\
             cluster = \"{cluster}\"\n\
             servers = {servers}\n\n\
             [tls]\n\
             ca          = \"certs/ca.pem\"\n\
             certificate = \"certs/client.pem\"\n\
             key         = \"certs/client.key\"\n",
            cluster = self.cluster,
            servers = self.addresses(None),
        )
    }

    fn next_steps(&self, keyspaces: &[(String, Backend)]) {
        let dir = self.dir.display();
        output::line(format!(
            "wrote {} node(s), a client and certificates to {dir}/",
            self.nodes
        ));
        output::line("\nstart the nodes, each in its own terminal or service:");
        for node in 1..=self.nodes {
            output::line(format!("  trilemma serve --config {dir}/node-{node}.toml"));
        }
        output::line(
            "\non another machine, where the data directory is not the one made here, the first time with --new. A new\n\
             cluster's raft and paxos keyspaces begin when all nodes have met once.",
        );
        output::line("\nthen, from anywhere:");
        let config = if self.dir == Path::new("trilemma") || self.dir == Path::new(".") {
            String::new()
        } else {
            format!(" --config {dir}/client.toml")
        };
        output::line(format!("  trilemma{config} keyspaces"));
        if let Some((name, _)) = keyspaces.first() {
            output::line(format!("  trilemma{config} put {name} hello world --explain"));
            output::line(format!("  trilemma{config} get {name} hello"));
        }
    }
}
