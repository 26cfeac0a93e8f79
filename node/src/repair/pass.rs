//! The asking side: one round through all peers that hold what this node should hold.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use proto::peer::repair as pb;
use proto::peer::repair::repair_client::RepairClient;
use ring::StoreId;
use ring::epoch::MemberState;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tsdb::db::{ContentStamp, WINDOW_MS};
use tsdb::digest::{Digest, DigestKey};
use tsdb::model::TenantId;
use tsdb::select::Series;

use super::digests::{self, Summaries, Terms, token_of};
use super::fill::{Filled, fill};
use super::keys::holds;
use super::{CALL_TIMEOUT, EDGE_MS, EDGE_STEP_MS, PULL_BYTES_PER_S, REST_FACTOR, compute};
use crate::grpc::{Lane, MESSAGE_BYTES_MAX, PeerChannel, series_from_proto};
use crate::node::App;

/// Looks at a window that differs and is appended to all the time, before it is pulled from all the same.
pub(super) const LOOKS_MAX: u32 = 5;
/// Of our own series, about how many are told to a peer at once; 32 bytes each.
const KNOWN_SERIES: u64 = 4_096;

/// A peer's window of a tenant, by its start.
type Of = (StoreId, TenantId, i64);

/// What rounds leave for the next.
#[derive(Default)]
pub(super) struct Memory {
    /// Windows in which a peer has nothing that we lack, as long as both stamps stay.
    equal: BTreeMap<Of, Equal>,
    /// Windows that differed when they were last looked at.
    differing: BTreeMap<Of, Differing>,
    /// How often something was pulled.
    pulls: u64,
}

impl Memory {
    /// Whether some windows are to be looked at again soon.
    pub(super) fn is_waiting(&self) -> bool {
        !self.differing.is_empty()
    }
}

/// Replicas get the same samples at slightly different moments, and those of a backlog long after their time: a window
/// that differs is pulled from only once neither side has been appended to between two looks, or after several.
struct Differing {
    own: Option<ContentStamp>,
    theirs: Vec<u8>,
    looks: u32,
    /// Of [`Memory::pulls`]: what was pulled since has changed our stamp, and says nothing of what is on its way.
    pulls: u64,
}

/// When that was found.
struct Equal {
    epoch: ring::Epoch,
    /// Ours; `None` while we have nothing of the tenant.
    own: Option<ContentStamp>,
    theirs: Vec<u8>,
    round: u64,
}

/// Which windows are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// All.
    All,
    /// Those that differed at the last look.
    Again,
}

/// Compares with each peer once, and pulls. Peers that can't be asked are left for the next round.
pub(super) async fn round(app: &Arc<App>, memory: &mut Memory, look: Look) {
    let repair = &app.repair;
    let (Some(view), Some(links)) = (repair.view(), repair.links.get()) else { return };
    let me = links.peers.me().store();
    let keys = repair.keys(&view);
    let number = repair.progress.lock().rounds + u64::from(look == Look::All);
    let (mut lacking, mut unasked) = (0, 0);
    for peer in keys.sources(me) {
        let state = view.document().members.get(&peer).map(|member| member.state);
        if state.is_none_or(|state| state.is_lost() || state == MemberState::Left) {
            continue;
        }
        if look == Look::Again && !memory.differing.keys().any(|(of, ..)| *of == peer) {
            continue;
        }
        let terms = Terms { key: DigestKey::new(view.document().digest_key), keys: keys.clone() };
        let asked = match links.peers.to_store(peer, Lane::Data) {
            Ok(channel) => {
                let client = client(channel);
                let mut asker = Asker { app, peer, me, terms, client, memory, look, number, lacking: 0 };
                let asked = asker.compare().await;
                lacking += asker.lacking;
                asked
            }
            Err(status) => Err(status),
        };
        if let Err(status) = asked {
            memory.differing.retain(|(of, ..), _| *of != peer);
            unasked += 1;
            let mut progress = repair.progress.lock();
            progress.failures += 1;
            progress.failure = Some(format!("{peer}: {}", status.message()));
            drop(progress);
            // A peer that is away, or at another ring document, is no news.
            if matches!(status.code(), Code::Unavailable | Code::FailedPrecondition) {
                tracing::debug!(%peer, error = status.message(), "repair waits");
            } else {
                tracing::warn!(%peer, error = status.message(), "repair from a peer failed, and is tried again");
            }
        }
    }
    let mut progress = repair.progress.lock();
    progress.lacking = lacking;
    if unasked > 0 {
        progress.whole = None;
    } else if look == Look::All {
        progress.whole = Some(view.epoch());
    }
    if look == Look::All {
        memory.equal.retain(|_, equal| equal.round == number);
        progress.rounds = number;
        progress.round_ended_ms = Some(app.env.clock.now_ms());
        progress.unasked = unasked;
    }
}

fn client(channel: PeerChannel) -> RepairClient<PeerChannel> {
    RepairClient::new(channel.timeout(CALL_TIMEOUT)).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The comparison with one peer.
struct Asker<'a> {
    app: &'a Arc<App>,
    peer: StoreId,
    me: StoreId,
    terms: Terms,
    client: RepairClient<PeerChannel>,
    memory: &'a mut Memory,
    look: Look,
    number: u64,
    lacking: u64,
}

impl Asker<'_> {
    async fn compare(&mut self) -> Result<(), Status> {
        let mut after = String::new();
        loop {
            let request = pb::WindowsRequest { after: std::mem::take(&mut after) };
            let page = self.client.windows(request).await?.into_inner();
            for windows in &page.tenants {
                let tenant = TenantId::new(&windows.tenant).map_err(garbage)?;
                let (stamps, _) = windows.stamps.as_chunks::<16>();
                if stamps.len() != windows.starts_ms.len() {
                    return Err(garbage("windows and stamps don't agree"));
                }
                for (start_ms, stamp) in windows.starts_ms.iter().zip(stamps) {
                    self.window(&tenant, *start_ms, stamp).await?;
                }
            }
            match page.tenants.last() {
                Some(last) if page.more => after.clone_from(&last.tenant),
                _ => return Ok(()),
            }
        }
    }

    /// Compares one window, and pulls what is lacking in it. `theirs` is the peer's stamp.
    async fn window(&mut self, tenant: &TenantId, start_ms: i64, theirs: &[u8]) -> Result<(), Status> {
        let last_ms = start_ms.saturating_add(WINDOW_MS - 1);
        let now_ms = self.app.env.clock.now_ms();
        let edge_ms = (now_ms - EDGE_MS).div_euclid(EDGE_STEP_MS) * EDGE_STEP_MS - 1;
        // Where a peer has samples of a time that is still to come by this node's clock, the clock is wrong: repair
        // doesn't wait until somebody sets it.
        let times_ms = start_ms..=if start_ms > now_ms { last_ms } else { last_ms.min(edge_ms) };
        let here = self.app.storage.existing(tenant);
        let retention_ms = here.as_ref().and_then(|here| here.settings().retention_ms);
        // What is about to be removed isn't worth the way, and would come back after it was.
        let is_old = retention_ms.is_some_and(|kept_ms| start_ms <= now_ms.saturating_sub(kept_ms));
        if times_ms.is_empty() || is_old {
            return Ok(());
        }
        let own = here.as_ref().map(|here| here.content_stamp(&(start_ms..=last_ms)));
        let epoch = self.terms.keys.epoch();
        let of = (self.peer, tenant.clone(), start_ms);
        if let Some(known) = self.memory.equal.get_mut(&of)
            && (known.epoch, known.own, &*known.theirs) == (epoch, own, theirs)
        {
            known.round = self.number;
            return Ok(());
        }
        let last = self.memory.differing.remove(&of);
        if last.is_none() && self.look == Look::Again {
            return Ok(());
        }
        let differing = self.differing(tenant, &times_ms).await?;
        let mut stored = 0;
        if !differing.is_empty() {
            self.lacking += 1;
            let looks = last.as_ref().map_or(0, |last| last.looks) + 1;
            let pulls = self.memory.pulls;
            let is_still =
                |last: &Differing| *last.theirs == *theirs && (last.own == own || last.pulls != pulls);
            if !last.as_ref().is_some_and(is_still) && looks < LOOKS_MAX {
                self.memory.differing.insert(of, Differing { own, theirs: theirs.to_vec(), looks, pulls });
                return Ok(());
            }
            stored = self.pull(tenant, &times_ms, &differing).await?;
            self.memory.pulls += u64::from(stored > 0);
            // Whoever has all that the other has, and more, differs and lacks nothing.
            self.lacking -= u64::from(stored == 0);
        }
        if stored == 0 && *times_ms.end() == last_ms {
            let equal = Equal { epoch, own, theirs: theirs.to_vec(), round: self.number };
            self.memory.equal.insert(of, equal);
        }
        Ok(())
    }

    /// Pieces of keys in which the peer has other samples than we, ours beside them.
    async fn differing(
        &mut self,
        tenant: &TenantId,
        times_ms: &RangeInclusive<i64>,
    ) -> Result<Summaries, Status> {
        let request = pb::DigestsRequest {
            epoch: self.terms.keys.epoch(),
            tenant: tenant.to_string(),
            start_ms: *times_ms.start(),
            end_ms: *times_ms.end(),
        };
        let theirs = self.client.digests(request).await?.into_inner();
        let (digests, _) = theirs.digests.as_chunks::<16>();
        if digests.len() != theirs.ranges.len() {
            return Err(garbage("ranges and digests don't agree"));
        }
        let mut own = match self.app.storage.existing(tenant) {
            None => Summaries::new(),
            Some(here) => {
                let (terms, times_ms) = (self.terms.clone(), times_ms.clone());
                self.work(move |app| digests::of_window(&app.repair.digests, &here, &terms, &times_ms))
                    .await?
            }
        };
        let mut differing = Summaries::new();
        for (piece, digest) in theirs.ranges.iter().zip(digests) {
            let summary = own.remove(piece).unwrap_or_default();
            let is_mine = self.terms.keys.is_shared(*piece, self.me, self.peer);
            if is_mine && summary.digest != Digest::from_bytes(*digest) {
                differing.insert(*piece, summary);
            }
        }
        let mut progress = self.app.repair.progress.lock();
        progress.compared += 1;
        progress.differing += u64::from(!differing.is_empty());
        Ok(differing)
    }

    /// Pulls what is lacking in some pieces of keys; tells how many samples that was.
    async fn pull(
        &mut self,
        tenant: &TenantId,
        times_ms: &RangeInclusive<i64>,
        differing: &Summaries,
    ) -> Result<u64, Status> {
        if planted::is(planted::Bug::RepairNeverPulls) {
            return Ok(0);
        }
        let mut stored = 0;
        let mut rest = differing.iter().peekable();
        while rest.peek().is_some() {
            let (mut pieces, mut series) = (Vec::new(), 0);
            while series < KNOWN_SERIES
                && let Some((piece, summary)) = rest.next()
            {
                series += summary.series;
                pieces.push(*piece);
            }
            stored += self.pull_keys(tenant, times_ms, self.terms.keys.stretches(&pieces)).await?;
        }
        Ok(stored)
    }

    async fn pull_keys(
        &mut self,
        tenant: &TenantId,
        times_ms: &RangeInclusive<i64>,
        mut stretches: Vec<RangeInclusive<u64>>,
    ) -> Result<u64, Status> {
        let known = self.known(tenant, times_ms, stretches.clone()).await?;
        let mut stored = 0;
        loop {
            let request = pb::MissingRequest {
                epoch: self.terms.keys.epoch(),
                tenant: tenant.to_string(),
                start_ms: *times_ms.start(),
                end_ms: *times_ms.end(),
                keys: stretches.iter().flat_map(|keys| [*keys.start(), *keys.end()]).collect(),
                known: known.clone().into(),
            };
            let page = self.client.missing(request).await?.into_inner();
            let (more, last_key) = (page.more, page.last_key);
            stored += self.take(tenant, times_ms, &stretches, page.series).await?;
            let left = behind(stretches, last_key);
            if !more || left.is_empty() {
                return Ok(stored);
            }
            stretches = left;
        }
    }

    /// What we have of some keys, as a peer reads it.
    async fn known(
        &self,
        tenant: &TenantId,
        times_ms: &RangeInclusive<i64>,
        stretches: Vec<RangeInclusive<u64>>,
    ) -> Result<Vec<u8>, Status> {
        let Some(here) = self.app.storage.existing(tenant) else { return Ok(Vec::new()) };
        let (key, times_ms) = (self.terms.key, times_ms.clone());
        let found = self.work(move |_| digests::of_series(&here, key, &times_ms, &|k| holds(&stretches, k)));
        let mut found = found.await?;
        found.sort_unstable_by_key(|series| series.fingerprint);
        let word = |series: &digests::OneSeries| {
            [series.fingerprint.to_le_bytes(), series.digest.to_bytes()].concat()
        };
        Ok(found.iter().flat_map(word).collect())
    }

    /// Stores a page of series, safely; rests as long as it would have taken at the highest speed.
    async fn take(
        &self,
        tenant: &TenantId,
        times_ms: &RangeInclusive<i64>,
        stretches: &[RangeInclusive<u64>],
        page: Vec<pb::Series>,
    ) -> Result<u64, Status> {
        if page.is_empty() {
            return Ok(0);
        }
        let bytes: usize = page.iter().flat_map(|series| &series.chunks).map(|chunk| chunk.data.len()).sum();
        let series: Vec<Series> =
            page.into_iter().map(series_from_proto).collect::<tsdb::Result<_>>().map_err(garbage)?;
        if series.iter().any(|series| !holds(stretches, token_of(tenant, &series.labels))) {
            return Err(garbage("a series of other keys came than were asked for"));
        }
        let here = self.app.intake.tenant(tenant).map_err(failed)?;
        let (count, times_ms) = (series.len() as u64, times_ms.clone());
        let Filled { position, stored, refused } = self.work(move |_| fill(&here, series, &times_ms)).await?;
        self.app.committer.wait(position).await.map_err(failed)?;
        {
            let mut progress = self.app.repair.progress.lock();
            progress.series += count;
            progress.samples += stored;
            progress.bytes += bytes as u64;
            progress.refused += refused;
        }
        sleep(Duration::from_secs_f64(bytes as f64 / f64::from(PULL_BYTES_PER_S))).await;
        Ok(stored)
    }

    /// Computes in turn, and rests.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&App) -> tsdb::Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let (done, took) = compute(self.app, |app| {
            let began = Instant::now();
            (work(app), began.elapsed())
        })
        .await;
        sleep(took * REST_FACTOR).await;
        done.map_err(failed)
    }
}

/// What is left of some stretches behind a key.
fn behind(stretches: Vec<RangeInclusive<u64>>, key: u64) -> Vec<RangeInclusive<u64>> {
    let Some(next) = key.checked_add(1) else { return Vec::new() };
    let left = stretches.into_iter().filter(|keys| *keys.end() >= next);
    left.map(|keys| next.max(*keys.start())..=*keys.end()).collect()
}

fn garbage(what: impl std::fmt::Display) -> Status {
    Status::data_loss(format!("the peer's answer makes no sense: {what}"))
}

#[allow(clippy::needless_pass_by_value, reason = "what `map_err` takes")]
fn failed(error: tsdb::Error) -> Status {
    Status::internal(error.to_string())
}
