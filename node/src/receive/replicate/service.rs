//! Frames from other nodes, into the log and the head of this one.
//!
//! 1. A frame is read to its end whatever becomes of it, so that both ends' dictionaries stay the same.
//! 2. It is let in by the epoch it was routed by; one that is older than what this store has adopted is refused, with
//!    the newer document. For one that is newer this store's own document is waited for, a little.
//! 3. Each series must be this store's own by its own document, a hint's by any open placement.
//! 4. Its times pass if the sender's clock lets them pass, and aren't beyond twice what this node's would.
//! 5. Samples are appended, and answered when the commit of their group is done; a duplicate waits for it too.
//!
//! Frames of a stream are applied in order, and their answers wait beside each other. A stream that breaks the format
//! is ended; the sender begins a new one. So are all when the node stops: what was read is answered, and the rest waits
//! with the senders, as hints.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::peer::write as pb;
use proto::peer::write::write_server::{Write, WriteServer};
use ring::View;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tsdb::db::{Metadata, SeriesKey, SeriesRef, Tenant};
use tsdb::model::{Labels, Sample, TenantId, Value};
use tsdb::wal::WalPosition;
use tsdb::{Error, Result};

use super::Membership;
use super::bounds::{dispute, sender_bounds};
use super::local::{Gathered, intern};
use crate::grpc::MESSAGE_BYTES_MAX;
use crate::grpc::frame::{Body, Float, FrameSample, REFS_MAX, Verdict, write_verdicts};
use crate::receive::ingest::bounds;
use crate::receive::intake::Intake;

/// Frames that are applied and wait for their commit, of one stream.
const WAITING_MAX: usize = 64;
/// Longest wait for this store to go by the document that a frame was routed by.
const ADOPTION_TIMEOUT: Duration = Duration::from_secs(1);
/// Tells keys of peers' labels from those of other formats: equal bytes may mean other labels there.
const KEY_DOMAIN: u128 = 0x0070_6565_7273;

/// The service behind the write stream.
pub struct Receiver {
    intake: Arc<Intake>,
    membership: Arc<dyn Membership>,
    stopping: CancellationToken,
}

impl Receiver {
    /// The service that appends what `membership` says is this store's own. Streams end when `stopping` is cancelled.
    pub(crate) fn server(
        intake: Arc<Intake>,
        membership: Arc<dyn Membership>,
        stopping: CancellationToken,
    ) -> WriteServer<Self> {
        WriteServer::new(Self { intake, membership, stopping })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Write for Receiver {
    type PushStream = ReceiverStream<std::result::Result<pb::Answer, Status>>;

    async fn push(
        &self,
        frames: Request<Streaming<pb::Frame>>,
    ) -> std::result::Result<Response<Self::PushStream>, Status> {
        let (answers, stream) = mpsc::channel(WAITING_MAX);
        let (applied, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(answer(self.intake.clone(), waiting, answers));
        let (intake, membership, stopping) =
            (self.intake.clone(), self.membership.clone(), self.stopping.clone());
        let mut stream_of = StreamOf { intake, membership, tenants: Vec::new(), entries: Vec::new() };
        let mut frames = frames.into_inner();
        tokio::spawn(async move {
            loop {
                let frame = tokio::select! {
                    biased;
                    () = stopping.cancelled() => break,
                    frame = frames.message() => frame,
                };
                let Ok(Some(frame)) = frame else { break };
                let next = stream_of.frame(&frame).await;
                let is_end = next.is_err();
                if applied.send(next.map(|applied| (frame.id, applied))).await.is_err() || is_end {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// A frame whose samples are in the head and on their way to the disk.
enum Applied {
    Taken { position: WalPosition, verdicts: Vec<Verdict> },
    Refused { why: String, document: Bytes },
}

impl From<Error> for Applied {
    fn from(error: Error) -> Self {
        Self::Refused { why: error.to_string(), document: Bytes::new() }
    }
}

/// Answers frames in their order, each once its commit is done.
async fn answer(
    intake: Arc<Intake>,
    mut waiting: mpsc::Receiver<Result<(u64, Applied)>>,
    answers: mpsc::Sender<std::result::Result<pb::Answer, Status>>,
) {
    while let Some(next) = waiting.recv().await {
        let answer = match next {
            Err(error) => Err(Status::invalid_argument(error.to_string())),
            Ok((id, Applied::Refused { why, document })) => {
                Ok(pb::Answer { id, refused: why, document, ..pb::Answer::default() })
            }
            Ok((id, Applied::Taken { position, verdicts })) => {
                Ok(match intake.committer.wait(position).await {
                    Ok(()) => {
                        pb::Answer { id, outcomes: write_verdicts(&verdicts).into(), ..pb::Answer::default() }
                    }
                    Err(error) => pb::Answer { id, refused: error.to_string(), ..pb::Answer::default() },
                })
            }
        };
        if answers.send(answer).await.is_err() {
            break;
        }
    }
}

/// One stream's dictionary, and what it stands for here.
struct StreamOf {
    intake: Arc<Intake>,
    membership: Arc<dyn Membership>,
    tenants: Vec<Arc<Tenant>>,
    entries: Vec<Entry>,
}

/// What a ref stands for.
#[derive(Clone, Copy)]
struct Entry {
    /// Index among the stream's tenants.
    tenant: u32,
    /// Its name in the head; none when its labels are wanted again.
    series: SeriesRef,
    token: u64,
    /// Bits of its last float.
    last: u64,
    /// The document by which ownership was looked up, and what it said.
    epoch: u64,
    is_owned: bool,
}

/// A sample of a frame, decoded.
struct Decoded {
    name: u32,
    sample: Sample,
}

/// By what a frame is judged.
struct Terms<'a> {
    /// Index among the stream's tenants.
    tenant: u32,
    view: &'a View,
    is_hint: bool,
}

impl StreamOf {
    /// Applies a frame.
    ///
    /// # Errors
    /// When it breaks the format: nothing that follows on this stream can be trusted.
    async fn frame(&mut self, frame: &pb::Frame) -> Result<Applied> {
        if frame.forget {
            self.entries.clear();
            self.tenants.clear();
        }
        let id: TenantId = frame.tenant.parse()?;
        let body = Body::parse(&frame.body)?;
        let defined: Vec<(u32, Labels)> = body.series().collect::<Result<_>>()?;
        let tenant = match self.intake.tenant(&id) {
            Ok(tenant) => tenant,
            // The dictionary misses what this frame defines: later frames will ask for labels.
            Err(error) => {
                self.define_nothing(&defined)?;
                self.decode(&body, u32::MAX)?;
                return Ok(error.into());
            }
        };
        let tenant_index = self.tenant_index(&tenant);
        self.define(&id, tenant_index, &defined)?;
        let samples = self.decode(&body, tenant_index)?;
        if let Some(why) = self.disagreement(frame, &samples) {
            return Ok(Applied::Refused { why, document: Bytes::new() });
        }
        self.await_adoption(frame.epoch).await;
        let admission = match self.membership.admit(frame.epoch) {
            Ok(admission) => admission,
            Err(document) => {
                let why = "the ring document has changed".to_owned();
                return Ok(Applied::Refused { why, document });
            }
        };
        let view = self.membership.view();
        let terms = Terms { tenant: tenant_index, view: &view, is_hint: frame.is_hint };
        let applied = self.apply(frame, &tenant, &terms, &body, &defined, samples);
        drop(admission);
        applied
    }

    fn tenant_index(&mut self, tenant: &Arc<Tenant>) -> u32 {
        let known = self.tenants.iter().position(|known| Arc::ptr_eq(known, tenant));
        known.unwrap_or_else(|| {
            self.tenants.push(tenant.clone());
            self.tenants.len() - 1
        }) as u32
    }

    /// Enters new refs: they come in order, and any may be defined again.
    fn define(&mut self, tenant: &TenantId, index: u32, defined: &[(u32, Labels)]) -> Result<()> {
        for (name, labels) in defined {
            let token = ring::hash::series_token(tenant.as_str(), labels.iter());
            let series = SeriesRef::NONE;
            self.enter(*name, Entry { tenant: index, series, token, last: 0, epoch: 0, is_owned: false })?;
        }
        Ok(())
    }

    fn define_nothing(&mut self, defined: &[(u32, Labels)]) -> Result<()> {
        let series = SeriesRef::NONE;
        let entry = Entry { tenant: u32::MAX, series, token: 0, last: 0, epoch: 0, is_owned: false };
        defined.iter().try_for_each(|(name, _)| self.enter(*name, entry))
    }

    fn enter(&mut self, name: u32, entry: Entry) -> Result<()> {
        let at = name as usize;
        match at.cmp(&self.entries.len()) {
            std::cmp::Ordering::Less => self.entries[at] = entry,
            std::cmp::Ordering::Equal if at < REFS_MAX => self.entries.push(entry),
            _ => return Err(Error::corrupt("frame", 0, format!("ref {name} is defined out of order"))),
        }
        Ok(())
    }

    /// All samples, floats restored from the dictionary. A ref that isn't known, or is another tenant's, has no value
    /// to restore: [`Verdict::NeedLabels`] will be said of it.
    fn decode(&mut self, body: &Body<'_>, tenant: u32) -> Result<Vec<Decoded>> {
        let mut samples = Vec::new();
        for sample in body.samples() {
            samples.push(match sample? {
                FrameSample::Float(float) => self.decode_float(&float, tenant),
                FrameSample::Histogram(name, sample) => Decoded { name, sample },
            });
        }
        Ok(samples)
    }

    fn decode_float(&mut self, float: &Float, tenant: u32) -> Decoded {
        let mut bits = 0;
        if let Some(entry) = self.entries.get_mut(float.series as usize).filter(|e| e.tenant == tenant) {
            entry.last = float.change.apply(entry.last);
            bits = entry.last;
        }
        let value = Value::Float(f64::from_bits(bits));
        let sample = Sample { timestamp_ms: float.timestamp_ms, start_ms: float.start_ms, value };
        Decoded { name: float.series, sample }
    }

    /// Waits, a little, until this store goes by the document of `epoch`.
    async fn await_adoption(&self, epoch: u64) {
        if self.membership.view().epoch() >= epoch {
            return;
        }
        let mut views = self.membership.subscribe();
        // If it takes longer, the frame is judged by what this store goes by.
        let _ = tokio::time::timeout(ADOPTION_TIMEOUT, views.wait_for(|view| view.epoch() >= epoch)).await;
    }

    fn apply(
        &mut self,
        frame: &pb::Frame,
        tenant: &Arc<Tenant>,
        terms: &Terms<'_>,
        body: &Body<'_>,
        defined: &[(u32, Labels)],
        samples: Vec<Decoded>,
    ) -> Result<Applied> {
        let bounds = sender_bounds(frame);
        // What a new series has no sample for isn't made: a refused sample leaves nothing behind.
        let mut wanted: Vec<u32> = Vec::new();
        if !defined.is_empty() {
            let is_taken = |decoded: &&Decoded| bounds.refusal_of_first(&decoded.sample).is_none();
            wanted.extend(samples.iter().filter(is_taken).map(|decoded| decoded.name));
            wanted.sort_unstable();
        }
        let mut limited = Vec::new();
        let mut unwanted = Vec::new();
        for (name, labels) in defined {
            if self.check_owner(*name, terms) {
                let key = SeriesKey(self.intake.hasher.key(labels.as_bytes()).0 ^ KEY_DOMAIN);
                if wanted.binary_search(name).is_err() {
                    match tenant.find(key, labels) {
                        Some(series) => self.entries[*name as usize].series = series,
                        None => unwanted.push(*name),
                    }
                    continue;
                }
                match intern(tenant, key, labels) {
                    Ok(Ok(series)) => self.entries[*name as usize].series = series,
                    Ok(Err(verdict)) => limited.push((*name, verdict)),
                    Err(error) => return Ok(error.into()),
                }
            }
        }
        unwanted.sort_unstable();
        let mut verdicts = Vec::with_capacity(samples.len() + frame.families.len());
        let mut gathered = Gathered::with_room(samples.len());
        for Decoded { name, sample } in samples {
            if unwanted.binary_search(&name).is_ok()
                && let Some(refusal) = bounds.refusal_of_first(&sample)
            {
                verdicts.push(refusal.into());
                continue;
            }
            match self.find(name, terms, &limited) {
                Ok(series) => {
                    gathered.sample(verdicts.len(), series, sample);
                    verdicts.push(Verdict::NeedLabels);
                }
                Err(verdict) => verdicts.push(verdict),
            }
        }
        for entry in body.exemplars() {
            let (name, exemplar) = entry?;
            if unwanted.binary_search(&name).is_ok() {
                // No series is made for its sake. It isn't refused either: its samples are, if there were any.
                verdicts.push(Verdict::Superseded);
                continue;
            }
            match self.find(name, terms, &limited) {
                Ok(series) => {
                    gathered.exemplars.push((series, exemplar));
                    verdicts.push(Verdict::Stored);
                }
                Err(verdict) => verdicts.push(verdict),
            }
        }
        verdicts.extend(std::iter::repeat_n(Verdict::Stored, frame.families.len()));
        gathered.families.extend(frame.families.iter().map(family));
        let position = match gathered.append(tenant, &bounds, &mut verdicts) {
            Ok(position) => position,
            Err(error) => return Ok(error.into()),
        };
        Ok(Applied::Taken { position, verdicts })
    }

    /// Whether a ref's series is this store's, looked up once a document.
    fn check_owner(&mut self, name: u32, terms: &Terms<'_>) -> bool {
        let Terms { view, is_hint, .. } = *terms;
        let Some(entry) = self.entries.get_mut(name as usize) else { return false };
        if !is_hint && entry.epoch == view.epoch() {
            return entry.is_owned;
        }
        let Some(me) = view.index(self.membership.me()) else { return false };
        if is_hint {
            return view.owns(me, entry.token);
        }
        entry.is_owned = view.write_sets(entry.token).iter().any(|set| set.stores.contains(&me));
        entry.epoch = view.epoch();
        entry.is_owned
    }

    /// The head's name of a ref's series, or what is to be said of its samples.
    fn find(
        &mut self,
        name: u32,
        terms: &Terms<'_>,
        limited: &[(u32, Verdict)],
    ) -> std::result::Result<SeriesRef, Verdict> {
        let Some(entry) = self.entries.get(name as usize).copied().filter(|e| e.tenant == terms.tenant)
        else {
            return Err(Verdict::NeedLabels);
        };
        if !self.check_owner(name, terms) {
            return Err(Verdict::NotOwner);
        }
        if !entry.series.is_none() {
            return Ok(entry.series);
        }
        let problem = limited.iter().find(|(limited, _)| *limited == name);
        Err(problem.map_or(Verdict::NeedLabels, |(_, verdict)| *verdict))
    }

    /// Why this node doesn't judge a frame: see [`dispute`].
    fn disagreement(&self, frame: &pb::Frame, samples: &[Decoded]) -> Option<String> {
        let now_ms = self.intake.clock.now_ms();
        let config = self.intake.config.load();
        let own = bounds(config.limits_of(&frame.tenant), now_ms);
        let times_ms = samples.iter().map(|decoded| decoded.sample.timestamp_ms);
        dispute(&sender_bounds(frame), &own, now_ms, times_ms)
    }
}

fn family(family: &pb::Family) -> Metadata {
    Metadata {
        family: family.name.clone(),
        kind: family.kind.clone(),
        help: family.help.clone(),
        unit: family.unit.clone(),
    }
}
