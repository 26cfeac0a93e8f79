use proptest::prelude::*;

use super::*;
use crate::eval::row::{ABSENT, is_absent};

fn windows(start_ms: i64, step_ms: i64, count: usize, range_ms: i64) -> Windows {
    let grid = Grid { start_ms, step_ms, count };
    let view = View { at_ms: None, offset_ms: 0 };
    Windows { grid, view, range_ms, edges: Edges::Plain, lookback_ms: 300_000 }
}

fn run(
    function: WindowFunction,
    windows: &Windows,
    timestamps: &[i64],
    values: &[f64],
    params: &[f64],
) -> Vec<f64> {
    let params: Vec<_> = params.iter().map(|p| StepValues::Constant(*p)).collect();
    let mut out = vec![ABSENT; windows.grid.count];
    let floats = FloatRun { timestamps, values, starts: &[] };
    let (mut scratch, mut notes) = (KernelScratch::default(), Notes::default());
    evaluate_floats(function, windows, floats, &params, &mut scratch, &mut notes, &mut out);
    out
}

/// One window over samples 10 s apart from 0 on; its left end is excluded.
fn once(function: WindowFunction, end_s: i64, range_s: i64, values: &[f64], params: &[f64]) -> f64 {
    let timestamps: Vec<i64> = (0..values.len() as i64).map(|i| i * 10_000).collect();
    run(function, &windows(end_s * 1000, 0, 1, range_s * 1000), &timestamps, values, params)[0]
}

#[test]
fn the_left_end_is_excluded() {
    assert_eq!(once(WindowFunction::Count, 20, 20, &[1.0, 2.0, 3.0], &[]), 2.0);
    assert_eq!(once(WindowFunction::Count, 20, 21, &[1.0, 2.0, 3.0], &[]), 3.0);
    assert!(is_absent(once(WindowFunction::Count, 35, 10, &[1.0, 2.0, 3.0], &[])));
}

#[test]
fn rates_extrapolate_to_borders_and_correct_resets() {
    let five_minutes = [0.0, 27.0, 54.0, 81.0, 108.0, 0.0, 27.0, 54.0, 81.0, 108.0, 135.0];
    let timestamps: Vec<i64> = (0..11).map(|i| i * 300_000).collect();
    let rate =
        run(WindowFunction::Rate, &windows(3_000_000, 0, 1, 3_000_000), &timestamps, &five_minutes, &[]);
    assert!((rate[0] - 0.08).abs() < 1e-12, "{}", rate[0]);
}

#[test]
fn a_counter_is_never_extrapolated_below_zero() {
    // 1 at 0 s and 11 at 10 s: it was 0 one second before the first sample.
    let increase = once(WindowFunction::Increase, 10, 15, &[1.0, 11.0], &[]);
    assert!((increase - 11.0).abs() < 1e-12, "{increase}");
    let delta = once(WindowFunction::Delta, 10, 15, &[1.0, 11.0], &[]);
    assert!((delta - 15.0).abs() < 1e-12, "{delta}");
}

#[test]
fn single_samples_have_no_rate() {
    for function in
        [WindowFunction::Rate, WindowFunction::Irate, WindowFunction::Deriv, WindowFunction::Delta]
    {
        assert!(is_absent(once(function, 0, 10, &[1.0], &[])));
    }
}

#[test]
fn nan_loses_against_any_value_in_extremes() {
    assert_eq!(once(WindowFunction::Max, 30, 60, &[f64::NAN, 1.0, f64::NAN], &[]), 1.0);
    assert!(once(WindowFunction::Min, 30, 60, &[f64::NAN, f64::NAN], &[]).is_nan());
}

#[test]
fn changes_and_resets_count_pairs_inside_of_the_window() {
    let values = [1.0, 2.0, 3.0, 0.0, 1.0, 0.0, 0.0, 1.0, 2.0, 0.0];
    assert_eq!(once(WindowFunction::Changes, 90, 91, &values, &[]), 8.0);
    assert_eq!(once(WindowFunction::Resets, 90, 91, &values, &[]), 3.0);
    assert_eq!(once(WindowFunction::Changes, 90, 91, &[f64::NAN, f64::NAN, 1.0], &[]), 1.0);
}

#[test]
fn lines_are_continued_and_constants_stay() {
    assert_eq!(once(WindowFunction::Deriv, 20, 60, &[5.0, 5.0, 5.0], &[]), 0.0);
    let ahead = once(WindowFunction::PredictLinear, 20, 60, &[0.0, 10.0, 20.0], &[60.0]);
    assert!((ahead - 80.0).abs() < 1e-9, "{ahead}");
    assert!(once(WindowFunction::Deriv, 20, 60, &[f64::INFINITY, f64::INFINITY], &[]).is_nan());
}

#[test]
fn the_time_of_an_extreme_is_its_last() {
    assert_eq!(once(WindowFunction::TsOfMax, 40, 60, &[1.0, 6.0, 2.0, 6.0, 1.0], &[]), 30.0);
    assert_eq!(once(WindowFunction::TsOfMin, 40, 60, &[1.0, 6.0, 2.0, 6.0, 1.0], &[]), 40.0);
}

fn same(a: f64, b: f64, scale: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * scale
}

fn sample() -> impl Strategy<Value = f64> {
    prop_oneof![8 => -100.0f64..100.0, 2 => Just(0.0), 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)]
}

proptest! {
    /// Sliding over many steps gives what each step gives alone.
    #[test]
    fn sliding_changes_nothing(
        gaps in prop::collection::vec((1i64..40, sample()), 0..80),
        steps in 1usize..60,
        range in 80i64..700,
    ) {
        let mut time = 0;
        let (timestamps, values): (Vec<i64>, Vec<f64>) = gaps.iter().map(|(gap, v)| { time += gap; (time, *v) }).unzip();
        let finite: f64 = values.iter().filter(|v| v.is_finite()).map(|v| v.abs()).sum();
        use WindowFunction as F;
        for function in [
            F::Rate, F::Increase, F::Delta, F::Irate, F::Changes, F::Resets, F::Sum, F::Avg, F::Min, F::Max, F::Count,
            F::Stdvar, F::Last, F::First, F::Quantile, F::Mad, F::Smoothing,
        ] {
            let params: &[f64] = &[0.75, 0.25];
            let all = run(function, &windows(0, 10, steps, range), &timestamps, &values, params);
            for (step, value) in all.iter().enumerate() {
                let alone = run(function, &windows(step as i64 * 10, 0, 1, range), &timestamps, &values, params)[0];
                let scale = if function == F::Stdvar { finite * finite } else { finite };
                prop_assert!(same(*value, alone, scale.max(1.0)), "{function:?} at {step}: {value} alone {alone}");
            }
        }
    }
}
