//! Where the ring document lies: in the bucket, where it changes by compare-and-swap, and in this store's ledger.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use ring::{ClusterId, Document, Epoch};

use super::mark::Mark;
use super::rollback::Age;
use crate::bucket::{self, Bucket, Swapped, Tag, keys};
use crate::env::{Ledger, Pool, on_disk};

/// The fact of the ledger that holds the last document that this store adopted.
pub const LEDGER_DOCUMENT: &str = "ring/document";
/// How far each store had come that this one has seen: `ring/age/STORE`, its highest incarnation and watermark as
/// big-endian u64s.
const LEDGER_AGE: &str = "ring/age/";
/// Ids of the placements for which this store doesn't count: big-endian u64s.
const LEDGER_DISCLAIMED: &str = "ring/disclaimed";
/// The cluster that this store is about to found, as text; there until it has adopted its first document.
const LEDGER_FOUNDING: &str = "ring/founding";
/// The bucket in which this store found its cluster last, as configured.
const LEDGER_BUCKET: &str = "ring/bucket";

/// The document's two places.
pub(super) struct Documents {
    pub(super) bucket: Arc<Bucket>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) pool: Arc<dyn Pool>,
}

/// What stands in the ring document's place in the bucket.
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// The document.
    Document(Document, Tag),
    /// The bucket is on its way, or has gone.
    Mark(Mark, Tag),
}

impl Documents {
    /// The cluster that the bucket belongs to.
    pub(super) async fn cluster(&self) -> bucket::Result<Option<ClusterId>> {
        let Some((bytes, _)) = self.bucket.get(&cluster_key()).await? else { return Ok(None) };
        let id = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
        id.map(Some).ok_or_else(|| damaged(&cluster_key()))
    }

    /// Makes the bucket one cluster's for good: `fresh`'s, unless another was quicker.
    pub(super) async fn found_cluster(&self, fresh: ClusterId) -> bucket::Result<ClusterId> {
        let bytes = Bytes::from(format!("{fresh}\n"));
        match self.bucket.put_if_absent(&cluster_key(), &bytes).await? {
            Swapped::Won(_) => Ok(fresh),
            Swapped::Lost => self.cluster().await?.ok_or_else(|| damaged(&cluster_key())),
        }
    }

    /// The document in the bucket.
    ///
    /// # Errors
    /// [`bucket::Error::Moved`] and [`bucket::Error::Filling`] where this bucket isn't the cluster's any more, or yet.
    pub(super) async fn current(&self) -> bucket::Result<Option<(Document, Tag)>> {
        let bucket = || self.bucket.location().to_string();
        match self.read().await? {
            Found::Nothing => Ok(None),
            Found::Document(document, tag) => Ok(Some((document, tag))),
            Found::Mark(Mark::Moved { to, .. }, _) => Err(bucket::Error::Moved { bucket: bucket(), to }),
            Found::Mark(Mark::Filling { from, .. }, _) => {
                Err(bucket::Error::Filling { bucket: bucket(), from })
            }
        }
    }

    /// What stands in the document's place.
    pub(super) async fn read(&self) -> bucket::Result<Found> {
        let Some((bytes, tag)) = self.bucket.get(&document_key()).await? else { return Ok(Found::Nothing) };
        if let Some(mark) = Mark::decode(&bytes) {
            return Ok(Found::Mark(mark, tag));
        }
        let document = Document::decode(&bytes)
            .map_err(|e| bucket::Error::Corrupt { key: document_key().to_string(), reason: e.to_string() })?;
        Ok(Found::Document(document, tag))
    }

    /// Puts a mark in the place of what was read with `tag`, or of nothing; whether nobody else was quicker.
    pub(super) async fn mark(&self, tag: Option<&Tag>, mark: &Mark) -> bucket::Result<bool> {
        let (key, bytes) = (document_key(), mark.encode().into());
        let written = match tag {
            Some(tag) => self.bucket.swap(&key, tag, &bytes).await?,
            None => self.bucket.put_if_absent(&key, &bytes).await?,
        };
        Ok(matches!(written, Swapped::Won(_)))
    }

    /// Puts a cluster's first document there; whether nobody else was quicker.
    pub(super) async fn begin(&self, document: &Document) -> bucket::Result<bool> {
        let written = self.bucket.put_if_absent(&document_key(), &document.encode().into()).await?;
        Ok(matches!(written, Swapped::Won(_)))
    }

    /// Puts a document in the place of bytes that are none; whether they stood there and nobody else was quicker.
    pub(super) async fn mend(&self, document: &Document) -> bucket::Result<bool> {
        match self.bucket.get(&document_key()).await? {
            Some((bytes, tag)) if Mark::decode(&bytes).is_none() && Document::decode(&bytes).is_err() => {
                self.swap(&tag, document).await
            }
            _ => Ok(false),
        }
    }

    /// Puts a changed document in the place of the one that was read with `tag`; whether nobody else was quicker.
    pub(super) async fn swap(&self, tag: &Tag, document: &Document) -> bucket::Result<bool> {
        let written = self.bucket.swap(&document_key(), tag, &document.encode().into()).await?;
        Ok(matches!(written, Swapped::Won(_)))
    }

    /// The document that this store adopted last.
    pub(super) async fn adopted(&self) -> tsdb::Result<Option<Document>> {
        let ledger = self.ledger.clone();
        on_disk(&*self.pool, move || {
            let Some(bytes) = ledger.get(LEDGER_DOCUMENT)? else { return Ok(None) };
            let corrupt = |e| tsdb::Error::corrupt("ring document in the ledger", 0, format!("{e}"));
            Document::decode(&bytes).map(Some).map_err(corrupt)
        })
        .await
    }

    /// Remembers that this store adopts a document; durable on return.
    pub(super) async fn adopt(&self, document: &Document) -> tsdb::Result<()> {
        let (ledger, bytes) = (self.ledger.clone(), document.encode());
        on_disk(&*self.pool, move || ledger.put(LEDGER_DOCUMENT, &bytes)).await
    }

    /// The cluster that this store is about to found.
    pub(super) async fn founding(&self) -> tsdb::Result<Option<ClusterId>> {
        let ledger = self.ledger.clone();
        let bytes = on_disk(&*self.pool, move || ledger.get(LEDGER_FOUNDING)).await?;
        Ok(bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok()))
    }

    /// Remembers that this store is about to found a cluster; durable on return.
    pub(super) async fn will_found(&self, cluster: ClusterId) -> tsdb::Result<()> {
        let ledger = self.ledger.clone();
        on_disk(&*self.pool, move || ledger.put(LEDGER_FOUNDING, cluster.to_string().as_bytes())).await
    }

    /// Remembers in which bucket this store's cluster is, and that it founds none any more; durable on return.
    pub(super) async fn belongs_in(&self, bucket_url: String) -> tsdb::Result<()> {
        let ledger = self.ledger.clone();
        on_disk(&*self.pool, move || {
            ledger.put(LEDGER_BUCKET, bucket_url.as_bytes())?;
            ledger.remove(LEDGER_FOUNDING)
        })
        .await
    }

    /// The bucket in which this store found its cluster last.
    pub(super) async fn bucket_before(&self) -> tsdb::Result<Option<String>> {
        let ledger = self.ledger.clone();
        let bytes = on_disk(&*self.pool, move || ledger.get(LEDGER_BUCKET)).await?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// Remembers how far a store had come that was seen; durable on return.
    pub(super) async fn saw(&self, store: ring::StoreId, age: Age) -> tsdb::Result<()> {
        let (ledger, name) = (self.ledger.clone(), format!("{LEDGER_AGE}{store}"));
        let value = [age.incarnation.to_be_bytes(), age.watermark.to_be_bytes()].concat();
        on_disk(&*self.pool, move || ledger.put(&name, &value)).await
    }

    /// How far each store had come that was seen.
    pub(super) async fn seen(&self) -> tsdb::Result<Vec<(ring::StoreId, Age)>> {
        let ledger = self.ledger.clone();
        let facts = on_disk(&*self.pool, move || ledger.scan(LEDGER_AGE)).await?;
        let read = |(name, value): (String, Vec<u8>)| {
            let store = name.strip_prefix(LEDGER_AGE)?.parse().ok()?;
            let (numbers, _) = value.as_chunks::<8>();
            let number = |at: usize| numbers.get(at).map_or(0, |bytes| u64::from_be_bytes(*bytes));
            Some((store, Age { incarnation: number(0), watermark: number(1) }))
        };
        Ok(facts.into_iter().filter_map(read).collect())
    }

    /// The placements for which this store doesn't count.
    pub(super) async fn disclaimed(&self) -> tsdb::Result<Vec<Epoch>> {
        let ledger = self.ledger.clone();
        let bytes = on_disk(&*self.pool, move || ledger.get(LEDGER_DISCLAIMED)).await?.unwrap_or_default();
        let (ids, rest) = bytes.as_chunks::<8>();
        match rest {
            [] => Ok(ids.iter().map(|id| u64::from_be_bytes(*id)).collect()),
            _ => Err(tsdb::Error::corrupt("disclaimers in the ledger", 0, "not a whole number of them")),
        }
    }

    /// Remembers for which placements this store doesn't count; durable on return.
    pub(super) async fn disclaim(&self, placements: &[Epoch]) -> tsdb::Result<()> {
        let (ledger, bytes) =
            (self.ledger.clone(), placements.iter().flat_map(|id| id.to_be_bytes()).collect::<Vec<_>>());
        on_disk(&*self.pool, move || ledger.put(LEDGER_DISCLAIMED, &bytes)).await
    }
}

/// Whether an object is one that says whose the bucket is.
pub(super) fn is_ring(key: &Path) -> bool {
    *key == cluster_key() || *key == document_key()
}

/// Holds the cluster's id, as text.
fn cluster_key() -> Path {
    keys::own(["cluster"])
}

/// The object of the bucket that holds the ring document.
pub fn document_key() -> Path {
    keys::own(["ring"])
}

fn damaged(key: &Path) -> bucket::Error {
    bucket::Error::Corrupt { key: key.to_string(), reason: "it isn't what was written there".to_owned() }
}
