//! What the ends of gossip share: who is where, who has talked, what was odd.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::frame::{Frame, MAX_KNOWN, Unreadable};
use super::{Me, Refused};
use crate::StoreId;
use crate::member::Trouble;

/// Troubles are shown this long after they were seen last.
const TROUBLE_LASTS: Duration = Duration::from_secs(60);

/// Most troubles that are kept; more of them say nothing new.
const MAX_TROUBLES: usize = 32;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) me: Me,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Our own address, as we announce it.
    address: String,
    /// Where stores are, and by which start they said so.
    book: BTreeMap<StoreId, (u64, String)>,
    /// Who sent frames: the start, and where from.
    talkers: BTreeMap<StoreId, Talker>,
    /// Stores and generations that chitchat knows.
    known: BTreeSet<(StoreId, u64)>,
    seeds: Vec<String>,
    next_seed: usize,
    /// Addresses of members that are alive: they needn't be sought.
    found: BTreeSet<String>,
    troubles: BTreeMap<Trouble, Instant>,
}

#[derive(Debug)]
struct Talker {
    incarnation: u64,
    instance: u64,
    address: String,
}

impl Shared {
    pub(super) fn new(me: Me, address: &str, seeds: Vec<String>) -> Self {
        let state = State { address: address.to_owned(), seeds, ..State::default() };
        Self { me, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole values behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a frame may be listened to.
    pub(super) fn admit(&self, frame: &Frame<'_>, now: Instant) -> Result<(), Refused> {
        let mut state = self.lock();
        if frame.cluster != self.me.cluster {
            let trouble = Trouble::Foreign { cluster: frame.cluster, address: frame.address.to_owned() };
            state.note(trouble, now);
            return Err(Refused::Foreign { ours: self.me.cluster, theirs: frame.cluster });
        }
        if frame.store == self.me.store {
            if frame.instance == self.me.instance {
                return Err(Refused::Own);
            }
            let first = state.address.clone();
            return Err(state.twins(frame, first, now));
        }
        if frame.to.is_some_and(|to| to != self.me.store) {
            return Err(Refused::Stray { here: self.me.store });
        }
        match state.talkers.get(&frame.store) {
            Some(_) if planted::is(planted::Bug::OlderIncarnationWins) => {}
            Some(before) if before.incarnation > frame.incarnation => {
                let highest = before.incarnation;
                let (store, address, incarnation) =
                    (frame.store, frame.address.to_owned(), frame.incarnation);
                state.note(Trouble::RolledBack { store, address, incarnation, highest }, now);
                return Err(Refused::RolledBack { incarnation, highest });
            }
            Some(before) if before.incarnation == frame.incarnation && before.instance != frame.instance => {
                let first = before.address.clone();
                return Err(state.twins(frame, first, now));
            }
            None if state.talkers.len() >= MAX_KNOWN => return Err(Refused::Crowded),
            _ => {}
        }
        let address = frame.address.to_owned();
        let talker = Talker { incarnation: frame.incarnation, instance: frame.instance, address };
        state.talkers.insert(frame.store, talker);
        state.reach(frame.store, frame.incarnation, frame.address);
        Ok(())
    }

    /// Whether chitchat may hear of these members. Also looks whether somebody knows a later start of ours.
    pub(super) fn admit_members(&self, listed: &[(StoreId, u64)], now: Instant) -> Result<(), Refused> {
        let mut state = self.lock();
        let ours = listed.iter().filter(|(store, _)| *store == self.me.store);
        let highest = ours.map(|(_, generation)| super::incarnation(*generation)).max().unwrap_or(0);
        if highest > self.me.incarnation {
            let (store, incarnation, address) = (self.me.store, self.me.incarnation, state.address.clone());
            state.note(Trouble::RolledBack { store, address, incarnation, highest }, now);
        }
        let new = listed.iter().filter(|member| !state.known.contains(member)).count();
        if state.known.len() + new > MAX_KNOWN {
            return Err(Refused::Crowded);
        }
        state.known.extend(listed);
        Ok(())
    }

    pub(super) fn unreadable(&self, reason: &Unreadable, address: &str, now: Instant) -> Refused {
        match reason {
            Unreadable::Garbage(what) => Refused::Garbage(what),
            Unreadable::Version(version) => {
                self.lock().note(Trouble::Version { address: address.to_owned(), version: *version }, now);
                Refused::Version { version: *version }
            }
        }
    }

    /// Where a store is.
    pub(super) fn address(&self, store: StoreId) -> Option<String> {
        self.lock().book.get(&store).map(|(_, address)| address.clone())
    }

    /// The next seed to try: one that is neither ourselves nor a member that is alive.
    pub(super) fn next_seed(&self) -> Option<String> {
        let mut state = self.lock();
        for _ in 0..state.seeds.len() {
            state.next_seed = (state.next_seed + 1) % state.seeds.len();
            let seed = &state.seeds[state.next_seed];
            if *seed != state.address && !state.found.contains(seed) {
                return Some(seed.clone());
            }
        }
        None
    }

    pub(super) fn set_seeds(&self, seeds: Vec<String>) {
        self.lock().seeds = seeds;
    }

    pub(super) fn set_address(&self, address: &str) {
        self.lock().address = address.to_owned();
    }

    pub(super) fn own_address(&self) -> String {
        self.lock().address.clone()
    }

    /// What chitchat knows now: which members, where they are, and which of these addresses answer.
    pub(super) fn refresh<'a>(
        &self,
        known: BTreeSet<(StoreId, u64)>,
        members: impl Iterator<Item = (StoreId, u64, &'a str, bool)>,
    ) {
        let mut state = self.lock();
        let stores: BTreeSet<StoreId> = known.iter().map(|(store, _)| *store).collect();
        state.book.retain(|store, _| stores.contains(store));
        state.talkers.retain(|store, _| stores.contains(store));
        state.known = known;
        state.found.clear();
        for (store, incarnation, address, alive) in members {
            state.reach(store, incarnation, address);
            if alive {
                state.found.insert(address.to_owned());
            }
        }
    }

    /// What is odd of late.
    pub(super) fn troubles(&self, now: Instant) -> Vec<Trouble> {
        let mut state = self.lock();
        state.troubles.retain(|_, seen| now.duration_since(*seen) < TROUBLE_LASTS);
        state.troubles.keys().cloned().collect()
    }
}

impl State {
    fn twins(&mut self, frame: &Frame<'_>, first: String, now: Instant) -> Refused {
        let second = frame.address.to_owned();
        self.note(Trouble::Twins { store: frame.store, first: first.clone(), second }, now);
        Refused::Twin { first }
    }

    fn note(&mut self, trouble: Trouble, now: Instant) {
        if self.troubles.len() >= MAX_TROUBLES && !self.troubles.contains_key(&trouble) {
            return;
        }
        if !self.troubles.contains_key(&trouble) {
            tracing::warn!(%trouble, "gossip");
        }
        self.troubles.insert(trouble, now);
    }

    fn reach(&mut self, store: StoreId, incarnation: u64, address: &str) {
        let newer = self.book.get(&store).is_none_or(|(before, _)| *before <= incarnation);
        if newer && !address.is_empty() {
            self.book.insert(store, (incarnation, address.to_owned()));
        }
    }
}
