use std::io::ErrorKind;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::disk::{Fault, MemoryDisk};
use crate::files::{WAL_DIR, WalFile};

/// Small, so that tests rotate often.
const SETTINGS: WalSettings =
    WalSettings { segment_bytes: 4_096, pending_bytes_max: 64 << 10, spares_max: 2 };

fn dir() -> &'static Path {
    Path::new(WAL_DIR)
}

fn tenant() -> TenantId {
    TenantId::new("tenant-a").unwrap()
}

/// A payload that says which it is: its number, then `padding` bytes.
fn payload(number: u64, padding: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(8 + padding, number as u8);
    bytes
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

fn frame<'a>(tenant: &'a TenantId, kind: RecordKind, payload: &'a [u8]) -> Frame<'a> {
    let time = number(payload) as i64;
    let (min_ms, max_ms) = if kind == RecordKind::Series { TIMELESS } else { (time, time) };
    Frame { kind, tenant, shard: 1, min_ms, max_ms, payload }
}

fn append(wal: &Wal, kind: RecordKind, payload: &[u8]) -> Result<WalPosition> {
    match wal.append(None, &[frame(&tenant(), kind, payload)])? {
        Appended::At(position) => Ok(position),
        Appended::Moved(_) => unreachable!("any segment will do"),
    }
}

/// Opens the log; also the numbers of what was replayed, in order.
fn open_from(disk: &MemoryDisk, from: WalPosition) -> Result<(Wal, Vec<u64>, WalRecovery)> {
    let mut seen = Vec::new();
    let mut replay = |records: &[RecordRef<'_>]| {
        for record in records {
            assert_eq!((record.tenant, record.shard), (&tenant(), 1));
            seen.push(number(record.payload));
        }
        Ok(())
    };
    let (wal, recovery) = Wal::open(Arc::new(disk.clone()), dir(), SETTINGS, &mut replay, from)?;
    Ok((wal, seen, recovery))
}

fn open(disk: &MemoryDisk) -> (Wal, Vec<u64>, WalRecovery) {
    open_from(disk, WalPosition::START).unwrap()
}

/// A log of float records with these numbers, each committed for itself, and the end of each in its segment.
fn log_of(numbers: std::ops::Range<u64>, padding: usize) -> (MemoryDisk, Wal, Vec<WalPosition>) {
    let disk = MemoryDisk::new();
    let wal = open(&disk).0;
    let commit = |n| {
        let position = append(&wal, RecordKind::Floats, &payload(n, padding)).unwrap();
        assert!(wal.commit().unwrap() >= position);
        position
    };
    let ends = numbers.map(commit).collect();
    (disk, wal, ends)
}

fn segment_path(number: u32) -> PathBuf {
    WalFile::Segment(number).path(dir())
}

fn resize(disk: &MemoryDisk, path: &Path, length: u64) {
    let file = disk.open(path).unwrap();
    file.set_length(length).unwrap();
    file.sync().unwrap();
}

#[test]
fn what_was_committed_comes_back_in_order() {
    let (disk, wal, _) = log_of(0..100, 50);
    assert!(wal.segment() > 2, "this must have rotated");
    drop(wal);
    disk.crash(&mut StdRng::seed_from_u64(1));
    let (_, seen, recovery) = open(&disk);
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert_eq!((recovery.damage_count, recovery.torn.len(), recovery.closed), (0, 0, false));
    assert_eq!(recovery.records, 100);
}

#[test]
fn nothing_is_written_before_a_commit() {
    let disk = MemoryDisk::new();
    let (wal, ..) = open(&disk);
    let before = disk.operations();
    let position = append(&wal, RecordKind::Floats, &payload(1, 100)).unwrap();
    assert_eq!(disk.operations(), before);
    assert!(wal.durable() < position);
    assert_eq!(wal.commit().unwrap(), position);
    let after = disk.operations();
    assert_eq!(wal.commit().unwrap(), position);
    assert_eq!(disk.operations(), after, "there was nothing to commit");
}

#[test]
fn definitions_come_first_and_once() {
    let disk = MemoryDisk::new();
    let (wal, ..) = open(&disk);
    for (kind, n) in [(RecordKind::Floats, 1), (RecordKind::Series, 2), (RecordKind::Floats, 3)] {
        append(&wal, kind, &payload(n, 10)).unwrap();
    }
    wal.commit().unwrap();
    assert_eq!(open(&disk).1, [2, 1, 3]);
}

#[test]
fn a_definition_survives_any_damage_to_one_of_its_frames() {
    let disk = MemoryDisk::new();
    let (wal, ..) = open(&disk);
    append(&wal, RecordKind::Series, &payload(1, 40)).unwrap();
    append(&wal, RecordKind::Floats, &payload(2, 40)).unwrap();
    let end = wal.commit().unwrap();
    for offset in 0..u64::from(end.offset) {
        let hurt = disk.fork();
        hurt.flip(&segment_path(1), offset, 0x40).unwrap();
        let seen = open(&hurt).1;
        assert!(seen == [1, 2] || seen == [1], "byte {offset}: {seen:?}");
    }
}

#[test]
fn positions_are_ordered_and_survive_as_numbers() {
    let (_, _, ends) = log_of(0..60, 100);
    assert!(ends.is_sorted() && ends.windows(2).all(|w| w[0] < w[1]));
    for end in ends {
        assert_eq!(WalPosition::from_u64(end.to_u64()), end);
    }
}

#[test]
fn replay_starts_where_it_is_told_but_for_definitions() {
    let disk = MemoryDisk::new();
    let (wal, ..) = open(&disk);
    append(&wal, RecordKind::Series, &payload(1, 0)).unwrap();
    append(&wal, RecordKind::Floats, &payload(2, 0)).unwrap();
    let from = append(&wal, RecordKind::Floats, &payload(3, 0)).unwrap();
    append(&wal, RecordKind::Floats, &payload(4, 0)).unwrap();
    wal.commit().unwrap();
    assert_eq!(open_from(&disk, from).unwrap().1, [1, 4]);
}

#[test]
fn an_append_with_another_segment_in_mind_is_told_to_think_again() {
    let disk = MemoryDisk::new();
    let (wal, ..) = open(&disk);
    let (tenant, bytes) = (tenant(), payload(1, 1_500));
    let frames = [frame(&tenant, RecordKind::Floats, &bytes)];
    let segment = wal.segment();
    for _ in 0..2 {
        assert!(
            matches!(wal.append(Some(segment), &frames).unwrap(), Appended::At(p) if p.segment == segment)
        );
    }
    assert_eq!(wal.append(Some(segment), &frames).unwrap(), Appended::Moved(segment + 1));
    assert_eq!(wal.segment(), segment + 1);
    assert!(
        matches!(wal.append(Some(segment + 1), &frames).unwrap(), Appended::At(p) if p.segment == segment + 1)
    );
    wal.commit().unwrap();
    assert_eq!(open(&disk).1, [1, 1, 1]);
}

#[test]
fn records_of_one_append_share_a_segment() {
    let disk = MemoryDisk::new();
    let (wal, ..) = open(&disk);
    let (tenant, bytes) = (tenant(), payload(1, 500));
    let frames = [frame(&tenant, RecordKind::Floats, &bytes); 5];
    for _ in 0..10 {
        let Appended::At(end) = wal.append(None, &frames).unwrap() else { panic!() };
        assert!(end.offset as usize >= 5 * bytes.len(), "all five lie before {end:?}");
    }
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own() {
    let disk = MemoryDisk::new();
    let (wal, ..) = open(&disk);
    for (n, padding) in [(1, 10), (2, 20_000), (3, 10)] {
        append(&wal, RecordKind::Floats, &payload(n, padding)).unwrap();
        wal.commit().unwrap();
    }
    assert_eq!(wal.segment(), 3);
    assert_eq!(open(&disk).1, [1, 2, 3]);
}

#[test]
fn freed_segments_are_written_again_and_their_old_frames_never_come_back() {
    let disk = MemoryDisk::new();
    let (wal, ..) = open(&disk);
    let mut last = 0;
    for n in 0..400 {
        append(&wal, RecordKind::Floats, &payload(n, 30)).unwrap();
        let durable = wal.commit().unwrap();
        if n % 50 == 49 {
            wal.truncate_before(durable).unwrap();
            last = n;
        }
    }
    let stats = wal.stats();
    assert!(stats.spares <= SETTINGS.spares_max && stats.segments < 10, "{stats:?}");
    disk.crash(&mut StdRng::seed_from_u64(1));
    let (_, seen, recovery) = open(&disk);
    let first = seen[0];
    assert!(first <= last + 1);
    assert_eq!(seen, (first..400).collect::<Vec<_>>());
    assert_eq!((recovery.damage_count, recovery.torn.len()), (0, 0));
}

#[test]
fn a_segment_number_is_never_used_twice() {
    let (disk, wal, _) = log_of(0..1, 10);
    let mut last = wal.segment();
    drop(wal);
    for _ in 0..4 {
        disk.kill();
        let (wal, ..) = open(&disk);
        assert!(wal.segment() > last || wal.stats().segments == 1);
        last = wal.segment();
        wal.truncate_before(WalPosition { segment: u32::MAX, offset: 0 }).unwrap();
        append(&wal, RecordKind::Floats, &payload(1, 10)).unwrap();
        wal.commit().unwrap();
    }
    assert_eq!(last, 5);
}

#[test]
fn a_flip_of_any_byte_costs_at_most_one_record_and_names_its_time() {
    let (disk, _, ends) = log_of(0..12, 30);
    assert_eq!(ends.last().unwrap().segment, 1, "one segment holds them");
    for offset in 0..u64::from(ends.last().unwrap().offset) {
        let hurt = disk.fork();
        hurt.flip(&segment_path(1), offset, 1 << (offset % 8)).unwrap();
        let (_, seen, recovery) = open(&hurt);
        let victim = ends.iter().filter(|end| u64::from(end.offset) <= offset).count() as u64;
        if seen == (0..12).collect::<Vec<_>>() {
            continue;
        }
        assert_eq!(seen, (0..12).filter(|n| *n != victim).collect::<Vec<_>>(), "byte {offset}");
        let reports: Vec<_> = recovery.damage.iter().chain(&recovery.torn).collect();
        assert_eq!(reports.len(), 1, "byte {offset}: {reports:?}");
        assert_eq!(reports[0].times_ms, Some(victim as i64..=victim as i64));
        assert_eq!((&reports[0].tenant, reports[0].kind), (&Some(tenant()), Some(RecordKind::Floats)));
        // Only what nobody wrote behind may be the work of a crash.
        assert_eq!(recovery.damage.is_empty(), victim == 11);
        if victim < 10 {
            assert!(reports[0].was_synced, "record {victim}");
        }
    }
}

#[test]
fn a_cut_at_any_byte_leaves_all_records_before_it() {
    let (disk, _, ends) = log_of(0..12, 30);
    for length in 0..=u64::from(ends.last().unwrap().offset) {
        let cut = disk.fork();
        resize(&cut, &segment_path(1), length);
        let (wal, seen, recovery) = open(&cut);
        // A record is there once its payload is; its frame's second label needn't be.
        let whole = ends.iter().filter(|end| u64::from(end.offset) - 58 <= length).count() as u64;
        assert_eq!(seen, (0..whole).collect::<Vec<_>>(), "{length} bytes");
        assert_eq!(
            (recovery.damage_count, recovery.torn.is_empty()),
            (0, false),
            "{length} bytes: {recovery:?}"
        );
        // And the log goes on.
        append(&wal, RecordKind::Floats, &payload(99, 0)).unwrap();
        wal.commit().unwrap();
        let (_, seen, recovery) = open(&cut);
        assert_eq!(seen, (0..whole).chain([99]).collect::<Vec<_>>());
        assert_eq!((recovery.damage_count, recovery.torn.len()), (0, 0), "a tail is reported once");
    }
}

#[test]
fn an_earlier_segment_that_lost_its_end_is_damage() {
    let (disk, _, ends) = log_of(0..60, 100);
    let cut_at = ends[3].offset;
    assert_eq!(ends[3].segment, 1);
    resize(&disk, &segment_path(1), cut_at.into());
    let (_, seen, recovery) = open(&disk);
    let lost = ends.iter().filter(|end| end.segment == 1).count() as u64;
    assert_eq!(seen, (0..4).chain(lost..60).collect::<Vec<_>>());
    assert_eq!(recovery.damage_count, 1);
    assert!(recovery.damage[0].was_synced);
}

#[test]
fn a_missing_segment_is_damage_and_the_others_are_read() {
    let (disk, _, ends) = log_of(0..60, 100);
    disk.remove_file(&segment_path(2)).unwrap();
    let (_, seen, recovery) = open(&disk);
    let left: Vec<u64> = (0..60).filter(|n| ends[*n as usize].segment != 2).collect();
    assert_eq!(seen, left);
    assert_eq!(recovery.damage_count, 1);
    assert_eq!(recovery.damage[0].position, WalPosition { segment: 2, offset: 0 });
}

#[test]
fn a_closed_log_says_so_and_takes_no_more() {
    let (disk, wal, _) = log_of(0..5, 10);
    append(&wal, RecordKind::Floats, &payload(5, 10)).unwrap();
    wal.close().unwrap();
    assert!(matches!(append(&wal, RecordKind::Floats, &payload(6, 10)), Err(Error::Stopped(_))));
    assert!(matches!(wal.commit(), Err(Error::Stopped(_))));
    disk.crash(&mut StdRng::seed_from_u64(1));
    let (wal, seen, recovery) = open(&disk);
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    assert!(recovery.closed);
    drop(wal);
    assert!(open(&disk).2.closed, "nothing was written since");
}

#[test]
fn the_last_record_of_a_closed_log_is_known_to_have_been_synced() {
    let (disk, wal, ends) = log_of(0..5, 10);
    wal.close().unwrap();
    disk.flip(&segment_path(1), u64::from(ends[3].offset) + 70, 1).unwrap();
    let (_, seen, recovery) = open(&disk);
    assert_eq!(seen, [0, 1, 2, 3]);
    assert!(recovery.closed && recovery.damage_count == 1 && recovery.damage[0].was_synced);
}

#[test]
fn too_much_waiting_is_refused_until_a_commit() {
    let disk = MemoryDisk::new();
    let (wal, ..) = open(&disk);
    let mut taken = 0;
    let refused = loop {
        match append(&wal, RecordKind::Floats, &payload(taken, 1_000)) {
            Ok(_) => taken += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, Error::Limit(_)) && taken > 30, "{refused}");
    assert!(wal.stats().pending_bytes <= SETTINGS.pending_bytes_max);
    wal.commit().unwrap();
    assert_eq!(wal.stats().pending_bytes, 0);
    append(&wal, RecordKind::Floats, &payload(taken, 1_000)).unwrap();
    wal.commit().unwrap();
    assert_eq!(open(&disk).1, (0..=taken).collect::<Vec<_>>());
}

#[test]
fn a_record_beyond_the_limit_is_invalid() {
    let (_, wal, _) = log_of(0..1, 0);
    let refused = append(&wal, RecordKind::Floats, &vec![0; PAYLOAD_BYTES_MAX + 1]);
    assert!(matches!(refused, Err(Error::Invalid(_))));
}

#[test]
fn a_full_disk_refuses_appends_and_recovers_when_there_is_room() {
    let (disk, wal, _) = log_of(0..5, 10);
    disk.set_capacity(Some(8_192));
    let mut next = 5;
    let failed = loop {
        append(&wal, RecordKind::Floats, &payload(next, 200)).unwrap();
        next += 1;
        if let Err(e) = wal.commit() {
            break e;
        }
    };
    assert!(matches!(failed, Error::NoSpace(_)), "{failed}");
    assert!(matches!(append(&wal, RecordKind::Floats, &payload(9, 0)), Err(Error::NoSpace(_))));
    assert!(matches!(wal.commit(), Err(Error::NoSpace(_))), "there still is no room");
    assert!(wal.stats().full && !wal.stats().stopped);
    disk.set_capacity(None);
    wal.commit().unwrap();
    append(&wal, RecordKind::Floats, &payload(next, 0)).unwrap();
    wal.commit().unwrap();
    disk.crash(&mut StdRng::seed_from_u64(1));
    let (_, seen, recovery) = open(&disk);
    assert_eq!(seen, (0..=next).collect::<Vec<_>>());
    assert_eq!((recovery.damage_count, recovery.torn.len()), (0, 0));
}

#[test]
fn a_start_on_a_full_disk_gets_past_a_segment_that_found_no_room() {
    let (disk, _, _) = log_of(0..5, 10);
    disk.kill();
    drop(open(&disk));
    // The name of a segment whose removal a crash undid.
    disk.create(&segment_path(2)).unwrap().sync().unwrap();
    disk.sync_dir(dir()).unwrap();
    disk.set_capacity(Some(0));
    for _ in 0..2 {
        let (wal, seen, recovery) = open(&disk);
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert_eq!((wal.segment(), recovery.damage_count), (3, 0));
    }
    disk.set_capacity(None);
    let (wal, ..) = open(&disk);
    append(&wal, RecordKind::Floats, &payload(5, 10)).unwrap();
    wal.commit().unwrap();
    let (_, seen, recovery) = open(&disk);
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    assert!(recovery.damage.iter().all(|d| !d.was_synced));
}

#[test]
fn no_room_at_any_write_or_allocation_loses_nothing() {
    for after in 0..30 {
        let (disk, wal, _) = log_of(0..1, 0);
        disk.inject(Fault::NoSpace { after });
        let mut struck = 0;
        for n in 1..20 {
            append(&wal, RecordKind::Floats, &payload(n, 300)).unwrap();
            match wal.commit() {
                Ok(_) => {}
                Err(Error::NoSpace(_)) => {
                    struck += 1;
                    wal.commit().unwrap();
                }
                Err(e) => panic!("{e}"),
            }
        }
        assert!(struck == 1 || after > 20, "operation {after}");
        disk.crash(&mut StdRng::seed_from_u64(after));
        let (_, seen, recovery) = open(&disk);
        assert_eq!(seen, (0..20).collect::<Vec<_>>(), "operation {after}");
        assert_eq!((recovery.damage_count, recovery.torn.len()), (0, 0));
    }
}

#[test]
fn a_failed_sync_stops_the_log_for_good() {
    let (disk, wal, _) = log_of(0..3, 10);
    disk.inject(Fault::Sync { after: 0 });
    let position = append(&wal, RecordKind::Floats, &payload(3, 10)).unwrap();
    assert!(matches!(wal.commit(), Err(Error::Stopped(_))));
    assert!(matches!(wal.commit(), Err(Error::Stopped(_))), "a second sync would lie");
    assert!(matches!(append(&wal, RecordKind::Floats, &payload(4, 0)), Err(Error::Stopped(_))));
    assert!(wal.durable() < position && wal.stats().stopped);
}

#[test]
fn what_a_start_reads_from_the_cache_is_on_the_disk_before_it_counts() {
    let (disk, wal, _) = log_of(0..3, 10);
    disk.inject(Fault::Sync { after: 0 });
    append(&wal, RecordKind::Floats, &payload(3, 10)).unwrap();
    wal.commit().unwrap_err();
    disk.kill();
    let (wal, seen, _) = open(&disk);
    assert_eq!(seen, [0, 1, 2, 3], "the system's cache still has it, marked clean");
    drop(wal);
    for seed in 0..20 {
        let crashed = disk.fork();
        crashed.crash(&mut StdRng::seed_from_u64(seed));
        assert_eq!(open(&crashed).1, [0, 1, 2, 3]);
    }
}

#[test]
fn a_failed_write_stops_the_log_and_nothing_acked_is_lost() {
    for after in 0..60 {
        let (disk, wal, _) = log_of(0..3, 10);
        disk.inject(Fault::Io { after });
        let mut acked = 3;
        for n in 3..30 {
            let appended = append(&wal, RecordKind::Floats, &payload(n, 300));
            if appended.and_then(|_| wal.commit()).is_err() {
                break;
            }
            acked = n + 1;
        }
        disk.crash(&mut StdRng::seed_from_u64(after));
        let (_, seen, recovery) = open(&disk);
        assert!(seen.len() as u64 >= acked, "operation {after}: {acked} acked, {seen:?}");
        assert!(seen.iter().copied().eq(0..seen.len() as u64));
        assert_eq!(recovery.damage_count, 0);
    }
}

#[test]
fn a_start_that_fails_at_any_operation_can_be_tried_again() {
    let (disk, wal, _) = log_of(0..30, 100);
    append(&wal, RecordKind::Floats, &payload(30, 10)).unwrap();
    drop(wal);
    disk.kill();
    let mut failures = 0;
    for after in 0.. {
        let fork = disk.fork();
        fork.inject(Fault::Power { after });
        let opened = open_from(&fork, WalPosition::START);
        failures += u64::from(opened.is_err());
        let done = opened.is_ok();
        fork.crash(&mut StdRng::seed_from_u64(after));
        assert_eq!(open(&fork).1, (0..30).collect::<Vec<_>>(), "operation {after}");
        if done {
            break;
        }
    }
    assert!(failures > 5);
}

#[test]
fn what_replay_refuses_ends_the_start() {
    let (disk, _, _) = log_of(0..3, 10);
    let mut refuse = |_: &[RecordRef<'_>]| Err(Error::Limit("no".to_owned()));
    let opened = Wal::open(Arc::new(disk), dir(), SETTINGS, &mut refuse, WalPosition::START);
    assert!(matches!(opened.err(), Some(Error::Limit(_))));
}

#[test]
fn many_threads_share_one_commit() {
    const THREADS: u64 = 4;
    const EACH: u64 = 100;
    let disk = MemoryDisk::new();
    let (wal, ..) = open(&disk);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let wal = &wal;
            scope.spawn(move || {
                for i in 0..EACH {
                    let position = append(wal, RecordKind::Floats, &payload(thread * EACH + i, 20)).unwrap();
                    assert!(wal.commit().unwrap() >= position);
                }
            });
        }
    });
    assert!(wal.stats().syncs <= THREADS * EACH + 100);
    disk.crash(&mut StdRng::seed_from_u64(1));
    let (_, mut seen, _) = open(&disk);
    for thread in 0..THREADS {
        let of_thread: Vec<u64> = seen.iter().copied().filter(|n| n / EACH == thread).collect();
        assert!(of_thread.is_sorted(), "each thread's records keep their order");
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..THREADS * EACH).collect::<Vec<_>>());
}

#[test]
fn files_of_others_in_the_folder_are_left_alone() {
    let (disk, _, _) = log_of(0..3, 10);
    let path = dir().join("notes.txt");
    disk.create(&path).unwrap().write_at(0, b"mine").unwrap();
    assert_eq!(open(&disk).1, [0, 1, 2]);
    assert_eq!(disk.read(&path).unwrap(), b"mine");
}

#[test]
fn a_segment_has_its_room_before_it_is_written() {
    let (disk, ..) = log_of(0..1, 0);
    assert_eq!(disk.size_bytes(&segment_path(1)).unwrap(), Some(SETTINGS.segment_bytes.into()));
    assert_eq!(disk.create(&segment_path(1)).err().unwrap().kind(), ErrorKind::AlreadyExists);
}

#[derive(Clone, Debug)]
enum Step {
    /// Records of these paddings, in one append; the first may be a definition.
    Append(Vec<u16>, bool),
    Commit,
    Truncate,
    /// Ends the process; true: with the power, under this seed.
    Stop(bool, u64),
    Close,
    Fault(Fault),
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        (0..20u64).prop_map(|after| Fault::Io { after }),
        (0..20u64).prop_map(|after| Fault::Power { after }),
        (0..6u64).prop_map(|after| Fault::Sync { after }),
        (0..10u64).prop_map(|after| Fault::NoSpace { after }),
    ];
    prop_oneof![
        8 => (prop::collection::vec(0..900u16, 1..4), any::<bool>()).prop_map(|(p, s)| Step::Append(p, s)),
        6 => Just(Step::Commit),
        1 => Just(Step::Truncate),
        2 => (any::<bool>(), any::<u64>()).prop_map(|(power, seed)| Step::Stop(power, seed)),
        1 => Just(Step::Close),
        2 => fault.prop_map(Step::Fault),
    ]
}

/// What must be in the log, and what may be.
#[derive(Default)]
struct Model {
    next: u64,
    /// Acked and not truncated away, with the segment of each.
    acked: Vec<(u64, u32)>,
    waiting: Vec<(u64, WalPosition)>,
    /// From where a start reads: never before what was given up.
    from: WalPosition,
}

impl Model {
    fn ack(&mut self, durable: WalPosition) {
        let safe = self.waiting.iter().take_while(|(_, position)| *position <= durable).count();
        self.acked.extend(self.waiting.drain(..safe).map(|(n, position)| (n, position.segment)));
    }

    /// Checks what a start replayed; from then on it counts as acked.
    fn check(&mut self, seen: &[(u64, u32, bool)], recovery: &WalRecovery, rotted: bool) {
        let all: std::collections::BTreeSet<u64> = seen.iter().map(|(n, ..)| *n).collect();
        assert_eq!(all.len(), seen.len(), "nothing comes twice");
        let missing: Vec<_> = self.acked.iter().filter(|(n, _)| !all.contains(n)).collect();
        assert!(missing.is_empty(), "acked and lost: {missing:?}");
        assert!(all.iter().all(|n| *n < self.next), "nobody wrote that");
        let samples: Vec<u64> = seen.iter().filter(|(.., series)| !series).map(|(n, ..)| *n).collect();
        assert!(samples.is_sorted(), "in order");
        assert!(rotted || recovery.damage.iter().all(|d| !d.was_synced), "{:?}", recovery.damage);
        self.acked = seen.iter().map(|(n, segment, _)| (*n, *segment)).collect();
        self.waiting.clear();
    }
}

fn reopen(disk: &MemoryDisk, model: &mut Model) -> Wal {
    loop {
        let mut seen = Vec::new();
        let mut replay = |records: &[RecordRef<'_>]| {
            let numbered =
                |r: &RecordRef<'_>| (number(r.payload), r.end.segment, r.kind == RecordKind::Series);
            seen.extend(records.iter().map(numbered));
            Ok(())
        };
        match Wal::open(Arc::new(disk.clone()), dir(), SETTINGS, &mut replay, model.from) {
            Ok((wal, recovery)) => {
                model.check(&seen, &recovery, false);
                return wal;
            }
            Err(_) => disk.crash(&mut StdRng::seed_from_u64(model.next)),
        }
    }
}

proptest! {
    /// Appends, commits, faults, kills and power cuts in any order: what was acked is there after every start.
    #[test]
    fn nothing_acked_is_ever_lost(steps in prop::collection::vec(step(), 1..60)) {
        let disk = MemoryDisk::new();
        let mut model = Model::default();
        let mut wal = reopen(&disk, &mut model);
        for step in steps {
            match step {
                Step::Append(paddings, with_series) => {
                    let tenant = tenant();
                    let payloads: Vec<_> = paddings.iter().zip(model.next..).map(|(p, n)| payload(n, (*p).into())).collect();
                    let kind = |i| if i == 0 && with_series { RecordKind::Series } else { RecordKind::Floats };
                    let frames: Vec<_> = payloads.iter().enumerate().map(|(i, p)| frame(&tenant, kind(i), p)).collect();
                    if let Ok(Appended::At(position)) = wal.append(None, &frames) {
                        model.waiting.extend(payloads.iter().map(|p| (number(p), position)));
                        model.next += payloads.len() as u64;
                    }
                }
                Step::Commit => {
                    let _ = wal.commit();
                    model.ack(wal.durable());
                }
                Step::Truncate => {
                    let durable = wal.durable();
                    // Even one that fails half-way may have freed some.
                    model.acked.retain(|(_, segment)| *segment >= durable.segment);
                    model.from = WalPosition { segment: durable.segment, offset: 0 };
                    let _ = wal.truncate_before(durable);
                }
                Step::Stop(power, seed) => {
                    if power { disk.crash(&mut StdRng::seed_from_u64(seed)) } else { disk.kill() }
                    wal = reopen(&disk, &mut model);
                }
                Step::Close => {
                    let closed = wal.close().is_ok();
                    model.ack(wal.durable());
                    if closed {
                        disk.kill();
                        wal = reopen(&disk, &mut model);
                    }
                }
                Step::Fault(fault) => disk.inject(fault),
            }
        }
        model.ack(wal.durable());
        disk.crash(&mut StdRng::seed_from_u64(7));
        reopen(&disk, &mut model);
    }

    /// Any bytes at all in the place of a segment: no panic, and only whole records come back.
    #[test]
    fn arbitrary_bytes_in_a_segment_are_survived(noise in prop::collection::vec(any::<u8>(), 0..3_000), at in 0..3_000u64, seed: u64) {
        let (disk, _, ends) = log_of(0..12, 30);
        let file = disk.open(&segment_path(1)).unwrap();
        file.write_at(at, &noise).unwrap();
        file.sync().unwrap();
        let (wal, seen, _) = open(&disk);
        let hurt = |n: usize| {
            let start = if n == 0 { 0 } else { ends[n - 1].offset };
            u64::from(start) < at + noise.len() as u64 && at < u64::from(ends[n].offset)
        };
        for n in 0..12 {
            prop_assert!(hurt(n) || seen.contains(&(n as u64)), "record {} wasn't touched", n);
        }
        let mut rng = StdRng::seed_from_u64(seed);
        append(&wal, RecordKind::Floats, &payload(99, rng.random_range(0..50))).unwrap();
        wal.commit().unwrap();
        prop_assert_eq!(open(&disk).1.last().copied(), Some(99));
    }
}

/// A segment of another version is refused whole, by a message that names it; letters in its place are damage.
#[test]
fn a_log_of_another_version_is_refused_and_left_as_it_is() {
    for version in *b"019x" {
        let (disk, wal, _) = log_of(0..3, 10);
        drop(wal);
        let path = segment_path(1);
        disk.open(&path).unwrap().write_at(7, &[version]).unwrap();
        let before = disk.read(&path).unwrap();
        let opened = open_from(&disk, WalPosition::START);
        if !version.is_ascii_digit() {
            assert!(opened.is_ok());
            continue;
        }
        let Err(Error::Invalid(message)) = opened.map(|_| ()) else { panic!("version {version} was read") };
        assert!(message.contains("segment 1") && message.contains(char::from(version)), "{message}");
        assert_eq!(disk.read(&path).unwrap(), before, "nothing of it has changed");
    }
}
