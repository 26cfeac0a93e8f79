//! Samples as a remote write 1.0 request: protobuf in snappy.
//!
//! ```text
//! WriteRequest { 1: TimeSeries* }
//! TimeSeries   { 1: Label*, 2: Sample*, 4: Histogram* }     Label { 1: name, 2: value }
//! Sample       { 1: value double, 2: timestamp int64 }
//! Histogram    { 2: count double, 3: sum double, 4: schema sint32, 5: zero threshold double, 7: zero count double,
//!                8: negative Span*, 10: negative counts double*, 11: positive Span*, 13: positive counts double*,
//!                14: reset hint, 15: timestamp int64 }         Span { 1: offset sint32, 2: length uint32 }
//! ```

use tsdb::model::{FloatHistogram, Labels, Sample, Span, Value};

/// The body of one request.
pub fn encode(series: &[(Labels, Vec<Sample>)]) -> Result<Vec<u8>, String> {
    let mut request = Message::default();
    for (labels, samples) in series {
        let mut message = Message::default();
        for (name, value) in labels {
            let mut label = Message::default();
            label.bytes(1, name.as_bytes()).bytes(2, value.as_bytes());
            message.bytes(1, &label.0);
        }
        for sample in samples {
            match &sample.value {
                Value::Float(value) => {
                    let mut float = Message::default();
                    float.double(1, *value).varint(2, sample.timestamp_ms.cast_unsigned());
                    message.bytes(2, &float.0);
                }
                Value::Int(value) => {
                    message.bytes(4, &histogram(&value.to_float(), sample.timestamp_ms).0);
                }
                Value::Histogram(value) => {
                    message.bytes(4, &histogram(value, sample.timestamp_ms).0);
                }
            }
        }
        request.bytes(1, &message.0);
    }
    snap::raw::Encoder::new().compress_vec(&request.0).map_err(|e| e.to_string())
}

fn histogram(h: &FloatHistogram, timestamp_ms: i64) -> Message {
    let mut message = Message::default();
    message.double(2, h.count).double(3, h.sum).varint(4, zigzag(h.schema));
    message.double(5, h.zero_threshold).double(7, h.zero_count);
    message.spans(8, &h.negative_spans).doubles(10, &h.negative_buckets);
    message.spans(11, &h.positive_spans).doubles(13, &h.positive_buckets);
    message.varint(14, h.counter_reset as u64).varint(15, timestamp_ms.cast_unsigned());
    message
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)).cast_unsigned())
}

/// A protobuf message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn varint(&mut self, field: u64, value: u64) -> &mut Self {
        self.raw_varint(field << 3);
        self.raw_varint(value);
        self
    }

    fn double(&mut self, field: u64, value: f64) -> &mut Self {
        self.raw_varint(field << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Self {
        self.raw_varint(field << 3 | 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn spans(&mut self, field: u64, spans: &[Span]) -> &mut Self {
        for span in spans {
            let mut message = Self::default();
            message.varint(1, zigzag(span.offset)).varint(2, u64::from(span.length));
            self.bytes(field, &message.0);
        }
        self
    }

    fn doubles(&mut self, field: u64, values: &[f64]) -> &mut Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(field, &bytes)
    }
}
