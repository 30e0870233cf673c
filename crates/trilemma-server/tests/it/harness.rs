//! A cluster of processes in a directory of its own, on free ports, on the disk that the build uses.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest time for a node to start.
pub(crate) const START: Duration = Duration::from_secs(20);
/// The keyspaces of the tests: one of each backend.
pub(crate) const KEYSPACES: [(&str, &str); 4] = [
    ("carts", "gossip"),
    ("locks", "raft"),
    ("settings", "paxos"),
    ("orders", "two-phase"),
];

/// Tests with clusters run one after the other: machines with two processors test clusters, not their scheduler.
static ONE_CLUSTER: Mutex<()> = Mutex::new(());

/// A cluster of processes; all are killed when it goes out of scope.
pub(crate) struct Cluster {
    pub(crate) dir: PathBuf,
    nodes: BTreeMap<u32, Child>,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Writes the files of a cluster with `init`; starts nothing.
    pub(crate) fn init(name: &str, nodes: u32) -> Self {
        let alone = ONE_CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = fresh_dir(name);
        let port = free_ports(nodes);
        let keyspaces: Vec<String> = KEYSPACES
            .iter()
            .map(|(name, backend)| format!("{name}={backend}"))
            .collect();
        let output = trilemma(&[
            "init",
            path(&dir),
            "--nodes",
            &nodes.to_string(),
            "--base-port",
            &port.to_string(),
            "--keyspaces",
            &keyspaces.join(","),
        ]);
        assert!(output.status.success(), "init: {}", text(&output));
        for node in 1..=nodes {
            // Small segments: what the tests write is small, and filling segments takes time.
            let mut file = std::fs::OpenOptions::new()
                .append(true)
                .open(dir.join(format!("node-{node}.toml")))
                .unwrap();
            file.write_all(b"\n[tuning]\nsegment_bytes = 16777216\n").unwrap();
        }
        Self {
            dir,
            nodes: BTreeMap::new(),
            _alone: alone,
        }
    }

    /// Three running nodes, every keyspace writable everywhere.
    pub(crate) fn three(name: &str) -> Self {
        let mut cluster = Self::init(name, 3);
        for node in 1..=3 {
            cluster.spawn(node);
        }
        for node in 1..=3 {
            cluster.wait_writable(node);
        }
        cluster
    }

    /// Starts a node and waits for its `ready` line.
    pub(crate) fn spawn(&mut self, node: u32) {
        let ready = self.try_spawn(node, &format!("node-{node}.toml"));
        let log = self.log(node);
        let ready = ready.unwrap_or_else(|| panic!("node {node} did not start:\n{log}"));
        assert!(
            ready.starts_with(&format!("ready node={node} listen=127.0.0.1:")),
            "{ready}"
        );
    }

    /// Starts a node with a configuration; its `ready` line, or `None` if it ended or took too long.
    pub(crate) fn try_spawn(&mut self, node: u32, config: &str) -> Option<String> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path(node))
            .unwrap();
        let mut child = Command::new(binary())
            .args(["serve", "--config", path(&self.dir.join(config))])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        self.nodes.insert(node, child);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            if BufReader::new(stdout)
                .read_line(&mut line)
                .is_ok_and(|length| length > 0)
            {
                sender.send(line).ok();
            }
        });
        receiver.recv_timeout(START).ok()
    }

    /// Starts a node with these streams and options, and waits for nothing.
    pub(crate) fn spawn_with(&mut self, node: u32, options: &[&str], stdout: Stdio, stderr: Stdio) {
        let config = self.dir.join(format!("node-{node}.toml"));
        let child = Command::new(binary())
            .args(["serve", "--config", path(&config)])
            .args(options)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        self.nodes.insert(node, child);
    }

    fn log_path(&self, node: u32) -> PathBuf {
        self.dir.join(format!("node-{node}.log"))
    }

    /// What a node has logged.
    pub(crate) fn log(&self, node: u32) -> String {
        std::fs::read_to_string(self.log_path(node)).unwrap_or_default()
    }

    /// Waits until a node can write and read every keyspace.
    pub(crate) fn wait_writable(&self, node: u32) {
        let until = Instant::now() + START;
        loop {
            let output = self.at(node, &["keyspaces", "--output", "json"]);
            let keyspaces = lines(&output);
            let ready =
                |keyspace: &serde_json::Value| keyspace["can_write"] == true && keyspace["can_read"] == true;
            if keyspaces.len() == KEYSPACES.len() && keyspaces.iter().all(ready) {
                return;
            }
            assert!(
                Instant::now() < until,
                "node {node} is not ready: {}\n{}",
                text(&output),
                self.log(node)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills a node: SIGKILL.
    pub(crate) fn kill(&mut self, node: u32) {
        let mut child = self.nodes.remove(&node).expect("the node runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops a node: SIGTERM. It must end with code 0.
    pub(crate) fn terminate(&mut self, node: u32) {
        self.ask_to_stop(node);
        assert_eq!(
            self.wait_for_end(node),
            Some(0),
            "a clean stop:\n{}",
            self.log(node)
        );
    }

    /// Sends a node SIGTERM.
    pub(crate) fn ask_to_stop(&self, node: u32) {
        let child = self.nodes.get(&node).expect("the node runs");
        let sent = Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits until a node that should end by itself has; its exit code.
    pub(crate) fn wait_for_end(&mut self, node: u32) -> Option<i32> {
        wait_for_exit(self.nodes.remove(&node).expect("the node was started"))
    }

    /// Runs a client command at one node.
    pub(crate) fn at(&self, node: u32, args: &[&str]) -> Output {
        let server = node.to_string();
        self.client(&[args, &["--server", &server]].concat())
    }

    /// Runs a client command.
    pub(crate) fn client(&self, args: &[&str]) -> Output {
        let config = self.dir.join("client.toml");
        trilemma(&[args, &["--config", path(&config)]].concat())
    }

    /// Runs a client command at one node that must end with code 0; its output.
    #[track_caller]
    pub(crate) fn ok(&self, node: u32, args: &[&str]) -> String {
        let output = self.at(node, args);
        assert!(
            output.status.success(),
            "{args:?} at node {node}: {}",
            text(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a client command at one node that must end with `code`; what it wrote to standard error.
    #[track_caller]
    pub(crate) fn fails(&self, node: u32, args: &[&str], code: i32) -> String {
        let output = self.at(node, args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?} at node {node}: {}",
            text(&output)
        );
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.values_mut() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            for node in 1..=3 {
                eprintln!("--- node {node}:\n{}", self.log(node));
            }
        } else {
            std::fs::remove_dir_all(&self.dir).ok();
        }
    }
}

fn wait_for_exit(mut child: Child) -> Option<i32> {
    let until = Instant::now() + START;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("the process did not end within {START:?}");
}

/// The binary under test.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_trilemma")
}

/// Runs the binary.
pub(crate) fn trilemma(args: &[&str]) -> Output {
    Command::new(binary())
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs the binary with standard input.
pub(crate) fn trilemma_with_input(args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(binary());
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Runs the binary with these streams; its exit code.
pub(crate) fn exit_code(args: &[&str], stdout: Stdio, stderr: Stdio) -> Option<i32> {
    let mut command = Command::new(binary());
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    command.status().unwrap().code()
}

/// A directory that does not exist yet, below the build's own.
pub(crate) fn fresh_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    dir
}

/// The first of `count` adjacent UDP ports that are free, and stay so until the cluster uses them: systems hand out
/// ports from 32768 on, and no two tests of this process get the same.
fn free_ports(count: u32) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(count, Ordering::Relaxed);
        let first = (10_000 + (std::process::id() % 20_000 + next) % 20_000) as u16;
        let mut range = first..first + count as u16;
        if range.all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return first;
        }
    }
}

/// A path as an argument.
pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Everything a command wrote.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{:?}\n{}\n{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Standard output as JSON lines.
pub(crate) fn lines(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
