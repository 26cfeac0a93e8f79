use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tsdb::model::{Labels, Sample, stale_nan};

use super::*;
use crate::parse::{Syntax, parse_with};
use crate::plan::{QueryRange, Settings, plan};
use crate::value::SampleValue;

const AMPLE: usize = 1 << 30;

fn series(pairs: &[(&str, &str)], samples: impl IntoIterator<Item = (i64, f64)>) -> Series {
    let samples: Vec<Sample> = samples.into_iter().map(|(t, v)| Sample::float(t, v)).collect();
    Series::from_samples(Labels::from_pairs(pairs.iter().copied()).unwrap(), &samples)
}

/// `m{job, instance}`, 10 s apart, with values that don't add up exactly.
fn many(count: usize) -> Vec<Series> {
    (0..count)
        .map(|i| {
            let (instance, job) = (format!("{i:04}"), format!("{}", i % 7));
            let value = move |n: i64| (i as f64 + 0.1) * 1.1f64.powi((n % 300) as i32) - n as f64 / 3.0;
            let labels = [("__name__", "m"), ("instance", instance.as_str()), ("job", job.as_str())];
            series(&labels, (0..60).map(|n| (n * 10_000, value(n))))
        })
        .collect()
}

fn run(
    query: &str,
    range: &QueryRange,
    data: &[Series],
    limits: &Limits,
    workers: &dyn Workers,
) -> Result<Output> {
    run_with(query, range, data, limits, workers, Settings::default())
}

fn run_with(
    query: &str,
    range: &QueryRange,
    data: &[Series],
    limits: &Limits,
    workers: &dyn Workers,
    settings: Settings,
) -> Result<Output> {
    let expr = parse_with(query, Syntax { experimental: true }).unwrap();
    let plan = plan(&expr, range, &settings).unwrap();
    let of = |select: &tsdb::select::Select| {
        let matches = |s: &&Series| select.matchers.iter().all(|m| m.matches(s.labels.value(m.name())));
        data.iter().filter(matches).cloned().collect()
    };
    let inputs = plan.selects().iter().map(of).collect();
    plan.evaluate(inputs, limits, workers)
}

fn instant(query: &str, data: &[Series]) -> Result<Vec<(String, f64)>> {
    instant_with(query, 300_000, data, Settings::default())
}

fn instant_with(
    query: &str,
    time_ms: i64,
    data: &[Series],
    settings: Settings,
) -> Result<Vec<(String, f64)>> {
    let range = QueryRange::instant(time_ms, 300_000);
    match run_with(query, &range, data, &Limits::bytes(AMPLE), &Inline, settings)?.value {
        Value::Vector(samples) => Ok(samples
            .into_iter()
            .map(|sample| match sample.value {
                SampleValue::Float(value) => (sample.labels.to_string(), value),
                SampleValue::Histogram(_) => panic!("there are no histograms here"),
            })
            .collect()),
        other => panic!("{other:?}"),
    }
}

fn bits(value: &Value) -> Vec<(String, Vec<(i64, u64)>)> {
    let Value::Matrix(series) = value else { panic!("{value:?}") };
    series
        .iter()
        .map(|s| {
            (s.labels.to_string(), s.floats.iter().map(|p| (p.timestamp_ms, p.value.to_bits())).collect())
        })
        .collect()
}

/// Runs tasks from the last to the first, each on a thread of its own.
struct Backwards;

impl Workers for Backwards {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        for number in (0..tasks).rev() {
            std::thread::scope(|scope| {
                scope.spawn(|| task(number));
            });
        }
    }
}

#[test]
fn results_do_not_depend_on_who_does_the_work() {
    let data = many(700);
    let range = QueryRange { start_ms: 100_000, end_ms: 580_000, step_ms: 15_000, lookback_ms: 300_000 };
    for query in [
        "sum by (job) (rate(m[1m]))",
        "avg(m)",
        "stddev by (job) (m)",
        "quantile(0.9, m)",
        "topk(3, m)",
        "count_values(\"v\", m > 100)",
        "sum(m) / count(m)",
        "max_over_time(sum(m)[2m:10s])",
        "m - on (instance) group_left () m",
    ] {
        let one = run(query, &range, &data, &Limits::bytes(AMPLE), &Inline).unwrap();
        let other = run(query, &range, &data, &Limits::bytes(AMPLE), &Backwards).unwrap();
        assert_eq!(bits(&one.value), bits(&other.value), "{query}");
        assert_eq!(one.annotations, other.annotations, "{query}");
    }
}

/// Counts how often work is handed to it.
#[derive(Default)]
struct Asked(AtomicUsize);

impl Workers for Asked {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.0.fetch_add(1, Ordering::Relaxed);
        Inline.run(tasks, task);
    }
}

#[test]
fn little_work_stays_where_it_is() {
    let asked = |query: &str, range: &QueryRange, count| {
        let asked = Asked::default();
        run(query, range, &many(count), &Limits::bytes(AMPLE), &asked).unwrap();
        asked.0.into_inner() > 0
    };
    let once = QueryRange::instant(300_000, 300_000);
    let often = QueryRange { start_ms: 0, end_ms: 590_000, step_ms: 1_000, lookback_ms: 300_000 };
    for query in ["sum(m)", "m", "rate(m[1m])", "m - m", "topk(3, m > 1)"] {
        assert!(!asked(query, &once, 50), "{query}");
        assert!(asked(query, &once, 1_000), "{query}");
        assert!(asked(query, &often, 50), "{query}");
    }
    // Windows and subqueries look at the same samples again and again.
    let minutes = QueryRange { step_ms: 60_000, ..often };
    assert!(!asked("m", &minutes, 50));
    assert!(asked("rate(m[5m])", &minutes, 50));
    assert!(asked("max_over_time(m[5m:1s])", &once, 50));
}

#[test]
fn a_query_over_its_budget_ends_with_what_was_too_large() {
    let data = many(300);
    let range = QueryRange { start_ms: 0, end_ms: 590_000, step_ms: 1_000, lookback_ms: 300_000 };
    let limits = Limits::bytes(500_000);
    let refused = run("m", &range, &data, &limits, &Inline).unwrap_err();
    assert!(matches!(refused, Error::Limit(_)) && refused.to_string().contains("rows"), "{refused}");
    let folded = run("sum(m)", &range, &data, &limits, &Inline).unwrap();
    assert!(folded.stats.peak_bytes <= 500_000);
    let steps = QueryRange { start_ms: 0, end_ms: i64::MAX, step_ms: 1, lookback_ms: 1 };
    assert!(matches!(run("vector(1)", &steps, &data, &limits, &Inline), Err(Error::Limit(_))));
}

/// Lends nothing, and counts who asks.
#[derive(Debug, Default)]
struct Miser(AtomicUsize);

impl Lender for Miser {
    fn borrow(&self, _: usize, what: &str) -> std::result::Result<(), String> {
        Err(format!("{what}, refused {}", self.0.fetch_add(1, Ordering::Relaxed)))
    }

    fn give_back(&self, _: usize) {}
}

#[test]
fn nothing_behind_a_failure_is_begun() {
    let (data, miser) = (many(700), Arc::new(Miser::default()));
    let range = QueryRange { start_ms: 0, end_ms: 590_000, step_ms: 1_000, lookback_ms: 300_000 };
    let limits = Limits { lender: Some(miser.clone()), ..Limits::bytes(AMPLE) };
    let refused = run("sum by (instance) (m)", &range, &data, &limits, &Inline).unwrap_err();
    assert_eq!(refused.to_string(), "decoded samples, refused 0");
    assert_eq!(miser.0.load(Ordering::Relaxed), 1);
    // Of several failures the first by place is told, whatever the order of work.
    let refused = run("sum by (instance) (m)", &range, &data, &limits, &Backwards).unwrap_err().to_string();
    let last = format!("refused {}", miser.0.load(Ordering::Relaxed) - 1);
    assert!(refused.ends_with(&last), "{refused}, not {last}");
}

#[test]
fn what_isnt_picked_isnt_held() {
    let data = many(600);
    let range = QueryRange { start_ms: 0, end_ms: 590_000, step_ms: 1_000, lookback_ms: 300_000 };
    // All rows take nearly 3 MB; those in flight at one time half of it.
    let limits = Limits::bytes(2_000_000);
    assert!(matches!(run("m", &range, &data, &limits, &Inline), Err(Error::Limit(_))));
    for query in ["topk(2, m)", "bottomk by (job) (1, m)", "limitk(3, m)", "limit_ratio(0.05, m)"] {
        let picked = run(query, &range, &data, &limits, &Inline).unwrap();
        assert!(matches!(picked.value, Value::Matrix(series) if !series.is_empty()), "{query}");
    }
}

#[test]
fn memory_is_given_back_between_operators() {
    let data = many(100);
    let range = QueryRange { start_ms: 0, end_ms: 590_000, step_ms: 1_000, lookback_ms: 300_000 };
    let peak =
        |query: &str| run(query, &range, &data, &Limits::bytes(AMPLE), &Inline).unwrap().stats.peak_bytes;
    assert!(peak("sum((m + m) + (m + m) + (m + m))") < 2 * peak("sum(m + m)"));
}

#[test]
fn a_cancelled_query_ends() {
    let limits = Limits::bytes(AMPLE);
    limits.cancelled.store(true, Ordering::Relaxed);
    let range = QueryRange::instant(300_000, 300_000);
    assert!(matches!(run("sum(m)", &range, &many(3), &limits, &Inline), Err(Error::Cancelled)));
}

#[test]
fn series_end_at_stale_markers_and_after_the_look_back() {
    let data = [
        series(&[("__name__", "a")], [(0, 1.0), (290_000, stale_nan())]),
        series(&[("__name__", "b")], [(0, 2.0)]),
        series(&[("__name__", "c")], [(1, 3.0)]),
    ];
    assert_eq!(instant("{__name__=~\".+\"}", &data).unwrap(), [("c".to_owned(), 3.0)]);
}

#[test]
fn names_are_dropped_last_and_equal_labels_then_refused() {
    let data = [
        series(&[("__name__", "a"), ("x", "1")], [(300_000, 1.0)]),
        series(&[("__name__", "b"), ("x", "1")], [(300_000, 2.0)]),
    ];
    let instant = |query| {
        instant_with(query, 300_000, &data, Settings { delayed_name_removal: true, ..Settings::default() })
    };
    let by_name = instant("sum by (__name__) (-{x=\"1\"})").unwrap_err();
    assert_eq!(by_name.to_string(), "vector cannot contain metrics with the same labelset");
    let kept = instant("label_replace(-{x=\"1\"}, \"n\", \"$1\", \"__name__\", \"(.*)\")").unwrap();
    assert_eq!(kept, [("{n=\"a\", x=\"1\"}".to_owned(), -1.0), ("{n=\"b\", x=\"1\"}".to_owned(), -2.0)]);
}

#[test]
fn ambiguous_matches_are_named() {
    let data = [
        series(&[("__name__", "a"), ("x", "1")], [(300_000, 1.0)]),
        series(&[("__name__", "b"), ("x", "1"), ("y", "1")], [(300_000, 2.0)]),
        series(&[("__name__", "b"), ("x", "1"), ("y", "2")], [(300_000, 2.0)]),
    ];
    let error = instant("a + on (x) b", &data).unwrap_err().to_string();
    assert!(
        error.starts_with("found duplicate series for the match group {x=\"1\"} on the right hand-side"),
        "{error}"
    );
    let error = instant("b + on (x) a", &data).unwrap_err().to_string();
    assert!(
        error.starts_with("multiple matches for labels: many-to-one matching must be explicit"),
        "{error}"
    );
    assert_eq!(instant("b + on (x) group_left () a", &data).unwrap().len(), 2);
}

#[test]
fn series_that_never_meet_are_no_ambiguity() {
    let range = QueryRange { start_ms: 0, end_ms: 600_000, step_ms: 600_000, lookback_ms: 60_000 };
    let data = [
        series(&[("__name__", "a")], [(0, 1.0), (600_000, 1.0)]),
        series(&[("__name__", "b"), ("y", "1")], [(0, 10.0)]),
        series(&[("__name__", "b"), ("y", "2")], [(600_000, 20.0)]),
    ];
    let sum = run("a + on () b", &range, &data, &Limits::bytes(AMPLE), &Inline).unwrap();
    let expected = vec![("{}".to_owned(), vec![(0, 11f64.to_bits()), (600_000, 21f64.to_bits())])];
    assert_eq!(bits(&sum.value), expected);
}

#[test]
fn an_empty_range_gives_an_empty_result() {
    let range = QueryRange { start_ms: 10, end_ms: 0, step_ms: 1, lookback_ms: 1 };
    for query in ["m", "sum(rate(m[1m]))", "absent(m)", "m + m", "max_over_time(m[1m:1s])"] {
        let output = run(query, &range, &many(2), &Limits::bytes(AMPLE), &Inline).unwrap();
        assert_eq!(output.value, Value::Matrix(Vec::new()), "{query}");
    }
}

#[test]
fn equal_expressions_are_evaluated_once() {
    let data = many(50);
    let range = QueryRange { start_ms: 300_000, end_ms: 600_000, step_ms: 30_000, lookback_ms: 300_000 };
    let samples = |query: &str, bytes: usize| {
        run(query, &range, &data, &Limits::bytes(bytes), &Inline).map(|output| output.stats.samples)
    };
    let once = samples("sum(rate(m[5m]))", AMPLE).unwrap();
    assert_eq!(samples("sum(rate(m[5m])) / (1 + sum(rate(m[5m])))", AMPLE).unwrap(), once);
    assert_eq!(samples("rate(m[5m]) - rate(m[5m])", AMPLE).unwrap(), once);
    // Where memory is short, a chain from storage is evaluated again rather than kept.
    let sums = "sum(rate(m[5m])) / count(rate(m[5m]))";
    assert_eq!(samples(sums, AMPLE).unwrap(), once);
    assert_eq!(samples(sums, 60_000).unwrap(), 2 * once);
}

/// What a Prometheus without `promql-delayed-name-removal` answers, and one with it: labels and values, or the error.
#[test]
fn names_go_at_once_or_at_the_very_end() {
    const TWICE: Result<&[(&str, f64)], &str> = Err("vector cannot contain metrics with the same labelset");
    let counter = |name: &str, job: &str| {
        let labels = [("__name__", name), ("job", job)];
        series(&labels[..if job.is_empty() { 1 } else { 2 }], (0..3).map(|n| (n * 60_000, n as f64 + 1.0)))
    };
    let data = [
        counter("a_total", "x"),
        counter("b_total", "y"),
        counter("c_total", "x"),
        series(&[("__name__", "const")], (0..3).map(|n| (n * 60_000, 5.0))),
        counter("ramp", ""),
        series(&[("__name__", "gone"), ("job", "x")], [(0, 1.0), (60_000, 2.0), (70_000, stale_nan())]),
    ];
    type Answer<'a> = Result<&'a [(&'a str, f64)], &'a str>;
    let cases: &[(&str, Answer<'_>, Answer<'_>)] = &[
        (
            r#"label_replace(rate(const[5m]), "n", "$1", "__name__", "(.*)")"#,
            Ok(&[("{}", 0.0)]),
            Ok(&[("{n=\"const\"}", 0.0)]),
        ),
        (
            r#"label_replace(-const, "n", "$1", "__name__", "(.*)")"#,
            Ok(&[("{}", -5.0)]),
            Ok(&[("{n=\"const\"}", -5.0)]),
        ),
        (
            r#"label_join(abs(const), "n", "-", "__name__", "job")"#,
            Ok(&[("{n=\"-\"}", 5.0)]),
            Ok(&[("{n=\"const-\"}", 5.0)]),
        ),
        ("abs(const) and on (__name__) const", Ok(&[]), Ok(&[("{}", 5.0)])),
        ("abs(const) unless on (__name__) const", Ok(&[("{}", 5.0)]), Ok(&[])),
        ("const * on (__name__) abs(const)", Ok(&[]), Ok(&[("{}", 25.0)])),
        (r#"sum(increase({__name__=~"const|ramp"}[2m]))"#, TWICE, Ok(&[("{}", 2.0)])),
        (r#"sum(abs({__name__=~"const|ramp"}))"#, TWICE, Ok(&[("{}", 8.0)])),
        (r#"topk(1, increase({__name__=~"const|ramp"}[2m]))"#, TWICE, Ok(&[("{}", 2.0)])),
        (r#"increase({__name__=~"const|ramp"}[2m]) > 0"#, TWICE, Ok(&[("{}", 2.0)])),
        (r#"absent(increase({__name__=~"const|ramp"}[2m]))"#, TWICE, Ok(&[])),
        (r#"count(scalar({__name__=~"const|ramp"} * 2) * const)"#, TWICE, Ok(&[("{}", 1.0)])),
        (r#"count(timestamp({__name__=~"const|ramp"}))"#, TWICE, Ok(&[("{}", 2.0)])),
        (r#"count({__name__=~"const|ramp"} > bool 0)"#, TWICE, Ok(&[("{}", 2.0)])),
        (
            r#"count({__name__=~"const|ramp"} + on (__name__) {__name__=~"const|ramp"})"#,
            TWICE,
            Ok(&[("{}", 2.0)]),
        ),
        (r#"count by (__name__) (rate({__name__=~"a_total|b_total"}[5m]))"#, Ok(&[("{}", 2.0)]), TWICE),
        (r#"sum by (__name__) (increase({__name__=~"a_total|b_total"}[2m]))"#, Ok(&[("{}", 4.0)]), TWICE),
        (r#"sum by (__name__, job) (rate({__name__=~"[abc]_total"}[5m]))"#, TWICE, TWICE),
        (
            r#"sum without (job) (increase({__name__=~"[ab]_total"}[2m]))"#,
            Ok(&[("{}", 4.0)]),
            Ok(&[("{}", 4.0)]),
        ),
        (r#"max by (__name__) (increase({__name__="a_total"}[2m]))"#, Ok(&[("{}", 2.0)]), Ok(&[("{}", 2.0)])),
        // What is left alone keeps its name.
        ("last_over_time(ramp[5m])", Ok(&[("ramp", 3.0)]), Ok(&[("ramp", 3.0)])),
        ("ramp > 2", Ok(&[("ramp", 3.0)]), Ok(&[("ramp", 3.0)])),
        ("ramp > const or ramp", Ok(&[("ramp", 3.0)]), Ok(&[("ramp", 3.0)])),
        // A name that is given anew stays.
        (
            r#"label_replace(rate(const[5m]), "__name__", "new", "", "")"#,
            Ok(&[("new", 0.0)]),
            Ok(&[("new", 0.0)]),
        ),
        // Functions over ranges refuse what only differed in names, even where samples never meet.
        (r#"count(count_over_time({__name__=~"gone|a_total"}[1s]))"#, Ok(&[("{}", 1.0)]), Ok(&[("{}", 1.0)])),
        ("max_over_time(abs(ramp)[2m:1m])", Ok(&[("{}", 3.0)]), Ok(&[("{}", 3.0)])),
    ];
    for &(query, at_once, delayed) in cases {
        for (delayed_name_removal, expected) in [(false, at_once), (true, delayed)] {
            let settings = Settings { delayed_name_removal, ..Settings::default() };
            let found = instant_with(query, 120_000, &data, settings).map_err(|e| e.to_string());
            let of = |all: &[(&str, f64)]| all.iter().map(|(l, v)| ((*l).to_owned(), *v)).collect::<Vec<_>>();
            assert_eq!(
                found,
                expected.map(of).map_err(str::to_owned),
                "{query}, delayed: {delayed_name_removal}"
            );
        }
    }
}

#[test]
fn series_that_never_meet_are_refused_by_functions_over_ranges_alone() {
    let data = [
        series(&[("__name__", "early")], [(0, 1.0), (10_000, stale_nan())]),
        series(&[("__name__", "late")], [(120_000, 2.0)]),
    ];
    let range = QueryRange { start_ms: 0, end_ms: 120_000, step_ms: 60_000, lookback_ms: 300_000 };
    let ask = |query| run(query, &range, &data, &Limits::bytes(AMPLE), &Inline);
    let one = bits(&ask(r#"abs({__name__=~"early|late"})"#).unwrap().value);
    assert_eq!(one, [("{}".to_owned(), vec![(0, 1f64.to_bits()), (120_000, 2f64.to_bits())])]);
    let refused = ask(r#"count_over_time({__name__=~"early|late"}[1m])"#).unwrap_err().to_string();
    assert!(refused.contains("same labelset"), "{refused}");
}
