//! `meta.json`: what a block says of itself.
//!
//! The fields are Prometheus's; what others add (`thanos`, marks) is kept as it is. Ours is one field more:
//!
//! ```json
//! "carillon": { "crc32c": "e3069283" }
//! ```
//!
//! the CRC32C of the document without that number, compact and with sorted keys. It notices a flipped bit in a time
//! range, by which whole blocks are left out of an answer. A file without it is taken as it is.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use ulid::Ulid;

use crate::chunk::Encoding;
use crate::disk::Disk;
use crate::files;
use crate::head::rule::TIMESTAMP_MS_MAX;
use crate::index::coding::crc32c;
use crate::{Error, Result};

/// The version of the block format.
const VERSION: u32 = 1;

/// Longest `meta.json` that is read; a block made of 10,000 others has 1 MB.
pub const META_BYTES_MAX: u64 = 16 << 20;

/// Longest range of a block, in milliseconds: a hundred years. A longer one is a wrong number, and whoever walks a block's
/// range in steps would never come to its end.
const RANGE_MS_MAX: i64 = 100 * 366 * 86_400_000;

/// Our field, and the checksum in it.
const OURS: &str = "carillon";
const CHECKSUM: &str = "crc32c";

/// What a block says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockMeta {
    /// Its name.
    #[serde(with = "ulid_text")]
    pub ulid: Ulid,
    /// Where its range begins, in milliseconds since the Unix epoch.
    #[serde(rename = "minTime")]
    pub min_ms: i64,
    /// Where its range ends, in milliseconds since the Unix epoch: not included.
    #[serde(rename = "maxTime")]
    pub max_ms: i64,
    /// What it holds.
    #[serde(default)]
    pub stats: BlockStats,
    /// What it was made of.
    #[serde(default)]
    pub compaction: Compaction,
    /// Always 1.
    pub version: u32,
    /// Fields of others.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a block holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BlockStats {
    /// Samples.
    pub num_samples: u64,
    /// Series.
    pub num_series: u64,
    /// Chunks.
    pub num_chunks: u64,
    /// Deleted ranges.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_tombstones: u64,
    /// Samples that are floats; 0 in blocks of before they were told apart.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_float_samples: u64,
    /// Samples that are histograms.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_histogram_samples: u64,
}

impl BlockStats {
    /// Where samples of an encoding are counted beside `num_samples`.
    pub(super) fn counter(&mut self, encoding: Encoding) -> &mut u64 {
        match encoding {
            Encoding::Xor | Encoding::Xor2 => &mut self.num_float_samples,
            Encoding::Histogram
            | Encoding::FloatHistogram
            | Encoding::HistogramWithStarts
            | Encoding::FloatHistogramWithStarts => &mut self.num_histogram_samples,
        }
    }
}

/// What a block was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compaction {
    /// 1 for a block cut from a head; one more than the highest of those it was merged from.
    pub level: u32,
    /// The blocks of level 1 that it holds, sorted.
    #[serde(with = "ulids_text")]
    pub sources: Vec<Ulid>,
    /// The blocks that it was merged from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Parent>,
    /// Fields of others: `hints`, `deletable`, `failed`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { level: 1, sources: Vec::new(), parents: Vec::new(), other: Map::new() }
    }
}

/// A block that another was merged from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Its name.
    #[serde(with = "ulid_text")]
    pub ulid: Ulid,
    /// As [`BlockMeta::min_ms`].
    #[serde(rename = "minTime")]
    pub min_ms: i64,
    /// As [`BlockMeta::max_ms`].
    #[serde(rename = "maxTime")]
    pub max_ms: i64,
}

impl BlockMeta {
    /// A block of level 1, of its own, with nothing in it yet.
    pub fn new(ulid: Ulid, min_ms: i64, max_ms: i64) -> Self {
        Self {
            ulid,
            min_ms,
            max_ms,
            stats: BlockStats::default(),
            compaction: Compaction { sources: vec![ulid], ..Compaction::default() },
            version: VERSION,
            other: Map::new(),
        }
    }

    /// Reads the file of the block in `dir`.
    ///
    /// # Errors
    /// [`Error::Io`] where there is none; [`Error::Limit`] when it is longer than [`META_BYTES_MAX`]; else as
    /// [`BlockMeta::from_json`].
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let path = dir.join(files::BLOCK_META);
        let size = disk.size_bytes(&path).map_err(|e| Error::io("open", &path, e))?;
        if size.is_some_and(|size| size > META_BYTES_MAX) {
            return Err(Error::Limit(format!("{} has more than {META_BYTES_MAX} bytes", path.display())));
        }
        let bytes = disk.read(&path).map_err(|e| Error::io("read", &path, e))?;
        Self::from_json(&bytes).map_err(|e| e.in_file(path))
    }

    /// From the bytes of a `meta.json`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it isn't JSON, lacks a field, has another version, a range that no block has, or fails its
    /// checksum.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let wrong = |reason: String| Error::corrupt("block meta", 0, reason);
        let mut document: Value = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        if let Some(stored) = take_checksum(&mut document)
            && stored != Value::String(checksum(&document))
        {
            return Err(wrong(
                "checksum mismatch; if it was changed by hand, remove the field `carillon`".to_owned(),
            ));
        }
        let meta: Self = serde_json::from_value(document).map_err(|e| wrong(e.to_string()))?;
        if meta.version != VERSION {
            return Err(wrong(format!("version {} isn't known", meta.version)));
        }
        if meta.min_ms > meta.max_ms {
            return Err(wrong(format!("its range begins at {} and ends at {}", meta.min_ms, meta.max_ms)));
        }
        let is_near = |at_ms: i64| (-TIMESTAMP_MS_MAX..=TIMESTAMP_MS_MAX).contains(&at_ms);
        if !is_near(meta.min_ms) || !is_near(meta.max_ms) || meta.max_ms - meta.min_ms > RANGE_MS_MAX {
            return Err(wrong(format!("no block has a range from {} to {}", meta.min_ms, meta.max_ms)));
        }
        Ok(meta)
    }

    /// The bytes of a `meta.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut document = serde_json::to_value(self).expect("all keys are strings");
        take_checksum(&mut document);
        let sum = checksum(&document);
        let ours = document.as_object_mut().expect("a struct is an object").entry(OURS);
        let ours = ours.or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(fields) = ours {
            fields.insert(CHECKSUM.to_owned(), Value::String(sum));
        }
        serde_json::to_vec_pretty(&document).expect("a value is written to memory")
    }
}

/// Removes our checksum, and our field when nothing else is in it.
fn take_checksum(document: &mut Value) -> Option<Value> {
    let fields = document.as_object_mut()?;
    let ours = fields.get_mut(OURS)?.as_object_mut()?;
    let sum = ours.remove(CHECKSUM);
    if ours.is_empty() {
        fields.remove(OURS);
    }
    sum
}

fn checksum(document: &Value) -> String {
    format!("{:08x}", crc32c(document.to_string().as_bytes()))
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn parse_ulid<E: serde::de::Error>(text: &str) -> Result<Ulid, E> {
    Ulid::from_string(text).map_err(|e| E::custom(format!("{text:?} is no ULID: {e}")))
}

mod ulid_text {
    use super::{Deserialize, Deserializer, Serializer, Ulid, parse_ulid};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub fn serialize<S: Serializer>(ulid: &Ulid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&ulid.to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ulid, D::Error> {
        parse_ulid(&String::deserialize(deserializer)?)
    }
}

mod ulids_text {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Ulid, parse_ulid};

    pub fn serialize<S: Serializer>(ulids: &[Ulid], serializer: S) -> Result<S::Ok, S::Error> {
        ulids.iter().map(ToString::to_string).collect::<Vec<_>>().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ulid>, D::Error> {
        let texts = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
        texts.iter().map(|text| parse_ulid(text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: &str = r#"{"ulid":"01JFJBS3YP1SHZ3PJQ6HK76EC3","minTime":1,"maxTime":3,"version":1,
        "stats":{"numSamples":400,"numSeries":100,"numChunks":100},
        "compaction":{"level":2,"sources":["01JFJBS3YP1SHZ3PJQ6HK76EC3"],"hints":["from-out-of-order"],
            "parents":[{"ulid":"00000000000000000000000000","minTime":0,"maxTime":0}]},
        "thanos":{"labels":{"a":"b"},"downsample":{"resolution":0}},"carillon":{"shard":3}}"#;

    #[test]
    fn what_others_wrote_is_kept() {
        let meta = BlockMeta::from_json(FOREIGN.as_bytes()).unwrap();
        assert_eq!((meta.min_ms, meta.max_ms, meta.compaction.level), (1, 3, 2));
        assert_eq!(meta.other["thanos"]["labels"]["a"], "b");
        assert_eq!(meta.compaction.other["hints"][0], "from-out-of-order");
        let json = meta.to_json();
        assert_eq!(BlockMeta::from_json(&json).unwrap(), meta);
        let document: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(document["carillon"]["shard"], 3);
    }

    #[test]
    fn a_flipped_bit_is_noticed_or_changes_nothing() {
        let meta = BlockMeta { min_ms: 1000, max_ms: 7_201_000, ..BlockMeta::new(Ulid(7), 0, 0) };
        let json = meta.to_json();
        for at in 0..json.len() {
            for bit in 0..8 {
                let mut flipped = json.clone();
                flipped[at] ^= 1 << bit;
                if let Ok(read) = BlockMeta::from_json(&flipped) {
                    // A damaged name of the checksum is one more foreign field.
                    let same = BlockMeta { other: meta.other.clone(), ..read };
                    assert_eq!(same, meta, "byte {at} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_meta_is_refused() {
        for bad in [
            "",
            "{}",
            "[]",
            "{\"ulid\":1}",
            &FOREIGN.replace("\"version\":1", "\"version\":2"),
            &FOREIGN.replace("\"minTime\":1", "\"minTime\":9"),
            &FOREIGN.replace("\"minTime\":1", "\"minTime\":-9223372036854775808"),
            &FOREIGN.replace("\"maxTime\":3", "\"maxTime\":9223372036854775807"),
            &FOREIGN.replace("\"maxTime\":3", "\"maxTime\":3200000000000"),
            &FOREIGN.replace("01JFJ", "!!!!!"),
        ] {
            assert!(matches!(BlockMeta::from_json(bad.as_bytes()), Err(Error::Corrupt { .. })), "{bad}");
        }
    }
}
