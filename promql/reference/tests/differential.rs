//! The engine against the reference: random expressions over random data.
//!
//! `FUZZ_SEED` is the first seed (default 1), `FUZZ_COUNT` how many expressions are tried.
//!
//! # What differs by design
//! - Sums and variances are rounded once, however they were cut into parts, and the reference adds one by one. Both are
//!   right within the tolerance; but `floor` and `ceil` make a whole number's difference of it where a value is whole but
//!   for rounding, and to `rate`, `increase`, `irate`, `resets` and `changes` over a subquery two values that are equal but
//!   for rounding may be a reset. Where answers are the same without these, they are the same.
//! - A subquery is evaluated at all its steps from the first window to the last, as Prometheus does it, and so an error
//!   at a step between two windows ends it. The reference looks into windows only. Where the engine gives the reference's
//!   answer at each time for itself, they are the same.

#![allow(clippy::unwrap_used, reason = "tests")]

use promql::Syntax;
use reference::fuzz::{
    Dialect, EDGE_RARITY, Kinds, Random, data, difference, engine, evened, expression, extremes, is_same,
};
use reference::{Answer, Series, Steps, Value, evaluate};

/// Expressions that share one set of data.
const EXPRESSIONS_A_DATA_SET: u64 = 20;
const COUNT: u64 = 2000;
/// From so many on it is told by how many errors and empty answers there are whether they try anything.
const TELLING_COUNT: u64 = 500;

#[allow(clippy::disallowed_methods, reason = "a test is told by its environment")]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

fn steps(random: &mut Random) -> Steps {
    let start_ms = random.below(60) as i64 * 10_000 + 200_000;
    let step_ms = random.pick(&[0, 15_000, 60_000, 77_000]);
    let end_ms = start_ms + step_ms * random.below(12) as i64;
    let delayed_name_removal = random.one_in(2);
    Steps { end_ms, step_ms, delayed_name_removal, ..Steps::instant(start_ms) }
}

/// Of `topk` and its kin only what is picked counts, not from which of equal samples.
fn picks(query: &str) -> bool {
    ["topk", "bottomk", "limitk"].iter().any(|op| query.starts_with(op))
}

/// How many samples there are at each time, and for a ranking their values.
fn picked(query: &str, answer: &Answer) -> Vec<(i64, f64)> {
    let mut all: Vec<(i64, f64)> = Vec::new();
    for points in answer.values() {
        for (time_ms, value) in points {
            let value = match value {
                // Which samples these are is nobody's business.
                _ if query.starts_with("limitk") => 0.0,
                Value::Float(value) if value.is_nan() => f64::NAN,
                Value::Float(value) => *value,
                _ => 0.0,
            };
            all.push((*time_ms, value));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    all
}

/// By how much what is picked may differ: sums of what cancels are ranked, too.
const PICKED_TOLERANCE: f64 = 1e-6;

/// Whether what was picked is the same but for rounding.
fn picks_agree(mine: &[(i64, f64)], theirs: &[(i64, f64)]) -> bool {
    mine.len() == theirs.len()
        && mine.iter().zip(theirs).all(|(mine, theirs)| {
            mine.0 == theirs.0 && (is_same(mine.1, theirs.1) || (mine.1 - theirs.1).abs() <= PICKED_TOLERANCE)
        })
}

/// Whether answers are the same but for a function that tells apart what is the same but for rounding.
fn at_an_edge(query: &str, series: &[Series], steps: &Steps) -> bool {
    let Some(even) = evened(query) else { return false };
    let expr = promql::parse_with(&even, Syntax { experimental: true }).unwrap();
    let answers = (engine(&even, series, steps), evaluate(&expr, series, steps));
    matches!(answers, (Ok(mine), Ok(theirs)) if difference(&mine, &theirs).is_none())
}

/// Whether both answer the same at each step for itself.
fn agree_step_by_step(query: &str, series: &[Series], steps: &Steps) -> bool {
    let expr = promql::parse_with(query, Syntax { experimental: true }).unwrap();
    let mut times = (steps.start_ms..=steps.end_ms).step_by(steps.step_ms.max(1) as usize);
    times.all(|time_ms| {
        let at = Steps { start_ms: time_ms, end_ms: time_ms, step_ms: 0, ..*steps };
        let answers = (engine(query, series, &at), evaluate(&expr, series, &at));
        matches!(answers, (Ok(mine), Ok(theirs)) if difference(&mine, &theirs).is_none())
    })
}

#[test]
fn the_engine_answers_as_the_reference_does() {
    let (first, count) = (number("FUZZ_SEED", 1), number("FUZZ_COUNT", COUNT));
    let mut failures = Vec::new();
    let (mut errors, mut empty, mut edges) = (0, 0, 0);
    let mut series = Vec::new();
    for seed in first..first + count {
        let mut random = Random::new(seed);
        if series.is_empty() || seed % EXPRESSIONS_A_DATA_SET == 0 {
            // A seed alone brings back its data, too.
            let mut random = Random::new(u64::MAX - seed / EXPRESSIONS_A_DATA_SET);
            let histograms = !random.one_in(4);
            let (starts, specials) = (random.one_in(4), random.one_in(4));
            let kinds = Kinds { histograms, gauges: true, custom_buckets: true, starts, specials };
            series = data(&mut random, kinds);
        }
        let query = expression(&mut random, Dialect::Whole);
        let steps = steps(&mut random);
        let expr = promql::parse_with(&query, Syntax { experimental: true })
            .unwrap_or_else(|e| panic!("seed {seed}: {query}: {e}"));
        let found = match (engine(&query, &series, &steps), evaluate(&expr, &series, &steps)) {
            (Ok(mine), Ok(theirs)) => {
                empty += u64::from(theirs.is_empty());
                if picks(&query) {
                    let (mine, theirs) = (picked(&query, &mine), picked(&query, &theirs));
                    (!picks_agree(&mine, &theirs)).then(|| format!("{mine:?} and {theirs:?}"))
                } else {
                    let found = difference(&mine, &theirs);
                    let is_edge = found.is_some() && at_an_edge(&query, &series, &steps);
                    edges += u64::from(is_edge);
                    found.filter(|_| !is_edge)
                }
            }
            (Err(_), Err(_)) => {
                errors += 1;
                None
            }
            (Ok(_), Err(error)) => Some(format!("the reference fails: {error}")),
            (Err(_), Ok(_)) if query.contains(':') && agree_step_by_step(&query, &series, &steps) => None,
            (Err(error), Ok(_)) => Some(format!("the engine fails: {error}")),
        };
        failures.extend(found.map(|found| format!("seed {seed}: {query} {steps:?}: {found}")));
    }
    eprintln!(
        "{count} expressions from seed {first}: {errors} errors and {empty} empty answers on both sides, {edges} at an \
         edge"
    );
    assert!(
        failures.is_empty(),
        "{} differences (engine and reference):\n{}",
        failures.len(),
        failures[..failures.len().min(20)].join("\n")
    );
    assert!(edges <= 1 + count / EDGE_RARITY, "{edges} are at an edge");
    let tells = empty < count * 6 / 10 && errors < count / 4;
    assert!(tells || count < TELLING_COUNT, "{empty} empty and {errors} errors tell little");
}

#[test]
fn chains_of_operators_are_answered_alike_however_long() {
    const LINKS: usize = 4_999;
    let kinds =
        Kinds { histograms: false, gauges: false, custom_buckets: false, starts: false, specials: false };
    let series = data(&mut Random::new(1), kinds);
    let steps = Steps { end_ms: 420_000, step_ms: 60_000, ..Steps::instant(300_000) };
    // To the reference a union costs the square of its length.
    let table: Vec<String> = (0..200).map(|i| format!(r#"label_join(vector({i}), "id", "{i}")"#)).collect();
    for query in [
        format!("g{}", " + on (job, instance) g".repeat(LINKS)),
        format!("g{}", " and g".repeat(LINKS)),
        format!("g{}", " ^ 1".repeat(LINKS)),
        format!("g{}", " - 0.25 * 2".repeat(LINKS)),
        format!("1{}", " + time()".repeat(LINKS)),
        format!("count({})", table.join(" or ")),
    ] {
        let expr = promql::parse_with(&query, Syntax { experimental: true }).unwrap();
        let (mine, theirs) = (engine(&query, &series, &steps), evaluate(&expr, &series, &steps));
        let (mine, theirs) = (mine.unwrap(), theirs.unwrap());
        assert!(!mine.is_empty());
        assert_eq!(difference(&mine, &theirs), None, "{}", &query[..query.len().min(40)]);
    }
}

#[test]
fn extreme_arguments_are_answered_alike() {
    let steps = Steps::instant(300_000);
    let value = |answer: Answer, query: &str| {
        let points: Vec<_> = answer.values().flat_map(|points| points.values()).cloned().collect();
        match points.as_slice() {
            [] => None,
            [Value::Float(value)] => Some(*value),
            other => panic!("{query}: {other:?}"),
        }
    };
    let mut differences = Vec::new();
    for query in extremes() {
        let expr = promql::parse_with(&query, Syntax { experimental: true }).unwrap();
        let mine = value(engine(&query, &[], &steps).unwrap(), &query);
        let theirs = value(evaluate(&expr, &[], &steps).unwrap(), &query);
        let is_alike = mine.zip(theirs).map_or(mine == theirs, |(mine, theirs)| is_same(mine, theirs));
        if !is_alike {
            differences.push(format!("{query}: {mine:?} and {theirs:?}"));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}
