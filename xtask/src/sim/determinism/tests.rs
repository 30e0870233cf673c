//! Comparing hashes: a difference is named, a missing seed is one.

use super::{Hashes, Options, parse, same};

fn hashes(values: &[(u64, u128)]) -> Hashes {
    values
        .iter()
        .map(|(seed, hash)| (("raft".to_owned(), *seed), *hash))
        .collect()
}

#[test]
fn the_first_difference_is_named() {
    let reference = hashes(&[(1, 5), (2, 6), (3, 7)]);
    assert_eq!(same(&reference, &reference, "itself"), Ok(()));
    let error = same(&reference, &hashes(&[(1, 5), (2, 9), (3, 8)]), "another").expect_err("seed 2 differs");
    assert!(
        error.contains("raft seed 2") && error.contains("another"),
        "{error}"
    );
    let error = same(&reference, &hashes(&[(1, 5), (2, 6)]), "another").expect_err("seed 3 is missing");
    assert!(error.contains("raft seed 3"), "{error}");
}

#[test]
fn only_lines_of_hashes_are_read() {
    assert_eq!(parse("raft 7 00ff", "raft"), Some((("raft".to_owned(), 7), 255)));
    for line in [
        "paxos 7 00ff",
        "raft 7",
        "raft 7 00ff more",
        "failure {\"seed\":7}",
        "",
    ] {
        assert_eq!(parse(line, "raft"), None, "{line}");
    }
}

#[test]
fn comparing_nothing_is_refused() {
    let parsed = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Options::parse(&args)
    };
    assert!(parsed(&["--seeds", "0"]).is_err());
    assert!(parsed(&["--protocol", "nothing"]).is_err());
    assert_eq!(
        parsed(&["--protocol", "paxos"]).map(|options| options.protocols),
        Ok(vec!["paxos"])
    );
    assert_eq!(
        parsed(&[]).map(|options| (options.protocols.len(), options.seeds)),
        Ok((5, 100))
    );
}
