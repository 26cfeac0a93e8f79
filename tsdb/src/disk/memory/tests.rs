use std::collections::BTreeSet;
use std::io::ErrorKind;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::disk::conformance;

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// A disk with a safe file `a` of `bytes`.
fn disk_with(bytes: &[u8]) -> (MemoryDisk, Arc<dyn DiskFile>) {
    let disk = MemoryDisk::new();
    let file = disk.create(path("a")).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir(path("")).unwrap();
    (disk, file)
}

/// What `look` sees after each of many crashes of the same state.
fn outcomes<T: Ord>(disk: &MemoryDisk, look: impl Fn(&MemoryDisk) -> T) -> BTreeSet<T> {
    let crashed = |seed| {
        let fork = disk.fork();
        fork.crash(&mut rng(seed));
        look(&fork)
    };
    (0..300).map(crashed).collect()
}

#[test]
fn conforms() {
    conformance::run(&|_| Arc::new(MemoryDisk::new()));
}

#[test]
fn what_was_synced_survives_every_crash() {
    let (disk, _file) = disk_with(b"safe");
    assert_eq!(outcomes(&disk, |d| d.read(path("a")).unwrap()), BTreeSet::from([b"safe".to_vec()]));
}

#[test]
fn an_unsynced_write_may_survive_be_lost_or_be_torn() {
    let (disk, file) = disk_with(&[1; 2_048]);
    file.write_at(0, &[2; 2_048]).unwrap();
    let seen = outcomes(&disk, |d| d.read(path("a")).unwrap());
    assert!(seen.contains(&vec![1; 2_048]), "lost");
    assert!(seen.contains(&vec![2; 2_048]), "kept");
    let torn = |bytes: &Vec<u8>| bytes[..512] == [1; 512] && bytes[512..1_024] == [2; 512];
    assert!(seen.iter().any(torn), "a later sector without an earlier one");
    assert!(
        seen.iter().all(|bytes| bytes.chunks(512).all(|s| s.iter().all(|b| *b == s[0]))),
        "sectors are whole"
    );
}

#[test]
fn a_crash_may_leave_a_state_between_two_writes() {
    let (disk, file) = disk_with(&[0; 512]);
    file.write_at(0, &[1; 100]).unwrap();
    file.write_at(100, &[2; 100]).unwrap();
    let seen = outcomes(&disk, |d| d.read(path("a")).unwrap()[..200].to_vec());
    let [mut none, mut first, mut both] = [[0; 200], [0; 200], [0; 200]];
    none[0] = 0;
    first[..100].fill(1);
    both[..100].fill(1);
    both[100..].fill(2);
    assert_eq!(seen, [none, first, both].iter().map(|s| s.to_vec()).collect());
}

#[test]
fn a_file_that_grew_without_sync_may_have_any_length() {
    let (disk, file) = disk_with(&[1; 10]);
    file.write_at(10, &[2; 3_000]).unwrap();
    let lengths = outcomes(&disk, |d| d.size_bytes(path("a")).unwrap().unwrap());
    assert!(lengths.contains(&10) && lengths.contains(&3_010) && lengths.len() > 10);
}

#[test]
fn what_was_cut_off_stays_cut_off_once_synced() {
    let (disk, file) = disk_with(&[1; 9_000]);
    file.set_length(100).unwrap();
    file.set_length(9_000).unwrap();
    file.sync().unwrap();
    let mut wanted = vec![0; 9_000];
    wanted[..100].fill(1);
    assert_eq!(outcomes(&disk, |d| d.read(path("a")).unwrap()), BTreeSet::from([wanted]));
}

#[test]
fn an_unsynced_name_may_be_lost_while_a_later_one_survives() {
    let disk = MemoryDisk::new();
    for name in ["a", "b"] {
        disk.create(path(name)).unwrap().sync().unwrap();
    }
    let seen = outcomes(&disk, |d| d.list(path("")).unwrap().into_iter().map(|e| e.name).collect::<Vec<_>>());
    let wanted: BTreeSet<Vec<std::path::PathBuf>> =
        [&[][..], &["a"], &["b"], &["a", "b"]].iter().map(|v| v.iter().map(Into::into).collect()).collect();
    assert_eq!(seen, wanted);
}

#[test]
fn an_unsynced_rename_happens_whole_or_not_at_all() {
    let (disk, _file) = disk_with(b"1");
    disk.create_dir(path("d")).unwrap();
    disk.sync_dir(path("")).unwrap();
    disk.rename(path("a"), path("d/b")).unwrap();
    disk.rename(path("d/b"), path("d/c")).unwrap();
    let there = |d: &MemoryDisk| ["a", "d/b", "d/c"].map(|p| d.size_bytes(path(p)).unwrap().is_some());
    let wanted = [[true, false, false], [false, true, false], [false, false, true]];
    assert_eq!(outcomes(&disk, there), BTreeSet::from(wanted));
    disk.sync_dir(path("d")).unwrap();
    assert_eq!(outcomes(&disk, there), BTreeSet::from([wanted[2]]));
}

#[test]
fn a_removed_file_may_come_back_until_its_folder_is_synced() {
    let (disk, _file) = disk_with(b"1");
    disk.remove_file(path("a")).unwrap();
    assert_eq!(outcomes(&disk, |d| d.read(path("a")).ok()), BTreeSet::from([None, Some(b"1".to_vec())]));
    disk.sync_dir(path("")).unwrap();
    assert_eq!(outcomes(&disk, |d| d.read(path("a")).ok()), BTreeSet::from([None]));
}

#[test]
fn a_folder_whose_name_is_lost_takes_its_files_with_it() {
    let disk = MemoryDisk::new();
    disk.create_dir(path("d")).unwrap();
    disk.create(path("d/a")).unwrap().sync().unwrap();
    disk.sync_dir(path("d")).unwrap();
    assert_eq!(outcomes(&disk, |d| d.read(path("d/a")).is_ok()), BTreeSet::from([false, true]));
    disk.sync_dir(path("")).unwrap();
    assert_eq!(outcomes(&disk, |d| d.read(path("d/a")).is_ok()), BTreeSet::from([true]));
}

#[test]
fn handles_die_with_their_process() {
    let (disk, file) = disk_with(b"1");
    disk.kill();
    assert!(file.write_at(0, b"2").is_err());
    assert_eq!(disk.read(path("a")).unwrap(), b"1");
    let file = disk.open(path("a")).unwrap();
    disk.crash(&mut rng(1));
    assert!(file.sync().is_err());
}

#[test]
fn a_kill_loses_nothing_that_was_written() {
    let (disk, file) = disk_with(b"1");
    file.write_at(1, b"2").unwrap();
    disk.kill();
    assert_eq!(disk.read(path("a")).unwrap(), b"12");
}

#[test]
fn a_full_disk_takes_what_fits_and_recovers_when_there_is_room() {
    let (disk, file) = disk_with(&[1; 100]);
    disk.set_capacity(Some(3 * PAGE_BYTES));
    assert_eq!(disk.free_bytes().unwrap(), 2 * PAGE_BYTES);
    let failed = file.write_at(0, &[2; 5 * PAGE_BYTES as usize]).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::StorageFull);
    assert_eq!(file.length().unwrap(), 3 * PAGE_BYTES);
    file.write_at(50, b"no more room is needed").unwrap();
    assert_eq!(disk.create(path("b")).unwrap().allocate(1).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.remove_file(path("a")).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 0, "a removed file keeps its room while it is open");
    drop(file);
    assert_eq!(disk.free_bytes().unwrap(), 3 * PAGE_BYTES);
}

#[test]
fn reserved_room_never_runs_out() {
    let disk = MemoryDisk::new();
    disk.set_capacity(Some(4 * PAGE_BYTES));
    let file = disk.create(path("a")).unwrap();
    file.write_at(PAGE_BYTES, b"x").unwrap();
    file.allocate(3 * PAGE_BYTES).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), PAGE_BYTES);
    disk.create(path("b")).unwrap().write_at(0, b"takes the last page").unwrap();
    file.write_at(0, &[1; 3 * PAGE_BYTES as usize]).unwrap();
    assert_eq!(file.write_at(3 * PAGE_BYTES, b"x").unwrap_err().kind(), ErrorKind::StorageFull);
    file.set_length(1).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 2 * PAGE_BYTES);
}

#[test]
fn after_a_failed_sync_the_next_one_lies() {
    let (disk, file) = disk_with(b"old");
    disk.inject(Fault::Sync { after: 0 });
    file.write_at(0, b"new").unwrap();
    assert!(file.sync().is_err());
    file.sync().unwrap();
    assert_eq!(disk.read(path("a")).unwrap(), b"new");
    assert_eq!(outcomes(&disk, |d| d.read(path("a")).unwrap()), BTreeSet::from([b"old".to_vec()]));
}

#[test]
fn faults_strike_when_told() {
    let (disk, file) = disk_with(b"");
    disk.inject(Fault::Io { after: 1 });
    file.write_at(0, b"ab").unwrap();
    assert!(file.write_at(0, b"cdef").is_err());
    assert_eq!(disk.read(path("a")).unwrap(), b"cd", "the failed write got half-way");
    disk.inject(Fault::NoSpace { after: 0 });
    assert_eq!(file.allocate(1).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.inject(Fault::Power { after: 1 });
    disk.read(path("a")).unwrap();
    assert!(disk.read(path("a")).is_err() && file.sync().is_err() && disk.list(path("")).is_err());
    disk.crash(&mut rng(1));
    disk.read(path("a")).unwrap();
}

#[test]
fn rot_flips_bits_for_good() {
    let (disk, _file) = disk_with(&[0; 10]);
    disk.flip(path("a"), 3, 0b101).unwrap();
    assert_eq!(outcomes(&disk, |d| d.read(path("a")).unwrap()[3]), BTreeSet::from([0b101]));
    assert!(disk.flip(path("a"), 10, 1).is_err());
}

#[test]
fn forks_go_their_own_ways() {
    let (disk, file) = disk_with(b"1");
    let fork = disk.fork();
    file.write_at(0, b"2").unwrap();
    assert_eq!(
        (disk.read(path("a")).unwrap(), fork.read(path("a")).unwrap()),
        (b"2".to_vec(), b"1".to_vec())
    );
}

#[derive(Clone, Debug)]
enum Step {
    Write(u16, Vec<u8>),
    Allocate(u16),
    SetLength(u16),
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = 0..12_000u16;
    prop_oneof![
        4 => (offset.clone(), prop::collection::vec(any::<u8>(), 0..6_000)).prop_map(|(o, b)| Step::Write(o, b)),
        1 => offset.clone().prop_map(Step::Allocate),
        1 => offset.prop_map(Step::SetLength),
        1 => Just(Step::Sync),
    ]
}

proptest! {
    /// Against a plain vector: what a reader sees, and that room is counted right.
    #[test]
    fn a_file_behaves_like_a_vector_of_bytes(steps in prop::collection::vec(step(), 0..20), seed: u64) {
        let (disk, file) = disk_with(b"");
        let (mut model, mut safe, mut synced) = (Vec::new(), Vec::new(), true);
        for step in steps {
            synced = matches!(step, Step::Sync);
            match step {
                Step::Write(offset, bytes) => {
                    file.write_at(offset.into(), &bytes).unwrap();
                    let end = usize::from(offset) + bytes.len();
                    if !bytes.is_empty() {
                        model.resize(model.len().max(end), 0);
                        model[usize::from(offset)..end].copy_from_slice(&bytes);
                    }
                }
                Step::Allocate(length) => {
                    file.allocate(length.into()).unwrap();
                    model.resize(model.len().max(length.into()), 0);
                }
                Step::SetLength(length) => {
                    file.set_length(length.into()).unwrap();
                    model.resize(length.into(), 0);
                }
                Step::Sync => {
                    file.sync().unwrap();
                    safe.clone_from(&model);
                }
            }
            prop_assert_eq!(&disk.read(path("a")).unwrap(), &model);
        }
        disk.crash(&mut rng(seed));
        if synced {
            prop_assert_eq!(disk.read(path("a")).unwrap(), safe);
        }
    }
}
