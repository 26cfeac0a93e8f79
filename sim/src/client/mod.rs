//! The clients of a scenario: writers that keep a ledger of what was acked, readers that compare answers with it.

mod answer;
mod expressions;
mod http;
mod ledger;
mod operator;
mod phases;
mod reader;
mod rest;
mod ring;
mod series;
mod wire;
mod writer;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

pub use http::{Answer, Http};
pub use ledger::Ledger;
pub use operator::{Order, Orders, operate};
pub use phases::{Phases, prove_recovery};
pub use reader::{Reader, ask_everything, read_along};
pub use rest::judge_rest;
pub use ring::watch_epochs;
pub use series::SERIES_OF_A_WRITER;
pub use writer::{Writer, write_along};

use crate::exercise::{Exercise, Tally};
use crate::scenario::Calm;
use crate::trace::Trace;
use crate::verdict::Violation;
use crate::world::{Links, Store, WallTime};

/// What the clients of a run share. All of them run on one thread.
#[derive(Clone)]
pub struct Shared {
    /// What was sent, and what became of it.
    pub ledger: Rc<RefCell<Ledger>>,
    /// What shouldn't have happened.
    pub violations: Rc<RefCell<Vec<Violation>>>,
    /// Counts of what was judged and done.
    pub tally: Tally,
    /// Nodes that clients write to and ask: all but those that aren't there yet and those that were told to leave.
    pub nodes: Rc<RefCell<Vec<String>>>,
    /// Where everything is noted.
    pub trace: Arc<Trace>,
    /// Which packets are dropped.
    pub links: Links,
    /// The right time.
    pub wall: WallTime,
    /// How many tenants there are.
    pub tenants: usize,
    /// Readings of clocks that were a month off.
    pub glitches: Arc<AtomicU64>,
    /// Nodes whose clocks are off by more than any limit allows.
    pub far_clocks: Rc<RefCell<BTreeSet<String>>>,
    /// The object store, as nobody but the simulator sees it.
    pub bucket: Store,
    /// Whether nodes keep hints and repair.
    pub heals: bool,
    /// When nothing is wrong but that one node is away.
    pub calm: Option<Calm>,
    /// What the operator has to do.
    pub orders: Orders,
    /// What may be expected when.
    pub phases: Phases,
}

/// What was looked at: whether it holds, and what is wrong where it doesn't.
type Findings = Vec<(Exercise, bool, String)>;

/// Violations kept: the first ones tell the story.
const VIOLATIONS_MAX: usize = 20;

impl Shared {
    /// What a client on `host` reaches the nodes by.
    pub fn http(&self, host: &str) -> Http {
        Http::new(host, self.links.clone(), self.trace.clone())
    }

    /// Counts that `check` was looked at, and keeps `text` where it doesn't hold.
    pub fn judge(&self, check: Exercise, holds: bool, text: impl FnOnce() -> String) {
        self.tally.count(check);
        if holds {
            return;
        }
        let (invariant, text) = (check.label(), text());
        self.trace.note("check", &format!("VIOLATED {invariant}: {text}"));
        let mut violations = self.violations.borrow_mut();
        if violations.len() < VIOLATIONS_MAX {
            let at_s = self.trace.elapsed().as_secs_f64();
            violations.push(Violation { invariant: invariant.to_owned(), at_s, text });
        }
    }

    /// How often a clock was a month off so far: what a node judges by such a reading it may refuse.
    pub fn glitches(&self) -> u64 {
        self.glitches.load(Ordering::Relaxed)
    }

    /// Whether a store was lost for good.
    pub fn lost_stores(&self) -> bool {
        let counts = self.tally.counts();
        let losses = [
            Exercise::ReplaceDisk,
            Exercise::OldDisk,
            Exercise::Forget,
            Exercise::LoseQuorum,
            Exercise::Drain,
        ];
        losses.into_iter().any(|loss| counts.of(loss) > 0)
    }

    /// Whether a sample is kept more than once.
    pub fn has_replicas(&self) -> bool {
        self.nodes.borrow().len() > 1
    }

    /// One of the nodes.
    pub fn some_node(&self, rng: &mut StdRng) -> String {
        self.nodes.borrow().choose(rng).expect("some nodes stay").clone()
    }

    /// Which check a request to `node` is for: whether it must succeed, and why; `None` while it needn't.
    pub fn must_succeed(&self, node: &str, otherwise: Exercise) -> Option<Exercise> {
        let is_calm = |calm: &Calm| calm.holds_for(phases::now(), node);
        match self.phases.is_healthy() {
            true => Some(otherwise),
            false => self.calm.as_ref().is_some_and(is_calm).then_some(Exercise::MinorityAway),
        }
    }

    /// Whether a node's clock is off by more than any limit allows.
    pub fn is_far(&self, node: &str) -> bool {
        self.far_clocks.borrow().contains(node)
    }

    /// Whether clients go on.
    pub fn goes_on(&self) -> bool {
        self.phases.go_on()
    }
}

/// What a tenant is called.
pub fn tenant_name(tenant: usize) -> String {
    format!("tenant-{}", tenant + 1)
}
