//! A circuit breaker: a peer that doesn't answer isn't asked by everybody again and again.
//!
//! After a few calls in a row that nobody answered, calls fail at once; one is let through now and then, at longer
//! and longer intervals, and its answer closes the circuit. Any answer counts, a refusal too: somebody is there.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Calls in a row that may go unanswered: one can be a connection that broke.
const FAILURES_MAX: u32 = 3;
/// Time to the first trial, and the longest between two.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    failures: u32,
    /// While open: when the next trial may go.
    next: Option<Instant>,
    pause: Duration,
    why: String,
}

impl Breaker {
    /// Whether a call may be tried now.
    ///
    /// # Errors
    /// Why not: what the last call met.
    pub(super) fn admit(&self) -> Result<(), String> {
        let mut state = self.0.lock();
        let Some(next) = state.next else { return Ok(()) };
        let now = Instant::now();
        if now < next {
            return Err(state.why.clone());
        }
        // This call is the trial; whether it ends or is dropped, the next one comes after a pause.
        state.next = Some(now + state.pause);
        Ok(())
    }

    /// Whether calls fail at once.
    pub(super) fn is_open(&self) -> bool {
        self.0.lock().next.is_some_and(|next| Instant::now() < next)
    }

    /// Somebody answered.
    pub(super) fn succeeded(&self) {
        let mut state = self.0.lock();
        if state.failures > 0 {
            *state = State::default();
        }
    }

    /// Nobody did.
    pub(super) fn failed(&self, why: &str) {
        let mut state = self.0.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES_MAX {
            state.pause = (state.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            state.next = Some(Instant::now() + state.pause);
            why.clone_into(&mut state.why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_tried_less_and_less_often_until_it_answers() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            assert!(breaker.admit().is_ok());
            breaker.failed("silence");
        }
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let began = Instant::now();
            assert_eq!(breaker.admit(), Err("silence".to_owned()));
            while breaker.is_open() {
                tokio::time::advance(Duration::from_millis(10)).await;
            }
            assert!(breaker.admit().is_ok());
            assert!(breaker.admit().is_err(), "one trial at a time");
            pauses.push(began.elapsed());
            breaker.failed("silence");
        }
        assert!(pauses.is_sorted() && pauses[0] >= PAUSE_MIN && *pauses.last().unwrap() >= PAUSE_MAX);
        tokio::time::advance(PAUSE_MAX).await;
        assert!(breaker.admit().is_ok());
        breaker.succeeded();
        assert!(!breaker.is_open() && breaker.admit().is_ok());
    }
}
