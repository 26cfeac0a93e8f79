//! Whether this store's disk was put back to an earlier state: then it lacks samples that it acked, and mustn't count.
//!
//! A store can't know that of itself. So it keeps two numbers that only grow, and tells them to the others, who remember
//! them durably: its *incarnation*, counted at each start, and its *watermark*, raised while it takes samples, at each new
//! segment of its log and once in [`RAISE_EVERY`]. Both are in its ledger before anybody hears of them. Who tells a lower
//! one than others have heard was put back:
//!
//! - at a start, it becomes a new store, with what lies on its disk;
//! - where that is learnt later, since nobody answered at the start, it disclaims all that is open.
//!
//! What stays unnoticed: a disk put back to a state of less than `RAISE_EVERY` ago, by a process that hasn't started since.
//! A store that nobody could tell at its start counts until it hears of it, from the next comparison of clocks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ring::StoreId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tsdb::wal::WalPosition;

use super::Cluster;
use super::calls::Hello;
use crate::env::on_disk;
use crate::identity::Identity;

/// Time between looks at whether the watermark is to be raised.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Longest time that a store takes samples without raising its watermark.
const RAISE_EVERY: Duration = Duration::from_secs(15);

/// How far a store has come. Lower than it was, its disk was put back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Age {
    /// How often it has started.
    pub(super) incarnation: u64,
    /// See the module.
    pub(super) watermark: u64,
}

impl Age {
    /// The higher one of each number.
    pub(super) fn highest(self, other: Self) -> Self {
        Self {
            incarnation: self.incarnation.max(other.incarnation),
            watermark: self.watermark.max(other.watermark),
        }
    }

    /// Whether whoever says that it has come this far had come farther, as another remembers.
    pub(super) fn is_behind(self, remembered: Self) -> bool {
        self.highest(remembered) != self && !planted::is(planted::Bug::RollbackUnnoticed)
    }
}

impl Cluster {
    /// How far this store has come.
    pub(super) fn age(&self) -> Age {
        let watermark = self.watermark.load(Ordering::Acquire);
        Age { incarnation: self.identity.incarnation, watermark }
    }

    /// How far it has come, as may be told before this start is known to everybody: as it was before.
    pub(super) fn age_before(&self) -> Age {
        Age { incarnation: self.identity.previous, ..self.age() }
    }

    /// How far a store had come when it was last seen, after taking note of how far it is now.
    ///
    /// # Errors
    /// When the ledger fails.
    pub(super) async fn note_age(&self, store: StoreId, age: Age) -> tsdb::Result<Age> {
        let before = self.ages.lock().get(&store).copied().unwrap_or_default();
        let now = before.highest(age);
        if now != before {
            self.documents.saw(store, now).await?;
            let mut ages = self.ages.lock();
            let entry = ages.entry(store).or_default();
            *entry = entry.highest(now);
        }
        Ok(before)
    }

    /// Raises this store's watermark while it takes samples.
    pub(super) async fn raise_watermark(self: Arc<Self>, stop: CancellationToken) {
        let (mut raised, mut at) = (WalPosition::START, Instant::now());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let Some(keeper) = self.keeper.get() else { continue };
            let now = keeper.durable();
            let is_due = now.segment != raised.segment || at.elapsed() >= RAISE_EVERY;
            if now == raised || !is_due {
                continue;
            }
            let (ledger, watermark) = (self.documents.ledger.clone(), self.age().watermark + 1);
            let kept = on_disk(&*self.documents.pool, move || Identity::raise_watermark(&*ledger, watermark));
            if let Err(error) = kept.await {
                tracing::error!(%error, "the ledger can't be written");
                continue;
            }
            self.watermark.store(watermark, Ordering::Release);
            (raised, at) = (now, Instant::now());
            self.tell_others();
        }
    }

    /// Hears how far others remember that this store had come.
    pub(super) async fn hear_of_own_age(&self, remembered: impl Iterator<Item = Hello>) {
        let remembered = remembered.map(|hello| hello.remembered).fold(Age::default(), Age::highest);
        // What is disclaimed already needn't be again: placements that were opened since have all that was acked for them.
        if !self.age().highest(*self.disclaimed_up_to.lock()).is_behind(remembered) {
            return;
        }
        let text = "others remember this store as having come farther than its disk says: the disk was put back to an \
                    earlier state while nobody answered, and what it acked since may be missing; it doesn't count for what \
                    was open";
        self.note_problem("rollback", Some(text.to_owned()));
        let disclaimed = self.disclaim_all().await;
        let raised = match disclaimed {
            Ok(()) => {
                *self.disclaimed_up_to.lock() = remembered;
                self.catch_up(remembered.watermark).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = raised {
            tracing::error!(%error, "the ledger can't be written");
        }
    }

    /// Goes on from the watermark that others remember, once what is lacking is disclaimed.
    async fn catch_up(&self, watermark: u64) -> tsdb::Result<()> {
        let (ledger, watermark) = (self.documents.ledger.clone(), watermark.max(self.age().watermark));
        on_disk(&*self.documents.pool, move || Identity::raise_watermark(&*ledger, watermark)).await?;
        self.watermark.store(watermark, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_behind_where_either_number_was_higher() {
        let age = |incarnation, watermark| Age { incarnation, watermark };
        for (says, remembered, is_behind) in [
            (age(2, 5), age(0, 0), false),
            (age(2, 5), age(2, 5), false),
            (age(2, 5), age(2, 6), true),
            (age(2, 5), age(3, 1), true),
            (age(3, 5), age(2, 6), true),
        ] {
            assert_eq!(says.is_behind(remembered), is_behind, "{says:?}, {remembered:?}");
        }
    }
}
