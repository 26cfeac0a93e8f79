//! Operators on two samples.

use std::sync::Arc;

use tsdb::model::FloatHistogram;

use super::context::Context;
use super::notes::{Note, Notes};
use super::number;
use super::row::{ABSENT, Row, is_absent};
use crate::annotations::Level;
use crate::functions::histogram::{self, Incompatible, Keep};
use crate::functions::window::StepValues;
use crate::parse::Span;
use crate::parse::ast::BinaryOp;
use crate::plan::ScalarBinary;

/// Arithmetic or a comparison, with or without `bool`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ElementOp {
    pub(crate) op: BinaryOp,
    pub(crate) return_bool: bool,
}

/// One side's sample.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand<'a> {
    Float(f64),
    Histogram(&'a Arc<FloatHistogram>),
}

/// What an operator gives.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Nothing,
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

/// What went wrong on the way, told once for all steps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Troubles {
    /// Operator and, for both sides, whether a histogram stood there.
    incompatible: [Option<(BinaryOp, bool, bool)>; 3],
    layout: Option<BinaryOp>,
    notes: Notes,
}

impl Troubles {
    fn types(&mut self, op: BinaryOp, left: bool, right: bool) {
        let found = Some((op, left, right));
        if let Some(slot) = self.incompatible.iter_mut().find(|slot| slot.is_none() || **slot == found) {
            *slot = found;
        }
    }

    /// Takes in those of others.
    pub(crate) fn merge(&mut self, other: Self) {
        for (op, left, right) in other.incompatible.into_iter().flatten() {
            self.types(op, left, right);
        }
        self.layout = self.layout.or(other.layout);
        self.notes.merge(other.notes);
    }

    /// Makes annotations of them.
    pub(crate) fn tell(self, context: &Context<'_>, span: Span) {
        let kind = |histogram| if histogram { "histogram" } else { "float" };
        for (op, left, right) in self.incompatible.into_iter().flatten() {
            let (left, right, op) = (kind(left), kind(right), op.symbol());
            let text = format!(
                "incompatible sample types encountered for binary operator {op:?}: {left} {op} {right}"
            );
            context.annotate(Level::Info, &text, span);
        }
        if let Some(op) = self.layout {
            let text = format!("incompatible bucket layout encountered for binary operator {}", op.symbol());
            context.annotate(Level::Warning, &text, span);
        }
        context.tell(self.notes, "", span);
    }
}

impl ElementOp {
    /// Whether the result is no longer the metric that it was.
    pub(crate) fn drops_name(self) -> bool {
        self.return_bool || !(self.op.is_comparison() || self.op.is_trim())
    }

    /// Applies the operator; a comparison without `bool` gives the left sample, or the right one if `keep_right`.
    pub(crate) fn apply(
        self,
        left: Operand<'_>,
        right: Operand<'_>,
        keep_right: bool,
        troubles: &mut Troubles,
    ) -> Outcome {
        use Operand::{Float, Histogram};
        if self.op.is_comparison() {
            let holds = match (left, right) {
                (Float(left), Float(right)) => compare(self.op, left, right),
                (Histogram(left), Histogram(right)) if self.op == BinaryOp::Equal => {
                    histogram::equal(left, right)
                }
                (Histogram(left), Histogram(right)) if self.op == BinaryOp::NotEqual => {
                    !histogram::equal(left, right)
                }
                _ => return self.incompatible(left, right, troubles),
            };
            return match if keep_right { right } else { left } {
                _ if self.return_bool => Outcome::Float(f64::from(u8::from(holds))),
                _ if !holds => Outcome::Nothing,
                Float(value) => Outcome::Float(value),
                Histogram(histogram) => Outcome::Histogram(Arc::clone(histogram)),
            };
        }
        let result = match (self.op, left, right) {
            (op, Float(left), Float(right)) if !op.is_trim() => {
                return Outcome::Float(arithmetic(op, left, right));
            }
            (BinaryOp::Mul, Float(factor), Histogram(h)) | (BinaryOp::Mul, Histogram(h), Float(factor)) => {
                Ok(histogram::scaled(h, factor))
            }
            (BinaryOp::Div, Histogram(h), Float(divisor)) => Ok(histogram::divided(h, divisor)),
            (BinaryOp::TrimUpper, Histogram(h), Float(at)) => Ok(histogram::trimmed(h, at, Keep::Below)),
            (BinaryOp::TrimLower, Histogram(h), Float(at)) => Ok(histogram::trimmed(h, at, Keep::Above)),
            (BinaryOp::Add, Histogram(left), Histogram(right)) => histogram::add(
                left,
                right,
                Note::CounterResetsAddition,
                Note::ReconciledAddition,
                &mut troubles.notes,
            ),
            (BinaryOp::Sub, Histogram(left), Histogram(right)) => histogram::subtract(
                left,
                right,
                Note::CounterResetsSubtraction,
                Note::ReconciledSubtraction,
                &mut troubles.notes,
            ),
            _ => return self.incompatible(left, right, troubles),
        };
        match result {
            Ok(histogram) => Outcome::Histogram(Arc::new(histogram)),
            Err(Incompatible) => {
                troubles.layout = Some(self.op);
                Outcome::Nothing
            }
        }
    }

    fn incompatible(self, left: Operand<'_>, right: Operand<'_>, troubles: &mut Troubles) -> Outcome {
        let is_histogram = |operand| matches!(operand, Operand::Histogram(_));
        troubles.types(self.op, is_histogram(left), is_histogram(right));
        Outcome::Nothing
    }
}

/// Whether an operator knows what to do with samples of these kinds: whether there is a histogram on either side.
pub(crate) fn go_together(op: BinaryOp, left: bool, right: bool) -> bool {
    match (left, right) {
        (false, false) => !op.is_trim(),
        (true, false) => matches!(op, BinaryOp::Mul | BinaryOp::Div) || op.is_trim(),
        (false, true) => op == BinaryOp::Mul,
        (true, true) => {
            matches!(op, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Equal | BinaryOp::NotEqual)
        }
    }
}

/// Puts an outcome at a step, in place of what was there.
pub(crate) fn put(row: &mut Row, step: usize, outcome: Outcome) {
    match outcome {
        Outcome::Nothing => row.clear(step),
        Outcome::Float(value) => {
            row.clear(step);
            row.values[step] = value;
        }
        Outcome::Histogram(histogram) => row.set_histogram(step, histogram),
    }
}

/// An operator between scalars; comparisons give 0 or 1.
pub(crate) fn scalar_binary(op: ScalarBinary, left: f64, right: f64) -> f64 {
    match op {
        ScalarBinary::Operator(op) if op.is_comparison() => f64::from(u8::from(compare(op, left, right))),
        ScalarBinary::Operator(op) => arithmetic(op, left, right),
        ScalarBinary::MinOf => number::min(left, right),
        ScalarBinary::MaxOf => number::max(left, right),
    }
}

#[inline]
fn arithmetic(op: BinaryOp, left: f64, right: f64) -> f64 {
    match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => left.powf(right),
        BinaryOp::Atan2 => left.atan2(right),
        _ => unreachable!("comparisons and set operators aren't arithmetic"),
    }
}

#[inline]
#[allow(clippy::float_cmp, reason = "this is what the language's == means")]
fn compare(op: BinaryOp, left: f64, right: f64) -> bool {
    match op {
        BinaryOp::Equal => left == right,
        BinaryOp::NotEqual => left != right,
        BinaryOp::Greater => left > right,
        BinaryOp::Less => left < right,
        BinaryOp::GreaterOrEqual => left >= right,
        BinaryOp::LessOrEqual => left <= right,
        _ => unreachable!("arithmetic and set operators aren't comparisons"),
    }
}

/// Applies the operator at all steps of a vector without histograms and a scalar.
pub(crate) fn floats_with_scalar(
    op: ElementOp,
    values: &mut [f64],
    scalar: &StepValues,
    scalar_on_left: bool,
) {
    with_kernel(op, |kernel: &dyn FloatKernel| kernel.with_scalar(values, scalar, scalar_on_left));
}

/// Applies the operator at all steps of two vectors without histograms; the result takes `left`'s place, or `right`'s
/// sample where a comparison keeps that.
pub(crate) fn floats_with_floats(op: ElementOp, left: &mut [f64], right: &[f64], swapped: bool) {
    with_kernel(op, |kernel: &dyn FloatKernel| kernel.with_floats(left, right, swapped));
}

/// An operator compiled for whole rows.
trait FloatKernel {
    fn with_scalar(&self, values: &mut [f64], scalar: &StepValues, scalar_on_left: bool);
    fn with_floats(&self, kept: &mut [f64], other: &[f64], swapped: bool);
}

/// `f(left, right, kept)` gives the result, [`ABSENT`] for none.
struct Kernel<F>(F);

impl<F: Fn(f64, f64, f64) -> f64> FloatKernel for Kernel<F> {
    fn with_scalar(&self, values: &mut [f64], scalar: &StepValues, scalar_on_left: bool) {
        for (step, value) in values.iter_mut().enumerate() {
            let scalar = scalar.at(step);
            let (left, right) = if scalar_on_left { (scalar, *value) } else { (*value, scalar) };
            let result = self.0(left, right, *value);
            *value = if is_absent(*value) { ABSENT } else { result };
        }
    }

    fn with_floats(&self, kept: &mut [f64], other: &[f64], swapped: bool) {
        for (value, other) in kept.iter_mut().zip(other) {
            let (left, right) = if swapped { (*other, *value) } else { (*value, *other) };
            // In a comparison of vectors it is the left side's sample that is kept.
            let result = self.0(left, right, left);
            *value = if is_absent(*value) || is_absent(*other) { ABSENT } else { result };
        }
    }
}

fn with_kernel(op: ElementOp, run: impl FnOnce(&dyn FloatKernel)) {
    macro_rules! comparison {
        ($op:tt) => {
            if op.return_bool {
                run(&Kernel(|l: f64, r: f64, _| if l $op r { 1.0 } else { 0.0 }))
            } else {
                run(&Kernel(|l: f64, r: f64, kept| if l $op r { kept } else { ABSENT }))
            }
        };
    }
    match op.op {
        BinaryOp::Add => run(&Kernel(|l, r, _| l + r)),
        BinaryOp::Sub => run(&Kernel(|l, r, _| l - r)),
        BinaryOp::Mul => run(&Kernel(|l, r, _| l * r)),
        BinaryOp::Div => run(&Kernel(|l, r, _| l / r)),
        BinaryOp::Equal => comparison!(==),
        BinaryOp::NotEqual => comparison!(!=),
        BinaryOp::Greater => comparison!(>),
        BinaryOp::Less => comparison!(<),
        BinaryOp::GreaterOrEqual => comparison!(>=),
        BinaryOp::LessOrEqual => comparison!(<=),
        slow => run(&Kernel(move |l, r, _| arithmetic(slow, l, r))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(op: BinaryOp, values: &[f64], scalar: f64, scalar_on_left: bool) -> Vec<f64> {
        let mut values = values.to_vec();
        let op = ElementOp { op, return_bool: false };
        floats_with_scalar(op, &mut values, &StepValues::Constant(scalar), scalar_on_left);
        values.into_iter().filter(|v| !is_absent(*v)).collect()
    }

    #[test]
    fn comparisons_keep_the_vector_sample_on_either_side() {
        assert_eq!(filtered(BinaryOp::Greater, &[1.0, ABSENT, 5.0], 3.0, false), [5.0]);
        assert_eq!(filtered(BinaryOp::Greater, &[1.0, ABSENT, 5.0], 3.0, true), [1.0]);
    }

    #[test]
    fn between_scalars_comparisons_give_numbers() {
        let of = |op, left, right| scalar_binary(ScalarBinary::Operator(op), left, right);
        assert_eq!(of(BinaryOp::Equal, 1.0, 1.0), 1.0);
        assert_eq!(of(BinaryOp::Mod, -5.0, 3.0), -2.0);
        assert!(of(BinaryOp::Div, 0.0, 0.0).is_nan());
    }
}
