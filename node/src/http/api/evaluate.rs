//! One query on the pool: it waits its turn, works in bounded memory and time, and ends when nobody listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use promql::parse::ast::Expr;
use promql::value::Output;
use promql::{Limits, QueryRange, Settings};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tsdb::model::TenantId;

use crate::env::{PoolWorkers, on_cores};
use crate::http::error::{ApiError, Kind};
use crate::node::App;

/// Turns of queries.
pub struct Turns {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Turns {
    /// At most `running` queries work at once, and `waiting` wait.
    pub fn new(running: usize, waiting: usize) -> Self {
        let running = running.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            running: Arc::new(Semaphore::new(running)),
            waiting: AtomicUsize::new(0),
            waiting_max: waiting,
        }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// When too many wait already.
    pub async fn take(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(turn) = self.running.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let place = Place(&self.waiting);
        if place.0.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            return Err(ApiError::new(
                Kind::Unavailable,
                "too many queries wait already (query.max_waiting)",
            ));
        }
        Ok(self.running.clone().acquire_owned().await.expect("the semaphore is never closed"))
    }
}

/// A place in the queue; left when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends the work when whoever asked is gone.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on the pool when it is its turn; `work` looks at the switch it gets, and ends when it is set.
///
/// # Errors
/// Those of `work`; a timeout; too many that wait.
pub async fn in_turn<T: Send + 'static>(
    app: &App,
    timeout: Duration,
    work: impl FnOnce(Arc<AtomicBool>) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let _guard = CancelOnDrop(cancelled.clone());
    let turn = async {
        let turn = app.turns.take().await?;
        on_cores(&*app.env.pool, false, move || {
            // Held by the work itself: it may outlive whoever waits for it, and still needs its core.
            let _turn = turn;
            if cancelled.load(Ordering::Relaxed) {
                return Err(promql::Error::Cancelled.into());
            }
            work(cancelled)
        })
        .await
    };
    let late = || {
        let seconds = timeout.as_secs_f64();
        ApiError::new(Kind::Timeout, format!("the query took longer than {seconds} s (query.timeout)"))
    };
    if timeout.is_zero() {
        return Err(late());
    }
    tokio::time::timeout(timeout, turn).await.map_err(|_| late())?
}

/// Evaluates a query for a tenant.
///
/// # Errors
/// Whatever keeps it from being answered.
pub async fn evaluate(
    app: &Arc<App>,
    tenant: TenantId,
    expr: Expr,
    range: QueryRange,
    timeout: Duration,
) -> Result<Output, ApiError> {
    let bytes_max = app.config.load().query_max_memory.as_usize();
    let own = app.clone();
    in_turn(app, timeout, move |cancelled| {
        let plan = promql::plan(&expr, &range, &Settings::default())?;
        let tenant = own.storage.existing(&tenant);
        let mut inputs = Vec::with_capacity(plan.selects().len());
        for select in plan.selects() {
            if cancelled.load(Ordering::Relaxed) {
                return Err(promql::Error::Cancelled.into());
            }
            inputs.push(tenant.as_ref().map_or_else(|| Ok(Vec::new()), |t| t.select(select))?);
        }
        let limits = Limits { bytes_max, cancelled };
        Ok(plan.evaluate(inputs, &limits, &PoolWorkers(&*own.env.pool))?)
    })
    .await
}
