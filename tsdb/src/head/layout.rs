//! How the head's folder is laid out: by how many shards.
//!
//! The number decides in which shard a series lies, so it is written down before anything else is, and never derived from
//! what else may be in the folder: with one folder counted too many, half of the series would be gone, and samples would
//! stand under others' labels.
//!
//! ```text
//! head/layout:  magic "CRLL" | version u8 | log2(shards) u8 | crc32c of everything before, u32 LE
//! ```

use super::chunks::crc32c;
use super::coding::Reader;
use crate::db::SHARDS_MAX;
use crate::{Error, Result};

const MAGIC: &[u8; 4] = b"CRLL";
const VERSION: u8 = 1;
const WHAT: &str = "head layout";

/// The layout of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// log2 of the number of shards.
    pub(crate) bits: u32,
}

impl Layout {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([VERSION, self.bits as u8]);
        let checksum = crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Invalid`] when a newer version wrote it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let wrong = |reason: &str| Error::corrupt(WHAT, 0, reason);
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or_else(|| wrong("it is cut short"))?;
        if crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err(wrong("its checksum is wrong"));
        }
        let mut reader = Reader::new(WHAT, body);
        if reader.take(4)? != MAGIC {
            return Err(wrong("it isn't one"));
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Error::Invalid(format!(
                "the head's layout has version {version}, which this program can't read"
            )));
        }
        let bits = u32::from(reader.u8()?);
        if bits > SHARDS_MAX.trailing_zeros() || !reader.is_empty() {
            return Err(wrong("it names more shards than a head may have"));
        }
        Ok(Self { bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_round_trips_and_every_flipped_bit_is_noticed() {
        for bits in 0..=SHARDS_MAX.trailing_zeros() {
            let bytes = Layout { bits }.encode();
            assert_eq!(Layout::decode(&bytes).unwrap(), Layout { bits });
            for at in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[at / 8] ^= 1 << (at % 8);
                assert!(Layout::decode(&flipped).is_err(), "bit {at}");
            }
            (0..bytes.len()).for_each(|length| assert!(Layout::decode(&bytes[..length]).is_err()));
        }
        assert!(Layout::decode(&Layout { bits: 7 }.encode()).is_err());
    }
}
