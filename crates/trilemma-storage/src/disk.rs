//! What the log needs of a disk: a flat directory of files, with the durability of data and of names apart.

use std::io;

/// A directory that belongs to one node. Clones are handles on the same directory.
pub trait Disk: Clone + Send + 'static {
    /// An open file.
    type File: DiskFile;

    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Makes a new, empty file; an error if the name is taken.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Renames a file, replacing one that has the new name. Durable after [`Disk::sync_directory`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable after [`Disk::sync_directory`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable.
    fn sync_directory(&self) -> io::Result<()>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send + 'static {
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`; an error if the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, extending the file if needed. Durable after [`DiskFile::sync`].
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written durable, with the length if it has grown. After an error nothing is known.
    fn sync(&mut self) -> io::Result<()>;
}
