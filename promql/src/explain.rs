//! A plan as a tree of steps, with what each of them took when it was evaluated.

use std::sync::atomic::Ordering;

use tsdb::select::Select;

use crate::eval::{Measure, Trace};
use crate::parse::duration;
use crate::plan::{
    Aggregate, AggregateParam, Chain, Leaf, Link, Map, Plan, RangeSource, Root, ScalarNode, Shared, Sort,
    VectorNode,
};

/// A step of a plan, and what it took. A step that several places of the query share tells of all of them at the first;
/// the others have no numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What is done: `select`, `aggregate`, `join`…
    pub kind: &'static str,
    /// To what, or how: a selector, a function, labels. May be empty.
    pub detail: String,
    /// Of a selection: its number among [`Plan::selects`].
    pub select: Option<usize>,
    /// Of an aggregation that can be folded in parts: its number among [`Plan::folds`].
    pub fold: Option<usize>,
    /// Series read or made. What is read twice counts twice.
    pub series: u64,
    /// Samples: of a selection decoded, else in the rows that were made.
    pub samples: u64,
    /// Bytes: of a selection those of its chunks as stored, else of the rows that were made.
    pub bytes: u64,
    /// Nanoseconds for this step alone, on all cores together.
    pub nanos: u64,
    /// What it works on.
    pub inputs: Vec<Step>,
}

/// The tree of an evaluation that was traced.
pub(crate) fn explained(plan: &Plan, trace: &Trace<'_>) -> Step {
    let mut tree = Tree {
        shared: plan.shared(),
        selects: plan.selects(),
        folds: plan.fold_nodes(),
        shown: vec![false; plan.shared().len()],
        trace,
    };
    match plan.root() {
        Root::Scalar(scalar) => {
            let mut inputs = Vec::new();
            tree.scalar(scalar, &mut inputs);
            Step { kind: "scalar", inputs, ..Step::default() }
        }
        Root::Vector(vector) => tree.vector(vector),
        Root::Matrix { source, range_ms } => tree.source(source, *range_ms),
        Root::String(_) => Step { kind: "string", ..Step::default() },
    }
}

struct Tree<'a, 't> {
    shared: &'a [Shared],
    selects: &'a [Select],
    folds: Vec<&'a Aggregate>,
    /// Which shared expressions stand in the tree already.
    shown: Vec<bool>,
    trace: &'a Trace<'t>,
}

impl Step {
    fn measured(mut self, measure: &Measure) -> Self {
        self.series = measure.series.load(Ordering::Relaxed);
        self.samples = measure.samples.load(Ordering::Relaxed);
        self.bytes = measure.bytes.load(Ordering::Relaxed);
        self.nanos = measure.nanos.load(Ordering::Relaxed);
        self
    }
}

impl Tree<'_, '_> {
    fn vector(&mut self, node: &VectorNode) -> Step {
        let mut inputs = Vec::new();
        let (kind, detail) = match node {
            VectorNode::Select(leaf) | VectorNode::SampleTimes(leaf) | VectorNode::StartTimes(leaf) => {
                return self.leaf(leaf, None);
            }
            VectorNode::Shared(number) => {
                if std::mem::replace(&mut self.shown[*number], true) {
                    return Step { kind: "shared", detail: "made already".to_owned(), ..Step::default() };
                }
                let shared = self.shared;
                return self.vector(&shared[*number].node);
            }
            VectorNode::Nothing => ("nothing", String::new()),
            VectorNode::Window(window) => {
                inputs.push(self.source(&window.source, window.range_ms));
                window.params.iter().for_each(|(scalar, _)| self.scalar(scalar, &mut inputs));
                ("window", format!("{:?}", window.function).to_lowercase())
            }
            VectorNode::Map { map, input } => {
                inputs.push(self.vector(input));
                ("map", self.map(map, &mut inputs))
            }
            VectorNode::OfScalar(scalar) => {
                self.scalar(scalar, &mut inputs);
                ("vector", String::new())
            }
            VectorNode::Chain(chain) => return self.chain(chain),
            VectorNode::Aggregate(node) => {
                inputs.push(self.vector(&node.input));
                if let AggregateParam::Scalar(scalar, _) = &node.param {
                    self.scalar(scalar, &mut inputs);
                }
                ("aggregate", grouping(node))
            }
            VectorNode::Labels { input, .. } => {
                inputs.push(self.vector(input));
                ("labels", String::new())
            }
            VectorNode::Absent(node) => {
                inputs.push(self.vector(&node.input));
                ("absent", String::new())
            }
            VectorNode::AbsentOver(node) => {
                inputs.push(self.source(&node.source, node.range_ms));
                ("absent", "over time".to_owned())
            }
            VectorNode::Sort { sort, input, .. } => {
                inputs.push(self.vector(input));
                let by = match sort {
                    Sort::ByValue { .. } => "by value".to_owned(),
                    Sort::ByLabels { names, .. } => format!("by ({})", names.join(", ")),
                };
                ("sort", by)
            }
            VectorNode::HistogramQuantile { input, quantiles, .. } => {
                inputs.push(self.vector(input));
                quantiles.iter().for_each(|(scalar, _)| self.scalar(scalar, &mut inputs));
                ("histogram", "quantile".to_owned())
            }
            VectorNode::HistogramFraction { input, lower, upper, .. } => {
                inputs.push(self.vector(input));
                [lower, upper].into_iter().for_each(|scalar| self.scalar(scalar, &mut inputs));
                ("histogram", "fraction".to_owned())
            }
            VectorNode::Info(node) => {
                inputs.push(self.vector(&node.input));
                inputs.push(self.leaf(&node.info, None));
                ("info", String::new())
            }
            VectorNode::Once(inner) => {
                inputs.push(self.vector(inner));
                ("once", "for all steps".to_owned())
            }
        };
        let fold = match node {
            VectorNode::Aggregate(node) => self.folds.iter().position(|fold| std::ptr::eq(*fold, node)),
            _ => None,
        };
        Step { kind, detail, inputs, fold, ..Step::default() }.measured(&self.trace.of_node(node))
    }

    /// An operator shows both of its sides. Of several the first operand comes first, and then each operator in turn with its
    /// other side alone: they don't stand inside one another, however many there are.
    fn chain(&mut self, chain: &Chain) -> Step {
        let mut inputs = vec![self.vector(&chain.first)];
        if let [link] = &chain.links[..] {
            return self.link(link, inputs);
        }
        for link in &chain.links {
            let step = self.link(link, Vec::new());
            inputs.push(step);
        }
        // What comes of the last one is what comes of all of them.
        let last = inputs.last().map_or((0, 0, 0), |last| (last.series, last.samples, last.bytes));
        let (series, samples, bytes) = last;
        let detail = format!("{} operators", chain.links.len());
        Step { kind: "chain", detail, inputs, series, samples, bytes, ..Step::default() }
    }

    fn link(&mut self, link: &Link, mut inputs: Vec<Step>) -> Step {
        let (kind, op) = match link {
            Link::Scalar(link) => {
                self.scalar(&link.scalar, &mut inputs);
                ("operator", link.op)
            }
            Link::Join(link) => {
                let at = if link.other_on_left { 0 } else { inputs.len() };
                inputs.insert(at, self.vector(&link.other));
                ("join", link.op)
            }
            Link::Set(link) => {
                for other in &link.others {
                    inputs.push(self.vector(other));
                }
                ("set", link.op)
            }
        };
        let step = Step { kind, detail: op.symbol().to_owned(), inputs, ..Step::default() };
        step.measured(&self.trace.of_link(link))
    }

    /// The vectors that a scalar is made of.
    fn scalar(&mut self, scalar: &ScalarNode, inputs: &mut Vec<Step>) {
        match scalar {
            ScalarNode::Constant(_) | ScalarNode::Time => {}
            ScalarNode::OfVector(vector) => inputs.push(self.vector(vector)),
            ScalarNode::Negate(inner) | ScalarNode::Once(inner) => self.scalar(inner, inputs),
            ScalarNode::Chain { first, links } => {
                self.scalar(first, inputs);
                links.iter().for_each(|link| self.scalar(&link.other, inputs));
            }
        }
    }

    fn source(&mut self, source: &RangeSource, range_ms: i64) -> Step {
        match source {
            RangeSource::Select(leaf) => self.leaf(leaf, Some(range_ms)),
            RangeSource::Subquery(subquery) => {
                let detail =
                    format!("[{}:{}]", duration::format(range_ms), duration::format(subquery.step_ms));
                Step {
                    kind: "subquery",
                    detail,
                    inputs: vec![self.vector(&subquery.input)],
                    ..Step::default()
                }
            }
        }
    }

    fn leaf(&self, leaf: &Leaf, range_ms: Option<i64>) -> Step {
        let matchers: Vec<String> =
            self.selects[leaf.select].matchers.iter().map(|matcher| format!("{matcher:?}")).collect();
        let range = range_ms.map(|range_ms| format!("[{}]", duration::format(range_ms))).unwrap_or_default();
        let detail = format!("{{{}}}{range}", matchers.join(", "));
        let step = Step { kind: "select", detail, select: Some(leaf.select), ..Step::default() };
        step.measured(&self.trace.of_leaf(leaf))
    }

    fn map(&mut self, map: &Map, inputs: &mut Vec<Step>) -> String {
        let name = match map {
            Map::Float { function, .. } => function.signature().name,
            Map::Negate => "-",
            Map::Clamp { min, max } => {
                [min, max].into_iter().for_each(|scalar| self.scalar(scalar, inputs));
                "clamp"
            }
            Map::ClampMin(scalar) => {
                self.scalar(scalar, inputs);
                "clamp_min"
            }
            Map::ClampMax(scalar) => {
                self.scalar(scalar, inputs);
                "clamp_max"
            }
            Map::Round(scalar) => {
                self.scalar(scalar, inputs);
                "round"
            }
            Map::StepTimes => "timestamp",
            Map::Date(_) => "date",
            Map::HistogramCount => "histogram_count",
            Map::HistogramSum => "histogram_sum",
            Map::HistogramAvg => "histogram_avg",
            Map::HistogramStddev => "histogram_stddev",
            Map::HistogramStdvar => "histogram_stdvar",
        };
        name.to_owned()
    }
}

fn grouping(node: &Aggregate) -> String {
    let how = if node.without { "without" } else { "by" };
    match (node.without, node.grouping.is_empty()) {
        (false, true) => node.op.name().to_owned(),
        _ => format!("{} {how} ({})", node.op.name(), node.grouping.join(", ")),
    }
}

#[cfg(test)]
mod tests;
