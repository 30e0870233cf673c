//! Trace hashes from a WebAssembly interpreter.
//!
//! The guest is `crates/trilemma-sim/examples/wasm-trace.rs`. WebAssembly has one memory model and no operating system:
//! what a run took from pointers, word sizes, threads or the system would show as another hash.

use std::path::Path;

use wasmi::{Engine, Instance, Linker, Memory, Module, Store};

use super::PROTOCOLS;

/// The words that the mailbox begins with. Equal to those of the guest.
const MAGIC: [u64; 2] = [0x7472_696c_656d_6d61, 0x6d61_696c_626f_7831];
/// Bytes of a word.
const WORD: usize = 8;
/// Words before the first hash: the magic ones, protocol, first seed, seeds, done.
const HEAD: usize = 6;
/// Seeds of one call: as many as the guest's 64 words have room for.
const BATCH: u64 = 29;

/// The simulator, compiled to WebAssembly.
pub(super) struct Guest {
    engine: Engine,
    module: Module,
}

impl Guest {
    /// Loads a module.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let engine = Engine::default();
        let module = Module::new(&engine, &bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { engine, module })
    }

    /// The trace hashes of seeds of a protocol, in order.
    pub(super) fn hashes(&self, protocol: &str, from: u64, seeds: u64) -> Result<Vec<u128>, String> {
        let place = PROTOCOLS
            .iter()
            .position(|name| *name == protocol)
            .ok_or_else(|| format!("no protocol is called \"{protocol}\""))?;
        let mut hashes = Vec::new();
        let mut next = from;
        while next < from + seeds {
            let count = BATCH.min(from + seeds - next);
            hashes
                .extend(self.batch(place as u64, next, count).map_err(|error| {
                    format!("{protocol}, seeds from {next}, in the interpreter: {error}")
                })?);
            next += count;
        }
        Ok(hashes)
    }

    /// One call, in a memory of its own.
    fn batch(&self, place: u64, from: u64, count: u64) -> Result<Vec<u128>, String> {
        let mut store = Store::new(&self.engine, ());
        let instance: Instance = Linker::new(&self.engine)
            .instantiate_and_start(&mut store, &self.module)
            .map_err(|error| error.to_string())?;
        let memory = instance
            .get_memory(&store, "memory")
            .ok_or("the module exports no memory")?;
        let mailbox = find(memory.data(&store)).ok_or("the module holds no mailbox; build it again")?;
        for (index, value) in [place, from, count].into_iter().enumerate() {
            memory
                .write(&mut store, mailbox + (2 + index) * WORD, &value.to_le_bytes())
                .map_err(|error| error.to_string())?;
        }
        let main = instance
            .get_typed_func::<(i32, i32), i32>(&store, "main")
            .map_err(|error| error.to_string())?;
        let ended = main.call(&mut store, (0, 0));
        let done = word(&store, memory, mailbox, HEAD - 1)?;
        ended.map_err(|error| format!("seed {} ended with: {error}", from + done))?;
        if done != count {
            return Err(format!("{done} of {count} seeds were run"));
        }
        (0..count as usize)
            .map(|index| {
                let at = HEAD + 2 * index;
                let high = word(&store, memory, mailbox, at)?;
                let low = word(&store, memory, mailbox, at + 1)?;
                Ok(u128::from(high) << 64 | u128::from(low))
            })
            .collect()
    }
}

/// A word of the mailbox.
fn word(store: &Store<()>, memory: Memory, mailbox: usize, index: usize) -> Result<u64, String> {
    let mut bytes = [0; WORD];
    memory
        .read(store, mailbox + index * WORD, &mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(u64::from_le_bytes(bytes))
}

/// Where the mailbox begins.
fn find(memory: &[u8]) -> Option<usize> {
    let magic: Vec<u8> = MAGIC.iter().flat_map(|word| word.to_le_bytes()).collect();
    (0..memory.len().saturating_sub(magic.len()))
        .step_by(WORD)
        .find(|at| memory[*at..].starts_with(&magic))
}
