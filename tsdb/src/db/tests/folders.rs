//! A data folder with names in it that aren't the store's own.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::disk::{Disk, Fault};
use crate::model::Value;

/// Names that people, editors and file systems leave.
const STRAYS: [&str; 6] = ["00.bak", "lost+found", ".nfs000001", "64", "7~", "000000010"];

/// Puts strays of every kind into a folder; returns their paths, without those that a file system makes.
fn litter(disk: &MemoryDisk, dir: &Path, is_known: &dyn Fn(&str) -> bool) -> BTreeSet<PathBuf> {
    let mut strays = BTreeSet::new();
    for name in STRAYS {
        let as_dir = dir.join(name);
        disk.create_dir(&as_dir).unwrap();
        let as_file = dir.join(format!("{name} copy"));
        disk.create(&as_file).unwrap().write_at(0, b"x").unwrap();
        strays.insert(as_file);
        if name != "lost+found" && !is_known(name) {
            strays.insert(as_dir);
        }
    }
    disk.sync_dir(dir).unwrap();
    strays
}

/// Series that each have their own number as value.
fn lived_in(disk: &Arc<MemoryDisk>, seal: bool) -> Vec<(Labels, Vec<Sample>)> {
    let (db, _) = open(disk);
    let tenant = db.tenant(&id()).unwrap();
    for series in 0..64 {
        let samples = (0..300).map(|i| float(series, BASE_MS + i * 60_000, series as f64));
        append(&tenant, &samples.collect::<Vec<_>>()).unwrap();
    }
    db.commit().unwrap();
    assert!(!maintain(&db, BASE_MS).unwrap().cut.is_empty());
    append(&tenant, &[float(0, BASE_MS + 301 * 60_000, 0.0)]).unwrap();
    db.commit().unwrap();
    if seal {
        db.seal().unwrap();
    }
    select(&tenant, ALL_TIMES)
}

fn assert_own_values(found: &[(Labels, Vec<Sample>)]) {
    for (labels, samples) in found {
        let own: f64 = labels.value("i").parse().unwrap();
        assert!(samples.iter().all(|s| matches!(s.value, Value::Float(value) if value == own)), "{labels}");
    }
}

#[test]
fn strange_names_in_every_folder_are_told_of_once_and_left_alone() {
    for seal in [false, true] {
        let disk = Arc::new(MemoryDisk::new());
        let expected = lived_in(&disk, seal);
        disk.kill();
        let tenant = files::tenant(&id());
        let block = disk.list(&tenant).unwrap()[0].name.clone();
        let none: &dyn Fn(&str) -> bool = &|_| false;
        let is_tenant: &dyn Fn(&str) -> bool = &|name| TenantId::new(name).is_ok();
        let head = Path::new(files::HEAD_DIR);
        let folders = [
            (PathBuf::new(), none),
            (files::WAL_DIR.into(), none),
            (head.to_owned(), none),
            (files::head_shard(0), none),
            (files::head_shard(3), none),
            (files::TENANTS_DIR.into(), is_tenant),
            (tenant.join(&block).join(files::BLOCK_CHUNKS_DIR), none),
            (tenant.join(&block), none),
            (tenant.clone(), none),
        ];
        let mut strays = BTreeSet::new();
        for (folder, is_known) in &folders {
            strays.extend(litter(&disk, folder, *is_known));
        }
        // One that would make the number of folders a power of two again.
        for name in ["04", "05", "06", "07"] {
            disk.create_dir(&head.join(name)).unwrap();
            strays.insert(head.join(name));
        }
        for _ in 0..2 {
            let (db, recovery) = open(&disk);
            assert!(recovery.damage.is_empty() && !recovery.is_loss(), "{recovery:?}");
            assert_eq!(recovery.unknown.iter().cloned().collect::<BTreeSet<_>>(), strays);
            assert_eq!(recovery.unknown_count as usize, strays.len(), "each once");
            let tenant = db.tenant(&id()).unwrap();
            let found = select(&tenant, ALL_TIMES);
            assert_own_values(&found);
            assert!(found == expected);
            // Everything goes on around them.
            db.flush(BASE_MS).unwrap();
            assert!(maintain(&db, BASE_MS).unwrap().problems.is_empty());
            drop((db, tenant));
            disk.kill();
        }
        for path in strays {
            let (dir, name) = (path.parent().unwrap(), path.file_name().unwrap());
            assert!(disk.list(dir).unwrap().iter().any(|e| e.name == Path::new(name)), "{}", path.display());
        }
    }
}

#[test]
fn the_number_of_shards_is_the_one_written_down_or_none() {
    let disk = Arc::new(MemoryDisk::new());
    let expected = lived_in(&disk, true);
    disk.kill();
    let restart = |disk: &Arc<MemoryDisk>, shards: usize| {
        let settings = DbSettings { shards, ..settings() };
        Db::open(disk.clone(), settings, BASE_MS, 7, &Inline)
    };
    // Whatever settings ask for.
    let (db, _) = restart(&Arc::new(disk.fork()), 16).unwrap();
    assert!(select(&db.tenant(&id()).unwrap(), ALL_TIMES) == expected);
    // Where the file is gone or rotten, folders tell, if they leave no doubt.
    for rotten in [false, true] {
        let disk = Arc::new(disk.fork());
        let spoil = || match rotten {
            true => disk.flip(&files::head_layout(), 5, 1).unwrap(),
            false => disk.remove_file(&files::head_layout()).unwrap(),
        };
        spoil();
        let (db, recovery) = restart(&disk, 16).unwrap();
        assert_eq!((recovery.damage.len(), recovery.is_loss()), (usize::from(rotten), false));
        assert!(select(&db.tenant(&id()).unwrap(), ALL_TIMES) == expected);
        drop(db);
        assert!(restart(&disk, 4).unwrap().1.damage.is_empty(), "it was written down again");
        disk.kill();
        spoil();
        disk.create_dir(&files::head_shard(9)).unwrap();
        assert!(matches!(restart(&disk, 4), Err(Error::Invalid(_))));
    }
    // Two numbers at once are for a person to look at: nothing is started, and nothing changed.
    let other = Arc::new(MemoryDisk::new());
    drop(restart(&other, 8).unwrap());
    let layout = other.read(&files::head_layout()).unwrap();
    disk.remove_file(&files::head_layout()).unwrap();
    disk.create(&files::head_layout()).unwrap().write_at(0, &layout).unwrap();
    let Err(Error::Invalid(told)) = restart(&disk, 4) else { panic!("it started") };
    assert!(told.contains("4 shards") && told.contains("says 8"), "{told}");
}

#[test]
fn a_head_that_was_removed_is_told_as_a_loss() {
    let disk = Arc::new(MemoryDisk::new());
    {
        let settings = DbSettings { checkpoint_bytes: 0, ..settings() };
        let settings = || DbSettings {
            wal: WalSettings { segment_bytes: 16 << 10, spares_max: 0, ..WalSettings::default() },
            ..settings.clone()
        };
        let (db, _) = Db::open(disk.clone(), settings(), BASE_MS, 7, &Inline).unwrap();
        let tenant = db.tenant(&id()).unwrap();
        for i in 0..200 {
            let samples = (0..40).map(|s| float(s, BASE_MS + i * 1_000, i as f64));
            append(&tenant, &samples.collect::<Vec<_>>()).unwrap();
            db.commit().unwrap();
            maintain(&db, BASE_MS).unwrap();
        }
    }
    disk.kill();
    for gone in [files::head_shard(1), files::HEAD_DIR.into()] {
        let disk = Arc::new(disk.fork());
        disk.remove_dir(&gone).unwrap();
        assert!(open(&disk).1.is_loss(), "{}", gone.display());
    }
    assert!(!open(&disk).1.is_loss());
}

/// Every file below a folder.
fn files_below(disk: &MemoryDisk, dir: &Path) -> BTreeSet<PathBuf> {
    let entries = disk.list(dir).unwrap_or_default();
    let below = |entry: crate::disk::DirEntry| match (dir.join(entry.name), entry.is_dir) {
        (path, true) => files_below(disk, &path),
        (path, false) => BTreeSet::from([path]),
    };
    entries.into_iter().flat_map(below).collect()
}

#[test]
fn emptying_takes_what_is_the_stores_own_and_nothing_else_whatever_fails_meanwhile() {
    for (is_littered, seal) in [(false, false), (true, false), (true, true)] {
        let lived = Arc::new(MemoryDisk::new());
        lived_in(&lived, seal);
        lived.kill();
        let folders = [
            PathBuf::new(),
            files::WAL_DIR.into(),
            files::HEAD_DIR.into(),
            files::head_shard(3),
            files::TENANTS_DIR.into(),
            files::tenant(&id()),
        ];
        if is_littered {
            folders.iter().for_each(|folder| drop(litter(&lived, folder, &|_| false)));
        }
        let strays = files_below(&lived, Path::new("")).into_iter();
        let strays: BTreeSet<_> = strays.filter(|path| path.to_string_lossy().ends_with(" copy")).collect();
        for after in 0.. {
            let disk = Arc::new(lived.fork());
            disk.inject(Fault::Io { after });
            let failed = crate::emptying::empty(&*disk).is_err();
            assert_eq!(failed, disk.struck() > 0);
            disk.clear_faults();
            if failed && after % 2 == 0 {
                disk.crash(&mut StdRng::seed_from_u64(after));
            }
            crate::emptying::empty(&*disk).unwrap();
            let left = files_below(&disk, Path::new(""));
            let own = left.difference(&strays).filter(|path| **path != files::head_layout());
            assert_eq!(own.collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "{after}");
            assert!(strays.is_subset(&left), "{after}");
            let (db, recovery) = open(&disk);
            assert!(!recovery.is_loss() && recovery.damage.is_empty(), "{recovery:?}");
            assert!(db.existing_tenant(&id()).is_none_or(|tenant| select(&tenant, ALL_TIMES).is_empty()));
            if !failed {
                break;
            }
        }
    }
}
