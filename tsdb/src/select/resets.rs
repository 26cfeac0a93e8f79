//! Counter resets between histograms that weren't written one after the other.
//!
//! What a sender said stays: a reset, or that it's a gauge. Within a chunk there is none behind the first histogram.
//! Everything else follows from the numbers, judged against the sample that now precedes, whichever chunk, block or node
//! it comes from and whenever it came.

use std::sync::Arc;

use crate::model::{Count, CounterReset, Histogram, Value, is_stale};

/// Sets what is known of a counter reset before `value`, judged against the sample that now precedes it, unless its
/// sender has said so.
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
    if matches!(now.counter_reset, CounterReset::Gauge | CounterReset::Reset) {
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
