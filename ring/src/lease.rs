//! Leases: who leads, decided by compare-and-swap on one object of the bucket, never deleted.
//!
//! ```json
//! { "format": 1, "epoch": 3, "holder": "<store>", "nonce": "<32 hex digits>", "ttl_ms": 30000 }
//! ```
//!
//! 1. Where no object is, it is created; whoever creates it leads.
//! 2. The holder writes it again, with a new nonce, well before `ttl_ms` have passed on its own clock; it stops leading
//!    when they have, whether it could write or not.
//! 3. Who waits takes it over only after it has seen one and the same tag for `ttl_ms` and a tenth more on *its own*
//!    monotonic clock: clocks are never compared, they only have to run at about the same speed.
//! 4. Every taking over raises the epoch.
//!
//! A lease gives order and speed, not safety: a holder that was paused believes in its lease until it looks at its
//! clock. What must not happen twice carries a condition of its own, which is what the epoch is for.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::StoreId;
use crate::swap::{Failed, Swap, Swapped, Tag};

/// By how many percent clocks of two machines may differ in speed.
pub const DRIFT_PERCENT: u64 = 10;

/// Shortest and longest time to live, in milliseconds, that is believed.
pub const TTL_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;

const FORMAT: u32 = 1;

/// What the object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u32,
    epoch: u64,
    holder: StoreId,
    /// Makes each writing another, so that its author knows it again.
    #[serde(with = "crate::id::hex128")]
    nonce: u128,
    /// How long the lease holds after each writing; 0 where it was given back.
    ttl_ms: u64,
}

/// Who leads, as far as one knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// We do.
    Held {
        /// Grows with every change of holder.
        epoch: u64,
        /// On our monotonic clock.
        until_ms: u64,
    },
    /// Somebody else does, or nobody yet.
    NotHeld {
        /// Who held it last.
        holder: Option<StoreId>,
    },
}

/// One lease, as one store sees it. `now_ms` is always the same monotonic clock.
#[derive(Debug)]
pub struct Lease {
    key: String,
    me: StoreId,
    ttl_ms: u64,
    held: Option<Held>,
    watched: Option<Watched>,
}

#[derive(Debug, Clone)]
struct Held {
    tag: Tag,
    record: Record,
    until_ms: u64,
}

#[derive(Debug, Clone)]
struct Watched {
    tag: Tag,
    holder: StoreId,
    since_ms: u64,
}

impl Lease {
    /// A lease that nobody has asked for yet. `ttl_ms` is cut to [`TTL_MS`].
    #[must_use]
    pub fn new(key: &str, me: StoreId, ttl_ms: u64) -> Self {
        let ttl_ms = ttl_ms.clamp(*TTL_MS.start(), *TTL_MS.end());
        Self { key: key.to_owned(), me, ttl_ms, held: None, watched: None }
    }

    /// Who leads, without asking anybody.
    #[must_use]
    pub fn standing(&self, now_ms: u64) -> Standing {
        match &self.held {
            Some(held) if now_ms < held.until_ms => {
                Standing::Held { epoch: held.record.epoch, until_ms: held.until_ms }
            }
            _ => Standing::NotHeld { holder: self.watched.as_ref().map(|watched| watched.holder) },
        }
    }

    /// Renews the lease, or takes it where it is free. Called about three times in a time to live, by whoever may lead;
    /// `nonce` is new each time. `now_ms` is read before the call: what happens during it isn't counted for us.
    ///
    /// # Errors
    /// Where the bucket can't be asked, or the object isn't a lease; a lease held goes on until its time is over.
    pub async fn tick(&mut self, swap: &dyn Swap, now_ms: u64, nonce: u128) -> Result<Standing, Failed> {
        match self.held.take() {
            Some(held) => {
                // Whether the write arrived isn't known before its answer; until then the old state stands.
                self.held = Some(held.clone());
                let record = Record { nonce, ttl_ms: self.ttl_ms, ..held.record };
                self.write(swap, now_ms, record, Some(&held.tag)).await?;
            }
            None => self.acquire(swap, now_ms, nonce).await?,
        }
        Ok(self.standing(now_ms))
    }

    /// Gives the lease back, so that nobody has to wait.
    ///
    /// # Errors
    /// Where the bucket can't be asked: then others wait until the time is over. It isn't held any more in any case.
    pub async fn release(&mut self, swap: &dyn Swap, nonce: u128) -> Result<(), Failed> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let record = Record { nonce, ttl_ms: 0, ..held.record };
        swap.swap(&self.key, &held.tag, record.encode()).await?;
        Ok(())
    }

    async fn acquire(&mut self, swap: &dyn Swap, now_ms: u64, nonce: u128) -> Result<(), Failed> {
        let fresh = |epoch| Record { format: FORMAT, epoch, holder: self.me, nonce, ttl_ms: self.ttl_ms };
        let Some((bytes, tag)) = swap.get(&self.key).await? else {
            return self.write(swap, now_ms, fresh(1), None).await;
        };
        let record =
            Record::decode(&bytes).map_err(|e| Failed(format!("lease {} can't be read: {e}", self.key)))?;
        let since_ms = match &self.watched {
            Some(watched) if watched.tag == tag => watched.since_ms,
            _ => now_ms,
        };
        self.watched = Some(Watched { tag: tag.clone(), holder: record.holder, since_ms });
        if now_ms - since_ms >= record.patience_ms() {
            self.write(swap, now_ms, fresh(record.epoch + 1), Some(&tag)).await?;
        }
        Ok(())
    }

    /// Writes a record that makes us the holder.
    async fn write(
        &mut self,
        swap: &dyn Swap,
        now_ms: u64,
        record: Record,
        seen: Option<&Tag>,
    ) -> Result<(), Failed> {
        let written = match seen {
            None => swap.put_if_absent(&self.key, record.encode()).await?,
            Some(tag) => swap.swap(&self.key, tag, record.encode()).await?,
        };
        let tag = match written {
            Swapped::Won(tag) => Some(tag),
            // Perhaps we lost against an earlier try of our own.
            Swapped::Lost => match swap.get(&self.key).await? {
                Some((bytes, tag)) if Record::decode(&bytes).is_ok_and(|there| there == record) => Some(tag),
                _ => None,
            },
        };
        self.held = tag.map(|tag| Held { tag, until_ms: now_ms + record.ttl_ms, record });
        if self.held.is_some() {
            self.watched = None;
        }
        Ok(())
    }
}

impl Record {
    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("names and numbers always fit into JSON").into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if record.format != FORMAT {
            return Err(format!("it has format {}, this version reads {FORMAT}", record.format));
        }
        Ok(record)
    }

    /// How long the object must have stood still before it may be taken over.
    fn patience_ms(&self) -> u64 {
        if self.ttl_ms == 0 {
            return 0;
        }
        let ttl_ms = self.ttl_ms.clamp(*TTL_MS.start(), *TTL_MS.end());
        ttl_ms + (ttl_ms * DRIFT_PERCENT).div_ceil(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swap::{Fault, MemorySwap};

    const TTL: u64 = 10_000;

    fn lease(me: u128) -> Lease {
        Lease::new("lease", StoreId(me), TTL)
    }

    fn held(epoch: u64, until_ms: u64) -> Result<Standing, Failed> {
        Ok(Standing::Held { epoch, until_ms })
    }

    fn not_held(holder: u128) -> Result<Standing, Failed> {
        Ok(Standing::NotHeld { holder: Some(StoreId(holder)) })
    }

    #[tokio::test]
    async fn the_first_leads_and_others_wait() {
        let swap = MemorySwap::default();
        let (mut a, mut b) = (lease(1), lease(2));
        assert_eq!(a.tick(&swap, 0, 10).await, held(1, TTL));
        assert_eq!(b.tick(&swap, 5_000, 20).await, not_held(1));
        assert_eq!(a.tick(&swap, 6_000, 11).await, held(1, 6_000 + TTL));
        assert_eq!(a.standing(6_000 + TTL), Standing::NotHeld { holder: None });
    }

    #[tokio::test]
    async fn a_lease_is_taken_over_only_after_it_stood_still_long_enough() {
        let swap = MemorySwap::default();
        let (mut a, mut b) = (lease(1), lease(2));
        a.tick(&swap, 0, 10).await.unwrap();
        // b's clock has nothing to do with a's.
        assert_eq!(b.tick(&swap, 70_000, 20).await, not_held(1));
        assert_eq!(b.tick(&swap, 80_999, 21).await, not_held(1));
        assert_eq!(b.tick(&swap, 81_000, 22).await, held(2, 81_000 + TTL));
        // a was asleep, wakes up and learns it.
        assert_eq!(a.tick(&swap, 200_000, 11).await, Ok(Standing::NotHeld { holder: None }));
        assert_eq!(a.tick(&swap, 200_001, 12).await, not_held(2));
    }

    #[tokio::test]
    async fn a_renewal_starts_the_waiting_anew() {
        let swap = MemorySwap::default();
        let (mut a, mut b) = (lease(1), lease(2));
        a.tick(&swap, 0, 10).await.unwrap();
        b.tick(&swap, 0, 20).await.unwrap();
        a.tick(&swap, 9_000, 11).await.unwrap();
        assert_eq!(b.tick(&swap, 11_000, 21).await, not_held(1));
        assert_eq!(b.tick(&swap, 21_999, 22).await, not_held(1));
        assert_eq!(b.tick(&swap, 22_000, 23).await, held(2, 32_000));
    }

    #[tokio::test]
    async fn a_holder_that_cannot_renew_stops_in_time() {
        let swap = MemorySwap::default();
        let mut a = lease(1);
        a.tick(&swap, 0, 10).await.unwrap();
        swap.be(Some(Fault::Away));
        assert!(a.tick(&swap, 9_999, 11).await.is_err());
        assert!(matches!(a.standing(9_999), Standing::Held { .. }));
        assert!(matches!(a.standing(10_000), Standing::NotHeld { .. }));
        // Nobody took it meanwhile: it goes on in the same epoch.
        swap.be(None);
        assert_eq!(a.tick(&swap, 50_000, 12).await, held(1, 60_000));
    }

    #[tokio::test]
    async fn a_write_whose_answer_was_wrong_is_known_again() {
        let swap = MemorySwap::default();
        let mut a = lease(1);
        swap.be(Some(Fault::WinsLookLost));
        assert_eq!(a.tick(&swap, 0, 10).await, held(1, TTL));
        assert_eq!(a.tick(&swap, 1, 11).await, held(1, TTL + 1));
        // A write whose answer got lost makes the tag unknown; the holder steps down and waits like others.
        swap.be(Some(Fault::AnswersLost));
        assert!(a.tick(&swap, 2, 12).await.is_err());
        swap.be(None);
        assert_eq!(a.tick(&swap, 3, 13).await, Ok(Standing::NotHeld { holder: None }));
    }

    #[tokio::test]
    async fn a_lease_that_was_given_back_is_free_at_once() {
        let swap = MemorySwap::default();
        let (mut a, mut b) = (lease(1), lease(2));
        a.tick(&swap, 0, 10).await.unwrap();
        a.release(&swap, 11).await.unwrap();
        assert_eq!(a.standing(1), Standing::NotHeld { holder: None });
        assert_eq!(b.tick(&swap, 1, 20).await, held(2, 1 + TTL));
    }

    #[tokio::test]
    async fn what_is_not_a_lease_is_left_alone() {
        let swap = MemorySwap::default();
        swap.put_if_absent("lease", Bytes::from_static(b"{}")).await.unwrap();
        let refused = lease(1).tick(&swap, 0, 10).await;
        assert!(refused.is_err_and(|e| e.0.contains("can't be read")));
    }
}
