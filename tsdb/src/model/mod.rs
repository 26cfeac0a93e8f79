//! What everybody talks about: labels, matchers, samples, histograms, tenants.

mod histogram;
mod labels;
mod matcher;
mod regex;
mod reset;
mod sample;
mod tenant;

pub use histogram::{
    CUSTOM_BUCKETS_SCHEMA, Count, CounterReset, FloatHistogram, Histogram, IntHistogram, Span, bucket_indexes,
};
pub use labels::{Labels, LabelsBuilder};
pub use matcher::{MatchOp, Matcher};
pub use regex::{COMPILED_BYTES_MAX, PATTERN_BYTES_MAX, anchored_regex};
pub use sample::{STALE_NAN_BITS, Sample, Value, is_stale, prefer, prefer_float, prefer_value, stale_nan};
pub use tenant::{TENANT_ID_BYTES_MAX, TenantId};

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";
