//! What is told of an evaluation beside its result: what each step of the plan took, and how many samples each step of the
//! query looked at. Where nobody asks, all that is left of it is a test of an option once a series.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tsdb::select::Series;

use super::context::row_bytes;
use super::row::Row;
use crate::plan::{Leaf, Link, VectorNode};

/// What an evaluation is to tell.
#[derive(Clone, Copy, Default)]
pub struct Telling<'a> {
    /// Wanted for [`crate::Output::explained`]: time that only goes forward, from anywhere.
    pub clock: Option<&'a (dyn Fn() -> Duration + Sync)>,
    /// Whether [`crate::Output::per_step`] is wanted.
    pub per_step: bool,
}

impl fmt::Debug for Telling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clock, per_step } = self;
        f.debug_struct("Telling").field("clock", &clock.is_some()).field("per_step", per_step).finish()
    }
}

/// For which steps of the query the samples count that a part of it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Each for its own.
    Each,
    /// Those of the only one for all of so many.
    Repeated(usize),
    /// For none: inside a subquery, whose windows count.
    Nowhere,
}

impl Counted {
    /// Inside of what is evaluated once for `steps`.
    pub(crate) fn repeated(self, steps: usize) -> Self {
        if self == Self::Each { Self::Repeated(steps) } else { self }
    }

    /// Adds samples of a step.
    pub(crate) fn add(self, counts: &mut Vec<u64>, step: usize, samples: u64) {
        let steps = match self {
            Self::Each => step..step + 1,
            Self::Repeated(steps) => 0..steps,
            Self::Nowhere => return,
        };
        if counts.len() < steps.end {
            counts.resize(steps.end, 0);
        }
        counts[steps].iter_mut().for_each(|count| *count += samples);
    }
}

/// What a step of the plan took so far.
#[derive(Debug, Default)]
pub(crate) struct Measure {
    pub(crate) series: AtomicU64,
    pub(crate) samples: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) nanos: AtomicU64,
}

impl Measure {
    /// A stored series of which so many samples were decoded.
    pub(crate) fn decoded(&self, series: &Series, samples: usize) {
        let bytes: usize = series.chunks.iter().map(|chunk| chunk.data.len()).sum();
        self.add(1, samples, bytes);
    }

    /// A row that came out.
    pub(crate) fn row(&self, row: &Row) {
        self.add(1, (0..row.values.len()).filter(|step| row.has(*step)).count(), row_bytes(row));
    }

    fn add(&self, series: usize, samples: usize, bytes: usize) {
        self.series.fetch_add(series as u64, Ordering::Relaxed);
        self.samples.fetch_add(samples as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn took(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// A node's or a leaf's place in memory, where the plan stays while it is evaluated; a node may begin with its leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Node(usize),
    Leaf(usize),
    Link(usize),
}

/// Takes the time of each step of a plan. Each has only its own: of what is fused into a pipeline that is the time between
/// two steps, row by row and on all cores together; of anything else its time without that of its inputs.
pub(crate) struct Trace<'a> {
    clock: &'a (dyn Fn() -> Duration + Sync),
    measures: Mutex<BTreeMap<Place, Arc<Measure>>>,
    /// Nodes whose rows are being made, the innermost last.
    frames: Mutex<Vec<Frame>>,
}

struct Frame {
    measure: Option<Arc<Measure>>,
    began: Duration,
    /// Time that isn't its own.
    inside: Duration,
}

impl<'a> Trace<'a> {
    pub(crate) fn new(clock: &'a (dyn Fn() -> Duration + Sync)) -> Self {
        Self { clock, measures: Mutex::default(), frames: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Duration {
        (self.clock)()
    }

    pub(crate) fn of_node(&self, node: &VectorNode) -> Arc<Measure> {
        self.of(Place::Node(std::ptr::from_ref(node).addr()))
    }

    pub(crate) fn of_link(&self, link: &Link) -> Arc<Measure> {
        self.of(Place::Link(std::ptr::from_ref(link).addr()))
    }

    pub(crate) fn of_leaf(&self, leaf: &Leaf) -> Arc<Measure> {
        self.of(Place::Leaf(std::ptr::from_ref(leaf).addr()))
    }

    fn of(&self, place: Place) -> Arc<Measure> {
        let mut measures = self.measures.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(measures.entry(place).or_default())
    }

    fn frames(&self) -> MutexGuard<'_, Vec<Frame>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node's rows are about to be made.
    pub(crate) fn enter(&self, node: &VectorNode) {
        // Places that share an expression, and the operators of a chain, tell for themselves.
        let tells = !matches!(node, VectorNode::Shared(_) | VectorNode::Chain(_));
        self.enter_as(tells.then(|| self.of_node(node)));
    }

    /// An operator between vectors is about to be computed.
    pub(crate) fn enter_link(&self, link: &Link) {
        self.enter_as(Some(self.of_link(link)));
    }

    fn enter_as(&self, measure: Option<Arc<Measure>>) {
        self.frames().push(Frame { measure, began: self.now(), inside: Duration::ZERO });
    }

    /// They are made.
    pub(crate) fn leave(&self, node: &VectorNode, rows: &[Row]) {
        // Stages and leaves have told of their rows, one by one.
        self.leave_with(if is_stage(node) || is_leaf(node) { &[] } else { rows });
    }

    /// It is computed.
    pub(crate) fn leave_with(&self, rows: &[Row]) {
        let now = self.now();
        let mut frames = self.frames();
        let Some(frame) = frames.pop() else { return };
        let took = now.saturating_sub(frame.began);
        if let Some(outer) = frames.last_mut() {
            outer.inside += took;
        }
        drop(frames);
        if let Some(measure) = frame.measure {
            measure.took(took.saturating_sub(frame.inside));
            rows.iter().for_each(|row| measure.row(row));
        }
    }

    /// A pipeline runs, until the result is dropped: its steps take their own time.
    pub(crate) fn run(&self) -> Run<'_, 'a> {
        let consumer = self.frames().last().and_then(|frame| frame.measure.clone());
        Run { trace: self, began: self.now(), consumer }
    }
}

/// A pipeline that runs.
pub(crate) struct Run<'t, 'a> {
    trace: &'t Trace<'a>,
    began: Duration,
    /// The node that takes its rows.
    pub(crate) consumer: Option<Arc<Measure>>,
}

impl Drop for Run<'_, '_> {
    fn drop(&mut self) {
        let took = self.trace.now().saturating_sub(self.began);
        if let Some(frame) = self.trace.frames().last_mut() {
            frame.inside += took;
        }
    }
}

/// Whether a node is a step of pipelines that tells of its rows as they come by.
pub(crate) fn is_stage(node: &VectorNode) -> bool {
    matches!(node, VectorNode::Window(_) | VectorNode::Map { .. } | VectorNode::Once(_))
}

/// Whether a node is a selector alone.
fn is_leaf(node: &VectorNode) -> bool {
    matches!(node, VectorNode::Select(_) | VectorNode::SampleTimes(_) | VectorNode::StartTimes(_))
}
