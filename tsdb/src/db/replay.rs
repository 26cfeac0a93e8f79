//! How far reading the log back is: for whoever waits for a start.

use parking_lot::Mutex;

/// Told by the start, read by others meanwhile.
#[derive(Debug, Default)]
pub struct Replay(Mutex<Option<ReplayProgress>>);

/// Numbers of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayProgress {
    /// The first that is read.
    pub first: u32,
    /// The last that was there.
    pub last: u32,
    /// The one being read, or `last` once all are.
    pub current: u32,
    /// Whether all are.
    pub is_done: bool,
}

impl Replay {
    /// How far it is; `None` before it has begun.
    pub fn progress(&self) -> Option<ReplayProgress> {
        *self.0.lock()
    }

    /// It begins, with these segments.
    pub fn begin(&self, first: u32, last: u32) {
        *self.0.lock() = Some(ReplayProgress { first, last, current: first, is_done: false });
    }

    /// A segment is being read.
    pub fn at(&self, segment: u32) {
        if let Some(progress) = &mut *self.0.lock() {
            progress.current = segment;
        }
    }

    /// All are read.
    pub fn end(&self) {
        if let Some(progress) = &mut *self.0.lock() {
            (progress.current, progress.is_done) = (progress.last, true);
        }
    }
}
