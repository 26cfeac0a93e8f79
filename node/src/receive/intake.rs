//! The one front of writes: whatever a request speaks, its samples come in here.
//!
//! 1. A front door (`http::write`, the peers' [`super::replicate::Receiver`]) reads a request and reserves its bytes of the
//!    node's budget.
//! 2. [`Intake::append`] has it decoded into a batch and appends that: to this store alone where the node is alone, else to
//!    each series' replicas.
//! 3. [`Intake::finish`] waits for the commit, or the quorum, and returns the report of every sample.

use std::cell::RefCell;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tsdb::db::Tenant;
use tsdb::model::TenantId;

use super::batch::{Batch, SeriesHasher};
use super::budget::{Budget, DecodedBytes, Held};
use super::committer::Committer;
use super::ingest::{ParseLabels, Report, Request, Scratch, ingest};
use super::replicate::{Begun, Content, NoQuorum, Replicator};
use crate::config::Config;
use crate::env::Clock;
use crate::metrics::Metrics;
use crate::storage::Storage;

/// Largest buffer that a thread keeps for its next request, in bytes.
const KEPT_BUFFER_BYTES_MAX: usize = 4 << 20;

/// What a write needs of the node. One for the process.
pub struct Intake {
    pub(crate) config: Arc<ArcSwap<Config>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) replicator: Arc<Replicator>,
    pub(crate) hasher: SeriesHasher,
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: Arc<Metrics>,
}

/// A request that is to be written, without its body.
pub struct Write {
    /// Whose samples it has.
    pub tenant: Arc<Tenant>,
    /// Limits are read from it: one configuration for the whole request.
    pub config: Arc<Config>,
    /// This node's wall clock when it came, in milliseconds.
    pub now_ms: i64,
    /// Reads its labels.
    pub parse_labels: ParseLabels,
    /// The bytes of the node's budget that are reserved for it.
    pub held: Held,
}

/// A write whose samples are in the head, and on their way to the disk and to other nodes.
pub enum Pending {
    /// Of this node alone.
    Alone(Report),
    /// Of all replicas of each series.
    Replicated(Begun),
}

/// Why a write isn't acked.
#[derive(Debug)]
pub enum Unacked {
    /// The log can't be made durable.
    Commit(tsdb::Error),
    /// Too few replicas have it, or said so in time.
    NoQuorum(NoQuorum),
}

/// Where a request is decoded: its buffers, and what pays for them.
pub struct Decoding<'a> {
    /// For the body when it is decompressed; labels of the batch point into it.
    pub body: &'a mut Vec<u8>,
    /// Takes the samples.
    pub batch: &'a mut Batch,
    /// Pays for both.
    pub held: &'a mut Held,
    /// Knows series by their labels' bytes.
    pub hasher: &'a SeriesHasher,
    decoded_bytes_max: usize,
}

impl Decoding<'_> {
    /// The account of decoded bytes, beside what a decoder takes: the body, the batch, the hasher.
    pub fn split(&mut self) -> (&mut Vec<u8>, &mut Batch, &SeriesHasher, DecodedBytes<'_>) {
        let memory = DecodedBytes::new(self.held, self.decoded_bytes_max);
        (self.body, self.batch, self.hasher, memory)
    }
}

/// Buffers that a thread keeps from request to request.
#[derive(Default)]
struct Buffers {
    body: Vec<u8>,
    batch: Batch,
    scratch: Scratch,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl Intake {
    /// A tenant to write to; made if it is new.
    ///
    /// # Errors
    /// Where the engine can't make it, or has too many.
    pub fn tenant(&self, id: &TenantId) -> tsdb::Result<Arc<Tenant>> {
        self.storage.tenant(id, &self.config.load())
    }

    /// Decodes a request and appends it. A node that is alone does so in its thread's buffers; otherwise the request keeps
    /// its own until all replicas have it.
    ///
    /// # Errors
    /// Those of `decode`, before anything is appended; those of an append.
    pub fn append<E: From<tsdb::Error>>(
        &self,
        write: Write,
        decode: impl FnOnce(&mut Decoding<'_>) -> Result<(), E>,
    ) -> Result<Pending, E> {
        let Write { tenant, config, now_ms, parse_labels, mut held } = write;
        let (hasher, decoded_bytes_max) = (&self.hasher, self.budget.decoded_bytes_max());
        let Some(admission) = self.replicator.admit_alone() else {
            let (mut body, mut batch) = (Vec::new(), Batch::default());
            decode(&mut Decoding {
                body: &mut body,
                batch: &mut batch,
                held: &mut held,
                hasher,
                decoded_bytes_max,
            })?;
            let content = Content { tenant, body, batch, parse_labels, config, now_ms, held };
            return Ok(Pending::Replicated(self.replicator.begin(content)));
        };
        let report = in_buffers(|Buffers { body, batch, scratch }| {
            decode(&mut Decoding { body, batch, held: &mut held, hasher, decoded_bytes_max })?;
            let limits = config.limits_of(tenant.id().as_str());
            let request = Request { tenant: &tenant, body, parse_labels, limits, now_ms };
            Ok(ingest(&request, batch, scratch)?)
        });
        // A document is adopted only when no append by an older one is under way.
        drop(admission);
        report.map(Pending::Alone)
    }

    /// Waits until a write may be acked; what became of its samples, with the reason where it mayn't be.
    pub async fn finish(&self, pending: Pending) -> (Report, Result<(), Unacked>) {
        let finished = match pending {
            Pending::Alone(report) => {
                self.metrics.received(&report);
                match self.committer.wait(report.position).await {
                    Ok(()) => Ok(report),
                    Err(error) => return (Report::default(), Err(Unacked::Commit(error))),
                }
            }
            Pending::Replicated(begun) => self
                .replicator
                .finish(begun, &self.committer)
                .await
                .inspect(|report| self.metrics.received(report)),
        };
        match finished {
            Ok(report) => (report, Ok(())),
            Err(mut error) => (std::mem::take(&mut *error.report), Err(Unacked::NoQuorum(error))),
        }
    }
}

fn in_buffers<E>(work: impl FnOnce(&mut Buffers) -> Result<Report, E>) -> Result<Report, E> {
    BUFFERS.with_borrow_mut(|buffers| {
        let result = work(buffers);
        buffers.batch.clear();
        if buffers.body.capacity() > KEPT_BUFFER_BYTES_MAX {
            buffers.body = Vec::new();
        }
        result
    })
}
