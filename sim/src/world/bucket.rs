//! The object store that all machines share: in memory, as far away as a real one, and as unreliable.
//!
//! Each request takes some milliseconds. While the store is *away* every request fails after a while; while it is
//! *moody* some fail before they did anything, and some writes fail after they did everything (an ambiguous time-out).
//! Documents of the ring are watched on their way in: their epochs only grow (I7).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::trace::Trace;

/// How long a request takes, in milliseconds.
const LATENCY_MS: std::ops::Range<u64> = 5..60;
/// After how long a request fails while the store is away.
const AWAY_AFTER: Duration = Duration::from_secs(2);
/// How many requests fail while the store is moody.
const MOODY: f64 = 0.2;
/// The document of the ring.
const RING_KEY: &str = "cluster/ring";

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
    epochs: Mutex<Epochs>,
}

#[derive(Default)]
struct Epochs {
    last: u64,
    /// The last document.
    document: serde_json::Value,
    /// Documents that came after one of the same or a higher epoch.
    wrong: Vec<String>,
}

impl Store {
    /// An empty one; all its randomness comes from `seed`.
    pub fn new(seed: u64, trace: Arc<Trace>) -> Self {
        Self(Arc::new(State {
            objects: InMemory::new(),
            mood: Mutex::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            trace,
            epochs: Mutex::default(),
        }))
    }

    /// Changes how it is.
    pub fn set_mood(&self, mood: Mood) {
        *self.0.mood.lock() = mood;
    }

    /// The store as `host` sees it.
    pub fn of(&self, host: &str) -> Arc<dyn ObjectStore> {
        Arc::new(Seen { store: self.clone(), host: host.to_owned() })
    }

    /// Whether the loss of a store is within what the ring promises: no placement is open that has fewer than
    /// `copies` of everything, as the one that a founder was alone in.
    pub fn bears_a_loss(&self, copies: u64) -> bool {
        let epochs = self.0.epochs.lock();
        let placements = epochs.document["placements"].as_array();
        placements.is_some_and(|all| all.iter().all(|one| one["rf"].as_u64() >= Some(copies)))
    }

    /// What broke the order of epochs.
    pub fn wrong_epochs(&self) -> Vec<String> {
        self.0.epochs.lock().wrong.clone()
    }
}

impl State {
    fn watch(&self, key: &Path, bytes: &[u8]) {
        if !key.as_ref().ends_with(RING_KEY) {
            return;
        }
        let document: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        let epoch = document["epoch"].as_u64().unwrap_or(0);
        let mut epochs = self.epochs.lock();
        if epoch != epochs.last + 1 {
            let last = epochs.last;
            epochs.wrong.push(format!("the bucket took epoch {epoch} after {last}"));
        }
        epochs.last = epoch;
        epochs.document = document;
    }
}

/// The store as one host sees it.
#[derive(Clone)]
struct Seen {
    store: Store,
    host: String,
}

impl Seen {
    /// The way to the store and, if it fails there, back.
    async fn way(&self, what: &str, key: &str) -> Result<()> {
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
            Mood::Moody => Err(failure("503 SlowDown")),
            Mood::Away => {
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
