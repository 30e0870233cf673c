//! Set reconciliation at a cost proportional to the difference: a rateless invertible Bloom lookup table.
//!
//! Yang, Gilad and Alizadeh, "Practical Rateless Set Reconciliation", arXiv 2402.02668. Two nodes hold sets of elements
//! that differ in `d` of `n`. One sends coded symbols until the other has found all `d`: about 1.36·d of them, 1.7·d for few,
//! whatever `n` is. The symbols of a set do not depend on who asks, so each node keeps the first of its own as it writes.
//!
//! | part | what it does |
//! |---|---|
//! | [`Element`], [`Symbol`] | what is reconciled, and what is sent: 26 bytes |
//! | [`Secret`] | the keyed check of an element, which also says in which symbols it is |
//! | [`Mapping`] | the symbols of one element |
//! | [`Sketch`] | the first symbols of a set, kept at each insert and remove |
//! | [`outline`], [`differences`] | about how much two sets differ: how many symbols to send at once |
//! | [`Decoder`] | the difference of two sets, from the symbols of both |
//!
//! **What the secret is for.** Symbols are sums. A client that knows how elements are hashed, and may choose some, can choose them
//! so that they cancel out, and a difference would look like none. So the check is a keyed hash (SipHash-2-4), under a secret
//! that the peers share and clients do not know. A *peer* that lies can name a false difference, as it can name false contents;
//! what it cannot do is make its receiver work or remember without limit: each element found must be where it was found,
//! none is found twice, and there are at most as many as symbols.
//!
//! It knows nothing of gossip: of changes, contexts, messages.

mod decoder;
mod mapping;
mod outline;
mod secret;
mod sketch;
mod symbol;

pub use decoder::{Decoded, Decoder, Defect, Progress};
pub use mapping::Mapping;
pub use outline::{OUTLINE_BYTES_MAX, differences, outline, symbols_for};
pub use secret::Secret;
pub use sketch::{SYMBOLS_MAX, SYMBOLS_MIN, Sketch};
pub use symbol::{Element, SYMBOL_BYTES, Symbol};

#[cfg(test)]
mod tests;
