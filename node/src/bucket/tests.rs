//! The bucket under the faults of an object store; what every real store must do is in `tests/tests/nodes/bucket`.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, ListResult, MultipartUpload, ObjectMeta, PutMode, PutMultipartOptions, PutOptions, PutResult,
};
use tsdb::disk::MemoryDisk;

use super::*;
use crate::env::{DiskLedger, Inline, ManualClock, OsProcess, TcpNet};

/// What goes wrong at one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// 5xx before anything happened.
    Before,
    /// It happened, and the answer was lost.
    After,
    /// No answer for ever.
    Hangs,
    /// The body ends early.
    Truncated,
    /// A bit of the body differs.
    Flipped,
    /// 404 though it is there.
    Absent,
    /// 403.
    Denied,
    /// The bucket isn't there.
    NoBucket,
    /// It is kept for later, and no answer comes.
    LandsLate,
}

/// A store in memory to which faults happen, call by call.
pub(crate) struct Faulty {
    pub(crate) inner: InMemory,
    pub(super) writes: Mutex<VecDeque<Fault>>,
    pub(super) reads: Mutex<VecDeque<Fault>>,
    late: Mutex<Vec<(Path, PutPayload, PutOptions)>>,
    /// Whether conditions are taken for none.
    careless: bool,
}

impl Faulty {
    pub(crate) fn new() -> Self {
        let (writes, reads, late) = Default::default();
        Self { inner: InMemory::new(), writes, reads, late, careless: false }
    }

    pub(crate) fn careless() -> Self {
        Self { careless: true, ..Self::new() }
    }

    pub(crate) fn on_writes(&self, faults: &[Fault]) {
        self.writes.lock().extend(faults);
    }

    pub(crate) fn on_reads(&self, faults: &[Fault]) {
        self.reads.lock().extend(faults);
    }

    /// Lets everything go well from now on.
    pub(crate) fn forget(&self) {
        self.writes.lock().clear();
        self.reads.lock().clear();
    }

    /// Lets the writes land that were on their way.
    pub(super) async fn land(&self) -> Vec<bool> {
        let late = std::mem::take(&mut *self.late.lock());
        let mut landed = Vec::new();
        for (key, bytes, options) in late {
            landed.push(self.inner.put_opts(&key, bytes, options).await.is_ok());
        }
        landed
    }
}

fn broken(text: &'static str) -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: text.into() }
}

async fn fails<T>(fault: Fault, key: &Path) -> Option<object_store::Result<T>> {
    let (path, source) = (key.to_string(), || "no".into());
    Some(Err(match fault {
        Fault::Before => broken("503 SlowDown"),
        Fault::Hangs | Fault::LandsLate => std::future::pending().await,
        Fault::Denied => object_store::Error::PermissionDenied { path, source: source() },
        Fault::Absent => object_store::Error::NotFound { path, source: source() },
        Fault::NoBucket => object_store::Error::NotFound { path, source: "<Code>NoSuchBucket</Code>".into() },
        Fault::None | Fault::After | Fault::Truncated | Fault::Flipped => return None,
    }))
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        key: &Path,
        bytes: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let fault = self.writes.lock().pop_front().unwrap_or(Fault::None);
        if fault == Fault::LandsLate {
            self.late.lock().push((key.clone(), bytes.clone(), options.clone()));
        }
        if let Some(failed) = fails(fault, key).await {
            return failed;
        }
        let options = if self.careless { PutMode::Overwrite.into() } else { options };
        let put = self.inner.put_opts(key, bytes, options).await?;
        if fault == Fault::After { Err(broken("connection reset")) } else { Ok(put) }
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let fault = self.writes.lock().pop_front().unwrap_or(Fault::None);
        match fails(fault, key).await {
            Some(failed) => failed,
            None => self.inner.put_multipart_opts(key, options).await,
        }
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let fault = self.reads.lock().pop_front().unwrap_or(Fault::None);
        if let Some(failed) = fails(fault, key).await {
            return failed;
        }
        let mut found = self.inner.get_opts(key, options).await?;
        if matches!(fault, Fault::Truncated | Fault::Flipped) {
            let (meta, range, attributes) =
                (found.meta.clone(), found.range.clone(), found.attributes.clone());
            let mut bytes = found.bytes().await?.to_vec();
            match fault {
                Fault::Truncated => bytes.truncate(bytes.len() / 2),
                _ => bytes.iter_mut().last().into_iter().for_each(|byte| *byte ^= 1),
            }
            let body = futures_util::stream::once(async move { Ok(Bytes::from(bytes)) }).boxed();
            let payload = object_store::GetResultPayload::Stream(body);
            found = GetResult { payload, meta, range, attributes, extensions: Default::default() };
        }
        Ok(found)
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(key, ranges).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, dir: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(dir)
    }

    async fn list_with_delimiter(&self, dir: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(dir).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

/// A world in memory around a store.
pub(crate) fn env(store: Arc<dyn ObjectStore>) -> Env {
    let disk: Arc<MemoryDisk> = Arc::new(MemoryDisk::new());
    Env {
        clock: Arc::new(ManualClock::new(0)),
        ledger: Arc::new(DiskLedger::open(disk.clone()).unwrap()),
        disk,
        lock: None,
        net: Arc::new(TcpNet),
        bucket: Arc::new(Handed(store)),
        pool: Arc::new(Inline),
        process: Arc::new(OsProcess::new()),
        seed: 1,
    }
}

pub(super) fn faulty() -> (Arc<Faulty>, Arc<Bucket>) {
    let store = Arc::new(Faulty::new());
    let bucket = Bucket::open("memory:", &env(store.clone())).unwrap();
    // Tests count calls.
    bucket.is_proven.store(true, std::sync::atomic::Ordering::Release);
    (store, bucket)
}

fn key() -> Path {
    keys::own(["document"])
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn created(bucket: &Bucket) -> Tag {
    match bucket.put_if_absent(&key(), &bytes("one")).await.unwrap() {
        Swapped::Won(tag) => tag,
        Swapped::Lost => panic!("nothing was there"),
    }
}

#[tokio::test(start_paused = true)]
async fn failures_that_pass_are_survived() {
    let (store, bucket) = faulty();
    store.on_writes(&[Fault::Before, Fault::Hangs]);
    bucket.put(&key(), bytes("one")).await.unwrap();
    store.on_reads(&[Fault::Truncated, Fault::Before]);
    assert_eq!(bucket.get(&key()).await.unwrap().unwrap().0, bytes("one"));
    store.on_reads(&[Fault::Truncated]);
    assert_eq!(bucket.get_range(&key(), 0..3).await.unwrap().unwrap(), bytes("one"));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_in_bounded_time() {
    let (store, bucket) = faulty();
    store.on_reads(&[Fault::Hangs; 9]);
    let began = tokio::time::Instant::now();
    let error = bucket.get(&key()).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { attempts: ATTEMPTS, .. }), "{error}");
    assert!(error.is_transient() && began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    let health = bucket.health();
    assert_eq!((health.failures, health.last_success_ms), (1, None));
    assert!(health.last_failure.unwrap().1.contains("no answer in time"));
}

#[tokio::test(start_paused = true)]
async fn errors_say_what_to_do() {
    let (store, bucket) = faulty();
    store.on_reads(&[Fault::Denied, Fault::NoBucket]);
    let denied = bucket.get(&key()).await.unwrap_err();
    assert!(matches!(denied, Error::Denied { .. }) && !denied.is_transient(), "{denied}");
    let missing = bucket.get(&key()).await.unwrap_err();
    assert!(
        matches!(missing, Error::Missing { .. }) && missing.to_string().contains("create it"),
        "{missing}"
    );
    assert_eq!(bucket.get(&key()).await.unwrap(), None, "an absent object is no error");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_has_won() {
    let (store, bucket) = faulty();
    store.on_writes(&[Fault::After]);
    let tag = created(&bucket).await;
    store.on_writes(&[Fault::After]);
    let won = bucket.swap(&key(), &tag, &bytes("two")).await.unwrap();
    let (found, tag) = bucket.get(&key()).await.unwrap().unwrap();
    assert_eq!((won, found), (Swapped::Won(tag), bytes("two")));
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answers_were_all_lost_is_read_back() {
    let (store, bucket) = faulty();
    let tag = created(&bucket).await;
    store.on_writes(&[Fault::After, Fault::Hangs, Fault::Before]);
    assert!(matches!(bucket.swap(&key(), &tag, &bytes("two")).await.unwrap(), Swapped::Won(_)));
}

#[tokio::test(start_paused = true)]
async fn a_late_write_that_lost_changes_nothing() {
    let (store, bucket) = faulty();
    let tag = created(&bucket).await;
    store.on_writes(&[Fault::LandsLate, Fault::Before, Fault::Before]);
    let unknown = bucket.swap(&key(), &tag, &bytes("two")).await;
    assert!(matches!(unknown, Err(Error::Unreachable { .. })));
    assert!(matches!(bucket.swap(&key(), &tag, &bytes("three")).await.unwrap(), Swapped::Won(_)));
    assert_eq!(store.land().await, [false]);
    assert_eq!(bucket.get(&key()).await.unwrap().unwrap().0, bytes("three"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ignores_conditions_is_refused() {
    let store = Arc::new(Faulty::careless());
    let bucket = Bucket::open("memory:", &env(store)).unwrap();
    let error = bucket.self_test(7).await.unwrap_err();
    assert!(matches!(error, Error::NoConditions { .. }), "{error}");
    let (store, bucket) = faulty();
    bucket.self_test(7).await.unwrap();
    assert!(bucket.list(&keys::own([])).await.unwrap().is_empty(), "the self-test leaves nothing behind");
    store.on_writes(&[Fault::Before; 3]);
    assert!(matches!(bucket.self_test(8).await, Err(Error::Unreachable { .. })));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_on_conditions_that_are_ignored() {
    let store = Arc::new(Faulty::careless());
    let bucket = Bucket::open("memory:", &env(store.clone())).unwrap();
    bucket.put(&key(), bytes("one")).await.unwrap();
    let (_, tag) = bucket.get(&key()).await.unwrap().unwrap();
    for _ in 0..2 {
        let error = bucket.swap(&key(), &tag, &bytes("two")).await.unwrap_err();
        assert!(matches!(error, Error::NoConditions { .. }), "{error}");
        assert!(bucket.put_if_absent(&keys::own(["new"]), &bytes("two")).await.is_err());
    }
    assert_eq!(bucket.get(&key()).await.unwrap().unwrap().0, bytes("one"));
    assert_eq!(bucket.list(&keys::own([])).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_was_away_is_proven_when_it_is_back() {
    let store = Arc::new(Faulty::new());
    let bucket = Bucket::open("memory:", &env(store.clone())).unwrap();
    store.on_writes(&[Fault::Before; 9]);
    let away = bucket.put_if_absent(&key(), &bytes("one")).await.unwrap_err();
    assert!(away.is_transient(), "{away}");
    store.forget();
    created(&bucket).await;
    // Once is enough: this would be a write too many.
    store.on_writes(&[Fault::None, Fault::Denied]);
    let (_, tag) = bucket.get(&key()).await.unwrap().unwrap();
    assert!(matches!(bucket.swap(&key(), &tag, &bytes("two")).await, Ok(Swapped::Won(_))));
}

/// A caller that stops waiting for a swap must not leave a writer behind that no lock holds back.
#[tokio::test]
async fn of_many_that_swap_in_a_folder_each_sees_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("bucket");
    let production = |n: u8| Env::production(&dir.path().join(n.to_string()), 1).unwrap();
    let open = |n| Bucket::open(folder.to_str().unwrap(), &production(n)).unwrap();
    let first = open(0);
    first.put(&key(), bytes("0")).await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..4 {
        let bucket = open(n + 1);
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            while done < 10 {
                let (now, tag) = bucket.get(&key()).await.unwrap().unwrap();
                let next = 1 + std::str::from_utf8(&now).unwrap().parse::<u32>().unwrap();
                let next = Bytes::from(next.to_string());
                done += u32::from(matches!(bucket.swap(&key(), &tag, &next).await.unwrap(), Swapped::Won(_)));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    // Equal bytes of two writers would both have won; each number was written once, so none was lost.
    assert_eq!(first.get(&key()).await.unwrap().unwrap().0, bytes("40"));
    let listed = first.list(&Path::default()).await.unwrap();
    assert_eq!(listed.len(), 1, "the lock isn't an object: {listed:?}");
}

/// A process that is paused keeps its lock for as long as it is.
#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "the test plays another process")]
async fn a_lock_that_is_never_given_back_holds_up_a_swap_for_a_lease_only() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("bucket");
    let env = Env::production(&dir.path().join("node"), 1).unwrap();
    let bucket = Bucket::open(folder.to_str().unwrap(), &env).unwrap();
    bucket.prove().await.unwrap();
    bucket.put(&key(), bytes("0")).await.unwrap();
    let lock = std::fs::File::open(folder.join("lock#0")).unwrap();
    lock.try_lock().unwrap();
    for (from, to) in [("0", "1"), ("1", "2")] {
        let (now, tag) = bucket.get(&key()).await.unwrap().unwrap();
        assert_eq!(now, bytes(from));
        assert!(matches!(bucket.swap(&key(), &tag, &bytes(to)).await, Ok(Swapped::Won(_))));
    }
    drop(lock);
    let listed = bucket.list(&Path::default()).await.unwrap();
    assert_eq!(listed.len(), 1, "nothing is left behind: {listed:?}");
}
