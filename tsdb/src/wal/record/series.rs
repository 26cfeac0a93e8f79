//! Definitions: refs and the labels that they stand for.
//!
//! ```text
//! series: | ref: signed varint | labels: unsigned varint | label ... |
//! label:  | name: string | value: string |
//! string: | 0 | length: unsigned varint | bytes |     one that is new in this record; gets the next number, from 1
//!         | number: unsigned varint |                 one that came before
//! ```
//! Refs are differences to the one before, the first to 0. Series of a scrape share nearly all of their strings, so
//! one takes some 20 bytes instead of 150; nothing outside the record is needed to read it.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

use super::bytes::{Rest, put_bytes, put_series};
use super::entries::{Decode, Entries};
use crate::Result;
use crate::head::SeriesRef;
use crate::model::Labels;
use crate::varint;

/// Writes definitions.
#[derive(Default)]
pub struct SeriesWriter {
    bytes: Vec<u8>,
    count: usize,
    previous: u64,
    /// Where each string lies in `bytes`, in order of number.
    strings: Vec<(u32, u32)>,
    /// Numbers less one, by the string.
    numbers: HashTable<u32>,
}

impl SeriesWriter {
    /// Adds a series.
    pub fn push(&mut self, series: SeriesRef, labels: &Labels) {
        put_series(&mut self.bytes, &mut self.previous, series);
        varint::put(&mut self.bytes, labels.len() as u64);
        for (name, value) in labels {
            self.put_string(name);
            self.put_string(value);
        }
        self.count += 1;
    }

    /// The record so far.
    pub fn payload(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets all series, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.strings.clear();
        self.numbers.clear();
        (self.count, self.previous) = (0, 0);
    }

    fn put_string(&mut self, text: &str) {
        let (bytes, strings) = (&mut self.bytes, &mut self.strings);
        let at = |number: &u32| {
            let (start, length) = strings[*number as usize];
            start as usize..(start + length) as usize
        };
        let same = |number: &u32| &bytes[at(number)] == text.as_bytes();
        match self.numbers.entry(xxh3_64(text.as_bytes()), same, |number| xxh3_64(&bytes[at(number)])) {
            Entry::Occupied(number) => varint::put(bytes, u64::from(*number.get()) + 1),
            Entry::Vacant(vacant) => {
                vacant.insert(strings.len() as u32);
                varint::put(bytes, 0);
                put_bytes(bytes, text.as_bytes());
                strings.push(((bytes.len() - text.len()) as u32, text.len() as u32));
            }
        }
    }
}

/// Reads definitions.
pub type Series<'a> = Entries<'a, Known<'a>>;

/// What the next definition is read against.
#[derive(Default)]
pub struct Known<'a> {
    series: u64,
    strings: Vec<&'a str>,
    /// Labels of the series at hand.
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Decode<'a> for Known<'a> {
    type Entry = (SeriesRef, Labels);
    const WHAT: &'static str = "WAL record of series";

    fn decode(&mut self, rest: &mut Rest<'a>) -> Result<Self::Entry> {
        let series = rest.series(&mut self.series)?;
        let count = rest.count(2)?;
        self.pairs.clear();
        for _ in 0..count {
            let (name, value) = (self.string(rest)?, self.string(rest)?);
            if value.is_empty() || self.pairs.last().is_some_and(|(previous, _)| *previous >= name) {
                return Err(rest.error("names aren't sorted and unique, or a value is empty"));
            }
            self.pairs.push((name, value));
        }
        Ok((series, Labels::from_sorted(self.pairs.iter().copied())))
    }
}

impl<'a> Known<'a> {
    fn string(&mut self, rest: &mut Rest<'a>) -> Result<&'a str> {
        let number = rest.unsigned()?;
        if number == 0 {
            let text = rest.string()?;
            self.strings.push(text);
            return Ok(text);
        }
        let known = usize::try_from(number - 1).ok().and_then(|at| self.strings.get(at));
        known.copied().ok_or_else(|| rest.error(format!("there is no string {number}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(all: &[(SeriesRef, Labels)]) -> Vec<u8> {
        let mut writer = SeriesWriter::default();
        all.iter().for_each(|(series, labels)| writer.push(*series, labels));
        let read: Vec<_> = Series::new(writer.payload()).map(Result::unwrap).collect();
        assert_eq!(read, all);
        writer.payload().to_vec()
    }

    #[test]
    fn series_of_a_scrape_share_their_strings() {
        let all: Vec<_> = (0..1_000)
            .map(|i| {
                let (cpu, mode) = ((i / 8).to_string(), ["user", "system", "idle", "iowait"][i % 4]);
                let pairs = [
                    ("__name__", "node_cpu_seconds_total"),
                    ("cpu", cpu.as_str()),
                    ("instance", "node-17.example.org:9100"),
                    ("job", "node"),
                    ("mode", mode),
                ];
                (SeriesRef::from_u64(8 * i as u64), Labels::from_sorted(pairs))
            })
            .collect();
        let bytes = round_trip(&all).len();
        assert!(bytes < 15 * all.len(), "{bytes} bytes for {} series", all.len());
    }

    #[test]
    fn a_writer_used_again_starts_afresh() {
        let series = (SeriesRef::from_u64(5), Labels::from_sorted([("a", "b")]));
        let mut writer = SeriesWriter::default();
        writer.push(series.0, &series.1);
        let first = writer.payload().to_vec();
        writer.clear();
        assert!(writer.is_empty());
        writer.push(series.0, &series.1);
        assert_eq!((writer.payload(), writer.len()), (&*first, 1));
    }

    #[test]
    fn labels_out_of_order_are_refused() {
        let mut bytes = vec![0, 2];
        for text in ["b", "1", "a", "1"] {
            bytes.push(0);
            put_bytes(&mut bytes, text.as_bytes());
        }
        assert!(Series::new(&bytes).next().unwrap().is_err());
        assert!(Series::new(&[0, 1, 5, 5]).next().unwrap().is_err(), "a string that nobody wrote");
    }

    proptest! {
        #[test]
        fn definitions_round_trip(
            all in prop::collection::vec((any::<u64>(), prop::collection::btree_map("[a-c]{0,3}", "\\PC{1,4}", 0..5)), 0..30)
        ) {
            let all: Vec<_> = all
                .into_iter()
                .map(|(series, pairs)| {
                    let pairs = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()));
                    (SeriesRef::from_u64(series), Labels::from_sorted(pairs))
                })
                .collect();
            round_trip(&all);
        }

        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(0..20u8, 0..300)) {
            for (_, labels) in Series::new(&bytes).flatten() {
                prop_assert_eq!(Labels::from_bytes(labels.as_bytes()).unwrap(), labels);
            }
        }
    }
}
