//! A disk in memory that forgets as real ones do: sector by sector, data and names apart.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trilemma_core::Rng;

use crate::disk::{Disk, DiskFile};

/// Bytes that are written wholly or not at all.
const SECTOR_BYTES: usize = 512;

/// A directory in memory. Clones are handles on the same one.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// Failures to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryFaults {
    /// The next sync fails, and what it should have made durable is lost at the next crash.
    pub fail_next_sync: bool,
    /// The next write fails.
    pub fail_next_write: bool,
    /// The next read fails.
    pub fail_next_read: bool,
    /// Bytes that still fit; `None` is no limit.
    pub room: Option<u64>,
    /// Every write finds the disk full, also of bytes that a file has already: as on a file system that writes nothing in
    /// place.
    pub refuse_writes: bool,
    /// Operations that still succeed before the disk is full and every one is refused without effect, changes of names
    /// and removals included; `None` is no limit. Lists, reads and syncs of files do not count.
    pub full_after: Option<u64>,
    /// No file can be opened or made: the process has as many open as it may.
    pub refuse_files: bool,
    /// Operations that still succeed before the power fails and every one fails; `None` is no limit. Lists and reads
    /// do not count. What the failing write was to write may be there after the crash, in part.
    pub operations: Option<u64>,
    /// Only changes of names and syncs of the directory count in `operations`: few of all, and the rarest to be cut.
    pub names_only: bool,
}

impl MemoryFaults {
    /// Whether the power has failed, so that every operation does.
    #[must_use]
    pub fn has_power_failed(&self) -> bool {
        self.operations == Some(0) && !self.names_only
    }

    /// Counts an operation that takes space.
    fn take_space(&mut self) -> io::Result<()> {
        match &mut self.full_after {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn open_file(&self) -> io::Result<()> {
        /// `EMFILE` of every Unix.
        const TOO_MANY: i32 = 24;
        if self.refuse_files {
            return Err(io::Error::from_raw_os_error(TOO_MANY));
        }
        Ok(())
    }
}

/// A change of names that no sync has made durable yet.
#[derive(Clone, Debug)]
enum NameChange {
    Put(String, u64),
    Drop(String, u64),
    Move(String, String, u64),
}

#[derive(Debug, Default)]
struct State {
    /// What the running system sees.
    names: BTreeMap<String, u64>,
    /// What survives a crash for certain.
    durable_names: BTreeMap<String, u64>,
    /// What lies between the two, in order.
    pending: Vec<NameChange>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    faults: MemoryFaults,
    syncs: u64,
    opens: u64,
    /// Bytes read, by inode.
    read: BTreeMap<u64, u64>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    data: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that differ between the two, perhaps.
    dirty: BTreeSet<usize>,
}

impl Inode {
    /// The invariants of a file: nothing is durable that was never written, and only sectors that it has are dirty.
    fn check(&self) {
        assert!(
            self.durable.len() <= self.data.len(),
            "{} B are durable of a file of {} B",
            self.durable.len(),
            self.data.len()
        );
        let last = self.dirty.last().copied();
        assert!(
            last.is_none_or(|sector| sector < self.data.len().div_ceil(SECTOR_BYTES)),
            "sector {last:?} is behind the end"
        );
    }
}

/// An open file of a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryFile {
    state: Arc<Mutex<State>>,
    inode: u64,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what will fail.
    pub fn set_faults(&self, faults: MemoryFaults) {
        lock(&self.state).faults = faults;
    }

    /// What will fail, as far as it has not failed yet.
    #[must_use]
    pub fn faults(&self) -> MemoryFaults {
        lock(&self.state).faults
    }

    /// Syncs of files so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        lock(&self.state).syncs
    }

    /// Files opened so far.
    #[must_use]
    pub fn opens(&self) -> u64 {
        lock(&self.state).opens
    }

    /// Bytes of a file that were read so far.
    #[must_use]
    pub fn bytes_read(&self, name: &str) -> u64 {
        let state = lock(&self.state);
        let inode = state.names.get(name);
        inode
            .and_then(|inode| state.read.get(inode))
            .copied()
            .unwrap_or(0)
    }

    /// Loses power: of what was not synced, an arbitrary subset of sectors and names survives. Files that were open
    /// must not be used any more.
    pub fn crash(&self, rng: &mut Rng) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        for inode in state.inodes.values_mut() {
            let keep_all = rng.per_mille(200);
            let keep_none = rng.per_mille(300);
            for sector in std::mem::take(&mut inode.dirty) {
                if keep_all || (!keep_none && rng.per_mille(500)) {
                    let start = sector * SECTOR_BYTES;
                    let end = (start + SECTOR_BYTES).min(inode.data.len());
                    if inode.durable.len() < end {
                        inode.durable.resize(end, 0);
                    }
                    let (from, to) = (&inode.data[start..end], &mut inode.durable[start..end]);
                    to.copy_from_slice(from);
                }
            }
            inode.data.clone_from(&inode.durable);
        }
        let (keep_all, keep_none) = (rng.per_mille(300), rng.per_mille(300));
        for change in std::mem::take(&mut state.pending) {
            // File systems order changes of names differently, so any of them may survive without the others.
            if keep_all || (!keep_none && rng.per_mille(500)) {
                apply(&mut state.durable_names, change);
            }
        }
        state.names.clone_from(&state.durable_names);
        let named: BTreeSet<u64> = state.names.values().copied().collect();
        state.inodes.retain(|id, _| named.contains(id));
        state.faults = MemoryFaults::default();
        state.check();
    }

    /// A copy of the whole disk as the running system sees it, sharing nothing.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = lock(&self.state);
        let inodes = state.inodes.iter().map(|(id, inode)| {
            let data = inode.data.clone();
            (
                *id,
                Inode {
                    durable: data.clone(),
                    data,
                    dirty: BTreeSet::new(),
                },
            )
        });
        let copy = State {
            names: state.names.clone(),
            durable_names: state.names.clone(),
            pending: Vec::new(),
            inodes: inodes.collect(),
            next_inode: state.next_inode,
            faults: MemoryFaults::default(),
            syncs: 0,
            opens: 0,
            read: BTreeMap::new(),
        };
        Self {
            state: Arc::new(Mutex::new(copy)),
        }
    }

    /// Changes stored bytes behind the log's back: rot. Does nothing if there is no such file or place.
    pub fn damage(&self, name: &str, offset: u64, change: impl FnOnce(&mut [u8])) {
        let mut state = lock(&self.state);
        let Some(inode) = state
            .names
            .get(name)
            .copied()
            .and_then(|id| state.inodes.get_mut(&id))
        else {
            return;
        };
        if let Some(bytes) = inode.data.get_mut(offset as usize..) {
            change(bytes);
        }
        inode.durable.clone_from(&inode.data);
    }

    /// The bytes of a file; empty if there is none.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = lock(&self.state);
        state
            .names
            .get(name)
            .and_then(|id| state.inodes.get(id))
            .map_or(Vec::new(), |inode| inode.data.clone())
    }
}

fn apply(names: &mut BTreeMap<String, u64>, change: NameChange) {
    match change {
        NameChange::Put(name, inode) => {
            names.insert(name, inode);
        }
        NameChange::Drop(name, inode) => {
            if names.get(&name) == Some(&inode) {
                names.remove(&name);
            }
        }
        NameChange::Move(from, to, inode) => {
            if names.get(&from) == Some(&inode) {
                names.remove(&from);
            }
            names.insert(to, inode);
        }
    }
}

impl State {
    /// Counts an operation on a file; an error once the power has failed.
    fn operate(&mut self) -> io::Result<()> {
        if self.faults.names_only {
            return Ok(());
        }
        self.operate_on_names()
    }

    /// Counts an operation on names; an error once the power has failed, which then has failed for files, too.
    fn operate_on_names(&mut self) -> io::Result<()> {
        match &mut self.faults.operations {
            Some(0) => {
                self.faults.names_only = false;
                Err(io::Error::other("injected power failure"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, change.clone());
        self.pending.push(change);
        self.check();
    }

    /// The invariants of names: the running system sees what is durable and every change since, and a name stands for
    /// a file that is there.
    fn check(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let mut seen = self.durable_names.clone();
        for change in &self.pending {
            apply(&mut seen, change.clone());
        }
        assert_eq!(
            seen, self.names,
            "names are what is durable and every change since"
        );
        let mut named = self.names.iter().chain(&self.durable_names);
        let lost = named.find(|(_, inode)| !self.inodes.contains_key(inode));
        assert!(lost.is_none(), "a name without a file: {lost:?}");
        assert!(
            self.inodes.keys().all(|inode| *inode <= self.next_inode),
            "a file whose number will be given again"
        );
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file \"{name}\""))
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.state).names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = lock(&self.state);
        state.faults.open_file()?;
        let inode = *state.names.get(name).ok_or_else(|| not_found(name))?;
        state.opens += 1;
        Ok(MemoryFile {
            state: Arc::clone(&self.state),
            inode,
        })
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = lock(&self.state);
        state.faults.open_file()?;
        state.faults.take_space()?;
        state.operate_on_names()?;
        if state.names.contains_key(name) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("file \"{name}\" exists"),
            ));
        }
        state.next_inode += 1;
        let inode = state.next_inode;
        state.inodes.insert(inode, Inode::default());
        state.change(NameChange::Put(name.to_owned(), inode));
        Ok(MemoryFile {
            state: Arc::clone(&self.state),
            inode,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.faults.take_space()?;
        state.operate_on_names()?;
        let inode = *state.names.get(from).ok_or_else(|| not_found(from))?;
        state.change(NameChange::Move(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.faults.take_space()?;
        state.operate_on_names()?;
        let inode = *state.names.get(name).ok_or_else(|| not_found(name))?;
        state.change(NameChange::Drop(name.to_owned(), inode));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.faults.take_space()?;
        state.operate_on_names()?;
        state.durable_names = state.names.clone();
        state.pending.clear();
        state.check();
        Ok(())
    }
}

impl MemoryFile {
    fn with<T>(&self, work: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        work(&mut lock(&self.state), self.inode)
    }
}

fn inode(state: &mut State, id: u64) -> io::Result<&mut Inode> {
    state
        .inodes
        .get_mut(&id)
        .ok_or_else(|| not_found("of a removed inode"))
}

impl DiskFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|state, id| Ok(inode(state, id)?.data.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|state, id| {
            if std::mem::take(&mut state.faults.fail_next_read) {
                return Err(io::Error::other("injected read failure"));
            }
            let data = &inode(state, id)?.data;
            let start = offset as usize;
            let bytes = data
                .get(start..start.saturating_add(buffer.len()))
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(bytes);
            *state.read.entry(id).or_default() += buffer.len() as u64;
            Ok(())
        })
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|state, id| {
            if std::mem::take(&mut state.faults.fail_next_write) {
                return Err(io::Error::other("injected write failure"));
            }
            if state.faults.refuse_writes {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.faults.take_space()?;
            let power = state.operate();
            let length = inode(state, id)?.data.len();
            let end = offset as usize + bytes.len();
            let growth = end.saturating_sub(length) as u64;
            if let Some(room) = &mut state.faults.room {
                if growth > *room {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                *room -= growth;
            }
            let inode = inode(state, id)?;
            if inode.data.len() < end {
                inode.data.resize(end, 0);
            }
            inode.data[offset as usize..end].copy_from_slice(bytes);
            inode
                .dirty
                .extend(offset as usize / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
            inode.check();
            power
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(|state, id| {
            state.operate()?;
            state.syncs += 1;
            let failed = std::mem::take(&mut state.faults.fail_next_sync);
            let inode = inode(state, id)?;
            if failed {
                // As Linux does: the pages are marked clean, and the data is nowhere but in the cache.
                inode.dirty.clear();
                return Err(io::Error::other("injected sync failure"));
            }
            for sector in std::mem::take(&mut inode.dirty) {
                let start = sector * SECTOR_BYTES;
                let end = (start + SECTOR_BYTES).min(inode.data.len());
                if inode.durable.len() < end {
                    inode.durable.resize(end, 0);
                }
                inode.durable[start..end].copy_from_slice(&inode.data[start..end]);
            }
            inode.check();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
