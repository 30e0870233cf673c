//! Gossip by plays: the files of `tests/plays/` are run, and their traces must be what is recorded.
//!
//! `cargo xtask plays --rewrite` renews them. The form is that of [`trilemma_testkit::plays`].

use std::fs;
use std::path::Path;

use trilemma_core::{Incarnation, NodeId, Version};
use trilemma_gossip::clock::Stamp;
use trilemma_gossip::dot::Dot;
use trilemma_gossip::message::PageEnd;
use trilemma_gossip::reconcile::SYMBOL_BYTES;
use trilemma_gossip::replica::Item;
use trilemma_gossip::{Gossip, GossipConfig, Message};
use trilemma_testkit::plays::{Play, Plays, Setup, Stage};

/// What the wall clocks of a play show at its beginning, in milliseconds.
const BEGINNING: u64 = 1_700_000_001_000;

/// Gossip on the stage.
struct OfGossip;

impl Stage for OfGossip {
    type Protocol = Gossip;

    fn build(node: NodeId, incarnation: Incarnation, seed: u64, setup: &Setup) -> Gossip {
        let mut config = GossipConfig::new(node, incarnation, setup.members(), seed);
        if let Some(age) = setup.duration("tombstone-age") {
            config.tombstone_age_min = age;
        }
        if let Some(peers) = setup.number("flush-peers") {
            config.flush_peers_max = peers;
        }
        Gossip::new(config)
    }

    fn show(message: &Message) -> Vec<String> {
        vec![show(message)]
    }

    fn version(version: Version) -> String {
        stamp(Stamp(version.0))
    }

    fn command(play: &mut Play<Self>, words: &[&str]) -> Option<Result<(), String>> {
        match words {
            ["shown", key] => Some(shown(play, key)),
            _ => None,
        }
    }
}

#[test]
fn gossip_plays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plays");
    let mut plays = Plays::<OfGossip>::new(std::env::var("TRILEMMA_PLAYS").ok().as_deref());
    for file in fs::read_dir(folder).expect("there are plays") {
        let path = file.expect("the folder can be read").path();
        let recorded = fs::read_to_string(&path).expect("a play is text");
        if let Some(renewed) = plays.perform(&path.display().to_string(), &recorded) {
            fs::write(&path, renewed).expect("a play can be written");
        }
    }
    plays.end();
}

/// A stamp: milliseconds since the play began, and the counter within one.
fn stamp(stamp: Stamp) -> String {
    let counter = stamp.0 & 0xffff;
    let millis = i128::from(stamp.millis()) - i128::from(BEGINNING);
    match (stamp.0, counter) {
        (0, _) => "none".into(),
        (_, 0) => format!("t{millis}"),
        _ => format!("t{millis}.{counter}"),
    }
}

/// A dot: origin and number, and the incarnation unless it is the first.
fn dot(dot: Dot) -> String {
    match dot.incarnation.0 {
        1 => format!("{}#{}", dot.origin, dot.seq),
        _ => format!("{}.{}#{}", dot.origin, dot.incarnation, dot.seq),
    }
}

fn item(item: &Item) -> String {
    let what = match &item.content {
        Some(value) => format!("{}={value}", item.key),
        None => format!("delete {}", item.key),
    };
    let observed: Vec<String> = item.observed.iter().map(dot).collect();
    let observed = match observed.as_slice() {
        [] => String::new(),
        observed => format!(" over {}", observed.join(" ")),
    };
    format!("{} {what} at {}{observed}", dot(item.dot), stamp(item.stamp))
}

fn items(items: &[Item]) -> String {
    items.iter().map(item).collect::<Vec<_>>().join("; ")
}

fn dots(dots: &[Dot]) -> String {
    match dots {
        [] => String::new(),
        dots => format!(
            ", deferred {}",
            dots.iter().map(|name| dot(*name)).collect::<Vec<_>>().join(" ")
        ),
    }
}

fn show(message: &Message) -> String {
    match message {
        Message::Rumors { items: changes, .. } => format!("rumors [{}]", items(changes)),
        Message::Compare(compare) => format!("compare{}", dots(&compare.deferred)),
        Message::Pull { deferred, mutual, .. } => {
            let mutual = if *mutual { ", and you from me" } else { "" };
            format!("pull what I lack{mutual}{}", dots(deferred))
        }
        Message::Page {
            items: changes, end, ..
        } => {
            let end = match end {
                PageEnd::More(after) => format!("more after {}", dot(*after)),
                PageEnd::Last(_) => "that is all".into(),
            };
            format!("page [{}], {end}", items(changes))
        }
        Message::More { after, .. } => format!("more after {}", dot(*after)),
        Message::Symbols { first, symbols, .. } => {
            format!("{} symbols from {first} on", symbols.len() / SYMBOL_BYTES)
        }
        Message::MoreSymbols { first, .. } => format!("more symbols from {first} on"),
        Message::Want { dots, .. } => {
            let dots = dots.read().unwrap_or_default();
            let dots: Vec<String> = dots.into_iter().map(dot).collect();
            format!("want [{}]", dots.join(" "))
        }
        Message::Busy { retry_after_ms, .. } => format!("busy, ask again within {retry_after_ms} ms"),
        Message::Advertise { commands } => format!("I have{}", names(commands)),
        Message::Fetch { commands } => format!("send me{}", names(commands)),
    }
}

/// Commands by their first dots.
fn names(commands: &[(Dot, u16)]) -> String {
    let names = commands.iter().map(|(first, _)| format!(" {}", dot(*first)));
    names.collect()
}

/// `shown KEY`: what each node keeps of a key, tombstones and all siblings.
fn shown(play: &mut Play<OfGossip>, key: &str) -> Result<(), String> {
    for node in play.cluster()?.ids() {
        let cluster = play.cluster()?;
        let line = if cluster.is_up(node) {
            let siblings = cluster.protocol(node).shown(key.as_bytes());
            let siblings: Vec<String> = siblings.iter().map(|sibling| item(&sibling.item)).collect();
            match siblings.as_slice() {
                [] => "nothing".into(),
                siblings => siblings.join("; "),
            }
        } else {
            "down".into()
        };
        play.say(format!("{node}: {line}"));
    }
    Ok(())
}
