//! Compare-and-swap on an object, and the proof that a store has it.
//!
//! A write that failed may have happened, and a write that was sent again may find its own first try: both look like
//! a loss. So whoever loses reads the object back, and has won if it holds exactly the bytes that were to be written.
//! Callers therefore put something into each document that no other writer puts there (a nonce, an epoch with its
//! author), or don't mind when two writers of equal bytes both believe they won.
//!
//! The first conditional write proves on an object of its own that the store honours conditions; where it doesn't, none
//! is made.
//!
//! Two answers stay uncertain, and callers look at the document itself then: an error (the write may land, even
//! later), and a loss where somebody else has already written over ours.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{PutMode, PutOptions, UpdateVersion};
use ring::swap::{Boxed, Failed, SelfTest, Swap};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::error::{Error, Failure, Result};
use super::{Bucket, CALL_DEADLINE, folder, keys};
use crate::env::on_disk;

pub use ring::swap::{Swapped, Tag};

impl Bucket {
    /// Writes an object where there is none.
    ///
    /// # Errors
    /// As [`Bucket::swap`].
    pub async fn put_if_absent(&self, key: &Path, bytes: &Bytes) -> Result<Swapped> {
        self.conditional("create", key, bytes, None).await
    }

    /// Writes an object that still is what it was when `tag` was read; see the module for what an answer means.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: it isn't known whether the write happened, or will.
    pub async fn swap(&self, key: &Path, tag: &Tag, bytes: &Bytes) -> Result<Swapped> {
        self.conditional("replace", key, bytes, Some(tag)).await
    }

    /// Proves once that the bucket honours conditions; later calls return at once. Every conditional write asks for it,
    /// so that nobody founds, leads or lists by a store that doesn't.
    ///
    /// # Errors
    /// As [`Bucket::self_test`]; the next call tries again.
    pub async fn prove(&self) -> Result<()> {
        if self.is_proven.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = self.proving.lock().await;
        if self.is_proven.load(Ordering::Acquire) {
            return Ok(());
        }
        let tested = self.self_test(self.nonce).await;
        match &tested {
            Ok(()) => self.is_proven.store(true, Ordering::Release),
            Err(error @ Error::NoConditions { .. }) => {
                tracing::error!(%error, "this node founds and leads nothing by this bucket");
            }
            Err(_) => {}
        }
        tested
    }

    async fn conditional(
        &self,
        what: &'static str,
        key: &Path,
        bytes: &Bytes,
        tag: Option<&Tag>,
    ) -> Result<Swapped> {
        self.prove().await?;
        self.unproven(what, key, bytes, tag).await
    }

    async fn unproven(
        &self,
        what: &'static str,
        key: &Path,
        bytes: &Bytes,
        tag: Option<&Tag>,
    ) -> Result<Swapped> {
        let written = match (&self.folder, tag) {
            (Some(_), Some(tag)) => self.swap_in_folder(key, tag, bytes).await,
            _ => {
                let mode = match tag {
                    None => PutMode::Create,
                    Some(tag) => PutMode::Update(UpdateVersion {
                        e_tag: tag.e_tag.clone(),
                        version: tag.version.clone(),
                    }),
                };
                let options = PutOptions::from(mode);
                let put = || async { self.store.put_opts(key, bytes.clone().into(), options.clone()).await };
                let put = self.attempts(CALL_DEADLINE, put).await;
                put.map(|done| Swapped::Won(self.tag(done.e_tag, done.version, bytes)))
            }
        };
        let (failure, attempts) = match written {
            Ok(swapped) => return Ok(swapped),
            Err(failed) => failed,
        };
        let lost = match &failure {
            Failure::Store(
                object_store::Error::Precondition { .. }
                | object_store::Error::AlreadyExists { .. }
                | object_store::Error::NotModified { .. },
            ) => true,
            // Some stores say so of an object that was to be replaced and isn't there.
            other => tag.is_some() && other.is_not_found(),
        };
        if !lost && !failure.is_transient() {
            return Err(self.explain(failure, what, key, attempts));
        }
        match self.get(key).await {
            Ok(Some((found, tag))) if found == bytes => Ok(Swapped::Won(tag)),
            Ok(_) if lost => Ok(Swapped::Lost),
            Err(error) if lost => Err(error),
            _ => Err(self.explain(failure, what, key, attempts)),
        }
    }

    async fn swap_in_folder(&self, key: &Path, tag: &Tag, bytes: &Bytes) -> Result<Swapped, (Failure, u32)> {
        let root = self.folder.clone().expect("the caller looked");
        let expected = tag.e_tag.clone().unwrap_or_default();
        let began = tokio::time::Instant::now();
        let swapping = async {
            loop {
                let (root, key, expected, bytes) =
                    (root.clone(), key.clone(), expected.clone(), bytes.clone());
                let (nonce, breaks) = (self.swap_nonce(), began.elapsed() >= folder::LOCK_LEASE);
                let swap = move || folder::swap(&root, &key, &expected, &bytes, nonce, breaks);
                match on_disk(&*self.pool, swap).await {
                    Ok(folder::Outcome::Busy) => tokio::time::sleep(folder::LOCK_EVERY).await,
                    other => return other,
                }
            }
        };
        match tokio::time::timeout(CALL_DEADLINE, swapping).await {
            Ok(Ok(folder::Outcome::Won)) => {
                self.note_success();
                Ok(Swapped::Won(self.tag(None, None, bytes)))
            }
            Ok(Ok(_)) => Ok(Swapped::Lost),
            Ok(Err(e)) => {
                let source = Box::new(e);
                Err((Failure::Store(object_store::Error::Generic { store: "folder", source }), 1))
            }
            Err(_) => Err((Failure::TimedOut, 1)),
        }
    }

    /// Names one attempt of a swap among all that anybody makes.
    fn swap_nonce(&self) -> u64 {
        let nth = self.swaps.fetch_add(1, Ordering::Relaxed);
        xxh3_64_with_seed(&self.nonce.to_le_bytes(), nth)
    }

    /// The tag of bytes that were written or read with these marks of the store.
    pub(super) fn tag(&self, e_tag: Option<String>, version: Option<String>, bytes: &[u8]) -> Tag {
        match self.folder {
            Some(_) => Tag { e_tag: Some(folder::tag(bytes)), version: None },
            None => Tag { e_tag, version },
        }
    }

    /// Proves that the bucket can be written and read, and that whoever should lose a conditional write does.
    /// `nonce` is new for every call.
    ///
    /// # Errors
    /// [`Error::NoConditions`]: nothing that needs one writer may rely on this store. The others say what keeps the
    /// bucket from being used.
    pub async fn self_test(&self, nonce: u128) -> Result<()> {
        let name = keys::self_test(nonce);
        let key = keys::own(name.split('/'));
        let plain = keys::own([&*name, "-plain"].concat().split('/'));
        // What an earlier test left there under the same name.
        self.delete(&key).await?;
        let tested = self.test_conditions(&plain, &name).await;
        // A leftover harms nobody, and what the test found matters more.
        if let Err(error) = self.delete(&key).await {
            tracing::debug!(%key, %error, "the self-test's object stays");
        }
        tested
    }

    async fn test_conditions(&self, plain: &Path, name: &str) -> Result<()> {
        // What keeps the bucket from being used at all is told better by plain calls, on another object: one of them
        // that was tried twice may land late.
        self.put(plain, Bytes::from_static(b"0")).await?;
        self.get(plain).await?;
        self.delete(plain).await?;
        match ring::swap::self_test(&Unproven(self), name).await {
            Ok(()) => Ok(()),
            Err(SelfTest::Broken(seen)) => {
                Err(Error::NoConditions { bucket: self.location.to_string(), seen })
            }
            Err(SelfTest::Failed(Failed(detail))) => {
                let (bucket, what) = (self.location.to_string(), "be tested".to_owned());
                Err(Error::Unreachable { bucket, what, attempts: 1, detail })
            }
        }
    }
}

/// A bucket whose conditions are being tested.
struct Unproven<'a>(&'a Bucket);

impl Swap for Unproven<'_> {
    fn get<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<Option<(Bytes, Tag)>, Failed>> {
        Swap::get(self.0, key)
    }

    fn put_if_absent<'a>(&'a self, key: &'a str, bytes: Bytes) -> Boxed<'a, Result<Swapped, Failed>> {
        let key = keys::own(key.split('/'));
        Box::pin(async move { self.0.unproven("create", &key, &bytes, None).await.map_err(failed) })
    }

    fn swap<'a>(&'a self, key: &'a str, seen: &'a Tag, bytes: Bytes) -> Boxed<'a, Result<Swapped, Failed>> {
        let key = keys::own(key.split('/'));
        Box::pin(async move { self.0.unproven("replace", &key, &bytes, Some(seen)).await.map_err(failed) })
    }
}

/// What the ring keeps in the bucket, below the folder of everything that is ours.
impl Swap for Bucket {
    fn get<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<Option<(Bytes, Tag)>, Failed>> {
        Box::pin(async { self.get(&keys::own(key.split('/'))).await.map_err(failed) })
    }

    fn put_if_absent<'a>(&'a self, key: &'a str, bytes: Bytes) -> Boxed<'a, Result<Swapped, Failed>> {
        Box::pin(async move { self.put_if_absent(&keys::own(key.split('/')), &bytes).await.map_err(failed) })
    }

    fn swap<'a>(&'a self, key: &'a str, seen: &'a Tag, bytes: Bytes) -> Boxed<'a, Result<Swapped, Failed>> {
        Box::pin(async move { self.swap(&keys::own(key.split('/')), seen, &bytes).await.map_err(failed) })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it maps errors")]
fn failed(error: Error) -> Failed {
    Failed(error.to_string())
}
