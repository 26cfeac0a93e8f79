//! Following what others tell, by gossip and on every call: newer documents, new addresses, who is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ring::gossip::Gossip;
use ring::member::{Members, Profile};
use ring::{StoreId, View};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::gossip::OverCalls;
use super::rollback::Age;
use super::{Cluster, belongs, drive};

/// Pause before news are fetched again after a failure.
const FETCH_RETRY: Duration = Duration::from_millis(500);
/// Longest time between looks at who is away; after a longer one this node was paused, and what it saw counts no more.
const WATCH_EVERY: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_secs(10);
/// How long a member that this node hasn't heard of since its start isn't called away.
const FRESH_FOR: Duration = Duration::from_secs(30);

impl Cluster {
    pub(super) fn start_gossip(&self) -> Gossip {
        let view = self.view();
        let me = ring::gossip::Me {
            cluster: view.document().cluster,
            store: self.me(),
            incarnation: self.identity.incarnation,
            instance: self.instance,
        };
        let settings = self.settings.load();
        let seeds = settings.seeds.0.iter().map(|seed| seed.0.clone());
        let members = view.document().members.values().filter(|m| belongs(m)).map(|m| m.peer_address.clone());
        let all: BTreeSet<String> = seeds.chain(members).filter(|a| *a != self.info.peer_address).collect();
        let transport = Arc::new(OverCalls::new(self.calls.clone()));
        let interval = settings.gossip_interval.to_std();
        Gossip::start(me, self.profile(), all.into_iter().collect(), transport, interval)
    }

    /// Tells the others at once what has changed of this node, and not only with the next news of theirs.
    pub(crate) fn tell_others(&self) {
        if let Some(gossip) = self.gossip.get() {
            gossip.say(self.profile());
        }
    }

    fn profile(&self) -> Profile {
        Profile {
            name: self.info.name.clone(),
            zone: self.info.zone.clone(),
            peer_address: self.info.peer_address.clone(),
            http_address: self.info.http_address.clone(),
            ring_epoch: self.view().epoch(),
            ready: self.is_ready(),
            headroom_percent: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            watermark: self.age().watermark,
        }
    }

    /// Follows what others tell, by gossip and on every call: newer documents, new addresses, who is away.
    pub(super) async fn follow(self: Arc<Self>, gossip: &Gossip, stop: CancellationToken) {
        let (mut news, mut views, mut members) =
            (self.peers.me().newest(), self.subscribe(), gossip.members());
        let began = Instant::now();
        let mut watched = began;
        loop {
            gossip.say(self.profile());
            let known = members.borrow_and_update().clone();
            let now = Instant::now();
            self.watch(&known, now - watched >= PAUSE_MIN);
            watched = now;
            self.note_away(&self.view(), &known, now - began < FRESH_FOR);
            self.tell_addresses(&known);
            self.note_starts(&known).await;
            let (heard, held) = (*news.borrow_and_update(), views.borrow_and_update().epoch());
            let gossiped = known
                .seen
                .iter()
                .filter(|(_, seen)| seen.alive)
                .max_by_key(|(_, seen)| seen.profile.ring_epoch);
            let newest = match gossiped {
                Some((store, seen)) if seen.profile.ring_epoch > heard.epoch => {
                    Some((seen.profile.ring_epoch, *store))
                }
                _ => heard.store.map(|store| (heard.epoch, store)),
            };
            let fetched = match newest {
                Some((epoch, store)) if epoch > held => self.fetch(store).await,
                _ => true,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = news.changed(), if fetched => {}
                _ = members.changed(), if fetched => {}
                _ = views.changed(), if fetched => {}
                () = tokio::time::sleep(if fetched { WATCH_EVERY } else { FETCH_RETRY }) => {}
            }
        }
    }

    /// Remembers how far others have come, so that one whose disk is put back to an earlier state is told so.
    async fn note_starts(&self, members: &Members) {
        for (store, seen) in members.seen.iter().filter(|(store, _)| **store != self.me()) {
            let age = Age { incarnation: seen.incarnation, watermark: seen.profile.watermark };
            if let Err(error) = self.note_age(*store, age).await {
                tracing::error!(%error, "the ledger can't be written");
            }
        }
    }

    /// Keeps account of who is away. What was seen before a pause of this node, or while it was cut off itself, counts
    /// for nothing.
    fn watch(&self, members: &Members, paused: bool) {
        let view = self.view();
        let mut missing = self.missing.lock();
        if paused || members.suspects_itself {
            missing.clear();
        }
        if members.suspects_itself {
            return;
        }
        let now = Instant::now();
        let away: BTreeSet<StoreId> = view
            .document()
            .active()
            .map(|(store, _)| store)
            .filter(|store| *store != self.me() && !drive::is_alive(members, *store))
            .collect();
        missing.retain(|store, _| away.contains(store));
        for store in away {
            missing.entry(store).or_insert(now);
        }
    }

    /// How long this node has missed a store without a break.
    pub(super) fn missed(&self, store: StoreId) -> Duration {
        self.missing.lock().get(&store).map_or(Duration::ZERO, Instant::elapsed)
    }

    /// Active members that have been away for longer than is put up with.
    pub(super) fn gone(&self, view: &View, members: &Members) -> BTreeSet<StoreId> {
        let Some(patience) = self.settings.load().forget_after.max() else { return BTreeSet::new() };
        let active = view.document().active().map(|(store, _)| store);
        active
            .filter(|store| !drive::is_alive(members, *store) && self.missed(*store) >= patience.to_std())
            .filter(|store| *store != self.me())
            .collect()
    }

    /// Where stores are: as they say themselves, else as the ring document has it.
    pub(super) fn tell_addresses(&self, members: &Members) {
        let view = self.view();
        let mut addresses: BTreeMap<StoreId, String> =
            view.document().members.iter().map(|(id, m)| (*id, m.peer_address.clone())).collect();
        let said =
            members.seen.iter().filter(|(_, seen)| seen.alive && !seen.profile.peer_address.is_empty());
        addresses.extend(said.map(|(store, seen)| (*store, seen.profile.peer_address.clone())));
        self.peers.me().set_addresses(addresses);
    }

    /// Fetches and adopts the document that a store has; whether that worked.
    async fn fetch(self: &Arc<Self>, store: StoreId) -> bool {
        let fetched = self.calls.document(store).await;
        let adopted = match fetched {
            Ok(document) => self.adopt(document).await.map_err(|e| e.to_string()),
            Err(status) => Err(status.message().to_owned()),
        };
        adopted
            .inspect_err(|error| tracing::debug!(%store, error, "a newer ring document wasn't fetched"))
            .is_ok()
    }
}
