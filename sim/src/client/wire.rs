//! Remote write 1.0, written by hand: an encoder that shares no line with the node's decoder.
//!
//! ```text
//! WriteRequest   0x0a length TimeSeries  …repeated
//! TimeSeries     0x0a length Label       …repeated, sorted by name
//!                0x12 length Sample
//! Label          0x0a length name        0x12 length value
//! Sample         0x09 f64 little endian  0x10 varint timestamp in ms
//! ```

/// Headers that go with a body.
pub const HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

/// One sample of a series with sorted labels.
pub struct Row<'a> {
    /// Sorted by name.
    pub labels: &'a [(&'a str, &'a str)],
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The value.
    pub value: f64,
}

/// A compressed request.
pub fn request(rows: &[Row<'_>]) -> Vec<u8> {
    let mut plain = Vec::new();
    for row in rows {
        let mut series = Vec::new();
        for (name, value) in row.labels {
            let mut label = Vec::new();
            message(&mut label, 0x0a, name.as_bytes());
            message(&mut label, 0x12, value.as_bytes());
            message(&mut series, 0x0a, &label);
        }
        let mut sample = vec![0x09];
        sample.extend_from_slice(&row.value.to_le_bytes());
        sample.push(0x10);
        varint(&mut sample, row.timestamp_ms.cast_unsigned());
        message(&mut series, 0x12, &sample);
        message(&mut plain, 0x0a, &series);
    }
    snap::raw::Encoder::new().compress_vec(&plain).expect("a batch is far below snappy's 4 GiB")
}

fn message(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}
