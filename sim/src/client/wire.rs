//! Remote write 1.0, written by hand: an encoder that shares no line with the node's decoder.
//!
//! ```text
//! WriteRequest   0x0a length TimeSeries  …repeated
//! TimeSeries     0x0a length Label       …repeated, sorted by name
//!                0x12 length Sample      …repeated
//!                0x22 length Histogram   …repeated
//! Label          0x0a length name        0x12 length value
//! Sample         0x09 f64 little endian  0x10 varint timestamp in ms
//! Histogram      0x08 varint count       0x19 f64 sum            0x20 zigzag schema
//!                0x29 f64 zero threshold 0x30 varint zero count
//!                0x5a length span        0x62 length zigzag deltas of bucket counts
//!                0x70 varint reset hint  0x78 varint timestamp in ms
//! span           0x08 zigzag offset      0x10 varint length
//! ```

use super::ledger::{Histogram, Value};

/// Headers that go with a body.
pub const HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

/// A stale marker's bits: one of many NaNs (Prometheus, `model/value`).
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;
/// The reset hints for "ask the counts" and "it began anew".
const HINT_UNKNOWN: u64 = 0;
const HINT_RESET: u64 = 1;

/// Some samples of one series.
pub struct Series<'a> {
    /// Sorted by name.
    pub labels: [(&'static str, String); 4],
    /// Timestamps, in milliseconds since the Unix epoch, and values; in order.
    pub samples: &'a [(i64, Value)],
}

/// A compressed request.
pub fn request(all: &[Series<'_>]) -> Vec<u8> {
    let mut plain = Vec::new();
    for one in all {
        let mut series = Vec::new();
        for (name, value) in &one.labels {
            let mut label = Vec::new();
            message(&mut label, 0x0a, name.as_bytes());
            message(&mut label, 0x12, value.as_bytes());
            message(&mut series, 0x0a, &label);
        }
        for (timestamp_ms, value) in one.samples {
            match value {
                Value::Float(value) => message(&mut series, 0x12, &float(*timestamp_ms, *value)),
                Value::Stale => {
                    message(&mut series, 0x12, &float(*timestamp_ms, f64::from_bits(STALE_BITS)));
                }
                Value::Histogram(value) => message(&mut series, 0x22, &histogram(*timestamp_ms, value)),
            }
        }
        message(&mut plain, 0x0a, &series);
    }
    snap::raw::Encoder::new().compress_vec(&plain).expect("a batch is far below snappy's 4 GiB")
}

fn float(timestamp_ms: i64, value: f64) -> Vec<u8> {
    let mut out = Vec::new();
    double(&mut out, 0x09, value);
    field(&mut out, 0x10, timestamp_ms.cast_unsigned());
    out
}

fn histogram(timestamp_ms: i64, value: &Histogram) -> Vec<u8> {
    let [first, second] = value.buckets().map(u64::cast_signed);
    let mut out = Vec::new();
    field(&mut out, 0x08, value.count());
    double(&mut out, 0x19, value.sum);
    field(&mut out, 0x20, zigzag(0));
    double(&mut out, 0x29, 0.001);
    field(&mut out, 0x30, 0);
    let mut span = Vec::new();
    field(&mut span, 0x08, zigzag(0));
    field(&mut span, 0x10, 2);
    message(&mut out, 0x5a, &span);
    let mut deltas = Vec::new();
    varint(&mut deltas, zigzag(first));
    varint(&mut deltas, zigzag(second - first));
    message(&mut out, 0x62, &deltas);
    field(&mut out, 0x70, if value.is_reset { HINT_RESET } else { HINT_UNKNOWN });
    field(&mut out, 0x78, timestamp_ms.cast_unsigned());
    out
}

fn message(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn double(out: &mut Vec<u8>, tag: u8, value: f64) {
    out.push(tag);
    out.extend_from_slice(&value.to_le_bytes());
}

fn field(out: &mut Vec<u8>, tag: u8, number: u64) {
    out.push(tag);
    varint(out, number);
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}
