//! The plan's tree. Types of expressions are types here, and every number that the query fixes is resolved.

use std::sync::Arc;

use tsdb::model::Matcher;

use crate::functions::Function;
use crate::functions::instant::FloatFunction;
use crate::functions::window::WindowFunction;
use crate::parse::Span;
use crate::parse::ast::{AggregateOp, BinaryOp, Edges, VectorMatching};
use crate::plan::grid::View;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Root {
    Scalar(ScalarNode),
    Vector(VectorNode),
    /// A range vector itself, for an instant query.
    Matrix {
        source: RangeSource,
        range_ms: i64,
    },
    String(String),
}

/// Gives one float for each step.
#[derive(Clone, Debug)]
pub(crate) enum ScalarNode {
    Constant(f64),
    /// The step's own time, in seconds.
    Time,
    /// `scalar(vector)`
    OfVector(Box<VectorNode>),
    Negate(Box<ScalarNode>),
    /// Operators one behind another, each on what those before it came to.
    Chain {
        first: Box<ScalarNode>,
        links: Vec<ScalarLink>,
    },
    /// Evaluated at the first step alone.
    Once(Box<ScalarNode>),
}

/// An operator of a chain of scalars.
#[derive(Clone, Debug)]
pub(crate) struct ScalarLink {
    pub op: ScalarBinary,
    pub other: ScalarNode,
    /// Whether what came before is the right side.
    pub other_on_left: bool,
}

/// What two scalars are combined by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalarBinary {
    Operator(BinaryOp),
    /// `min_of(a, b)`; NaN where either is.
    MinOf,
    /// `max_of(a, b)`; NaN where either is.
    MaxOf,
}

/// Gives rows.
#[derive(Clone, Debug)]
pub(crate) enum VectorNode {
    /// No series, whatever the data.
    Nothing,
    /// Samples of an instant selector.
    Select(Leaf),
    /// `timestamp(selector)`: the time of the sample itself.
    SampleTimes(Leaf),
    /// `start_timestamp(selector)`: the time at which the sample's counter started.
    StartTimes(Leaf),
    Window(Window),
    Map {
        map: Map,
        input: Box<VectorNode>,
    },
    /// `vector(scalar)`
    OfScalar(Box<ScalarNode>),
    Chain(Chain),
    Aggregate(Aggregate),
    Labels {
        edit: LabelEdit,
        input: Box<VectorNode>,
    },
    Absent(Absent),
    AbsentOver(AbsentOver),
    Sort {
        sort: Sort,
        input: Box<VectorNode>,
        span: Span,
    },
    /// `histogram_quantile`, and `histogram_quantiles` with its label.
    HistogramQuantile {
        input: Box<VectorNode>,
        quantiles: Vec<(ScalarNode, Span)>,
        label: Option<QuantileLabels>,
        span: Span,
    },
    HistogramFraction {
        input: Box<VectorNode>,
        lower: ScalarNode,
        upper: ScalarNode,
        span: Span,
    },
    /// `info`
    Info(Info),
    /// One of [`Shared`], by its number.
    Shared(usize),
    /// Evaluated at the first step alone, and repeated.
    Once(Box<VectorNode>),
}

/// An expression that may stand at several places, over the same steps.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub node: VectorNode,
    /// At how many.
    pub places: usize,
}

/// The label under which `histogram_quantiles` puts each quantile.
#[derive(Clone, Debug)]
pub(crate) struct QuantileLabels {
    pub name: Arc<str>,
}

/// A selector's place in the plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    /// Index of its select.
    pub select: usize,
    pub view: View,
    /// Whether histograms keep the hint that a counter was reset before them.
    pub tells_resets: bool,
    /// Whether it reaches beyond the borders of what it looks at.
    pub edges: Edges,
    /// Where it stands.
    pub span: Span,
}

/// `info`: a vector whose series get the labels of info metrics.
#[derive(Clone, Debug)]
pub(crate) struct Info {
    pub input: Box<VectorNode>,
    /// The info metrics.
    pub info: Leaf,
    /// What was asked of their names; series that have such a name stay as they are. Empty where nothing was.
    pub names: Vec<Matcher>,
    /// What was asked of other labels, by name: if anything, only these are taken over.
    pub data: Vec<Matcher>,
}

/// Where a range vector's samples come from.
#[derive(Clone, Debug)]
pub(crate) enum RangeSource {
    Select(Leaf),
    Subquery(Subquery),
}

#[derive(Clone, Debug)]
pub(crate) struct Subquery {
    pub input: Box<VectorNode>,
    pub view: View,
    pub step_ms: i64,
}

/// A function over a range vector.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub function: WindowFunction,
    pub source: RangeSource,
    pub range_ms: i64,
    pub params: Vec<(ScalarNode, Span)>,
    /// Of the range vector.
    pub span: Span,
}

/// A function of each sample alone.
#[derive(Clone, Debug)]
pub(crate) enum Map {
    Float {
        function: Function,
        of: FloatFunction,
    },
    Negate,
    Clamp {
        min: ScalarNode,
        max: ScalarNode,
    },
    ClampMin(ScalarNode),
    ClampMax(ScalarNode),
    Round(ScalarNode),
    /// The step's time where there is a sample.
    StepTimes,
    Date(Date),
    HistogramCount,
    HistogramSum,
    HistogramAvg,
    HistogramStddev,
    HistogramStdvar,
}

/// A part of a date, of seconds since the Unix epoch in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Date {
    Minute,
    Hour,
    DayOfWeek,
    DayOfMonth,
    DayOfYear,
    DaysInMonth,
    Month,
    Year,
}

/// Operators one behind another, each on what those before it came to: a loop evaluates them, so that the stack doesn't grow
/// with their number.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub first: Box<VectorNode>,
    /// At least one.
    pub links: Vec<Link>,
}

/// An operator of a chain.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    Scalar(ScalarOp),
    Join(Binary),
    Set(SetOp),
}

/// An operator between the vector that came before and a scalar.
#[derive(Clone, Debug)]
pub(crate) struct ScalarOp {
    pub op: BinaryOp,
    pub return_bool: bool,
    pub scalar: ScalarNode,
    pub scalar_on_left: bool,
    pub span: Span,
}

/// Arithmetic or comparison between the vector that came before and another.
#[derive(Clone, Debug)]
pub(crate) struct Binary {
    pub op: BinaryOp,
    pub return_bool: bool,
    pub matching: VectorMatching,
    pub other: VectorNode,
    /// Whether what came before is the right side.
    pub other_on_left: bool,
    pub span: Span,
}

/// `and`, `or`, `unless` with each of some vectors in turn.
#[derive(Clone, Debug)]
pub(crate) struct SetOp {
    pub op: BinaryOp,
    pub matching: VectorMatching,
    pub others: Vec<VectorNode>,
}

/// What an aggregation takes besides its vector.
#[derive(Clone, Debug)]
pub(crate) enum AggregateParam {
    None,
    Scalar(Box<ScalarNode>, Span),
    /// The label of `count_values`.
    Label(Arc<str>),
}

#[derive(Clone, Debug)]
pub(crate) struct Aggregate {
    pub op: AggregateOp,
    pub param: AggregateParam,
    pub without: bool,
    /// Sorted.
    pub grouping: Vec<Arc<str>>,
    pub input: Box<VectorNode>,
    /// Where annotations stand: the vector, of `topk` and `bottomk` the whole.
    pub span: Span,
}

/// Functions that change labels.
#[derive(Clone, Debug)]
pub(crate) enum LabelEdit {
    Replace { destination: Arc<str>, replacement: Arc<str>, source: Arc<str>, regex: regex::Regex },
    Join { destination: Arc<str>, separator: Arc<str>, sources: Vec<Arc<str>> },
}

#[derive(Clone, Debug)]
pub(crate) struct Absent {
    pub input: Box<VectorNode>,
    pub labels: tsdb::model::Labels,
}

#[derive(Clone, Debug)]
pub(crate) struct AbsentOver {
    pub source: RangeSource,
    pub range_ms: i64,
    pub labels: tsdb::model::Labels,
}

#[derive(Clone, Debug)]
pub(crate) enum Sort {
    ByValue { descending: bool },
    ByLabels { names: Vec<Arc<str>>, descending: bool },
}
