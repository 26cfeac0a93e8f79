//! What every [`Disk`] must do, run on the system's and on the one in memory, so that a test that passes on the
//! twin means something.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::{DirEntry, Disk};

type Case = fn(&dyn Disk);

/// Runs every case on a fresh disk from `make`, which gets the case's name.
pub fn run(make: &dyn Fn(&str) -> Arc<dyn Disk>) {
    let cases: [(&str, Case); 16] = [
        ("bytes_come_back", bytes_come_back),
        ("a_hole_reads_as_zeros", a_hole_reads_as_zeros),
        ("names_are_created_once", names_are_created_once),
        ("what_is_absent_is_not_found", what_is_absent_is_not_found),
        ("folders_are_listed_in_order", folders_are_listed_in_order),
        ("a_folder_is_no_file", a_folder_is_no_file),
        ("renames_replace_files", renames_replace_files),
        ("renames_move_folders", renames_move_folders),
        ("links_share_bytes", links_share_bytes),
        ("a_removed_file_lives_while_open", a_removed_file_lives_while_open),
        ("a_map_shows_a_range", a_map_shows_a_range),
        ("lengths_are_set", lengths_are_set),
        ("allocation_keeps_bytes", allocation_keeps_bytes),
        ("paths_that_leave_the_folder_are_refused", paths_that_leave_the_folder_are_refused),
        ("removing_a_folder_takes_all_of_it", removing_a_folder_takes_all_of_it),
        ("two_handles_see_the_same_bytes", two_handles_see_the_same_bytes),
    ];
    for (name, case) in cases {
        case(&*make(name));
    }
}

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn put(disk: &dyn Disk, name: &str, bytes: &[u8]) {
    disk.create(path(name)).unwrap().write_at(0, bytes).unwrap();
}

/// The kind of a failure.
fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().expect("this must fail").kind()
}

fn bytes_come_back(disk: &dyn Disk) {
    let file = disk.create(path("a")).unwrap();
    file.write_at(0, b"hello").unwrap();
    file.write_at(3, b"p!").unwrap();
    file.sync().unwrap();
    disk.sync_dir(path("")).unwrap();
    assert_eq!(disk.read(path("a")).unwrap(), b"help!");
    assert_eq!((file.length().unwrap(), disk.size_bytes(path("a")).unwrap()), (5, Some(5)));
    let mut part = [0; 3];
    file.read_at(1, &mut part).unwrap();
    assert_eq!(&part, b"elp");
    assert_eq!(kind(file.read_at(3, &mut part)), ErrorKind::UnexpectedEof);
    file.read_at(5, &mut []).unwrap();
}

fn a_hole_reads_as_zeros(disk: &dyn Disk) {
    let file = disk.create(path("a")).unwrap();
    file.write_at(10_000, b"end").unwrap();
    let bytes = disk.read(path("a")).unwrap();
    assert_eq!(bytes.len(), 10_003);
    assert!(bytes[..10_000].iter().all(|b| *b == 0));
    assert_eq!(&bytes[10_000..], b"end");
}

fn names_are_created_once(disk: &dyn Disk) {
    put(disk, "a", b"1");
    assert_eq!(kind(disk.create(path("a"))), ErrorKind::AlreadyExists);
    assert_eq!(disk.read(path("a")).unwrap(), b"1");
    disk.create_dir(path("d/e")).unwrap();
    disk.create_dir(path("d/e")).unwrap();
    assert_eq!(kind(disk.create(path("d"))), ErrorKind::AlreadyExists);
    disk.create_dir(path("")).unwrap();
}

fn what_is_absent_is_not_found(disk: &dyn Disk) {
    assert_eq!(kind(disk.open(path("a"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.read(path("a"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.map(path("a"), 0..1)), ErrorKind::NotFound);
    assert_eq!(kind(disk.list(path("d"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir(path("d"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.create(path("d/a"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove_file(path("a"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove_dir(path("d"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(path("a"), path("b"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.hard_link(path("a"), path("b"))), ErrorKind::NotFound);
    put(disk, "a", b"1");
    assert_eq!(kind(disk.rename(path("a"), path("d/a"))), ErrorKind::NotFound);
    assert_eq!(disk.size_bytes(path("b")).unwrap(), None);
    assert_eq!(disk.size_bytes(path("d/b")).unwrap(), None);
}

fn folders_are_listed_in_order(disk: &dyn Disk) {
    assert_eq!(disk.list(path("")).unwrap(), []);
    for name in ["b", "a-", "a", "A", "10", "9"] {
        put(disk, name, b"");
    }
    disk.create_dir(path("ab/c")).unwrap();
    let names = ["10", "9", "A", "a", "a-", "ab", "b"];
    let wanted = names.map(|name| DirEntry { name: name.into(), is_dir: name == "ab" });
    assert_eq!(disk.list(path("")).unwrap(), wanted);
    assert_eq!(disk.list(path("ab")).unwrap(), [DirEntry { name: "c".into(), is_dir: true }]);
}

fn a_folder_is_no_file(disk: &dyn Disk) {
    disk.create_dir(path("d")).unwrap();
    put(disk, "a", b"1");
    assert_eq!(kind(disk.open(path("d"))), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.read(path("d"))), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.size_bytes(path("d"))), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.list(path("a"))), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.create(path("a/b"))), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.remove_dir(path("a"))), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.rename(path("a"), path("d"))), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.rename(path("d"), path("a"))), ErrorKind::NotADirectory);
    assert!(disk.remove_file(path("d")).is_err());
}

fn renames_replace_files(disk: &dyn Disk) {
    put(disk, "a", b"new");
    put(disk, "b", b"old");
    let old = disk.open(path("b")).unwrap();
    disk.rename(path("a"), path("b")).unwrap();
    assert_eq!(disk.read(path("b")).unwrap(), b"new");
    assert_eq!(disk.size_bytes(path("a")).unwrap(), None);
    assert_eq!(old.length().unwrap(), 3, "a replaced file lives while it is open");
    disk.rename(path("b"), path("b")).unwrap();
    assert_eq!(disk.read(path("b")).unwrap(), b"new");
}

fn renames_move_folders(disk: &dyn Disk) {
    disk.create_dir(path("tmp/chunks")).unwrap();
    put(disk, "tmp/chunks/000001", b"c");
    disk.create_dir(path("blocks/full")).unwrap();
    put(disk, "blocks/full/x", b"");
    disk.rename(path("tmp"), path("blocks/b")).unwrap();
    assert_eq!(disk.read(path("blocks/b/chunks/000001")).unwrap(), b"c");
    assert_eq!(kind(disk.list(path("tmp"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(path("blocks/b"), path("blocks/full"))), ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(disk.rename(path("blocks"), path("blocks/b/blocks"))), ErrorKind::InvalidInput);
    disk.create_dir(path("empty")).unwrap();
    disk.rename(path("blocks/b"), path("empty")).unwrap();
    assert_eq!(disk.read(path("empty/chunks/000001")).unwrap(), b"c");
}

fn links_share_bytes(disk: &dyn Disk) {
    put(disk, "a", b"12");
    disk.create_dir(path("d")).unwrap();
    disk.hard_link(path("a"), path("d/b")).unwrap();
    disk.open(path("d/b")).unwrap().write_at(1, b"3").unwrap();
    assert_eq!(disk.read(path("a")).unwrap(), b"13");
    assert_eq!(kind(disk.hard_link(path("a"), path("d/b"))), ErrorKind::AlreadyExists);
    disk.remove_file(path("a")).unwrap();
    assert_eq!(disk.read(path("d/b")).unwrap(), b"13");
    assert_eq!(kind(disk.hard_link(path("d"), path("e"))), ErrorKind::PermissionDenied);
}

fn a_removed_file_lives_while_open(disk: &dyn Disk) {
    let file = disk.create(path("a")).unwrap();
    file.write_at(0, b"1").unwrap();
    disk.remove_file(path("a")).unwrap();
    disk.sync_dir(path("")).unwrap();
    file.write_at(1, b"2").unwrap();
    file.sync().unwrap();
    let mut bytes = [0; 2];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"12");
    put(disk, "a", b"another");
    assert_eq!(file.length().unwrap(), 2);
}

fn a_map_shows_a_range(disk: &dyn Disk) {
    let bytes: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
    put(disk, "a", &bytes);
    let map = disk.map(path("a"), 4_097..9_000).unwrap();
    assert_eq!(map, bytes[4_097..9_000]);
    assert!(disk.map(path("a"), 20_000..20_000).unwrap().is_empty());
    assert_eq!(kind(disk.map(path("a"), 19_999..20_001)), ErrorKind::UnexpectedEof);
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = 2..1;
    assert_eq!(kind(disk.map(path("a"), reversed)), ErrorKind::UnexpectedEof);
    disk.remove_file(path("a")).unwrap();
    disk.sync_dir(path("")).unwrap();
    assert_eq!(map, bytes[4_097..9_000], "a map outlives the file's name");
}

fn lengths_are_set(disk: &dyn Disk) {
    put(disk, "a", &[7; 9_000]);
    let file = disk.open(path("a")).unwrap();
    file.set_length(5_000).unwrap();
    file.set_length(6_000).unwrap();
    let bytes = disk.read(path("a")).unwrap();
    assert_eq!(bytes.len(), 6_000);
    assert!(bytes[..5_000].iter().all(|b| *b == 7) && bytes[5_000..].iter().all(|b| *b == 0));
}

fn allocation_keeps_bytes(disk: &dyn Disk) {
    let file = disk.create(path("a")).unwrap();
    file.write_at(0, b"x").unwrap();
    file.allocate(100_000).unwrap();
    assert_eq!(file.length().unwrap(), 100_000);
    file.allocate(10).unwrap();
    file.allocate(0).unwrap();
    assert_eq!(file.length().unwrap(), 100_000, "allocating never shortens");
    let bytes = disk.read(path("a")).unwrap();
    assert!(bytes[0] == b'x' && bytes[1..].iter().all(|b| *b == 0));
    assert!(disk.free_bytes().unwrap() > 0);
}

fn paths_that_leave_the_folder_are_refused(disk: &dyn Disk) {
    put(disk, "a", b"");
    for bad in ["..", "../x", "d/../../x", "/etc/passwd", "d/../a", "./a"] {
        let bad = path(bad);
        assert_eq!(kind(disk.create(bad)), ErrorKind::InvalidInput, "{bad:?}");
        assert_eq!(kind(disk.open(bad)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.read(bad)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.map(bad, 0..1)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.list(bad)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.size_bytes(bad)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.create_dir(bad)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.rename(bad, path("b"))), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.rename(path("a"), bad)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.hard_link(bad, path("b"))), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.hard_link(path("a"), bad)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.remove_file(bad)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.remove_dir(bad)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.sync_dir(bad)), ErrorKind::InvalidInput);
    }
    assert_eq!(
        kind(disk.remove_dir(path(""))),
        ErrorKind::InvalidInput,
        "nobody removes the data folder itself"
    );
}

fn removing_a_folder_takes_all_of_it(disk: &dyn Disk) {
    disk.create_dir(path("d/e/f")).unwrap();
    put(disk, "d/e/f/a", b"1");
    put(disk, "d/b", b"2");
    disk.remove_dir(path("d")).unwrap();
    assert_eq!(disk.list(path("")).unwrap(), []);
    assert_eq!(kind(disk.read(path("d/e/f/a"))), ErrorKind::NotFound);
}

fn two_handles_see_the_same_bytes(disk: &dyn Disk) {
    let one = disk.create(path("a")).unwrap();
    let two = disk.open(path("a")).unwrap();
    one.write_at(0, b"ab").unwrap();
    two.write_at(1, b"c").unwrap();
    let mut bytes = [0; 2];
    one.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"ac");
}
