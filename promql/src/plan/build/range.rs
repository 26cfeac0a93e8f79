//! Selectors and subqueries: the times that they look at, and what has to be fetched for that.

use std::ops::RangeInclusive;

use tsdb::model::{METRIC_NAME, MatchOp, Matcher};
use tsdb::select::Select;

use super::{Builder, Wants};
use crate::error::Error;
use crate::parse::Span;
use crate::parse::ast::{self, At, Edges, Expr, Node};
use crate::parse::length::Length;
use crate::plan::grid::{Grid, View};
use crate::plan::node::{Info, Leaf, RangeSource, Subquery, VectorNode};

/// The info metric that `info` looks for where no other is named.
const TARGET_INFO: &str = "target_info";

impl Builder<'_> {
    /// The source of a range vector and its length in milliseconds.
    pub(super) fn range_source(&mut self, expr: &Expr, grid: &Grid) -> Result<(RangeSource, i64), Error> {
        match &expr.unwrap_parens().node {
            Node::Matrix(matrix) => {
                let range_ms = self.positive_ms(&matrix.range)?;
                let view = self.view(matrix.selector.at, &matrix.selector.offset)?;
                let edges = matrix.selector.edges;
                let (before_ms, behind_ms) = edges.reach_ms(self.range.lookback_ms);
                let reach_ms = view.reach_ms(grid, range_ms.saturating_add(before_ms), behind_ms);
                let select = self.select(&matrix.selector.matchers, reach_ms);
                let leaf = Leaf { edges, ..self.leaf(select, view, expr.span) };
                Ok((RangeSource::Select(leaf), range_ms))
            }
            Node::Subquery(subquery) => {
                let range_ms = self.positive_ms(&subquery.range)?;
                let view = self.view(subquery.at, &subquery.offset)?;
                let step_ms = match &subquery.step {
                    Some(step) => self.positive_ms(step)?,
                    None => self.settings.subquery_step_ms,
                };
                let (first, last) = view.span_ms(grid);
                let inner = Grid::of_subquery(first, last, range_ms, step_ms);
                let outside = std::mem::replace(&mut self.wants, Wants::Buckets);
                let input = self.vector(&subquery.expr, &inner).map(Box::new);
                self.wants = outside;
                let input = input?;
                Ok((RangeSource::Subquery(Subquery { input, view, step_ms }), range_ms))
            }
            _ => unreachable!("the parser's type check lets only range vectors stand here"),
        }
    }

    /// `info`: info metrics are looked at from where the vector's first selector looks.
    pub(super) fn info(&mut self, args: &[Expr], grid: &Grid) -> Result<VectorNode, Error> {
        let input = Box::new(self.vector(&args[0], grid)?);
        let target_info = || vec![Matcher::equal(METRIC_NAME, TARGET_INFO)];
        let (names, data, wanted) = match args.get(1).map(|selector| &selector.node) {
            Some(Node::Vector(selector)) => {
                let (names, data): (Vec<_>, Vec<_>) =
                    selector.matchers.iter().cloned().partition(|m| m.name() == METRIC_NAME);
                let wanted = if names.is_empty() { target_info() } else { names.clone() };
                (names, data, wanted)
            }
            Some(_) => unreachable!("the parser lets only a selector stand here"),
            None => (target_info(), Vec::new(), target_info()),
        };
        let mut wanted = wanted;
        wanted.extend(data.iter().cloned());
        if wanted.iter().all(|m| m.matches("")) {
            let named = Matcher::new(MatchOp::NotEqual, METRIC_NAME, "");
            wanted.push(named.expect("without a regular expression nothing can be wrong"));
        }
        let view = self.first_view(&args[0])?.unwrap_or_default();
        let select = self.select(&wanted, view.reach_ms(grid, self.range.lookback_ms, 0));
        Ok(VectorNode::Info(Info { input, info: self.leaf(select, view, args[0].span), names, data }))
    }

    /// Where the first selector of an expression looks, seen from the expression's steps; `None` without selectors.
    fn first_view(&self, expr: &Expr) -> Result<Option<View>, Error> {
        let (outside, inside) = match &expr.node {
            Node::Vector(selector) => return self.view(selector.at, &selector.offset).map(Some),
            Node::Matrix(matrix) => return self.view(matrix.selector.at, &matrix.selector.offset).map(Some),
            Node::Subquery(subquery) => (self.view(subquery.at, &subquery.offset)?, vec![&subquery.expr]),
            // As Prometheus looks for it: what is aggregated comes before the parameter.
            Node::Aggregate(aggregate) => {
                (View::default(), [&aggregate.expr].into_iter().chain(&aggregate.param).collect())
            }
            _ => (View::default(), expr.children()),
        };
        for child in inside {
            if let Some(view) = self.first_view(child)? {
                return Ok(Some(outside.then(view)));
            }
        }
        Ok(None)
    }

    fn leaf(&self, select: usize, view: View, span: Span) -> Leaf {
        let tells_resets = self.wants == Wants::Totals;
        Leaf { select, view, tells_resets, edges: Edges::Plain, span }
    }

    pub(super) fn instant_leaf(
        &mut self,
        selector: &ast::VectorSelector,
        span: Span,
        grid: &Grid,
    ) -> Result<Leaf, Error> {
        let view = self.view(selector.at, &selector.offset)?;
        // Looking back is what an anchor would be, so `anchored` changes nothing here.
        let edges = if selector.edges == Edges::Smoothed { Edges::Smoothed } else { Edges::Plain };
        let (_, behind_ms) = edges.reach_ms(self.range.lookback_ms);
        let reach_ms = view.reach_ms(grid, self.range.lookback_ms, behind_ms);
        let select = self.select(&selector.matchers, reach_ms);
        Ok(Leaf { edges, ..self.leaf(select, view, span) })
    }

    pub(super) fn view(&self, at: Option<At>, offset: &Length) -> Result<View, Error> {
        let offset_ms = offset.ms(self.range.step_ms, self.range.span_ms());
        let offset_ms = offset_ms.map_err(|e| Error::Invalid(e.to_string()))?;
        Ok(View { at_ms: at.map(|at| self.range.at_ms(at)), offset_ms })
    }

    pub(super) fn positive_ms(&self, length: &Length) -> Result<i64, Error> {
        let ms = length.positive_ms(self.range.step_ms, self.range.span_ms());
        ms.map_err(|e| Error::Invalid(e.to_string()))
    }

    /// The number of a select that covers these series and this range, both ends included.
    fn select(&mut self, matchers: &[Matcher], reach_ms: RangeInclusive<i64>) -> usize {
        let from_ms = *reach_ms.start();
        let to_ms = from_ms.max(*reach_ms.end());
        let touches = |s: &Select| *s.range_ms.start() <= to_ms && from_ms <= *s.range_ms.end();
        match self.selects.iter().position(|(s, _)| s.matchers == matchers && touches(s)) {
            Some(index) => {
                let (Select { range_ms: range, .. }, places) = &mut self.selects[index];
                *range = from_ms.min(*range.start())..=to_ms.max(*range.end());
                *places += 1;
                index
            }
            None => {
                let matchers = matchers.to_vec();
                self.selects.push((Select { matchers, range_ms: from_ms..=to_ms, shard: None }, 1));
                self.selects.len() - 1
            }
        }
    }
}
