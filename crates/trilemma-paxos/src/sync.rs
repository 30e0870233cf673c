//! Anti-entropy: nodes compare what they have *learned* and send each other what one of them lacks.
//!
//! From time to time a node sends a random peer a hash for each of 256 buckets of keys. The peer lists (key, ballot)
//! of some buckets that differ, page by page; the node fetches what it lacks and sends what the peer lacks. So a
//! comparison costs 2 KiB where all is equal, and pages of the buckets that differ elsewhere. Every message is
//! bounded; what does not fit waits for the next comparison.
//!
//! **Only chosen registers are exchanged.** What an acceptor holds may have reached a minority and be overwritten
//! later; showing it would let a key go back. A register that was chosen but that nobody knows to be (its proposer
//! crashed before it said so) is found by its acceptors instead: the owner of this module runs a read round for keys
//! whose accepted register nobody has called chosen for a while, and the answer then spreads from here.

use std::sync::Arc;

use trilemma_core::{Key, NodeId, Rng};

use super::ballot::{Ballot, COUNTER_MAX};
use super::key_states::KeyStates;
use super::learner::{Learner, bucket};
use super::message::{BUCKETS, ChosenValue, Listed, MESSAGE_BYTES, Message, PAGE_MAX};
use super::withdrawn::Contradiction;

/// Most buckets listed in answer to one digest: a node that lacks everything gets 8 pages for each comparison, plus
/// the further pages it asks for.
const BUCKETS_PER_DIGEST: usize = 8;

/// What a message of anti-entropy leads to.
#[derive(Default)]
pub(crate) struct Found {
    /// Messages that answer it, all to its sender.
    pub(crate) replies: Vec<Message>,
    /// Values to learn.
    pub(crate) values: Vec<ChosenValue>,
    /// What its sender holds otherwise than this node, if anything.
    pub(crate) contradiction: Option<Contradiction>,
}

/// Takes a message of anti-entropy.
pub(crate) fn answer(
    learner: &Learner,
    slots: &KeyStates,
    rng: &mut Rng,
    page_max: usize,
    (from, message): (NodeId, Message),
) -> Found {
    let replies = match message {
        Message::Digest { buckets } => listings(learner, slots, rng, page_max, &buckets),
        Message::Listing {
            bucket,
            after,
            entries,
            more,
        } => {
            return Found {
                contradiction: entries.iter().find_map(|entry| differs(slots, from, entry)),
                replies: compare(learner, slots, bucket, &after, &entries, more),
                values: Vec::new(),
            };
        }
        Message::NextPage { bucket, after } => vec![page(learner, slots, page_max, bucket, after)],
        Message::Fetch { keys } => values(slots, keys.iter()).into_iter().collect(),
        Message::Values { items } => {
            let sane =
                |item: &ChosenValue| (1..=COUNTER_MAX).contains(&item.ballot.counter) && !item.key.is_empty();
            let values: Vec<ChosenValue> = items.into_iter().filter(sane).collect();
            let listed = |item: &ChosenValue| Listed {
                key: item.key.clone(),
                ballot: item.ballot,
                digest: item.register.digest(),
            };
            let mut found = values.iter().map(listed);
            return Found {
                contradiction: found.find_map(|entry| differs(slots, from, &entry)),
                values,
                ..Found::default()
            };
        }
        Message::Asks(_) | Message::Answers(_) => Vec::new(),
    };
    Found {
        replies,
        ..Found::default()
    }
}

/// Whether a peer holds another register under the ballot under which this node has learned or accepted one.
fn differs(slots: &KeyStates, peer: NodeId, entry: &Listed) -> Option<Contradiction> {
    let Listed {
        key,
        ballot,
        digest: found,
    } = entry;
    let slot = slots.get(key).filter(|_| *ballot > Ballot::ZERO)?;
    let here = if slot.learned() == *ballot {
        slot.digest()
    } else if slot.accepted == *ballot {
        slot.register.digest()
    } else {
        return None;
    };
    (here != *found).then(|| Contradiction {
        peer,
        key: key.clone(),
        ballot: *ballot,
        found: *found,
        here,
    })
}

/// The message that begins a comparison, and whom to send it; `None` if nobody can be reached.
pub(crate) fn begin(learner: &Learner, rng: &mut Rng, reachable: &[NodeId]) -> Option<(NodeId, Message)> {
    let buckets = learner.hashes().to_vec();
    rng.pick(reachable)
        .map(|node| (*node, Message::Digest { buckets }))
}

fn listings(
    learner: &Learner,
    slots: &KeyStates,
    rng: &mut Rng,
    page_max: usize,
    theirs: &[u64],
) -> Vec<Message> {
    if theirs.len() != BUCKETS {
        return Vec::new();
    }
    let ours = learner.hashes();
    // From a random bucket on, so that one that always differs does not keep others from being compared.
    let first = rng.below(BUCKETS as u64) as usize;
    (0..BUCKETS)
        .map(|offset| (first + offset) % BUCKETS)
        .filter(|bucket| ours[*bucket] != theirs[*bucket])
        .take(BUCKETS_PER_DIGEST)
        .map(|bucket| page(learner, slots, page_max, bucket.to_le_bytes()[0], Key::default()))
        .collect()
}

fn page(learner: &Learner, slots: &KeyStates, page_max: usize, bucket: u8, after: Key) -> Message {
    let mut rest = learner.bucket_after(slots, bucket, &after);
    let mut entries: Vec<Listed> = Vec::new();
    let mut bytes = 0;
    while entries.len() < page_max
        && bytes < MESSAGE_BYTES
        && let Some((key, ballot, digest)) = rest.next()
    {
        bytes += key.len();
        let key = key.clone();
        entries.push(Listed { key, ballot, digest });
    }
    let more = rest.next().is_some();
    drop(rest);
    Message::Listing {
        bucket,
        after,
        entries,
        more,
    }
}

fn compare(
    learner: &Learner,
    slots: &KeyStates,
    of: u8,
    after: &Key,
    entries: &[Listed],
    more: bool,
) -> Vec<Message> {
    let mut replies = Vec::new();
    let lacking = entries
        .iter()
        .filter(|entry| bucket(&entry.key) == of && entry.ballot > slots.learned(&entry.key))
        .map(|entry| entry.key.clone());
    let keys: Vec<Key> = lacking.collect();
    if !keys.is_empty() {
        replies.push(Message::Fetch { keys });
    }
    let theirs: std::collections::BTreeMap<&Key, Ballot> =
        entries.iter().map(|entry| (&entry.key, entry.ballot)).collect();
    let last = theirs.last_key_value().map(|(key, _)| (*key).clone());
    let within = |key: &Key| !more || last.as_ref().is_some_and(|last| key <= last);
    let newer = learner
        .bucket_after(slots, of, after)
        .take_while(|(key, ..)| within(key))
        .filter(|(key, ballot, _)| theirs.get(key).is_none_or(|their| their < ballot))
        .map(|(key, ..)| key);
    replies.extend(values(slots, newer));
    if more && let Some(after) = last {
        replies.push(Message::NextPage { bucket: of, after });
    }
    replies
}

/// What is known of these keys, as far as it fits one message.
fn values<'a>(slots: &KeyStates, keys: impl Iterator<Item = &'a Key>) -> Option<Message> {
    let mut items = Vec::new();
    let mut bytes = 0;
    for key in keys {
        let Some((slot, register)) = slots.get(key).and_then(|slot| Some((slot, slot.shown()?))) else {
            continue;
        };
        let item = ChosenValue {
            key: key.clone(),
            ballot: slot.learned(),
            register: Arc::clone(register),
        };
        bytes += item.size();
        items.push(item);
        if bytes >= MESSAGE_BYTES || items.len() == PAGE_MAX {
            break;
        }
    }
    (!items.is_empty()).then_some(Message::Values { items })
}
