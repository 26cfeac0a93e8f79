//! Aggregations: rows are folded into their groups as they come.

mod count_values;
mod fold;
mod parts;
mod select;
mod state;

pub(crate) use parts::columns;

use tsdb::model::Labels;

use super::Evaluator;
use super::context::Rows;
use super::keys::KeySpec;
use crate::annotations::Level;
use crate::error::{Error, Result};
use crate::folded::FoldedNode;
use crate::functions::window::StepValues;
use crate::parse::ast::AggregateOp;
use crate::plan::grid::Grid;
use crate::plan::{Aggregate, AggregateParam};

impl<'c> Evaluator<'c, '_> {
    /// An aggregation's rows, groups in the order in which they first appear.
    pub(super) fn aggregate(&self, node: &Aggregate, grid: &Grid) -> Result<Rows<'c>> {
        let spec = KeySpec::of(node);
        let param = match &node.param {
            AggregateParam::Scalar(scalar, span) => Some((self.scalar(scalar, grid)?, *span)),
            _ => None,
        };
        let input = self.pipeline(&node.input, grid)?;
        let param = match param {
            // Where nothing is wanted, what is wrong with the vector is wrong all the same.
            Some((values, span)) if !self.check_param(node.op, &values, span)? => {
                input.collect(self.context)?;
                return self.context.rows(Vec::new());
            }
            param => param.map(|(values, _)| values),
        };
        match (node.op, &node.param) {
            (AggregateOp::CountValues, AggregateParam::Label(label)) => {
                count_values::count_values(self.context, &spec, node.without, label, input)
            }
            (AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio, _) => {
                let param = param.expect("the parser gives these operators a parameter");
                select::select(self.context, node, &spec, &param, input, grid)
            }
            _ => fold::fold(self.context, node, &spec, param.as_ref(), input, grid),
        }
    }

    /// What one of [`crate::Plan::folds`] comes to over the inputs, to be merged with other parts.
    pub(super) fn fold_part(&self, node: &Aggregate, grid: &Grid) -> Result<FoldedNode> {
        fold::fold_part(self.context, node, &KeySpec::of(node), self.pipeline(&node.input, grid)?, grid)
    }

    /// Checks a parameter as Prometheus does, whatever the series are; false when nothing can come of it.
    fn check_param(&self, op: AggregateOp, values: &StepValues, span: crate::parse::Span) -> Result<bool> {
        let least = values.iter().fold(f64::INFINITY, f64::min);
        let most = values.iter().fold(f64::NEG_INFINITY, f64::max);
        let has_nan = values.iter().any(f64::is_nan);
        match op {
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk => {
                if has_nan {
                    return Err(Error::Execution("Parameter value is NaN".to_owned()));
                }
                if most < 1.0 {
                    return Ok(false);
                }
                if most >= i64::MAX as f64 {
                    return Err(Error::Execution(format!("Scalar value {most} overflows int64")));
                }
                if least <= i64::MIN as f64 {
                    return Err(Error::Execution(format!("Scalar value {least} underflows int64")));
                }
                Ok(true)
            }
            AggregateOp::LimitRatio => {
                if has_nan {
                    return Err(Error::Execution("Ratio value is NaN".to_owned()));
                }
                for (value, capped) in [(most, 1.0), (least, -1.0)] {
                    if value.abs() > 1.0 && value * capped > 0.0 {
                        let text = format!(
                            "ratio value should be between -1 and 1, got {value}, capping to {capped}"
                        );
                        self.context.annotate(Level::Warning, &text, span);
                    }
                }
                Ok(least != 0.0 || most != 0.0)
            }
            AggregateOp::Quantile => {
                self.warn_of_quantiles(values, span);
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    /// Warns of quantiles outside of 0 to 1.
    pub(super) fn warn_of_quantiles(&self, values: &StepValues, span: crate::parse::Span) {
        for value in values.iter().filter(|v| !(0.0..=1.0).contains(v)) {
            let shown = super::format::float(value);
            let text = format!("quantile value should be between 0 and 1, got {shown}");
            self.context.annotate(Level::Warning, &text, span);
        }
    }
}

/// A group's labels, and whether the metric's name, if still among them, goes at the end.
#[derive(Clone, Debug)]
struct Group {
    labels: Labels,
    /// Those of its first series.
    first: Labels,
    drop_name: bool,
}
