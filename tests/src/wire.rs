//! Remote write 1.0 requests, right and wrong ones.

use node::bench::payload::{encode_labels, push_series};
use tsdb::varint;

/// Labels, value and timestamp in milliseconds.
pub type Sample<'a> = (&'a [(&'a str, &'a str)], f64, i64);

/// What a sample says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Float(f64),
    /// The series ends here.
    Stale,
    /// A native histogram that has counted so much: see [`buckets`].
    Histogram(u32),
}

/// A stale marker's bits: one of many NaNs (Prometheus, `model/value`).
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Counts of the two buckets of a histogram, never empty; its sum is the level itself.
pub fn buckets(level: u32) -> [u64; 2] {
    let level = u64::from(level);
    [level + 1, 2 * level + 1]
}

/// The message, not compressed.
pub fn message(samples: &[Sample<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (labels, value, timestamp_ms) in samples {
        push_series(&mut bytes, &encode_labels(labels), &[(*timestamp_ms, *value)]);
    }
    bytes
}

/// A message as a snappy block.
pub fn compress(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

/// A request's body.
pub fn body(samples: &[Sample<'_>]) -> Vec<u8> {
    compress(&message(samples))
}

/// A request's body with several samples of each series, timestamps in milliseconds and values of any kind.
pub fn mixed_body<'a>(
    all: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], &'a [(i64, Value)])>,
) -> Vec<u8> {
    let mut message = Vec::new();
    for (labels, samples) in all {
        let mut series = encode_labels(labels).into_vec();
        for (timestamp_ms, value) in samples {
            match value {
                Value::Float(value) => field(&mut series, 0x12, &float(*timestamp_ms, *value)),
                Value::Stale => field(&mut series, 0x12, &float(*timestamp_ms, f64::from_bits(STALE_BITS))),
                Value::Histogram(level) => field(&mut series, 0x22, &histogram(*timestamp_ms, *level)),
            }
        }
        field(&mut message, 0x0a, &series);
    }
    compress(&message)
}

fn float(timestamp_ms: i64, value: f64) -> Vec<u8> {
    let mut bytes = vec![0x09];
    bytes.extend_from_slice(&value.to_le_bytes());
    number(&mut bytes, 0x10, timestamp_ms.cast_unsigned());
    bytes
}

/// Of schema 0, with one span that begins at bucket 0.
fn histogram(timestamp_ms: i64, level: u32) -> Vec<u8> {
    let [first, second] = buckets(level);
    // All of them are positive: zigzag doubles them.
    let deltas: Vec<u8> = [first, second - first].iter().fold(Vec::new(), |mut bytes, delta| {
        varint::put(&mut bytes, 2 * delta);
        bytes
    });
    let mut bytes = Vec::new();
    number(&mut bytes, 0x08, first + second);
    bytes.push(0x19);
    bytes.extend_from_slice(&f64::from(level).to_le_bytes());
    // The span: offset 0, length 2.
    field(&mut bytes, 0x5a, &[0x08, 0, 0x10, 2]);
    field(&mut bytes, 0x62, &deltas);
    number(&mut bytes, 0x78, timestamp_ms.cast_unsigned());
    bytes
}

fn number(bytes: &mut Vec<u8>, tag: u8, number: u64) {
    bytes.push(tag);
    varint::put(bytes, number);
}

fn field(bytes: &mut Vec<u8>, tag: u8, content: &[u8]) {
    number(bytes, tag, content.len() as u64);
    bytes.extend_from_slice(content);
}
