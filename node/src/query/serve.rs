//! What this node answers to others: the peer service `Read`.
//!
//! An answer opens at once, before anything is looked for, so that the asker knows that somebody is there. It is made
//! when there is a turn, and sent in frames of bounded size, a few of them on the way at a time; when the asker goes away,
//! the work ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proto::peer::read as pb;
use ring::{StoreId, View};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tsdb::model::TenantId;
use tsdb::select::Series;

use super::names::Found;
use super::own::{self, Own, Roles};
use super::reach::Reach;
use super::turns::Switch;
use super::{Error, Turn, blocks};
use crate::bucket::catalog::Catalog;
use crate::grpc::read::{Mark, NamesAsk, NamesPart, Read, ReadServer, SelectAsk, SelectPart, seal};
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
    /// For a node; it answers once that has been given its [`Reach`].
    pub(crate) fn server(app: Arc<App>) -> ReadServer<Self> {
        let server = ReadServer::new(Self { app });
        server.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Read for Reads {
    type SelectStream = Answer;
    type NamesStream = Answer;

    async fn select(&self, request: Request<pb::SelectRequest>) -> Result<Response<Answer>, Status> {
        let asker = asker(&request)?;
        let ask = SelectAsk::from_message(request.into_inner()).map_err(invalid)?;
        let (frames, answer) = mpsc::channel(FRAMES_WAITING);
        let app = self.app.clone();
        tokio::spawn(async move {
            let (view, catalog) = match open(&app, &frames, &ask.tenant, ask.catalog_version).await {
                Ok(Some(opened)) => opened,
                Ok(None) => return,
                Err(status) => return drop(frames.send(Err(status)).await),
            };
            let own = app.clone();
            let work = move |reach: &Reach, cancelled: &AtomicBool| {
                let roles = Roles::new(&view, &ask.tenant, reach.ring.me(), asker, &ask.asked);
                let digest_key = view.document().digest_key;
                own::select(&own, &ask, &|labels| roles.sends(labels), &catalog, digest_key, cancelled)
            };
            match done(&app, &frames, work).await {
                Some(Ok(own)) => send_series(&frames, own).await,
                Some(Err(status)) => drop(frames.send(Err(status)).await),
                None => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answer))))
    }

    async fn names(&self, request: Request<pb::NamesRequest>) -> Result<Response<Answer>, Status> {
        let asker = asker(&request)?;
        let ask = NamesAsk::from_message(request.into_inner()).map_err(invalid)?;
        let (frames, answer) = mpsc::channel(FRAMES_WAITING);
        let app = self.app.clone();
        tokio::spawn(async move {
            let view = match open(&app, &frames, &ask.tenant, ask.catalog_version).await {
                Ok(Some((view, _))) => view,
                Ok(None) => return,
                Err(status) => return drop(frames.send(Err(status)).await),
            };
            let own = app.clone();
            let work = move |reach: &Reach, cancelled: &AtomicBool| {
                let roles = Roles::new(&view, &ask.tenant, reach.ring.me(), asker, &ask.asked);
                own::names(&own, &ask, &|labels| roles.sends(labels), cancelled)
            };
            match done(&app, &frames, work).await {
                Some(Ok(found)) => send_found(&frames, found).await,
                Some(Err(status)) => drop(frames.send(Err(status)).await),
                None => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answer))))
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

/// Begins an answer. Ends it too, with `None`, where the question goes by too old a catalog.
#[allow(clippy::result_large_err, reason = "tonic's")]
async fn open(
    app: &App,
    frames: &Frames,
    tenant: &TenantId,
    version: Option<u64>,
) -> Result<Option<(Arc<View>, Arc<Catalog>)>, Status> {
    let reach = app.queries.reach.get();
    let reach = reach.ok_or_else(|| Status::unavailable("this node hasn't joined its cluster yet"))?;
    let view = reach.view();
    let catalog = app.blocks.catalogs.current(tenant).await;
    let mut opening = reach.opening(&view);
    opening.stale_catalog = blocks::needed(app, &catalog, tenant, reach.ring.me(), version);
    let is_last = opening.stale_catalog.is_some();
    let is_heard =
        send(frames, SelectPart { opening: Some(opening), is_last, ..SelectPart::default() }).await;
    Ok((is_heard && !is_last).then_some((view, catalog)))
}

/// Does the work when it is its turn; `None` when the asker is gone.
async fn done<T: Send + 'static>(
    app: &Arc<App>,
    frames: &Frames,
    work: impl FnOnce(&Reach, &AtomicBool) -> Result<T, Error> + Send + 'static,
) -> Option<Result<T, Status>> {
    let switch = Switch::default();
    let working = async {
        let turn = Turn::of(app.queries.peer_turns.take().await?, &switch);
        let own = app.clone();
        let work = move |cancelled: &Arc<AtomicBool>| {
            work(own.queries.reach.get().expect("the answer was opened"), cancelled)
        };
        turn.on_cores(app, work).await
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

/// Whether it went.
async fn send(frames: &Frames, part: SelectPart) -> bool {
    frames.send(Ok(seal(&part.into_message()))).await.is_ok()
}

/// Sends series and marks, and that nothing follows.
async fn send_series(frames: &Frames, own: Own) {
    let mut part = SelectPart::default();
    let mut bytes = 0;
    for (i, marks) in own.marks.into_iter().enumerate() {
        for some in marks.chunks(FRAME_BYTES / size_of::<Mark>()) {
            bytes += size_of_val(some);
            part.marks.push((i, some.to_vec()));
            if bytes >= FRAME_BYTES {
                bytes = 0;
                if !send(frames, std::mem::take(&mut part)).await {
                    return;
                }
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
                bytes += piece.labels.as_bytes().len();
                // At least one, however long the labels are: otherwise it would never end.
                for chunk in rest.by_ref() {
                    bytes += chunk.data.len() + size_of::<tsdb::select::Chunk>();
                    piece.chunks.push(chunk);
                    if bytes >= FRAME_BYTES {
                        break;
                    }
                }
                part.series.push((i, piece));
                if bytes >= FRAME_BYTES {
                    bytes = 0;
                    if !send(frames, std::mem::take(&mut part)).await {
                        return;
                    }
                }
            }
        }
    }
    part.is_last = true;
    send(frames, part).await;
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
