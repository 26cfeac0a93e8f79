//! Hints: what other stores have missed, kept here until they are back.
//!
//! 1. A write that a replica missed becomes a record for it, in memory; never counted towards a quorum, and kept for
//!    writes that failed, too, so that whoever has them doesn't stay alone.
//! 2. A task appends records to segments of the store's folder (`segment`), and syncs them a little later: a crash
//!    costs the last second's, which repair brings in the end.
//! 3. When the store answers again, its segments are sent in order, and removed when all is taken (`replay`). What
//!    isn't its own any more goes to whoever owns it now.
//! 4. Hints are bounded in bytes, memory and disk together, and in age: monotonic time since this process wrote or found
//!    them, since a wall clock that jumps would have all of them deleted.
//!
//! While the disk is full or failing, records stay in memory, within their bound. A segment that can't be grown, synced,
//! read or removed is left behind, so that it holds up none of the others.

mod replay;
mod segment;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use proto::peer::write::Frame;
use ring::StoreId;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tsdb::disk::{DirEntry, Disk, DiskFile};
use tsdb::{Error, Result, files};

use crate::env::{Pool, on_disk};
use crate::log::Repeats;
use crate::metrics::at_scrape;

pub(crate) use replay::Replay;

/// A segment ends once it has this many bytes.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Bytes that may wait for the disk, of all stores.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Time between two syncs.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How much is kept, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of all stores' hints; 0 keeps none.
    pub bytes_max: u64,
    /// Time after which a hint is of no use: whoever was away for so long is repaired.
    pub age_max: Duration,
}

/// What other stores have missed.
pub struct Hints {
    disk: Arc<dyn Disk>,
    pool: Arc<dyn Pool>,
    bounds: Bounds,
    state: Mutex<State>,
    /// Held while files grow or end: one at a time.
    writing: Mutex<()>,
    wanted: Notify,
    hurry: Notify,
    /// What keeps hints from the disk.
    problems: Repeats,
    counters: Counters,
}

#[derive(Default)]
struct State {
    stores: BTreeMap<StoreId, OfStore>,
    /// Bytes of all, waiting and written.
    bytes: u64,
    waiting_bytes: usize,
}

/// One store's hints.
#[derive(Default)]
struct OfStore {
    /// Records that wait for the disk; those that are being written aside.
    waiting: Vec<u8>,
    /// On disk, oldest first; only the last one grows.
    segments: VecDeque<Segment>,
    next_number: u32,
}

#[derive(Clone)]
struct Segment {
    number: u32,
    bytes: u64,
    /// When its youngest record was written, or when a start found it.
    newest: Instant,
    /// While it grows.
    file: Option<Arc<dyn DiskFile>>,
    is_synced: bool,
    /// The store has all of it: only the file has to go.
    is_taken: bool,
}

#[derive(Default)]
struct Counters {
    kept: AtomicU64,
    dropped: AtomicU64,
    replayed: AtomicU64,
    expired: AtomicU64,
    damaged: AtomicU64,
}

/// What waits to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Of all stores.
    pub bytes: u64,
    /// For whom.
    pub stores: Vec<StoreId>,
}

impl Hints {
    /// Finds what was kept before.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(disk: Arc<dyn Disk>, pool: Arc<dyn Pool>, bounds: Bounds) -> Result<Self> {
        let mut state = State::default();
        let now = Instant::now();
        // What else lies there is left alone.
        let folders = entries(&*disk, Path::new(files::HINTS_DIR))?;
        let folders = folders.iter().filter(|entry| entry.is_dir);
        for store in folders.filter_map(|entry| files::parse_hints(&entry.name)) {
            let dir = files::hints(store);
            let segments = entries(&*disk, &dir)?;
            let segments = segments.iter().filter(|entry| !entry.is_dir);
            let mut numbers: Vec<_> =
                segments.filter_map(|entry| files::parse_hint_segment(&entry.name)).collect();
            numbers.sort_unstable();
            let mut of_store = OfStore::default();
            for number in numbers {
                let path = files::hint_segment(&dir, number);
                let bytes = disk.size_bytes(&path).map_err(|e| Error::io("size", &path, e))?.unwrap_or(0);
                state.bytes += bytes;
                of_store.next_number = number + 1;
                let segment =
                    Segment { number, bytes, newest: now, file: None, is_synced: true, is_taken: false };
                of_store.segments.push_back(segment);
            }
            state.stores.insert(StoreId(store), of_store);
        }
        Ok(Self {
            disk,
            pool,
            bounds,
            state: Mutex::new(state),
            writing: Mutex::default(),
            wanted: Notify::new(),
            hurry: Notify::new(),
            problems: Repeats::default(),
            counters: Counters::default(),
        })
    }

    /// Whether anything is kept at all.
    pub fn is_enabled(&self) -> bool {
        self.bounds.bytes_max > 0
    }

    /// Keeps frames that a store missed; what is beyond the bounds is dropped and counted.
    pub fn add(&self, store: StoreId, frames: Vec<Frame>) {
        for frame in frames {
            let mut record = Vec::new();
            let fits = segment::write(&frame, &mut record);
            let mut state = self.state.lock();
            let is_room = state.bytes + record.len() as u64 <= self.bounds.bytes_max
                && state.waiting_bytes + record.len() <= WAITING_BYTES_MAX;
            if !fits || !is_room {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            state.bytes += record.len() as u64;
            state.waiting_bytes += record.len();
            state.stores.entry(store).or_default().waiting.append(&mut record);
            self.counters.kept.fetch_add(1, Ordering::Relaxed);
        }
        self.wanted.notify_one();
    }

    /// What waits to be sent, and for whom.
    pub fn pending(&self) -> Pending {
        let state = self.state.lock();
        let has_some =
            |of: &OfStore| !of.waiting.is_empty() || of.segments.iter().any(|segment| !segment.is_taken);
        let stores = state.stores.iter().filter(|(_, of)| has_some(of)).map(|(store, _)| *store).collect();
        Pending { bytes: state.bytes, stores }
    }

    /// Has everything sent now, as far as stores answer, instead of at the next round.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// What `/metrics` tells.
    pub fn collector(self: &Arc<Self>) -> Box<dyn Collector> {
        let hints = self.clone();
        at_scrape(move |out| {
            let (pending, counters) = (hints.pending(), &hints.counters);
            out.gauge(
                "carillon_hints_bytes",
                "Bytes kept for stores that missed them",
                pending.bytes as f64,
            )?;
            out.gauge(
                "carillon_hints_stores",
                "Stores that have missed something",
                pending.stores.len() as f64,
            )?;
            out.count("carillon_hints_kept", "Hints kept", &counters.kept)?;
            out.count("carillon_hints_replayed", "Hints that were taken", &counters.replayed)?;
            out.count("carillon_hints_dropped", "Hints for which there was no room", &counters.dropped)?;
            out.count("carillon_hints_expired", "Hints that were too old to be of use", &counters.expired)?;
            out.count("carillon_hints_damaged", "Hints that couldn't be read back", &counters.damaged)
        })
    }

    /// Writes what waits until `stop`, and then the rest.
    pub async fn write(self: &Arc<Self>, stop: CancellationToken) {
        loop {
            let is_last = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                () = self.wanted.notified() => false,
                () = tokio::time::sleep(SYNC_INTERVAL) => false,
            };
            let hints = self.clone();
            if let Err(error) = on_disk(&*self.pool, move || hints.write_waiting(is_last)).await {
                self.tell(&error);
                if !is_last {
                    tokio::time::sleep(SYNC_INTERVAL).await;
                }
            }
            if is_last {
                return;
            }
            // What comes within a moment is written together.
            tokio::time::sleep(SYNC_INTERVAL / 20).await;
        }
    }

    fn tell(&self, error: &Error) {
        if let Some(untold) = self.problems.due(&error.to_string()) {
            tracing::error!(%error, untold, "the disk fails hints");
        }
    }

    /// Appends what waits to each store's last segment, and syncs what was written before. One store's trouble doesn't
    /// keep the others' hints from the disk.
    ///
    /// # Errors
    /// The first; what couldn't be written waits on.
    fn write_waiting(&self, sync_all: bool) -> Result<()> {
        let _writing = self.writing.lock();
        let stores: Vec<_> = self.state.lock().stores.keys().copied().collect();
        let mut all = Ok(());
        for store in stores {
            all = all.and(self.sync(store, sync_all));
            all = all.and(self.append(store));
            if sync_all {
                all = all.and(self.sync(store, true));
            }
        }
        all
    }

    fn append(&self, store: StoreId) -> Result<()> {
        let (waiting, current) = {
            let mut state = self.state.lock();
            let of_store = state.stores.entry(store).or_default();
            let grows = |segment: &&Segment| segment.file.is_some() && segment.bytes < SEGMENT_BYTES;
            let current = of_store.segments.back().filter(grows).cloned();
            (std::mem::take(&mut of_store.waiting), current)
        };
        if waiting.is_empty() {
            return Ok(());
        }
        let written = match current {
            Some(segment) => self.grow(store, &segment, &waiting).map(|()| segment),
            None => self.begin(store, &waiting),
        };
        let mut state = self.state.lock();
        let of_store = state.stores.entry(store).or_default();
        let written = match written {
            Ok(segment) => segment,
            Err(error) => {
                // It is in memory alone, and is tried again, before what came meanwhile.
                let later = std::mem::replace(&mut of_store.waiting, waiting);
                of_store.waiting.extend_from_slice(&later);
                return Err(error);
            }
        };
        let bytes = waiting.len() as u64;
        match of_store.segments.iter_mut().find(|segment| segment.number == written.number) {
            Some(segment) => {
                segment.bytes += bytes;
                (segment.newest, segment.is_synced) = (Instant::now(), false);
            }
            None => of_store.segments.push_back(Segment { bytes, is_synced: false, ..written }),
        }
        state.waiting_bytes -= waiting.len();
        Ok(())
    }

    /// Begins a segment with some records. Its number is used up even if that fails: whatever then lies under its name
    /// must not be in the way of the next.
    fn begin(&self, store: StoreId, records: &[u8]) -> Result<Segment> {
        let number = {
            let mut state = self.state.lock();
            let of_store = state.stores.entry(store).or_default();
            of_store.next_number += 1;
            of_store.next_number - 1
        };
        let dir = files::hints(store.0);
        let path = files::hint_segment(&dir, number);
        self.disk.create_dir(&dir).map_err(|e| Error::io("create", &dir, e))?;
        let file = self.disk.create(&path).map_err(|e| Error::io("create", &path, e))?;
        let (newest, file) = (Instant::now(), Some(file));
        let segment = Segment { number, bytes: 0, newest, file, is_synced: true, is_taken: false };
        let hints_dir = Path::new(files::HINTS_DIR);
        let written = [&dir, hints_dir, Path::new("")]
            .iter()
            .try_for_each(|dir| self.disk.sync_dir(dir).map_err(|e| Error::io("sync", *dir, e)))
            .and_then(|()| self.grow(store, &segment, records));
        if written.is_err()
            && let Err(error) = self.disk.remove_file(&path)
        {
            tracing::debug!(path = %path.display(), %error, "a segment that couldn't be begun stays");
        }
        written.map(|()| segment)
    }

    /// Writes records at a segment's end. After a failure the same place is written again, or, where that isn't for want
    /// of room, another segment: the disk may have gone bad just there.
    fn grow(&self, store: StoreId, segment: &Segment, records: &[u8]) -> Result<()> {
        let path = files::hint_segment(&files::hints(store.0), segment.number);
        let file = segment.file.as_ref().expect("only a segment that grows is chosen");
        let written = file.write_at(segment.bytes, records).map_err(|e| Error::io("write", path, e));
        if written.as_ref().is_err_and(|error| !matches!(error, Error::NoSpace(_))) {
            self.with(store, segment.number, |known| known.file = None);
        }
        written
    }

    /// Syncs what isn't; a segment that has ended, or all, is closed. One that can't be synced is closed too: after a
    /// failed sync a second one would lie. What the system has of it is sent as long as this process lives.
    ///
    /// # Errors
    /// The first, after all were tried.
    fn sync(&self, store: StoreId, close: bool) -> Result<()> {
        let open: Vec<_> = {
            let state = self.state.lock();
            let segments = state.stores.get(&store).map(|of| of.segments.iter().cloned());
            segments.into_iter().flatten().filter(|segment| segment.file.is_some()).collect()
        };
        let mut all = Ok(());
        for segment in open {
            let (number, file) = (segment.number, segment.file.expect("it was filtered by that"));
            let synced = if segment.is_synced { Ok(()) } else { file.sync() };
            self.with(store, number, |known| {
                known.is_synced |= synced.is_ok() && known.bytes == segment.bytes;
                if synced.is_err() || known.is_synced && (close || known.bytes >= SEGMENT_BYTES) {
                    known.file = None;
                }
            });
            let path = || files::hint_segment(&files::hints(store.0), number);
            all = all.and(synced.map_err(|e| Error::io("sync", path(), e)));
        }
        all
    }

    /// Changes a segment, if it is still there.
    fn with(&self, store: StoreId, number: u32, change: impl FnOnce(&mut Segment)) {
        let mut state = self.state.lock();
        let segments = state.stores.get_mut(&store).map(|of| of.segments.iter_mut());
        segments.into_iter().flatten().find(|segment| segment.number == number).map(change);
    }

    /// The oldest segment of a store behind the one with number `behind`, ended so that nothing is added to it any more;
    /// `None` when there is none.
    ///
    /// # Errors
    /// When the disk fails, and nothing is on it.
    async fn oldest(self: &Arc<Self>, store: StoreId, behind: Option<u32>) -> Result<Option<Segment>> {
        let hints = self.clone();
        on_disk(&*self.pool, move || {
            let _writing = hints.writing.lock();
            // On a full disk nothing can be added, but what is sent makes room.
            let appended = hints.append(store);
            let ended = appended.and(hints.sync(store, true));
            let state = hints.state.lock();
            let is_next = |segment: &&Segment| {
                segment.file.is_none() && !segment.is_taken && Some(segment.number) > behind
            };
            match state.stores.get(&store).and_then(|of| of.segments.iter().find(is_next)) {
                Some(segment) => Ok(Some(segment.clone())),
                None => ended.map(|()| None),
            }
        })
        .await
    }

    /// What a segment holds.
    async fn read(self: &Arc<Self>, store: StoreId, segment: &Segment) -> Result<Vec<Frame>> {
        let (disk, path) = (self.disk.clone(), files::hint_segment(&files::hints(store.0), segment.number));
        let bytes = on_disk(&*self.pool, {
            let path = path.clone();
            move || disk.read(&path).map_err(|e| Error::io("read", path, e))
        })
        .await?;
        let segment::Contents { frames, damaged } = {
            // What a failed write left behind the last whole one isn't kept there, but in another segment.
            let length = usize::try_from(segment.bytes).unwrap_or(usize::MAX).min(bytes.len());
            segment::read(&bytes[..length])
        };
        if damaged > 0 {
            tracing::error!(path = %path.display(), damaged, "hints are damaged, and left out");
            self.counters.damaged.fetch_add(damaged as u64, Ordering::Relaxed);
        }
        Ok(frames)
    }

    /// Removes a store's segment: all of it is taken, or of no use any more.
    ///
    /// # Errors
    /// When the disk fails. What the store has isn't sent again; [`Hints::expire`] tries to remove it again.
    async fn remove(self: &Arc<Self>, store: StoreId, number: u32) -> Result<()> {
        let hints = self.clone();
        on_disk(&*self.pool, move || {
            hints.with(store, number, |segment| segment.is_taken = true);
            let path = files::hint_segment(&files::hints(store.0), number);
            match hints.disk.remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", path, e));
                }
                _ => {}
            }
            let mut state = hints.state.lock();
            let of_store = state.stores.get_mut(&store);
            let removed = of_store.and_then(|of| {
                let at = of.segments.iter().position(|segment| segment.number == number)?;
                of.segments.remove(at)
            });
            state.bytes -= removed.map_or(0, |segment| segment.bytes);
            Ok(())
        })
        .await
    }

    /// Removes segments of which nothing is of use any more.
    ///
    /// # Errors
    /// The first, after all were tried.
    async fn expire(self: &Arc<Self>) -> Result<()> {
        let doomed: Vec<_> = {
            let state = self.state.lock();
            let age_max = self.bounds.age_max;
            let is_old = |segment: &Segment| segment.file.is_none() && segment.newest.elapsed() > age_max;
            let of_store = |(store, of): (&StoreId, &OfStore)| {
                let doomed = of.segments.iter().filter(|segment| segment.is_taken || is_old(segment));
                doomed.map(|segment| (*store, segment.number, segment.is_taken)).collect::<Vec<_>>()
            };
            state.stores.iter().flat_map(of_store).collect()
        };
        let mut all = Ok(());
        for (store, number, is_taken) in doomed {
            if !is_taken {
                tracing::warn!(%store, number, "hints are too old to be of use: repair has to bring what the store lacks");
                self.counters.expired.fetch_add(1, Ordering::Relaxed);
            }
            all = all.and(self.remove(store, number).await);
        }
        all
    }
}

/// What a folder holds; nothing where there is no folder.
fn entries(disk: &dyn Disk, dir: &Path) -> Result<Vec<DirEntry>> {
    match disk.list(dir) {
        Ok(entries) => Ok(entries),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io("list", dir, e)),
    }
}

#[cfg(test)]
mod tests;
