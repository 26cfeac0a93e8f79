//! A PromQL query.
//!
//! 1. It is planned: which series over which range.
//! 2. Those are fetched, with what the choice between replicas of a scraper needs around them.
//! 3. Replicas are merged, and the plan is evaluated over what is left, within a byte budget and until nobody waits.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use promql::parse::ast::Expr;
use promql::value::Output;
use promql::{Limits, Plan, QueryRange, Settings};
use tsdb::model::TenantId;
use tsdb::select::{Select, Series};

use super::dedup::Replicas;
use super::memory::Account;
use super::{Error, in_turn, turns};
use crate::env::PoolWorkers;
use crate::node::App;

/// A query.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whose data.
    pub tenant: TenantId,
    /// What is asked.
    pub expr: Expr,
    /// For which times.
    pub range: QueryRange,
    /// Longest wait, turn included.
    pub timeout: Duration,
    /// Labels by which replicas of a scraper differ.
    pub replicas: Replicas,
}

/// Answers a query.
///
/// # Errors
/// Whatever keeps it from being answered.
pub(crate) async fn answer(app: &Arc<App>, question: Question) -> Result<Output, Error> {
    let timeout = question.timeout;
    let own = app.clone();
    in_turn(app, timeout, move |cancelled| {
        let plan = promql::plan(&question.expr, &question.range, &Settings::default())?;
        let selects = widened(&plan, &question.replicas);
        let tenant = own.storage.existing(&question.tenant);
        let mut inputs = Vec::with_capacity(selects.len());
        for select in &selects {
            turns::check(&cancelled)?;
            inputs.push(tenant.as_ref().map_or_else(|| Ok(Vec::new()), |t| t.select(select))?);
        }
        evaluate(&own, &plan, &selects, inputs, &question, cancelled)
    })
    .await
}

/// What to fetch for a plan.
fn widened(plan: &Plan, replicas: &Replicas) -> Vec<Select> {
    let widen = |select: &Select| Select { range_ms: replicas.widen(&select.range_ms), ..select.clone() };
    plan.selects().iter().map(widen).collect()
}

/// Merges replicas and evaluates; for the pool.
fn evaluate(
    app: &App,
    plan: &Plan,
    selects: &[Select],
    mut inputs: Vec<Vec<Series>>,
    question: &Question,
    cancelled: Arc<AtomicBool>,
) -> Result<Output, Error> {
    let workers = PoolWorkers(&*app.env.pool);
    for (input, select) in inputs.iter_mut().zip(selects) {
        turns::check(&cancelled)?;
        *input = question.replicas.merge(std::mem::take(input), &select.range_ms, &workers)?;
    }
    let account = account(app, &question.tenant);
    let bytes_max = app.config.load().query_max_memory.as_usize();
    let limits = Limits { bytes_max, lender: Some(account), cancelled };
    Ok(plan.evaluate(inputs, &limits, &workers)?)
}

/// A query's way to the memory that all share.
fn account(app: &App, tenant: &TenantId) -> Arc<Account> {
    let config = app.config.load();
    let tenant_bytes_max = config.limits_of(tenant.as_str()).max_query_memory.as_usize();
    let node_bytes_max = config.query_max_total_memory.as_usize();
    app.queries.memory.account(tenant.clone(), tenant_bytes_max, node_bytes_max)
}
