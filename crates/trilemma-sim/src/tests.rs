//! The simulator itself: it repeats itself, says what it does, sees what is broken and makes it short.

use crate::profile::Profile;
use crate::scenario::{Protocol, Scenario};
use crate::{run, shrink, swarm};

#[test]
fn a_seed_repeats_itself_and_another_does_not() {
    for protocol in Protocol::ALL {
        let hash = |seed| crate::trace_hash(protocol, seed);
        assert_eq!(hash(1), hash(1), "{protocol}");
        assert_ne!(hash(1), hash(2), "{protocol}");
    }
}

#[test]
fn scenarios_are_text_and_back() {
    for protocol in Protocol::ALL {
        for seed in 0..200 {
            let scenario = swarm::scenario(protocol, seed);
            let text = scenario.to_string();
            let back: Scenario = text.parse().unwrap_or_else(|error| panic!("{error} in\n{text}"));
            assert_eq!(back, scenario, "{text}");
        }
    }
}

#[test]
fn scenarios_of_every_profile_are_text_and_back() {
    for profile in Profile::ALL {
        for protocol in Protocol::ALL {
            for seed in 0..40 {
                let scenario = profile.scenario(protocol, seed);
                let text = scenario.to_string();
                let back: Scenario = text.parse().unwrap_or_else(|error| panic!("{error} in\n{text}"));
                assert_eq!(back, scenario, "{profile} {text}");
            }
        }
    }
}

#[test]
fn profiles_say_what_they_draw() {
    for profile in Profile::ALL {
        assert_eq!(profile.name().parse(), Ok(profile));
        let first = profile.description().lines().next().unwrap_or_default();
        assert!(first.starts_with(&format!("{profile}: ")), "{first}");
    }
    for seed in 0..200 {
        let large = Profile::Large.scenario(Protocol::Raft, seed);
        let state = u64::from(large.workload.keys) * large.workload.value as u64;
        assert!(
            (7..=9).contains(&large.nodes) && large.workload.operations >= 5000,
            "{large}"
        );
        assert!(state >= 50 * large.knobs["raft.chunk_bytes"], "{large}");
    }
}

/// Clients write for ten seconds.
const STUCK: &str = "
protocol raft
seed 3
clients 4 keys 2 operations 2000 think 20ms deadline 200ms
demand write 2s catch-up 5s
heal 10s
";

#[test]
fn progress_that_does_not_come_is_seen() {
    let parse = |text: &str| text.parse::<Scenario>().unwrap_or_else(|error| panic!("{error}"));
    let sound = parse(STUCK);
    assert_eq!(run(&sound, false).failure, None);
    let stuck = parse(&format!("network loss 1000 duplicate 0 delay 1ms..2ms\n{STUCK}"));
    let failure = run(&stuck, false).failure.map(|failure| failure.checker);
    assert_eq!(failure, Some("progress"));
}

#[test]
fn a_node_that_does_not_catch_up_is_seen() {
    let text = format!("{STUCK}\nat 1s crash 3 for 1s\n");
    let scenario = |text: &str| text.parse::<Scenario>().unwrap_or_else(|error| panic!("{error}"));
    let sound = run(&scenario(&text), false);
    assert_eq!(sound.failure, None);
    let caught = sound.coverage.count("caught-up-after", "crash");
    assert!(caught > 0);
    // One entry in each long round trip, and no time for that.
    let mut slow = scenario(&text);
    slow.knobs.insert("raft.append_entries_max".to_owned(), 1);
    slow.knobs.insert("raft.inflight_max".to_owned(), 1);
    slow.network.delay = (20_000_000, 20_000_000);
    slow.demand = Some(crate::scenario::Demand {
        write: slow.heal,
        catch_up: 0,
    });
    let failure = run(&slow, false).failure.map(|failure| failure.checker);
    assert_eq!(failure, Some("catch-up"));
}

#[test]
fn settings_change_over_a_restart_and_at_time_0_before_the_first_start() {
    let text = "protocol raft\nseed 1\nat 0ns set 2 raft.kept_entries 0\nat 5ms set 3 raft.kept_entries 1\n";
    let scenario: Scenario = text.parse().unwrap_or_else(|error| panic!("{error}"));
    let of = |node| {
        scenario
            .knobs_of(trilemma_core::NodeId(node))
            .get("raft.kept_entries")
            .copied()
    };
    assert_eq!([of(1), of(2), of(3)], [None, Some(0), None]);
    let report = run(&scenario, false);
    assert_eq!(report.failure, None);
}

#[test]
fn an_acknowledged_write_may_be_lost_only_where_the_durability_says_so() {
    for (durability, forgets) in [(0, true), (1, true), (2, false)] {
        let text = format!("protocol gossip\nknob node.durability {durability}\n");
        let scenario: Scenario = text.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(scenario.may_forget(), forgets, "{durability}");
    }
    let raft: Scenario = "protocol raft\nknob node.durability 0\n"
        .parse()
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(!raft.may_forget());
}

#[test]
fn a_scenario_replays_what_its_seed_did() {
    let scenario = swarm::scenario(Protocol::TwoPhase, 7);
    let text = scenario.to_string();
    let back: Scenario = text.parse().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        run(&scenario, false).hash,
        run(&back, true).hash,
        "a trace changes nothing"
    );
}

#[test]
fn wrong_lines_are_named() {
    let wrong = |text: &str| match text.parse::<Scenario>() {
        Ok(scenario) => panic!("accepted: {scenario}"),
        Err(error) => error.to_string(),
    };
    assert!(wrong("protocol raft\n\nnodes x").starts_with("line 3: \"x\": expected a number of nodes"));
    assert!(wrong("nodes 3\nat 5ms crash 4 for 3ms").contains("expected a node from 1 to 3"));
    assert!(wrong("at 5 crash 1 for 3ms").contains("expected a time such as"));
    assert!(wrong("at 5ms explode 1").contains("no such action"));
    assert!(wrong("knob raft.colour 3").contains("no such setting"));
    assert!(wrong("heal 3s faults 50 more").contains("expected the end of the line"));
    assert!(wrong("on 1 send vote 3 crash for 1ms").contains("expected which occurrence"));
}

/// Raft does not promise to survive the loss of a majority's disks. That the simulator sees it is the proof that it
/// could see any other lost write.
const LOST_MAJORITY: &str = "
protocol raft
seed 5
nodes 3
clients 3 keys 2 operations 60 think 5ms deadline 500ms
knob raft.append_entries_max 8
network loss 20 duplicate 10 delay 100us..2ms
disk 100us..500us segment 65536 snapshot 2000
clock 3 offset 200 drift 100
at 150ms pause 3 for 20ms
at 200ms cut 1>2 for 30ms
at 300ms jump 2 100
at 400ms wipe 1 for 50ms
at 400ms wipe 2 for 50ms
at 400ms wipe 3 for 50ms
at 600ms slow-disk 2 10ms for 50ms
heal 1s faults 0
";

#[test]
fn a_lost_write_is_seen_and_its_scenario_made_short() {
    let scenario: Scenario = LOST_MAJORITY.parse().unwrap_or_else(|error| panic!("{error}"));
    let failure = run(&scenario, false)
        .failure
        .unwrap_or_else(|| panic!("nothing was seen"));
    let shrunk = shrink::shrink(&scenario, failure.checker).scenario;
    let text = shrunk.to_string();
    assert!(text.lines().count() <= 12, "{text}");
    let replayed: Scenario = text.parse().unwrap_or_else(|error| panic!("{error}"));
    let again = run(&replayed, false)
        .failure
        .unwrap_or_else(|| panic!("the short scenario does not fail"));
    assert_eq!(again.checker, failure.checker, "{text}");
}

#[test]
fn seeds_of_every_protocol_pass_and_have_enough_of_everything() {
    for protocol in Protocol::ALL {
        for seed in 0..20 {
            let report = run(&swarm::scenario(protocol, seed), false);
            assert_eq!(report.failure, None, "{protocol} {seed}");
            assert!(
                report.operations >= 100,
                "{protocol} {seed}: {} operations",
                report.operations
            );
            assert!(report.faults >= 50, "{protocol} {seed}: {} faults", report.faults);
        }
    }
}

#[test]
fn regressions_stay_fixed() {
    let files: &[(&str, &str)] = &[
        (
            "gossip-finished-exchange",
            include_str!("../scenarios/gossip-finished-exchange.txt"),
        ),
        (
            "gossip-collected-tombstone",
            include_str!("../scenarios/gossip-collected-tombstone.txt"),
        ),
        (
            "gossip-deferred-entry-lost",
            include_str!("../scenarios/gossip-deferred-entry-lost.txt"),
        ),
        (
            "two-phase-seems-blank",
            include_str!("../scenarios/two-phase-seems-blank.txt"),
        ),
        (
            "two-phase-former-refusal",
            include_str!("../scenarios/two-phase-former-refusal.txt"),
        ),
        (
            "raft-read-deadline",
            include_str!("../scenarios/raft-read-deadline.txt"),
        ),
        (
            "mixed-acknowledged-term",
            include_str!("../scenarios/mixed-acknowledged-term.txt"),
        ),
        (
            "paxos-duelling-proposers",
            include_str!("../scenarios/paxos-duelling-proposers.txt"),
        ),
    ];
    for (name, text) in files {
        let scenario: Scenario = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(run(&scenario, false).failure, None, "{name}");
    }
}

#[test]
fn every_profile_has_events_of_its_own_and_a_campaign_says_which_are_missing() {
    use crate::coverage::{Coverage, cells, events, required};
    for profile in crate::Profile::ALL {
        for protocol in crate::Protocol::ALL {
            let own = events(profile, protocol);
            assert_eq!(own.is_empty(), profile == crate::Profile::Standard, "{profile}");
            let all = required(profile, protocol);
            let mut coverage = Coverage::default();
            assert_eq!(coverage.empty(profile, protocol), all);
            for (event, met) in &all {
                coverage.hit(event, met);
            }
            assert_eq!(coverage.empty(profile, protocol), []);
        }
    }
    // What is saved of one campaign counts in the next.
    let mut saved = Coverage::default();
    saved.add(crate::Protocol::Raft, "resume", "other-node", 2);
    saved.add(
        crate::Protocol::Raft,
        "crash",
        cells(crate::Protocol::Raft)[0].1,
        1,
    );
    saved.add(crate::Protocol::Raft, "resume", "nowhere", 1);
    assert_eq!(saved.cells().count(), 2);
}

#[test]
fn a_restart_loses_disks_but_of_mixed_and_never_the_sequencers() {
    use crate::scenario::Action;
    for protocol in crate::Protocol::ALL {
        let wiped: std::collections::BTreeSet<u32> = (0..100)
            .flat_map(|seed| crate::Profile::Restart.scenario(protocol, seed).faults)
            .filter_map(|fault| match fault.action {
                Action::Wipe { node, .. } => Some(node.0),
                _ => None,
            })
            .collect();
        assert_eq!(wiped.is_empty(), protocol == crate::Protocol::Mixed, "{protocol}");
        assert_eq!(
            wiped.contains(&1),
            !matches!(protocol, crate::Protocol::Mixed | crate::Protocol::TwoPhase),
            "{protocol}: {wiped:?}"
        );
    }
}

#[test]
fn a_disk_that_is_lost_while_its_damage_is_not_found_yet_does_not_come_back() {
    let text = "protocol two-phase\nseed 773\nnodes 2\n\
                clients 1 keys 1 operations 1 think 36ms deadline 50ms\n\
                network loss 0 duplicate 0 delay 100us..500us frame 1\n\
                disk 100us..500us segment 65536 snapshot 16384\n\
                at 963ms rot 2 for 462ms\nat 1169ms wipe 2 for 330ms\nat 1286ms tear 2 3 for 1037ms\nheal 1500ms\n";
    let scenario: Scenario = text.parse().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(run(&scenario, false).failure, None);
}
