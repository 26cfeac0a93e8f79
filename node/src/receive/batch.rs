//! What a request holds, decoded but not yet looked up: the same for every format it came in.
//!
//! A batch is filled by a decoder and used up by [`super::ingest`]. Series stand in it as offsets of their raw bytes
//! in the request's body, so that a batch has no lifetime and is used again for the next request.

use std::ops::Range;

use tsdb::db::{Append, Exemplar, Metadata, SeriesKey, SeriesRef};
use tsdb::model::{FloatHistogram, Sample};

/// A request's contents.
#[derive(Default)]
pub struct Batch {
    /// Keyed hash of each series' raw bytes.
    pub keys: Vec<SeriesKey>,
    /// Where each series' raw labels are: in the body, or, where they weren't in one piece there, in `gathered`.
    pub raw: Vec<Raw>,
    /// Label bytes that had to be put together.
    pub gathered: Vec<u8>,
    /// Samples, in the order they came; `series` is set after the look-up.
    pub appends: Vec<Append>,
    /// For each sample, the index of its series.
    pub owners: Vec<u32>,
    /// Exemplars with the index of their series.
    pub exemplars: Vec<(u32, Exemplar)>,
    /// Metadata of metric families.
    pub metadata: Vec<Metadata>,
    /// Parts that can't be stored; the rest is.
    pub refused: Refusals,
    /// For the decoder of remote write 2.0: where in the body each symbol begins and ends.
    pub symbols: Vec<(u32, u32)>,
    /// For it, too: what series say of their families.
    pub families: Vec<Family>,
}

/// What a series of remote write 2.0 says of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Where in the body the family's name begins and ends.
    pub name: (u32, u32),
    /// The number of its type.
    pub kind: u8,
    /// Which symbol is the help text.
    pub help: u32,
    /// Which symbol is the unit.
    pub unit: u32,
}

/// Parts of a request that can't be stored: all are counted, the first few described. A hostile request has millions.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// How many samples they stand for.
    count: u64,
    described: Vec<Refused>,
}

/// A part of a request that can't be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The index of its series, where it has one.
    pub series: Option<u32>,
    /// Why, for the sender to read.
    pub why: String,
}

/// Refusals that are described.
const DESCRIBED_MAX: usize = 20;

impl Refusals {
    /// How many samples they stand for.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first of them, in their order.
    pub fn described(&self) -> &[Refused] {
        &self.described
    }

    /// Adds a part that stands for `count` samples, of the series with index `series` where it has one.
    pub fn push(&mut self, series: Option<u32>, count: u64, why: impl FnOnce() -> String) {
        self.count += count;
        if self.described.len() < DESCRIBED_MAX {
            self.described.push(Refused { series, why: why() });
        }
    }

    /// How many there are, for [`Self::truncate`].
    pub fn mark(&self) -> (u64, usize) {
        (self.count, self.described.len())
    }

    /// Forgets what was pushed since a mark.
    pub fn truncate(&mut self, (count, described): (u64, usize)) {
        self.count = count;
        self.described.truncate(described);
    }

    fn clear(&mut self) {
        self.truncate((0, 0));
    }
}

/// Memory that a series of a batch takes until it is in the head, its labels aside: key and place here, and what the
/// look-up notes of it.
pub const SERIES_BYTES: usize =
    size_of::<SeriesKey>() + size_of::<Raw>() + size_of::<SeriesRef>() + size_of::<u64>();
/// The same for a float sample: it, the index of its series, and its outcome.
pub const SAMPLE_BYTES: usize = size_of::<Append>() + size_of::<u32>() + size_of::<u32>();
/// The same for an exemplar without labels, which is gathered once more for the head.
pub const EXEMPLAR_BYTES: usize = 2 * size_of::<(SeriesRef, Exemplar)>() + ALLOCATION_BYTES;
/// The same for metadata without its texts.
pub const METADATA_BYTES: usize = size_of::<Metadata>() + 4 * ALLOCATION_BYTES;
/// What a symbol of remote write 2.0 takes: its place.
pub const SYMBOL_BYTES: usize = size_of::<(u32, u32)>();
/// What an allocation takes beside what was asked for.
const ALLOCATION_BYTES: usize = 16;

/// The same for a native histogram whose message has `message_bytes`: a bucket or span of one byte becomes one of eight.
pub fn histogram_bytes(message_bytes: usize) -> usize {
    SAMPLE_BYTES + size_of::<FloatHistogram>() + 2 * ALLOCATION_BYTES + size_of::<u64>() * message_bytes
}

/// Where a series' raw labels are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// In the request's body.
    Body(Range<u32>),
    /// In [`Batch::gathered`].
    Gathered(Range<u32>),
}

/// Batches with more room than this aren't kept for the next request.
const KEPT_ITEMS_MAX: usize = 100_000;
/// The same for bytes of labels that had to be put together.
const KEPT_GATHERED_BYTES_MAX: usize = 4 << 20;

impl Batch {
    /// Empties the batch, keeping its memory unless one huge request made it huge.
    pub fn clear(&mut self) {
        let items = [self.appends.capacity(), self.keys.capacity(), self.symbols.capacity()];
        if items.iter().any(|items| *items > KEPT_ITEMS_MAX)
            || self.gathered.capacity() > KEPT_GATHERED_BYTES_MAX
        {
            *self = Self::default();
            return;
        }
        self.keys.clear();
        self.raw.clear();
        self.gathered.clear();
        self.appends.clear();
        self.owners.clear();
        self.exemplars.clear();
        self.metadata.clear();
        self.refused.clear();
        self.symbols.clear();
        self.families.clear();
    }

    /// Adds a series and returns its index.
    #[inline]
    pub fn push_series(&mut self, key: SeriesKey, raw: Raw) -> u32 {
        let index = self.keys.len() as u32;
        self.keys.push(key);
        self.raw.push(raw);
        index
    }

    /// Adds a sample of the series with index `owner`.
    #[inline]
    pub fn push_sample(&mut self, owner: u32, sample: Sample) {
        self.appends.push(Append { series: SeriesRef::NONE, sample });
        self.owners.push(owner);
    }

    /// Puts the samples from `first` on, all of one series and of several types, in order of time: formats that list each
    /// type by itself would make late samples of those listed last.
    pub fn sort_samples(&mut self, first: usize) {
        self.appends[first..].sort_by_key(|append| append.sample.timestamp_ms);
    }

    /// Notes a part of the series with index `owner` that can't be stored.
    pub fn refuse(&mut self, owner: u32, why: String) {
        self.refused.push(Some(owner), 1, || why);
    }

    /// A series' raw labels.
    pub fn raw_labels<'a>(&'a self, body: &'a [u8], series: u32) -> &'a [u8] {
        let range = |r: &Range<u32>| r.start as usize..r.end as usize;
        match &self.raw[series as usize] {
            Raw::Body(at) => &body[range(at)],
            Raw::Gathered(at) => &self.gathered[range(at)],
        }
    }
}

/// The node's secret for hashing raw labels: nobody outside can make two series collide.
pub struct SeriesHasher(Box<[u8; SECRET_BYTES]>);

/// What xxh3 makes full use of.
const SECRET_BYTES: usize = 192;

impl SeriesHasher {
    /// A hasher with a secret made from `seed`.
    pub fn new(seed: u128) -> Self {
        use rand::{RngCore as _, SeedableRng as _};
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&seed.to_le_bytes());
        bytes[16..].copy_from_slice(b"series key xxh3\0");
        let mut secret = Box::new([0; SECRET_BYTES]);
        rand::rngs::StdRng::from_seed(bytes).fill_bytes(&mut *secret);
        Self(secret)
    }

    /// The key of a series' raw labels. Formats differ in the raw bytes of the same labels, never in meaning: equal
    /// bytes in two formats would have to be a remote write message and a line of text at once, and the first byte
    /// of the former (0x0a, a newline) can't begin the latter.
    #[inline]
    pub fn key(&self, raw: &[u8]) -> SeriesKey {
        SeriesKey(xxhash_rust::xxh3::xxh3_128_with_secret(raw, &self.0[..]))
    }
}
