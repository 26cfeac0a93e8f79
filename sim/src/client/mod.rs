//! The clients of a scenario: writers that keep a ledger of what was acked, readers that compare answers with it.

mod answer;
mod http;
mod ledger;
mod operator;
mod reader;
mod ring;
mod wire;
mod writer;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

pub use http::{Answer, Http};
pub use ledger::Ledger;
pub use operator::{Orders, operate};
pub use reader::{Reader, ask_everything, read_along};
pub use ring::{compare_digests, compare_rings, watch_epochs};
pub use writer::{SERIES_OF_A_WRITER, Writer, write_along};

use crate::trace::Trace;
use crate::verdict::Violation;
use crate::world::{Links, WallTime};

/// What the clients of a run share. All of them run on one thread.
#[derive(Clone)]
pub struct Shared {
    /// What was sent, and what became of it.
    pub ledger: Rc<RefCell<Ledger>>,
    /// What shouldn't have happened.
    pub violations: Rc<RefCell<Vec<Violation>>>,
    /// Counts of what did.
    pub counts: Rc<RefCell<Counts>>,
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
    /// From this simulated time on every write and every question must succeed: the last fault, and time to recover.
    pub healthy_from: Duration,
    /// When writers and readers end.
    pub end: Duration,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Write requests that were acked.
    pub writes_acked: u64,
    /// Write requests that failed or got no answer.
    pub writes_failed: u64,
    /// Questions with a complete answer.
    pub reads_answered: u64,
    /// Questions refused or without an answer.
    pub reads_failed: u64,
}

/// Violations kept: the first ones tell the story.
const VIOLATIONS_MAX: usize = 20;

impl Shared {
    /// What a client on `host` reaches the nodes by.
    pub fn http(&self, host: &str) -> Http {
        Http::new(host, self.links.clone(), self.trace.clone())
    }

    /// An invariant doesn't hold.
    pub fn violated(&self, invariant: &str, text: &str) {
        self.trace.note("check", &format!("VIOLATED {invariant}: {text}"));
        let mut violations = self.violations.borrow_mut();
        if violations.len() < VIOLATIONS_MAX {
            let at_s = self.trace.elapsed().as_secs_f64();
            violations.push(Violation { invariant: invariant.to_owned(), at_s, text: text.to_owned() });
        }
    }

    /// How often a clock was a month off so far: what a node judges by such a reading it may refuse.
    pub fn glitches(&self) -> u64 {
        self.glitches.load(Ordering::Relaxed)
    }

    /// Whether a sample is kept more than once.
    pub fn has_replicas(&self) -> bool {
        self.nodes.borrow().len() > 1
    }

    /// One of the nodes.
    pub fn some_node(&self, rng: &mut StdRng) -> String {
        self.nodes.borrow().choose(rng).expect("some nodes stay").clone()
    }

    /// Whether everything must succeed by now.
    pub fn is_healthy(&self) -> bool {
        turmoil::sim_elapsed().unwrap_or_default() >= self.healthy_from
    }

    /// Whether clients go on.
    pub fn goes_on(&self) -> bool {
        turmoil::sim_elapsed().unwrap_or_default() < self.end
    }
}

/// What a tenant is called.
pub fn tenant_name(tenant: usize) -> String {
    format!("tenant-{}", tenant + 1)
}
