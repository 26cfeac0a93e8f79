use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tsdb::model::{Labels, Sample};
use tsdb::select::Series;

use super::*;
use crate::parse::{Syntax, parse_with};
use crate::plan::{QueryRange, Settings, plan};
use crate::{Inline, Limits, Output, Telling};

/// `m{instance, job}` with a sample each 10 s from 0 to 590 s, two instances a job.
fn data(series: usize) -> Vec<Series> {
    (0..series)
        .map(|i| {
            let (instance, job) = (i.to_string(), (i / 2).to_string());
            let labels = [("__name__", "m"), ("instance", instance.as_str()), ("job", job.as_str())];
            let samples: Vec<_> = (0..60).map(|n| Sample::float(n * 10_000, (n * 3) as f64)).collect();
            Series::from_samples(Labels::from_pairs(labels).unwrap(), &samples)
        })
        .collect()
}

/// Answers over the same series for each selector, with everything told; the clock ticks each time it is looked at.
fn told(query: &str, range: &QueryRange, data: &[Series]) -> Output {
    let ticks = AtomicU64::new(0);
    let clock = || Duration::from_micros(ticks.fetch_add(1, Ordering::Relaxed));
    let expr = parse_with(query, Syntax { experimental: true }).unwrap();
    let plan = plan(&expr, range, &Settings::default()).unwrap();
    let inputs = || vec![data.to_vec(); plan.selects().len()];
    let limits = Limits::bytes(1 << 30);
    let telling = Telling { clock: Some(&clock), per_step: true };
    let told = plan.evaluate_telling(inputs(), &limits, &Inline, telling).unwrap();
    let silent = plan.evaluate(inputs(), &limits, &Inline).unwrap();
    assert_eq!(told.value, silent.value, "{query}");
    assert_eq!((silent.per_step.len(), silent.explained), (0, None), "{query}");
    told
}

fn instant(query: &str, data: &[Series]) -> Step {
    told(query, &QueryRange::instant(300_000, 300_000), data).explained.unwrap()
}

/// A line a step, deeper ones further in: what, series, samples.
fn tree(step: &Step) -> Vec<String> {
    let own = format!("{} {}: {} series, {} samples", step.kind, step.detail, step.series, step.samples);
    let inputs = step.inputs.iter().flat_map(tree).map(|line| format!("  {line}"));
    std::iter::once(own).chain(inputs).collect()
}

#[test]
fn each_step_tells_what_it_read_and_made() {
    let step = instant("sum by (job) (rate(m[1m]) > 0) / 2", &data(8));
    let expected = [
        "operator /: 4 series, 4 samples",
        "  aggregate sum by (job): 4 series, 4 samples",
        "    operator >: 8 series, 8 samples",
        "      window rate: 8 series, 8 samples",
        "        select {__name__=\"m\"}[1m]: 8 series, 48 samples",
    ];
    assert_eq!(tree(&step), expected);
    let mut step = &step;
    while let Some(input) = step.inputs.first() {
        assert!(step.nanos > 0 && step.bytes > 0, "{step:?}");
        step = input;
    }
    let stored: usize = data(8).iter().flat_map(|series| &series.chunks).map(|chunk| chunk.data.len()).sum();
    assert_eq!((step.select, step.bytes), (Some(0), stored as u64));
}

#[test]
fn joins_and_subqueries_show_all_they_work_on() {
    let expected = [
        "join -: 4 series, 4 samples",
        "  select {__name__=\"m\"}: 4 series, 4 samples",
        "  window max: 4 series, 4 samples",
        "    subquery [1m:20s]: 0 series, 0 samples",
        "      map abs: 4 series, 12 samples",
        "        select {__name__=\"m\"}: 4 series, 140 samples",
    ];
    let mut found = tree(&instant("m - max_over_time(abs(m)[1m:20s])", &data(4)));
    // How much an instant selector decodes is its own business.
    for line in found.iter_mut().filter(|line| line.contains("select")) {
        *line = line.rsplit_once(", ").unwrap().0.to_owned();
    }
    let expected = expected.map(|line| match line.contains("select") {
        true => line.rsplit_once(", ").unwrap().0.to_owned(),
        false => line.to_owned(),
    });
    assert_eq!(found, expected);
}

#[test]
fn operators_of_a_chain_stand_beside_each_other() {
    let expected = [
        "chain 3 operators: 4 series, 4 samples",
        "  select {__name__=\"m\"}: 4 series, 4 samples",
        "  operator *: 4 series, 4 samples",
        "  join /: 4 series, 4 samples",
        "    aggregate sum without (x): 4 series, 4 samples",
        "      select {__name__=\"m\"}: 4 series, 4 samples",
        "  set or: 4 series, 4 samples",
        "    nothing : 0 series, 0 samples",
    ];
    let query = "m * 2 / sum without (x) (m) or start_timestamp(m + m)";
    let without_samples = |line: &str| line.rsplit_once(", ").unwrap().0.to_owned();
    let found: Vec<_> = tree(&instant(query, &data(4))).iter().map(|line| without_samples(line)).collect();
    assert_eq!(found, expected.map(without_samples));
    let long = instant(&format!("m{}", " + m".repeat(4_999)), &data(2));
    assert_eq!((long.inputs.len(), long.series, long.samples), (5_000, 2, 2));
}

#[test]
fn what_places_share_is_told_once() {
    let found = tree(&instant("sum(m) / (sum(m) + 1)", &data(4)));
    assert_eq!(found.iter().filter(|line| line.contains("aggregate sum: 1 series")).count(), 1, "{found:?}");
    assert_eq!(found.iter().filter(|line| line.contains("shared made already")).count(), 1, "{found:?}");
}

#[test]
fn samples_count_for_each_step_as_in_prometheus() {
    let range = QueryRange { start_ms: 100_000, end_ms: 140_000, step_ms: 20_000, lookback_ms: 300_000 };
    for (query, per_step) in [
        ("m", [2, 2, 2]),
        ("count_over_time(m[1m])", [12, 12, 12]),
        ("sum_over_time(m[1m]) + m", [14, 14, 14]),
        // Evaluated once, it counts for each step.
        ("m @ 200", [2, 2, 2]),
        ("rate(m[30s] @ 200)", [6, 6, 6]),
        // A subquery counts by what its windows see.
        ("max_over_time(sum(m)[1m:10s])", [6, 6, 6]),
        ("absent_over_time(m[40s])", [8, 8, 8]),
        // Before the first sample there is less.
        ("count_over_time(m[2m])", [22, 24, 24]),
    ] {
        assert_eq!(told(query, &range, &data(2)).per_step, per_step, "{query}");
    }
    assert!(told("vector(1)", &range, &data(2)).per_step.is_empty());
}
