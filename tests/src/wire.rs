//! Remote write 1.0 requests, right and wrong ones.

use node::bench::payload::{encode_labels, push_series};

/// Labels, value and timestamp in milliseconds.
pub type Sample<'a> = (&'a [(&'a str, &'a str)], f64, i64);

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
