//! How large a query is, from postings alone: before it runs, so that small ones don't wait for large ones.
//!
//! An estimate of its samples and results. It may be wrong by much: nothing but the order of work rests on it.

use std::ops::RangeInclusive;

use tsdb::db::Tenant;
use tsdb::model::Matcher;
use tsdb::select::Select;

use super::Error;
use super::names::Question;

/// A query of at most so many samples and results is small: it takes a core for some 10 ms.
const SMALL_POINTS_MAX: u64 = 1 << 19;
/// Time between samples that is assumed, in milliseconds.
const INTERVAL_MS: u64 = 15_000;
/// Bytes of a query's text that are an operation, at least.
const OPERATION_BYTES: u64 = 2;
/// What looking at the labels of a series takes, in samples.
const LABEL_POINTS: u64 = 20;
/// Bytes of chunks for one sample.
const SAMPLE_BYTES: usize = 2;

/// Whether a query is large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// It is done in a moment.
    Small,
    /// It may take seconds.
    Large,
}

impl Size {
    /// Of a query with a text of `text_bytes` over some selections, evaluated at `steps`.
    ///
    /// # Errors
    /// Those of [`Tenant::estimate_series`].
    pub(super) fn of_query(
        tenant: Option<&Tenant>,
        selects: &[Select],
        steps: usize,
        text_bytes: usize,
    ) -> Result<Self, Error> {
        let (steps, text_bytes) = (steps as u64, text_bytes as u64);
        let mut points = steps.saturating_mul(text_bytes / OPERATION_BYTES);
        for select in selects {
            let samples = width_ms(&select.range_ms) / INTERVAL_MS + 1;
            let of_each = samples.saturating_add(steps);
            points = points.saturating_add(of_series(tenant, &select.matchers, &select.range_ms, of_each)?);
        }
        Ok(Self::of_points(points))
    }

    /// Of a question about names.
    ///
    /// # Errors
    /// Those of [`Tenant::estimate_series`].
    pub(super) fn of_names(tenant: Option<&Tenant>, question: &Question) -> Result<Self, Error> {
        let scope = match question {
            Question::Metadata(..) => return Ok(Self::Small),
            Question::Counts => return Ok(Self::Large),
            Question::Names(scope, _)
            | Question::Values(_, scope, _)
            | Question::Series(scope, _)
            | Question::Exemplars(scope)
            | Question::Cost(scope) => scope,
        };
        let mut points = 0u64;
        for matchers in &scope.selectors {
            points = points.saturating_add(of_series(tenant, matchers, &scope.range_ms, LABEL_POINTS)?);
        }
        Ok(Self::of_points(points))
    }

    /// Of series that hold so many bytes.
    pub(super) fn of_bytes(bytes: usize) -> Self {
        Self::of_points((bytes / SAMPLE_BYTES) as u64)
    }

    fn of_points(points: u64) -> Self {
        if points > SMALL_POINTS_MAX { Self::Large } else { Self::Small }
    }
}

fn of_series(
    tenant: Option<&Tenant>,
    matchers: &[Matcher],
    range_ms: &RangeInclusive<i64>,
    of_each: u64,
) -> Result<u64, Error> {
    let series = tenant.map_or(Ok(0), |tenant| tenant.estimate_series(matchers, range_ms))?;
    Ok(series.saturating_mul(of_each))
}

fn width_ms(range_ms: &RangeInclusive<i64>) -> u64 {
    range_ms.end().saturating_sub(*range_ms.start()).max(0).unsigned_abs()
}
