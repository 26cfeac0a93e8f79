//! Turns and deadlines: how many queries work at once, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;

/// Turns of queries.
pub(super) struct Turns {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Turns {
    /// At most `running` queries work at once, and `waiting` wait.
    pub(super) fn new(running: usize, waiting: usize) -> Self {
        let running = running.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            running: Arc::new(Semaphore::new(running)),
            waiting: AtomicUsize::new(0),
            waiting_max: waiting,
        }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// When too many wait already.
    pub(super) async fn take(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(turn) = self.running.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let place = Place(&self.waiting);
        if place.0.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            return Err(Error::Busy);
        }
        Ok(self.running.clone().acquire_owned().await.expect("the semaphore is never closed"))
    }
}

/// A place in the queue; left when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends the work when whoever asked is gone: a switch that is set when this is dropped.
#[derive(Default)]
pub(super) struct Switch(Arc<AtomicBool>);

impl Switch {
    /// For those who work.
    pub(super) fn cancelled(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for `work` until the timeout.
///
/// # Errors
/// Those of `work`; [`Error::Late`].
pub(super) async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    if timeout.is_zero() {
        return Err(Error::Late(timeout));
    }
    tokio::time::timeout(timeout, work).await.map_err(|_| Error::Late(timeout))?
}

/// An error once the switch is set.
///
/// # Errors
/// [`promql::Error::Cancelled`].
pub(super) fn check(cancelled: &AtomicBool) -> Result<(), Error> {
    if cancelled.load(Ordering::Relaxed) { Err(promql::Error::Cancelled.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn queries_wait_their_turn_and_too_many_are_refused() {
        let turns = Arc::new(Turns::new(1, 1));
        let first = turns.take().await.unwrap();
        let second = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take().await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(matches!(turns.take().await, Err(Error::Busy)));
        drop(first);
        second.await.unwrap().unwrap();
        assert!(turns.take().await.is_ok());
    }
}
