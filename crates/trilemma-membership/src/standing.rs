//! What is known of a member: its incarnation and its state, as one number whose order is precedence.
//!
//! SWIM (Das, Gupta, Motivala 2002) section 4.2 orders statements about a member by incarnation, then by state: alive, suspect,
//! dead. Here an incarnation is a pair. The *epoch* grows with every start of the node and is durable before the node
//! announces itself, so a restart outranks everything said of it before. The *counter* grows with every refutation within
//! an epoch. `left` and `evicted` end an epoch: no counter of the same epoch outranks them. Merging two statements is taking
//! the greater one, a lattice join: order and repetition of messages do not matter.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Greatest epoch: 40 bits. A node that starts every second needs 34,000 years for them.
pub const EPOCH_MAX: u64 = (1 << 40) - 1;
/// Greatest counter: 21 bits. A node that needs more takes a new epoch.
pub const COUNTER_MAX: u32 = (1 << 21) - 1;
/// How far one message of a third party may raise an epoch or a counter. A forged statement near the maximum is refused, and
/// many forged ones are slower than the recovery from each.
pub const RAISE_MAX: u32 = 1 << 20;

/// The number that a member gives itself: greater is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation {
    /// One run of the node's process, at most [`EPOCH_MAX`]; 0 before the first.
    pub epoch: u64,
    /// Refutations in that run, at most [`COUNTER_MAX`].
    pub counter: u32,
}

impl Incarnation {
    /// The incarnation of these numbers; `None` if one is above its maximum.
    #[must_use]
    pub const fn new(epoch: u64, counter: u32) -> Option<Self> {
        if epoch > EPOCH_MAX || counter > COUNTER_MAX {
            return None;
        }
        Some(Self { epoch, counter })
    }

    /// The first one of an epoch. Epochs beyond the maximum count as the maximum.
    #[must_use]
    pub const fn first(epoch: u64) -> Self {
        let epoch = if epoch > EPOCH_MAX { EPOCH_MAX } else { epoch };
        Self { epoch, counter: 0 }
    }

    /// Whether a third party may raise `known` to this by one message.
    #[must_use]
    pub const fn is_within_reach_of(self, known: Incarnation) -> bool {
        if self.epoch > known.epoch {
            self.epoch - known.epoch <= RAISE_MAX as u64 && self.counter <= RAISE_MAX
        } else {
            self.epoch < known.epoch || self.counter.saturating_sub(known.counter) <= RAISE_MAX
        }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}

/// What is believed of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It works, as far as anybody knows.
    Alive,
    /// It did not answer somebody; it is dead unless it refutes that in time.
    Suspect,
    /// It did not refute. It may come back with a greater counter or epoch.
    Dead,
    /// It said, signed, that it leaves. It may come back with a greater epoch.
    Left,
    /// Somebody with the right to do so excluded this epoch of it, signed. It may come back with a greater epoch.
    Evicted,
}

impl State {
    /// Every state.
    pub const ALL: [State; 5] = [
        State::Alive,
        State::Suspect,
        State::Dead,
        State::Left,
        State::Evicted,
    ];

    /// Whether it takes part: it is probed, and counted as one to whom rumors must get.
    #[must_use]
    pub const fn is_present(self) -> bool {
        matches!(self, State::Alive | State::Suspect)
    }

    /// Whether nothing but a new epoch ends it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, State::Left | State::Evicted)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::Dead => "dead",
            State::Left => "left",
            State::Evicted => "evicted",
        })
    }
}

/// Incarnation and state in 8 bytes. From the most significant bit: 40 of epoch, 1 for a final state, 21 of counter, 2 of
/// state. So the order of the numbers is precedence, and the greater of two statements counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing(u64);

const FINAL: u64 = 1 << 23;

impl Standing {
    /// The standing of a member. A final state has no counter: it ends its whole epoch.
    #[must_use]
    pub const fn new(incarnation: Incarnation, state: State) -> Self {
        let counter = (incarnation.counter as u64) << 2;
        let low = match state {
            State::Alive => counter,
            State::Suspect => counter | 1,
            State::Dead => counter | 2,
            State::Left => FINAL,
            State::Evicted => FINAL | 1,
        };
        Self((incarnation.epoch << 24) | low)
    }

    /// The incarnation. Its counter is 0 in a final state.
    #[must_use]
    pub const fn incarnation(self) -> Incarnation {
        Incarnation {
            epoch: self.0 >> 24,
            counter: ((self.0 >> 2) & COUNTER_MAX as u64) as u32,
        }
    }

    /// The state.
    #[must_use]
    pub const fn state(self) -> State {
        match (self.0 & FINAL != 0, self.0 & 3) {
            (false, 0) => State::Alive,
            (false, 1) => State::Suspect,
            (false, _) => State::Dead,
            (true, 0) => State::Left,
            (true, _) => State::Evicted,
        }
    }

    /// The same incarnation in another state.
    #[must_use]
    pub const fn with(self, state: State) -> Self {
        Self::new(self.incarnation(), state)
    }

    /// What comparisons of tables see: a suspicion is on its way to be confirmed or refuted, and counts as alive.
    #[must_use]
    pub(crate) const fn comparable(self) -> u64 {
        if matches!(self.state(), State::Suspect) {
            return self.with(State::Alive).0;
        }
        self.0
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.state(), self.incarnation())
    }
}

/// On the wire: the epoch, then counter and state in one number. Two bytes for a young member.
impl Serialize for Standing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let incarnation = self.incarnation();
        let state = State::ALL.iter().position(|state| *state == self.state());
        let low = (incarnation.counter << 3) | state.unwrap_or_default() as u32;
        (incarnation.epoch, low).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Standing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (epoch, low) = <(u64, u32)>::deserialize(deserializer)?;
        let incarnation = Incarnation::new(epoch, low >> 3)
            .ok_or_else(|| D::Error::custom(format_args!("no incarnation {epoch}.{}", low >> 3)))?;
        let state = State::ALL.get((low & 7) as usize).copied();
        let state = state.ok_or_else(|| D::Error::custom(format_args!("no state {}", low & 7)))?;
        if state.is_final() && incarnation.counter != 0 {
            return Err(D::Error::custom("a counter in a final state"));
        }
        Ok(Self::new(incarnation, state))
    }
}

#[cfg(test)]
mod tests;
