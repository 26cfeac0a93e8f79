//! Which aggregations of a plan can be folded in parts: those that keep a mergeable state, over a chain in which each
//! series goes its own way, at the question's own steps.

use super::Plan;
use super::node::{
    Aggregate, AggregateParam, Leaf, Link, Map, RangeSource, Root, ScalarNode, Shared, VectorNode,
};
use crate::eval::fold_columns;

impl Plan {
    /// Aggregations that can be folded in parts, in an order that the text and the range decide; none unless every
    /// series goes into such a one and nowhere else.
    pub(crate) fn fold_nodes(&self) -> Vec<&Aggregate> {
        let seen = vec![false; self.shared.len()];
        let mut walk = Walk { plan: self, shared: &self.shared, seen, found: Vec::new() };
        let all = match &self.root {
            Root::Scalar(scalar) => walk.scalar(scalar),
            Root::Vector(vector) => walk.vector(vector),
            Root::Matrix { .. } => false,
            Root::String(_) => true,
        };
        if all { walk.found } else { Vec::new() }
    }
}

struct Walk<'a> {
    plan: &'a Plan,
    shared: &'a [Shared],
    seen: Vec<bool>,
    found: Vec<&'a Aggregate>,
}

impl<'a> Walk<'a> {
    /// Whether all series below go into foldable aggregations.
    fn vector(&mut self, node: &'a VectorNode) -> bool {
        match node {
            VectorNode::Nothing => true,
            VectorNode::Aggregate(node) => {
                let leaf = leaf_of(&node.input, self.shared);
                // Whoever folds a part doesn't see a series elsewhere that is the same but for its name.
                let is_foldable = |leaf: &Leaf| {
                    keeps_names(&node.input, self.shared) || !self.plan.may_collide(leaf.select)
                };
                if fold_columns(node.op).is_some() && leaf.is_some_and(is_foldable) {
                    self.found.push(node);
                    return true;
                }
                let param = match &node.param {
                    AggregateParam::Scalar(scalar, _) => self.scalar(scalar),
                    AggregateParam::None | AggregateParam::Label(_) => true,
                };
                param && self.vector(&node.input)
            }
            VectorNode::Shared(number) => {
                std::mem::replace(&mut self.seen[*number], true) || self.vector(&self.shared[*number].node)
            }
            VectorNode::OfScalar(scalar) => self.scalar(scalar),
            VectorNode::Map { map, input } => {
                scalars_of(map).into_iter().all(|scalar| self.scalar(scalar)) && self.vector(input)
            }
            VectorNode::Chain(chain) => {
                self.vector(&chain.first)
                    && chain.links.iter().all(|link| match link {
                        Link::Scalar(link) => self.scalar(&link.scalar),
                        Link::Join(link) => self.vector(&link.other),
                        Link::Set(link) => link.others.iter().all(|other| self.vector(other)),
                    })
            }
            VectorNode::Labels { input, .. } | VectorNode::Sort { input, .. } => self.vector(input),
            VectorNode::Absent(node) => self.vector(&node.input),
            VectorNode::HistogramQuantile { input, quantiles, .. } => {
                quantiles.iter().all(|(scalar, _)| self.scalar(scalar)) && self.vector(input)
            }
            VectorNode::HistogramFraction { input, lower, upper, .. } => {
                self.scalar(lower) && self.scalar(upper) && self.vector(input)
            }
            // Series that are needed themselves, or at other steps than the question's.
            VectorNode::Select(_)
            | VectorNode::SampleTimes(_)
            | VectorNode::StartTimes(_)
            | VectorNode::Window(_)
            | VectorNode::AbsentOver(_)
            | VectorNode::Info(_) => false,
            // `vector(1)`, or an expression under `@`.
            VectorNode::Once(inner) => match &**inner {
                VectorNode::OfScalar(scalar) => is_plain(scalar),
                _ => false,
            },
        }
    }

    fn scalar(&mut self, node: &'a ScalarNode) -> bool {
        match node {
            ScalarNode::Constant(_) | ScalarNode::Time => true,
            ScalarNode::OfVector(vector) => self.vector(vector),
            ScalarNode::Negate(inner) => self.scalar(inner),
            ScalarNode::Chain { first, links } => {
                self.scalar(first) && links.iter().all(|link| self.scalar(&link.other))
            }
            ScalarNode::Once(inner) => is_plain(inner),
        }
    }
}

/// Whether series come as they were selected, their metrics' names with them.
fn keeps_names(node: &VectorNode, shared: &[Shared]) -> bool {
    match node {
        VectorNode::Select(_) => true,
        VectorNode::Shared(number) => keeps_names(&shared[*number].node, shared),
        _ => false,
    }
}

/// The leaf at the end of a chain in which each series goes its own way.
pub(crate) fn leaf_of<'a>(node: &'a VectorNode, shared: &'a [Shared]) -> Option<&'a Leaf> {
    match node {
        VectorNode::Select(leaf) | VectorNode::SampleTimes(leaf) | VectorNode::StartTimes(leaf) => Some(leaf),
        VectorNode::Window(window) => match &window.source {
            RangeSource::Select(leaf) => {
                window.params.iter().all(|(scalar, _)| is_plain(scalar)).then_some(leaf)
            }
            RangeSource::Subquery(_) => None,
        },
        VectorNode::Map { map, input } => {
            scalars_of(map).into_iter().all(is_plain).then(|| leaf_of(input, shared)).flatten()
        }
        VectorNode::Chain(chain) => {
            let is_plain = |link: &Link| matches!(link, Link::Scalar(link) if is_plain(&link.scalar));
            chain.links.iter().all(is_plain).then(|| leaf_of(&chain.first, shared)).flatten()
        }
        VectorNode::Shared(number) => leaf_of(&shared[*number].node, shared),
        _ => None,
    }
}

/// Whether no series are needed.
fn is_plain(node: &ScalarNode) -> bool {
    match node {
        ScalarNode::Constant(_) | ScalarNode::Time => true,
        ScalarNode::OfVector(_) => false,
        ScalarNode::Negate(inner) | ScalarNode::Once(inner) => is_plain(inner),
        ScalarNode::Chain { first, links } => {
            is_plain(first) && links.iter().all(|link| is_plain(&link.other))
        }
    }
}

fn scalars_of(map: &Map) -> Vec<&ScalarNode> {
    match map {
        Map::Clamp { min, max } => vec![min, max],
        Map::ClampMin(scalar) | Map::ClampMax(scalar) | Map::Round(scalar) => vec![scalar],
        Map::Float { .. }
        | Map::Negate
        | Map::StepTimes
        | Map::Date(_)
        | Map::HistogramCount
        | Map::HistogramSum
        | Map::HistogramAvg
        | Map::HistogramStddev
        | Map::HistogramStdvar => Vec::new(),
    }
}
