//! Runs PromQL scripts against the engine: our own, and, where they are at hand, Prometheus's.

#![allow(dead_code, reason = "what only a server needs of the runner isn't used here")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/promqltest/engine.rs"]
mod engine;
#[path = "../examples/promqltest/expect.rs"]
mod expect;
#[path = "../examples/promqltest/histogram.rs"]
mod histogram;
#[path = "../examples/promqltest/load.rs"]
mod load;
#[path = "../examples/promqltest/nhcb.rs"]
mod nhcb;
#[path = "../examples/promqltest/run.rs"]
mod run;
#[path = "../examples/promqltest/scan.rs"]
mod scan;
#[path = "../examples/promqltest/script.rs"]
mod script;
#[path = "../examples/promqltest/values.rs"]
mod values;

use std::path::{Path, PathBuf};

use run::Score;

/// Prometheus's scripts, beside the project.
const SHARED: &str = "../../shared/promqltest";

/// Prometheus's scripts, and how many cases each of them has: all of them pass.
const CASES: [(&str, usize); 21] = [
    ("aggregators.test", 110),
    ("at_modifier.test", 43),
    ("collision.test", 1),
    ("duration_expression.test", 40),
    ("extended_vectors.test", 116),
    ("fill-modifier.test", 34),
    ("functions.test", 244),
    ("histograms.test", 128),
    ("info.test", 38),
    ("limit.test", 18),
    ("literals.test", 11),
    ("name_label_dropping.test", 16),
    ("native_histograms.test", 320),
    ("operators.test", 120),
    ("range_queries.test", 7),
    ("selectors.test", 24),
    ("staleness.test", 11),
    ("start_timestamps.test", 18),
    ("subquery.test", 20),
    ("trig_functions.test", 12),
    ("type_and_unit.test", 52),
];

/// The outcome, and what failed.
fn run_file(path: &Path) -> (Score, Vec<String>) {
    #[allow(clippy::disallowed_methods, reason = "a test reads its data itself")]
    let text = std::fs::read_to_string(path).unwrap();
    let mut failures = Vec::new();
    let score = run::run(&script::parse(&text), &mut engine::Engine::default(), |line, query, message| {
        failures.push(format!("{}:{line}: {query}: {message}", path.display()));
    });
    (score, failures)
}

fn manifest_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn our_own_scripts_pass() {
    #[allow(clippy::disallowed_methods, reason = "a test reads its data itself")]
    let folder = std::fs::read_dir(manifest_folder().join("testdata")).unwrap();
    let mut cases = 0;
    for entry in folder {
        let (score, failures) = run_file(&entry.unwrap().path());
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        cases += score.total;
    }
    assert!(cases > 50, "only {cases} cases were found");
}

#[test]
fn all_of_prometheus_s_cases_pass() {
    let folder = manifest_folder().join(SHARED);
    if !folder.exists() {
        eprintln!("SKIPPED: {} isn't there", folder.display());
        return;
    }
    for (name, total) in CASES {
        let (score, failures) = run_file(&folder.join(name));
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        assert_eq!(score.passed, total, "{name}");
    }
}

/// Points as text: `-` where there is none.
fn points(line: &str) -> Result<String, String> {
    let shown = |item: values::Item| match item {
        None => "-".to_owned(),
        Some(values::Point::Float(value)) => value.to_string(),
        Some(values::Point::Histogram { value, has_hint }) => {
            format!("{}{}", value.count, if has_hint { "!" } else { "" })
        }
    };
    let (_, items) = script::parse_series(line)?;
    Ok(items.into_iter().map(shown).collect::<Vec<_>>().join(" "))
}

#[test]
fn runs_of_points_are_expanded() {
    for (line, expected) in [
        ("a 1 -2.5 1e3 .5 Inf -Inf NaN", "1 -2.5 1000 0.5 inf -inf NaN"),
        ("a 1+2x3", "1 3 5 7"),
        ("a 1-2x3", "1 -1 -3 -5"),
        ("a 5x3", "5 5 5 5"),
        ("a _ 1 _x3 2", "- 1 - - - 2"),
        ("a{b=\"c d\"} 1", "1"),
        ("a {{count:2}} {{count:3 counter_reset_hint:gauge}}x1", "2 3! 3!"),
        ("a {{schema:1 count:4 buckets:[1 3]}}-{{schema:2 count:1 buckets:[1]}}x2", "4 3 2"),
    ] {
        assert_eq!(points(line).as_deref(), Ok(expected), "{line}");
    }
    for wrong in ["a 1x", "a 1y", "a {{sum:x}}", "a{b=c} 1", "{ 1", "a x3", "a {{count:1", "a 1x99999999"] {
        assert!(points(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_command_that_cannot_be_read_fails_alone() {
    let commands =
        script::parse("load 1m\n a 1\n\neval instant at 0 a\n a one\n\neval instant at 0 a\n a 1\n");
    let mut failed = Vec::new();
    let score = run::run(&commands, &mut engine::Engine::default(), |line, _, _| failed.push(line));
    assert_eq!((score.passed, score.total, failed), (1, 2, vec![4]));
}

#[test]
fn start_times_are_relative_to_the_points() {
    let load = load::Load::parse("load 1m", &["a@st _ -30s-1mx1 0", "a 1 2 3 4"]).unwrap();
    let starts: Vec<i64> = load.series[0].1.iter().map(|sample| sample.start_ms).collect();
    assert_eq!(starts, [0, 30_000, 30_000, 180_000]);
}

#[test]
fn classic_histograms_become_native_ones() {
    let body =
        ["h_bucket{le=\"1\"} 2", "h_bucket{le=\"2.0\"} 5", "h_bucket{le=\"+Inf\"} 6", "h_sum 9", "h_count 6"];
    let load = load::Load::parse("load_with_nhcb 1m", &body).unwrap();
    let (labels, samples) = load.series.last().unwrap();
    assert_eq!((load.series.len(), labels.to_string()), (6, "h".to_owned()));
    let tsdb::model::Value::Histogram(h) = &samples[0].value else { panic!("a histogram was made") };
    assert_eq!((h.sum, h.count, h.positive_buckets.as_slice()), (9.0, 6.0, [2.0, 3.0, 1.0].as_slice()));
    assert_eq!(h.custom_values.as_deref(), Some([1.0, 2.0].as_slice()));
}

/// Test threads have the stack of a node's threads, 2 MiB, and this build's frames are larger than a release's.
#[test]
fn the_highest_trees_are_planned_and_evaluated() {
    let nested = promql::parse::MAX_NESTING - 1;
    let mut engine = engine::Engine::default();
    let load = load::Load::parse("load 1m", &["a 1x10", "b 2x10"]).unwrap();
    run::Target::load(&mut engine, &load).unwrap();
    for query in [
        format!("{}a{}", "(".repeat(nested / 2), " + a)".repeat(nested / 2)),
        format!("{}a{}", "abs(a + ".repeat(nested / 2), ")".repeat(nested / 2)),
        format!("{}a{}", "abs(".repeat(nested), ")".repeat(nested)),
        format!("{}a{}", "sum(".repeat(nested), ")".repeat(nested)),
        format!("{}a", "-".repeat(nested)),
        format!("{}a{}", "vector(scalar(".repeat(nested / 2), "))".repeat(nested / 2)),
        format!("{}a{}", "max_over_time(".repeat(nested / 2), "[1m:1m])".repeat(nested / 2)),
    ] {
        let when = script::When::Range { start_ms: 0, end_ms: 120_000, step_ms: 60_000 };
        let answer = run::Target::ask(&mut engine, &query, when);
        assert!(answer.is_ok(), "{query}: {answer:?}");
    }
}

/// A chain is one level, however long: a table written as `vector(1) or vector(2) or …` has thousands of operands.
#[test]
fn chains_of_thousands_of_operators_are_answered() {
    const LINKS: usize = 4_999;
    let mut engine = engine::Engine::default();
    let load = load::Load::parse("load 1m", &["a 1x10", "b 2x10"]).unwrap();
    run::Target::load(&mut engine, &load).unwrap();
    let table = (0..=LINKS).map(|i| format!("label_replace(vector({i}), \"id\", \"{i}\", \"\", \"\")"));
    let table = table.collect::<Vec<_>>().join(" or ");
    let chain = |first: &str, link: &str| format!("{first}{}", link.repeat(LINKS));
    for (query, expected) in [
        (format!("count({table})"), 5000.0),
        (format!("scalar(count({table}))"), 5000.0),
        (chain("a", " or b"), 1.0),
        (chain("a", " and a"), 1.0),
        (chain("a", " unless b{x=\"y\"}"), 1.0),
        (chain("a", " + b"), 9999.0),
        (chain("a", " + 1"), 5000.0),
        (chain("1", " + 1"), 5000.0),
        (chain("1", " + a"), 5000.0),
        (chain("time() * 0", " + 1"), 4999.0),
        (chain("a", " ^ b"), 1.0),
        (chain("1", " ^ 2"), 1.0),
        (chain("2", " ^ 1"), 2.0),
        (chain("b", " == b"), 2.0),
        (chain("b", " - on () group_left () a"), -4997.0),
        (format!("sum_over_time(({})[1m:1m])", chain("a", " + b")), 9999.0),
    ] {
        let short = &query[..query.len().min(40)];
        let range = script::When::Range { start_ms: 0, end_ms: 120_000, step_ms: 60_000 };
        for when in [script::When::Instant(60_000), range] {
            let answer =
                run::Target::ask(&mut engine, &query, when).unwrap_or_else(|e| panic!("{short}: {e}"));
            let found = match answer.value {
                expect::Value::Scalar(value) => value,
                expect::Value::Vector(vector) => float(&vector[0].1),
                expect::Value::Matrix(series) => {
                    float(&series[0].1.iter().find(|(time_ms, _)| *time_ms == 60_000).unwrap().1)
                }
                expect::Value::String(text) => panic!("{short}: {text}"),
            };
            assert_eq!(found, expected, "{short}");
        }
    }
}

fn float(number: &expect::Number) -> f64 {
    let expect::Number::Float(value) = number else { panic!("{number:?} is no float") };
    *value
}
