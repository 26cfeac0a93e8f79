//! The answering side: what is here, and what the asker lacks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use proto::peer::repair as pb;
use proto::peer::repair::repair_server::{Repair, RepairServer};
use ring::{Epoch, StoreId};
use tonic::{Request, Response, Status};
use tsdb::db::{Tenant, WINDOW_MS};
use tsdb::digest::{Digest, DigestKey, SeriesDigester};
use tsdb::model::{Labels, TenantId};
use tsdb::select::Series;

use super::digests::{self, Terms, token_of};
use super::keys::holds;
use super::{compute, safe};
use crate::env::{Work, run_on};
use crate::grpc::{Header, MESSAGE_BYTES_MAX, series_to_proto};
use crate::node::App;

/// Windows in one answer, about.
const PAGE_WINDOWS: usize = 20_000;
/// Encoded bytes in one answer, about: one series more may come.
const PAGE_BYTES: usize = 4 << 20;
/// Bytes of a chunk and of a series besides data and labels, about.
const OVERHEAD_BYTES: usize = 32;
/// A fingerprint, and a digest.
const WORD_BYTES: usize = 16;

/// The service on the peer port.
pub struct Serve(Arc<App>);

impl Serve {
    /// The service of a node.
    pub(crate) fn service(app: Arc<App>) -> RepairServer<Self> {
        RepairServer::new(Self(app)).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What both sides compute with, if the asker goes by our ring; and the asker.
    fn terms(&self, epoch: Epoch, asker: StoreId) -> Result<(Terms, Sharing), Status> {
        let repair = &self.0.repair;
        let (Some(view), Some(links)) = (repair.view(), repair.links.get()) else {
            return Err(Status::unavailable("this node hasn't joined a ring"));
        };
        if view.epoch() != epoch {
            return Err(Status::failed_precondition(format!(
                "repair compares under one ring document: this node goes by epoch {}, not {epoch}",
                view.epoch()
            )));
        }
        let key = DigestKey::new(view.document().digest_key);
        let terms = Terms { key, keys: repair.keys(&view) };
        Ok((terms, Sharing { asker, me: links.peers.me().store() }))
    }

    fn tenant(&self, name: &str) -> Result<Option<Arc<Tenant>>, Status> {
        let id = TenantId::new(name).map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(self.0.storage.existing(&id))
    }
}

/// Who asks whom.
#[derive(Clone, Copy)]
struct Sharing {
    asker: StoreId,
    me: StoreId,
}

fn caller<T>(request: &Request<T>) -> Result<StoreId, Status> {
    let header = request.extensions().get::<Header>();
    header.map(|header| header.from).ok_or_else(|| Status::internal("a call without its header"))
}

fn times_ms(start_ms: i64, end_ms: i64) -> Result<RangeInclusive<i64>, Status> {
    let is_window = start_ms.rem_euclid(WINDOW_MS) == 0
        && start_ms <= end_ms
        && end_ms.checked_sub(start_ms).is_some_and(|length_ms| length_ms < WINDOW_MS);
    if is_window {
        Ok(start_ms..=end_ms)
    } else {
        Err(Status::invalid_argument(format!(
            "{start_ms} to {end_ms} is no window, nor the beginning of one"
        )))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "what `map_err` takes")]
fn failed(error: tsdb::Error) -> Status {
    Status::internal(error.to_string())
}

#[tonic::async_trait]
impl Repair for Serve {
    async fn windows(
        &self,
        request: Request<pb::WindowsRequest>,
    ) -> Result<Response<pb::WindowsAnswer>, Status> {
        let after = request.into_inner().after;
        let app = self.0.clone();
        let listed = run_on(&*self.0.env.pool, Work::LargeQuery, move || windows(&app, &after));
        Ok(Response::new(listed.await))
    }

    async fn digests(
        &self,
        request: Request<pb::DigestsRequest>,
    ) -> Result<Response<pb::DigestsAnswer>, Status> {
        let asker = caller(&request)?;
        let request = request.into_inner();
        let (terms, sharing) = self.terms(request.epoch, asker)?;
        let times_ms = times_ms(request.start_ms, request.end_ms)?;
        let Some(tenant) = self.tenant(&request.tenant)? else {
            return Ok(Response::new(pb::DigestsAnswer::default()));
        };
        let keys = terms.keys.clone();
        let computed =
            compute(&self.0, move |app| digests::of_window(&app.repair.digests, &tenant, &terms, &times_ms));
        let (mut ranges, mut bytes) = (Vec::new(), Vec::new());
        for (piece, summary) in computed.await.map_err(failed)? {
            if keys.is_shared(piece, sharing.asker, sharing.me) {
                ranges.push(piece);
                bytes.extend(summary.digest.to_bytes());
            }
        }
        Ok(Response::new(pb::DigestsAnswer { ranges, digests: bytes.into() }))
    }

    async fn missing(
        &self,
        request: Request<pb::MissingRequest>,
    ) -> Result<Response<pb::MissingAnswer>, Status> {
        let asker = caller(&request)?;
        let request = request.into_inner();
        let (terms, sharing) = self.terms(request.epoch, asker)?;
        let question = Question {
            times_ms: times_ms(request.start_ms, request.end_ms)?,
            stretches: stretches(&request.keys)?,
            known: known(&request.known)?,
            terms,
            sharing,
        };
        let Some(tenant) = self.tenant(&request.tenant)? else {
            return Ok(Response::new(pb::MissingAnswer::default()));
        };
        let answer = compute(&self.0, move |_| question.answer(&tenant)).await;
        answer.map(Response::new).map_err(failed)
    }

    async fn unsettled(
        &self,
        _: Request<pb::UnsettledRequest>,
    ) -> Result<Response<pb::UnsettledAnswer>, Status> {
        let epoch = self.0.cluster.view().epoch();
        Ok(Response::new(pb::UnsettledAnswer { epoch, reasons: safe::of_own(&self.0) }))
    }
}

fn windows(app: &App, after: &str) -> pb::WindowsAnswer {
    let mut answer = pb::WindowsAnswer::default();
    let mut count = 0;
    for tenant in app.storage.db().tenants().iter().filter(|tenant| tenant.id().as_str() > after) {
        if count >= PAGE_WINDOWS {
            answer.more = true;
            break;
        }
        let starts_ms = tenant.windows_ms();
        let stamp = |start_ms: &i64| {
            tenant.content_stamp(&(*start_ms..=start_ms.saturating_add(WINDOW_MS - 1))).to_bytes()
        };
        let stamps: Vec<u8> = starts_ms.iter().flat_map(stamp).collect();
        // A tenant without windows costs something too.
        count += 1 + starts_ms.len();
        let tenant = tenant.id().to_string();
        answer.tenants.push(pb::TenantWindows { tenant, starts_ms, stamps: stamps.into() });
    }
    answer
}

fn stretches(keys: &[u64]) -> Result<Vec<RangeInclusive<u64>>, Status> {
    let wrong = || Status::invalid_argument("stretches of keys ascend, and don't overlap");
    if !keys.len().is_multiple_of(2) || !keys.is_sorted() {
        return Err(wrong());
    }
    let stretches: Vec<_> = keys.chunks_exact(2).map(|pair| pair[0]..=pair[1]).collect();
    if stretches.is_sorted_by(|a, b| a.end() < b.start()) { Ok(stretches) } else { Err(wrong()) }
}

fn known(bytes: &[u8]) -> Result<BTreeMap<u128, Digest>, Status> {
    let (pairs, rest) = bytes.as_chunks::<{ 2 * WORD_BYTES }>();
    if !rest.is_empty() {
        return Err(Status::invalid_argument("what is known comes in pairs of 16 bytes"));
    }
    let word = |pair: &[u8], at: usize| -> [u8; WORD_BYTES] {
        pair[at..at + WORD_BYTES].try_into().expect("a pair has two words")
    };
    Ok(pairs
        .iter()
        .map(|pair| (u128::from_le_bytes(word(pair, 0)), Digest::from_bytes(word(pair, WORD_BYTES))))
        .collect())
}

/// What an asker wants to have.
struct Question {
    times_ms: RangeInclusive<i64>,
    stretches: Vec<RangeInclusive<u64>>,
    known: BTreeMap<u128, Digest>,
    terms: Terms,
    sharing: Sharing,
}

impl Question {
    /// Two walks: the first finds out what differs and how large it is, the second fetches as much as one answer takes.
    fn answer(&self, tenant: &Tenant) -> tsdb::Result<pb::MissingAnswer> {
        let Self { times_ms, terms, sharing, .. } = self;
        let mut differing: Vec<(u64, usize)> = Vec::new();
        let mut columns = tsdb::chunk::Columns::default();
        let mut wanted = |labels: &Labels| {
            let token = token_of(tenant.id(), labels);
            let piece = terms.keys.piece(token);
            holds(&self.stretches, token) && terms.keys.is_shared(piece, sharing.asker, sharing.me)
        };
        tenant.each_series(times_ms, &mut wanted, &mut |series| {
            let fingerprint = SeriesDigester::new(terms.key, &series.labels).fingerprint();
            let differs = match self.known.get(&fingerprint) {
                Some(known) => series.digest(terms.key, times_ms.clone(), &mut columns)? != *known,
                None => true,
            };
            if differs {
                differing.push((token_of(tenant.id(), &series.labels), size_bytes(&series)));
            }
            Ok(())
        })?;
        differing.sort_unstable();
        let mut bytes = 0;
        let mut tokens = BTreeSet::new();
        for (token, size) in &differing {
            if bytes > PAGE_BYTES && !tokens.contains(token) {
                break;
            }
            bytes += size;
            tokens.insert(*token);
        }
        let more = differing.last().is_some_and(|(last, _)| !tokens.contains(last));
        let mut found: Vec<(u64, Series)> = Vec::new();
        let mut wanted = |labels: &Labels| tokens.contains(&token_of(tenant.id(), labels));
        tenant.each_series(times_ms, &mut wanted, &mut |series| {
            found.push((token_of(tenant.id(), &series.labels), without_deleted(series)?));
            Ok(())
        })?;
        found.sort_by_key(|(token, _)| *token);
        Ok(pb::MissingAnswer {
            series: found.iter().map(|(_, series)| series_to_proto(series)).collect(),
            more,
            last_key: tokens.last().copied().unwrap_or_default(),
        })
    }
}

fn size_bytes(series: &Series) -> usize {
    let chunks: usize = series.chunks.iter().map(|chunk| chunk.data.len() + OVERHEAD_BYTES).sum();
    series.labels.as_bytes().len() + chunks + OVERHEAD_BYTES
}

fn without_deleted(series: Series) -> tsdb::Result<Series> {
    if series.deleted_ms.is_empty() {
        return Ok(series);
    }
    let samples = series.samples_as_sent()?;
    Ok(Series::from_samples(series.labels, &samples))
}
