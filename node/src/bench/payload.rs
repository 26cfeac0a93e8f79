//! Remote write 1.0 requests from a [`Workload`], made while they are sent, at a few tens of nanoseconds a sample.
//!
//! A request is a snappy block of a protobuf message:
//!
//! ```text
//! WriteRequest   0x0a length TimeSeries  …repeated
//! TimeSeries     0x0a length Label       …repeated, sorted by name
//!                0x12 length Sample      …repeated
//! Label          0x0a length name        0x12 length value
//! Sample         0x09 f64 little endian  0x10 varint timestamp in ms
//! ```
//!
//! Series are dealt over the connections as Prometheus deals them over its shards: each series always goes over the
//! same connection, in order. A connection's batches run on from scrape to scrape, so their boundaries shift.

use bytes::Bytes;
use tsdb::varint;

use super::workload::Workload;

const TAG_SERIES: u8 = 0x0a;
const TAG_LABEL: u8 = 0x0a;
const TAG_STRING_1: u8 = 0x0a;
const TAG_STRING_2: u8 = 0x12;
const TAG_SAMPLE: u8 = 0x12;
const TAG_VALUE: u8 = 0x09;
const TAG_TIMESTAMP: u8 = 0x10;

/// When a stream of scrapes happens.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Of the first scrape, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// Between scrapes, in milliseconds.
    pub step_ms: i64,
    /// How many scrapes.
    pub scrapes: usize,
}

impl Timing {
    /// After the last sample: the end of a query over all of them.
    pub fn end_ms(&self) -> i64 {
        self.start_ms + self.step_ms * self.scrapes as i64
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The compressed body.
    pub body: Bytes,
    /// Samples in it.
    pub samples: usize,
    /// How many scrapes this connection will have sent completely with it.
    pub scrapes_done: usize,
}

/// The requests of one connection, in order.
pub struct Requests {
    workload: Workload,
    timing: Timing,
    batch: usize,
    /// Series of this connection, with their labels encoded once.
    series: Vec<(usize, Box<[u8]>)>,
    scrape: usize,
    next: usize,
    plain: Vec<u8>,
    compressor: snap::raw::Encoder,
}

impl Requests {
    /// Those of connection `connection` out of `connections`, with `batch` series (at least 1) a request.
    pub fn new(
        workload: &Workload,
        timing: Timing,
        connection: usize,
        connections: usize,
        batch: usize,
    ) -> Self {
        assert!(batch > 0 && connection < connections, "a connection sends something");
        let series = (connection..workload.series())
            .step_by(connections)
            .map(|series| (series, encode_labels(&workload.labels(series))))
            .collect();
        Self {
            workload: workload.clone(),
            timing,
            batch,
            series,
            scrape: 0,
            next: 0,
            plain: Vec::new(),
            compressor: snap::raw::Encoder::new(),
        }
    }
}

impl Iterator for Requests {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        self.plain.clear();
        let mut samples = 0;
        while samples < self.batch && self.scrape < self.timing.scrapes && !self.series.is_empty() {
            let (series, labels) = &self.series[self.next];
            let begin_ms = self.timing.start_ms + self.timing.step_ms * self.scrape as i64;
            let timestamp_ms = begin_ms + self.workload.offset_ms(*series, self.timing.step_ms);
            let sample = (timestamp_ms, self.workload.value(*series, self.scrape));
            push_series(&mut self.plain, labels, &[sample]);
            samples += 1;
            self.next += 1;
            if self.next == self.series.len() {
                self.next = 0;
                self.scrape += 1;
            }
        }
        if samples == 0 {
            return None;
        }
        let body = self.compressor.compress_vec(&self.plain).expect("a batch is far below snappy's 4 GiB");
        let body = Bytes::from(body);
        Some(Request { body, samples, scrapes_done: self.scrape })
    }
}

/// The label fields of a `TimeSeries`.
pub fn encode_labels<N: AsRef<str>, V: AsRef<str>>(labels: &[(N, V)]) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(256);
    for (name, value) in labels {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref().as_bytes());
        let length = 2
            + varint::length(name.len() as u64)
            + varint::length(value.len() as u64)
            + name.len()
            + value.len();
        bytes.push(TAG_LABEL);
        varint::put(&mut bytes, length as u64);
        for (tag, text) in [(TAG_STRING_1, name), (TAG_STRING_2, value)] {
            bytes.push(tag);
            varint::put(&mut bytes, text.len() as u64);
            bytes.extend_from_slice(text);
        }
    }
    bytes.into()
}

/// Appends a `TimeSeries` of samples, each a timestamp in milliseconds and a value, to a `WriteRequest`.
pub fn push_series(bytes: &mut Vec<u8>, labels: &[u8], samples: &[(i64, f64)]) {
    let length = |(timestamp_ms, _): &(i64, f64)| 1 + 8 + 1 + varint::length(*timestamp_ms as u64);
    let field = |sample| 1 + varint::length(length(sample) as u64) + length(sample);
    bytes.push(TAG_SERIES);
    varint::put(bytes, (labels.len() + samples.iter().map(field).sum::<usize>()) as u64);
    bytes.extend_from_slice(labels);
    for sample in samples {
        bytes.push(TAG_SAMPLE);
        varint::put(bytes, length(sample) as u64);
        bytes.push(TAG_VALUE);
        bytes.extend_from_slice(&sample.1.to_le_bytes());
        bytes.push(TAG_TIMESTAMP);
        varint::put(bytes, sample.0 as u64);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Pairs = Vec<(String, String)>;

    /// Reads (labels, value, timestamp) back from a body, trusting its shape.
    pub fn decode(body: &[u8]) -> Vec<(Pairs, f64, i64)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    return value;
                }
                shift += 7;
            }
        }
        fn field<'a>(bytes: &mut &'a [u8]) -> (u8, &'a [u8]) {
            let tag = bytes[0];
            *bytes = &bytes[1..];
            let length = varint(bytes) as usize;
            let (text, rest) = bytes.split_at(length);
            *bytes = rest;
            (tag, text)
        }
        let plain = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        let (mut rest, mut all) = (&plain[..], Vec::new());
        while !rest.is_empty() {
            let (_, mut series) = field(&mut rest);
            let mut labels = Vec::new();
            while !series.is_empty() {
                let (tag, mut bytes) = field(&mut series);
                if tag == TAG_SAMPLE {
                    assert_eq!((bytes[0], bytes[9]), (TAG_VALUE, TAG_TIMESTAMP));
                    let value = f64::from_le_bytes(bytes[1..9].try_into().unwrap());
                    bytes = &bytes[10..];
                    all.push((labels.clone(), value, varint(&mut bytes) as i64));
                    assert!(bytes.is_empty());
                    continue;
                }
                let (name, value) = (field(&mut bytes).1, field(&mut bytes).1);
                let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
                labels.push((text(name), text(value)));
            }
        }
        all
    }

    const TIMING: Timing = Timing { start_ms: 1_700_000_000_000, step_ms: 15_000, scrapes: 3 };

    #[test]
    fn all_samples_of_all_scrapes_are_sent_once_and_in_order() {
        let workload = Workload::new(501, 3);
        let mut seen: BTreeMap<Pairs, Vec<(i64, u64)>> = BTreeMap::new();
        for connection in 0..4 {
            for request in Requests::new(&workload, TIMING, connection, 4, 100) {
                let samples = decode(&request.body);
                assert_eq!(samples.len(), request.samples);
                for (labels, value, timestamp_ms) in samples {
                    seen.entry(labels).or_default().push((timestamp_ms, value.to_bits()));
                }
            }
        }
        assert_eq!(seen.len(), 501);
        for series in 0..501 {
            let labels: Vec<_> =
                workload.labels(series).into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
            let offset_ms = workload.offset_ms(series, TIMING.step_ms);
            let expected: Vec<_> = (0..3)
                .map(|s| {
                    (TIMING.start_ms + s as i64 * 15_000 + offset_ms, workload.value(series, s).to_bits())
                })
                .collect();
            assert_eq!(seen[&labels], expected);
        }
    }

    #[test]
    fn batch_boundaries_shift_from_scrape_to_scrape() {
        let requests: Vec<_> = Requests::new(&Workload::new(250, 1), TIMING, 0, 1, 100).collect();
        assert_eq!(
            requests.iter().map(|r| r.samples).collect::<Vec<_>>(),
            [100, 100, 100, 100, 100, 100, 100, 50]
        );
        assert_eq!(requests.iter().map(|r| r.scrapes_done).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2, 2, 3]);
    }

    #[test]
    fn varint_lengths_are_those_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX] {
            let mut bytes = Vec::new();
            varint::put(&mut bytes, value);
            assert_eq!(bytes.len(), varint::length(value));
        }
    }
}
