//! What there is: labels, their values, series, metadata, exemplars.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tsdb::db::{Metadata, SeriesExemplars, Tenant};
use tsdb::model::{Labels, Matcher, TenantId};

use super::{Error, in_turn, turns};
use crate::node::App;

/// Which series a question is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// One of these must match whole; none = all series.
    pub selectors: Vec<Vec<Matcher>>,
    /// Timestamps, in milliseconds, both ends included.
    pub range_ms: RangeInclusive<i64>,
}

/// A question; limits say how many entries are wanted, 0 = all.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Label names.
    Names(Scope, usize),
    /// Values of the label.
    Values(String, Scope, usize),
    /// Series' labels.
    Series(Scope, usize),
    /// Metadata of one family or of all.
    Metadata(Option<String>, usize),
    /// Exemplars.
    Exemplars(Scope),
}

/// An answer: sorted, nothing twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Names or values.
    Texts(Vec<String>),
    /// Labels of series.
    Series(Vec<Labels>),
    /// By family.
    Metadata(Vec<Metadata>),
    /// By labels.
    Exemplars(Vec<SeriesExemplars>),
}

/// Answers a question.
///
/// # Errors
/// Whatever keeps it from being answered.
pub(crate) async fn ask(
    app: &Arc<App>,
    tenant: TenantId,
    question: Question,
    timeout: Duration,
) -> Result<Found, Error> {
    let own = app.clone();
    in_turn(app, timeout, move |cancelled| match own.storage.existing(&tenant) {
        Some(tenant) => question.of(&tenant, &cancelled),
        None => Ok(question.nothing()),
    })
    .await
}

impl Question {
    /// The answer where there is nothing.
    pub fn nothing(&self) -> Found {
        match self {
            Self::Names(..) | Self::Values(..) => Found::Texts(Vec::new()),
            Self::Series(..) => Found::Series(Vec::new()),
            Self::Metadata(..) => Found::Metadata(Vec::new()),
            Self::Exemplars(..) => Found::Exemplars(Vec::new()),
        }
    }

    /// What one store knows.
    ///
    /// # Errors
    /// Those of the tenant's questions; when it is cancelled.
    pub fn of(&self, tenant: &Tenant, cancelled: &AtomicBool) -> Result<Found, Error> {
        Ok(match self {
            Self::Names(scope, limit) => {
                Found::Texts(scope.gather(*limit, cancelled, |matchers, range| {
                    tenant.label_names(matchers, range, *limit)
                })?)
            }
            Self::Values(name, scope, limit) => {
                Found::Texts(scope.gather(*limit, cancelled, |matchers, range| {
                    tenant.label_values(name, matchers, range, *limit)
                })?)
            }
            Self::Series(scope, limit) => Found::Series(scope.gather(
                *limit,
                cancelled,
                |matchers, range| tenant.series(matchers, range, *limit),
            )?),
            Self::Metadata(family, limit) => Found::Metadata(tenant.metadata(family.as_deref(), *limit)),
            Self::Exemplars(scope) => {
                let mut found = Vec::new();
                for matchers in &scope.selectors {
                    turns::check(cancelled)?;
                    found.extend(tenant.exemplars(matchers, scope.range_ms.clone())?);
                }
                // Two selectors may match one series.
                found.sort_by(|a, b| a.labels.cmp(&b.labels));
                found.dedup_by(|a, b| a.labels == b.labels);
                Found::Exemplars(found)
            }
        })
    }
}

impl Scope {
    /// Asks for each selector in turn, or once for everything; sorted, nothing twice.
    fn gather<T: Ord>(
        &self,
        limit: usize,
        cancelled: &AtomicBool,
        ask: impl Fn(&[Matcher], RangeInclusive<i64>) -> tsdb::Result<Vec<T>>,
    ) -> Result<Vec<T>, Error> {
        if self.selectors.len() < 2 {
            let matchers = self.selectors.first().map_or(&[][..], Vec::as_slice);
            return Ok(ask(matchers, self.range_ms.clone())?);
        }
        let mut all = BTreeSet::new();
        for matchers in &self.selectors {
            turns::check(cancelled)?;
            all.extend(ask(matchers, self.range_ms.clone())?);
        }
        let limit = if limit == 0 { usize::MAX } else { limit };
        Ok(all.into_iter().take(limit).collect())
    }
}
