//! What the disk in memory sees of its own mistakes.

use trilemma_testkit::caught;

use super::*;

/// A disk with a durable file, one that no sync has named yet, and a write that no sync covers.
fn disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let mut file = disk.create("a").unwrap();
    file.write_at(&[1; 600], 0).unwrap();
    file.sync().unwrap();
    disk.sync_directory().unwrap();
    file.write_at(&[2; 600], 0).unwrap();
    disk.create("b").unwrap();
    lock(&disk.state).check();
    disk
}

#[test]
fn the_check_sees_a_name_that_no_change_has_made() {
    let disk = disk();
    let mut state = lock(&disk.state);
    state.names.insert("c".into(), 1);
    assert!(caught(|| state.check()).contains("what is durable and every change since"));
    state.names.remove("c");
    state.pending.clear();
    assert!(caught(|| state.check()).contains("what is durable and every change since"));
}

#[test]
fn the_check_sees_a_name_without_a_file_and_a_number_to_be_given_again() {
    let disk = disk();
    let mut state = lock(&disk.state);
    state.next_inode = 1;
    assert!(caught(|| state.check()).contains("whose number will be given again"));
    state.inodes.remove(&1);
    assert!(caught(|| state.check()).contains("a name without a file"));
}

#[test]
fn the_check_sees_what_is_durable_and_was_not_written_and_sectors_that_are_not_there() {
    let disk = disk();
    let mut state = lock(&disk.state);
    let file = inode(&mut state, 1).unwrap();
    file.check();
    file.dirty.insert(2);
    assert!(caught(|| file.check()).contains("sector Some(2) is behind the end"));
    file.dirty.clear();
    file.durable.push(0);
    assert!(caught(|| file.check()).contains("601 B are durable of a file of 600 B"));
}

#[test]
fn the_power_fails_between_two_changes_of_names() {
    let disk = MemoryDisk::new();
    disk.set_faults(MemoryFaults {
        operations: Some(1),
        names_only: true,
        ..MemoryFaults::default()
    });
    let mut file = disk.create("a").unwrap();
    for _ in 0..3 {
        file.write_at(b"x", 0).unwrap();
        file.sync().unwrap();
    }
    assert!(!disk.faults().has_power_failed());
    assert!(disk.rename("a", "b").is_err());
    assert!(disk.faults().has_power_failed());
    assert!(
        file.write_at(b"x", 0).is_err() && file.sync().is_err(),
        "for files, too"
    );
}
