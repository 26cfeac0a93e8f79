//! What this node answers to others: the peer service `Read`.
//!
//! An answer opens at once, before anything is looked for, so that the asker knows that somebody is there. It is made
//! when there is a permit, and sent in frames of bounded size, a few of them on the way at a time; when the asker goes away,
//! the work ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use promql::{Folded, Settings, Syntax};
use proto::peer::read as pb;
use ring::{StoreId, View};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tsdb::model::{Labels, TenantId};
use tsdb::select::Series;

use super::digests;
use super::names::Found;
use super::own::{self, Own, Roles};
use super::permits::Switch;
use super::reach::Reach;
use super::{Error, Size, blocks};
use crate::bucket::catalog::Catalog;
use crate::env::{CpuTime, PoolWorkers};
use crate::grpc::read::{
    DigestsAsk, FoldAsk, FoldPart, Mark, NamesAsk, NamesPart, Opening, Read, ReadServer, SelectAsk,
    SelectPart, group_bytes, seal,
};
use crate::grpc::{Header, MESSAGE_BYTES_MAX};
use crate::node::App;

/// A frame is sent when it holds this many bytes.
const FRAME_BYTES: usize = 1 << 20;
/// Frames that wait to be sent.
const FRAMES_WAITING: usize = 2;
/// Entries of lists in a frame.
const FRAME_ENTRIES: usize = 10_000;

type Frames = mpsc::Sender<Result<pb::Sealed, Status>>;
type Answer = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::Sealed, Status>> + Send>>;

/// The service.
#[derive(Clone)]
pub struct Reads {
    app: Arc<App>,
}

impl Reads {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    /// For a node; it answers once that has been given its [`Reach`].
    pub(crate) fn server(app: Arc<App>) -> ReadServer<Self> {
        let server = ReadServer::new(Self::new(app));
        server.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Read for Reads {
    type SelectStream = Answer;
    type NamesStream = Answer;
    type DigestsStream = Answer;
    type FoldStream = Answer;

    async fn select(&self, request: Request<pb::SelectRequest>) -> Result<Response<Answer>, Status> {
        let asker = asker(&request)?;
        let ask = SelectAsk::from_message(request.into_inner()).map_err(invalid)?;
        let (tenant, version) = (ask.tenant.clone(), ask.catalog_version);
        let ask_selects = ask.selects.clone();
        let work = move |asked: &Asked<'_>| {
            let Asked { app, view, catalog, cancelled, .. } = asked;
            let roles = Roles::new(view, &ask.tenant, asked.me(), asker, &ask.asked);
            let digest_key = view.document().digest_key;
            own::select(app, &ask, &|labels| roles.sends(labels), catalog, digest_key, cancelled)
        };
        let sending = |frames, own| async move { send_series(&frames, own).await };
        let (selects, of) = (ask_selects, self.app.clone());
        let size =
            move |tenant: &TenantId| Size::of_query(of.storage.existing(tenant).as_deref(), &selects, 0, 0);
        Ok(self.answer(tenant, version, select_opened, size, work, sending))
    }

    async fn names(&self, request: Request<pb::NamesRequest>) -> Result<Response<Answer>, Status> {
        let asker = asker(&request)?;
        let ask = NamesAsk::from_message(request.into_inner()).map_err(invalid)?;
        let (tenant, version) = (ask.tenant.clone(), ask.catalog_version);
        let (nothing, question) = (ask.question.nothing(), ask.question.clone());
        let opened = |opening: Opening| {
            let is_last = opening.stale_catalog.is_some();
            seal(&NamesPart { opening: Some(opening), found: nothing, is_last }.into_message())
        };
        let work = move |asked: &Asked<'_>| {
            let roles = Roles::new(asked.view, &ask.tenant, asked.me(), asker, &ask.asked);
            own::names(asked.app, &ask, &|labels| roles.sends(labels), asked.catalog, asked.cancelled)
        };
        let sending = |frames, found| async move { send_found(&frames, found).await };
        let of = self.app.clone();
        let size = move |tenant: &TenantId| Size::of_names(of.storage.existing(tenant).as_deref(), &question);
        Ok(self.answer(tenant, version, opened, size, work, sending))
    }

    async fn digests(&self, request: Request<pb::DigestsRequest>) -> Result<Response<Answer>, Status> {
        let ask = DigestsAsk::from_message(request.into_inner()).map_err(invalid)?;
        let (tenant, version) = (ask.select.tenant.clone(), ask.select.catalog_version);
        let (selects, of) = (ask.select.selects.clone(), self.app.clone());
        let size =
            move |tenant: &TenantId| Size::of_query(of.storage.existing(tenant).as_deref(), &selects, 0, 0);
        let work = move |asked: &Asked<'_>| {
            let Asked { app, view, catalog, cancelled, .. } = asked;
            let found = own::series(app, &ask.select, &|_, _| true, catalog, cancelled)?;
            digests::own(view, asked.me(), &ask, &found, cancelled)
        };
        let sending = |frames, own| async move { send_series(&frames, own).await };
        Ok(self.answer(tenant, version, select_opened, size, work, sending))
    }

    async fn fold(&self, request: Request<pb::FoldRequest>) -> Result<Response<Answer>, Status> {
        let asker = asker(&request)?;
        let ask = FoldAsk::from_message(request.into_inner()).map_err(invalid)?;
        let (tenant, version) = (ask.tenant.clone(), ask.catalog_version);
        let opened =
            |opening| seal(&FoldPart { opening: Some(opening), ..FoldPart::default() }.into_message());
        let work = move |asked: &Asked<'_>| asked.fold(&ask, asker);
        let sending = |frames, folded| async move { send_folded(&frames, folded).await };
        // Owners are asked to fold only what is worth it.
        let size = |_: &TenantId| Ok(Size::Large);
        Ok(self.answer(tenant, version, opened, size, work, sending))
    }

    async fn learn(&self, request: Request<pb::LearnRequest>) -> Result<Response<pb::LearnResponse>, Status> {
        let asked = request.into_inner();
        let tenant = TenantId::new(&asked.tenant).map_err(|e| Status::invalid_argument(e.to_string()))?;
        match self.app.blocks.catalogs.at_least(&tenant, asked.version).await {
            Ok(catalog) => Ok(Response::new(pb::LearnResponse { version: catalog.version() })),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

impl Reads {
    /// Begins an answer, does the work when there is a permit, and sends what comes of it.
    fn answer<T: Send + 'static, S: Future<Output = ()> + Send>(
        &self,
        tenant: TenantId,
        version: Option<u64>,
        opened: impl FnOnce(Opening) -> pb::Sealed + Send + 'static,
        size: impl FnOnce(&TenantId) -> Result<Size, Error> + Send + 'static,
        work: impl FnOnce(&Asked<'_>) -> Result<T, Error> + Send + 'static,
        sending: impl FnOnce(Frames, T) -> S + Send + 'static,
    ) -> Response<Answer> {
        let (frames, answer) = mpsc::channel(FRAMES_WAITING);
        let app = self.app.clone();
        tokio::spawn(async move {
            let (view, catalog) = match open(&app, &frames, &tenant, version, opened).await {
                Ok(Some(opened)) => opened,
                Ok(None) => return,
                Err(status) => return drop(frames.send(Err(status)).await),
            };
            match done(&app, &frames, tenant, (view, catalog), size, work).await {
                Some(Ok(done)) => sending(frames, done).await,
                Some(Err(status)) => drop(frames.send(Err(status)).await),
                None => {}
            }
        });
        Response::new(Box::pin(ReceiverStream::new(answer)))
    }
}

/// By what a question is answered.
struct Asked<'a> {
    app: &'a Arc<App>,
    reach: &'a Reach,
    view: &'a View,
    catalog: &'a Catalog,
    cancelled: &'a Arc<AtomicBool>,
    cpu: &'a Arc<CpuTime>,
}

impl Asked<'_> {
    fn me(&self) -> StoreId {
        self.reach.ring.me()
    }

    /// Folds the series of which this store would send the chunks.
    fn fold(&self, ask: &FoldAsk, asker: StoreId) -> Result<Folded, Error> {
        let expr = promql::parse_with(&ask.query, Syntax { experimental: ask.experimental });
        let expr = expr.map_err(|e| promql::Error::Invalid(e.to_string()))?;
        let delayed_name_removal = ask.delayed_name_removal;
        let settings = Settings { delayed_name_removal, ..Settings::default() };
        let plan = promql::plan(&expr, &ask.range, &settings)?;
        let select = SelectAsk {
            tenant: ask.tenant.clone(),
            selects: plan.selects().to_vec(),
            asked: ask.asked.clone(),
            catalog_version: ask.catalog_version,
            wanted: None,
        };
        let roles = Roles::new(self.view, &ask.tenant, self.me(), asker, &ask.asked);
        let is_except = |i: usize, labels: &Labels| {
            ask.except.get(i).is_some_and(|except| !except.is_empty() && except.contains(&labels.hash64()))
        };
        let is_wanted = |i: usize, labels: &Labels| roles.sends(labels) && !is_except(i, labels);
        let inputs = own::series(self.app, &select, &is_wanted, self.catalog, self.cancelled)?;
        let purse = self.app.purse(&ask.tenant);
        purse.pay_for(&inputs)?;
        let limits = self.app.limits(&ask.tenant, self.cancelled);
        Ok(plan.fold(inputs, &limits, &PoolWorkers::spending(&*self.app.env.pool, self.cpu))?)
    }
}

/// Who asks.
#[allow(clippy::result_large_err, reason = "tonic's")]
fn asker<T>(request: &Request<T>) -> Result<StoreId, Status> {
    let header = request.extensions().get::<Header>();
    header.map(|header| header.from).ok_or_else(|| Status::internal("calls of peers have a header"))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn invalid(error: crate::grpc::read::Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The first part of an answer made of series or marks.
fn select_opened(opening: Opening) -> pb::Sealed {
    let is_last = opening.stale_catalog.is_some();
    seal(&SelectPart { opening: Some(opening), is_last, ..SelectPart::default() }.into_message())
}

/// Begins an answer. Ends it too, with `None`, where the question goes by too old a catalog.
#[allow(clippy::result_large_err, reason = "tonic's")]
async fn open(
    app: &App,
    frames: &Frames,
    tenant: &TenantId,
    version: Option<u64>,
    opened: impl FnOnce(Opening) -> pb::Sealed,
) -> Result<Option<(Arc<View>, Arc<Catalog>)>, Status> {
    let reach = app.queries.reach.get();
    let reach = reach.ok_or_else(|| Status::unavailable("this node hasn't joined its cluster yet"))?;
    let view = reach.view();
    let catalog = app.blocks.catalogs.current(tenant).await;
    let mut opening = reach.opening(&view);
    opening.stale_catalog = blocks::needed(app, &catalog, tenant, reach.ring.me(), version);
    let is_last = opening.stale_catalog.is_some();
    let is_heard = frames.send(Ok(opened(opening))).await.is_ok();
    Ok((is_heard && !is_last).then_some((view, catalog)))
}

/// Does the work when there is a permit; `None` when the asker is gone.
async fn done<T: Send + 'static>(
    app: &Arc<App>,
    frames: &Frames,
    tenant: TenantId,
    (view, catalog): (Arc<View>, Arc<Catalog>),
    size: impl FnOnce(&TenantId) -> Result<Size, Error> + Send + 'static,
    work: impl FnOnce(&Asked<'_>) -> Result<T, Error> + Send + 'static,
) -> Option<Result<T, Status>> {
    let switch = Switch::default();
    let working = async {
        let permit = app.peer_permit(&tenant, &switch).await?;
        let (own, cpu) = (app.clone(), permit.cpu.clone());
        let work = move |(), cancelled: &Arc<AtomicBool>| {
            let reach = own.queries.reach.get().expect("the answer was opened");
            work(&Asked { app: &own, reach, view: &view, catalog: &catalog, cancelled, cpu: &cpu })
        };
        permit.on_cores_by_size(app, move || Ok((size(&tenant)?, ())), work).await
    };
    tokio::select! {
        biased;
        done = working => Some(done.map_err(|error: Error| {
            match &error {
                Error::Busy => Status::resource_exhausted(error.to_string()),
                _ => Status::internal(error.to_string()),
            }
        })),
        () = frames.closed() => None,
    }
}

/// An answer's frames: what is put into them goes out whenever enough has come together.
struct Framed<'a, P> {
    frames: &'a Frames,
    seal: fn(P) -> pb::Sealed,
    part: P,
    /// Bytes of `part`, about.
    bytes: usize,
}

impl<'a, P: Default> Framed<'a, P> {
    fn new(frames: &'a Frames, seal: fn(P) -> pb::Sealed) -> Self {
        Self { frames, seal, part: P::default(), bytes: 0 }
    }

    /// Takes something of so many bytes; tells whether the asker is still there.
    async fn put(&mut self, bytes: usize, put: impl FnOnce(&mut P)) -> bool {
        put(&mut self.part);
        self.bytes += bytes;
        if self.bytes < FRAME_BYTES {
            return true;
        }
        self.bytes = 0;
        let part = std::mem::take(&mut self.part);
        self.frames.send(Ok((self.seal)(part))).await.is_ok()
    }

    /// Sends the rest, with what belongs to the end.
    async fn end(mut self, put: impl FnOnce(&mut P)) {
        put(&mut self.part);
        drop(self.frames.send(Ok((self.seal)(self.part))).await);
    }
}

/// Sends sketches, marks and series, and that nothing follows.
async fn send_series(frames: &Frames, own: Own) {
    let mut framed = Framed::new(frames, |part: SelectPart| seal(&part.into_message()));
    for (i, sketches) in own.sketches.into_iter().enumerate() {
        for (owners, sketch) in sketches {
            if !framed.put(sketch.bytes(), |part| part.sketches.push((i, owners, sketch))).await {
                return;
            }
        }
    }
    for (i, marks) in own.marks.into_iter().enumerate() {
        for some in marks.chunks(FRAME_BYTES / size_of::<Mark>()) {
            if !framed.put(size_of_val(some), |part| part.marks.push((i, some.to_vec()))).await {
                return;
            }
        }
    }
    for (i, all) in own.series.into_iter().enumerate() {
        for mut series in all {
            let mut rest = std::mem::take(&mut series.chunks).into_iter().peekable();
            // In several parts, if it is large.
            while rest.peek().is_some() {
                let mut piece = Series { chunks: Vec::new(), ..series.clone() };
                series.deleted_ms.clear();
                let mut bytes = piece.labels.as_bytes().len();
                // At least one, however long the labels are: otherwise it would never end.
                for chunk in rest.by_ref() {
                    bytes += chunk.data.len() + size_of::<tsdb::select::Chunk>();
                    piece.chunks.push(chunk);
                    if framed.bytes + bytes >= FRAME_BYTES {
                        break;
                    }
                }
                if !framed.put(bytes, |part| part.series.push((i, piece))).await {
                    return;
                }
            }
        }
    }
    framed.end(|part| part.is_last = true).await;
}

/// Sends what aggregations came to, and that nothing follows.
async fn send_folded(frames: &Frames, mut folded: Folded) {
    let mut framed = Framed::new(frames, |part: FoldPart| seal(&part.into_message()));
    for i in 0..folded.nodes.len() {
        for group in std::mem::take(&mut folded.nodes[i].groups) {
            if !framed.put(group_bytes(&group), |part| part.groups.push((i, group))).await {
                return;
            }
        }
    }
    framed.end(|part| part.rest = Some(folded)).await;
}

/// Sends anything else, and that nothing follows.
async fn send_found(frames: &Frames, found: Found) {
    let mut parts = found.pieces(FRAME_ENTRIES).into_iter().peekable();
    while let Some(found) = parts.next() {
        let part = NamesPart { opening: None, found, is_last: parts.peek().is_none() };
        if frames.send(Ok(seal(&part.into_message()))).await.is_err() {
            return;
        }
    }
}
