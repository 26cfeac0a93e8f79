//! Hints: what other stores have missed, kept here until they are back.
//!
//! 1. A write that a replica missed becomes a record for it, in memory; never counted towards a quorum, and kept for
//!    writes that failed, too, so that whoever has them doesn't stay alone.
//! 2. A task appends records to segments of the store's folder (`segment`), and syncs them a little later: a crash
//!    costs the last second's, which repair brings in the end.
//! 3. When the store answers again, its segments are sent in order, and removed when all is taken (`replay`). What
//!    isn't its own any more goes to whoever owns it now.
//! 4. Hints are bounded in bytes, memory and disk together, and in age.

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
use tokio_util::sync::CancellationToken;
use tsdb::disk::{Disk, DiskFile};
use tsdb::{Error, Result, files};

use self::segment::Hint;
use crate::env::{Clock, Pool, on_disk};
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
    /// Milliseconds after which a hint is of no use: whoever was away for so long is repaired.
    pub age_ms_max: i64,
}

/// What other stores have missed.
pub struct Hints {
    disk: Arc<dyn Disk>,
    pool: Arc<dyn Pool>,
    clock: Arc<dyn Clock>,
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
    /// Records that wait for the disk.
    waiting: Vec<u8>,
    /// On disk, oldest first; only the last one grows.
    segments: VecDeque<Segment>,
    next_number: u32,
}

#[derive(Clone)]
struct Segment {
    number: u32,
    bytes: u64,
    /// The youngest of its records.
    newest_ms: i64,
    /// While it grows.
    file: Option<Arc<dyn DiskFile>>,
    is_synced: bool,
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
    pub fn open(
        disk: Arc<dyn Disk>,
        pool: Arc<dyn Pool>,
        clock: Arc<dyn Clock>,
        bounds: Bounds,
    ) -> Result<Self> {
        let mut state = State::default();
        for store in
            entries(&*disk, Path::new(files::HINTS_DIR))?.iter().filter_map(|name| files::parse_hints(name))
        {
            let dir = files::hints(store);
            let mut of_store = OfStore::default();
            for number in entries(&*disk, &dir)?.iter().filter_map(|name| files::parse_hint_segment(name)) {
                let path = files::hint_segment(&dir, number);
                let bytes = disk.size_bytes(&path).map_err(|e| Error::io("size", &path, e))?.unwrap_or(0);
                state.bytes += bytes;
                of_store.next_number = number + 1;
                let newest_ms = clock.now_ms();
                of_store.segments.push_back(Segment {
                    number,
                    bytes,
                    newest_ms,
                    file: None,
                    is_synced: true,
                });
            }
            state.stores.insert(StoreId(store), of_store);
        }
        Ok(Self {
            disk,
            pool,
            clock,
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
        let time_ms = self.clock.now_ms();
        for frame in frames {
            let mut record = Vec::new();
            let fits = segment::write(&Hint { time_ms, frame }, &mut record);
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
        let has_some = |of: &OfStore| !of.waiting.is_empty() || !of.segments.is_empty();
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
                if let Some(untold) = self.problems.due(&error.to_string()) {
                    tracing::error!(%error, untold, "hints can't be written");
                }
                tokio::time::sleep(SYNC_INTERVAL).await;
            }
            if is_last {
                return;
            }
            // What comes within a moment is written together.
            tokio::time::sleep(SYNC_INTERVAL / 20).await;
        }
    }

    /// Appends what waits to each store's last segment, and syncs what was written before.
    fn write_waiting(&self, sync_all: bool) -> Result<()> {
        let _writing = self.writing.lock();
        let stores: Vec<_> = self.state.lock().stores.keys().copied().collect();
        for store in stores {
            self.sync(store, sync_all)?;
            self.append(store)?;
            if sync_all {
                self.sync(store, true)?;
            }
        }
        Ok(())
    }

    fn append(&self, store: StoreId) -> Result<()> {
        let (waiting, current) = {
            let mut state = self.state.lock();
            let of_store = state.stores.entry(store).or_default();
            let waiting = std::mem::take(&mut of_store.waiting);
            let grows = |segment: &&Segment| segment.file.is_some() && segment.bytes < SEGMENT_BYTES;
            let current = of_store.segments.back().filter(grows).cloned();
            state.waiting_bytes -= waiting.len();
            (waiting, current)
        };
        if waiting.is_empty() {
            return Ok(());
        }
        let written = match current {
            Some(segment) => self.grow(store, &segment, &waiting).map(|()| segment),
            None => {
                self.begin(store).and_then(|segment| self.grow(store, &segment, &waiting).map(|()| segment))
            }
        };
        let mut state = self.state.lock();
        let written = match written {
            Ok(segment) => segment,
            Err(error) => {
                // Repair brings what is lost here; the disk has trouble of its own.
                state.bytes -= waiting.len() as u64;
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        };
        let now_ms = self.clock.now_ms();
        let of_store = state.stores.entry(store).or_default();
        match of_store.segments.iter_mut().find(|segment| segment.number == written.number) {
            Some(segment) => {
                segment.bytes += waiting.len() as u64;
                (segment.newest_ms, segment.is_synced) = (now_ms, false);
            }
            None => {
                of_store.next_number = written.number + 1;
                let bytes = waiting.len() as u64;
                of_store.segments.push_back(Segment {
                    bytes,
                    newest_ms: now_ms,
                    is_synced: false,
                    ..written
                });
            }
        }
        Ok(())
    }

    fn begin(&self, store: StoreId) -> Result<Segment> {
        let number = self.state.lock().stores.entry(store).or_default().next_number;
        let dir = files::hints(store.0);
        let path = files::hint_segment(&dir, number);
        self.disk.create_dir(&dir).map_err(|e| Error::io("create", &dir, e))?;
        let file = self.disk.create(&path).map_err(|e| Error::io("create", &path, e))?;
        self.disk.sync_dir(&dir).map_err(|e| Error::io("sync", &dir, e))?;
        Ok(Segment { number, bytes: 0, newest_ms: 0, file: Some(file), is_synced: true })
    }

    fn grow(&self, store: StoreId, segment: &Segment, bytes: &[u8]) -> Result<()> {
        let file = segment.file.as_ref().expect("only a segment that grows is chosen");
        let written = file.write_at(segment.bytes, bytes);
        written
            .map_err(|e| Error::io("write", files::hint_segment(&files::hints(store.0), segment.number), e))
    }

    /// Syncs what isn't; a segment that has ended, or all, is closed.
    fn sync(&self, store: StoreId, close: bool) -> Result<()> {
        let open: Vec<_> = {
            let state = self.state.lock();
            let segments = state.stores.get(&store).map(|of| of.segments.iter().cloned());
            segments.into_iter().flatten().filter(|segment| segment.file.is_some()).collect()
        };
        for segment in open {
            let (number, file) = (segment.number, segment.file.expect("it was filtered by that"));
            if !segment.is_synced {
                let path = files::hint_segment(&files::hints(store.0), number);
                file.sync().map_err(|e| Error::io("sync", path, e))?;
            }
            let mut state = self.state.lock();
            let segments = state.stores.get_mut(&store).map(|of| of.segments.iter_mut());
            if let Some(known) = segments.into_iter().flatten().find(|known| known.number == number) {
                known.is_synced |= known.bytes == segment.bytes;
                if known.is_synced && (close || known.bytes >= SEGMENT_BYTES) {
                    known.file = None;
                }
            }
        }
        Ok(())
    }

    /// The oldest segment of a store, ended so that nothing is added to it any more; `None` when there is none.
    async fn oldest(self: &Arc<Self>, store: StoreId) -> Result<Option<Segment>> {
        let hints = self.clone();
        on_disk(&*self.pool, move || {
            let _writing = hints.writing.lock();
            hints.append(store)?;
            hints.sync(store, true)?;
            Ok(hints.state.lock().stores.get(&store).and_then(|of| of.segments.front().cloned()))
        })
        .await
    }

    /// What a segment holds, what is too old aside.
    async fn read(self: &Arc<Self>, store: StoreId, segment: &Segment) -> Result<Vec<Frame>> {
        let (disk, path) = (self.disk.clone(), files::hint_segment(&files::hints(store.0), segment.number));
        let bytes = on_disk(&*self.pool, {
            let path = path.clone();
            move || disk.read(&path).map_err(|e| Error::io("read", path, e))
        })
        .await?;
        let segment::Contents { mut hints, damaged } = segment::read(&bytes);
        if damaged > 0 {
            tracing::error!(path = %path.display(), damaged, "hints are damaged, and left out");
            self.counters.damaged.fetch_add(damaged as u64, Ordering::Relaxed);
        }
        let oldest_ms = self.clock.now_ms().saturating_sub(self.bounds.age_ms_max);
        let before = hints.len();
        hints.retain(|hint| hint.time_ms >= oldest_ms);
        self.counters.expired.fetch_add((before - hints.len()) as u64, Ordering::Relaxed);
        Ok(hints.into_iter().map(|hint| hint.frame).collect())
    }

    /// Removes a store's oldest segment: all of it is taken, or of no use any more.
    async fn remove(self: &Arc<Self>, store: StoreId, number: u32) -> Result<()> {
        let hints = self.clone();
        on_disk(&*self.pool, move || {
            let path = files::hint_segment(&files::hints(store.0), number);
            hints.disk.remove_file(&path).map_err(|e| Error::io("remove", path, e))?;
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
    async fn expire(self: &Arc<Self>) -> Result<()> {
        let oldest_ms = self.clock.now_ms().saturating_sub(self.bounds.age_ms_max);
        let old: Vec<_> = {
            let state = self.state.lock();
            let is_old = |segment: &&Segment| segment.file.is_none() && segment.newest_ms < oldest_ms;
            let of_store = |(store, of): (&StoreId, &OfStore)| {
                of.segments.iter().filter(is_old).map(|segment| (*store, segment.number)).collect::<Vec<_>>()
            };
            state.stores.iter().flat_map(of_store).collect()
        };
        for (store, number) in old {
            tracing::warn!(%store, number, "hints are too old to be of use: repair has to bring what the store lacks");
            self.counters.expired.fetch_add(1, Ordering::Relaxed);
            self.remove(store, number).await?;
        }
        Ok(())
    }
}

/// Names in a folder; none where there is no folder.
fn entries(disk: &dyn Disk, dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    match disk.list(dir) {
        Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io("list", dir, e)),
    }
}

#[cfg(test)]
mod tests;
