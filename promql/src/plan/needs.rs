//! What a plan looks at of the series of its selects: which labels, in which order, and whether more than the newest
//! sample.
//!
//! Labels only serve to put series into groups where an aggregation without others between takes them in; an instant
//! question looks back to one sample. A select that stands at several places, or at one that isn't known here, is needed
//! whole.

use std::sync::Arc;

use tsdb::model::METRIC_NAME;
use tsdb::select::{Best, Need};

use super::Plan;
use super::node::{Aggregate, AggregateParam, Chain, Leaf, Link, RangeSource, Root, ScalarNode, VectorNode};
use crate::eval::fold_columns;
use crate::parse::ast::{AggregateOp, Edges};

/// The needs of a plan's selects, of which `places[i]` says at how many places of the plan number `i` stands; `single` says
/// whether there is just one step.
pub(super) fn needs(plan: &Plan, places: &[usize], single: bool) -> Vec<Need> {
    let mut walk = Walk { plan, found: vec![Vec::new(); places.len()] };
    if let Root::Vector(vector) = &plan.root {
        walk.vector(vector, &Looks::all(single));
    }
    let only = |(mut found, places): (Vec<Need>, &usize)| match found.pop() {
        Some(need) if *places == 1 && found.is_empty() => need,
        _ => Need::default(),
    };
    walk.found.into_iter().zip(places).map(only).collect()
}

/// How the nodes around look at one.
#[derive(Clone)]
struct Looks<'a> {
    /// At which labels; `None` = all.
    labels: Option<&'a [Arc<str>]>,
    /// At a single step.
    single: bool,
    /// At the best samples alone.
    best: Option<Best>,
}

impl Looks<'_> {
    /// At all of what there is at each step.
    fn all(single: bool) -> Self {
        Self { labels: None, single, best: None }
    }
}

struct Walk<'a> {
    plan: &'a Plan,
    found: Vec<Vec<Need>>,
}

impl Walk<'_> {
    fn vector(&mut self, node: &VectorNode, looks: &Looks<'_>) {
        match node {
            VectorNode::Select(leaf) if leaf.edges == Edges::Smoothed => self.leaf(leaf, looks, false, true),
            VectorNode::Select(leaf) | VectorNode::SampleTimes(leaf) => {
                self.leaf(leaf, looks, looks.single, false);
            }
            VectorNode::StartTimes(leaf) => self.leaf(leaf, looks, false, false),
            VectorNode::Window(window) => match &window.source {
                RangeSource::Select(leaf) => self.leaf(leaf, looks, false, true),
                RangeSource::Subquery(subquery) => {
                    self.vector(&subquery.input, &Looks::all(false));
                }
            },
            VectorNode::Map { input, .. } => self.vector(input, looks),
            VectorNode::Chain(chain) => self.chain(chain, looks),
            VectorNode::Once(input) => self.vector(input, &Looks { single: true, ..looks.clone() }),
            VectorNode::Aggregate(node) => {
                let (labels, single) = (grouping(node), looks.single);
                self.vector(&node.input, &Looks { labels, single, best: best(node).filter(|_| single) });
            }
            VectorNode::Labels { input, .. }
            | VectorNode::Sort { input, .. }
            | VectorNode::HistogramQuantile { input, .. }
            | VectorNode::HistogramFraction { input, .. } => {
                self.vector(input, &Looks::all(looks.single));
            }
            // What stands in there is needed whole.
            VectorNode::Nothing
            | VectorNode::OfScalar(_)
            | VectorNode::Absent(_)
            | VectorNode::AbsentOver(_)
            | VectorNode::Info(_)
            | VectorNode::Shared(_) => {}
        }
    }

    /// With scalars alone, series go their own ways; where vectors meet, all labels are looked at.
    fn chain(&mut self, chain: &Chain, looks: &Looks<'_>) {
        if chain.links.iter().all(|link| matches!(link, Link::Scalar(_))) {
            return self.vector(&chain.first, looks);
        }
        let all = Looks::all(looks.single);
        self.vector(&chain.first, &all);
        for link in &chain.links {
            match link {
                Link::Scalar(_) => {}
                Link::Join(link) => self.vector(&link.other, &all),
                Link::Set(link) => link.others.iter().for_each(|other| self.vector(other, &all)),
            }
        }
    }

    /// `names` says whether annotations may name the metric.
    fn leaf(&mut self, leaf: &Leaf, looks: &Looks<'_>, newest: bool, names: bool) {
        // Whether series are the same but for their names is told by all of their labels.
        let labels = looks.labels.filter(|_| !self.plan.may_collide(leaf.select));
        let mut labels = labels.map(<[_]>::to_vec);
        // A single group is the same in whatever order series come to it.
        let any_order = labels.as_ref().is_some_and(Vec::is_empty);
        if let Some(labels) = &mut labels
            && names
            && !labels.iter().any(|name| &**name == METRIC_NAME)
        {
            labels.push(METRIC_NAME.into());
        }
        self.found[leaf.select].push(Need { labels, any_order, newest, best: looks.best });
    }
}

/// The labels by which an aggregation groups series that it keeps nothing else of; `None` where it needs all.
fn grouping(node: &Aggregate) -> Option<&[Arc<str>]> {
    (!node.without && fold_columns(node.op).is_some()).then_some(&node.grouping)
}

/// Which samples of a selector an aggregation picks, where it has one group and takes them as they are.
fn best(node: &Aggregate) -> Option<Best> {
    let greatest = match node.op {
        AggregateOp::Topk => true,
        AggregateOp::Bottomk => false,
        _ => return None,
    };
    let AggregateParam::Scalar(param, _) = &node.param else { return None };
    let (&ScalarNode::Constant(k), VectorNode::Select(leaf)) = (&**param, &*node.input) else { return None };
    let is_whole = !node.without && node.grouping.is_empty() && leaf.edges != Edges::Smoothed;
    (is_whole && k >= 1.0).then_some(Best { count: k as usize, greatest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use crate::{QueryRange, Settings};

    fn of(text: &str, step_ms: i64) -> Vec<Need> {
        let expr = parse(text).unwrap();
        let range =
            QueryRange { start_ms: 0, end_ms: 60 * step_ms, step_ms, ..QueryRange::instant(0, 300_000) };
        crate::plan(&expr, &range, &Settings::default()).unwrap().needs().to_vec()
    }

    fn need(labels: Option<&[&str]>, any_order: bool, newest: bool) -> Need {
        let labels = labels.map(|labels| labels.iter().map(|name| Arc::from(*name)).collect());
        Need { labels, any_order, newest, best: None }
    }

    #[test]
    fn an_aggregation_needs_the_labels_that_it_groups_by() {
        assert_eq!(of("count(m)", 0), [need(Some(&[]), true, true)]);
        assert_eq!(of("sum by (b, a) (m)", 0), [need(Some(&["a", "b"]), false, true)]);
        assert_eq!(of("sum by (a) (rate(m[5m]))", 1000), [need(Some(&["a", "__name__"]), false, false)]);
        assert_eq!(of("sum(rate(m[5m]) * 2)", 1000), [need(Some(&["__name__"]), true, false)]);
        // Which of them are the same without their names is told by all labels.
        assert_eq!(of("sum by (a) (rate({job=\"x\"}[5m]))", 1000), [Need::default()]);
        for whole in ["sum without (a) (m)", "quantile(0.5, m)", "topk(1, m)", "count_values(\"a\", m)", "m"]
        {
            assert_eq!(of(whole, 1000), [Need::default()], "{whole}");
        }
        assert_eq!(of("count(a + on (x) b)", 1000), [Need::default(), Need::default()]);
    }

    #[test]
    fn one_step_needs_the_newest_sample_alone() {
        assert_eq!(of("topk by (a) (1, m)", 0), [need(None, false, true)]);
        assert_eq!(of("a + b", 0), [need(None, false, true), need(None, false, true)]);
        assert_eq!(of("count(m @ 0)", 1000), [need(Some(&[]), true, true)]);
        for more in ["rate(m[5m])", "max_over_time(m[5m:1m])", "absent(m)", "scalar(m)"] {
            assert!(of(more, 0).iter().all(|need| !need.newest), "{more}");
        }
    }

    #[test]
    fn of_one_group_at_one_step_the_best_are_needed() {
        let best =
            |count, greatest| [Need { best: Some(Best { count, greatest }), ..need(None, false, true) }];
        assert_eq!(of("topk(3, m)", 0), best(3, true));
        assert_eq!(of("bottomk(1 + 1, m)", 0), best(2, false));
        for more in [
            "topk by (a) (1, m)",
            "topk without () (1, m)",
            "topk(1, -m)",
            "topk(1, timestamp(m))",
            "topk(0, m)",
            "topk(scalar(m), m)",
            "quantile(1, m)",
            "sum(topk(1, m + 1))",
            "topk(1, rate(m[5m]))",
        ] {
            assert!(of(more, 0).iter().all(|need| need.best.is_none()), "{more}");
        }
        assert_eq!(of("topk(3, m)", 1000), [Need::default()]);
    }

    #[test]
    fn what_stands_at_two_places_is_needed_whole() {
        for text in
            ["count(m) + sum(m)", "count(m) + scalar(m)", "sum(m) + sum(rate(m[5m]))", "sum(m) + sum(m)"]
        {
            assert!(of(text, 0).iter().all(|need| *need == Need::default()), "{text}");
        }
    }
}
