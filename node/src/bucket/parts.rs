//! Objects too large for memory: written, read and summed in parts of [`PART_BYTES`].

use std::ops::Range;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt as _};

use super::error::{Failure, Result};
use super::{Bucket, CALL_DEADLINE, Checksum, PART_BYTES, PART_DEADLINE};

/// The parts of a file, in order.
pub(super) fn parts(size_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size_bytes.div_ceil(PART_BYTES)).map(move |n| n * PART_BYTES..((n + 1) * PART_BYTES).min(size_bytes))
}

impl Bucket {
    /// Checksum of an object of this size; `None` where there is no such one.
    pub(super) async fn sum(&self, key: &Path, size_bytes: u64) -> Result<Option<u32>> {
        if self.size_bytes(key).await? != Some(size_bytes) {
            return Ok(None);
        }
        let mut sum = Checksum::new();
        for part in parts(size_bytes) {
            let Some(bytes) = self.get_range(key, part).await? else { return Ok(None) };
            sum.update(&bytes);
        }
        Ok(Some(sum.finish()))
    }

    /// Writes an object of this size, whose parts `read` gives: a small one at once, a large one in parts.
    pub(super) async fn put_parts<F: Future<Output = Result<Bytes>> + Send>(
        &self,
        key: &Path,
        size_bytes: u64,
        read: impl Fn(Range<u64>) -> F + Sync,
    ) -> Result<()> {
        if size_bytes <= PART_BYTES {
            let bytes = read(0..size_bytes).await?;
            let put = || async { self.store.put(key, bytes.clone().into()).await };
            let done = self.attempts(PART_DEADLINE, put).await;
            return done
                .map(drop)
                .map_err(|(failure, attempts)| self.explain(failure, "write", key, attempts));
        }
        let begun = self.attempts(CALL_DEADLINE, || async { self.store.put_multipart(key).await }).await;
        let mut upload =
            begun.map_err(|(failure, attempts)| self.explain(failure, "begin to write", key, attempts))?;
        let sending = async {
            for part in parts(size_bytes) {
                let bytes = read(part).await?;
                self.once("write", key, upload.put_part(bytes.into())).await?;
            }
            self.once("finish", key, upload.complete()).await.map(drop)
        };
        let sent = sending.await;
        if sent.is_err() {
            // The store would keep the parts, and somebody would pay for them.
            drop(tokio::time::timeout(CALL_DEADLINE, upload.abort()).await);
        }
        sent
    }

    /// Waits for a step of an upload, which the store's client itself repeats.
    async fn once<T>(
        &self,
        what: &'static str,
        key: &Path,
        step: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let failure = match tokio::time::timeout(PART_DEADLINE, step).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => Failure::Store(error),
            Err(_) => Failure::TimedOut,
        };
        Err(self.explain(failure, what, key, 1))
    }
}
