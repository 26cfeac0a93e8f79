//! The object store that all machines share: in memory, as far away as a real one, and as unreliable.
//!
//! Each request takes some milliseconds. While the store is *away* every request fails after a while; while it is
//! *moody* some fail before they did anything, and some writes fail after they did everything (an ambiguous time-out).
//! Documents of the ring are watched on their way in: their epochs only grow (I7).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::stream::{BoxStream, StreamExt as _};
use node::bucket::keys;
use node::cluster::document_key;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use ring::epoch::{MemberInfo, MemberState};
use ring::{Document, StoreId};

use crate::exercise::{Exercise, Tally};
use crate::trace::Trace;

/// How long a request takes, in milliseconds.
const LATENCY_MS: std::ops::Range<u64> = 5..60;
/// After how long a request fails while the store is away.
const AWAY_AFTER: Duration = Duration::from_secs(2);
/// How many requests fail while the store is moody.
const MOODY: f64 = 0.2;

/// How the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// It answers.
    #[default]
    Good,
    /// Some requests fail.
    Moody,
    /// All requests fail.
    Away,
}

/// The store, and how it is.
#[derive(Clone)]
pub struct Store(Arc<State>);

struct State {
    objects: InMemory,
    mood: Mutex<Mood>,
    rng: Mutex<StdRng>,
    trace: Arc<Trace>,
    tally: Tally,
    ring: Mutex<Ring>,
}

/// What the store in memory answers at once.
fn now<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().expect("a store in memory waits for nothing")
}

/// What became of the ring's document.
#[derive(Default)]
struct Ring {
    /// As it stands in the bucket.
    document: Option<Document>,
    /// All that nodes have put there, oldest first.
    history: Vec<Document>,
    /// What no node should have put there.
    wrong: Vec<(Exercise, String)>,
}

impl Store {
    /// An empty one; all its randomness comes from `seed`.
    pub fn new(seed: u64, trace: Arc<Trace>, tally: Tally) -> Self {
        Self(Arc::new(State {
            objects: InMemory::new(),
            mood: Mutex::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            trace,
            tally,
            ring: Mutex::default(),
        }))
    }

    /// Changes how it is.
    pub fn set_mood(&self, mood: Mood) {
        *self.0.mood.lock() = mood;
    }

    /// The store as `host` sees it; `ships` is called when it begins to upload a file of a block.
    pub fn of(&self, host: &str, ships: impl Fn() + Send + Sync + 'static) -> Arc<dyn ObjectStore> {
        Arc::new(Seen { store: self.clone(), host: host.to_owned(), ships: Arc::new(ships) })
    }

    /// The ring's document is lost; whether there was one.
    pub fn lose_ring(&self) -> bool {
        let mut ring = self.0.ring.lock();
        if ring.document.take().is_none() {
            return false;
        }
        now(self.0.objects.delete(&document_key())).is_ok()
    }

    /// The ring's document is put back to what it was so many changes ago; whether it was another.
    pub fn put_ring_back(&self, changes: usize) -> bool {
        let mut ring = self.0.ring.lock();
        let Some(at) = ring.history.len().checked_sub(changes + 1) else { return false };
        let old = ring.history[at].clone();
        ring.document = Some(old.clone());
        changes > 0 && now(self.0.objects.put(&document_key(), old.encode().into())).is_ok()
    }

    /// Whether the ring's document is the newest that any node has put there.
    pub fn has_newest_ring(&self) -> bool {
        let ring = self.0.ring.lock();
        ring.document.as_ref() == ring.history.last()
    }

    /// The epoch of the newest document that any node has put there.
    pub fn epoch(&self) -> u64 {
        self.0.ring.lock().history.last().map_or(0, |newest| newest.epoch)
    }

    /// All objects: their keys and sizes in bytes.
    pub fn list(&self) -> BTreeMap<Path, u64> {
        let listed: Vec<_> = now(self.0.objects.list(None).collect::<Vec<_>>());
        listed.into_iter().filter_map(Result::ok).map(|object| (object.location, object.size)).collect()
    }

    /// What an object holds.
    pub fn get(&self, key: &Path) -> Option<Bytes> {
        let found = now(self.0.objects.get(key)).ok()?;
        now(found.bytes()).ok()
    }

    /// Whether the loss of a store is within what the ring promises: no placement is open that has fewer than
    /// `copies` of everything, as the one that a founder was alone in.
    pub fn bears_a_loss(&self, copies: u32) -> bool {
        let ring = self.0.ring.lock();
        ring.document.as_ref().is_some_and(|document| document.placements.iter().all(|one| one.rf >= copies))
    }

    /// What nodes put into the ring's place, and shouldn't have.
    pub fn wrong_documents(&self) -> Vec<(Exercise, String)> {
        self.0.ring.lock().wrong.clone()
    }
}

impl State {
    fn watch(&self, key: &Path, bytes: &[u8]) {
        if *key != document_key() {
            return;
        }
        let mut ring = self.ring.lock();
        let last = ring.history.last().cloned();
        let document = match Document::decode(bytes) {
            Ok(document) => document,
            Err(error) => return ring.wrong.push((Exercise::EpochsInBucket, format!("the ring: {error}"))),
        };
        if let Some(at) = ring.history.iter().position(|known| *known == document) {
            // Put back. One that nobody has adopted may be gone for good: what comes next follows the one that is there.
            ring.history.truncate(at + 1);
            ring.document = Some(document);
            return;
        }
        let (epoch, before) = (document.epoch, last.as_ref().map_or(0, |last| last.epoch));
        self.tally.count(Exercise::EpochsInBucket);
        if epoch != before + 1 {
            ring.wrong
                .push((Exercise::EpochsInBucket, format!("the bucket took epoch {epoch} after {before}")));
        }
        if let Some(last) = last
            && let Some(under_way) = &last.transition
        {
            self.tally.count(Exercise::OneTransition);
            // A lost quorum is written off amid a transition too: that one can't end otherwise.
            let is_written_off = accepted(&document).ne(accepted(&last));
            if document.transition.as_ref().is_some_and(|next| next != under_way) && !is_written_off {
                let text = format!("epoch {epoch} begins a transition while another is under way");
                ring.wrong.push((Exercise::OneTransition, text));
            }
        }
        ring.document = Some(document.clone());
        ring.history.push(document);
    }
}

/// Stores whose loss was accepted.
fn accepted(document: &Document) -> impl Iterator<Item = &StoreId> {
    let accepted = |member: &MemberInfo| member.state == MemberState::LossAccepted;
    document.members.iter().filter(move |(_, member)| accepted(member)).map(|(store, _)| store)
}

/// The store as one host sees it.
#[derive(Clone)]
struct Seen {
    store: Store,
    host: String,
    ships: Arc<dyn Fn() + Send + Sync>,
}

impl Seen {
    /// The way to the store and, if it fails there, back.
    async fn way(&self, what: &str, key: &str) -> Result<()> {
        if what.starts_with("put") && !keys::is_own(&Path::from(key)) {
            (self.ships)();
        }
        let state = &self.store.0;
        let (latency_ms, unlucky) = {
            let mut rng = state.rng.lock();
            (rng.random_range(LATENCY_MS), rng.random_bool(MOODY))
        };
        tokio::time::sleep(Duration::from_millis(latency_ms)).await;
        let mood = *state.mood.lock();
        state.trace.network(&self.host, what, key.as_bytes());
        match mood {
            Mood::Good => Ok(()),
            Mood::Moody if !unlucky => Ok(()),
            Mood::Moody => {
                state.tally.count(Exercise::BucketFails);
                Err(failure("503 SlowDown"))
            }
            Mood::Away => {
                state.tally.count(Exercise::BucketAway);
                tokio::time::sleep(AWAY_AFTER).await;
                Err(failure("can't connect"))
            }
        }
    }

    /// The way back from a write that happened.
    async fn way_back(&self) -> Result<()> {
        let state = &self.store.0;
        let unlucky = state.rng.lock().random_bool(MOODY);
        if *state.mood.lock() == Mood::Moody && unlucky {
            state.tally.count(Exercise::BucketLies);
            tokio::time::sleep(AWAY_AFTER).await;
            return Err(failure("timed out"));
        }
        Ok(())
    }
}

fn failure(text: &'static str) -> object_store::Error {
    object_store::Error::Generic { store: "simulated", source: text.into() }
}

#[async_trait]
impl ObjectStore for Seen {
    async fn put_opts(&self, key: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.way("put", key.as_ref()).await?;
        let state = &self.store.0;
        let content: Vec<u8> = bytes.iter().flat_map(|part| part.iter().copied()).collect();
        let put = state.objects.put_opts(key, bytes, options).await?;
        state.watch(key, &content);
        self.way_back().await?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.way("put in parts", key.as_ref()).await?;
        self.store.0.objects.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.way("get", key.as_ref()).await?;
        self.store.0.objects.get_opts(key, options).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let seen = self.clone();
        let deleted = keys.then(move |key| {
            let seen = seen.clone();
            async move {
                let key = key?;
                seen.way("delete", key.as_ref()).await?;
                let one = futures_util::stream::once(async { Ok(key) }).boxed();
                seen.store.0.objects.delete_stream(one).next().await.expect("one answer a key")
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (seen, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            match seen.way("list", prefix.as_ref().map_or("", Path::as_ref)).await {
                Ok(()) => seen.store.0.objects.list(prefix.as_ref()),
                Err(error) => futures_util::stream::once(async { Err(error) }).boxed(),
            }
        };
        futures_util::stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.way("list", prefix.map_or("", Path::as_ref)).await?;
        self.store.0.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.way("copy", from.as_ref()).await?;
        self.store.0.objects.copy_opts(from, to, options).await
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seen")
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated store")
    }
}
