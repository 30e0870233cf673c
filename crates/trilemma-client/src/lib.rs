//! A client of Trilemma's nodes as a pure machine: sessions, connections, deadlines, retries, fail-over.
//!
//! The production runtime and the simulator run the same [`Client`]. It opens no socket and reads no clock: its host
//! tells it what happens, each time with the time, and carries out the [`Effect`]s that it wants.
//!
//! What it promises to the caller of a call:
//!
//! 1. **One answer, by the deadline.** The deadline covers everything: dialing, waiting for room, every attempt.
//! 2. **The right class of error.** `NotApplied` only if no attempt can have had an effect, by the one rule of
//!    [`trilemma_core::pending`].
//! 3. **It leaves a node that cannot serve.** A certain refusal that another node may not share
//!    ([`Reason::may_differ_elsewhere`](trilemma_core::Reason::may_differ_elsewhere)) moves the call on; when every server
//!    has refused, the first refusal is the answer, at once.
//! 4. **At most one effect.** A read whose connection was lost is asked again by itself; a write where all replicas
//!    remember its session, as [`Attempt::Retry`](trilemma_core::Attempt::Retry). A `gossip` write is known to the node
//!    that took it alone: the caller's own retry goes to that node only.
//! 5. **It waits for room** rather than to overrun a connection: what is under way on each is bounded.
//! 6. **Nothing stays behind** a call that was answered or dropped.
//!
//! | module | what it does |
//! |---|---|
//! | [`session`] | ids of operations, and when a new session begins |
//! | [`client`] | inputs, effects, and the way of a call |
//! | [`link`] | one connection: what is under way on it, and what waits for room |
//! | [`settings`] | servers, limits, times |
//! | [`wire`] | what clients and nodes say to each other |

pub mod client;
pub mod link;
pub mod session;
pub mod settings;
pub mod wire;

pub use client::{Answer, Call, Client, Effect, What};
pub use link::{CallId, ConnectionId};
pub use session::Session;
pub use settings::Settings;
