use std::collections::BTreeMap;

use tsdb::model::{FloatHistogram, Sample, Span, Value as StoredValue};

use super::*;
use crate::parse::{Syntax, parse_with};
use crate::plan::{QueryRange, Settings, plan};
use crate::value::{Output, SampleValue, Value};
use crate::{Inline, Level, Limits, Telling};

const AMPLE: usize = 1 << 30;
const STEP_MS: i64 = 20_000;
const STEPS: i64 = 5;

/// SplitMix64: cases that are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Of any size that metrics have, with all bits in use.
    fn float(&mut self) -> f64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (unit - 0.3) * 10f64.powi(self.below(9) as i32 - 3)
    }
}

fn labels(name: &str, i: usize) -> Labels {
    let (instance, job) = (format!("{i:03}"), format!("{}", i * 7 % 5));
    Labels::from_sorted([("__name__", name), ("instance", instance.as_str()), ("job", job.as_str())])
}

fn histogram(random: &mut Random, i: usize) -> Arc<FloatHistogram> {
    let counts: Vec<f64> = (0..4).map(|_| random.float().abs()).collect();
    Arc::new(FloatHistogram {
        // Some of another resolution, and in one group custom ones among them.
        schema: if i == 5 { CUSTOM_BUCKETS_SCHEMA } else { (i % 3) as i32 },
        count: counts.iter().sum(),
        sum: random.float(),
        positive_spans: vec![Span { offset: (i % 4) as i32, length: 4 }],
        positive_buckets: counts,
        custom_values: (i == 5).then(|| (0..9).map(f64::from).collect()),
        ..FloatHistogram::default()
    })
}

fn series(name: &str, i: usize, mut value: impl FnMut(usize) -> StoredValue) -> Series {
    let sample = |n: usize| Sample { value: value(n), ..Sample::float(n as i64 * 10_000, 0.0) };
    // Each with a gap elsewhere.
    let samples: Vec<_> = (0..16).filter(|n| !(n + i).is_multiple_of(6)).map(sample).collect();
    Series::from_samples(labels(name, i), &samples)
}

/// Floats `m`, histograms `h`, and both under one name, `b`.
fn stored() -> Vec<Series> {
    let random = &mut Random(7);
    let mut all = Vec::new();
    for i in 0..18 {
        all.push(series("m", i, |n| match (i, n) {
            (3, 4) => StoredValue::Float(f64::INFINITY),
            (8, 7) => StoredValue::Float(f64::NAN),
            (4 | 9, _) => StoredValue::Float(if i == 4 { 0.0 } else { -0.0 }),
            _ => StoredValue::Float(random.float()),
        }));
        all.push(series("h", i, |_| StoredValue::Histogram(histogram(random, i))));
        all.push(series("b", i, |_| match i % 2 {
            0 => StoredValue::Float(random.float()),
            _ => StoredValue::Histogram(histogram(random, 0)),
        }));
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    all
}

fn bits(value: f64) -> u64 {
    // Which NaN it is depends on the processor.
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

fn histogram_bits(h: &FloatHistogram) -> String {
    let buckets = |buckets: &[f64]| buckets.iter().copied().map(bits).collect::<Vec<_>>();
    format!(
        "{:?} {} {:?} {:?} {:?} {:?}",
        h.counter_reset,
        h.schema,
        [h.zero_threshold, h.zero_count, h.count, h.sum].map(bits),
        (&h.positive_spans, &h.negative_spans),
        (buckets(&h.positive_buckets), buckets(&h.negative_buckets)),
        h.custom_values,
    )
}

/// All that an answer says, floats by their bits.
fn told(output: &Output) -> Vec<String> {
    let mut told = Vec::new();
    match &output.value {
        Value::Vector(samples) => told.extend(samples.iter().map(|sample| match &sample.value {
            SampleValue::Float(value) => format!("{} {:x}", sample.labels, bits(*value)),
            SampleValue::Histogram(histogram) => format!("{} {}", sample.labels, histogram_bits(histogram)),
        })),
        Value::Matrix(all) => {
            for series in all {
                told.push(series.labels.to_string());
                told.extend(series.floats.iter().map(|p| format!("{} {:x}", p.timestamp_ms, bits(p.value))));
                told.extend(
                    series
                        .histograms
                        .iter()
                        .map(|p| format!("{} {}", p.timestamp_ms, histogram_bits(&p.value))),
                );
            }
        }
        other => panic!("{other:?}"),
    }
    for level in [Level::Warning, Level::Info] {
        told.extend(output.annotations.of(level).map(|(text, span)| format!("{text} {span:?}")));
    }
    told.push(format!("{} {} {:?}", output.stats.series, output.stats.samples, output.per_step));
    told
}

fn planned(query: &str, range: &QueryRange) -> Plan {
    plan(&parse_with(query, Syntax { experimental: true }).unwrap(), range, &Settings::default()).unwrap()
}

fn inputs(plan: &Plan, data: &[Series]) -> Vec<Vec<Series>> {
    let of = |select: &tsdb::select::Select| {
        let matches = |s: &&Series| select.matchers.iter().all(|m| m.matches(s.labels.value(m.name())));
        data.iter().filter(matches).cloned().collect()
    };
    plan.selects().iter().map(of).collect()
}

/// Evaluates where part 0 is at hand, and the others are folded elsewhere and come in this order.
fn in_parts(plan: &Plan, all: &[Vec<Series>], part_of: &BTreeMap<Labels, usize>, order: &[usize]) -> Output {
    let limits = Limits::bytes(AMPLE);
    let part = |number: usize| {
        let of = |series: &Vec<Series>| {
            series.iter().filter(|series| part_of[&series.labels] == number).cloned().collect()
        };
        all.iter().map(of).collect::<Vec<Vec<_>>>()
    };
    let folded = order.iter().map(|number| plan.fold(part(*number), &limits, &Inline).unwrap());
    let folded: Vec<_> = folded.collect();
    assert!(folded.iter().all(|folded| plan.accepts(folded)));
    let telling = Telling { per_step: true, ..Telling::default() };
    plan.evaluate_with(part(0), folded, &limits, &Inline, telling).unwrap()
}

/// Whoever folds a part can't see that a series elsewhere is the same but for its name.
#[test]
fn what_may_collide_once_names_are_gone_is_not_folded_in_parts() {
    let range = QueryRange::instant(0, 300_000);
    let folds = |query: &str, delayed_name_removal| {
        let expr = parse_with(query, Syntax { experimental: true }).unwrap();
        let settings = Settings { delayed_name_removal, ..Settings::default() };
        plan(&expr, &range, &settings).unwrap().folds()
    };
    for query in ["sum(rate(m[5m]))", "sum by (a) (m)", r#"count by (a) ({job="x"})"#] {
        assert_eq!([false, true].map(|delayed| folds(query, delayed)), [1, 1], "{query}");
    }
    let query = r#"sum(rate({job="x"}[5m]))"#;
    assert_eq!([false, true].map(|delayed| folds(query, delayed)), [0, 1], "{query}");
}

#[test]
fn parts_give_the_bits_of_the_whole_whatever_is_where() {
    let data = stored();
    let range =
        QueryRange { start_ms: 0, end_ms: STEP_MS * (STEPS - 1), step_ms: STEP_MS, lookback_ms: 15_000 };
    let over = |range: QueryRange, query: &str| {
        let plan = planned(query, &range);
        assert!(plan.folds() > 0, "{query}");
        let all = inputs(&plan, &data);
        let telling = Telling { per_step: true, ..Telling::default() };
        let whole = plan.evaluate_telling(all.clone(), &Limits::bytes(AMPLE), &Inline, telling).unwrap();
        (query.to_owned(), plan, all, told(&whole))
    };
    let mut cases = Vec::new();
    for op in ["sum", "avg", "count", "group", "min", "max", "stddev", "stdvar"] {
        for of in ["m", "h", "b"] {
            cases.push(over(range, &format!("{op} by (job) ({of})")));
        }
    }
    for query in [
        "sum by (job) (rate(m[50s]))",
        "sum(rate(h[50s])) + avg(rate(h[50s]))",
        "sum without (instance) (-m > 2) / on (job) count by (job) (m)",
        "histogram_quantile(0.9, sum by (job) (h))",
        "topk(2, avg by (job) (abs(m))) or vector(time())",
        "avg by (instance) ({__name__=~\"m|b\"}) unless max(clamp_max(m, scalar(sum(m)))) > 0",
    ] {
        if planned(query, &range).folds() > 0 {
            cases.push(over(range, query));
        }
    }
    let instant = QueryRange::instant(90_000, 30_000);
    cases.push(over(instant, "limitk(3, sum by (job) (m))"));
    cases.push(over(instant, "sort(count by (job) (b))"));
    let random = &mut Random(1);
    for round in 0..1_000 {
        let parts = 2 + random.below(5);
        let part_of = data.iter().map(|s| (s.labels.clone(), random.below(parts))).collect();
        let mut order: Vec<_> = (1..parts).collect();
        (1..order.len()).rev().for_each(|i| order.swap(i, random.below(i + 1)));
        for (query, plan, all, whole) in &cases {
            let parts = told(&in_parts(plan, all, &part_of, &order));
            let differs = parts.iter().zip(whole).find(|(part, whole)| part != whole);
            assert!(differs.is_none() && parts.len() == whole.len(), "{query}, round {round}: {differs:?}");
        }
    }
}

#[test]
fn what_needs_series_themselves_or_other_steps_is_not_folded_in_parts() {
    let range = QueryRange { start_ms: 0, end_ms: 100_000, step_ms: 10_000, lookback_ms: 15_000 };
    for (query, folds) in [
        ("sum(m)", 1),
        ("sum(rate(m[1m])) / sum(rate(m[1m]))", 1),
        ("sum(rate(m[1m])) / count(rate(m[1m]))", 2),
        ("sum(m * 2 > bool time())", 1),
        ("sum(m) or vector(0)", 1),
        ("quantile(0.9, sum by (job) (m))", 1),
        ("m", 0),
        ("sum(m) + on () m", 0),
        ("quantile(0.9, m)", 0),
        ("topk(3, m)", 0),
        ("count_values(\"v\", m)", 0),
        ("sum(m + on (instance) h)", 0),
        ("sum(m * scalar(h))", 0),
        ("sum(max_over_time(m[1m:10s]))", 0),
        ("max_over_time(sum(m)[1m:10s])", 0),
        ("sum(m @ 50)", 0),
        ("sum(label_replace(m, \"a\", \"b\", \"job\", \".*\"))", 0),
        ("1 + 1", 0),
    ] {
        assert_eq!(planned(query, &range).folds(), folds, "{query}");
    }
}

#[test]
fn malformed_parts_are_not_accepted() {
    let range = QueryRange { start_ms: 0, end_ms: 100_000, step_ms: 10_000, lookback_ms: 15_000 };
    let plan = planned("sum(h)", &range);
    let folded = plan.fold(inputs(&plan, &stored()), &Limits::bytes(AMPLE), &Inline).unwrap();
    assert!(plan.accepts(&folded));
    let damages: [fn(&mut Folded); 8] = [
        |f| f.nodes.clear(),
        |f| f.nodes.push(FoldedNode::default()),
        |f| f.per_step = vec![1; 12],
        |f| f.nodes[0].groups[0].columns.truncate(1),
        |f| f.nodes[0].groups[0].columns[1].truncate(3),
        |f| f.nodes[0].groups[0].histograms[0].step = 11,
        |f| f.nodes[0].groups[0].histograms.reverse(),
        |f| {
            for histogram in &mut f.nodes[0].groups[0].histograms {
                let mut sum = HistogramSum {
                    counter_reset: CounterReset::Unknown,
                    schema: 0,
                    zero_threshold: 0.0,
                    zero_count: [0.0; 2],
                    count: [0.0; 2],
                    sum: [0.0; 2],
                    positive: vec![(2, [1.0, 0.0]), (1, [1.0, 0.0])],
                    negative: Vec::new(),
                    bounds: None,
                };
                std::mem::swap(histogram.sum.get_or_insert_with(|| sum.clone()), &mut sum);
            }
        },
    ];
    for (i, damage) in damages.iter().enumerate() {
        let mut damaged = folded.clone();
        damage(&mut damaged);
        assert!(!plan.accepts(&damaged), "{i}");
    }
}

#[test]
fn parts_are_paid_for() {
    let range = QueryRange { start_ms: 0, end_ms: 100_000, step_ms: 1_000, lookback_ms: 15_000 };
    let plan = planned("sum by (instance) (m)", &range);
    let folded = plan.fold(inputs(&plan, &stored()), &Limits::bytes(AMPLE), &Inline).unwrap();
    let with = |bytes| {
        let nothing = vec![Vec::new(); plan.selects().len()];
        plan.evaluate_with(nothing, vec![folded.clone()], &Limits::bytes(bytes), &Inline, Telling::default())
    };
    assert!(with(AMPLE).is_ok());
    assert!(with(18 * 101 * 17 - 1).unwrap_err().to_string().contains("groups"));
}
