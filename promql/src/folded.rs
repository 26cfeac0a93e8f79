//! Parts of aggregations: what `sum`, `avg`, `count`, `group`, `min`, `max`, `stddev` and `stdvar` come to over some of
//! their series, so that others can be added elsewhere.
//!
//! [`Plan::fold`] makes them where the series are, [`Plan::evaluate_with`] merges them with those that are at hand; both
//! by the fold that a plan is evaluated by, so that it doesn't matter which series were where.

use std::sync::Arc;

use tsdb::model::{CUSTOM_BUCKETS_SCHEMA, CounterReset, Labels};
use tsdb::select::Series;

use crate::annotations::Annotations;
pub use crate::eval::Notes;
use crate::eval::{KeyIndex, KeySpec, fold_columns};
use crate::plan::{Aggregate, Plan, leaf_of};
use crate::value::Stats;

/// What each of a plan's foldable aggregations came to over some of the series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folded {
    /// By aggregation, as many as [`Plan::folds`] says.
    pub nodes: Vec<FoldedNode>,
    /// What was told of these series; places are those in the query's text.
    pub annotations: Annotations,
    /// What it took.
    pub stats: Stats,
    /// As [`crate::Output::per_step`].
    pub per_step: Vec<u64>,
}

/// What one aggregation came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoldedNode {
    /// In any order.
    pub groups: Vec<FoldedGroup>,
    /// What was noted of all of them.
    pub notes: Notes,
    /// How many series went into it.
    pub series: u64,
}

/// The state of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoldedGroup {
    /// The group's.
    pub labels: Labels,
    /// Those of its first series.
    pub first: Labels,
    /// Whether the metric's name goes at the end.
    pub drop_name: bool,
    /// Numbers by step; how many columns there are depends on the aggregation.
    pub columns: Vec<Vec<f64>>,
    /// By ascending step.
    pub histograms: Vec<FoldedHistogram>,
}

/// A group's histograms at one step.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldedHistogram {
    /// The step's number.
    pub step: u32,
    /// How many histograms there were.
    pub count: u32,
    /// Whether one said that its counter was reset.
    pub reset: bool,
    /// Whether one said that it wasn't.
    pub not_reset: bool,
    /// `None` where they can't be added.
    pub sum: Option<HistogramSum>,
}

/// A sum of histograms, each number in two parts: `[sum, what rounding lost]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSum {
    /// Of all that went into it.
    pub counter_reset: CounterReset,
    /// As in [`tsdb::model::FloatHistogram`].
    pub schema: i32,
    /// As there.
    pub zero_threshold: f64,
    /// As there.
    pub zero_count: [f64; 2],
    /// As there.
    pub count: [f64; 2],
    /// As there.
    pub sum: [f64; 2],
    /// Buckets by ascending index.
    pub positive: Vec<(i32, [f64; 2])>,
    /// Buckets by ascending index.
    pub negative: Vec<(i32, [f64; 2])>,
    /// Upper bounds of custom buckets.
    pub bounds: Option<Arc<[f64]>>,
}

impl Plan {
    /// How many of the plan's aggregations can be folded in parts; 0 unless every series that the plan reads goes into
    /// one of them and nowhere else.
    pub fn folds(&self) -> usize {
        self.fold_nodes().len()
    }

    /// Whether `folded` is a part of this plan's aggregations: what comes from elsewhere may be anything.
    pub fn accepts(&self, folded: &Folded) -> bool {
        let nodes = self.fold_nodes();
        let steps = self.range().grid().count;
        nodes.len() == folded.nodes.len()
            && folded.per_step.len() <= steps
            && nodes.iter().zip(&folded.nodes).all(|(node, folded)| {
                let columns = fold_columns(node.op);
                folded.groups.iter().all(|group| {
                    Some(group.columns.len()) == columns
                        && group.columns.iter().all(|column| column.len() == steps)
                        && is_ascending(group.histograms.iter().map(|histogram| histogram.step))
                        && group.histograms.last().is_none_or(|last| (last.step as usize) < steps)
                        && group.histograms.iter().filter_map(|h| h.sum.as_ref()).all(HistogramSum::is_sound)
                })
            })
    }

    /// About how many bytes the parts take that come of these inputs, and how many the inputs take as they are stored:
    /// `(parts, inputs)`.
    ///
    /// # Panics
    /// When there are fewer inputs than selects.
    pub fn fold_bytes(&self, inputs: &[Vec<Series>]) -> (usize, usize) {
        let steps = self.range().grid().count;
        let part = |node: &&Aggregate| {
            let spec = KeySpec::of(node);
            let mut groups = KeyIndex::new(&spec);
            let mut bytes = 0;
            let select = leaf_of(&node.input, self.shared()).expect("what is foldable has a leaf").select;
            for series in &inputs[select] {
                let known = groups.len();
                if groups.number(&series.labels) == known {
                    let columns = fold_columns(node.op).expect("it is foldable");
                    bytes += 2 * series.labels.as_bytes().len() + columns * steps * size_of::<f64>();
                }
            }
            bytes
        };
        let stored = |series: &Series| {
            series.labels.as_bytes().len() + series.chunks.iter().map(|chunk| chunk.data.len()).sum::<usize>()
        };
        let parts = self.fold_nodes().iter().map(part).sum();
        (parts, inputs.iter().flatten().map(stored).sum())
    }
}

impl HistogramSum {
    fn is_sound(&self) -> bool {
        let is_custom = self.schema == CUSTOM_BUCKETS_SCHEMA;
        let buckets = [&self.positive, &self.negative];
        (is_custom || (-4..=8).contains(&self.schema))
            && buckets.into_iter().all(|buckets| is_ascending(buckets.iter().map(|(index, _)| *index)))
    }
}

fn is_ascending<T: PartialOrd>(mut items: impl Iterator<Item = T>) -> bool {
    let Some(mut last) = items.next() else { return true };
    items.all(|item| {
        let above = item > last;
        last = item;
        above
    })
}

#[cfg(test)]
mod tests;
