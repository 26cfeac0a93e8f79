//! Deletions: samples of the series that match, in a range of time.
//!
//! ```text
//! deletion: | min: signed varint | max: signed varint | matchers: unsigned varint | matcher ... |
//! matcher:  | op u8 | name | value |     op: 0 =, 1 !=, 2 =~, 3 !~; a string is | length: unsigned varint | bytes |
//! ```

use std::ops::RangeInclusive;

use super::Times;
use super::bytes::{Rest, put_bytes, put_signed, put_unsigned};
use crate::Result;
use crate::model::{MatchOp, Matcher};

/// A deletion.
#[derive(Clone, Debug, PartialEq)]
pub struct Deletion {
    /// Which series: those that all of these match.
    pub matchers: Vec<Matcher>,
    /// Which of their samples, by timestamp in milliseconds, both ends included.
    pub times_ms: RangeInclusive<i64>,
}

const OPS: [MatchOp; 4] = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];

/// Writes deletions.
#[derive(Default)]
pub struct TombstonesWriter {
    bytes: Vec<u8>,
    times: Times,
}

impl TombstonesWriter {
    /// Adds a deletion.
    pub fn push(&mut self, deletion: &Deletion) {
        let (min_ms, max_ms) = (*deletion.times_ms.start(), *deletion.times_ms.end());
        put_signed(&mut self.bytes, min_ms);
        put_signed(&mut self.bytes, max_ms);
        put_unsigned(&mut self.bytes, deletion.matchers.len() as u64);
        for matcher in &deletion.matchers {
            let op = OPS.iter().position(|op| *op == matcher.op()).expect("`OPS` has all of them");
            self.bytes.push(op as u8);
            put_bytes(&mut self.bytes, matcher.name().as_bytes());
            put_bytes(&mut self.bytes, matcher.value().as_bytes());
        }
        self.times.add(min_ms);
        self.times.add(max_ms);
    }

    /// The record so far.
    pub fn payload(&self) -> &[u8] {
        &self.bytes
    }

    /// Least and greatest timestamp, in milliseconds.
    pub fn times_ms(&self) -> (i64, i64) {
        (self.times.0, self.times.1)
    }

    /// Whether there is no deletion.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets all deletions, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.times = Times::default();
    }
}

/// Reads deletions.
pub struct Tombstones<'a> {
    rest: Rest<'a>,
}

impl<'a> Tombstones<'a> {
    /// Of a payload that a [`TombstonesWriter`] made.
    pub fn new(payload: &'a [u8]) -> Self {
        Self { rest: Rest::new("WAL record of tombstones", payload) }
    }

    fn decode(&mut self) -> Result<Deletion> {
        let rest = &mut self.rest;
        let times_ms = rest.signed()?..=rest.signed()?;
        let count = rest.count(3)?;
        let mut matcher = || {
            let op = usize::from(rest.byte()?);
            let op = *OPS.get(op).ok_or_else(|| rest.error("no such comparison"))?;
            let (name, value) = (rest.string()?, rest.string()?);
            Matcher::new(op, name, value).map_err(|e| rest.error(e.to_string()))
        };
        let matchers = (0..count).map(|_| matcher()).collect::<Result<_>>()?;
        Ok(Deletion { matchers, times_ms })
    }
}

impl Iterator for Tombstones<'_> {
    type Item = Result<Deletion>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let decoded = self.decode();
        if decoded.is_err() {
            self.rest.stop();
        }
        Some(decoded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wal::TIMELESS;

    proptest! {
        #[test]
        fn deletions_round_trip(all in prop::collection::vec(
            (any::<i64>(), any::<i64>(), prop::collection::vec((0..4usize, "[a-z_]{1,9}", "[a-z|]{0,9}"), 0..4)), 0..5))
        {
            let deletion = |(min, max, matchers): (i64, i64, Vec<(usize, String, String)>)| Deletion {
                matchers: matchers.into_iter().map(|(op, n, v)| Matcher::new(OPS[op], n, v).unwrap()).collect(),
                times_ms: min..=max,
            };
            let all: Vec<_> = all.into_iter().map(deletion).collect();
            let mut writer = TombstonesWriter::default();
            all.iter().for_each(|d| writer.push(d));
            let read: Vec<_> = Tombstones::new(writer.payload()).map(Result::unwrap).collect();
            prop_assert_eq!(read, all);
            writer.clear();
            prop_assert_eq!((writer.is_empty(), writer.times_ms()), (true, TIMELESS));
        }

        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Tombstones::new(&bytes).count() <= bytes.len());
        }
    }
}
