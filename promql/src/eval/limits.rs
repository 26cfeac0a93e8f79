//! What a query may use: memory, and time until its caller has enough of it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// Memory that several queries share.
pub trait Lender: fmt::Debug + Send + Sync {
    /// Takes more bytes for this query; `what` it needs them for ("rows", "groups").
    ///
    /// # Errors
    /// What was too large and which limit doesn't allow it, in words for whoever asked.
    fn borrow(&self, bytes: usize, what: &str) -> Result<(), String>;

    /// Gives bytes back.
    fn give_back(&self, bytes: usize);
}

/// Bytes are borrowed in steps of this size, so that queries seldom meet at the lender.
const BORROWED_STEP_BYTES: usize = 1 << 20;

/// A query's limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes that results, intermediate rows and decoded samples may take at any one time.
    pub bytes_max: usize,
    /// Where the bytes come from, if they are shared with others.
    pub lender: Option<Arc<dyn Lender>>,
    /// Set by the caller to end the query early: at a timeout, or when nobody waits any more.
    pub cancelled: Arc<AtomicBool>,
}

impl Limits {
    /// A byte budget, and nobody to cancel.
    pub fn bytes(bytes_max: usize) -> Self {
        Self { bytes_max, lender: None, cancelled: Arc::default() }
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
    lender: Option<Arc<dyn Lender>>,
    /// What the lender gave; it gets all of it back at the end.
    borrowed: Mutex<usize>,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            limit: limits.bytes_max,
            lender: limits.lender.clone(),
            borrowed: Mutex::new(0),
        }
    }

    /// Borrows until `used` bytes are covered.
    fn borrow(&self, used: usize, what: &str) -> Result<()> {
        let Some(lender) = &self.lender else { return Ok(()) };
        let mut borrowed = self.borrowed.lock().unwrap_or_else(PoisonError::into_inner);
        if used > *borrowed {
            let more = (used - *borrowed).next_multiple_of(BORROWED_STEP_BYTES);
            lender.borrow(more, what).map_err(Error::Limit)?;
            *borrowed += more;
        }
        Ok(())
    }

    /// Takes `bytes` for `what` ("rows", "groups"), until the charge is dropped.
    pub(crate) fn charge(&self, bytes: usize, what: &'static str) -> Result<Charge<'_>> {
        let mut charge = Charge { budget: self, bytes: 0, what };
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// Takes `bytes` for as long as the result lives; all else that was borrowed goes back.
    pub(crate) fn hold(&self, bytes: usize) -> Result<Held> {
        let _charge = self.charge(bytes, "the result")?;
        let Some(lender) = &self.lender else { return Ok(Held::default()) };
        let mut borrowed = self.borrowed.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes.min(*borrowed);
        *borrowed -= bytes;
        Ok(Held(Some(Arc::new(Loan { lender: lender.clone(), bytes }))))
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
        let is_peak = self.budget.peak.fetch_max(used, Ordering::Relaxed) < used;
        if used > self.budget.limit {
            return Err(Error::Limit(format!(
                "the query needs more memory than its limit of {} bytes (query.max_memory): it holds {} bytes, {} of \
                 them in {}; select fewer series, a shorter range or a longer step",
                self.budget.limit, used, self.bytes, self.what
            )));
        }
        // What was borrowed once stays until the end, so only a new peak needs more.
        if is_peak { self.budget.borrow(used, self.what) } else { Ok(()) }
    }

    /// Gives back what isn't held any more.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
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

impl Drop for Budget {
    fn drop(&mut self) {
        let borrowed = *self.borrowed.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(lender) = self.lender.as_ref().filter(|_| borrowed > 0) {
            lender.give_back(borrowed);
        }
    }
}

/// What a result takes of the memory that queries share; given back when its last clone is dropped.
#[derive(Clone, Debug, Default)]
pub struct Held(#[allow(dead_code, reason = "it is there to be dropped")] Option<Arc<Loan>>);

#[derive(Debug)]
struct Loan {
    lender: Arc<dyn Lender>,
    bytes: usize,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.lender.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Purse(AtomicUsize);

    impl Lender for Purse {
        fn borrow(&self, bytes: usize, what: &str) -> Result<(), String> {
            let left = self.0.load(Ordering::Relaxed).checked_sub(bytes);
            left.map(|left| self.0.store(left, Ordering::Relaxed))
                .ok_or_else(|| format!("too poor for {what}"))
        }

        fn give_back(&self, bytes: usize) {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_borrowed_is_given_back_at_the_end() {
        const PURSE_BYTES: usize = 2 * BORROWED_STEP_BYTES;
        let purse = Arc::new(Purse(AtomicUsize::new(PURSE_BYTES)));
        let left = || purse.0.load(Ordering::Relaxed);
        let budget = Budget::new(&Limits { lender: Some(purse.clone()), ..Limits::bytes(usize::MAX) });
        drop(budget.charge(10, "rows").unwrap());
        drop(budget.charge(20, "rows").unwrap());
        assert_eq!(left(), PURSE_BYTES - BORROWED_STEP_BYTES);
        let refused = budget.charge(PURSE_BYTES + 1, "rows").unwrap_err().to_string();
        assert_eq!(refused, "too poor for rows");
        drop(budget);
        assert_eq!(left(), PURSE_BYTES);
    }

    #[test]
    fn a_result_is_paid_for_until_it_is_dropped() {
        const PURSE_BYTES: usize = 3 * BORROWED_STEP_BYTES;
        let purse = Arc::new(Purse(AtomicUsize::new(PURSE_BYTES)));
        let left = || purse.0.load(Ordering::Relaxed);
        let budget = Budget::new(&Limits { lender: Some(purse.clone()), ..Limits::bytes(usize::MAX) });
        drop(budget.charge(2 * BORROWED_STEP_BYTES, "rows").unwrap());
        let held = budget.hold(1000).unwrap();
        drop(budget);
        assert_eq!(left(), PURSE_BYTES - 1000);
        let other = held.clone();
        drop(held);
        assert_eq!(left(), PURSE_BYTES - 1000);
        drop(other);
        assert_eq!(left(), PURSE_BYTES);
    }

    #[test]
    fn charges_are_given_back() {
        let budget = Budget::new(&Limits::bytes(100));
        let held = budget.charge(80, "rows").unwrap();
        let refused = budget.charge(30, "groups").unwrap_err().to_string();
        assert!(refused.contains("limit of 100 bytes") && refused.contains("groups"), "{refused}");
        drop(held);
        assert!(budget.charge(100, "rows").is_ok());
        assert_eq!(budget.peak_bytes(), 110);
    }
}
