//! What a group comes to, step by step: takes rows in, and states of other parts of the series. The result doesn't depend
//! on the order of either.

use std::sync::Arc;

use tsdb::model::{CounterReset, FloatHistogram};

use crate::eval::notes::{Note, Notes};
use crate::eval::number::{self, Mean, Partial, Spread, two_sum};
use crate::eval::row::{ABSENT, Row, is_absent};
use crate::functions::histogram::{Incompatible, Total};
use crate::functions::window::StepValues;
use crate::parse::ast::AggregateOp;

/// What a group has come to so far, step by step.
pub(super) enum Fold {
    Sum {
        hi: Vec<f64>,
        lo: Vec<f64>,
        seen: Vec<bool>,
        histograms: Histograms,
    },
    Mean {
        means: Vec<Mean>,
        seen: Vec<bool>,
        histograms: Histograms,
    },
    Count(Vec<f64>),
    /// `min` or `max`; absent until there is one. Of the two zeros the lesser is the negative one, so that order doesn't
    /// matter.
    Best(Vec<f64>, fn(f64, f64) -> bool),
    Variance(Vec<Spread>, Vec<bool>),
    /// All values: a quantile needs them at once.
    Quantile(Vec<Vec<f64>>),
}

/// Sums of histograms, once there is one: at each step the sum and the number of them; `None` in the place of a sum
/// that can't be made.
pub(super) type Histograms = Option<Box<[Option<(Option<Total>, HintsSeen)>]>>;

/// How many histograms there were, and which reset hints.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HintsSeen {
    pub(super) count: u32,
    pub(super) reset: bool,
    pub(super) not_reset: bool,
}

impl Fold {
    pub(super) fn new(op: AggregateOp, steps: usize) -> Self {
        match op {
            AggregateOp::Sum => Self::Sum {
                hi: vec![0.0; steps],
                lo: vec![0.0; steps],
                seen: vec![false; steps],
                histograms: None,
            },
            AggregateOp::Avg => {
                Self::Mean { means: vec![Mean::EMPTY; steps], seen: vec![false; steps], histograms: None }
            }
            AggregateOp::Count | AggregateOp::Group => Self::Count(vec![0.0; steps]),
            AggregateOp::Min => Self::Best(vec![ABSENT; steps], |a, b| {
                a < b || (a == b && a.is_sign_negative() && b.is_sign_positive())
            }),
            AggregateOp::Max => Self::Best(vec![ABSENT; steps], |a, b| {
                a > b || (a == b && a.is_sign_positive() && b.is_sign_negative())
            }),
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                Self::Variance(vec![Spread::EMPTY; steps], vec![false; steps])
            }
            AggregateOp::Quantile => Self::Quantile(Vec::new()),
            AggregateOp::CountValues
            | AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio => unreachable!("these don't fold"),
        }
    }

    pub(super) fn size_bytes(op: AggregateOp, steps: usize) -> usize {
        let step = match op {
            AggregateOp::Sum => 17,
            AggregateOp::Avg => size_of::<Mean>() + 1,
            AggregateOp::Stddev | AggregateOp::Stdvar => size_of::<Spread>() + 1,
            AggregateOp::Quantile => 0,
            _ => 8,
        };
        size_of::<Self>() + steps * step
    }

    /// What it has grown to.
    pub(super) fn held_bytes(&self, steps: usize) -> usize {
        let step = match self {
            Self::Sum { .. } => 17,
            Self::Mean { .. } => size_of::<Mean>() + 1,
            Self::Variance(..) => size_of::<Spread>() + 1,
            Self::Count(_) | Self::Best(..) => 8,
            Self::Quantile(rows) => rows.len() * size_of::<f64>(),
        };
        size_of::<Self>() + steps * step
    }

    pub(super) fn takes_histograms(&self) -> bool {
        matches!(self, Self::Sum { .. } | Self::Mean { .. } | Self::Count(_))
    }

    /// Takes a row in; gives its memory back where it isn't kept.
    pub(super) fn add(&mut self, row: Row, notes: &mut Notes) -> Option<Vec<f64>> {
        match self {
            Self::Sum { hi, lo, seen, histograms } => {
                add_to_sum(hi, lo, seen, &row.values);
                add_histograms(histograms, &row, Total::of, notes);
            }
            Self::Mean { means, seen, histograms } => {
                for ((mean, seen), value) in means.iter_mut().zip(seen).zip(&row.values) {
                    if !is_absent(*value) {
                        mean.add(*value);
                        *seen = true;
                    }
                }
                add_histograms(histograms, &row, Total::of_mean, notes);
            }
            Self::Count(counts) => {
                if row.histograms.is_empty() {
                    for (count, value) in counts.iter_mut().zip(&row.values) {
                        *count += if is_absent(*value) { 0.0 } else { 1.0 };
                    }
                } else {
                    for (step, count) in counts.iter_mut().enumerate() {
                        *count += if row.has(step) { 1.0 } else { 0.0 };
                    }
                }
            }
            Self::Best(best, beats) => {
                for (best, value) in best.iter_mut().zip(&row.values) {
                    // Absent is a NaN too, and any value is better than NaN.
                    if !is_absent(*value) && (best.is_nan() || beats(*value, *best)) {
                        *best = *value;
                    }
                }
            }
            Self::Variance(partials, seen) => {
                for ((partial, seen), value) in partials.iter_mut().zip(seen).zip(&row.values) {
                    if !is_absent(*value) {
                        partial.add(*value);
                        *seen = true;
                    }
                }
            }
            Self::Quantile(rows) => {
                rows.push(row.values);
                return None;
            }
        }
        Some(row.values)
    }

    pub(super) fn merge(&mut self, later: Self, notes: &mut Notes) {
        match (self, later) {
            (
                Self::Sum { hi, lo, seen, histograms },
                Self::Sum { hi: later_hi, lo: later_lo, seen: later_seen, histograms: later },
            ) => {
                for (step, (value, error)) in later_hi.into_iter().zip(later_lo).enumerate() {
                    let (sum, rounded) = two_sum(hi[step], value);
                    hi[step] = sum;
                    lo[step] += rounded + error;
                    seen[step] |= later_seen[step];
                }
                merge_histograms(histograms, later, notes);
            }
            (
                Self::Mean { means, seen, histograms },
                Self::Mean { means: later_means, seen: later_seen, histograms: later },
            ) => {
                means.iter_mut().zip(&later_means).for_each(|(mean, later)| mean.merge(later));
                seen.iter_mut().zip(later_seen).for_each(|(seen, later)| *seen |= later);
                merge_histograms(histograms, later, notes);
            }
            (Self::Count(counts), Self::Count(later)) => {
                counts.iter_mut().zip(later).for_each(|(count, later)| *count += later);
            }
            (Self::Best(best, beats), Self::Best(later, _)) => {
                for (best, value) in best.iter_mut().zip(later) {
                    if !is_absent(value) && (best.is_nan() || beats(value, *best)) {
                        *best = value;
                    }
                }
            }
            (Self::Variance(partials, seen), Self::Variance(later, later_seen)) => {
                partials.iter_mut().zip(&later).for_each(|(partial, later)| partial.merge(later));
                seen.iter_mut().zip(later_seen).for_each(|(seen, later)| *seen |= later);
            }
            (Self::Quantile(rows), Self::Quantile(later)) => rows.extend(later),
            _ => unreachable!("all folds of an aggregation are of its kind"),
        }
    }

    pub(super) fn finish(
        self,
        op: AggregateOp,
        param: Option<&StepValues>,
        row: &mut Row,
        mixed: &mut bool,
        notes: &mut Notes,
    ) {
        match self {
            Self::Sum { hi, lo, seen, histograms } => {
                for (step, value) in row.values.iter_mut().enumerate() {
                    if seen[step] {
                        let (hi, lo) = (hi[step], lo[step]);
                        *value = if hi.is_finite() && !lo.is_nan() { hi + lo } else { hi };
                    }
                }
                put_histograms(histograms, row, mixed, notes, |total, _| total.fold());
            }
            Self::Mean { means, seen, histograms } => {
                for (step, value) in row.values.iter_mut().enumerate() {
                    if seen[step] {
                        *value = means[step].value();
                    }
                }
                put_histograms(histograms, row, mixed, notes, |total, count| total.mean(f64::from(count)));
            }
            Self::Count(counts) => {
                for (value, count) in row.values.iter_mut().zip(counts) {
                    if count > 0.0 {
                        *value = if op == AggregateOp::Group { 1.0 } else { count };
                    }
                }
            }
            Self::Best(best, _) => row.values = best,
            Self::Variance(partials, seen) => {
                for (step, value) in row.values.iter_mut().enumerate() {
                    if seen[step] {
                        let variance = partials[step].value();
                        *value = if op == AggregateOp::Stddev { variance.sqrt() } else { variance };
                    }
                }
            }
            Self::Quantile(rows) => {
                let phi = param.expect("the parser gives quantile a parameter");
                let mut present = Vec::with_capacity(rows.len());
                for (step, value) in row.values.iter_mut().enumerate() {
                    present.clear();
                    present.extend(rows.iter().map(|row| row[step]).filter(|v| !is_absent(*v)));
                    if !present.is_empty() {
                        *value = number::quantile(phi.at(step), &mut present);
                    }
                }
            }
        }
    }
}

/// Without branches, so that it compiles to vector instructions: an absent value adds a zero that changes nothing.
fn add_to_sum(hi: &mut [f64], lo: &mut [f64], seen: &mut [bool], values: &[f64]) {
    let sums = hi.iter_mut().zip(lo).zip(seen);
    for (((hi, lo), seen), value) in sums.zip(values) {
        let present = !is_absent(*value);
        let (sum, error) = two_sum(*hi, if present { *value } else { 0.0 });
        *hi = sum;
        *lo += error;
        *seen |= present;
    }
}

fn add_histograms(sums: &mut Histograms, row: &Row, of: fn(&FloatHistogram) -> Total, notes: &mut Notes) {
    if row.histograms.is_empty() {
        return;
    }
    let sums = sums.get_or_insert_with(|| (0..row.values.len()).map(|_| None).collect());
    for (sum, histogram) in sums.iter_mut().zip(&row.histograms) {
        let Some(histogram) = histogram else { continue };
        let seen = HintsSeen {
            count: 1,
            reset: histogram.counter_reset == CounterReset::Reset,
            not_reset: histogram.counter_reset == CounterReset::NotReset,
        };
        merge_sum(sum, Some((Some(of(histogram)), seen)), notes);
    }
}

fn merge_histograms(sums: &mut Histograms, later: Histograms, notes: &mut Notes) {
    match (sums.as_mut(), later) {
        (_, None) => {}
        (None, later) => *sums = later,
        (Some(sums), Some(later)) => {
            for (sum, later) in sums.iter_mut().zip(later) {
                merge_sum(sum, later, notes);
            }
        }
    }
}

fn merge_sum(
    sum: &mut Option<(Option<Total>, HintsSeen)>,
    later: Option<(Option<Total>, HintsSeen)>,
    notes: &mut Notes,
) {
    let Some((later, later_seen)) = later else { return };
    let Some((total, seen)) = sum else {
        *sum = Some((later, later_seen));
        return;
    };
    seen.count += later_seen.count;
    seen.reset |= later_seen.reset;
    seen.not_reset |= later_seen.not_reset;
    // Whether hints contradict each other is judged at the end, whatever the order.
    let mut ignored = Notes::default();
    let added = match (total.as_mut(), later) {
        (Some(total), Some(later)) => {
            total.merge(later, Note::CounterResetsAggregation, Note::ReconciledAggregation, &mut ignored)
        }
        _ => Err(Incompatible),
    };
    if added.is_err() {
        *total = None;
    }
    if ignored.has(Note::ReconciledAggregation) {
        notes.add(Note::ReconciledAggregation);
    }
}

fn put_histograms(
    sums: Histograms,
    row: &mut Row,
    mixed: &mut bool,
    notes: &mut Notes,
    result: impl Fn(Total, u32) -> FloatHistogram,
) {
    for (step, sum) in sums.into_iter().flatten().enumerate() {
        let Some((total, seen)) = sum else { continue };
        if seen.reset && seen.not_reset {
            notes.add(Note::CounterResetsAggregation);
        }
        if !is_absent(row.values[step]) {
            *mixed = true;
            row.clear(step);
        } else if let Some(total) = total {
            row.set_histogram(step, Arc::new(result(total, seen.count)));
        } else {
            notes.add(Note::MixedSchemas);
        }
    }
}
