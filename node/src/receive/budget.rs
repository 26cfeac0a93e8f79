//! Memory of write requests in work at once: a bound for the node, whatever clients send.
//!
//! A request holds its body as it came, the body decompressed, and what is decoded of it: two bytes on the wire may be
//! a histogram of two hundred. All three are taken from one budget, the last in steps while the decoder goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes that requests may hold together.
pub struct Budget {
    used: AtomicUsize,
    most: usize,
}

/// A request's share; given back when dropped.
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of `most` bytes.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), most })
    }

    /// The most that one request's decoded parts may take: half of the budget. What needs more can never be taken.
    pub fn decoded_bytes_max(&self) -> usize {
        // Offsets in a batch have 32 bits.
        (self.most / 2).min(u32::MAX as usize)
    }

    /// Nothing yet.
    pub fn hold(self: &Arc<Self>) -> Held {
        Held { budget: self.clone(), bytes: 0 }
    }

    /// Bytes that are held.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Held {
    /// Takes more; false, and nothing taken, when it would be over the budget.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.budget.most);
        let taken = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if taken {
            self.bytes += bytes;
        }
        taken
    }
}

/// Why a request can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    /// It needs more than any request may have: it can never succeed.
    #[error("the message's parts take more than {most} bytes when decoded (half of http.max_in_flight)")]
    Request {
        /// What a request may have.
        most: usize,
    },
    /// The node has no more now.
    #[error("too many bytes of write requests are in work (http.max_in_flight)")]
    Node,
}

/// What a request's decoded parts take from the node's budget.
pub struct DecodedBytes<'h> {
    held: &'h mut Held,
    /// Bytes that are held and not used yet.
    left: usize,
    /// Bytes that are held.
    taken: usize,
    most: usize,
}

/// By how much a decoder's share grows: the budget is shared by all threads, and elements are small.
const STEP_BYTES: usize = 64 << 10;

impl<'h> DecodedBytes<'h> {
    /// An account of at most `most` bytes, which [`Held`] gives back.
    pub fn new(held: &'h mut Held, most: usize) -> Self {
        Self { held, left: 0, taken: 0, most }
    }

    /// Looks ahead: whether the request may have `bytes` at all.
    ///
    /// # Errors
    /// [`OverBudget::Request`] when it may not.
    pub fn check(&self, bytes: usize) -> Result<(), OverBudget> {
        if bytes <= self.most { Ok(()) } else { Err(OverBudget::Request { most: self.most }) }
    }

    /// Takes `bytes`, before they are allocated.
    ///
    /// # Errors
    /// When the request, or the node, has no more.
    #[inline]
    pub fn take(&mut self, bytes: usize) -> Result<(), OverBudget> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => self.grow(bytes),
        }
    }

    #[cold]
    fn grow(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let used = self.taken - self.left;
        let needed = used.checked_add(bytes).filter(|needed| *needed <= self.most);
        let needed = needed.ok_or(OverBudget::Request { most: self.most })?;
        let taken = needed.max(self.taken.saturating_add(STEP_BYTES).min(self.most));
        if !self.held.grow(taken - self.taken) {
            return Err(OverBudget::Node);
        }
        (self.taken, self.left) = (taken, taken - needed);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_given_back() {
        let budget = Budget::new(100);
        let mut held = budget.hold();
        assert!(held.grow(60) && held.grow(40));
        assert!(!held.grow(1) && !budget.hold().grow(usize::MAX));
        assert_eq!(budget.used(), 100);
        drop(held);
        assert!(budget.used() == 0 && budget.hold().grow(100));
    }

    #[test]
    fn a_request_takes_no_more_than_its_share_and_no_more_than_there_is() {
        let budget = Budget::new(4 * STEP_BYTES);
        let (mut one, mut other) = (budget.hold(), budget.hold());
        let most = budget.decoded_bytes_max();
        let mut bytes = DecodedBytes::new(&mut one, most);
        assert_eq!(bytes.take(1), Ok(()));
        assert_eq!(budget.used(), STEP_BYTES);
        assert_eq!(bytes.take(most), Err(OverBudget::Request { most }));
        assert_eq!(bytes.take(most - 1), Ok(()));
        assert_eq!(bytes.take(1), Err(OverBudget::Request { most }));
        assert_eq!(bytes.take(usize::MAX), Err(OverBudget::Request { most }));
        assert!(other.grow(2 * STEP_BYTES - 10));
        let mut last = budget.hold();
        let mut bytes = DecodedBytes::new(&mut last, most);
        assert_eq!(bytes.take(11), Err(OverBudget::Node));
        drop((one, other, last));
        assert_eq!(budget.used(), 0);
    }
}
