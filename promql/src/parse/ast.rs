//! The syntax tree of PromQL, typed, with the place in the query of every node.
//!
//! The parser builds only trees that pass the type check, and none higher than [`MAX_DEPTH`](super::MAX_DEPTH), so
//! whoever walks one may recurse and may rely on the types that [`Expr::value_type`] gives. A chain of operators such as
//! `a + b - c` is one node, however long it is.

use std::sync::Arc;

use tsdb::model::Matcher;

use super::Span;
use super::length::Length;
use super::string::StringLiteral;
use crate::functions::Function;

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One float per step.
    Scalar,
    /// One sample per series and step.
    Vector,
    /// A run of samples per series and step.
    Matrix,
    /// A text.
    String,
}

impl ValueType {
    /// As error messages call it.
    pub fn described(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            Self::String => "string",
        }
    }
}

/// An expression and where it stands in the query.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub node: Node,
    /// Bytes of the query that it was made from, parentheses and modifiers included.
    pub span: Span,
}

/// The kinds of expressions.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `1.5`, `0x1f`, `Inf`, `1h`.
    Number(Number),
    /// `"text"`.
    String(StringLiteral),
    /// `(expr)`.
    Paren(Box<Expr>),
    /// `-expr`, `+expr`; the operand is a scalar or an instant vector.
    Unary(Box<Unary>),
    /// `a op b`, `a op b op c`.
    Binary(Box<Binary>),
    /// `sum by (a) (expr)`.
    Aggregate(Box<Aggregate>),
    /// `rate(expr)`.
    Call(Call),
    /// `metric{a="b"} offset 5m @ 10`.
    Vector(VectorSelector),
    /// `metric[5m]`.
    Matrix(MatrixSelector),
    /// `expr[1h:5m]`.
    Subquery(Box<Subquery>),
}

impl Expr {
    /// What the expression evaluates to.
    pub fn value_type(&self) -> ValueType {
        match &self.node {
            Node::Number(_) => ValueType::Scalar,
            Node::String(_) => ValueType::String,
            Node::Paren(inner) => inner.value_type(),
            Node::Unary(unary) => unary.operand.value_type(),
            Node::Binary(binary) => binary.value_type(),
            Node::Call(call) => call.function.signature().returns,
            Node::Aggregate(_) | Node::Vector(_) => ValueType::Vector,
            Node::Matrix(_) | Node::Subquery(_) => ValueType::Matrix,
        }
    }

    /// The same expression without the parentheses around it.
    pub fn unwrap_parens(&self) -> &Self {
        let mut expr = self;
        while let Node::Paren(inner) = &expr.node {
            expr = inner;
        }
        expr
    }

    /// Its direct operands, in the order in which they are written (an aggregation's parameter first).
    pub fn children(&self) -> Vec<&Self> {
        match &self.node {
            Node::Number(_) | Node::String(_) | Node::Vector(_) | Node::Matrix(_) => Vec::new(),
            Node::Paren(inner) => vec![inner],
            Node::Unary(unary) => vec![&unary.operand],
            Node::Binary(binary) => binary.operands.iter().collect(),
            Node::Aggregate(a) => a.param.iter().chain([&a.expr]).collect(),
            Node::Call(call) => call.args.iter().collect(),
            Node::Subquery(s) => vec![&s.expr],
        }
    }
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    /// Its value; seconds where it was written as a duration.
    pub value: f64,
    /// Whether it was written as a duration, and is to be shown so.
    pub is_duration: bool,
}

/// `+` or `-` in front of an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// Whether the sign is `-`; `+` leaves values as they are.
    pub negative: bool,
    /// A scalar or an instant vector.
    pub operand: Expr,
}

/// Operators between two expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`, with the sign of the dividend
    Mod,
    /// `^`, right associative
    Pow,
    /// `atan2`
    Atan2,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `<`
    Less,
    /// `>=`
    GreaterOrEqual,
    /// `<=`
    LessOrEqual,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
    /// `</`: a histogram's observations up to a value
    TrimUpper,
    /// `>/`: a histogram's observations from a value on
    TrimLower,
}

impl BinaryOp {
    /// As written in a query.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::GreaterOrEqual => ">=",
            Self::LessOrEqual => "<=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }

    /// Whether it compares, and so filters unless `bool` is given.
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal
                | Self::NotEqual
                | Self::Greater
                | Self::Less
                | Self::GreaterOrEqual
                | Self::LessOrEqual
        )
    }

    /// Whether it cuts histograms, which leaves the metric what it was.
    pub fn is_trim(self) -> bool {
        matches!(self, Self::TrimUpper | Self::TrimLower)
    }

    /// Whether it works on sets of series (`and`, `or`, `unless`).
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

/// A chain of operators: each works on what those before it came to and on the next operand. It is grouped from the left,
/// `(a - b) - c`, unless it is made of `^`: `a ^ (b ^ c)`. Chains aren't nesting, so that one may have thousands of operands,
/// as tables have that are written as `vector(1) or vector(2) or …`.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// Scalars and instant vectors, as they are written; at least two.
    pub operands: Vec<Expr>,
    /// One less: number `i` stands between operands `i` and `i + 1`. All of them are `^`, or none.
    pub operators: Vec<Operator>,
}

/// An operator of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    /// Which.
    pub op: BinaryOp,
    /// `bool`: a comparison gives 0 or 1 instead of filtering. Always set between scalars.
    pub return_bool: bool,
    /// How series find their partners: present exactly when both sides are vectors.
    pub matching: Option<VectorMatching>,
    /// Of what it gives: a scalar where both sides are, else an instant vector.
    pub value_type: ValueType,
}

/// One operation of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// What is done.
    pub operator: &'a Operator,
    /// With which operand, beside what the operations before came to.
    pub other: &'a Expr,
    /// Whether that operand is the left side: where the chain is grouped from the right.
    pub other_on_left: bool,
    /// Bytes of the query from the first operand to the last that have gone into it.
    pub span: Span,
}

impl Binary {
    /// Whether the last operands belong together first.
    pub fn is_from_right(&self) -> bool {
        self.operators.first().is_some_and(|operator| operator.op == BinaryOp::Pow)
    }

    /// What it evaluates to.
    pub fn value_type(&self) -> ValueType {
        let last_done = if self.is_from_right() { self.operators.first() } else { self.operators.last() };
        last_done.expect("a chain has an operator").value_type
    }

    /// The operand to begin with, and the operations in the order in which they are done.
    pub fn operations(&self) -> (&Expr, impl Iterator<Item = Operation<'_>>) {
        let (count, from_right) = (self.operators.len(), self.is_from_right());
        let (first, last) = (&self.operands[0], &self.operands[count]);
        let operation = move |done: usize| {
            let at = if from_right { count - 1 - done } else { done };
            let other = &self.operands[if from_right { at } else { at + 1 }];
            let span = if from_right { other.span.to(last.span) } else { first.span.to(other.span) };
            Operation { operator: &self.operators[at], other, other_on_left: from_right, span }
        };
        (if from_right { last } else { first }, (0..count).map(operation))
    }
}

/// How many series of one side may meet one of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// One of each.
    OneToOne,
    /// `group_left`: many on the left.
    ManyToOne,
    /// `group_right`: many on the right.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// How series of two vectors find their partners.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorMatching {
    /// How many may meet.
    pub cardinality: Cardinality,
    /// `on` (true: only `labels` count) or `ignoring` (false: all but `labels` and the metric's name).
    pub on: bool,
    /// Labels of `on` or `ignoring`, as written.
    pub labels: Vec<Arc<str>>,
    /// Labels of `group_left` or `group_right`, taken over from the "one" side.
    pub include: Vec<Arc<str>>,
    /// What stands in for partners that are missing.
    pub fill: Fill,
}

/// `fill`, `fill_left`, `fill_right`: the value of samples that have no partner otherwise; experimental.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fill {
    /// Of the left side; of the "many" side where there is one.
    pub left: Option<f64>,
    /// Of the right side; of the "one" side where there is a "many" side.
    pub right: Option<f64>,
}

/// Aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateOp {
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `count`
    Count,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `group`: 1 for each group
    Group,
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
    /// `topk(k, …)`
    Topk,
    /// `bottomk(k, …)`
    Bottomk,
    /// `quantile(φ, …)`
    Quantile,
    /// `count_values("label", …)`
    CountValues,
    /// `limitk(k, …)`, experimental
    Limitk,
    /// `limit_ratio(r, …)`, experimental
    LimitRatio,
}

impl AggregateOp {
    /// Every operator.
    pub const ALL: [Self; 14] = [
        Self::Sum,
        Self::Avg,
        Self::Count,
        Self::Min,
        Self::Max,
        Self::Group,
        Self::Stddev,
        Self::Stdvar,
        Self::Topk,
        Self::Bottomk,
        Self::Quantile,
        Self::CountValues,
        Self::Limitk,
        Self::LimitRatio,
    ];

    /// As written in a query.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::Quantile => "quantile",
            Self::CountValues => "count_values",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    /// The type of its parameter, if it takes one.
    pub fn param_type(self) -> Option<ValueType> {
        match self {
            Self::Topk | Self::Bottomk | Self::Quantile | Self::Limitk | Self::LimitRatio => {
                Some(ValueType::Scalar)
            }
            Self::CountValues => Some(ValueType::String),
            _ => None,
        }
    }

    /// Whether it is accepted only with the experimental setting.
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::Limitk | Self::LimitRatio)
    }
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// What is aggregated: an instant vector.
    pub expr: Expr,
    /// The parameter: present exactly when [`AggregateOp::param_type`] names a type, and of that type.
    pub param: Option<Expr>,
    /// `without` (true: all labels but `grouping`) or `by` (false).
    pub without: bool,
    /// The labels, as written.
    pub grouping: Vec<Arc<str>>,
}

/// A function and its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function.
    pub function: Function,
    /// Its arguments, as many and of such types as its signature allows; optional ones may be missing.
    pub args: Vec<Expr>,
}

/// `@`: the time at which to look, instead of the step's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// Milliseconds since the Unix epoch.
    Time(i64),
    /// Start of the query's range.
    Start,
    /// End of the query's range.
    End,
}

/// What a selector does about the borders between which it looks; experimental.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Edges {
    /// Samples count where they lie.
    #[default]
    Plain,
    /// `anchored`: the last sample before the range stands at its beginning.
    Anchored,
    /// `smoothed`: values at the borders are interpolated between the samples on either side.
    Smoothed,
}

impl Edges {
    /// As written in a query; empty for plain ones.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Anchored => "anchored",
            Self::Smoothed => "smoothed",
        }
    }
}

/// Selects series at an instant.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// The metric's name where it is written in front of the braces or as the quoted name inside them.
    pub name: Option<Arc<str>>,
    /// All conditions, that on `__name__` included. At least one refuses the empty string, but in the second argument
    /// of `info`.
    pub matchers: Vec<Matcher>,
    /// `anchored` or `smoothed`.
    pub edges: Edges,
    /// How far to look back from the step's time or `at`; negative looks ahead.
    pub offset: Length,
    /// `@`.
    pub at: Option<At>,
}

/// Selects series over a range: `(t - offset - range, t - offset]`. Offset and `@` stand in the selector.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// What to select, with the modifiers that follow the brackets.
    pub selector: VectorSelector,
    /// Length of the range, above 0.
    pub range: Length,
}

/// Evaluates an instant expression over a range.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// An instant vector.
    pub expr: Expr,
    /// Length of the range, above 0.
    pub range: Length,
    /// Distance of the steps, above 0; `None` is the setting's default.
    pub step: Option<Length>,
    /// How far to look back from the step's time or `at`; negative looks ahead.
    pub offset: Length,
    /// `@`.
    pub at: Option<At>,
}
