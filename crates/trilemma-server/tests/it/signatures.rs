//! `signatures = "required"` in real processes, with keys that `cert signing-key` makes.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, path, text, trilemma};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes a key; the line of its public one.
fn signing_key(cluster: &Cluster, node: u32, dir: &str) -> String {
    let dir = cluster.dir.join(dir);
    let output = trilemma(&["cert", "signing-key", &node.to_string(), "--dir", path(&dir)]);
    assert!(output.status.success(), "{}", text(&output));
    let printed = String::from_utf8(output.stdout).expect("text");
    let line = printed
        .lines()
        .find(|line| line.starts_with(&format!("{node} = ")));
    line.expect("the public key").to_owned()
}

fn configure(cluster: &Cluster, node: u32, key_dir: &str, public: &[&str]) {
    let file = cluster.dir.join(format!("node-{node}.toml"));
    let plain = std::fs::read_to_string(&file).unwrap();
    let signed = plain.replace(
        "backend = \"gossip\",",
        "backend = \"gossip\", signatures = \"required\",",
    );
    assert_ne!(signed, plain, "the keyspace is asked for signatures");
    std::fs::write(&file, signed).unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
    writeln!(
        file,
        "\n[signing]\nkey = \"{key_dir}/node-{node}-signing.key\"\n[signing.public_keys]\n{}",
        public.join("\n")
    )
    .unwrap();
}

fn until(what: &str, found: impl Fn() -> bool) {
    let begin = Instant::now();
    while !found() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(PAUSE);
    }
}

/// Node 3 has a key that the others do not know: to them it is a node that signs in the name of node 3.
#[test]
fn what_a_known_key_signed_is_taken_in_and_nothing_else() {
    let mut cluster = Cluster::init("signatures", 3);
    let [one, two, three] = [1, 2, 3].map(|node| signing_key(&cluster, node, "certs"));
    let stranger = signing_key(&cluster, 3, "other");
    configure(&cluster, 1, "certs", &[&one, &two, &three]);
    configure(&cluster, 2, "certs", &[&one, &two, &three]);
    configure(&cluster, 3, "other", &[&one, &two, &stranger]);
    for node in 1..=3 {
        cluster.spawn(node);
    }
    for node in 1..=3 {
        cluster.wait_writable(node);
    }
    let large = "v".repeat(5000);
    cluster.ok(1, &["put", "carts", "small", "yes"]);
    cluster.ok(1, &["put", "carts", "large", &large]);
    let has = |cluster: &Cluster, node, key: &str, value: &str| {
        String::from_utf8_lossy(&cluster.at(node, &["get", "carts", key]).stdout) == format!("{value}\n")
    };
    for node in 2..=3 {
        until("signed changes come", || {
            has(&cluster, node, "small", "yes") && has(&cluster, node, "large", &large)
        });
    }
    cluster.ok(3, &["put", "carts", "forged", "yes"]);
    for node in 1..=2 {
        until("the refusal is in the status", || {
            let status = cluster.ok(node, &["status"]);
            status.contains("no valid signature") && status.contains("node 3")
        });
        cluster.fails(node, &["get", "carts", "forged"], 1);
    }
    // What is on the disk is still signed: a node that starts again takes it for what it is, and so do others.
    cluster.kill(1);
    cluster.kill(2);
    cluster.spawn(2);
    until("signed changes are kept", || has(&cluster, 2, "large", &large));
    cluster.fails(2, &["get", "carts", "forged"], 1);
}

#[test]
fn a_node_without_the_keys_does_not_start_and_says_which_is_missing() {
    let mut cluster = Cluster::init("no-keys", 2);
    let one = signing_key(&cluster, 1, "certs");
    configure(&cluster, 1, "certs", &[&one]);
    assert_eq!(cluster.try_spawn(1, "node-1.toml"), None);
    let log = cluster.log(1);
    assert!(log.contains("there is no public key of node 2"), "{log}");
}
