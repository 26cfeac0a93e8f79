//! Random expressions; `FUZZ_PEER_COUNT` is how many.
//!
//! # What differs by design
//! - Every other Prometheus drops names at the end, as the engine then does. A name that is to go goes: such a one
//!   forgets that in comparisons of vectors (`rate(a[1m]) > b` keeps `a`), in `last_over_time` of a subquery, and where
//!   `or` has a series on one side at one step and on the other at the next; answers to such questions may also be the
//!   same without names.
//! - 3.14, whose language this is, doesn't extrapolate a native histogram's rate to before it was 0 observations, and
//!   knows fractions of classic histograms below their first bucket; 3.5 does not. Where these differ, it is the
//!   reference that must agree.
//! - 3.5 counts too few changes between floats and histograms, and dates of infinities are what the processor makes of
//!   them: here too the reference must agree.
//! - 3.5 refuses series whose labels become the same, even where no two of their samples meet: 3.14 makes one of them.
//! - `timestamp(x offset 10m @ end())`, with `offset` before `@`, is nothing to 3.5 in range queries; here too the reference
//!   must agree.
//! - Sine and powers may differ in the last bit, and `ceil`, `floor`, `%`, comparisons and the like make a whole number's
//!   difference of it: then the answers must be the same without these, and this must be rare ([`EDGE_RARITY`]).
//! - Of some 20,000 questions 3.5.3 answers one otherwise when it is asked again, on the same data, or shows buckets of a
//!   histogram that don't come to its count: whoever answers as it does another time is right. More than
//!   [`CONTRADICTIONS_MAX`] would be something else.
//! - `ln` and `log10` of what is below the least normal number are some other number's to Go on amd64, and it takes a
//!   quotient that comes to 0 for a positive one in `atan2`: [`GO_IS_WRONG`].
//! - Of a zero bucket with less than nothing in it, the HTTP API of Prometheus says nothing.

use reference::fuzz::{
    Dialect, EDGE_RARITY, Kinds, Random, data, engine, evened, expression, extremes, is_close, is_same,
};
use reference::{Answer, Histogram, Series, Steps, evaluate};

use crate::expect::{Number, ShownHistogram, Value};
use crate::peer::{Peer, program};
use crate::run::Target as _;
use crate::script::When;
use crate::{assert_none, number};

const COUNT: u64 = 500;
/// Expressions asked of one Prometheus, which holds one set of data.
const EXPRESSIONS_A_PEER: u64 = 100;
/// What 3.5 says of series that 3.14 makes one of: see above.
const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";
/// How often what Prometheus says otherwise is asked again.
const ASKED_AGAIN: u32 = 9;
/// How many questions of a thousand a Prometheus may answer in two ways, and one more.
const CONTRADICTIONS_MAX: u64 = 1;
/// Questions with extreme arguments whose answers are Go's alone: see above.
const GO_IS_WRONG: [&str; 5] = [
    "ln(vector(5e-324))",
    "ln(vector(1e-308))",
    "log10(vector(5e-324))",
    "log10(vector(1e-308))",
    "vector(-5e-324) atan2 vector(-1e308)",
];

fn same(mine: &reference::Value, theirs: &Number) -> bool {
    match (mine, theirs) {
        (reference::Value::Float(mine), Number::Float(theirs)) => is_close(*mine, *theirs),
        (reference::Value::Histogram(mine), Number::Shown(theirs)) => same_histogram(mine, theirs),
        _ => false,
    }
}

fn same_histogram(mine: &Histogram, theirs: &ShownHistogram) -> bool {
    // A zero bucket with less than nothing isn't shown.
    let shown = |bucket: &reference::Bucket| bucket.lower > 0.0 || bucket.upper < 0.0 || bucket.count > 0.0;
    let mine_buckets: Vec<_> = mine.buckets().into_iter().filter(shown).collect();
    is_close(mine.count, theirs.count)
        && is_close(mine.sum, theirs.sum)
        && mine_buckets.len() == theirs.buckets.len()
        && mine_buckets.iter().zip(&theirs.buckets).all(|(mine, (lower, upper, count))| {
            is_close(mine.lower, *lower) && is_close(mine.upper, *upper) && is_close(mine.count, *count)
        })
}

fn difference(mine: &Answer, theirs: &Value, start_ms: i64) -> Option<String> {
    let scalar = |value: f64| vec![(tsdb::model::Labels::default(), vec![(start_ms, Number::Float(value))])];
    let theirs = match theirs {
        Value::Scalar(value) => scalar(*value),
        Value::String(text) => return Some(format!("a text: {text}")),
        Value::Vector(vector) => {
            vector.iter().map(|(labels, number)| (labels.clone(), vec![(start_ms, number.clone())])).collect()
        }
        Value::Matrix(series) => series.clone(),
    };
    let points = |series: &Answer| series.values().map(std::collections::BTreeMap::len).sum::<usize>();
    let total: usize = theirs.iter().map(|(_, points)| points.len()).sum();
    for (labels, values) in &theirs {
        for (time_ms, value) in values {
            let found = mine.get(labels).and_then(|points| points.get(time_ms));
            if !found.is_some_and(|found| same(found, value)) {
                return Some(format!("{labels} at {time_ms}: {found:?} and {value:?}"));
            }
        }
    }
    (points(mine) != total).then(|| format!("{} samples and {total}: {mine:?} and {theirs:?}", points(mine)))
}

/// Whether Prometheus may keep a name that was to be dropped: see above.
fn keeps_names(query: &str) -> bool {
    [" > ", " < ", " or ", "last_over_time(("].iter().any(|part| query.contains(part))
}

/// Whether 3.14 differs from 3.5 here: see above.
fn is_newer(query: &str) -> bool {
    let rates = ["rate(h", "rate(m", "rate((", "increase(h", "increase(m", "increase(("];
    let others = ["timestamp(", "histogram_fraction(-1", "changes(m", "day_of_month(", "minute("];
    rates.iter().chain(&others).any(|part| query.contains(part))
}

/// Whether the engine does as the reference does.
fn is_as_told(query: &str, series: &[Series], steps: &Steps) -> bool {
    let expr = promql::parse_with(query, crate::run::SYNTAX).unwrap();
    let (mine, theirs) = (engine(query, series, steps), evaluate(&expr, series, steps));
    match (mine, theirs) {
        (Ok(mine), Ok(theirs)) => reference::fuzz::difference(&mine, &theirs).is_none(),
        (mine, theirs) => mine.is_err() && theirs.is_err(),
    }
}

/// Whether a histogram has other buckets than it has observations: Prometheus has mixed up two then.
fn is_mixed_up(answer: &Value) -> bool {
    let mixed = |number: &Number| match number {
        Number::Shown(shown) => {
            !is_close(shown.buckets.iter().map(|bucket| bucket.2).sum::<f64>(), shown.count)
        }
        Number::Float(_) | Number::Histogram(_) => false,
    };
    match answer {
        Value::Vector(vector) => vector.iter().any(|(_, number)| mixed(number)),
        Value::Matrix(series) => {
            series.iter().flat_map(|(_, points)| points).any(|(_, number)| mixed(number))
        }
        _ => false,
    }
}

/// What differs between an answer of the engine and Prometheus's, if anything does.
fn unlike(
    keeps_names: bool,
    mine: Result<&Answer, &String>,
    theirs: Result<Value, String>,
    start_ms: i64,
    is_as_told: impl Fn() -> bool,
) -> Option<String> {
    match (mine, theirs) {
        (Ok(mine), Ok(theirs)) => difference(mine, &theirs, start_ms).filter(|_| {
            let (mine, theirs) = (nameless(mine), nameless_value(theirs));
            !keeps_names || difference(&mine, &theirs, start_ms).is_some()
        }),
        (Err(_), Err(_)) => None,
        (Ok(_), Err(error)) if error.contains(SAME_LABELS) && is_as_told() => None,
        (Ok(_), Err(error)) => Some(format!("Prometheus fails: {error}")),
        (Err(error), Ok(_)) => Some(format!("the engine fails: {error}")),
    }
}

fn nameless(answer: &Answer) -> Answer {
    let mut all = Answer::new();
    for (labels, points) in answer {
        all.entry(labels.without_name()).or_default().extend(points.clone());
    }
    all
}

fn nameless_value(value: Value) -> Value {
    match value {
        Value::Vector(v) => Value::Vector(v.into_iter().map(|(l, n)| (l.without_name(), n)).collect()),
        Value::Matrix(m) => Value::Matrix(m.into_iter().map(|(l, p)| (l.without_name(), p)).collect()),
        other => other,
    }
}

#[test]
fn the_engine_answers_as_prometheus_does() {
    let Some(program) = program() else { return };
    let (first, count) = (number("FUZZ_SEED", 1), number("FUZZ_PEER_COUNT", COUNT));
    let mut failures = Vec::new();
    let (mut errors, mut empty, mut ranked, mut edges, mut contradictions) = (0, 0, 0, 0, 0);
    let mut peer: Option<(Peer, Vec<Series>)> = None;
    for seed in first..first + count {
        let mut random = Random::new(seed);
        if peer.is_none() || seed % EXPRESSIONS_A_PEER == 0 {
            let number = seed / EXPRESSIONS_A_PEER;
            let mut random = Random::new(u64::MAX - number);
            // Custom buckets don't fit into remote write 1.0, start times aren't stored, and rates of gauges are nothing
            // to agree upon.
            let specials = random.one_in(3);
            let kinds =
                Kinds { histograms: true, gauges: false, custom_buckets: false, starts: false, specials };
            let series = data(&mut random, kinds);
            drop(peer.take());
            let mut started = Peer::start(&program, number, number.is_multiple_of(2));
            started.load(&series);
            peer = Some((started, series));
        }
        let Some((peer, series)) = &mut peer else { continue };
        let query = expression(&mut random, Dialect::Prometheus35);
        if ["topk", "bottomk"].iter().any(|op| query.starts_with(op)) {
            // Which of equal samples are picked is told by tests of their own.
            ranked += 1;
            continue;
        }
        let start_ms = random.below(60) as i64 * 10_000 + 200_000;
        let step_ms = random.pick(&[0, 15_000, 60_000]);
        let end_ms = start_ms + step_ms * random.below(12) as i64;
        let (lookback_ms, subquery_step_ms, delayed_name_removal) = (300_000, 60_000, peer.keeps_names);
        let steps = Steps { start_ms, end_ms, step_ms, lookback_ms, subquery_step_ms, delayed_name_removal };
        let when = match step_ms {
            0 => When::Instant(start_ms),
            _ => When::Range { start_ms, end_ms, step_ms },
        };
        let mine = engine(&query, series, &steps);
        empty += u64::from(mine.as_ref().is_ok_and(Answer::is_empty));
        errors += u64::from(mine.is_err());
        let mut compared = |query: &str, mine: &Result<Answer, String>| {
            let theirs = peer.api.ask(query, when).map(|theirs| theirs.value);
            let is_mixed_up = theirs.as_ref().is_ok_and(is_mixed_up);
            let told = || is_as_told(query, series, &steps);
            let keeps_names = peer.keeps_names && keeps_names(query);
            let found = unlike(keeps_names, mine.as_ref(), theirs, start_ms, told);
            (found.filter(|_| !(is_newer(query) && told())), is_mixed_up)
        };
        let (mut found, is_mixed_up) = compared(&query, &mine);
        if found.is_some()
            && let Some(even) = evened(&query)
            && compared(&even, &engine(&even, series, &steps)).0.is_none()
        {
            found = None;
            edges += 1;
        }
        if let Some(first) = &found
            && (is_mixed_up || (0..ASKED_AGAIN).any(|_| compared(&query, &mine).0.is_none()))
        {
            eprintln!("seed {seed}: {query} {when:?}: at first {first}");
            contradictions += 1;
            found = None;
        }
        failures.extend(found.map(|found| format!("seed {seed}: {query} {when:?}: {found}")));
    }
    eprintln!(
        "{count} answers compared with {}: {errors} errors, {empty} empty, {ranked} rankings left out, \
         {edges} at an edge, {contradictions} contradictions",
        program.display()
    );
    assert!(edges <= 1 + count / EDGE_RARITY, "{edges} are at an edge");
    assert!(contradictions <= 1 + CONTRADICTIONS_MAX * count / 1000, "{contradictions} answers of two kinds");
    assert_none(&failures);
}

#[test]
fn extreme_arguments_are_answered_as_prometheus_does() {
    const TIME_MS: i64 = 300_000;
    let Some(program) = program() else { return };
    let mut peer = Peer::start(&program, u64::MAX - 1, false);
    let steps = Steps::instant(TIME_MS);
    let mut differences = Vec::new();
    for query in extremes() {
        let mine = engine(&query, &[], &steps).unwrap();
        let mine = mine.values().flat_map(|points| points.values()).next();
        let theirs = peer.api.ask(&query, When::Instant(TIME_MS)).unwrap().value;
        let is_alike = match (mine, &theirs) {
            (None, Value::Vector(theirs)) => theirs.is_empty(),
            (Some(reference::Value::Float(mine)), Value::Vector(theirs)) => match theirs.as_slice() {
                [(_, Number::Float(theirs))] => is_same(*mine, *theirs),
                _ => false,
            },
            _ => false,
        };
        if is_alike == GO_IS_WRONG.contains(&query.as_str()) {
            differences.push(format!("{query}: {mine:?} and {theirs:?}"));
        }
    }
    assert_none(&differences);
}
