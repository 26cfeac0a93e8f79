use std::sync::Arc;

use promql::Inline;
use proptest::prelude::*;
use tsdb::chunk::encode;
use tsdb::model::{CounterReset, IntHistogram, Value, stale_nan};

use super::*;

const SCRAPE_MS: i64 = 15_000;

/// Samples of one replica, by its name.
type Replica<'a> = (&'a str, Vec<Sample>);

fn series(name: &str, replica: &str, samples: &[Sample]) -> Series {
    let labels = Labels::from_pairs([("__name__", name), ("job", "a"), ("replica", replica)]).unwrap();
    Series::from_samples(labels, samples)
}

fn merged_series(name: &str, replicas: &[Replica<'_>], range_ms: RangeInclusive<i64>) -> Vec<Series> {
    let all = replicas.iter().map(|(replica, samples)| series(name, replica, samples)).collect();
    Replicas::new(["replica".to_owned()]).merge(all, &range_ms, i64::MIN, &Inline).unwrap()
}

/// The one series that comes of replicas of `name`.
fn merged(name: &str, replicas: &[Replica<'_>]) -> Vec<Sample> {
    let series = merged_series(name, replicas, i64::MIN..=i64::MAX);
    assert_eq!(series.len(), 1);
    assert_eq!(series[0].labels.to_string(), format!("{name}{{job=\"a\"}}"));
    let samples = series[0].samples().unwrap();
    assert!(samples.is_sorted_by(|a, b| a.timestamp_ms < b.timestamp_ms), "a double: {samples:?}");
    samples
}

/// A sample every 15 s, from `from_s` on, while `to_s` isn't reached.
fn scraped(from_s: i64, to_s: i64, value: impl Fn(f64) -> f64) -> Vec<Sample> {
    let times = (from_s * 1000..to_s * 1000).step_by(SCRAPE_MS as usize);
    times.map(|t| Sample::float(t, value(t as f64 / 1000.0))).collect()
}

fn stale(at_s: i64) -> Sample {
    Sample::float(at_s * 1000, stale_nan())
}

fn joined(parts: impl IntoIterator<Item = Vec<Sample>>) -> Vec<Sample> {
    parts.into_iter().flatten().collect()
}

fn floats(samples: &[Sample]) -> Vec<(i64, f64)> {
    let float = |sample: &Sample| match sample.value {
        Value::Float(value) => (sample.timestamp_ms, value),
        _ => panic!("{sample:?} isn't a float"),
    };
    samples.iter().map(float).collect()
}

/// The longest and the shortest step, in seconds.
fn steps_s(samples: &[Sample]) -> (f64, f64) {
    let steps = samples.windows(2).map(|w| (w[1].timestamp_ms - w[0].timestamp_ms) as f64 / 1000.0);
    (steps.clone().fold(0.0, f64::max), steps.fold(f64::MAX, f64::min))
}

/// What a counter grew by, as `increase` would see it.
fn growth(samples: &[Sample]) -> f64 {
    let floats = floats(samples);
    floats.windows(2).map(|w| if w[1].1 < w[0].1 { w[1].1 } else { w[1].1 - w[0].1 }).sum()
}

#[test]
fn a_pause_of_five_minutes_leaves_no_gap_no_double_and_no_reset() {
    let count = |t: f64| 1000.0 + t;
    for phase_s in 1..15 {
        let paused = joined([scraped(0, 900, count), scraped(1200, 3600, count)]);
        let other = scraped(phase_s, 3600, count);
        for (a, b) in [("a", "b"), ("b", "a")] {
            let result = merged("requests_total", &[(a, paused.clone()), (b, other.clone())]);
            let (longest, shortest) = steps_s(&result);
            assert!(longest <= 22.5 && shortest >= 7.5, "{phase_s} {a}: {longest} {shortest}");
            assert!((growth(&result) - 3600.0).abs() <= 30.0, "{phase_s} {a}: {}", growth(&result));
            let expected = 3600 / 15;
            assert!(result.len().abs_diff(expected) <= 1, "{phase_s} {a}: {}", result.len());
        }
    }
}

#[test]
fn one_replica_without_a_gap_is_all_that_is_used() {
    let (a, b) = (scraped(0, 3600, |t| t), scraped(7, 3600, |t| -t));
    assert_eq!(merged("m", &[("a", a.clone()), ("b", b)]), a);
}

#[test]
fn chunks_stay_as_they_are_but_where_replicas_follow_each_other() {
    let whole = scraped(0, 4 * 3600, |t| t);
    let paused: Vec<_> =
        whole.iter().filter(|s| !(7_200_000..7_500_000).contains(&s.timestamp_ms)).cloned().collect();
    let result =
        merged_series("m", &[("a", paused.clone()), ("b", scraped(7, 4 * 3600, |t| t))], 0..=i64::MAX);
    let own = encode(&paused);
    let kept = result[0].chunks.iter().filter(|chunk| own.contains(chunk)).count();
    assert!(kept >= 2 && kept < own.len(), "{kept} of {}", own.len());
}

#[test]
fn an_outage_of_one_replica_shows_as_nothing() {
    // The scraper fails: stale markers at once, and nothing more.
    let failed = joined([scraped(0, 900, |t| t), vec![stale(900)]]);
    let other = scraped(7, 1800, |t| t);
    let result = merged("m", &[("a", failed), ("b", other)]);
    assert!(result.iter().all(|s| !s.value.is_stale()));
    assert!(steps_s(&result).0 <= 22.5);
    assert_eq!(result.last().unwrap().timestamp_ms, 1_792_000);
}

#[test]
fn an_end_that_both_saw_ends_the_series() {
    let a = joined([scraped(0, 900, |t| t), vec![stale(900)], scraped(1800, 2700, |t| t)]);
    let b = joined([scraped(7, 900, |t| t), vec![stale(907)], scraped(1807, 2700, |t| t)]);
    for (first, second) in [("a", "b"), ("b", "a")] {
        let result = merged("m", &[(first, a.clone()), (second, b.clone())]);
        let stale: Vec<_> = result.iter().filter(|s| s.value.is_stale()).collect();
        assert_eq!(stale.len(), 1, "{stale:?}");
        assert!((900_000..=907_000).contains(&stale[0].timestamp_ms));
        assert!(result.iter().all(|s| s.timestamp_ms <= 907_000 || s.timestamp_ms >= 1_800_000));
    }
}

#[test]
fn a_counter_that_restarted_is_reset_once() {
    let count = |t: f64| if t < 1000.0 { 5000.0 + t } else { t - 1000.0 };
    for pause_s in [900, 950, 990, 1005, 1015] {
        let a = joined([scraped(0, pause_s, count), scraped(1500, 3600, count)]);
        let result = merged("requests_total", &[("a", a), ("b", scraped(7, 3600, count))]);
        let resets = floats(&result).windows(2).filter(|w| w[1].1 < w[0].1).count();
        assert_eq!(resets, 1, "pause at {pause_s}");
        assert!((growth(&result) - 3600.0).abs() <= 45.0, "pause at {pause_s}: {}", growth(&result));
    }
}

#[test]
fn clocks_that_are_off_fabricate_no_reset() {
    for skew_s in [-12.0, -6.0, 6.0, 12.0] {
        for phase_s in [1, 4, 8, 14] {
            let a = joined([scraped(0, 900, |t| 1000.0 + t), scraped(1200, 3600, |t| 1000.0 + t)]);
            let b = scraped(phase_s, 3600, |t| 1000.0 + t + skew_s);
            let result = merged("requests_total", &[("a", a), ("b", b)]);
            assert!(floats(&result).is_sorted_by(|x, y| x.1 <= y.1), "{skew_s} {phase_s}");
            assert!(steps_s(&result).0 <= 45.0, "{skew_s} {phase_s}");
        }
    }
}

#[test]
fn two_counters_under_one_name_are_never_joined_into_a_leap() {
    let small = joined([scraped(0, 900, |t| t), scraped(1200, 7200, |t| t)]);
    let large = scraped(7, 7200, |t| 9e9 + t);
    for (a, b) in [("a", "b"), ("b", "a")] {
        let result = floats(&merged("samples_total", &[(a, small.clone()), (b, large.clone())]));
        let leaps = result
            .windows(2)
            .filter(|w| (w[1].1 - w[0].1).abs() > 1e6 && w[1].0 - w[0].0 < SETTLE_MS)
            .count();
        assert_eq!(leaps, 0, "{a} {b}");
    }
}

#[test]
fn a_gauge_takes_what_the_other_shows() {
    let a = scraped(0, 900, |_| 100.0);
    let result = merged("temperature", &[("a", a), ("b", scraped(7, 1800, |_| 1.0))]);
    assert!(steps_s(&result).0 <= 22.5);
    assert_eq!(floats(&result).last().unwrap().1.to_bits(), 1.0f64.to_bits());
}

#[test]
fn a_replica_that_loses_every_other_minute_is_left_alone() {
    let gappy: Vec<_> =
        scraped(0, 3600, |_| 1.0).into_iter().filter(|s| (s.timestamp_ms / 60_000) % 2 == 0).collect();
    let result = merged("m", &[("a", gappy), ("b", scraped(7, 3600, |_| 2.0))]);
    let of_a = floats(&result).iter().filter(|(_, v)| v.to_bits() == 1.0f64.to_bits()).count();
    assert!(of_a <= 8, "{of_a} samples of a replica with gaps");
    assert!(steps_s(&result).0 <= 22.5);
}

#[test]
fn at_the_recent_edge_the_other_fills_in_after_two_lost_scrapes() {
    let b = |until_s| scraped(7, until_s, |t| t);
    let last = |until_s| {
        merged("m", &[("a", scraped(0, 900, |t| t)), ("b", b(until_s))]).last().unwrap().timestamp_ms
    };
    // A's last sample is at 885 s. Until B is 37.5 s ahead, A may just be late.
    assert_eq!(last(923), 885_000);
    assert_eq!(last(938), 937_000);
    // And when A's samples arrive after all, they are what is shown.
    let caught_up = scraped(0, 950, |t| t);
    assert_eq!(merged("m", &[("a", caught_up.clone()), ("b", b(938))]), caught_up);
}

#[test]
fn long_ago_a_series_ends_where_its_last_replica_says_so() {
    // Only one of them could tell that the target was gone.
    let told = joined([scraped(0, 900, |t| t), vec![stale(900)]]);
    let replicas = || vec![series("m", "a", &scraped(0, 900, |t| t)), series("m", "b", &told)];
    let end = |now_s: i64| {
        let own = Replicas::new(["replica".to_owned()]);
        let merged = own.merge(replicas(), &(0..=1_200_000), now_s * 1000, &Inline).unwrap();
        merged[0].samples().unwrap().last().unwrap().timestamp_ms
    };
    assert_eq!(end(901), 885_000);
    assert_eq!(end(1_200), 885_000);
    assert_eq!(end(1_300), 900_000);
}

#[test]
fn other_intervals_are_measured_not_assumed() {
    let slow = |from: i64, to: i64, skip: RangeInclusive<i64>| -> Vec<Sample> {
        let times = (from..to).step_by(300).filter(|t| !skip.contains(t));
        times.map(|t| Sample::float(t * 1000, t as f64)).collect()
    };
    let a = slow(0, 36_000, 9000..=12_000);
    let result = merged("m_total", &[("a", a), ("b", slow(100, 36_000, 0..=0))]);
    assert!(steps_s(&result).0 <= 450.0 && steps_s(&result).1 >= 150.0, "{:?}", steps_s(&result));
}

#[test]
fn replicas_that_never_meet_keep_their_chunks() {
    let (a, b) = (scraped(0, 900, |t| t), scraped(2000, 2900, |t| t));
    let result = merged_series("m", &[("a", a.clone()), ("b", b.clone())], 0..=i64::MAX);
    assert_eq!(result[0].chunks, [encode(&a), encode(&b)].concat());
}

fn histograms(from_s: i64, to_s: i64, count: impl Fn(f64) -> u64, hint: CounterReset) -> Vec<Sample> {
    let histogram = |t: f64| {
        let count = count(t);
        Value::Int(Arc::new(IntHistogram {
            count,
            zero_count: count,
            counter_reset: hint,
            ..Default::default()
        }))
    };
    let times = scraped(from_s, to_s, |t| t).into_iter().map(|s| s.timestamp_ms);
    times.map(|t| Sample { timestamp_ms: t, start_ms: 0, value: histogram(t as f64 / 1000.0) }).collect()
}

fn resets(samples: &[Sample]) -> usize {
    let is_reset = |s: &&Sample| matches!(&s.value, Value::Int(h) if h.counter_reset == CounterReset::Reset);
    samples.iter().filter(is_reset).count()
}

#[test]
fn histograms_change_replicas_without_a_reset_and_keep_true_ones() {
    let growing = |t: f64| 1000 + t as u64;
    let a = joined([
        histograms(0, 900, growing, CounterReset::Unknown),
        histograms(1200, 3600, growing, CounterReset::Unknown),
    ]);
    let b = histograms(7, 3600, growing, CounterReset::Unknown);
    let result = merged("h", &[("a", a), ("b", b)]);
    assert_eq!(resets(&result), 0);
    assert!(steps_s(&result).0 <= 22.5);

    let restarted = |t: f64| if t < 1000.0 { 5000 + t as u64 } else { (t - 1000.0) as u64 };
    let a = joined([
        histograms(0, 900, restarted, CounterReset::Unknown),
        histograms(1200, 3600, restarted, CounterReset::Unknown),
    ]);
    let result = merged("h", &[("a", a), ("b", histograms(7, 3600, restarted, CounterReset::Unknown))]);
    assert_eq!(resets(&result), 1);
}

#[test]
fn gauge_histograms_are_no_counters() {
    let a = histograms(0, 900, |_| 1000, CounterReset::Gauge);
    let b = histograms(7, 1800, |_| 10, CounterReset::Gauge);
    let result = merged("h", &[("a", a), ("b", b)]);
    assert!(steps_s(&result).0 <= 22.5);
    assert_eq!(resets(&result), 0);
}

#[test]
fn a_deletion_hides_samples_of_its_own_series_alone() {
    let mut a = series("m", "a", &scraped(0, 900, |t| t));
    a.deleted_ms.push(0..=i64::MAX);
    let b = scraped(2000, 2900, |t| t);
    let all = vec![a, series("m", "b", &b)];
    let result =
        Replicas::new(["replica".to_owned()]).merge(all, &(0..=i64::MAX), i64::MIN, &Inline).unwrap();
    assert_eq!(result[0].samples().unwrap(), b);
}

#[test]
fn series_without_replica_labels_come_out_as_they_went_in() {
    let labels = |x: &str| Labels::from_pairs([("__name__", "m"), ("x", x)]).unwrap();
    let all: Vec<_> = ["1", "2", "3"].map(|x| Series::from_samples(labels(x), &scraped(0, 60, |t| t))).into();
    let result =
        Replicas::new(["replica".to_owned()]).merge(all.clone(), &(0..=i64::MAX), i64::MIN, &Inline).unwrap();
    let names = |series: &[Series]| series.iter().map(|s| s.labels.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&result), names(&all));
}

/// A replica that misses some scrapes.
fn some_replica() -> impl Strategy<Value = Vec<Sample>> {
    (0i64..15_000, proptest::collection::vec((0usize..400, 1usize..60, any::<bool>()), 0..6)).prop_map(
        |(phase_ms, outages)| {
            let mut scrapes = [0; 400];
            for (from, length, is_told) in outages {
                for (i, scrape) in scrapes.iter_mut().enumerate().skip(from).take(length) {
                    *scrape = if i == from && is_told { 1 } else { 2 };
                }
            }
            let at = |i: usize| phase_ms + i as i64 * SCRAPE_MS;
            let scrapes = scrapes.iter().enumerate().filter(|(_, kind)| **kind < 2);
            scrapes
                .map(|(i, kind)| {
                    let value = if *kind == 1 { stale_nan() } else { 1000.0 + at(i) as f64 };
                    Sample::float(at(i), value)
                })
                .collect()
        },
    )
}

fn bits(samples: &[Sample]) -> Vec<(i64, u64)> {
    floats(samples).iter().map(|(t, v)| (*t, v.to_bits())).collect()
}

proptest! {
    #[test]
    fn nothing_is_invented_doubled_reset_or_lost(a in some_replica(), b in some_replica()) {
        let result = merged_series("m_total", &[("a", a.clone()), ("b", b.clone())], 0..=i64::MAX);
        let result = result.first().map_or_else(Vec::new, |s| s.samples().unwrap());
        let known = [bits(&a), bits(&b)].concat();
        for sample in bits(&result) {
            prop_assert!(known.contains(&sample), "{sample:?} was never written");
        }
        let live: Vec<_> = floats(&result).into_iter().filter(|(_, v)| !v.is_nan()).collect();
        prop_assert!(live.is_sorted_by(|x, y| x.0 < y.0 && x.1 <= y.1), "a double or a reset");
        // Wherever a replica has samples without a gap of its own, the result has one within three scrapes.
        let times: Vec<_> = live.iter().map(|(t, _)| *t).collect();
        let end = times.last().copied().unwrap_or(0);
        for replica in [&a, &b] {
            for pair in replica.windows(2) {
                let (from, to) = (pair[0].timestamp_ms, pair[1].timestamp_ms);
                if to - from == SCRAPE_MS && pair.iter().all(|s| !s.value.is_stale()) && to <= end {
                    let near = times.iter().any(|t| (from - 3 * SCRAPE_MS..=to + 3 * SCRAPE_MS).contains(t));
                    prop_assert!(near, "nothing around {from}");
                }
            }
        }
    }

    #[test]
    fn the_order_of_replicas_and_of_chunks_does_not_matter(a in some_replica(), b in some_replica(), c in some_replica()) {
        let replicas = [("a", a), ("b", b), ("c", c)];
        let of = |order: [usize; 3]| {
            let mut all: Vec<_> = order.map(|i| series("m_total", replicas[i].0, &replicas[i].1)).into();
            all.iter_mut().for_each(|s| s.chunks.reverse());
            let result = Replicas::new(["replica".to_owned()]).merge(all, &(0..=i64::MAX), i64::MIN, &Inline).unwrap();
            result.iter().map(|s| bits(&s.samples().unwrap())).collect::<Vec<_>>()
        };
        prop_assert_eq!(of([0, 1, 2]), of([2, 0, 1]));
        prop_assert_eq!(of([0, 1, 2]), of([1, 2, 0]));
    }

    #[test]
    fn the_range_asked_for_does_not_change_what_is_in_it(
        a in some_replica(), b in some_replica(), start in 0i64..5_000, length in 60i64..1_000,
    ) {
        let replicas = Replicas::new(["replica".to_owned()]);
        let of = |range_ms: &RangeInclusive<i64>| {
            let all = vec![series("m", "a", &a), series("m", "b", &b)];
            replicas.merge(all, range_ms, i64::MAX, &Inline).unwrap()
        };
        let asked = start * 1000..=(start + length) * 1000;
        let within = |series: Vec<Series>| {
            let samples = series.first().map_or_else(Vec::new, |s| s.samples().unwrap());
            bits(&samples).into_iter().filter(|(t, _)| asked.contains(t)).collect::<Vec<_>>()
        };
        let (narrow, wide) = (within(of(&replicas.widen(&asked))), within(of(&(i64::MIN..=i64::MAX))));
        prop_assert!(narrow == wide, "{:?}", wide.iter().zip(&narrow).find(|(w, n)| w != n));
    }
}
