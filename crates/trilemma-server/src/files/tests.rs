//! Files, links, pipes and devices under the names that are written to.

use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use super::*;

/// A directory of its own, which goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("trilemma-files-{name}-{}", std::process::id()));
        let _before = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("can be made");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).expect("can be read");
        let mut names: Vec<String> = names
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("is there").permissions().mode() & 0o7777
}

#[test]
fn a_file_keeps_its_mode_and_owner_and_nothing_is_left_beside_it() {
    let directory = Directory::new("mode");
    let file = directory.path("secret");
    for kept in [0o600, 0o640, 0o444, 0o755] {
        let _before = fs::remove_file(&file);
        fs::write(&file, "old").expect("can be written");
        fs::set_permissions(&file, fs::Permissions::from_mode(kept)).expect("can be set");
        let before = fs::metadata(&file).expect("is there");
        write(&file, b"new").expect("can be replaced");
        let after = fs::metadata(&file).expect("is there");
        assert_eq!(mode(&file), kept);
        assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
        assert_ne!(after.ino(), before.ino(), "replaced, not written over");
        assert_eq!(fs::read(&file).expect("can be read"), b"new");
    }
    assert_eq!(directory.names(), ["secret"]);
}

#[test]
fn another_owner_is_kept_or_the_file_is_left_alone() {
    let directory = Directory::new("owner");
    let file = directory.path("theirs");
    fs::write(&file, "old").expect("can be written");
    if std::os::unix::fs::chown(&file, Some(12_345), Some(12_345)).is_err() {
        // Only a privileged user can make the situation.
        return;
    }
    write(&file, b"new").expect("a privileged user may");
    let found = fs::metadata(&file).expect("is there");
    assert_eq!((found.uid(), found.gid()), (12_345, 12_345));
}

#[test]
fn links_are_followed_whether_they_lead_somewhere_or_not() {
    let directory = Directory::new("links");
    fs::create_dir(directory.path("real")).expect("can be made");
    fs::write(directory.path("real/a"), "old").expect("can be written");
    symlink("real/a", directory.path("one")).expect("can be made");
    symlink("one", directory.path("two")).expect("can be made");
    symlink("real/new", directory.path("three")).expect("can be made");
    symlink("loop", directory.path("loop")).expect("can be made");
    for (link, target) in [("two", "real/a"), ("three", "real/new")] {
        let link = directory.path(link);
        write(&link, b"new").expect("can be written");
        assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());
        assert_eq!(fs::read(directory.path(target)).expect("can be read"), b"new");
    }
    assert!(write(&directory.path("loop"), b"new").is_err());
    remove(&directory.path("three")).expect("the file goes");
    assert!(!directory.path("real/new").exists());
}

#[test]
fn pipes_and_devices_are_written_to_and_stay() {
    let directory = Directory::new("special");
    let pipe = directory.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let from = pipe.clone();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        File::open(from)
            .expect("a pipe")
            .read_to_end(&mut got)
            .expect("can be read");
        got
    });
    write(&pipe, b"through").expect("a reader is there");
    assert_eq!(reader.join().expect("it ends"), b"through");
    remove(&pipe).expect("it stays");
    assert!(
        fs::symlink_metadata(&pipe)
            .expect("is there")
            .file_type()
            .is_fifo()
    );
    write(Path::new("/dev/null"), b"nowhere").expect("it takes everything");
    let null = fs::metadata("/dev/null").expect("is there");
    assert!(null.file_type().is_char_device());
    assert_eq!(directory.names(), ["pipe"]);
}

#[test]
fn what_cannot_be_written_leaves_the_old_file_and_no_part_of_a_new_one() {
    let directory = Directory::new("fails");
    fs::create_dir(directory.path("folder")).expect("can be made");
    assert!(write(&directory.path("folder"), b"new").is_err());
    assert!(write(&directory.path("missing/file"), b"new").is_err());
    assert!(remove(&directory.path("folder")).is_err());
    remove(&directory.path("missing")).expect("there is nothing to remove");
    // A part that a killed process has left does not stand in the way.
    let left = directory.path(&format!(".file.{}.part", std::process::id()));
    fs::write(&left, "half").expect("can be written");
    write(&directory.path("file"), b"new").expect("can be written");
    assert_eq!(directory.names(), ["file", "folder"]);
}
