//! Trace hashes of seeds, computed inside a WebAssembly interpreter: `cargo xtask sim --determinism` runs this there
//! and compares them with those of this machine's processor.
//!
//! WebAssembly without an operating system has neither arguments nor output. So the host looks for [`MAILBOX`] in the
//! linear memory by its first two words, writes there what to run, calls `main`, and reads the hashes.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use trilemma_sim::{Protocol, trace_hash};

/// The words that the mailbox begins with. Equal to those of `xtask/src/sim/guest.rs`.
const MAGIC: [u64; 2] = [0x7472_696c_656d_6d61, 0x6d61_696c_626f_7831];
/// Words before the first hash: the magic ones, protocol (its place in [`Protocol::ALL`]), first seed, seeds, done.
const HEAD: usize = 6;
/// Words in all.
const WORDS: usize = 64;

static MAILBOX: [AtomicU64; WORDS] = {
    let mut words = [const { AtomicU64::new(0) }; WORDS];
    words[0] = AtomicU64::new(MAGIC[0]);
    words[1] = AtomicU64::new(MAGIC[1]);
    words
};

fn main() {
    // What writes here from outside is not known to the compiler.
    let mailbox = black_box(&MAILBOX);
    let [protocol, from, seeds] = [2, 3, 4].map(|word| mailbox[word].load(Relaxed));
    let protocol = usize::try_from(protocol)
        .ok()
        .and_then(|place| Protocol::ALL.get(place));
    let (Some(&protocol), true) = (protocol, seeds > 0) else {
        println!("nothing to do: this is run by `cargo xtask sim --determinism`");
        return;
    };
    for (seed, hash) in (from..from.saturating_add(seeds)).zip(mailbox[HEAD..].chunks_exact(2)) {
        let value = trace_hash(protocol, seed);
        hash[0].store((value >> 64) as u64, Relaxed);
        hash[1].store(value as u64, Relaxed);
        mailbox[5].store(seed - from + 1, Relaxed);
    }
}
