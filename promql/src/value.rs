//! What a query gives.

use std::sync::Arc;

use tsdb::model::{FloatHistogram, Labels};

use crate::annotations::Annotations;
use crate::eval::Held;
use crate::eval::row::histogram_bytes;
use crate::explain::Step;

/// A query's outcome.
#[derive(Clone, Debug)]
pub struct Output {
    /// The result.
    pub value: Value,
    /// Warnings and infos.
    pub annotations: Annotations,
    /// What it took.
    pub stats: Stats,
    /// Samples looked at for each step of the query, as Prometheus counts them: of an instant selector the one that is
    /// found, of a range selector or subquery all in the window; what is evaluated once counts at each step. Empty where
    /// that wasn't asked for; what is missing at the end is 0.
    pub per_step: Vec<u64>,
    /// The plan with what each step took, where that was asked for.
    pub explained: Option<Step>,
    /// Pays for the result: to be kept as long as any of it is.
    pub held: Held,
}

/// What a query took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Stored series that were handed in, those of each select counted.
    pub series: u64,
    /// Samples decoded; those that two parts of the query need are counted twice.
    pub samples: u64,
    /// The most bytes that were held at one time.
    pub peak_bytes: usize,
}

/// A result.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of an instant query for a scalar.
    Scalar(Point<f64>),
    /// Of an instant query for a string.
    String(Point<String>),
    /// Of an instant query for a vector: in the order that the query gives (`sort`, `topk`), else in that of storage.
    Vector(Vec<Sample>),
    /// Of a range query, by labels; or of an instant query for a range vector.
    Matrix(Vec<Series>),
}

/// A value at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Point<T> {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The value.
    pub value: T,
}

/// A series' value at the query's time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: Labels,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Its value.
    pub value: SampleValue,
}

/// A float or a native histogram.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// A series' values over time: at least one of either kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Floats, by time.
    pub floats: Vec<Point<f64>>,
    /// Native histograms, by time.
    pub histograms: Vec<Point<Arc<FloatHistogram>>>,
}

impl Value {
    /// Bytes on the heap. Histograms that several points share count where they are next to each other as one.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Scalar(_) => 0,
            Self::String(text) => text.value.capacity(),
            Self::Vector(samples) => {
                let of = |sample: &Sample| {
                    let value = match &sample.value {
                        SampleValue::Float(_) => 0,
                        SampleValue::Histogram(histogram) => histogram_bytes(histogram),
                    };
                    sample.labels.as_bytes().len() + value
                };
                samples.capacity() * size_of::<Sample>() + samples.iter().map(of).sum::<usize>()
            }
            Self::Matrix(series) => {
                let of = |one: &Series| one.size_bytes() + one.labels.as_bytes().len();
                series.capacity() * size_of::<Series>() + series.iter().map(of).sum::<usize>()
            }
        }
    }
}

impl Series {
    /// Bytes of its points.
    pub(crate) fn size_bytes(&self) -> usize {
        self.floats.capacity() * size_of::<Point<f64>>()
            + self.histograms.capacity() * size_of::<Point<Arc<FloatHistogram>>>()
            + histograms_bytes(self.histograms.iter().map(|point| &point.value))
    }
}

/// Bytes of histograms; several uses of one in a row count once.
pub(crate) fn histograms_bytes<'a>(all: impl Iterator<Item = &'a Arc<FloatHistogram>>) -> usize {
    let mut last: Option<&Arc<FloatHistogram>> = None;
    let is_new = |h: &&'a Arc<FloatHistogram>| !last.replace(h).is_some_and(|last| Arc::ptr_eq(last, h));
    all.filter(is_new).map(|h| histogram_bytes(h)).sum()
}
