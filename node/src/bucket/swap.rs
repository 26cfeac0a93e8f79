//! Compare-and-swap on an object, and the proof that a store has it.
//!
//! A write that failed may have happened, and a write that was sent again may find its own first try: both look like
//! a loss. So whoever loses reads the object back, and has won if it holds exactly the bytes that were to be written.
//! Callers therefore put something into each document that no other writer puts there (a nonce, an epoch with its
//! author), or don't mind when two writers of equal bytes both believe they won.
//!
//! Two answers stay uncertain, and callers look at the document itself then: an error (the write may land, even
//! later), and a loss where somebody else has already written over ours.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{PutMode, PutOptions, UpdateVersion};

use super::error::{Error, Failure, Result};
use super::{Bucket, CALL_DEADLINE, folder, keys};
use crate::env::on_disk;

/// Stands for the bytes that an object had when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub(super) e_tag: Option<String>,
    pub(super) version: Option<String>,
}

/// How a conditional write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// The object holds the new bytes.
    Won(Tag),
    /// It holds something else: read it again.
    Lost,
}

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

    async fn conditional(
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
        let swapping = async {
            loop {
                let (root, key, expected, bytes) =
                    (root.clone(), key.clone(), expected.clone(), bytes.clone());
                let swap = move || folder::swap(&root, &key, &expected, &bytes);
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
        let key = keys::self_test(nonce);
        let tested = self.test_conditions(&key).await;
        // A leftover harms nobody, and what the test found matters more.
        if let Err(error) = self.delete(&key).await {
            tracing::debug!(%key, %error, "the self-test's object stays");
        }
        tested
    }

    async fn test_conditions(&self, key: &Path) -> Result<()> {
        let [first, second, third, fourth] =
            [b"1st", b"2nd", b"3rd", b"4th"].map(|s: &[u8; 3]| Bytes::from_static(s));
        let seen = |seen| Error::NoConditions { bucket: self.location.to_string(), seen };
        let Swapped::Won(tag) = self.put_if_absent(key, &first).await? else {
            return Err(seen("a new object was refused"));
        };
        if self.put_if_absent(key, &second).await? != Swapped::Lost {
            return Err(seen("an object was created twice"));
        }
        let Swapped::Won(newer) = self.swap(key, &tag, &third).await? else {
            return Err(seen("an object that hadn't changed couldn't be replaced"));
        };
        if self.swap(key, &tag, &fourth).await? != Swapped::Lost {
            return Err(seen("an object was replaced though it had changed"));
        }
        match self.get(key).await? {
            Some((bytes, tag)) if bytes == third && tag == newer => Ok(()),
            _ => Err(seen("an object isn't read as it was written")),
        }
    }
}
