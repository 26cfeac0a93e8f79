//! From labels to series: what head and blocks share in finding series, and the index file of a block.
//!
//! | module | what it holds |
//! |---|---|
//! | [`postings`] | lists of series ids, and the planner that turns matchers into one |
//! | [`memory`] | the head's postings: label name → value → ids |
//! | `writer`, `reader` | the index file of a block: its format stands in `writer` |
//! | `symbols` | its symbol table |
//! | `coding` | numbers, strings, sections |

pub(crate) mod coding;
pub mod memory;
pub mod postings;
pub(crate) mod reader;
pub(crate) mod symbols;
pub(crate) mod writer;

use coding::{Reader, crc32c};

use crate::{Error, Result};

/// First bytes of an index file.
const MAGIC: u32 = 0xBAAA_D700;

/// Series begin at multiples of this in version 2.
const SERIES_ALIGN: u64 = 16;

/// Longest index file: series ids have 32 bits and count units of 16 bytes.
pub const INDEX_BYTES_MAX: u64 = SERIES_ALIGN << 32;

/// Where the parts of an index file begin; 0 for one that doesn't exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Toc {
    symbols: u64,
    series: u64,
    label_indices: u64,
    label_table: u64,
    postings: u64,
    postings_table: u64,
}

impl Toc {
    /// Length at the end of the file.
    const BYTES: usize = 6 * 8 + 4;

    fn encode(self) -> Vec<u8> {
        let parts = [
            self.symbols,
            self.series,
            self.label_indices,
            self.label_table,
            self.postings,
            self.postings_table,
        ];
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_be_bytes()).collect();
        bytes.extend_from_slice(&crc32c(&bytes).to_be_bytes());
        bytes
    }

    /// From the end of an index file.
    fn read(file: &[u8]) -> Result<Self> {
        let start = file.len().checked_sub(Self::BYTES).ok_or_else(|| {
            Error::corrupt("index", 0, format!("{} bytes can't hold a table of contents", file.len()))
        })?;
        let mut reader = Reader::new("index table of contents", &file[start..], start);
        let parts = &file[start..file.len() - 4];
        let toc = Self {
            symbols: reader.u64()?,
            series: reader.u64()?,
            label_indices: reader.u64()?,
            label_table: reader.u64()?,
            postings: reader.u64()?,
            postings_table: reader.u64()?,
        };
        if reader.u32()? != crc32c(parts) {
            return Err(Error::corrupt("index table of contents", start, "checksum mismatch"));
        }
        Ok(toc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_contents_round_trips_and_notices_damage() {
        let toc = Toc {
            symbols: 5,
            series: 1 << 40,
            label_indices: 7,
            label_table: 8,
            postings: 9,
            postings_table: 10,
        };
        let mut bytes = vec![1, 2, 3];
        bytes.extend(toc.encode());
        assert_eq!(Toc::read(&bytes).unwrap(), toc);
        for at in 3..bytes.len() {
            bytes[at] ^= 1;
            assert!(Toc::read(&bytes).is_err());
            bytes[at] ^= 1;
        }
        assert!(Toc::read(&bytes[..51]).is_err());
    }
}
