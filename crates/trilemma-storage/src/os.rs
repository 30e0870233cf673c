//! The disk of the operating system: one directory, locked against a second process.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{Disk, DiskFile};

/// Name of the file whose lock keeps other processes out.
const LOCK: &str = "lock";
/// Files are for their owner alone.
const FILE_MODE: u32 = 0o600;

/// A directory on a real file system. Clones share the lock, which is released with the last of them.
#[derive(Clone, Debug)]
pub struct OsDisk {
    path: PathBuf,
    directory: Arc<File>,
    operations: Arc<AtomicU64>,
    _lock: Arc<File>,
}

/// An open file of an [`OsDisk`].
#[derive(Debug)]
pub struct OsFile {
    file: File,
    operations: Arc<AtomicU64>,
}

fn count<T>(operations: &AtomicU64, done: T) -> T {
    operations.fetch_add(1, Ordering::Relaxed);
    done
}

impl OsDisk {
    /// Opens a directory, making it if needed with access for its owner alone, and locks it.
    ///
    /// An error of kind `WouldBlock` means that another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let made: Vec<&Path> = path.ancestors().take_while(|part| !part.exists()).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(path.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::WouldBlock,
                format!(
                    "{}: the directory is in use by another process; a data directory belongs to one node, so stop \
                     the other process or choose another directory",
                    path.display()
                ),
            ),
            TryLockError::Error(error) => error,
        })?;
        let directory = File::open(path)?;
        let mode = directory.metadata()?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            tracing::warn!(
                path = %path.display(), mode = %format!("{mode:o}"),
                "other users may enter the data directory; chmod 700 it"
            );
        }
        let directory = Arc::new(directory);
        // The directory's own name must survive a power cut too, and those of its parents that were just made.
        for part in made {
            let parent = part.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(Self {
            path: path.to_path_buf(),
            directory,
            operations: Arc::default(),
            _lock: Arc::new(lock),
        })
    }
}

impl OsDisk {
    /// Writes, syncs and changes of names that the system has answered so far, to all clones. While it moves, the disk
    /// does not hang, however slow it is.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    fn file(&self, file: File) -> OsFile {
        let operations = Arc::clone(&self.operations);
        OsFile { file, operations }
    }
}

impl Disk for OsDisk {
    type File = OsFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // Names that are not text are none of ours.
            if let Ok(name) = entry.file_name().into_string()
                && entry.file_type()?.is_file()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<OsFile> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path.join(name));
        opened.map(|file| self.file(file))
    }

    fn create(&self, name: &str) -> io::Result<OsFile> {
        let created = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(self.path.join(name));
        count(&self.operations, created.map(|file| self.file(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let renamed = fs::rename(self.path.join(from), self.path.join(to));
        count(&self.operations, renamed)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        count(&self.operations, fs::remove_file(self.path.join(name)))
    }

    fn sync_directory(&self) -> io::Result<()> {
        count(&self.operations, self.directory.sync_all())
    }
}

impl DiskFile for OsFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        count(&self.operations, self.file.write_all_at(bytes, offset))
    }

    fn sync(&mut self) -> io::Result<()> {
        count(&self.operations, self.file.sync_data())
    }
}
