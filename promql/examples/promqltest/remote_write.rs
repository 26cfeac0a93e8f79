//! Samples as a remote write 2.0 request: protobuf in snappy.
//!
//! ```text
//! Request    { 4: symbol string*, 5: TimeSeries* }
//! TimeSeries { 1: label refs uint32*, 2: Sample*, 3: Histogram* }
//! Sample     { 1: value double, 2: timestamp int64, 3: start timestamp int64 }
//! Histogram  { 2: count double, 3: sum double, 4: schema sint32, 5: zero threshold double, 7: zero count double,
//!              8: negative Span*, 10: negative counts double*, 11: positive Span*, 13: positive counts double*,
//!              14: reset hint, 15: timestamp int64, 16: custom values double*, 17: start timestamp int64 }
//! Span       { 1: offset sint32, 2: length uint32 }
//! ```

use std::collections::BTreeMap;

use tsdb::model::{FloatHistogram, Labels, Sample, Span, Value};

/// The body of one request.
pub fn encode(series: &[(Labels, Vec<Sample>)]) -> Result<Vec<u8>, String> {
    let mut symbols = BTreeMap::from([("", 0)]);
    let mut request = Message::default();
    request.bytes(4, b"");
    for (labels, samples) in series {
        let mut refs = Message::default();
        for text in labels.iter().flat_map(|(name, value)| [name, value]) {
            let next = symbols.len() as u64;
            let symbol = *symbols.entry(text).or_insert_with(|| {
                request.bytes(4, text.as_bytes());
                next
            });
            refs.raw_varint(symbol);
        }
        let (mut floats, mut histograms) = (Message::default(), Message::default());
        for sample in samples {
            match &sample.value {
                Value::Float(value) => {
                    let mut float = Message::default();
                    float.double(1, *value).varint(2, sample.timestamp_ms.cast_unsigned());
                    float.varint(3, sample.start_ms.cast_unsigned());
                    floats.bytes(2, &float.0);
                }
                Value::Int(value) => {
                    histograms.bytes(3, &histogram(&value.to_float(), sample).0);
                }
                Value::Histogram(value) => {
                    histograms.bytes(3, &histogram(value, sample).0);
                }
            }
        }
        // A message holds one kind of samples.
        for samples in [floats, histograms] {
            if !samples.0.is_empty() {
                let mut message = Message::default();
                message.bytes(1, &refs.0);
                message.0.extend(samples.0);
                request.bytes(5, &message.0);
            }
        }
    }
    snap::raw::Encoder::new().compress_vec(&request.0).map_err(|e| e.to_string())
}

fn histogram(h: &FloatHistogram, sample: &Sample) -> Message {
    let mut message = Message::default();
    message.double(2, h.count).double(3, h.sum).varint(4, zigzag(h.schema));
    message.double(5, h.zero_threshold).double(7, h.zero_count);
    message.spans(8, &h.negative_spans).doubles(10, &h.negative_buckets);
    message.spans(11, &h.positive_spans).doubles(13, &h.positive_buckets);
    message.varint(14, h.counter_reset as u64).varint(15, sample.timestamp_ms.cast_unsigned());
    message.doubles(16, h.custom_values.as_deref().unwrap_or_default());
    message.varint(17, sample.start_ms.cast_unsigned());
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
