//! What may be expected when: faults, then a recovery that ends as soon as it has proved itself, then health.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::writer::{Source, Writer, send};
use super::{Shared, ring};

/// Time between proofs.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// Proofs in a row that end a recovery: connections that packets were lost on are given up after some ten seconds, and
/// what is on its way on them then fails once more.
const PROOFS: usize = 5;
/// How long everything must succeed before the last questions.
const HEALTHY: Duration = Duration::from_secs(10);
/// How long nodes may take to be equal, once nobody writes any more.
const REST: Duration = Duration::from_secs(60);

/// The phases of a run.
#[derive(Clone)]
pub struct Phases {
    /// When the last fault is mended.
    mended_at: Duration,
    /// From here on everything must succeed, whatever was proved.
    healthy_by: Duration,
    /// Since when it must.
    healthy_from: Rc<Cell<Option<Duration>>>,
}

impl Phases {
    /// Nothing is proved yet.
    pub fn new(mended_at: Duration, healthy_by: Duration) -> Self {
        Self { mended_at, healthy_by, healthy_from: Rc::default() }
    }

    /// Whether everything must succeed by now.
    pub fn is_healthy(&self) -> bool {
        self.healthy_from.get().is_some_and(|from| now() >= from)
    }

    /// Whether writers and readers go on.
    pub fn go_on(&self) -> bool {
        self.healthy_from.get().is_none_or(|from| now() < from + HEALTHY)
    }

    /// When nodes must be equal.
    pub fn at_rest_by(&self) -> Duration {
        self.healthy_from.get().unwrap_or(self.healthy_by) + HEALTHY + REST
    }
}

/// Simulated time since the start.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// Once all is mended, has every node take a write and answer, until all have done so [`PROOFS`] times in a row, or have
/// had their time.
pub async fn prove_recovery(prober: Writer, shared: Shared) {
    let (mended_at, healthy_by) = (shared.phases.mended_at, shared.phases.healthy_by);
    tokio::time::sleep(mended_at.saturating_sub(now())).await;
    let (mut source, mut proofs) = (Source::new(prober.clone()), 0);
    while proofs < PROOFS && now() < healthy_by {
        tokio::time::sleep(PROBE_EVERY).await;
        proofs = if are_well(&prober, &mut source, &shared).await { proofs + 1 } else { 0 };
    }
    shared.trace.note(&prober.name, &format!("recovered: {proofs} proofs in a row"));
    shared.phases.healthy_from.set(Some(now()));
}

/// Whether the operator has nothing to do, no transition is under way, and every node takes a write and answers.
async fn are_well(prober: &Writer, source: &mut Source, shared: &Shared) -> bool {
    if !shared.orders.are_done() {
        return false;
    }
    let nodes = shared.nodes.borrow().clone();
    for node in &nodes {
        let at_rest = nodes.len() == 1 || ring::is_at_rest(&prober.name, node, shared).await;
        if !at_rest || !send(prober, source, shared, node).await {
            return false;
        }
    }
    true
}
