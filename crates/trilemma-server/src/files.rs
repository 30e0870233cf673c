//! Writing files that others own or read: what stands at a name stays what it is.
//!
//! A device, pipe or socket is written to; a link is followed; a file is replaced at once or not at all, and keeps its mode
//! and owner. A new file gets the mode that the system gives.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Links from link to link. Systems follow as many.
const LINKS_MAX: usize = 40;

/// Makes `path` hold `bytes`, durably where it is a file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => replace(&fs::canonicalize(path)?, bytes, Some(&found)),
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => {
            let mut device = OpenOptions::new().write(true).open(path)?;
            device.write_all(bytes)?;
            device.flush()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => replace(&end_of_links(path)?, bytes, None),
        Err(error) => Err(error),
    }
}

/// Removes the file at `path`, through links, if there is one. A device, pipe or socket stays.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => fs::remove_file(fs::canonicalize(path)?),
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Where a link that leads nowhere yet would put its file; any other path itself.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(next) => path = directory(&path).join(next),
            // It is no link, or there is nothing.
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links"))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes beside the file and renames, so that no reader ever sees half of it, nor more readers than the old file had.
fn replace(path: &Path, bytes: &[u8], found: Option<&Metadata>) -> io::Result<()> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::other("it names no file"));
    };
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.part", std::process::id()));
    let beside = directory(path).join(beside);
    // One that a killed process has left, whose id is this one's now.
    remove_if_there(&beside)?;
    let result = put(&beside, bytes, found).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = result {
        // The first failure is the one to tell.
        let _left = remove_if_there(&beside).is_err();
        return Err(error);
    }
    sync_directory(directory(path))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn put(path: &Path, bytes: &[u8], found: Option<&Metadata>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if found.is_some() {
        // For the owner alone until it has the other's mode.
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    if let Some(found) = found {
        keep(&file, found)?;
    }
    file.sync_all()
}

/// Gives a file the owner and mode of the one that it will replace.
#[cfg(unix)]
fn keep(file: &File, found: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let new = file.metadata()?;
    let user = (new.uid() != found.uid()).then(|| found.uid());
    let group = (new.gid() != found.gid()).then(|| found.gid());
    if user.is_some() || group.is_some() {
        fchown(file, user, group).map_err(|error| {
            let why = format!("its owner and group cannot be kept, so it was left as it is: {error}");
            io::Error::new(error.kind(), why)
        })?;
    }
    file.set_permissions(found.permissions())
}

#[cfg(not(unix))]
fn keep(file: &File, found: &Metadata) -> io::Result<()> {
    file.set_permissions(found.permissions())
}

/// Makes a rename durable.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests;
