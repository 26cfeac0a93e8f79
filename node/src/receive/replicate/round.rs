//! One write by one ring document: its routes, and what the replicas have said.
//!
//! A round outlives the request that began it: frames in flight hold it, so that replicas that are late, or never
//! answer, still get theirs or a hint, whether or not somebody waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use ring::{StoreId, View};
use tokio::sync::Notify;

use super::content::{Content, Item};
use super::family_token;
use super::route::{Quorums, Route, Routes};
use super::tally::{Fate, Tally, Word};
use crate::grpc::frame::Verdict;

/// An item on its way to one of its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which item of the content.
    pub item: u32,
    /// Which hop of its route.
    pub hop: u8,
}

/// A write under way.
pub struct Round {
    /// What is written.
    pub content: Arc<Content>,
    /// By which document.
    pub view: Arc<View>,
    /// By series; `None` for those whose labels can't be stored.
    series: Vec<Option<Arc<Route>>>,
    /// By family.
    families: Vec<Arc<Route>>,
    tally: Mutex<Tally>,
    /// The first trouble with each store.
    troubles: Mutex<BTreeMap<StoreId, String>>,
    decided: Notify,
    /// Whether some replica goes by a newer document.
    is_outdated: AtomicBool,
}

impl Round {
    /// Finds the routes of everything, and refuses what no replica would take: bad labels, and what is too old or too
    /// far ahead whatever its series holds.
    pub fn new(content: Arc<Content>, view: Arc<View>, routes: &Routes) -> Self {
        let salt = content.salt();
        let mut series = Vec::with_capacity(content.series_count());
        for index in 0..content.series_count() as u32 {
            let key = content.key(index);
            let route = routes.find(salt, key, &view).or_else(|| match content.labels(index) {
                Ok(labels) => {
                    let token = ring::hash::series_token(content.tenant.id().as_str(), labels.iter());
                    let route = Arc::new(Route::new(&view, token));
                    routes.insert(salt, key, &route);
                    Some(route)
                }
                Err(_) => None,
            });
            series.push(route);
        }
        let family = |metadata: &tsdb::db::Metadata| {
            Arc::new(Route::new(&view, family_token(content.tenant.id().as_str(), &metadata.family)))
        };
        let families = content.batch.metadata.iter().map(family).collect();
        let tally = Mutex::new(Tally::new(content.item_count()));
        let round = Self {
            content,
            view,
            series,
            families,
            tally,
            troubles: Mutex::default(),
            decided: Notify::new(),
            is_outdated: AtomicBool::new(false),
        };
        round.judge();
        round
    }

    fn judge(&self) {
        let bounds = self.content.bounds();
        let oldest_ms = bounds.in_order_min_ms.min(bounds.out_of_order_min_ms);
        let mut tally = self.tally.lock();
        for item in 0..self.content.item_count() {
            let verdict = match self.content.item(item) {
                _ if self.route(item).is_none() => Verdict::Invalid,
                Item::Sample(_, sample) if sample.timestamp_ms > bounds.max_ms => Verdict::TooFarAhead,
                Item::Sample(_, sample) if sample.timestamp_ms < oldest_ms => Verdict::TooOld,
                _ => continue,
            };
            tally.refuse(item, verdict);
        }
    }

    /// Where an item goes; `None` when its labels can't be stored.
    #[inline]
    pub fn route(&self, item: usize) -> Option<&Arc<Route>> {
        match self.content.item(item) {
            Item::Sample(series, _) | Item::Exemplar(series, _) => self.series[series as usize].as_ref(),
            Item::Family(_) => {
                let first = self.content.item_count() - self.families.len();
                Some(&self.families[item - first])
            }
        }
    }

    /// Where a series goes.
    pub fn series_route(&self, series: u32) -> Option<&Arc<Route>> {
        self.series[series as usize].as_ref()
    }

    /// All items that aren't refused, with all their hops, by store; in the order of items.
    pub fn places(&self) -> Vec<Vec<Place>> {
        let mut by_store: Vec<Vec<Place>> = Vec::new();
        by_store.resize_with(self.view.document().members.len(), Vec::new);
        let tally = self.tally.lock();
        for item in 0..self.content.item_count() {
            let Some(route) = self.route(item) else { continue };
            if matches!(tally.fate(item, &route.quorums), Fate::Refused(_)) {
                continue;
            }
            for (hop, to) in route.hops.iter().enumerate() {
                by_store[usize::from(to.store.0)].push(Place { item: item as u32, hop: hop as u8 });
            }
        }
        by_store
    }

    /// A replica has answered, or all that it was asked for is missed.
    pub fn hear(&self, words: impl IntoIterator<Item = (Place, Word)>) {
        let mut tally = self.tally.lock();
        for (place, word) in words {
            let route = self.route(place.item as usize).expect("only items with a route are sent");
            tally.hear(place.item as usize, place.hop, word, &route.quorums);
        }
        if tally.is_decided() {
            self.decided.notify_waiters();
        }
    }

    /// A store refuses an item for good, and this node believes it: nobody else is asked.
    pub fn refuse(&self, item: u32, why: Verdict) {
        self.tally.lock().refuse(item as usize, why);
    }

    /// Nobody has these items from `store`, and why.
    pub fn miss(&self, store: StoreId, places: &[Place], why: &str) {
        self.troubles.lock().entry(store).or_insert_with(|| why.to_owned());
        self.hear(places.iter().map(|place| (*place, Word::Missed)));
    }

    /// A replica goes by a newer document.
    pub fn outdated(&self) {
        self.is_outdated.store(true, Ordering::Relaxed);
    }

    /// Whether a replica goes by a newer document.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated.load(Ordering::Relaxed)
    }

    /// Waits until more waiting can't change anything.
    pub async fn decided(&self) {
        loop {
            let decided = self.decided.notified();
            if self.tally.lock().is_decided() {
                return;
            }
            decided.await;
        }
    }

    /// What became of each item.
    pub fn fates(&self) -> Vec<Fate> {
        const NONE: Quorums = Quorums::of([(0, 1), (0, 0)]);
        let tally = self.tally.lock();
        let fate = |item| tally.fate(item, self.route(item).map_or(&NONE, |route| &route.quorums));
        (0..self.content.item_count()).map(fate).collect()
    }

    /// Why an item was refused, for the sender to read.
    pub fn describe(&self, item: usize, why: &str) -> String {
        let (series, timestamp_ms) = match self.content.item(item) {
            Item::Sample(series, sample) => (series, sample.timestamp_ms),
            Item::Exemplar(series, exemplar) => (series, exemplar.timestamp_ms),
            Item::Family(family) => return format!("metadata of {}: {why}", family.family),
        };
        match self.content.labels(series) {
            Ok(labels) => format!("{labels}: timestamp {timestamp_ms} {why}"),
            Err(wrong) => wrong,
        }
    }

    /// Which parts of the ring lack a quorum, and which stores didn't help, for a sender's log.
    pub fn no_quorum(&self) -> String {
        let tally = self.tally.lock();
        let mut ranges = BTreeMap::new();
        let mut stores = BTreeMap::new();
        let mut open = 0u64;
        for item in 0..self.content.item_count() {
            let Some(route) = self.route(item) else { continue };
            if tally.fate(item, &route.quorums) != Fate::Open {
                continue;
            }
            open += 1;
            let keys = self.view.current().range(route.token).keys();
            ranges.insert(*keys.start(), *keys.end());
            let lacking = tally.lacking(item, route.quorums.hops());
            for (hop, to) in route.hops.iter().enumerate() {
                if lacking & 1 << hop != 0 {
                    *stores.entry(self.view.store(to.store)).or_insert(0u64) += 1;
                }
            }
        }
        drop(tally);
        let troubles = self.troubles.lock();
        let listed = |all: Vec<String>| match all.len().checked_sub(LISTED_MAX) {
            Some(more @ 1..) => format!("{} and {more} more", all[..LISTED_MAX].join(", ")),
            _ => all.join(", "),
        };
        let ranges = ranges.iter().map(|(start, end)| format!("{start:016x}-{end:016x}")).collect();
        let member = |store: &StoreId| match self.view.document().members.get(store) {
            Some(member) => format!("{} ({})", member.name, member.peer_address),
            None => store.to_string(),
        };
        let stores = stores.iter().map(|(store, count)| {
            let why = troubles.get(store).map_or("no answer in time", String::as_str);
            format!("{} for {count}: {why}", member(store))
        });
        format!(
            "{open} of {} samples have no quorum; token ranges {}; stores that lack them: {}",
            self.content.item_count(),
            listed(ranges),
            listed(stores.collect())
        )
    }
}

/// Ranges and stores named in an error.
const LISTED_MAX: usize = 4;
