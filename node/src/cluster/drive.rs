//! Drives the ring from one document to the next.
//!
//! Every node watches; one at a time changes: the first living member by store id, and where it doesn't, after a while
//! the next. Should two do so at once, compare-and-swap lets one win. In order of urgency:
//!
//! 1. A joint document is handed to its members, and made final when enough have adopted it; after
//!    `cluster.transition_timeout` it is swapped back, unless a loss was accepted: then it can only go on.
//! 2. Newcomers that gossip has told of, and that answer at their address, join, several at once. One that has the
//!    name of a member that is seen to be away takes that one's place.
//! 3. Earlier placements are closed when enough owners vouch.
//! 4. A member that nobody has seen for `cluster.forget_after` is given up, when enough owners confirm.
//!
//! What can't be done now never keeps what is less urgent from being done, but for a joint document, which does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ring::epoch::{Change, NewMember, Refusal, raise};
use ring::member::Members;
use ring::{Document, Epoch, StoreId, View, rules};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Cluster;
use super::calls::{Vouched, ask_all};
use super::change::ChangeError;
use super::health::TAKEN_BACK;
use crate::bucket;

/// Time between looks at what is to be done.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long what is to be done may wait for each member that should have done it before this one.
const TURN: Duration = Duration::from_secs(5);
/// How long newcomers gather before they join together.
const GATHER: Duration = Duration::from_millis(500);
/// How long a member must have been away before a newcomer at its address takes its place, where neither has a name. Twice
/// as long a newcomer waits whose name a member has.
const NAMESAKE_WAIT: Duration = Duration::from_secs(30);
/// Most newcomers in one transition.
const JOINS_MAX: usize = 64;
/// Pause after a transition had to be taken back, or a change failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
const AFTER_REVERT: Duration = Duration::from_secs(30);
/// How long a change of the ring that was taken back is told of, where none has succeeded since.
const REVERT_TOLD: Duration = Duration::from_secs(3600);
/// How long owners may take to adopt a document before it is told whom it waits for.
const ADOPTION_PATIENCE: Duration = Duration::from_secs(10);

/// Something to be done, in the order in which it is tried.
#[derive(Clone, Copy)]
enum Due {
    Finish,
    Join,
    Close,
    Forget,
}

/// What a newcomer is to the members.
enum Namesake {
    /// No member has its name, or the one that does goes on beside it.
    None,
    /// One has, and is there or may come back.
    Awaited,
    /// One had, and is gone: the newcomer takes its place.
    Gone(StoreId),
}

/// What one node remembers between looks.
pub(super) struct Driver {
    cluster: Arc<Cluster>,
    /// The document that was seen last, and since when.
    seen: (Arc<View>, Instant),
    /// What is told of a change that was taken back, and since when.
    taken_back: Option<(String, Instant)>,
    /// Since when there is something to be done.
    due_since: Option<Instant>,
    /// Newcomers, and since when they wait.
    newcomers_since: Option<Instant>,
    /// Nothing is begun before, since what was begun last failed; what an operator begins is ended all the same.
    begin_not_before: Instant,
    not_before: Instant,
    bucket_seen: Option<Instant>,
}

impl Driver {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        let now = Instant::now();
        Self {
            seen: (cluster.view(), now),
            cluster,
            taken_back: None,
            due_since: None,
            newcomers_since: None,
            begin_not_before: now,
            not_before: now,
            bucket_seen: None,
        }
    }

    /// Drives until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut views = self.cluster.subscribe();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = views.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.look() => {}
            }
        }
    }

    async fn look(&mut self) {
        let cluster = self.cluster.clone();
        let (view, now) = (cluster.view(), Instant::now());
        if view.epoch() != self.seen.0.epoch() {
            self.cluster.note_problem("transition", None);
            self.seen = (view.clone(), now);
            self.due_since = None;
        }
        self.forget_reversal(now);
        self.look_at_bucket(now).await;
        let members = cluster.members();
        let newcomers = newcomers(view.document(), &members);
        self.newcomers_since = match newcomers.is_empty() {
            true => None,
            false => self.newcomers_since.or(Some(now)),
        };
        let gathered = self.newcomers_since.is_some_and(|since| now - since >= GATHER);
        let gone = cluster.gone(&view, &members);
        let due: Vec<Due> = if view.document().is_joint() {
            vec![Due::Finish]
        } else {
            let may_begin = now >= self.begin_not_before;
            let join = (gathered && may_begin).then_some(Due::Join);
            let close = (!view.document().earlier().is_empty()).then_some(Due::Close);
            let forget = (!gone.is_empty() && may_begin).then_some(Due::Forget);
            [join, close, forget].into_iter().flatten().collect()
        };
        if due.is_empty() {
            self.due_since = None;
            return;
        }
        let since = *self.due_since.get_or_insert(now);
        let Some(rank) = rank(&view, &members, cluster.me()) else { return };
        if now < self.not_before || now - since < TURN * rank {
            return;
        }
        for due in due {
            let changed = match due {
                Due::Finish => self.finish(&view).await,
                Due::Join => self.join(&view, &newcomers, &members).await,
                Due::Close => self.close(&view, &members).await,
                Due::Forget => self.forget(&view, &members, &gone).await,
            };
            match changed {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "the ring isn't changed");
                    self.not_before = Instant::now() + AFTER_FAILURE;
                }
            }
        }
    }

    /// Tells no more of a change that was taken back long ago.
    fn forget_reversal(&mut self, now: Instant) {
        let noted = self.cluster.reversal();
        self.taken_back = noted.map(|text| match self.taken_back.take() {
            Some((known, since)) if known == text => (known, since),
            _ => (text, now),
        });
        if self.taken_back.as_ref().is_some_and(|(_, since)| now - *since >= REVERT_TOLD) {
            self.cluster.note_problem(TAKEN_BACK, None);
        }
    }

    /// Takes a newer document from the bucket, now and then: news that no peer has told of.
    async fn look_at_bucket(&mut self, now: Instant) {
        let every = self.cluster.settings.load().bucket_interval.to_std();
        if self.bucket_seen.is_some_and(|seen| now - seen < every) {
            return;
        }
        self.bucket_seen = Some(now);
        // Before it is this node's turn to lead: an operator hears of it while another does.
        let proven = self.cluster.bucket.prove().await;
        let conditions = proven.err().filter(|error| matches!(error, bucket::Error::NoConditions { .. }));
        self.cluster.note_problem("conditions", conditions.map(|error| error.to_string()));
        match self.cluster.documents.current().await {
            Ok(found) => {
                let found = self.cluster.judge_found(found.map(|(document, _)| document));
                self.cluster.note_problem("bucket", found.as_ref().err().map(ToString::to_string));
                if let Ok(Some(newer)) = found
                    && let Err(error) = self.cluster.adopt(newer).await
                {
                    tracing::error!(%error, "the bucket's ring document isn't adopted");
                }
            }
            Err(error) => self.cluster.note_problem("bucket", Some(error.to_string())),
        }
    }

    /// Makes a joint document final when it may be, or swaps it back when that takes too long; whether it did.
    async fn finish(&mut self, view: &Arc<View>) -> Result<bool, ChangeError> {
        let adopted = self.cluster.hand_round(view).await;
        let missing = rules::adoption(view, &adopted);
        let epoch = view.epoch();
        if missing.is_empty() {
            return self.change(|document| step(document, epoch, Document::finish)).await;
        }
        let waited = self.seen.1.elapsed();
        let waiting_for: BTreeSet<_> = missing.iter().flat_map(|m| &m.waiting_for).copied().collect();
        let names: Vec<_> = waiting_for.into_iter().map(|store| self.cluster.name(store)).collect();
        if waited >= ADOPTION_PATIENCE && self.cluster.blocked(view).is_none() {
            let text = format!(
                "a change of the ring waits for owners that are there and don't adopt it ({}): their logs say why",
                names.join(", ")
            );
            self.cluster.note_problem("transition", Some(text));
        }
        if waited < self.cluster.settings.load().transition_timeout.to_std() {
            tracing::debug!(?missing, "waiting for owners to adopt the ring document");
            return Ok(false);
        }
        if let Err(refused) = view.document().revert() {
            tracing::debug!(%refused, waiting_for = ?names, "a change of the ring goes on waiting");
            return Ok(false);
        }
        tracing::error!(waited_s = waited.as_secs(), waiting_for = ?names, "a change of the ring is taken back: too few nodes agree in time");
        self.begin_not_before = Instant::now() + AFTER_REVERT;
        self.change(|document| step(document, epoch, Document::revert)).await
    }

    /// Changes the ring; whether that was done.
    async fn change(
        &self,
        change: impl Fn(&Document) -> Result<Option<Document>, Refusal>,
    ) -> Result<bool, ChangeError> {
        Ok(self.cluster.change(change).await?.is_some())
    }

    /// Lets newcomers in that answer at their addresses; whether it let any.
    async fn join(
        &mut self,
        view: &View,
        newcomers: &BTreeMap<StoreId, NewMember>,
        members: &Members,
    ) -> Result<bool, ChangeError> {
        let mut change = Change::default();
        for (store, member) in newcomers.clone().into_iter().take(JOINS_MAX) {
            let hello = self
                .cluster
                .calls
                .hello(&member.peer_address, self.cluster.me(), self.cluster.age_before())
                .await;
            match hello {
                Ok(hello) if hello.store == store => {}
                other => {
                    let answer = other.map(|hello| format!("store {} is there", hello.store));
                    tracing::warn!(
                        name = member.name,
                        address = member.peer_address,
                        ?answer,
                        "a node wants to join and can't be reached at the address that it advertises"
                    );
                    continue;
                }
            }
            match self.namesake(view.document(), members, store, &member).await {
                Namesake::Awaited => tracing::info!(
                    name = member.name,
                    "a node wants to join under the name of one that may come back: waiting"
                ),
                Namesake::Gone(old) if !change.replaces.contains_key(&old) => {
                    change.replaces.insert(old, (store, member));
                }
                Namesake::None | Namesake::Gone(_) => drop(change.joins.insert(store, member)),
            }
        }
        self.newcomers_since = None;
        if change == Change::default() {
            self.begin_not_before = Instant::now() + AFTER_FAILURE;
            return Ok(false);
        }
        let names: Vec<_> = change.joins.values().map(|m| m.name.clone()).collect();
        let replacing: Vec<_> = change.replaces.values().map(|(_, m)| m.name.clone()).collect();
        tracing::info!(joining = ?names, ?replacing, "changing the ring");
        let epoch = view.epoch();
        self.change(|document| step(document, epoch, |document| document.change(&change))).await
    }

    /// What a newcomer is to a member of its name. Neither name nor address proves that the other one's disk is gone: it
    /// may just be restarting, and another have got its address. So it must be seen to be away; and where the name is
    /// nothing but the address, for a while.
    async fn namesake(
        &self,
        document: &Document,
        members: &Members,
        store: StoreId,
        new: &NewMember,
    ) -> Namesake {
        let patience = if new.name == new.peer_address { NAMESAKE_WAIT } else { Duration::ZERO };
        let mut has_namesake = false;
        for (old, info) in document.active().filter(|(_, old)| old.name == new.name) {
            has_namesake = true;
            let is_away = !is_alive(members, old) && self.cluster.missed(old) >= patience;
            if is_away && !self.answers(old, &info.peer_address).await {
                return Namesake::Gone(old);
            }
        }
        if !has_namesake {
            return Namesake::None;
        }
        let waits = members.seen.get(&store).is_some_and(|seen| seen.since.elapsed() < 2 * NAMESAKE_WAIT);
        if waits { Namesake::Awaited } else { Namesake::None }
    }

    /// Whether a store answers at an address, though gossip calls it away.
    async fn answers(&self, store: StoreId, address: &str) -> bool {
        let (me, age) = (self.cluster.me(), self.cluster.age_before());
        self.cluster.calls.hello(address, me, age).await.is_ok_and(|hello| hello.store == store)
    }

    /// Closes a placement for which enough owners vouch; whether there was one.
    async fn close(&self, view: &Arc<View>, members: &Members) -> Result<bool, ChangeError> {
        let cluster = &self.cluster;
        let earlier = view.document().earlier();
        let mut owners: BTreeSet<StoreId> = earlier.iter().flat_map(|p| p.members.keys()).copied().collect();
        let mut answers: BTreeMap<StoreId, Vouched> = BTreeMap::new();
        if owners.remove(&cluster.me()) {
            answers.insert(cluster.me(), cluster.vouches());
        }
        owners.retain(|store| is_alive(members, *store));
        let (calls, epoch) = (cluster.calls.clone(), view.epoch());
        answers.extend(
            ask_all(owners, move |store| {
                let calls = calls.clone();
                async move { calls.vouch(store, epoch).await }
            })
            .await,
        );
        for placement in earlier {
            let id = placement.id;
            if rules::sealed_by(view, id).is_none() {
                continue;
            }
            let vouching: BTreeSet<StoreId> = answers
                .iter()
                .filter(|(_, vouched)| vouched.placements.contains(&id))
                .map(|(store, _)| *store)
                .collect();
            if let Some(missing) = rules::closing(view, id, &vouching) {
                tracing::debug!(placement = id, ?missing, "a placement stays open");
                continue;
            }
            let mut catalogs: BTreeMap<String, u64> = BTreeMap::new();
            raise(&mut catalogs, vouching.iter().flat_map(|store| &answers[store].catalogs));
            tracing::info!(placement = id, "closing a placement: all of it lies in listed blocks");
            return self
                .change(|document| step(document, epoch, |document| document.close(id, &catalogs)))
                .await;
        }
        Ok(false)
    }

    /// Gives up a member that enough owners have missed for long enough; whether there was one.
    async fn forget(
        &self,
        view: &Arc<View>,
        members: &Members,
        gone: &BTreeSet<StoreId>,
    ) -> Result<bool, ChangeError> {
        let cluster = &self.cluster;
        let Some(patience) = cluster.settings.load().forget_after.max() else { return Ok(false) };
        for store in gone {
            let mut others: BTreeSet<StoreId> = view.stores().map(|(_, other)| other).collect();
            others.retain(|other| other != store && is_alive(members, *other));
            let mut confirming = BTreeSet::new();
            if others.remove(&cluster.me()) && cluster.is_sound() {
                confirming.insert(cluster.me());
            }
            let (calls, missed) = (cluster.calls.clone(), *store);
            let answers = ask_all(others, move |other| {
                let calls = calls.clone();
                async move { calls.missed(other, missed).await }
            });
            let confirmed = |(other, (missed, sound)): (StoreId, (Duration, bool))| {
                (sound && missed >= patience.to_std()).then_some(other)
            };
            confirming.extend(answers.await.into_iter().filter_map(confirmed));
            let missing = rules::forgetting(view, *store, &confirming);
            if !missing.is_empty() {
                tracing::debug!(%store, ?missing, "a member that is gone can't be given up yet");
                continue;
            }
            tracing::warn!(name = cluster.name(*store), %store, "nobody has seen a member for long: it is given up");
            let epoch = view.epoch();
            let lose = Change::lose(*store);
            return self.change(|document| step(document, epoch, |document| document.change(&lose))).await;
        }
        Ok(false)
    }
}

/// Applies a step to the document that it was decided on, and none other.
fn step(
    document: &Document,
    decided_on: Epoch,
    step: impl FnOnce(&Document) -> Result<Document, Refusal>,
) -> Result<Option<Document>, Refusal> {
    if document.epoch == decided_on { step(document).map(Some) } else { Ok(None) }
}

/// Who gossips and was never part of the ring.
fn newcomers(document: &Document, members: &Members) -> BTreeMap<StoreId, NewMember> {
    let new = members.seen.iter().filter(|(store, seen)| seen.alive && !document.members.contains_key(store));
    new.map(|(store, seen)| {
        let profile = seen.profile.clone();
        let member = NewMember {
            name: profile.name,
            zone: profile.zone,
            peer_address: profile.peer_address,
            http_address: profile.http_address,
        };
        (*store, member)
    })
    .filter(|(_, member)| !member.peer_address.is_empty())
    .collect()
}

/// How many living members should act before this one; `None` where this isn't a member.
fn rank(view: &View, members: &Members, me: StoreId) -> Option<u32> {
    let active: Vec<StoreId> = view.document().active().map(|(store, _)| store).collect();
    let before = active.iter().filter(|store| **store < me && is_alive(members, **store)).count();
    active.contains(&me).then_some(before as u32)
}

pub(super) fn is_alive(members: &Members, store: StoreId) -> bool {
    members.seen.get(&store).is_some_and(|seen| seen.alive)
}
