//! From a syntax tree to a typed plan: what to fetch, and what to do with it.
//!
//! 1. Selectors become numbered [`Select`]s with the time range that they need: steps, `@`, `offset`, look-back and
//!    range are all known here. Equal selectors with touching ranges share one.
//! 2. Subtrees whose value is the same at every step (constants, everything under `@`) are marked to be evaluated once.
//! 3. Arithmetic of constants is done.
//! 4. Equal subexpressions over equal steps become one, which is planned once and may be evaluated once.
//!
//! The caller fetches the series of each select, from wherever, and then calls [`Plan::evaluate`]: pure computation.

mod build;
mod folds;
pub mod grid;
mod needs;
mod node;

use tsdb::model::{METRIC_NAME, MatchOp, Matcher};
use tsdb::select::{Need, Select};

use crate::error::Error;
use crate::parse::ast::Expr;
pub(crate) use folds::leaf_of;
pub use grid::QueryRange;
pub(crate) use node::{
    Absent, AbsentOver, Aggregate, AggregateParam, Binary, Chain, Date, Info, LabelEdit, Leaf, Link, Map,
    RangeSource, Root, ScalarBinary, ScalarLink, ScalarNode, SetOp, Shared, Sort, VectorNode, Window,
};

/// How queries are evaluated, beyond their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Distance of a subquery's steps where the query doesn't give it, in milliseconds, above 0.
    pub subquery_step_ms: i64,
    /// Whether a metric's name that an operation takes away goes at the very end: until then it can still be matched and
    /// grouped by. Else it goes at once, as in a Prometheus without `promql-delayed-name-removal`.
    pub delayed_name_removal: bool,
}

/// Prometheus's default: one minute.
const SUBQUERY_STEP_MS: i64 = 60_000;

impl Default for Settings {
    fn default() -> Self {
        Self { subquery_step_ms: SUBQUERY_STEP_MS, delayed_name_removal: false }
    }
}

/// A query ready to be evaluated.
#[derive(Clone, Debug)]
pub struct Plan {
    range: QueryRange,
    delayed_name_removal: bool,
    selects: Vec<Select>,
    needs: Vec<Need>,
    shared: Vec<Shared>,
    root: Root,
}

/// Plans `expr` over `range`.
///
/// # Errors
/// [`Error::Invalid`] when a range query's expression is neither scalar nor instant vector, and for arguments that
/// can't be right whatever the data is (a label name that isn't one).
pub fn plan(expr: &Expr, range: &QueryRange, settings: &Settings) -> Result<Plan, Error> {
    if range.step_ms < 0 || settings.subquery_step_ms <= 0 {
        return Err(Error::Invalid("steps must be longer than 0".to_owned()));
    }
    let (root, selects, shared) = build::build(expr, range, settings)?;
    let (selects, places): (Vec<_>, Vec<_>) = selects.into_iter().unzip();
    let delayed_name_removal = settings.delayed_name_removal;
    let mut plan = Plan { range: *range, delayed_name_removal, selects, needs: Vec::new(), shared, root };
    plan.needs = needs::needs(&plan, &places, range.grid().count == 1);
    Ok(plan)
}

impl Plan {
    /// What to fetch: the inputs of [`Plan::evaluate`], in this order.
    pub fn selects(&self) -> &[Select] {
        &self.selects
    }

    /// What is looked at of the series of each of [`Plan::selects`]: the rest may be left out of what is fetched. Not for
    /// series that are still to be merged with others.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// The range that it was planned for.
    pub fn range(&self) -> &QueryRange {
        &self.range
    }

    /// Whether names that are taken away go at the very end: [`Settings::delayed_name_removal`].
    pub(crate) fn delays_name_removal(&self) -> bool {
        self.delayed_name_removal
    }

    /// Whether the series of a select may become the same once their metrics' names are taken away at once: where no single
    /// name is asked for.
    pub(crate) fn may_collide(&self, select: usize) -> bool {
        let names_one = |m: &Matcher| m.name() == METRIC_NAME && m.op() == MatchOp::Equal;
        !self.delayed_name_removal && !self.selects[select].matchers.iter().any(names_one)
    }

    pub(crate) fn shared(&self) -> &[Shared] {
        &self.shared
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }
}

#[cfg(test)]
mod tests;
