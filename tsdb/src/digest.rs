//! Digests: whether two stores hold the same samples, told by sixteen bytes.
//!
//! A digest is the sum modulo 2^128 of one keyed hash for each distinct sample: of the series, the timestamp, the start
//! time and the value's canonical form. So it doesn't depend on the order in which samples came nor on how they are
//! encoded; digests of disjoint sets add up, and a sample that is replaced is subtracted. The key is the cluster's, so
//! that nobody prepares colliding samples outside of it; the hash isn't a cryptographic one, and stores trust each other.
//!
//! ```text
//! series  xxh3-128 of the labels' bytes, by the key's low half
//! sample  xxh3-128, by the key's high half, of
//!         series u128 LE | timestamp i64 LE | start i64 LE | canonical value, words u64 LE
//! ```

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, RangeInclusive, Sub, SubAssign};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::Result;
use crate::chunk::Columns;
use crate::model::{Labels, Sample, Value};
use crate::select::Series;

/// A secret shared by all who compare digests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DigestKey(u128);

impl DigestKey {
    /// From random bits.
    pub const fn new(bits: u128) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(..)")
    }
}

/// The digest of a set of samples; of none it is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(u128);

impl Digest {
    /// As bytes, to be sent or stored.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// From what [`Digest::to_bytes`] gave.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }
}

impl Add for Digest {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Digest {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl SubAssign for Digest {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Digest {
    fn sum<I: Iterator<Item = Self>>(digests: I) -> Self {
        digests.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Digests single samples of one series.
#[derive(Clone, Debug)]
pub struct SeriesDigester {
    series: u128,
    seed: u64,
    /// The sample at hand, as it is hashed.
    words: Vec<u64>,
    bytes: Vec<u8>,
}

/// Bytes of a float: series, timestamp, start time, kind and value.
const FLOAT_BYTES: usize = 48;

impl SeriesDigester {
    /// For the series with these labels.
    pub fn new(key: DigestKey, labels: &Labels) -> Self {
        let series = xxh3_128_with_seed(labels.as_bytes(), key.0 as u64);
        Self { series, seed: (key.0 >> 64) as u64, words: Vec::new(), bytes: Vec::new() }
    }

    /// The series alone, as its samples' digests name it: the same wherever the key is.
    pub fn fingerprint(&self) -> u128 {
        self.series
    }

    /// The digest of one sample.
    pub fn sample(&mut self, sample: &Sample) -> Digest {
        if let Value::Float(value) = sample.value {
            return self.float(sample.timestamp_ms, sample.start_ms, value);
        }
        self.words.clear();
        sample.value.canonical(&mut self.words);
        self.bytes.clear();
        self.bytes.extend(self.series.to_le_bytes());
        self.bytes.extend(sample.timestamp_ms.to_le_bytes());
        self.bytes.extend(sample.start_ms.to_le_bytes());
        self.bytes.extend(self.words.iter().flat_map(|word| word.to_le_bytes()));
        Digest(xxh3_128_with_seed(&self.bytes, self.seed))
    }

    /// The digest of one float.
    pub fn float(&self, timestamp_ms: i64, start_ms: i64, value: f64) -> Digest {
        let mut bytes = [0; FLOAT_BYTES];
        bytes[..16].copy_from_slice(&self.series.to_le_bytes());
        bytes[16..24].copy_from_slice(&timestamp_ms.to_le_bytes());
        bytes[24..32].copy_from_slice(&start_ms.to_le_bytes());
        // The kind, 0, stands between.
        bytes[40..].copy_from_slice(&value.to_bits().to_le_bytes());
        Digest(xxh3_128_with_seed(&bytes, self.seed))
    }
}

impl Series {
    /// The digest of the distinct samples in a range (milliseconds, both ends included), without what is deleted.
    /// `columns` are scratch.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when a chunk is damaged.
    pub fn digest(
        &self,
        key: DigestKey,
        range_ms: RangeInclusive<i64>,
        columns: &mut Columns,
    ) -> Result<Digest> {
        let mut digester = SeriesDigester::new(key, &self.labels);
        self.decode(range_ms.clone(), columns)?;
        if columns.histograms.is_empty() {
            let start = |i| columns.starts.get(i).copied().unwrap_or(0);
            let floats = columns.timestamps.iter().zip(&columns.values).enumerate();
            return Ok(floats
                .map(|(i, (timestamp_ms, value))| digester.float(*timestamp_ms, start(i), *value))
                .sum());
        }
        // In columns, integer counts have become floats.
        let samples = self.samples()?;
        let in_range = samples.iter().filter(|sample| range_ms.contains(&sample.timestamp_ms));
        Ok(in_range.map(|sample| digester.sample(sample)).sum())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::chunk::encode;
    use crate::model::{IntHistogram, Span, stale_nan};

    const KEY: DigestKey = DigestKey(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

    fn labels(name: &str) -> Labels {
        Labels::from_sorted([("__name__", name)])
    }

    fn digest(series: &Series) -> Digest {
        series.digest(KEY, i64::MIN..=i64::MAX, &mut Columns::default()).unwrap()
    }

    fn of_chunks(parts: &[&[Sample]]) -> Series {
        let chunks = parts.iter().flat_map(|part| encode(part)).collect();
        Series { labels: labels("m"), chunks, deleted_ms: Vec::new(), newest: None }
    }

    fn int(layout: &[(i32, u32)], buckets: &[u64]) -> Value {
        Value::Int(Arc::new(IntHistogram {
            count: 1,
            positive_spans: layout.iter().map(|&(offset, length)| Span { offset, length }).collect(),
            positive_buckets: buckets.to_vec(),
            ..Default::default()
        }))
    }

    proptest! {
        #[test]
        fn neither_order_nor_overlap_nor_chunks_show(values in prop::collection::vec(any::<u16>(), 1..400),
                                                     at in any::<prop::sample::Index>(),
                                                     with_histograms in any::<bool>()) {
            let mut samples: Vec<_> = (0..).zip(&values).map(|(t, v)| Sample::float(t, f64::from(*v))).collect();
            if with_histograms {
                samples[0].value = int(&[(0, 1)], &[1]);
            }
            let at = at.index(samples.len());
            let whole = digest(&of_chunks(&[&samples]));
            prop_assert_eq!(whole, digest(&of_chunks(&[&samples[at..], &samples[..at], &samples[at / 2..]])));
            let mut digester = SeriesDigester::new(KEY, &labels("m"));
            prop_assert_eq!(whole, samples.iter().rev().map(|sample| digester.sample(sample)).sum());
            let without: Digest = whole - digester.sample(&samples[at]);
            let mut deleted = of_chunks(&[&samples]);
            deleted.deleted_ms.push(at as i64..=at as i64);
            prop_assert_eq!(without, digest(&deleted));
        }
    }

    #[test]
    fn every_part_of_a_sample_counts() {
        let mut digester = SeriesDigester::new(KEY, &labels("m"));
        let sample = |timestamp_ms, start_ms, value| Sample { timestamp_ms, start_ms, value };
        let samples = [
            sample(1, 0, Value::Float(1.0)),
            sample(2, 0, Value::Float(1.0)),
            sample(1, 2, Value::Float(1.0)),
            sample(1, 0, Value::Float(2.0)),
            sample(1, 0, Value::Float(stale_nan())),
            sample(1, 0, int(&[(0, 1)], &[1])),
            sample(1, 0, int(&[(1, 1)], &[1])),
        ];
        let mut digests: Vec<_> = samples.iter().map(|sample| digester.sample(sample).to_bytes()).collect();
        digests.push(SeriesDigester::new(KEY, &labels("n")).sample(&samples[0]).to_bytes());
        digests.push(SeriesDigester::new(DigestKey::new(1), &labels("m")).sample(&samples[0]).to_bytes());
        digests.push(Digest::default().to_bytes());
        let all = digests.len();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), all);
    }

    #[test]
    fn a_bucket_layout_does_not_count() {
        let mut digester = SeriesDigester::new(KEY, &labels("m"));
        let mut of = |value| digester.sample(&Sample { timestamp_ms: 1, start_ms: 0, value });
        assert_eq!(of(int(&[(0, 1), (1, 1)], &[3, 4])), of(int(&[(0, 3)], &[3, 0, 4])));
    }

    #[test]
    fn a_float_is_digested_like_any_sample() {
        // `float` is a short cut for the layout that `sample` builds.
        let digester = SeriesDigester::new(KEY, &labels("m"));
        let mut bytes = digester.series.to_le_bytes().to_vec();
        bytes.extend(
            [7i64.to_le_bytes(), 5i64.to_le_bytes(), 0i64.to_le_bytes(), 2.5f64.to_le_bytes()].concat(),
        );
        assert_eq!(digester.float(7, 5, 2.5), Digest(xxh3_128_with_seed(&bytes, digester.seed)));
    }

    #[test]
    fn the_format_stays() {
        let digest = SeriesDigester::new(KEY, &labels("m")).float(1_000, 0, 1.0);
        assert_eq!(Digest::from_bytes(digest.to_bytes()), digest);
        assert_eq!(digest.to_string(), "9b333452afc955a80e712059f1aa3a39");
    }
}
