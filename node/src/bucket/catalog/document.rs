//! A tenant's catalog as it lies in the bucket. All numbers little-endian, ULIDs and ids big-endian.
//!
//! ```text
//!  0  "CCT1"       magic and format
//!  4  u64          generation: raised when the tenant is deleted, so that its old blocks are never taken for new ones
//! 12  u64          version: one more with each change
//! 20  u32, 16 each nonces of the last changes, oldest first; at most 256
//!     u32, 16 each stores that blocks came from
//!     u32, 72 each live blocks, by ULID
//!     u32          CRC32C of everything before
//!
//! a block:
//!  0  16 bytes     ULID
//! 16  i64          first millisecond of its range
//! 24  i64          last millisecond of its range, not included
//! 32  u64          version that listed it
//! 40  u64          samples
//! 48  u64          series
//! 56  u64          bytes of its files
//! 64  u32          level: 1 = cut from a head
//! 68  u32          index of its store
//! ```
//! A block takes 72 bytes: three nodes that ship a block every two hours fill 1 MB in a year.

use std::collections::{BTreeMap, VecDeque};

use ring::StoreId;
use ulid::Ulid;

use super::super::crc32c;

/// How many changes can be told apart from ones that never happened.
const NONCES_MAX: usize = 256;
const MAGIC: &[u8; 3] = b"CCT";
const FORMAT: u8 = b'1';
const BLOCK_BYTES: usize = 72;

/// The store of blocks that no store has cut, as imported ones are: nobody has them but the bucket.
pub const NOBODY: StoreId = StoreId(0);

/// Which blocks a tenant has in the bucket, at one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Which life of the tenant's name.
    pub(super) generation: u64,
    pub(super) version: u64,
    pub(super) nonces: VecDeque<u128>,
    pub(super) blocks: BTreeMap<Ulid, Listed>,
}

/// A block that can be read from the bucket by any node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub ulid: Ulid,
    /// Where its range begins, in milliseconds since the Unix epoch.
    pub min_ms: i64,
    /// Where its range ends, in milliseconds since the Unix epoch: not included.
    pub max_ms: i64,
    /// The version of the catalog that listed it.
    pub version: u64,
    /// Samples in it.
    pub samples: u64,
    /// Series in it.
    pub series: u64,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// 1 for a block cut from a head.
    pub level: u32,
    /// The store that made it.
    pub store: StoreId,
}

impl Catalog {
    /// Grows by one with each change; 0 where the tenant never had a block.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The blocks, by ULID.
    pub fn blocks(&self) -> impl Iterator<Item = &Listed> {
        self.blocks.values()
    }

    /// A block, if it is listed.
    pub fn block(&self, ulid: Ulid) -> Option<&Listed> {
        self.blocks.get(&ulid)
    }

    /// The blocks that may hold samples of a range, in milliseconds, both ends included.
    pub fn blocks_in(&self, range_ms: &std::ops::RangeInclusive<i64>) -> impl Iterator<Item = &Listed> {
        self.blocks().filter(move |b| b.min_ms <= *range_ms.end() && b.max_ms > *range_ms.start())
    }

    /// The catalog after one more change, which `nonce` names.
    pub(super) fn changed(&self, nonce: u128) -> Self {
        let mut next = self.clone();
        next.version += 1;
        next.nonces.push_back(nonce);
        if next.nonces.len() > NONCES_MAX {
            next.nonces.pop_front();
        }
        next
    }

    /// Where in time this catalog stands: those of a later life of the tenant's name come after all of an earlier one.
    pub(super) fn age(&self) -> (u64, u64) {
        (self.generation, self.version)
    }

    /// Whether this catalog may have come of `earlier`, or is the same: the nonce of that one's last change is where it
    /// must be among the nonces of this one, as far back as they go. A bucket that was put back to an earlier state and
    /// went on from there has others.
    pub(super) fn may_follow(&self, earlier: &Self) -> bool {
        if self.generation != earlier.generation {
            return self.generation > earlier.generation;
        }
        let Some(since) = self.version.checked_sub(earlier.version) else { return false };
        let place = usize::try_from(since).ok().and_then(|since| self.nonces.iter().rev().nth(since));
        match (earlier.nonces.back(), place) {
            (Some(ours), Some(theirs)) => ours == theirs,
            // Either too long ago to know, or nothing that came of any change.
            _ => since > 0 || self.nonces.back() == earlier.nonces.back(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut stores: Vec<StoreId> = self.blocks.values().map(|block| block.store).collect();
        stores.sort_unstable();
        stores.dedup();
        let mut bytes = Vec::with_capacity(64 + 16 * self.nonces.len() + BLOCK_BYTES * self.blocks.len());
        bytes.extend_from_slice(MAGIC);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.version.to_le_bytes());
        push_count(&mut bytes, self.nonces.len());
        self.nonces.iter().for_each(|nonce| bytes.extend_from_slice(&nonce.to_be_bytes()));
        push_count(&mut bytes, stores.len());
        stores.iter().for_each(|store| bytes.extend_from_slice(&store.0.to_be_bytes()));
        push_count(&mut bytes, self.blocks.len());
        for block in self.blocks.values() {
            bytes.extend_from_slice(&block.ulid.0.to_be_bytes());
            bytes.extend_from_slice(&block.min_ms.to_le_bytes());
            bytes.extend_from_slice(&block.max_ms.to_le_bytes());
            for number in [block.version, block.samples, block.series, block.size_bytes] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&block.level.to_le_bytes());
            push_count(&mut bytes, stores.binary_search(&block.store).expect("all stores are in the list"));
        }
        let sum = crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a catalog as it lies in the bucket; the error says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let cut = || "it ends early".to_owned();
        let (format, _) =
            bytes.strip_prefix(MAGIC).and_then(<[u8]>::split_first).ok_or("it is no catalog")?;
        if *format != FORMAT {
            return Err(format!(
                "it has format {}, which this version of Carillon doesn't know: upgrade this node",
                char::from(*format).escape_default()
            ));
        }
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or_else(cut)?;
        if crc32c(body) != u32::from_le_bytes(*sum) {
            return Err("its checksum differs".to_owned());
        }
        let mut reader = Reader(&body[MAGIC.len() + 1..]);
        let mut catalog = Self {
            generation: reader.u64().ok_or_else(cut)?,
            version: reader.u64().ok_or_else(cut)?,
            ..Self::default()
        };
        for _ in 0..reader.count(16).ok_or_else(cut)? {
            catalog.nonces.push_back(reader.u128().ok_or_else(cut)?);
        }
        let mut stores = Vec::new();
        for _ in 0..reader.count(16).ok_or_else(cut)? {
            stores.push(StoreId(reader.u128().ok_or_else(cut)?));
        }
        for _ in 0..reader.count(BLOCK_BYTES).ok_or_else(cut)? {
            let block = reader.block(&stores).ok_or_else(cut)?;
            if block.version > catalog.version || block.min_ms > block.max_ms {
                return Err(format!("block {} can't be so", block.ulid));
            }
            catalog.blocks.insert(block.ulid, block);
        }
        if reader.0.is_empty() { Ok(catalog) } else { Err("it goes on behind its end".to_owned()) }
    }
}

fn push_count(bytes: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a document is shorter than 4 GB");
    bytes.extend_from_slice(&count.to_le_bytes());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_be_bytes)
    }

    /// A count of items of `size` bytes, which are there.
    fn count(&mut self, size: usize) -> Option<u32> {
        self.u32()
            .filter(|count| (*count as usize).checked_mul(size).is_some_and(|bytes| bytes <= self.0.len()))
    }

    fn block(&mut self, stores: &[StoreId]) -> Option<Listed> {
        Some(Listed {
            ulid: Ulid(self.u128()?),
            min_ms: self.i64()?,
            max_ms: self.i64()?,
            version: self.u64()?,
            samples: self.u64()?,
            series: self.u64()?,
            size_bytes: self.u64()?,
            level: self.u32()?,
            store: *stores.get(self.u32()? as usize)?,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::bucket) fn listed(ulid: u128, min_ms: i64, max_ms: i64) -> Listed {
        let (version, samples, series, size_bytes, level) = (0, 10, 2, 1000, 1);
        let store = StoreId(ulid % 3);
        Listed { ulid: Ulid(ulid), min_ms, max_ms, version, samples, series, size_bytes, level, store }
    }

    fn catalog(blocks: &[(u128, i64, u16)], changes: usize) -> Catalog {
        let mut catalog = Catalog { generation: 3, ..Catalog::default() };
        for change in 0..changes {
            catalog = catalog.changed(change as u128);
        }
        for (ulid, min_ms, length) in blocks {
            let block = listed(*ulid, *min_ms, min_ms.saturating_add(i64::from(*length)));
            catalog.blocks.insert(block.ulid, block);
        }
        catalog
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            blocks in prop::collection::vec(any::<(u128, i64, u16)>(), 0..20),
            changes in 0..300usize,
        ) {
            let catalog = catalog(&blocks, changes);
            prop_assert_eq!(catalog.nonces.len(), changes.min(NONCES_MAX));
            prop_assert_eq!(Catalog::decode(&catalog.encode()).unwrap(), catalog);
        }

        #[test]
        fn whatever_the_bytes_are_reading_ends(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Catalog::decode(&bytes);
            // Behind a right start and checksum too.
            bytes.splice(0..0, *b"CCT1");
            bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
            let _ = Catalog::decode(&bytes);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = catalog(&[(1, 0, 7), (9, 5, 9)], 3).encode();
        for at in 0..bytes.len() {
            assert!(Catalog::decode(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(Catalog::decode(&flipped).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_newer_format_is_refused_with_advice() {
        let mut bytes = Catalog::default().encode();
        bytes[3] = b'2';
        assert!(Catalog::decode(&bytes).unwrap_err().contains("upgrade this node"));
    }

    #[test]
    fn ranges_are_open_at_their_end() {
        let catalog = catalog(&[(1, 0, 100), (2, 100, 100)], 1);
        let found = |range| catalog.blocks_in(&range).map(|b| b.ulid.0).collect::<Vec<_>>();
        assert_eq!(found(0..=99), [1]);
        assert_eq!(found(100..=100), [2]);
        assert_eq!(found(99..=100), [1, 2]);
        assert!(found(200..=300).is_empty());
    }
}
