//! Classic histograms as native ones with custom buckets, as `load_with_nhcb` makes them beside the classic series.

use std::collections::BTreeMap;
use std::sync::Arc;

use tsdb::model::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Labels, METRIC_NAME, Sample, Span, Value};

/// What the series of a classic histogram say at one time.
#[derive(Default)]
struct Classic {
    /// Upper bound and cumulative count, ascending.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// A native histogram series for each classic one among `series`.
pub fn convert(series: &[(Labels, Vec<Sample>)]) -> Result<Vec<(Labels, Vec<Sample>)>, String> {
    let mut classics: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for (labels, samples) in series {
        let name = labels.metric_name();
        let (base, suffix) = match name.rfind('_') {
            Some(at) if matches!(&name[at..], "_bucket" | "_count" | "_sum") => name.split_at(at),
            _ => continue,
        };
        let bound = match (suffix, labels.value("le").parse::<f64>()) {
            ("_bucket", Ok(bound)) if !bound.is_nan() => bound,
            ("_bucket", _) => continue,
            _ => f64::NAN,
        };
        let base = labels.to_builder().set(METRIC_NAME, base).remove("le").labels();
        let by_time = classics.entry(base).or_default();
        for sample in samples {
            let Value::Float(value) = sample.value else { continue };
            let classic = by_time.entry(sample.timestamp_ms).or_default();
            match suffix {
                "_bucket" => classic.set_bucket(bound, value),
                "_count" => classic.count = Some(value),
                _ => classic.sum = value,
            }
        }
    }
    let to_samples = |by_time: BTreeMap<i64, Classic>| -> Result<Vec<Sample>, String> {
        let histograms = by_time.into_iter().map(|(timestamp_ms, classic)| {
            let value = Value::Histogram(Arc::new(classic.into_native()?));
            Ok(Sample { timestamp_ms, start_ms: 0, value })
        });
        histograms.collect()
    };
    classics.into_iter().map(|(labels, by_time)| Ok((labels, to_samples(by_time)?))).collect()
}

impl Classic {
    /// Of bounds that are written differently but equal, the first counts.
    fn set_bucket(&mut self, bound: f64, count: f64) {
        let at = self.buckets.partition_point(|(b, _)| *b < bound);
        if self.buckets.get(at).is_none_or(|(b, _)| *b != bound) {
            self.buckets.insert(at, (bound, count));
        }
    }

    fn into_native(mut self) -> Result<FloatHistogram, String> {
        let count = self.count.unwrap_or_else(|| self.buckets.last().map_or(0.0, |(_, count)| *count));
        if self.buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let mut below = 0.0;
        let mut counts = Vec::with_capacity(self.buckets.len());
        for (bound, cumulative) in &self.buckets {
            if *cumulative < below {
                return Err(format!("the bucket up to {bound} holds fewer than those below it"));
            }
            counts.push(cumulative - below);
            below = *cumulative;
        }
        let bounds: Vec<f64> =
            self.buckets.iter().map(|(bound, _)| *bound).filter(|b| *b != f64::INFINITY).collect();
        let length = u32::try_from(counts.len()).map_err(|e| e.to_string())?;
        Ok(FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_spans: vec![Span { offset: 0, length }],
            positive_buckets: counts,
            custom_values: Some(Arc::from(bounds)),
            ..FloatHistogram::default()
        })
    }
}
