//! What rides on a message: first what the receiver must refute, then requests, updates and listings, as far as bytes go.

use trilemma_core::{Instant, NodeId};

use crate::message::{
    DATAGRAM_BYTES_MAX, Detail, LISTED_MAX, Listed, News, SenderIncarnation, Sums, Update, WANTS_MAX,
};
use crate::standing::State;
use crate::view::View;

/// Bytes of a datagram that are kept for the message around the news.
const HEADER_BYTES: usize = 32;

/// Bytes of a listing where most buckets differ.
const SAMPLE_BYTES: usize = 128;

/// What a message should carry.
#[derive(Debug, Default)]
pub(crate) struct Carry {
    /// Bytes of updates, at most.
    pub(crate) updates_max: usize,
    /// Sums for a comparison.
    pub(crate) sums: bool,
    /// Sums of the receiver, to list what differs.
    pub(crate) compare: Option<Sums>,
    /// Whom to ask for.
    pub(crate) wants: Vec<NodeId>,
    /// Members that the receiver asked for, or should know at once.
    pub(crate) answers: Vec<NodeId>,
    /// Whether this node introduces itself.
    pub(crate) introduce: bool,
}

impl Carry {
    /// Updates alone.
    pub(crate) fn updates() -> Self {
        Self {
            updates_max: usize::MAX,
            ..Self::default()
        }
    }
}

impl View {
    /// What to say to `to` beside the message itself.
    pub(crate) fn compose(&mut self, now: Instant, to: NodeId, carry: Carry) -> News {
        let mut news = News {
            sender: SenderIncarnation(self.incarnation),
            record: self.record.digest(),
            wants: carry.wants,
            ..News::default()
        };
        news.wants.truncate(WANTS_MAX);
        news.updates.extend(self.accusation(to));
        if carry.introduce {
            news.updates.push(self.introduction());
        }
        if carry.sums {
            let buckets_log2 = self.table.buckets_log2();
            let first = self.rng.below(1 << buckets_log2) as u16;
            news.sums = Some(self.table.sums(buckets_log2, first));
        }
        let mut left = (DATAGRAM_BYTES_MAX - HEADER_BYTES).saturating_sub(news.size());
        for node in carry.answers {
            let Some(entry) = self.table.get(node) else {
                continue;
            };
            let update = self.describe(entry);
            if update.size() <= left {
                left -= update.size();
                news.updates.push(update);
            }
        }
        left = left.min(self.budget.available(now));
        if let Some(sums) = carry.compare {
            news.listing = self.listing(&sums, left);
            left -= news.listing.iter().map(|listed| listed.size()).sum::<usize>();
        }
        if carry.updates_max > 0 {
            let share = left.min(carry.updates_max);
            let sends_max = self.sends_max();
            news.updates.extend(self.updates.take(to, share, sends_max));
        }
        news.updates.truncate(crate::message::UPDATES_MAX);
        news
    }

    /// What the receiver must refute, if it is not believed alive: it is the one who should know first.
    fn accusation(&self, to: NodeId) -> Option<Update> {
        let standing = self.table.standing(to)?;
        let detail = match standing.state() {
            State::Alive => return None,
            State::Suspect | State::Dead => Detail::None,
            State::Left | State::Evicted => Detail::Signature(self.signatures.get(&to)?.clone()),
        };
        Some(Update {
            node: to,
            standing,
            detail,
        })
    }

    /// Members of the buckets in which the receiver's table differs, from a random one on, so that each has its turn.
    ///
    /// Where not too many differ, a listing is the cheapest way to what the receiver lacks. Where most do, updates are cheaper, and a
    /// listing is only to show the receiver that there is something: after a network partition, who is held for dead.
    fn listing(&mut self, sums: &Sums, bytes_max: usize) -> Vec<Listed> {
        let (buckets, differing) = self.table.differing(sums);
        if differing.is_empty() {
            return Vec::new();
        }
        // A bucket has about 16 members: below this, a listing costs less for each that the receiver lacks.
        let is_rest = differing.len() * 3 <= sums.sums.len() * 2;
        let bytes_max = if is_rest {
            bytes_max
        } else {
            bytes_max.min(SAMPLE_BYTES)
        };
        let from = self.rng.below(self.table.len() as u64) as usize;
        let mut left = bytes_max;
        let listed = self
            .table
            .in_buckets(buckets, &differing, from)
            .map(|entry| Listed {
                node: entry.record.node,
                standing: entry.standing,
                record: (entry.standing.incarnation().counter == 0).then(|| entry.record.digest()),
            });
        let fitting = listed.take_while(|listed| {
            let fits = listed.size() <= left;
            left = left.saturating_sub(listed.size());
            fits
        });
        fitting.take(LISTED_MAX).collect()
    }
}
