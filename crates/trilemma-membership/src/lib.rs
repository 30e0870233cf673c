//! Membership and failure detection as one pure state machine: who belongs to the cluster, and who of them works.
//!
//! SWIM (Das, Gupta, Motivala 2002) with Lifeguard (Dadgar, Phillips, Currey, arXiv 1707.00788). Each member probes one other
//! per period, in shuffled round robin; one that does not answer is probed again over a stream and through three others.
//! Then it is a *suspect*, which everybody learns, and *dead* if it does not refute that in time. Statements about members
//! ride on probes and on short rounds of dissemination. What they miss, comparisons of tables bring, a few bytes on each
//! probe.
//!
//! # The contract
//!
//! 1. The host calls [`Membership::step`] with one [`Input`] after the other, and carries out the [`Effects`]. `now` never goes
//!    back. [`Input::Wake`] comes at or soon after [`Membership::next_wake`]; that it comes late is a sign, too.
//! 2. The host authenticates: `from` of a message is its sender. Nothing else in a message is believed without a bound.
//! 3. [`effects::Persist::Epoch`] becomes durable before [`Input::EpochPersisted`]; nothing of an epoch is announced before. A
//!    saved member list is for the next start; nothing waits for it.
//! 4. Messages may be lost, delayed, repeated and reordered.
//! 5. The host sends to [`effects::Outgoing::to`] on the given lane and dials on demand, at [`Membership::address`].
//!    [`effects::Event::Connect`] names those to which connections should be kept.
//!
//! **Invariants.** (1) What a node believes of a member never goes back: greater [`Standing`]s replace smaller ones alone. (2) An
//! epoch that was left or evicted is never alive again. (3) A node that runs is alive in its own table, and refutes what
//! says otherwise. (4) Every list, table and queue has a greatest size, and what leaves has a rate.
//!
//! **What is not promised**: agreement. Two nodes may believe different things for a while, and liveness is advice: no safety
//! may rest on it.
//!
//! | part | what it does |
//! |---|---|
//! | [`Membership`] | the state machine: which part takes which input |
//! | [`standing`], [`record`] | incarnation and state as one ordered number; what a member says of itself |
//! | `view` | what is believed, merging, refutation, what rides on messages |
//! | `table`, `updates`, `suspicion` | the compact table, dissemination, timers of suspects |
//! | `prober`, [`health`] | failure detection; how far a node trusts itself |
//! | `joining`, `warm` | the member list from a seed; connections to keep |
//! | [`timing`] | how long a statement takes, and so a suspicion |
//! | [`authority`], [`refusal`] | signatures; what was refused, from whom |
//! | [`message`], [`effects`], [`config`] | wire, host, settings |

pub mod authority;
mod budget;
pub mod config;
pub mod effects;
pub mod health;
mod joining;
mod membership;
pub mod message;
mod prober;
pub mod record;
pub mod refusal;
pub mod schedule;
pub mod standing;
mod suspicion;
mod table;
pub mod timing;
mod updates;
mod view;
mod warm;
pub mod world;

pub use authority::{Authority, Statement};
pub use config::{Config, Seed};
pub use effects::{Effects, Event, Input, Outgoing, Persist};
pub use membership::{Member, Membership, Status};
pub use message::{Message, News, Update};
pub use record::{Record, Role};
pub use refusal::{Refusal, Refusals};
pub use standing::{Incarnation, Standing, State};
pub use table::MEMBERS_MAX;

#[cfg(test)]
mod tests;
