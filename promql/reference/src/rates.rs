//! `rate`, `increase`, `delta` and their kin, and what `anchored` and `smoothed` make of them.

use promql::functions::Function as F;
use promql::parse::ast::Edges;
use tsdb::model::CounterReset;

use super::select::{Item, Run};
use super::{Histogram, Value};

/// Whether a counter was reset between two samples, by values or by start times.
pub fn is_reset(previous: &Item, item: &Item) -> bool {
    is_start_reset(previous, item)
        || match (&previous.value, &item.value) {
            (Value::Float(a), Value::Float(b)) => b < a,
            (Value::Histogram(a), Value::Histogram(b)) => b.is_reset_after(a),
            _ => true,
        }
}

fn is_start_reset(previous: &Item, item: &Item) -> bool {
    let known = item.start_ms != 0 && item.start_ms < item.time_ms;
    let previous_known = previous.start_ms != 0 && previous.start_ms < previous.time_ms;
    known
        && (item.start_ms > previous.time_ms || (item.start_ms == previous.time_ms && previous_known))
        && matches!(
            (&previous.value, &item.value),
            (Value::Float(_), Value::Float(_)) | (Value::Histogram(_), Value::Histogram(_))
        )
}

/// `a + sign * b`, of one kind.
fn combine(a: &Value, b: &Value, sign: f64) -> Option<Value> {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => Some(Value::Float(a + sign * b)),
        (Value::Histogram(a), Value::Histogram(b)) => a.combined(b, sign).ok().map(Value::Histogram),
        _ => None,
    }
}

fn times(value: &Value, factor: f64) -> Value {
    match value {
        Value::Float(value) => Value::Float(value * factor),
        Value::Histogram(h) => Value::Histogram(h.times(factor)),
    }
}

fn as_gauge(value: Value) -> Value {
    match value {
        Value::Histogram(h) => Value::Histogram(Histogram { hint: CounterReset::Gauge, ..h }),
        float @ Value::Float(_) => float,
    }
}

/// Both kinds of samples, or both kinds of buckets.
fn is_mixed(items: &[Item]) -> bool {
    let kind = |item: &Item| match &item.value {
        Value::Float(_) => 0,
        Value::Histogram(h) if h.is_custom() => 1,
        Value::Histogram(_) => 2,
    };
    items.iter().any(|item| kind(item) != kind(&items[0]))
}

/// `rate`, `increase`, `delta`.
pub fn rate(function: F, run: &Run) -> Option<Value> {
    let kinds = |is: fn(&Item) -> bool| run.items.iter().any(is);
    if kinds(|i| matches!(i.value, Value::Float(_))) && kinds(|i| matches!(i.value, Value::Histogram(_))) {
        return None;
    }
    let range_s = (run.end_ms - run.start_ms) as f64 / 1000.0;
    let per_s = if function == F::Rate { range_s } else { 1.0 };
    let counter = function != F::Delta;
    let value = match run.edges {
        Edges::Plain => extrapolated(run, counter, per_s)?,
        _ => match extended(run, counter)? {
            Value::Float(value) => Value::Float(value / per_s),
            Value::Histogram(h) => Value::Histogram(h.over(per_s)),
        },
    };
    Some(as_gauge(value))
}

fn extrapolated(run: &Run, counter: bool, per_s: f64) -> Option<Value> {
    let items = &run.items;
    let (first, last) = (items.first()?, items.last()?);
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let known_start =
        counter && first.start_ms != 0 && run.start_ms < first.start_ms && first.start_ms < first.time_ms;
    let mut difference = if items.len() > 1 { Some(difference(items, counter)?) } else { None };
    let mean_s =
        if items.len() > 1 { seconds(last.time_ms - first.time_ms) / (items.len() - 1) as f64 } else { 0.0 };
    let near = |gap_s: f64| if gap_s >= mean_s * 1.1 { mean_s / 2.0 } else { gap_s };
    let to_end_s = near(seconds(run.end_ms - last.time_ms));
    if known_start {
        difference = Some(match difference {
            Some(difference) => combine(&difference, &first.value, 1.0)?,
            // Of an infinity nothing is left when it is taken from itself; a histogram is taken as it is.
            None => match &first.value {
                value @ Value::Float(_) => combine(&combine(value, value, -1.0)?, value, 1.0)?,
                histogram @ Value::Histogram(_) => histogram.clone(),
            },
        });
        let sampled_s = seconds(last.time_ms - first.start_ms);
        return Some(times(&difference?, (sampled_s + to_end_s) / sampled_s / per_s));
    }
    let difference = difference?;
    let sampled_s = seconds(last.time_ms - first.time_ms);
    let mut to_start_s = near(seconds(first.time_ms - run.start_ms));
    let (from, by) = match (&first.value, &difference) {
        (Value::Float(from), Value::Float(by)) => (*from, *by),
        (Value::Histogram(from), Value::Histogram(by)) => (from.count, by.count),
        _ => return None,
    };
    if counter && by > 0.0 && from >= 0.0 {
        to_start_s = to_start_s.min(sampled_s * (from / by));
    }
    Some(times(&difference, (sampled_s + to_start_s + to_end_s) / sampled_s / per_s))
}

/// Last less first of at least two samples, with what resets took.
fn difference(items: &[Item], counter: bool) -> Option<Value> {
    let (first, last) = (&items[0], &items[items.len() - 1]);
    if let (Value::Histogram(first), Value::Histogram(_)) = (&first.value, &last.value) {
        let reset_at_once = counter && is_reset(&items[0], &items[1]);
        let relevant = match (counter, reset_at_once) {
            (true, true) => items[1..].to_vec(),
            (true, false) => items.to_vec(),
            _ => vec![items[0].clone(), last.clone()],
        };
        if is_mixed(&relevant) {
            return None;
        }
        let mut total = last.value.clone();
        if !reset_at_once {
            total = combine(&total, &Value::Histogram(first.clone()), -1.0)?;
        }
        for pair in relevant.windows(2).filter(|pair| counter && is_reset(&pair[0], &pair[1])) {
            total = combine(&total, &pair[0].value, 1.0)?;
        }
        // The resolution is that of all of the range, and custom bounds those of what was counted from and to.
        let is_custom = matches!(&last.value, Value::Histogram(h) if h.is_custom());
        let layouts = if is_custom { &relevant[..1] } else { &relevant[..] };
        if let Value::Histogram(total) = &mut total {
            for item in layouts {
                let Value::Histogram(item) = &item.value else { return None };
                total.laid_out_with(item).ok()?;
            }
        }
        return Some(total);
    }
    let mut total = combine(&last.value, &first.value, -1.0)?;
    for pair in items.windows(2).filter(|pair| counter && is_reset(&pair[0], &pair[1])) {
        total = combine(&total, &pair[0].value, 1.0)?;
    }
    Some(total)
}

/// `irate` and `idelta`.
pub fn instant_rate(counter: bool, run: &Run) -> Option<Value> {
    let [.., before, last] = &run.items[..] else { return None };
    if is_mixed(&[before.clone(), last.clone()]) && !(counter && is_reset_of_kind(before, last)) {
        return None;
    }
    let reset = counter && is_reset(before, last);
    let value = if reset { last.value.clone() } else { combine(&last.value, &before.value, -1.0)? };
    let seconds = (last.time_ms - before.time_ms) as f64 / 1000.0;
    Some(as_gauge(if counter { times(&value, 1.0 / seconds) } else { value }))
}

/// A reset between histograms, whatever their buckets.
fn is_reset_of_kind(before: &Item, last: &Item) -> bool {
    matches!((&before.value, &last.value), (Value::Histogram(_), Value::Histogram(_)))
        && is_reset(before, last)
}

/// The value between two samples.
fn between(a: &Item, b: &Item, time_ms: i64, counter: bool) -> Option<Value> {
    if time_ms == a.time_ms {
        return Some(a.value.clone());
    }
    if time_ms == b.time_ms {
        return Some(b.value.clone());
    }
    let share = (time_ms - a.time_ms) as f64 / (b.time_ms - a.time_ms) as f64;
    let reset = match (&a.value, &b.value) {
        (Value::Float(a), Value::Float(b)) => b < a,
        (Value::Histogram(a), Value::Histogram(b)) if a.is_custom() == b.is_custom() => b.is_reset_after(a),
        _ => return None,
    };
    if counter && reset {
        return Some(times(&b.value, share));
    }
    if let (Value::Float(from), Value::Float(to)) = (&a.value, &b.value) {
        let (since_ms, span_ms) = ((time_ms - a.time_ms) as f64, (b.time_ms - a.time_ms) as f64);
        return Some(Value::Float(from + (to - from) * since_ms / span_ms));
    }
    combine(&times(&combine(&b.value, &a.value, -1.0)?, share), &a.value, 1.0)
}

/// `rate` and its kin over an anchored or smoothed range; its samples reach beyond it.
fn extended(run: &Run, counter: bool) -> Option<Value> {
    let items = &run.items;
    let smoothed = run.edges == Edges::Smoothed;
    let mut last = items.len() - 1;
    let first = items[..last].iter().filter(|i| i.time_ms <= run.start_ms).count().saturating_sub(1);
    if smoothed {
        last = items[..last].iter().position(|i| i.time_ms >= run.end_ms).unwrap_or(last);
    }
    if items[last].time_ms <= run.start_ms || (smoothed && items[first].time_ms > run.end_ms) {
        return None;
    }
    if is_mixed(&items[first..=last]) {
        return None;
    }
    let left_between = smoothed && items[first].time_ms < run.start_ms;
    let right_between = smoothed && last > 0 && items[last].time_ms > run.end_ms;
    let left = if left_between {
        between(&items[first], &items[first + 1], run.start_ms, counter)?
    } else {
        items[first].value.clone()
    };
    let right = if right_between {
        between(&items[last - 1], &items[last], run.end_ms, counter)?
    } else {
        items[last].value.clone()
    };
    let mut total = combine(&right, &left, -1.0)?;
    if counter {
        let mut previous = left;
        let is_less = |value: &Value, previous: &Value| match (value, previous) {
            (Value::Float(a), Value::Float(b)) => a < b,
            (Value::Histogram(a), Value::Histogram(b)) => a.is_reset_after(b),
            _ => true,
        };
        let mut inner: Vec<&Value> = Vec::new();
        if matches!(previous, Value::Float(_)) {
            let inside = |i: &&Item| run.start_ms < i.time_ms && i.time_ms < run.end_ms;
            let upto = if items[last].time_ms >= run.end_ms { last } else { last + 1 };
            inner.extend(items[first..upto.max(first)].iter().filter(inside).map(|i| &i.value));
        } else {
            let mut from = first + 1;
            if left_between && is_less(&items[first + 1].value, &items[first].value) {
                previous = items[first + 1].value.clone();
                from += 1;
            }
            if from > last {
                return Some(total);
            }
            inner.extend(items[from..last].iter().map(|i| &i.value));
        }
        for value in inner.into_iter().chain([&right]) {
            if is_less(value, &previous) {
                total = combine(&total, &previous, 1.0)?;
            }
            previous = value.clone();
        }
    }
    Some(total)
}

/// A smoothed instant selector, over the samples within a look-back on either side.
pub fn smoothed(items: &[Item], time_ms: i64) -> Option<Value> {
    let floats = items.iter().filter(|i| matches!(i.value, Value::Float(_))).count();
    if floats != 0 && floats != items.len() {
        return None;
    }
    let next = items.iter().find(|i| i.time_ms >= time_ms);
    let previous = items.iter().rfind(|i| i.time_ms < time_ms);
    match (previous, next) {
        (_, Some(next)) if next.time_ms == time_ms => Some(next.value.clone()),
        (Some(previous), Some(next)) => {
            let gauges =
                [previous, next].iter().all(|i| matches!(&i.value, Value::Histogram(h) if h.is_gauge()));
            let counter = floats == 0 && !gauges;
            between(previous, next, time_ms, counter)
        }
        (Some(previous), None) => Some(previous.value.clone()),
        (None, _) => None,
    }
}
