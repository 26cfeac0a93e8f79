//! What a query may use: memory, and time until its caller has enough of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// A query's limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes that results, intermediate rows and decoded samples may take at any one time.
    pub bytes_max: usize,
    /// Set by the caller to end the query early: at a timeout, or when nobody waits any more.
    pub cancelled: Arc<AtomicBool>,
}

impl Limits {
    /// A byte budget, and nobody to cancel.
    pub fn bytes(bytes_max: usize) -> Self {
        Self { bytes_max, cancelled: Arc::default() }
    }

    /// [`Error::Cancelled`] once the caller asked for an end.
    pub(crate) fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Counts what is allocated against the limit.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    peak: AtomicUsize,
    limit: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), peak: AtomicUsize::new(0), limit }
    }

    /// Takes `bytes` for `what` ("rows", "groups"), until the charge is dropped.
    pub(crate) fn charge(&self, bytes: usize, what: &'static str) -> Result<Charge<'_>> {
        let mut charge = Charge { budget: self, bytes: 0, what };
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// The most that was ever taken at one time.
    pub(crate) fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

/// A part of the budget; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Charge<'a> {
    budget: &'a Budget,
    bytes: usize,
    what: &'static str,
}

impl Charge<'_> {
    /// Takes more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<()> {
        let used = self.budget.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.bytes += bytes;
        self.budget.peak.fetch_max(used, Ordering::Relaxed);
        if used > self.budget.limit {
            return Err(Error::Limit(format!(
                "the query needs more memory than its limit of {} bytes: it holds {} bytes, {} of them in {}; \
                 select fewer series, a shorter range or a longer step",
                self.budget.limit, used, self.bytes, self.what
            )));
        }
        Ok(())
    }

    /// Takes up to `bytes` in all.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<()> {
        if bytes > self.bytes { self.grow(bytes - self.bytes) } else { Ok(()) }
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_are_given_back() {
        let budget = Budget::new(100);
        let held = budget.charge(80, "rows").unwrap();
        let refused = budget.charge(30, "groups").unwrap_err().to_string();
        assert!(refused.contains("limit of 100 bytes") && refused.contains("groups"), "{refused}");
        drop(held);
        assert!(budget.charge(100, "rows").is_ok());
        assert_eq!(budget.peak_bytes(), 110);
    }
}
