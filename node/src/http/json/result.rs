//! A query's result as a body that is written while it is sent: memory is the result plus one piece.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::Frame;
use promql::Held;
use promql::value::{Point, Sample, SampleValue, Series, Value};
use tsdb::model::FloatHistogram;

use super::number::{push_float, push_plain, push_short_timestamp, push_timestamp};
use super::point::FloatPoints;
use super::text::{push_labels, push_string};

/// A piece is handed on once it has this many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// Room for what follows in a piece that was almost full: a point, or a series' labels.
const PIECE_SLACK_BYTES: usize = 4 << 10;

/// The data of a query: `{"resultType":…,"result":…}` between a head and a tail.
pub struct ResultBody {
    piece: Vec<u8>,
    points: FloatPoints,
    rest: Rest,
    tail: Vec<u8>,
    /// Pays for what isn't written yet.
    _held: Held,
}

/// What isn't written yet.
enum Rest {
    /// Instant vector.
    Vector(std::vec::IntoIter<Sample>),
    /// Matrix: the series to come, and the current one with the number of points that are written.
    Matrix(std::vec::IntoIter<Series>, Option<(Series, usize)>),
    /// Only the tail.
    Tail,
    /// Nothing.
    Done,
}

impl ResultBody {
    /// A body of `head`, the result, for which `held` pays, and `tail`.
    pub fn new(head: &[u8], value: Value, held: Held, tail: Vec<u8>) -> Self {
        let mut piece = Vec::with_capacity(1024);
        piece.extend_from_slice(head);
        let kind: &[u8] = match &value {
            Value::Scalar(_) => b"scalar",
            Value::String(_) => b"string",
            Value::Vector(_) => b"vector",
            Value::Matrix(_) => b"matrix",
        };
        piece.extend_from_slice(b"{\"resultType\":\"");
        piece.extend_from_slice(kind);
        piece.extend_from_slice(b"\",\"result\":[");
        let rest = match value {
            Value::Scalar(Point { timestamp_ms, value }) => {
                push_short_timestamp(&mut piece, timestamp_ms);
                piece.extend_from_slice(b",\"");
                push_plain(&mut piece, value);
                piece.push(b'"');
                Rest::Tail
            }
            Value::String(Point { timestamp_ms, value }) => {
                push_short_timestamp(&mut piece, timestamp_ms);
                piece.push(b',');
                push_string(&mut piece, &value);
                Rest::Tail
            }
            Value::Vector(samples) => Rest::Vector(samples.into_iter()),
            Value::Matrix(series) => Rest::Matrix(series.into_iter(), None),
        };
        Self { piece, points: FloatPoints::default(), rest, tail, _held: held }
    }

    /// As a body: in one piece with its length where it is short, else streamed. Does the work of the first piece.
    pub fn into_body(mut self) -> Body {
        self.fill();
        match self.rest {
            Rest::Done => Body::from(self.piece),
            _ => Body::new(self),
        }
    }

    /// Writes until the piece is full or nothing is left.
    fn fill(&mut self) {
        loop {
            if self.piece.len() >= PIECE_BYTES {
                return;
            }
            match &mut self.rest {
                Rest::Vector(samples) => match samples.next() {
                    Some(sample) => {
                        comma(&mut self.piece);
                        push_sample(&mut self.piece, &mut self.points, &sample);
                    }
                    None => self.rest = Rest::Tail,
                },
                Rest::Matrix(to_come, current) => match current {
                    Some((series, written)) => {
                        if push_points(&mut self.piece, &mut self.points, series, written) {
                            *current = None;
                        }
                    }
                    None => match to_come.next() {
                        Some(series) => {
                            comma(&mut self.piece);
                            self.piece.extend_from_slice(b"{\"metric\":");
                            push_labels(&mut self.piece, &series.labels);
                            *current = Some((series, 0));
                        }
                        None => self.rest = Rest::Tail,
                    },
                },
                Rest::Tail => {
                    self.piece.extend_from_slice(b"]");
                    self.piece.append(&mut self.tail);
                    self.rest = Rest::Done;
                }
                Rest::Done => return,
            }
        }
    }
}

impl hyper::body::Body for ResultBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.fill();
        if self.piece.is_empty() {
            return Poll::Ready(None);
        }
        let room = match self.rest {
            Rest::Done => 0,
            _ => PIECE_BYTES + PIECE_SLACK_BYTES,
        };
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(room));
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.rest, Rest::Done) && self.piece.is_empty()
    }
}

/// A comma between elements, but not behind the opening bracket. A piece that is empty follows an element.
fn comma(piece: &mut Vec<u8>) {
    if piece.last() != Some(&b'[') {
        piece.push(b',');
    }
}

fn push_sample(out: &mut Vec<u8>, points: &mut FloatPoints, sample: &Sample) {
    out.extend_from_slice(b"{\"metric\":");
    push_labels(out, &sample.labels);
    match &sample.value {
        SampleValue::Float(value) => {
            out.extend_from_slice(b",\"value\":");
            points.push(out, sample.timestamp_ms, *value);
        }
        SampleValue::Histogram(histogram) => {
            out.extend_from_slice(b",\"histogram\":");
            push_histogram_point(out, sample.timestamp_ms, histogram);
        }
    }
    out.push(b'}');
}

/// Writes points from the one numbered `written` on until the piece is full; true when the series is complete.
fn push_points(out: &mut Vec<u8>, points: &mut FloatPoints, series: &Series, written: &mut usize) -> bool {
    let floats = series.floats.len();
    let all = floats + series.histograms.len();
    while *written < all {
        if out.len() >= PIECE_BYTES {
            return false;
        }
        let at = *written;
        *written += 1;
        if let Some(point) = series.floats.get(at) {
            out.extend_from_slice(if at == 0 { b",\"values\":[" } else { b"," });
            points.push(out, point.timestamp_ms, point.value);
        } else {
            let point: &Point<Arc<FloatHistogram>> = &series.histograms[at - floats];
            out.extend_from_slice(if at == floats { b",\"histograms\":[" } else { b"," });
            push_histogram_point(out, point.timestamp_ms, &point.value);
        }
        if *written == floats || *written == all {
            out.push(b']');
        }
    }
    out.push(b'}');
    true
}

fn push_histogram_point(out: &mut Vec<u8>, timestamp_ms: i64, histogram: &FloatHistogram) {
    out.push(b'[');
    push_timestamp(out, timestamp_ms);
    out.push(b',');
    push_histogram(out, histogram);
    out.push(b']');
}

/// `{"count":"3","sum":"7.5","buckets":[[0,"0.5","1","2"],…]}`; the first number of a bucket says which bounds belong
/// to it: 0 the upper, 1 the lower, 3 both.
fn push_histogram(out: &mut Vec<u8>, histogram: &FloatHistogram) {
    let quoted = |out: &mut Vec<u8>, value| {
        out.push(b'"');
        push_float(out, value);
        out.push(b'"');
    };
    out.extend_from_slice(b"{\"count\":");
    quoted(out, histogram.count);
    out.extend_from_slice(b",\"sum\":");
    quoted(out, histogram.sum);
    let custom = histogram.has_custom_buckets();
    let buckets = promql::buckets(histogram);
    for (i, bucket) in buckets.iter().enumerate() {
        let is_zero_bucket = !custom && bucket.lower == -bucket.upper;
        let lower_belongs = if custom { bucket.lower == f64::NEG_INFINITY } else { bucket.lower < 0.0 };
        let bounds = match (is_zero_bucket || lower_belongs, is_zero_bucket || custom || bucket.upper > 0.0) {
            (false, true) => b'0',
            (true, false) => b'1',
            (false, false) => b'2',
            (true, true) => b'3',
        };
        out.extend_from_slice(if i == 0 { b",\"buckets\":[[" } else { b",[" });
        out.push(bounds);
        for value in [bucket.lower, bucket.upper, bucket.count] {
            out.push(b',');
            quoted(out, value);
        }
        out.push(b']');
    }
    out.extend_from_slice(if buckets.is_empty() { b"}" } else { b"]}" });
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tsdb::model::{Labels, Span};

    use super::*;

    async fn written(value: Value) -> String {
        let body = ResultBody::new(b"", value, Held::default(), b"}".to_vec()).into_body();
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    fn labels(value: &str) -> Labels {
        Labels::from_pairs([("a", value)]).unwrap()
    }

    fn histogram() -> Arc<FloatHistogram> {
        Arc::new(FloatHistogram {
            count: 9.0,
            sum: -1.5,
            zero_threshold: 0.25,
            zero_count: 3.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![2.0, 0.0],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            negative_buckets: vec![4.0],
            ..FloatHistogram::default()
        })
    }

    #[tokio::test]
    async fn each_kind_has_its_shape() {
        let point = Point { timestamp_ms: 1500, value: 1e21 };
        assert_eq!(
            written(Value::Scalar(point)).await,
            r#"{"resultType":"scalar","result":[1.5,"1000000000000000000000"]}"#
        );
        let point = Point { timestamp_ms: 4000, value: "a\"b".to_owned() };
        assert_eq!(written(Value::String(point)).await, r#"{"resultType":"string","result":[4,"a\"b"]}"#);
        assert_eq!(written(Value::Vector(vec![])).await, r#"{"resultType":"vector","result":[]}"#);
        let value = SampleValue::Float(f64::INFINITY);
        let samples = ["x", "y"].map(|l| Sample { labels: labels(l), timestamp_ms: 1, value: value.clone() });
        assert_eq!(
            written(Value::Vector(samples.to_vec())).await,
            r#"{"resultType":"vector","result":[{"metric":{"a":"x"},"value":[0.001,"+Inf"]},{"metric":{"a":"y"},"value":[0.001,"+Inf"]}]}"#
        );
    }

    #[tokio::test]
    async fn histograms_name_the_bounds_that_belong() {
        let series = Series {
            labels: Labels::default(),
            floats: vec![Point { timestamp_ms: 1000, value: 1.0 }, Point { timestamp_ms: 2000, value: 2.0 }],
            histograms: vec![Point { timestamp_ms: 3000, value: histogram() }],
        };
        assert_eq!(
            written(Value::Matrix(vec![series])).await,
            concat!(
                r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"],[2,"2"]],"histograms":[[3,"#,
                r#"{"count":"9","sum":"-1.5","buckets":[[1,"-2","-1","4"],[3,"-0.25","0.25","3"],[0,"0.5","1","2"]]}"#,
                r#"]]}]}"#
            )
        );
    }

    #[tokio::test]
    async fn a_long_result_is_the_same_in_pieces() {
        let series = |n: usize| Series {
            labels: labels(&n.to_string()),
            floats: (0..n as i64 * 100)
                .map(|i| Point { timestamp_ms: i * 1000, value: i as f64 / 3.0 })
                .collect(),
            histograms: (0..n as i64).map(|i| Point { timestamp_ms: i, value: histogram() }).collect(),
        };
        let all: Vec<_> = (1..60).map(series).collect();
        let text = written(Value::Matrix(all.clone())).await;
        assert!(text.len() > 20 * PIECE_BYTES);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        let result = parsed["result"].as_array().unwrap();
        assert_eq!(result.len(), all.len());
        for (found, sent) in result.iter().zip(&all) {
            assert_eq!(found["values"].as_array().unwrap().len(), sent.floats.len());
            assert_eq!(found["histograms"].as_array().unwrap().len(), sent.histograms.len());
        }
    }
}
