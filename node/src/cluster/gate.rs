//! Lets writes in by the epoch of the ring document that they were routed by.
//!
//! A store that adopts a document promises that no write of an older one is appended any more. A write that was
//! looked at just before may still be on its way into the log, so each holds an [`Admission`] until it is appended,
//! and adopting waits for those of older documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::Epoch;
use tokio::sync::Notify;

/// Lets writes in from one epoch on.
#[derive(Debug, Default)]
pub(super) struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Told when the last write of an epoch has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    lowest: Epoch,
    /// Writes under way by epoch, without zeros.
    under_way: BTreeMap<Epoch, usize>,
}

/// A write that was let in: to be held until its samples are appended.
#[derive(Debug)]
#[must_use = "the samples must be appended while this is held"]
pub struct Admission {
    inner: Arc<Inner>,
    epoch: Epoch,
}

impl Gate {
    /// Lets in a write that was routed by the document of `epoch`; `None` where that is too old.
    pub(super) fn admit(&self, epoch: Epoch) -> Option<Admission> {
        let mut state = self.0.state.lock();
        if epoch < state.lowest && !planted::is(planted::Bug::GateOpen) {
            return None;
        }
        *state.under_way.entry(epoch).or_default() += 1;
        Some(Admission { inner: self.0.clone(), epoch })
    }

    /// Keeps out all writes below `epoch` from now on.
    pub(super) fn close_below(&self, epoch: Epoch) {
        let mut state = self.0.state.lock();
        state.lowest = state.lowest.max(epoch);
    }

    /// Returns when all writes below `epoch` that were let in have ended.
    pub(super) async fn ended_below(&self, epoch: Epoch) {
        loop {
            // Made before the look, so that an end between look and wait isn't missed.
            let ended = self.0.ended.notified();
            if self.0.state.lock().under_way.range(..epoch).next().is_none() {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        let left = state.under_way.get_mut(&self.epoch).expect("an admission is counted until it is dropped");
        *left -= 1;
        if *left == 0 {
            state.under_way.remove(&self.epoch);
            self.inner.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_older_writes_and_keeps_out_further_ones() {
        let gate = Gate::default();
        let (older, newer) = (gate.admit(1).unwrap(), gate.admit(2).unwrap());
        let wait = |gate: &Gate| {
            let gate = Gate(gate.0.clone());
            async move { timeout(Duration::from_secs(1), gate.ended_below(2)).await }
        };
        gate.close_below(2);
        assert!(wait(&gate).await.is_err());
        assert!(gate.admit(1).is_none());
        let waiting = tokio::spawn(wait(&gate));
        tokio::task::yield_now().await;
        drop(older);
        waiting.await.unwrap().unwrap();
        wait(&gate).await.unwrap();
        drop(newer);
        assert!(gate.admit(2).is_some() && gate.admit(3).is_some());
    }

    #[test]
    fn a_gate_never_opens_again_for_what_it_kept_out() {
        let gate = Gate::default();
        gate.close_below(5);
        gate.close_below(3);
        assert!(gate.admit(4).is_none() && gate.admit(5).is_some());
    }
}
