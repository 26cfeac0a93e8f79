//! Window functions over native histograms alone.

use std::sync::Arc;

use tsdb::model::{CounterReset, FloatHistogram};

use super::rate::Extrapolation;
use super::{HistogramRun, Window, WindowFunction, starts};
use crate::eval::notes::{Note, Notes};
use crate::functions::histogram::{Incompatible, Total, divided, subtract};

/// `sum_over_time`
pub fn sum(inside: &[Arc<FloatHistogram>], notes: &mut Notes) -> Option<FloatHistogram> {
    total(inside, Total::of, notes).map(Total::fold)
}

/// `avg_over_time`
pub fn mean(inside: &[Arc<FloatHistogram>], notes: &mut Notes) -> Option<FloatHistogram> {
    total(inside, Total::of_mean, notes).map(|total| total.mean(inside.len() as f64))
}

fn total(
    inside: &[Arc<FloatHistogram>],
    of: fn(&FloatHistogram) -> Total,
    notes: &mut Notes,
) -> Option<Total> {
    let (first, rest) = inside.split_first()?;
    let mut total = of(first);
    // Whether hints contradict each other is judged over all of them, in whatever order they come.
    let (mut reset, mut not_reset) = (false, false);
    for histogram in inside {
        reset |= histogram.counter_reset == CounterReset::Reset;
        not_reset |= histogram.counter_reset == CounterReset::NotReset;
    }
    if reset && not_reset {
        notes.add(Note::CounterResetsAggregation);
    }
    for histogram in rest {
        let mut ignored = Notes::default();
        match total.merge(
            of(histogram),
            Note::CounterResetsAggregation,
            Note::ReconciledAggregation,
            &mut ignored,
        ) {
            Ok(()) if ignored.has(Note::ReconciledAggregation) => notes.add(Note::ReconciledAggregation),
            Ok(()) => {}
            Err(Incompatible) => {
                notes.add(Note::MixedSchemas);
                return None;
            }
        }
    }
    Some(total)
}

/// `rate`, `increase` and `delta`; none below two samples.
pub fn extrapolated(
    function: WindowFunction,
    window: &Window,
    range_ms: i64,
    run: HistogramRun<'_>,
    notes: &mut Notes,
) -> Option<FloatHistogram> {
    let counter = function != WindowFunction::Delta;
    let (first, first_ms, last_ms) = (run.values.first()?, *run.timestamps.first()?, *run.timestamps.last()?);
    if let Some(start_ms) = starts::inside(run.stamp(0), window).filter(|_| counter) {
        // It was 0 then, so what it counted up to the first sample counts too.
        let mut total = Total::of(first);
        if run.values.len() > 1 {
            total = difference(function, run, notes)?;
            if total.combine(first, 1.0, Note::ReconciledAddition, notes).is_err() {
                notes.add(Note::MixedSchemas);
                return None;
            }
        }
        let factor = Extrapolation::factor_since(function, range_ms, window, start_ms, first_ms, last_ms);
        return Some(total.scaled(factor));
    }
    let total = difference(function, run, notes)?;
    let extrapolation = Extrapolation::new(function, range_ms, window, first_ms, last_ms);
    let factor = if counter {
        extrapolation.counter_factor(first.count, total.count())
    } else {
        extrapolation.factor()
    };
    Some(total.scaled(factor))
}

/// Last less first, corrected for resets; none below two samples.
fn difference(function: WindowFunction, run: HistogramRun<'_>, notes: &mut Notes) -> Option<Total> {
    let inside = run.values;
    let [first, _, ..] = inside else { return None };
    let last = inside.last()?;
    let counter = function != WindowFunction::Delta;
    let is_gauge = |h: &FloatHistogram| h.counter_reset == CounterReset::Gauge;
    if counter && inside.iter().any(|h| is_gauge(h)) {
        notes.add(Note::NotCounter);
    }
    if !(counter || is_gauge(first) && is_gauge(last)) {
        notes.add(Note::NotGauge);
    }
    // After a reset the first sample tells nothing, not even by its layout.
    let reset_at_once = counter && run.is_reset_at(1);
    let relevant = if reset_at_once {
        &inside[1..]
    } else if counter {
        inside
    } else {
        &[Arc::clone(first), Arc::clone(last)]
    };
    if relevant.iter().any(|h| h.has_custom_buckets() != last.has_custom_buckets()) {
        notes.add(Note::MixedSchemas);
        return None;
    }
    let mut total = Total::of(last);
    total.reduce(relevant.iter().map(|h| h.schema).min()?);
    let mut add = |total: &mut Total, histogram: &FloatHistogram, sign, note| {
        total.combine(histogram, sign, note, notes).expect("layouts have just been compared");
    };
    if reset_at_once {
        // Nothing is taken away, but the bounds of what the counter began anew with count.
        let began = relevant.first()?;
        let (schema, custom_values) = (began.schema, began.custom_values.clone());
        let nothing = FloatHistogram { schema, custom_values, ..FloatHistogram::default() };
        add(&mut total, &nothing, -1.0, Note::ReconciledSubtraction);
    } else {
        add(&mut total, first, -1.0, Note::ReconciledSubtraction);
    }
    if counter {
        let from = usize::from(reset_at_once);
        for at in from + 1..inside.len() {
            if run.is_reset_at(at) {
                add(&mut total, &inside[at - 1], 1.0, Note::ReconciledAddition);
            }
        }
        if (1..inside.len()).any(|at| starts::overlap(run.stamp(at - 1), run.stamp(at))) {
            notes.add(Note::StartTimesOverlap);
        }
    }
    total.set_counter_reset(CounterReset::Gauge);
    Some(total)
}

/// `irate` and `idelta`, of the last two samples, before the last of which there may have been a `reset`.
pub fn instant(
    irate: bool,
    reset: bool,
    previous: &FloatHistogram,
    last: &FloatHistogram,
    seconds: f64,
    notes: &mut Notes,
) -> Option<FloatHistogram> {
    let gauges = [previous, last].map(|h| h.counter_reset == CounterReset::Gauge);
    if irate && gauges.contains(&true) {
        notes.add(Note::NotCounter);
    }
    if !irate && gauges.contains(&false) {
        notes.add(Note::NotGauge);
    }
    let mut result = if reset {
        last.clone()
    } else {
        // Resets have just been dealt with: hints that contradict each other are no news.
        let mut difference = Notes::default();
        let Ok(result) = subtract(
            last,
            previous,
            Note::CounterResetsSubtraction,
            Note::ReconciledSubtraction,
            &mut difference,
        ) else {
            notes.add(Note::MixedSchemas);
            return None;
        };
        if difference.has(Note::ReconciledSubtraction) {
            notes.add(Note::ReconciledSubtraction);
        }
        result
    };
    result.counter_reset = CounterReset::Gauge;
    Some(if irate { divided(&result, seconds) } else { result })
}
