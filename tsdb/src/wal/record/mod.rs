//! Payloads of the log's records: one file a kind, with its layout, writer, reader and tests.
//!
//! A writer is filled by `push` and used again after `clear`; its `payload` and `times_ms` go into a
//! [`Frame`](super::Frame). A reader is an iterator over a payload (`entries`). It allocates only what it hands out,
//! survives arbitrary bytes, and stops at the first error.
//!
//! Series refs are written as differences to the one before, timestamps too: whoever appends in order of refs writes
//! a byte for both.

pub mod exemplars;
pub mod floats;
pub mod histograms;
pub mod metadata;
pub mod samples;
pub mod series;

mod bytes;
mod entries;

use super::TIMELESS;

/// Least and greatest of the timestamps seen, in milliseconds; [`TIMELESS`] before the first.
#[derive(Clone, Copy, Debug)]
struct Times(i64, i64);

impl Default for Times {
    fn default() -> Self {
        Self(TIMELESS.0, TIMELESS.1)
    }
}

impl Times {
    fn add(&mut self, timestamp_ms: i64) {
        self.0 = self.0.min(timestamp_ms);
        self.1 = self.1.max(timestamp_ms);
    }
}
