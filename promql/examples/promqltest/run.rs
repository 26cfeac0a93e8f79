//! Runs scripts: loads data into a target, asks it the cases' queries, and compares.
//!
//! An instant case passes only if all ways of asking it agree with what is expected: as it is; with every selector
//! pinned to its time by `@`, at several other times; and each of these as the one step of a range query, and as the
//! middle one of three.

use promql::Syntax;
use promql::functions::Function;
use promql::parse::ast::{At, Expr, Node};
use tsdb::model::Labels;

use crate::expect::{Answer, Expectation, Number, Value};
use crate::load::Load;
use crate::script::{Action, Command, Eval, When};

/// Scripts use everything.
pub const SYNTAX: Syntax = Syntax { experimental: true };

/// What is asked: the engine in this process, or a server.
pub trait Target {
    /// Forgets all data.
    fn clear(&mut self) -> Result<(), String>;
    /// Adds data.
    fn load(&mut self, load: &Load) -> Result<(), String>;
    /// Asks; an error is that of the query.
    fn ask(&mut self, query: &str, when: When) -> Result<Answer, String>;
}

/// What became of a file's cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    pub passed: usize,
    pub total: usize,
}

/// Runs a script's commands; `failed` hears of each case that doesn't pass, with its line.
pub fn run(
    commands: &[Command],
    target: &mut dyn Target,
    mut failed: impl FnMut(usize, &str, &str),
) -> Score {
    let mut score = Score::default();
    let mut broken = target.clear().err();
    for Command { line, action } in commands {
        match action {
            Action::Clear => broken = target.clear().err(),
            Action::Load(load) => broken = broken.or_else(|| target.load(load).err()),
            Action::Broken(message) => broken = Some(message.clone()),
            Action::BrokenEval(message) => {
                score.total += 1;
                failed(*line, "", message);
            }
            Action::Eval(eval) => {
                score.total += 1;
                let result = match &broken {
                    Some(message) => Err(format!("its data wasn't loaded: {message}")),
                    None => check(eval, target),
                };
                match result {
                    Ok(()) => score.passed += 1,
                    Err(message) => failed(*line, &eval.query, &message),
                }
            }
        }
    }
    score
}

fn check(eval: &Eval, target: &mut dyn Target) -> Result<(), String> {
    let When::Instant(at_ms) = eval.when else {
        return ask_and_compare(&eval.query, eval.when, &eval.expected, target).map(|_| ());
    };
    ask_around(&eval.query, at_ms, &eval.expected, target)?;
    let Some(pinned) = pinned(&eval.query, at_ms) else { return Ok(()) };
    let times_ms =
        if at_ms == 0 { vec![-1000, 0, 1000] } else { vec![-10 * at_ms, 0, at_ms / 5, at_ms, 10 * at_ms] };
    for other_ms in times_ms {
        ask_around(&pinned, other_ms, &eval.expected, target)
            .map_err(|message| format!("{message} (as {pinned} at {other_ms} ms)"))?;
    }
    Ok(())
}

/// Asks for an instant, for a range of this step alone, and for one of a step more on either side.
fn ask_around(
    query: &str,
    at_ms: i64,
    expected: &Expectation,
    target: &mut dyn Target,
) -> Result<(), String> {
    /// Distance of the steps before and after the one that counts.
    const STEP_MS: i64 = 60_000;
    let answer = ask_and_compare(query, When::Instant(at_ms), expected, target)?;
    let is_scalar = match answer {
        Some(Value::Scalar(_)) => true,
        Some(Value::Vector(_)) if !expected.is_ordered => false,
        _ => return Ok(()),
    };
    let around_ms = if depends_on_range(query) { [0].as_slice() } else { &[0, STEP_MS] };
    for around_ms in around_ms {
        let range = When::Range { start_ms: at_ms - around_ms, end_ms: at_ms + around_ms, step_ms: STEP_MS };
        ask_for_step(query, at_ms, range, is_scalar, expected, target)
            .map_err(|message| format!("{message} (in a range query)"))?;
    }
    Ok(())
}

/// Asks for a range, of which one step is compared.
fn ask_for_step(
    query: &str,
    at_ms: i64,
    range: When,
    is_scalar: bool,
    expected: &Expectation,
    target: &mut dyn Target,
) -> Result<(), String> {
    let Value::Matrix(series) = target.ask(query, range)?.value else {
        return Err("the answer is no matrix".to_owned());
    };
    if !series.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err("the series aren't sorted".to_owned());
    }
    let at_step = series.into_iter().filter_map(|(labels, points)| {
        let point = points.into_iter().find(|(timestamp_ms, _)| *timestamp_ms == at_ms)?;
        Some((labels, point.1))
    });
    let at_step: Vec<_> = at_step.collect();
    let value = match at_step.as_slice() {
        [(_, Number::Float(value))] if is_scalar => Value::Scalar(*value),
        _ => Value::Vector(at_step),
    };
    expected.check_value(&value, range)
}

/// The answer, if one is expected and it is the right one.
fn ask_and_compare(
    query: &str,
    when: When,
    expected: &Expectation,
    target: &mut dyn Target,
) -> Result<Option<Value>, String> {
    let answer = match target.ask(query, when) {
        Ok(answer) => answer,
        Err(error) => return expected.check_error(&error).map(|()| None),
    };
    if expected.fails.is_some() {
        return Err("an error is expected".to_owned());
    }
    expected.check_annotations(&answer)?;
    expected.check_value(&answer.value, when)?;
    let distinct = match &answer.value {
        Value::Matrix(series) => all_distinct(series.iter().map(|(labels, _)| labels)),
        Value::Vector(series) => all_distinct(series.iter().map(|(labels, _)| labels)),
        Value::Scalar(_) | Value::String(_) => true,
    };
    if distinct { Ok(Some(answer.value)) } else { Err("a series occurs twice".to_owned()) }
}

fn all_distinct<'a>(labels: impl Iterator<Item = &'a Labels>) -> bool {
    let mut labels: Vec<&Labels> = labels.collect();
    labels.sort_unstable();
    labels.windows(2).all(|pair| pair[0] != pair[1])
}

/// The query with every selector and subquery pinned to a time, unless that changes its meaning.
fn pinned(query: &str, at_ms: i64) -> Option<String> {
    let mut expr = promql::parse_with(query, SYNTAX).ok()?;
    pin(&mut expr, At::Time(at_ms)).then(|| expr.to_string())
}

/// Pins what isn't pinned yet; false when the expression depends on the time by itself.
fn pin(expr: &mut Expr, at: At) -> bool {
    match &mut expr.node {
        Node::Number(_) | Node::String(_) => true,
        Node::Paren(inner) => pin(inner, at),
        Node::Unary(unary) => pin(&mut unary.operand, at),
        Node::Binary(binary) => {
            binary.operands.iter_mut().fold(true, |holds, operand| holds & pin(operand, at))
        }
        Node::Aggregate(aggregate) => {
            pin(&mut aggregate.expr, at) & aggregate.param.as_mut().is_none_or(|param| pin(param, at))
        }
        Node::Call(call) => {
            let mut holds = !depends_on_time(call.function);
            for arg in &mut call.args {
                holds &= pin(arg, at);
            }
            holds
        }
        Node::Vector(selector) => {
            selector.at.get_or_insert(at);
            true
        }
        Node::Matrix(matrix) => {
            matrix.selector.at.get_or_insert(at);
            true
        }
        // What stands inside doesn't move with the query's time any more, whatever it is.
        Node::Subquery(subquery) => {
            subquery.at.get_or_insert(at);
            true
        }
    }
}

/// Whether a step's value depends on the range that it is asked in.
fn depends_on_range(query: &str) -> bool {
    promql::parse_with(query, SYNTAX).is_ok_and(|expr| uses_range(&expr))
}

fn uses_range(expr: &Expr) -> bool {
    const FUNCTIONS: [Function; 4] = [Function::Start, Function::End, Function::Range, Function::Step];
    let (at, lengths) = match &expr.node {
        Node::Call(call) if FUNCTIONS.contains(&call.function) => return true,
        Node::Vector(selector) => (selector.at, vec![&selector.offset]),
        Node::Matrix(matrix) => (matrix.selector.at, vec![&matrix.selector.offset, &matrix.range]),
        Node::Subquery(subquery) => {
            let lengths = [&subquery.offset, &subquery.range].into_iter().chain(&subquery.step);
            (subquery.at, lengths.collect())
        }
        _ => (None, Vec::new()),
    };
    matches!(at, Some(At::Start | At::End))
        || lengths.iter().any(|length| length.constant_ms().is_none())
        || expr.children().into_iter().any(uses_range)
}

/// Functions whose result depends on the step's time even when all their arguments are pinned.
fn depends_on_time(function: Function) -> bool {
    matches!(
        function,
        Function::DaysInMonth
            | Function::DayOfMonth
            | Function::DayOfWeek
            | Function::DayOfYear
            | Function::End
            | Function::Hour
            | Function::Minute
            | Function::Month
            | Function::Year
            | Function::PredictLinear
            | Function::Start
            | Function::Time
            | Function::Timestamp
    )
}
