//! Objects that change by compare-and-swap: the seam to the bucket, as far as the ring needs one.

mod memory;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

pub use memory::{Fault, MemorySwap};

/// A future behind a `dyn Swap`.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Stands for the bytes that an object had when it was read; says nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tag {
    /// What the store calls the bytes.
    pub e_tag: Option<String>,
    /// What it calls this version of the object.
    pub version: Option<String>,
}

/// How a conditional write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swapped {
    /// The object holds the new bytes.
    Won(Tag),
    /// It holds something else, which may be what an earlier try of the same call has written: read it again.
    Lost,
}

/// Why a call didn't end. A write may have happened nevertheless, or happen yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

/// Small objects, each replaced only by who has seen it last.
///
/// [`self_test`] says whether an implementation keeps its word.
pub trait Swap: Send + Sync {
    /// An object and its tag; `None` where there is none.
    fn get<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<Option<(Bytes, Tag)>, Failed>>;

    /// Writes an object where there is none.
    fn put_if_absent<'a>(&'a self, key: &'a str, bytes: Bytes) -> Boxed<'a, Result<Swapped, Failed>>;

    /// Replaces an object that hasn't changed since it was read.
    fn swap<'a>(&'a self, key: &'a str, seen: &'a Tag, bytes: Bytes) -> Boxed<'a, Result<Swapped, Failed>>;
}

/// What a self-test found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelfTest {
    /// The store can't be asked; nothing is known.
    #[error("the bucket can't be tested: {0}")]
    Failed(#[from] Failed),
    /// The store doesn't keep conditions: whoever writes last wins, and two leaders would undo each other's work.
    #[error(
        "the bucket doesn't honour conditional writes: {0}; use a store that does, or a proxy in front of it that passes If-Match on"
    )]
    Broken(&'static str),
}

/// Proves on an object of its own that a losing write loses. `key` is fresh, so that tests at one time don't meet;
/// the object stays behind.
///
/// # Errors
/// [`SelfTest::Broken`] where the store mustn't be trusted with leadership.
pub async fn self_test(swap: &dyn Swap, key: &str) -> Result<(), SelfTest> {
    let [first, second, third, fourth] = [&b"1"[..], b"22", b"333", b"4444"].map(Bytes::from_static);
    let Swapped::Won(tag) = swap.put_if_absent(key, first).await? else {
        return Err(SelfTest::Broken("a new object was refused"));
    };
    if swap.put_if_absent(key, second).await? != Swapped::Lost {
        return Err(SelfTest::Broken("an object could be created twice"));
    }
    let Swapped::Won(newer) = swap.swap(key, &tag, third.clone()).await? else {
        return Err(SelfTest::Broken("an object that hadn't changed couldn't be replaced"));
    };
    if swap.swap(key, &tag, fourth).await? != Swapped::Lost {
        return Err(SelfTest::Broken("an object could be replaced although it had changed"));
    }
    match swap.get(key).await? {
        Some((bytes, tag)) if bytes == third && tag == newer => Ok(()),
        _ => Err(SelfTest::Broken("an object isn't read as it was written last")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_keeps_conditions_passes() {
        assert_eq!(self_test(&MemorySwap::default(), "test").await, Ok(()));
    }

    #[tokio::test]
    async fn a_losing_swap_must_lose() {
        for fault in [Fault::IgnoresAbsence, Fault::IgnoresTags, Fault::RefusesAll, Fault::ReadsStale] {
            let swap = MemorySwap::default();
            swap.be(Some(fault));
            let found = self_test(&swap, "test").await;
            assert!(matches!(found, Err(SelfTest::Broken(_))), "{fault:?}: {found:?}");
        }
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_not_called_broken() {
        let swap = MemorySwap::default();
        swap.be(Some(Fault::Away));
        assert!(matches!(self_test(&swap, "test").await, Err(SelfTest::Failed(_))));
    }
}
