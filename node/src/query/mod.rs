//! How questions are answered, whatever asks them.
//!
//! | module | what it holds |
//! |---|---|
//! | `permits` | how many work at once, of whom, and for how long |
//! | `size` | which of them are small |
//! | `memory` | what they may take, each and together |
//! | [`answer`] | a PromQL query: plan, fetch, merge replicas, evaluate |
//! | [`names`] | what there is: labels, values, series, metadata, exemplars |
//! | `reach`, `fanout` | who keeps something, and asking all of them |
//! | `own`, `digests`, `serve` | what this store answers when several are asked |
//! | `blocks` | what the bucket holds |
//! | [`coverage`] | whether enough of them have answered |
//! | [`dedup`] | one series out of those of an HA pair |

pub mod answer;
mod blocks;
pub mod cost;
pub mod coverage;
pub mod dedup;
mod digests;
mod error;
mod fanout;
mod learn;
mod memory;
pub mod names;
mod own;
mod permits;
mod reach;
mod serve;
mod size;
mod sketch;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use promql::Limits;
use tsdb::model::TenantId;

use coverage::Coverage;
pub use error::Error;
pub(crate) use learn::make_known;
use memory::{Account, Memory};
use permits::{Permit, Permits, Switch};
pub use reach::Reach;
pub use serve::Reads;
use size::Size;
pub use sketch::Sketch;

use crate::config::Config;
use crate::env::{CpuTime, Env, Work, run_on};
use crate::metrics::{QueryOf, at_scrape};
use crate::node::App;

/// What all questions share.
pub struct Queries {
    permits: Permits,
    /// For questions that other nodes ask: theirs mustn't wait for ours, which may wait for theirs.
    peer_permits: Permits,
    /// For the work of large ones, while it is on a core: as many as run at once.
    large_permits: Permits,
    memory: Arc<Memory>,
    reach: OnceLock<Reach>,
    numbers: Arc<Numbers>,
}

/// What is counted.
#[derive(Debug, Default)]
struct Numbers {
    /// Answers that lacked owners, refused ones among them.
    incomplete: AtomicU64,
    /// Answers for ranges whose owners are lost.
    lossy: AtomicU64,
    /// Answers of which owners have aggregated their part.
    pushed: AtomicU64,
}

impl Queries {
    /// As configured.
    pub fn new(config: &Config, env: &Env) -> Self {
        let as_usize = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let (permits_max, waiting_max) =
            (as_usize(config.query_max_concurrency), as_usize(config.query_max_waiting));
        Self {
            permits: Permits::with_room(permits_max, waiting_max),
            peer_permits: Permits::with_room(permits_max, waiting_max),
            large_permits: Permits::without_room(env.pool.parallelism()),
            memory: Arc::new(Memory::new(env.process.clone())),
            reach: OnceLock::new(),
            numbers: Arc::default(),
        }
    }

    /// From now on, others are asked too. Only the first call counts.
    pub fn reach(&self, reach: Reach) {
        if self.reach.set(reach).is_err() {
            tracing::error!("a node joins one cluster");
        }
    }

    /// The way to all that this node doesn't have itself, if there is any: other nodes, or blocks in the bucket.
    async fn elsewhere(&self, app: &App, tenant: &TenantId) -> Option<&Reach> {
        let reach = self.reach.get()?;
        if !reach.is_alone() {
            return Some(reach);
        }
        let listed = app.blocks.catalogs.current(tenant).await;
        let local = app.storage.existing(tenant);
        let is_here = |ulid| local.as_ref().is_some_and(|tenant| tenant.block(ulid).is_some());
        listed.blocks().any(|listed| !is_here(listed.ulid)).then_some(reach)
    }

    /// Owners have aggregated what they keep, for one answer.
    fn pushed(&self) {
        self.numbers.pushed.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether others keep something too.
    pub(crate) fn has_others(&self) -> bool {
        self.reach.get().is_some_and(|reach| !reach.is_alone())
    }

    /// What an answer's coverage means: warnings, or, where owners are missing and that isn't allowed, an error.
    fn judged(&self, coverage: &Coverage, partial: bool) -> Result<Vec<String>, Error> {
        let mut warnings = Vec::new();
        if coverage.is_incomplete() {
            self.numbers.incomplete.fetch_add(1, Ordering::Relaxed);
            if !partial {
                return Err(Error::Incomplete(coverage.gaps()));
            }
            warnings.push(format!("the answer is incomplete: {}", coverage.gaps()));
        }
        if !coverage.lossy.is_empty() {
            self.numbers.lossy.fetch_add(1, Ordering::Relaxed);
            warnings.push(format!("samples may be lost: {}", coverage.losses()));
        }
        Ok(warnings)
    }

    /// What `/metrics` shows of them.
    pub fn collector(&self) -> Box<dyn Collector> {
        let (memory, numbers) = (self.memory.clone(), self.numbers.clone());
        at_scrape(move |out| {
            let used = memory.used_bytes() as f64;
            out.gauge("carillon_query_memory_bytes", "Memory that queries in work hold", used)?;
            let incomplete = &numbers.incomplete;
            out.count("carillon_query_incomplete", "Answers for which owners were missing", incomplete)?;
            out.count("carillon_query_lossy", "Answers with lost owners", &numbers.lossy)?;
            let help = "Answers to whose aggregations owners compared digests and aggregated their own parts";
            out.count("carillon_query_pushed_down", help, &numbers.pushed)
        })
    }
}

/// A query's permit to work.
struct QueryPermit {
    held: Arc<Permit>,
    tenant: TenantId,
    /// Whether its work waits for that of other large queries, and not for small ones.
    is_large: AtomicBool,
    /// Set when nobody waits any more.
    cancelled: Arc<AtomicBool>,
    /// What its work takes of this node's cores.
    cpu: Arc<CpuTime>,
}

/// What becomes of work that is begun as that of a small query.
enum SmallRun<T, P> {
    Done(T),
    /// It turned out to be large; what was prepared.
    Large(P),
}

impl QueryPermit {
    /// The work ends when `switch` is dropped.
    fn new(held: Permit, tenant: &TenantId, switch: &Switch, cpu: Arc<CpuTime>) -> Self {
        let is_large = AtomicBool::new(false);
        Self { held: Arc::new(held), tenant: tenant.clone(), is_large, cancelled: switch.cancelled(), cpu }
    }

    /// What is known of the query's size by now. A query that was large once stays so.
    fn has_size(&self, size: Size) {
        self.is_large.fetch_or(size == Size::Large, Ordering::Relaxed);
    }

    /// Runs a part of the work on the pool.
    async fn on_cores<T: Send + 'static>(
        &self,
        app: &App,
        work: impl FnOnce(&Arc<AtomicBool>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let is_large = self.is_large.load(Ordering::Relaxed);
        // Held while the work is on a core, and never while others are waited for, who may wait for this node.
        let core = if is_large { Some(app.queries.large_permits.take(&self.tenant).await?) } else { None };
        let kind = if is_large { Work::LargeQuery } else { Work::SmallQuery };
        let (held, cancelled, cpu) = (self.held.clone(), self.cancelled.clone(), self.cpu.clone());
        run_on(&*app.env.pool, kind, move || {
            // Held by the work itself: it may outlive whoever waits for it, and still needs its core.
            let _held = (held, core);
            permits::check(&cancelled)?;
            cpu.spend(|| work(&cancelled))
        })
        .await
    }

    /// Runs `prepare`, which tells the size of the query, and then `work` with what was prepared: in one go where the
    /// query is small, else when it is the turn of its tenant's large ones.
    async fn on_cores_by_size<P: Send + 'static, T: Send + 'static>(
        &self,
        app: &App,
        prepare: impl FnOnce() -> Result<(Size, P), Error> + Send + 'static,
        work: impl FnOnce(P, &Arc<AtomicBool>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let begin = move |cancelled: &Arc<AtomicBool>| match prepare()? {
            (Size::Small, prepared) => Ok(SmallRun::Done(work(prepared, cancelled)?)),
            (Size::Large, prepared) => Ok(SmallRun::Large((prepared, work))),
        };
        match self.on_cores(app, begin).await? {
            SmallRun::Done(done) => Ok(done),
            SmallRun::Large((prepared, work)) => {
                self.has_size(Size::Large);
                self.on_cores(app, move |cancelled| work(prepared, cancelled)).await
            }
        }
    }
}

/// Runs `work`, of which nobody knows how long it takes, with a permit; it looks at the switch that it gets, and ends
/// when that is set.
///
/// # Errors
/// Those of `work`; a timeout; too many that wait.
pub(crate) async fn with_permit<T: Send + 'static>(
    app: &App,
    tenant: &TenantId,
    timeout: Duration,
    work: impl FnOnce(&Arc<AtomicBool>) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let switch = Switch::default();
    permits::within(timeout, async {
        let permit = app.query_permit(tenant, &switch).await?;
        permit.has_size(Size::Large);
        permit.on_cores(app, work).await
    })
    .await
}

impl App {
    /// Waits for a permit; the work ends when `switch` is dropped.
    async fn query_permit(&self, tenant: &TenantId, switch: &Switch) -> Result<QueryPermit, Error> {
        let held = self.queries.permits.take(tenant).await?;
        Ok(QueryPermit::new(held, tenant, switch, self.cpu(QueryOf::Client)))
    }

    /// As [`App::query_permit`], for what another node asks.
    async fn peer_permit(&self, tenant: &TenantId, switch: &Switch) -> Result<QueryPermit, Error> {
        let held = self.queries.peer_permits.take(tenant).await?;
        Ok(QueryPermit::new(held, tenant, switch, self.cpu(QueryOf::Peer)))
    }

    fn cpu(&self, of: QueryOf) -> Arc<CpuTime> {
        CpuTime::new(self.env.process.clone(), self.metrics.query_cpu(of))
    }

    /// A query's way to the memory that all share.
    fn account(&self, tenant: &TenantId) -> Arc<Account> {
        let config = self.config.load();
        let tenant_bytes_max = config.limits_of(tenant.as_str()).max_query_memory.as_usize();
        let node_bytes_max = config.query_max_total_memory.as_usize();
        self.queries.memory.account(tenant.clone(), tenant_bytes_max, node_bytes_max)
    }

    /// What an evaluation for a tenant may take; it ends when `cancelled` is set.
    fn limits(&self, tenant: &TenantId, cancelled: &Arc<AtomicBool>) -> Limits {
        let bytes_max = self.config.load().query_max_memory.as_usize();
        Limits { bytes_max, lender: Some(self.account(tenant)), cancelled: cancelled.clone() }
    }

    /// What a question may take for what other nodes send.
    fn purse(&self, tenant: &TenantId) -> fanout::Purse {
        fanout::Purse::new(self.account(tenant), self.config.load().query_max_memory.as_usize())
    }
}
