//! What a query would cost: an estimate before it runs, from indexes and from headers of chunks. No sample is decoded for
//! it, and no block fetched.

use std::sync::Arc;

use tokio::time::Instant;
use tsdb::select::Select;

use super::answer::{Question, widened};
use super::coverage::Coverage;
use super::names::{self, Found, Scope};
use super::{Error, names::Cost};
use crate::node::App;

/// The estimate, and who gave it.
#[derive(Debug)]
pub struct Costs {
    /// Evaluations.
    pub steps: usize,
    /// What the plan selects; equal selectors of the query are one.
    pub selects: Vec<(Select, Cost)>,
    /// What isn't as it should be.
    pub warnings: Vec<String>,
    /// Who answered.
    pub coverage: Coverage,
}

/// Estimates what a query would cost.
///
/// # Errors
/// Where it can't be planned; whatever keeps owners from being asked.
pub(crate) async fn cost(app: &Arc<App>, question: &Question) -> Result<Costs, Error> {
    let began = Instant::now();
    let plan = question.plan()?;
    let steps = plan.range().grid().count;
    let mut costs = Costs { steps, selects: Vec::new(), warnings: Vec::new(), coverage: Coverage::alone() };
    for select in widened(&plan, &question.replicas) {
        let scope = Scope { selectors: vec![select.matchers.clone()], range_ms: select.range_ms.clone() };
        let left = question.timeout.saturating_sub(began.elapsed());
        let ask = names::Question::Cost(scope);
        let answer = names::ask(app, question.tenant.clone(), ask, left, question.partial).await?;
        let Found::Cost(cost) = answer.found else { unreachable!("a cost was asked for") };
        costs.selects.push((select, cost));
        // Of several, the one that lacks something.
        if costs.warnings.is_empty() {
            costs.coverage = answer.coverage;
        }
        for warning in answer.warnings {
            if !costs.warnings.contains(&warning) {
                costs.warnings.push(warning);
            }
        }
    }
    Ok(costs)
}
