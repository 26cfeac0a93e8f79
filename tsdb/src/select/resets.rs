//! Counter resets between histograms that weren't written one after the other.
//!
//! A chunk says what is known of a reset before each of its histograms but the first, about which it may say that there
//! was one. Where another neighbour has come between (late samples, other chunks, deletions), only the numbers tell.

use std::sync::Arc;

use crate::model::{Count, CounterReset, Histogram, Value, is_stale};

/// Sets what is known of a counter reset before `value`, judged against the sample that now precedes it.
pub(super) fn judge(value: &mut Value, previous: Option<&Value>) {
    match (value, previous) {
        (Value::Int(now), Some(Value::Int(previous))) => judge_histogram(now, Some(previous)),
        (Value::Histogram(now), Some(Value::Histogram(previous))) => judge_histogram(now, Some(previous)),
        (Value::Int(now), _) => judge_histogram(now, None),
        (Value::Histogram(now), _) => judge_histogram(now, None),
        (Value::Float(_), _) => {}
    }
}

/// [`judge`] among histograms of one kind.
pub(super) fn judge_histogram<C: Count>(now: &mut Arc<Histogram<C>>, previous: Option<&Arc<Histogram<C>>>) {
    if now.counter_reset == CounterReset::Gauge {
        return;
    }
    let comparable = |previous: &&Arc<Histogram<C>>| {
        previous.counter_reset != CounterReset::Gauge && !is_stale(previous.sum) && !is_stale(now.sum)
    };
    let reset = match previous.filter(comparable) {
        None => CounterReset::Unknown,
        Some(previous) if now.is_reset_after(previous) => CounterReset::Reset,
        Some(_) => CounterReset::NotReset,
    };
    if now.counter_reset != reset {
        Arc::make_mut(now).counter_reset = reset;
    }
}

/// Whether nothing is known of a reset before `value`, and something might be.
pub(super) fn is_unknown(value: &Value) -> bool {
    match value {
        Value::Float(_) => false,
        Value::Int(histogram) => histogram.counter_reset == CounterReset::Unknown,
        Value::Histogram(histogram) => histogram.counter_reset == CounterReset::Unknown,
    }
}
