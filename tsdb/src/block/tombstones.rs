//! The `tombstones` file of a block: deleted ranges of its series.
//!
//! ```text
//! magic 0x0130BA30 <4> | version 1 <1> | { series id <uvarint> | first <varint> | last <varint> }* | CRC32C <4>
//! ```
//!
//! Times are milliseconds, both ends included; the checksum covers the deletions.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use super::file_writer::FileWriter;
use crate::disk::Disk;
use crate::files;
use crate::index::coding::{Reader, crc32c};
use crate::varint;
use crate::{Error, Result};

const MAGIC: u32 = 0x0130_BA30;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// Deleted ranges by series id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstones {
    by_series: BTreeMap<u64, Vec<RangeInclusive<i64>>>,
}

impl Tombstones {
    /// Reads the file of the block in `dir`; a block without one has no tombstones.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let path = dir.join(files::BLOCK_TOMBSTONES);
        match disk.read(&path) {
            Ok(bytes) => Self::decode(&bytes).map_err(|e| e.in_file(path)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Error::io("read", path, e)),
        }
    }

    /// Replaces the file of the block in `dir` and makes it safe. Blocks opened before keep what they read.
    ///
    /// # Errors
    /// Those of the disk; the old file is then still there.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let path = dir.join(files::BLOCK_TOMBSTONES);
        let temporary = dir.join(files::TEMPORARY_TOMBSTONES);
        match disk.remove_file(&temporary) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", temporary, e));
            }
            _ => {}
        }
        let mut file = FileWriter::create(disk, &temporary)?;
        file.write(&self.encode())?;
        file.finish()?;
        disk.rename(&temporary, &path).map_err(|e| Error::io("rename", &temporary, e))?;
        disk.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))
    }

    /// Adds a deleted range, in milliseconds, both ends included.
    pub fn add(&mut self, series: u64, range_ms: RangeInclusive<i64>) {
        self.by_series.entry(series).or_default().push(range_ms);
    }

    /// The deleted ranges of a series.
    pub fn of(&self, series: u64) -> &[RangeInclusive<i64>] {
        self.by_series.get(&series).map_or(&[], Vec::as_slice)
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.by_series.is_empty()
    }

    /// Number of deleted ranges.
    pub fn len(&self) -> usize {
        self.by_series.values().map(Vec::len).sum()
    }

    /// Ids of the series with deletions, and these.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[RangeInclusive<i64>])> {
        self.by_series.iter().map(|(series, ranges)| (*series, ranges.as_slice()))
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_be_bytes().to_vec();
        bytes.push(VERSION);
        for (series, ranges) in self.iter() {
            for range in ranges {
                varint::put(&mut bytes, series);
                varint::put_signed(&mut bytes, *range.start());
                varint::put_signed(&mut bytes, *range.end());
            }
        }
        let crc = crc32c(&bytes[HEADER_BYTES..]);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// From the bytes of the file.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new("tombstones", bytes, 0);
        if reader.u32()? != MAGIC {
            return Err(Error::corrupt("tombstones", 0, "the file doesn't begin with its magic number"));
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(reader.corrupt(format!("version {version} isn't known")));
        }
        let rest = reader.rest();
        let Some((stones, sum)) = rest.split_last_chunk() else {
            return Err(reader.corrupt("the file is cut short"));
        };
        if crc32c(stones) != u32::from_be_bytes(*sum) {
            return Err(reader.corrupt("checksum mismatch"));
        }
        let mut reader = Reader::new("tombstones", stones, HEADER_BYTES);
        let mut tombstones = Self::default();
        while !reader.rest().is_empty() {
            let series = reader.uvarint()?;
            tombstones.add(series, reader.varint()?..=reader.varint()?);
        }
        Ok(tombstones)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_file_is_that_of_prometheus() {
        assert_eq!(Tombstones::default().encode(), [0x01, 0x30, 0xba, 0x30, 1, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn deletions_round_trip(stones in prop::collection::vec((any::<u64>(), any::<i64>(), any::<i64>()), 0..20)) {
            let mut tombstones = Tombstones::default();
            for (series, first, last) in stones {
                tombstones.add(series, first..=last);
            }
            prop_assert_eq!(Tombstones::decode(&tombstones.encode()).unwrap(), tombstones);
        }

        #[test]
        fn a_flipped_bit_is_noticed(stones in prop::collection::vec((any::<u64>(), any::<i64>()), 0..5), at: prop::sample::Index, bit in 0u32..8) {
            let mut tombstones = Tombstones::default();
            for (series, first) in stones {
                tombstones.add(series, first..=i64::MAX);
            }
            let mut bytes = tombstones.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Tombstones::decode(&bytes).is_err());
        }
    }
}
