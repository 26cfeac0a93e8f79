//! A group's state as columns of numbers, for another process, and back.
//!
//! The first column tells by absent values, or by zeros where it counts, at which steps there is something.

use super::state::{Fold, HintsSeen, Histograms};
use crate::eval::number::{Mean, Partial as _, Spread};
use crate::eval::row::{ABSENT, is_absent};
use crate::folded::FoldedHistogram;
use crate::functions::histogram::Total;
use crate::parse::ast::AggregateOp;

/// How many columns a group's state has; `None` for what isn't folded in parts.
pub(crate) fn columns(op: AggregateOp) -> Option<usize> {
    match op {
        AggregateOp::Sum => Some(2),
        AggregateOp::Avg => Some(4),
        AggregateOp::Count | AggregateOp::Group | AggregateOp::Min | AggregateOp::Max => Some(1),
        AggregateOp::Stddev | AggregateOp::Stdvar => Some(6),
        AggregateOp::Quantile
        | AggregateOp::CountValues
        | AggregateOp::Topk
        | AggregateOp::Bottomk
        | AggregateOp::Limitk
        | AggregateOp::LimitRatio => None,
    }
}

impl Fold {
    /// The state's numbers, and its histograms by step.
    pub(super) fn into_columns(self) -> (Vec<Vec<f64>>, Vec<FoldedHistogram>) {
        match self {
            Self::Sum { mut hi, lo, seen, histograms } => {
                hi.iter_mut().zip(seen).filter(|(_, seen)| !seen).for_each(|(hi, _)| *hi = ABSENT);
                (vec![hi, lo], histograms_to(histograms))
            }
            Self::Mean { means, histograms, .. } => {
                let parts: Vec<_> = means.iter().map(Mean::parts).collect();
                let columns = vec![
                    parts.iter().map(|(_, _, count, _)| *count).collect(),
                    parts.iter().map(|(hi, ..)| *hi).collect(),
                    parts.iter().map(|(_, lo, ..)| *lo).collect(),
                    parts.iter().map(|(.., scaled)| f64::from(u8::from(*scaled))).collect(),
                ];
                (columns, histograms_to(histograms))
            }
            Self::Count(counts) => (vec![counts], Vec::new()),
            Self::Best(best, _) => (vec![best], Vec::new()),
            Self::Variance(spreads, _) => {
                let parts: Vec<_> = spreads.iter().map(Spread::parts).collect();
                let column = |i: usize| parts.iter().map(|parts| parts[i]).collect();
                ((0..6).map(column).collect(), Vec::new())
            }
            Self::Quantile(_) => unreachable!("quantiles need all values at once"),
        }
    }

    /// From what [`Fold::into_columns`] gave for an aggregation of the same kind over as many steps.
    pub(super) fn of_columns(
        op: AggregateOp,
        columns: Vec<Vec<f64>>,
        histograms: Vec<FoldedHistogram>,
        steps: usize,
    ) -> Self {
        let mut fold = Self::new(op, steps);
        match &mut fold {
            Self::Sum { hi, lo, seen, histograms: into } => {
                let [their_hi, their_lo] = array(columns);
                *seen = their_hi.iter().map(|hi| !is_absent(*hi)).collect();
                *hi = their_hi.into_iter().map(|hi| if is_absent(hi) { 0.0 } else { hi }).collect();
                *lo = their_lo;
                *into = histograms_from(histograms, steps);
            }
            Self::Mean { means, seen, histograms: into } => {
                let [counts, hi, lo, scaled] = array(columns);
                *seen = counts.iter().map(|count| *count > 0.0).collect();
                for (i, mean) in means.iter_mut().enumerate() {
                    *mean = Mean::of_parts((hi[i], lo[i], counts[i], scaled[i] > 0.0));
                }
                *into = histograms_from(histograms, steps);
            }
            Self::Count(counts) => [*counts] = array(columns),
            Self::Best(best, _) => [*best] = array(columns),
            Self::Variance(spreads, seen) => {
                let columns: [_; 6] = array(columns);
                *seen = columns[0].iter().map(|count| *count > 0.0).collect();
                for (i, spread) in spreads.iter_mut().enumerate() {
                    let parts = columns.each_ref().map(|column| column[i]);
                    *spread = if parts[0] > 0.0 { Spread::of_parts(parts) } else { Spread::EMPTY };
                }
            }
            Self::Quantile(_) => unreachable!("quantiles need all values at once"),
        }
        fold
    }
}

fn array<const N: usize>(columns: Vec<Vec<f64>>) -> [Vec<f64>; N] {
    columns.try_into().expect("whoever took it in has checked its shape")
}

fn histograms_to(histograms: Histograms) -> Vec<FoldedHistogram> {
    let by_step = histograms.into_iter().flatten().zip(0u32..);
    let one = |(sum, step): (Option<(Option<Total>, HintsSeen)>, u32)| {
        let (total, HintsSeen { count, reset, not_reset }) = sum?;
        Some(FoldedHistogram { step, count, reset, not_reset, sum: total.map(Total::into_parts) })
    };
    by_step.filter_map(one).collect()
}

fn histograms_from(histograms: Vec<FoldedHistogram>, steps: usize) -> Histograms {
    if histograms.is_empty() {
        return None;
    }
    let mut sums: Box<[_]> = (0..steps).map(|_| None).collect();
    for FoldedHistogram { step, count, reset, not_reset, sum } in histograms {
        sums[step as usize] = Some((sum.map(Total::of_parts), HintsSeen { count, reset, not_reset }));
    }
    Some(sums)
}
