//! The bucket: object storage that all nodes of a cluster share, and a folder for a node of its own.
//!
//! 1. [`Location`] reads the URL, [`ObjectStores`] opens it (the seam for a simulator).
//! 2. [`Bucket`] is what everybody else uses: each call has a deadline, is tried a bounded number of times, and fails
//!    with what to do about it. [`mod@swap`] adds compare-and-swap, which the ring document, leases and catalogs
//!    rest on.
//! 3. [`catalog`] says which blocks a tenant has, [`ship`] brings local blocks there, [`remote`] reads them anywhere.
//!    [`foreign`] judges blocks that others made.
//!
//! While the bucket is away nothing here waits for long: callers get [`Error::Unreachable`] and go on with what they
//! know.

mod blocks;
pub mod catalog;
mod copy;
mod error;
mod folder;
pub mod foreign;
pub mod keys;
mod location;
mod parts;
pub mod remote;
pub mod ship;
pub mod swap;
#[cfg(test)]
pub(crate) mod tests;
mod thanos;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt as _, PutPayload};
use parking_lot::Mutex;
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_128;

pub use blocks::Blocks;
pub use copy::Copied;
pub use error::{Error, Result};
pub use location::{ByUrl, Handed, Location, ObjectStores, Opened};
pub use swap::{Swapped, Tag};

use crate::env::{Clock, Env, Pool, on_disk};
use crate::text::shortened;
use error::Failure;

/// Time for one try of a call on a small object, or of a listing's next page.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Time for one try of a call on a part of a large object ([`PART_BYTES`]).
const PART_DEADLINE: Duration = Duration::from_secs(60);
/// Tries of a call that failed in a way that may pass.
const ATTEMPTS: u32 = 3;
/// Pause before the second try; doubled for each further one.
const BACKOFF: Duration = Duration::from_millis(200);
/// Largest object that is read whole: a document, and never a block's file.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;
/// Most objects that one listing returns.
const LIST_MAX: usize = 1_000_000;
/// Large objects are read and written in parts of this size, so that memory stays bounded. S3 asks for 5 MiB or more.
pub const PART_BYTES: u64 = 8 << 20;

/// A bucket. Shared by whoever needs it.
pub struct Bucket {
    location: Location,
    store: Arc<dyn ObjectStore>,
    /// The folder's path, where it is one: there compare-and-swap is ours.
    folder: Option<PathBuf>,
    pool: Arc<dyn Pool>,
    clock: Arc<dyn Clock>,
    health: Mutex<Health>,
    /// Whether the store is known to honour conditions.
    is_proven: AtomicBool,
    /// Held by the one proof at a time.
    proving: tokio::sync::Mutex<()>,
    /// Names this process's self-test.
    nonce: u128,
    /// Swaps that were tried in a folder.
    swaps: AtomicU64,
}

/// How the bucket has been of late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// When a call last succeeded, in milliseconds since the Unix epoch.
    pub last_success_ms: Option<i64>,
    /// When a call last failed for want of an answer or of permission, and why.
    pub last_failure: Option<(i64, String)>,
    /// Calls that have failed since the last success.
    pub failures: u64,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key, relative to the bucket's prefix.
    pub key: Path,
    /// Its size in bytes.
    pub size_bytes: u64,
}

impl Bucket {
    /// Opens a bucket. Asks nothing of it yet: [`Bucket::self_test`] does.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the URL, or what the environment says of credentials, can't be used.
    pub fn open(url: &str, env: &Env) -> Result<Arc<Self>> {
        let location = Location::parse(url)?;
        let Opened { store, folder } = env.bucket.open(&location)?;
        let (pool, clock) = (env.pool.clone(), env.clock.clone());
        Ok(Arc::new(Self {
            location,
            store,
            folder,
            pool,
            clock,
            health: Mutex::default(),
            is_proven: AtomicBool::new(false),
            proving: tokio::sync::Mutex::default(),
            swaps: AtomicU64::new(0),
            nonce: xxh3_128(&[b"self-test", &env.seed.to_le_bytes()[..]].concat()),
        }))
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// How it has been of late.
    pub fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// A document and its tag; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Limit`] for what is too large to be a document; else what keeps the bucket from answering.
    pub async fn get(&self, key: &Path) -> Result<Option<(Bytes, Tag)>> {
        self.read(key).await.map_err(|(failure, attempts)| self.explain(failure, "read", key, attempts))
    }

    async fn read(&self, key: &Path) -> Result<Option<(Bytes, Tag)>, (Failure, u32)> {
        let read = || async { document(self.store.get_opts(key, GetOptions::default()).await?).await };
        match self.attempts(CALL_DEADLINE, read).await {
            Ok((bytes, e_tag, version)) => {
                let tag = self.tag(e_tag, version, &bytes);
                Ok(Some((bytes, tag)))
            }
            Err((failure, _)) if failure.is_not_found() => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Writes a small object, whatever was there.
    ///
    /// # Errors
    /// What keeps the bucket from taking it; the write may have happened all the same.
    pub async fn put(&self, key: &Path, bytes: Bytes) -> Result<()> {
        let put = || async { self.store.put(key, PutPayload::from_bytes(bytes.clone())).await };
        let done = self.attempts(CALL_DEADLINE, put).await;
        done.map(drop).map_err(|(failure, attempts)| self.explain(failure, "write", key, attempts))
    }

    /// Removes an object; one that isn't there is fine.
    ///
    /// # Errors
    /// What keeps the bucket from answering.
    pub async fn delete(&self, key: &Path) -> Result<()> {
        match self.attempts(CALL_DEADLINE, || async { self.store.delete(key).await }).await {
            Err((failure, attempts)) if !failure.is_not_found() => {
                Err(self.explain(failure, "delete", key, attempts))
            }
            _ => Ok(()),
        }
    }

    /// The objects in a folder and those below, by key.
    ///
    /// # Errors
    /// [`Error::Limit`] where there are more than a million; else what keeps the bucket from answering.
    pub async fn list(&self, dir: &Path) -> Result<Vec<Entry>> {
        let listed = self.attempts(PART_DEADLINE, || self.list_once(dir)).await;
        let mut entries =
            listed.map_err(|(failure, attempts)| self.explain(failure, "list", dir, attempts))?;
        if entries.len() > LIST_MAX {
            return Err(Error::Limit(format!("{dir} in the bucket holds more than {LIST_MAX} objects")));
        }
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    async fn list_once(&self, dir: &Path) -> object_store::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut stream = self.store.list(Some(dir));
        while let Some(object) = stream.next().await {
            let object = object?;
            entries.push(Entry { key: object.location, size_bytes: object.size });
            if entries.len() > LIST_MAX {
                break;
            }
        }
        Ok(entries)
    }

    /// Size of an object in bytes; `None` where there is none.
    ///
    /// # Errors
    /// What keeps the bucket from answering.
    pub async fn size_bytes(&self, key: &Path) -> Result<Option<u64>> {
        match self.attempts(CALL_DEADLINE, || async { self.store.head(key).await }).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err((failure, _)) if failure.is_not_found() => Ok(None),
            Err((failure, attempts)) => Err(self.explain(failure, "look at", key, attempts)),
        }
    }

    /// Bytes `start..end` of an object; `None` where there is none. Fewer than asked for are a failure, and never
    /// returned.
    ///
    /// # Errors
    /// What keeps the bucket from answering.
    pub async fn get_range(&self, key: &Path, range: std::ops::Range<u64>) -> Result<Option<Bytes>> {
        let wanted = range.end - range.start;
        let read = || async {
            let bytes = self.store.get_range(key, range.clone()).await?;
            // Stores cut a range that ends behind the object, and connections cut bodies.
            if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(short(bytes.len() as u64, wanted)) }
        };
        match self.attempts(PART_DEADLINE, read).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err((failure, _)) if failure.is_not_found() => Ok(None),
            Err((failure, attempts)) => Err(self.explain(failure, "read", key, attempts)),
        }
    }

    /// Gives a file of the local disk, at this path of the system, a second name in the bucket, durable on return;
    /// `false` where they can't share it: it has to be copied then.
    ///
    /// # Errors
    /// When the file isn't there, or the folder can't be written.
    pub async fn link(&self, file: &std::path::Path, key: &Path) -> Result<bool> {
        let Some(root) = self.folder.clone() else { return Ok(false) };
        let (from, to) = (file.to_owned(), key.clone());
        let linked = on_disk(&*self.pool, move || folder::link(&from, &root, &to)).await;
        linked.map_err(|e| tsdb::Error::io("link into the bucket", file, e).into())
    }

    /// Tries a call until it succeeds, fails for good, or has failed often enough; with the number of tries.
    async fn attempts<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        deadline: Duration,
        call: impl Fn() -> F,
    ) -> Result<T, (Failure, u32)> {
        let mut pause = BACKOFF;
        for attempt in 1.. {
            let failure = match timeout(deadline, call()).await {
                Ok(Ok(value)) => {
                    self.note_success();
                    return Ok(value);
                }
                Ok(Err(error)) => Failure::Store(error),
                Err(_) => Failure::TimedOut,
            };
            if !failure.is_transient() {
                if failure.is_answer() {
                    self.note_success();
                }
                return Err((failure, attempt));
            }
            if attempt == ATTEMPTS {
                return Err((failure, attempt));
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    fn note_success(&self) {
        let mut health = self.health.lock();
        health.last_success_ms = Some(self.clock.now_ms());
        health.failures = 0;
    }

    fn explain(&self, failure: Failure, what: &str, key: &Path, attempts: u32) -> Error {
        let advice = self.location.credentials_advice();
        let error = failure.explain(&self.location.to_string(), advice, what, key, attempts);
        let mut health = self.health.lock();
        health.last_failure = Some((self.clock.now_ms(), shortened(error.to_string())));
        health.failures += 1;
        error
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.location)
    }
}

/// The bytes of a document with the store's marks, as long as it says it is.
async fn document(found: GetResult) -> object_store::Result<(Bytes, Option<String>, Option<String>)> {
    let meta = found.meta.clone();
    if meta.size > DOCUMENT_BYTES_MAX {
        let source = format!("{} bytes are too many for a document", meta.size).into();
        return Err(object_store::Error::NotSupported { source });
    }
    let bytes = found.bytes().await?;
    if bytes.len() as u64 != meta.size {
        return Err(short(bytes.len() as u64, meta.size));
    }
    Ok((bytes, meta.e_tag, meta.version))
}

fn short(got: u64, wanted: u64) -> object_store::Error {
    let source = format!("the answer ended after {got} of {wanted} bytes").into();
    object_store::Error::Generic { store: "bucket", source }
}

/// The checksum of everything that is ours in the bucket: CRC32C, over bytes that come in pieces.
struct Checksum(crc_fast::Digest);

impl Checksum {
    fn new() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u32 {
        u32::try_from(self.0.finalize()).expect("the sum has 32 bits")
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = Checksum::new();
    sum.update(bytes);
    sum.finish()
}
