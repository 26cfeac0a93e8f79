//! The ledger: the few small facts that a store must not forget, each safe before `put` returns.
//!
//! In production sled keeps it, outside of [`Disk`], under `ledger/` in the data folder. Its known way to break is
//! a snapshot file that a crash left empty (open fails with `Corruption`): the snapshot is only a shortcut, so it is
//! removed and the log is read instead. If that fails too, the folder is set aside and a new ledger begun.
//! sled panics on some other damage to its files; that is taken for corruption too.
//! Where the disk isn't the system's, [`DiskLedger`] keeps the same facts in one file.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tsdb::disk::Disk;
use tsdb::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

/// Small durable facts by name.
pub trait Ledger: Send + Sync + 'static {
    /// The fact, if there is one.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Sets a fact; it is durable when this returns.
    fn put(&self, name: &str, value: &[u8]) -> Result<()>;

    /// Forgets a fact; durable when this returns.
    fn remove(&self, name: &str) -> Result<()>;

    /// All facts whose names begin with `prefix`, by name: for the few of one kind, such as a store's uploads.
    fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>>;
}

/// The ledger on sled.
pub struct SledLedger(sled::Db);

impl SledLedger {
    /// Its folder inside the data folder.
    pub const FOLDER: &str = "ledger";

    /// Opens or begins a ledger, whatever state a crash left it in.
    ///
    /// # Errors
    /// When another process has it open, or the disk fails.
    #[allow(clippy::disallowed_methods, reason = "this is the seam: sled owns its folder")]
    pub fn open(dir: &Path) -> Result<Self> {
        let io = |source| Error::io("set aside ledger", dir, source);
        match open_sled(dir) {
            Err(e) if is_damage(&e) => {}
            other => return other.map(Self).map_err(|e| sled_error(dir, e)),
        }
        tracing::warn!(dir = %dir.display(), "ledger's snapshot is corrupt, reading its log instead");
        for entry in std::fs::read_dir(dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                std::fs::remove_file(entry.path()).map_err(io)?;
            }
        }
        match open_sled(dir) {
            Err(e) if is_damage(&e) => {}
            other => return other.map(Self).map_err(|e| sled_error(dir, e)),
        }
        let aside = (1..)
            .map(|n| dir.with_extension(format!("corrupt-{n}")))
            .find(|to| !to.exists())
            .expect("some number isn't taken");
        tracing::error!(dir = %dir.display(), aside = %aside.display(), "ledger is corrupt, beginning a new one");
        std::fs::rename(dir, &aside).map_err(io)?;
        open_sled(dir).map(Self).map_err(|e| sled_error(dir, e))
    }
}

/// How often a ledger is tried to be opened that is locked, and how long it is waited in between: sled's threads may
/// hold the lock of a ledger for a moment longer than whoever has just closed it.
const LOCKED_TRIES: u32 = 200;
const LOCKED_WAIT: Duration = Duration::from_millis(10);

/// Cache of the ledger: it holds a few kilobytes.
const SLED_CACHE_BYTES: u64 = 1 << 20;

fn open_sled(dir: &Path) -> sled::Result<sled::Db> {
    let config = sled::Config::new().path(dir).cache_capacity(SLED_CACHE_BYTES).flush_every_ms(None);
    let open = || {
        // Nothing of ours is shared with what may unwind here, so nothing can be left half-changed.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| config.open()));
        opened.unwrap_or_else(|_| Err(sled::Error::Corruption { at: None, bt: () }))
    };
    for _ in 1..LOCKED_TRIES {
        match open() {
            Err(e) if is_locked(&e) => pause(),
            opened => return opened,
        }
    }
    open()
}

#[allow(clippy::disallowed_methods, reason = "this is the seam: sled's threads are real ones")]
fn pause() {
    std::thread::sleep(LOCKED_WAIT);
}

/// Whether somebody has the ledger open. sled says so in words alone.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(e) if e.to_string().starts_with("could not acquire lock"))
}

/// Whether sled's files are broken, and not the disk that they lie on or another process in the way: a broken
/// configuration file calls itself unsupported, a file cut short an early end.
fn is_damage(error: &sled::Error) -> bool {
    match error {
        sled::Error::Corruption { .. } | sled::Error::Unsupported(_) | sled::Error::ReportableBug(_) => true,
        sled::Error::CollectionNotFound(_) => true,
        sled::Error::Io(e) => matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof),
    }
}

fn sled_error(dir: &Path, error: sled::Error) -> Error {
    match error {
        sled::Error::Io(source) => Error::io("use ledger", dir, source),
        sled::Error::Corruption { .. } => Error::corrupt("ledger", 0, error.to_string()).in_file(dir),
        other => Error::Stopped(format!("ledger {}: {other}", dir.display())),
    }
}

impl Ledger for SledLedger {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let value = self.0.get(name).map_err(|e| sled_error(Path::new(Self::FOLDER), e))?;
        Ok(value.map(|v| v.to_vec()))
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<()> {
        let put = self.0.insert(name, value).and_then(|_| self.0.flush());
        put.map(drop).map_err(|e| sled_error(Path::new(Self::FOLDER), e))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let removed = self.0.remove(name).and_then(|_| self.0.flush());
        removed.map(drop).map_err(|e| sled_error(Path::new(Self::FOLDER), e))
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let error = |e| sled_error(Path::new(Self::FOLDER), e);
        let fact = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
            let (name, value) = entry.map_err(error)?;
            let name = String::from_utf8(name.to_vec())
                .map_err(|_| Error::corrupt("ledger", 0, "a name isn't UTF-8").in_file(Self::FOLDER))?;
            Ok((name, value.to_vec()))
        };
        self.0.scan_prefix(prefix).map(fact).collect()
    }
}

/// The ledger as one file on a [`Disk`], written anew and renamed at each change.
///
/// ```text
/// "CLG1"  4 bytes: magic and version
/// facts   u32 length of the name, name, u32 length of the value, value; lengths little-endian
/// sum     u64 little-endian: xxh3-64 of everything before
/// ```
pub struct DiskLedger {
    disk: Arc<dyn Disk>,
    facts: Mutex<BTreeMap<String, Vec<u8>>>,
}

const FILE: &str = "ledger.bin";
const FILE_NEW: &str = "ledger.bin.new";
const MAGIC: &[u8; 4] = b"CLG1";

impl DiskLedger {
    /// Reads the ledger, or begins one where there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file isn't what was written.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self> {
        let facts = match disk.read(Path::new(FILE)) {
            Ok(bytes) => decode(&bytes).ok_or_else(|| {
                Error::corrupt("ledger", 0, "the checksum differs").in_file(PathBuf::from(FILE))
            })?,
            Err(e) if e.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(Error::io("read", FILE, e)),
        };
        Ok(Self { disk, facts: Mutex::new(facts) })
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Result<()> {
        let mut facts = self.facts.lock();
        let mut changed = facts.clone();
        change(&mut changed);
        self.store(&encode(&changed)).map_err(|e| Error::io("write", FILE, e))?;
        *facts = changed;
        Ok(())
    }

    fn store(&self, bytes: &[u8]) -> std::io::Result<()> {
        let (new, file) = (Path::new(FILE_NEW), Path::new(FILE));
        if self.disk.size_bytes(new)?.is_some() {
            self.disk.remove_file(new)?;
        }
        let writer = self.disk.create(new)?;
        writer.write_at(0, bytes)?;
        writer.sync()?;
        self.disk.rename(new, file)?;
        self.disk.sync_dir(Path::new(""))
    }
}

impl Ledger for DiskLedger {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.facts.lock().get(name).cloned())
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<()> {
        self.change(|facts| drop(facts.insert(name.to_owned(), value.to_owned())))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.change(|facts| drop(facts.remove(name)))
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let facts = self.facts.lock();
        let from = facts.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        Ok(from.map(|(name, value)| (name.clone(), value.clone())).collect())
    }
}

fn encode(facts: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (name, value) in facts {
        for part in [name.as_bytes(), value] {
            let length = u32::try_from(part.len()).expect("facts are small");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    if xxh3_64(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut take = || {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let (part, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = tail;
        Some((part.to_vec(), tail.is_empty()))
    };
    let mut facts = BTreeMap::new();
    let mut at_end = body.len() == MAGIC.len();
    while !at_end {
        let (name, _) = take()?;
        let (value, last) = take()?;
        facts.insert(String::from_utf8(name).ok()?, value);
        at_end = last;
    }
    Some(facts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{Rng, RngCore, SeedableRng};
    use tsdb::disk::{Fault, MemoryDisk};

    use super::*;

    /// What every ledger must do; `open` opens the same one again.
    fn conforms(open: &dyn Fn() -> Box<dyn Ledger>) {
        let ledger = open();
        assert_eq!(ledger.get("a").unwrap(), None);
        ledger.put("a", b"1").unwrap();
        ledger.put("b", &[0; 5000]).unwrap();
        ledger.put("a", b"2").unwrap();
        drop(ledger);
        let ledger = open();
        assert_eq!(ledger.get("a").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(ledger.get("b").unwrap().map(|v| v.len()), Some(5000));
        ledger.remove("a").unwrap();
        ledger.remove("never there").unwrap();
        for name in ["upload/2", "upload/10", "uploads", "upload"] {
            ledger.put(name, name.as_bytes()).unwrap();
        }
        drop(ledger);
        let ledger = open();
        assert_eq!(ledger.get("a").unwrap(), None);
        let names =
            |prefix| ledger.scan(prefix).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("upload/"), ["upload/10", "upload/2"]);
        assert_eq!(names(""), ["b", "upload", "upload/10", "upload/2", "uploads"]);
        assert_eq!(ledger.scan("uploads").unwrap(), [("uploads".to_owned(), b"uploads".to_vec())]);
    }

    #[test]
    fn the_file_on_a_disk_conforms() {
        let disk = MemoryDisk::new();
        conforms(&|| Box::new(DiskLedger::open(Arc::new(disk.clone())).unwrap()));
    }

    #[test]
    fn no_power_cut_loses_a_fact_that_was_put_on_a_disk() {
        for after in 0..60 {
            let disk = MemoryDisk::new();
            let ledger = DiskLedger::open(Arc::new(disk.clone())).unwrap();
            disk.inject(Fault::Power { after });
            let safe = (0..10u8).take_while(|n| ledger.put("n", &[*n]).is_ok()).last();
            disk.crash(&mut StdRng::seed_from_u64(after));
            let found = DiskLedger::open(Arc::new(disk)).unwrap().get("n").unwrap().map(|v| v[0]);
            // The put that failed may have got through all the same.
            assert!(found >= safe && found.map_or(0, |n| n + 1) <= safe.map_or(0, |n| n + 1) + 1);
        }
    }

    #[test]
    fn sled_conforms() {
        let dir = tempfile::tempdir().unwrap();
        conforms(&|| Box::new(SledLedger::open(&dir.path().join("ledger")).unwrap()));
    }

    #[test]
    fn a_ledger_that_is_open_is_waited_for_and_then_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = SledLedger::open(dir.path()).unwrap();
        let Err(refused) = SledLedger::open(dir.path()) else { panic!("it is open") };
        assert!(refused.to_string().contains("could not acquire lock"), "{refused}");
        std::thread::scope(|scope| {
            scope.spawn(|| drop(open));
            SledLedger::open(dir.path()).unwrap();
        });
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test breaks sled's files")]
    fn an_emptied_snapshot_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        SledLedger::open(dir.path()).unwrap().put("a", b"1").unwrap();
        // Opening writes a snapshot of what the log holds.
        drop(SledLedger::open(dir.path()).unwrap());
        let mut emptied = 0;
        for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                std::fs::write(entry.path(), b"").unwrap();
                emptied += 1;
            }
        }
        assert!(emptied > 0);
        assert_eq!(SledLedger::open(dir.path()).unwrap().get("a").unwrap().as_deref(), Some(&b"1"[..]));
    }

    /// Whatever is done to sled's files, the node starts: with the facts, or with an empty ledger beside the broken one.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test breaks sled's files")]
    fn no_damage_to_its_files_keeps_a_ledger_from_opening() {
        for round in 0..60u64 {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("ledger");
            let ledger = SledLedger::open(&dir).unwrap();
            (0..20u8).for_each(|n| ledger.put(&format!("fact/{n}"), &[n; 100]).unwrap());
            drop(ledger);
            drop(SledLedger::open(&dir).unwrap());
            let mut rng = StdRng::seed_from_u64(round);
            for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
                if !entry.file_type().unwrap().is_file() || rng.random_bool(0.3) {
                    continue;
                }
                let mut bytes = std::fs::read(entry.path()).unwrap();
                // Most of sled's log is room not yet used: hit what is.
                let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
                match rng.random_range(0..3u8) {
                    0 => bytes.truncate(rng.random_range(0..=used)),
                    _ if used == 0 => continue,
                    1 => bytes[rng.random_range(0..used)] ^= 1 << rng.random_range(0..8u8),
                    _ => rng.fill_bytes(&mut bytes[..used]),
                }
                std::fs::write(entry.path(), bytes).unwrap();
            }
            let ledger = SledLedger::open(&dir).unwrap();
            for (name, value) in ledger.scan("fact/").unwrap() {
                assert_eq!(name, format!("fact/{}", value[0]), "round {round}");
            }
            ledger.put("after", b"1").unwrap();
            drop(ledger);
            assert_eq!(SledLedger::open(&dir).unwrap().get("after").unwrap().as_deref(), Some(&b"1"[..]));
        }
    }

    #[test]
    fn any_flipped_byte_is_noticed() {
        let bytes = encode(&BTreeMap::from([("name".to_owned(), b"value".to_vec())]));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(decode(&flipped).is_none());
            assert!(decode(&bytes[..at]).is_none());
        }
    }

    proptest! {
        #[test]
        fn facts_round_trip(facts: BTreeMap<String, Vec<u8>>) {
            prop_assert_eq!(decode(&encode(&facts)).unwrap(), facts);
        }
    }
}
