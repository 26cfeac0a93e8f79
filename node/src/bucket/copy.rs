//! Copying objects from one bucket to another, each read back before it counts.
//!
//! An object that is already there with the same bytes isn't written again, so a copy that was interrupted goes on where
//! it was. Several are copied at a time, in parts, so memory stays bounded.

use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;

use super::error::{Error, Result};
use super::{ATTEMPTS, Bucket, Entry};

/// Objects copied at a time: each takes a part or two of memory.
const AT_ONCE: usize = 4;

/// What a copy came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Objects looked at.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Those that had to be written: the others were there.
    pub written: u64,
}

impl Bucket {
    /// Copies these objects to another bucket, and returns once all have been read back there. `done` is told the bytes
    /// of each as it is finished.
    ///
    /// # Errors
    /// The first failure; what is under way then is given up, and may be copied again. [`Error::Corrupt`] where the
    /// other bucket gives back something else than was written.
    pub async fn copy_to(
        &self,
        to: &Bucket,
        entries: Vec<Entry>,
        done: &(dyn Fn(u64) + Sync),
    ) -> Result<Copied> {
        let copies = entries.into_iter().map(|entry| async move {
            let written = self.copy_one(to, &entry).await?;
            done(entry.size_bytes);
            Ok::<_, Error>(Copied { objects: 1, bytes: entry.size_bytes, written: u64::from(written) })
        });
        let add = |sum: Copied, one: Copied| async move {
            Ok(Copied {
                objects: sum.objects + one.objects,
                bytes: sum.bytes + one.bytes,
                written: sum.written + one.written,
            })
        };
        futures_util::stream::iter(copies).buffer_unordered(AT_ONCE).try_fold(Copied::default(), add).await
    }

    /// Copies an object; whether it had to be written.
    async fn copy_one(&self, to: &Bucket, entry: &Entry) -> Result<bool> {
        let Entry { key, size_bytes } = entry;
        let wanted = self.sum(key, *size_bytes).await?.ok_or_else(|| changed(key))?;
        if to.sum(key, *size_bytes).await? == Some(wanted) {
            return Ok(false);
        }
        for _ in 0..ATTEMPTS {
            let read = |part| async { self.get_range(key, part).await?.ok_or_else(|| changed(key)) };
            to.put_parts(key, *size_bytes, read).await?;
            if to.sum(key, *size_bytes).await? == Some(wanted) {
                return Ok(true);
            }
            tracing::warn!(%key, "the bucket gave back something else than was written, trying again");
        }
        Err(Error::Corrupt { key: key.to_string(), reason: "it isn't what was just written".to_owned() })
    }
}

fn changed(key: &Path) -> Error {
    Error::Corrupt { key: key.to_string(), reason: "it changed while it was copied".to_owned() }
}
