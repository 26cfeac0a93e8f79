//! Who is alive, judged by heartbeats and our own monotonic clock alone.
//!
//! A member is alive when its heartbeat, whoever passed it on, has grown within the last `dead_after`. A member first
//! heard of isn't: its heartbeat may be a memory of others. Times of absence count only as far as we were there
//! ourselves: after a pause of ours, or while everybody is away at once, they begin anew.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::StoreId;
use crate::member::{Members, Profile, Seen};

/// What chitchat holds of one start of a store.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) store: StoreId,
    pub(super) generation: u64,
    pub(super) heartbeat: u64,
    pub(super) profile: Option<Profile>,
}

#[derive(Debug)]
pub(super) struct Tracker {
    me: StoreId,
    dead_after: Duration,
    looked: Instant,
    known: BTreeMap<StoreId, Known>,
    /// We are cut off since then.
    alone_since: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    generation: u64,
    heartbeat: u64,
    /// When the heartbeat grew last.
    heard: Option<Instant>,
    profile: Option<Profile>,
    alive: bool,
    since: Instant,
}

impl Tracker {
    pub(super) fn new(me: StoreId, dead_after: Duration, now: Instant) -> Self {
        Self { me, dead_after, looked: now, known: BTreeMap::new(), alone_since: None }
    }

    /// Takes in what chitchat holds now.
    pub(super) fn look(&mut self, now: Instant, states: Vec<State>) {
        let paused = now.duration_since(self.looked) > self.dead_after / 2;
        self.looked = now;
        let mut newest: BTreeMap<StoreId, State> = BTreeMap::new();
        for state in states {
            if newest.get(&state.store).is_none_or(|other| other.generation < state.generation) {
                newest.insert(state.store, state);
            }
        }
        self.known.retain(|store, _| newest.contains_key(store));
        for (store, state) in newest {
            let known = self.known.entry(store).or_insert_with(|| Known::new(&state, now));
            known.take(state, now);
            if paused {
                known.forgive(now);
            }
            known.judge(store == self.me, self.dead_after, now);
        }
        self.look_around(now);
    }

    /// Whether we are cut off: others are known, one of them was alive, and none is.
    fn look_around(&mut self, now: Instant) {
        let me = self.me;
        let others = || self.known.iter().filter(|(store, _)| **store != me).map(|(_, known)| known);
        let met = others().any(|known| known.heard.is_some());
        let alone = met && !others().any(|known| known.alive);
        match (self.alone_since, alone) {
            (None, true) => self.alone_since = Some(now),
            (Some(_), false) => {
                self.alone_since = None;
                let away = self.known.values_mut().filter(|known| !known.alive);
                away.for_each(|known| known.since = now);
            }
            _ => {}
        }
    }

    pub(super) fn members(&self) -> Members {
        let seen = self.known.iter().filter_map(|(store, known)| {
            let profile = known.profile.clone()?;
            let incarnation = super::incarnation(known.generation);
            Some((*store, Seen { incarnation, profile, alive: known.alive, since: known.since }))
        });
        Members { seen: seen.collect(), suspects_itself: self.alone_since.is_some(), troubles: Vec::new() }
    }
}

impl Known {
    fn new(state: &State, now: Instant) -> Self {
        Self {
            generation: state.generation,
            heartbeat: state.heartbeat,
            heard: None,
            profile: None,
            alive: false,
            since: now,
        }
    }

    fn take(&mut self, state: State, now: Instant) {
        if state.generation > self.generation {
            (self.generation, self.heartbeat) = (state.generation, state.heartbeat);
        } else if state.heartbeat > self.heartbeat {
            self.heartbeat = state.heartbeat;
            self.heard = Some(now);
        }
        if state.profile.is_some() {
            self.profile = state.profile;
        }
    }

    /// We were away ourselves: silence meanwhile means nothing.
    fn forgive(&mut self, now: Instant) {
        if self.alive {
            self.heard = Some(now);
        } else {
            self.since = now;
        }
    }

    fn judge(&mut self, is_me: bool, dead_after: Duration, now: Instant) {
        let heard = |heard: Instant| now.duration_since(heard) < dead_after;
        let alive = is_me || self.heard.is_some_and(heard);
        if alive != self.alive {
            self.alive = alive;
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD_AFTER: Duration = Duration::from_secs(9);

    fn state(store: u128, generation: u64, heartbeat: u64) -> State {
        State { store: StoreId(store), generation, heartbeat, profile: Some(Profile::default()) }
    }

    /// Looks once a second at what `beats` says of second and gives who is alive, by second.
    fn alive(seconds: u64, beats: impl Fn(u64) -> Vec<State>) -> (Tracker, Vec<Vec<u128>>, Instant) {
        let begin = Instant::now();
        let mut tracker = Tracker::new(StoreId(1), DEAD_AFTER, begin);
        let mut log = Vec::new();
        for second in 0..seconds {
            tracker.look(begin + Duration::from_secs(second), beats(second));
            let alive = tracker.members().seen.into_iter().filter(|(_, seen)| seen.alive);
            log.push(alive.map(|(store, _)| store.0).collect());
        }
        (tracker, log, begin)
    }

    #[test]
    fn a_member_is_alive_from_its_second_heartbeat_until_nine_seconds_after_its_last() {
        let (_, log, _) = alive(20, |second| {
            vec![state(1, 1, second), state(2, 1, 50 + second.min(5)), state(3, 1, second)]
        });
        assert_eq!(log[0], [1]);
        assert_eq!(log[1], [1, 2, 3]);
        assert_eq!(log[13], [1, 2, 3]);
        assert_eq!(log[14], [1, 3]);
    }

    #[test]
    fn a_new_start_replaces_the_old_one_and_never_the_other_way_round() {
        let (tracker, log, _) = alive(30, |second| {
            let mut states = vec![state(1, 1, second), state(2, 1, second + 100)];
            if second >= 10 {
                states.push(state(2, 2 << 16, second - 10));
            }
            states
        });
        assert!(log[1..].iter().all(|alive| alive == &[1, 2]));
        assert_eq!(tracker.members().seen[&StoreId(2)].incarnation, 2);
    }

    #[test]
    fn one_that_sees_everybody_away_suspects_itself_and_counts_no_absence() {
        let beats = |second: u64| {
            let others = if (20..60).contains(&second) { 20 } else { second };
            vec![state(1, 1, second), state(2, 1, others), state(3, 1, others.min(20))]
        };
        let (tracker, _, _) = alive(40, beats);
        assert!(tracker.members().suspects_itself);
        let (tracker, _, begin) = alive(75, beats);
        let members = tracker.members();
        assert!(!members.suspects_itself && members.seen[&StoreId(2)].alive);
        // Store 3 fell silent while we heard nobody; its absence counts from when we heard others again.
        let third = &members.seen[&StoreId(3)];
        assert_eq!((third.alive, third.since), (false, begin + Duration::from_secs(60)));
    }

    #[test]
    fn a_pause_of_our_own_proves_nothing_about_others() {
        let begin = Instant::now();
        let mut tracker = Tracker::new(StoreId(1), DEAD_AFTER, begin);
        let at = |second| begin + Duration::from_secs(second);
        for second in 0..20 {
            tracker
                .look(at(second), vec![state(1, 1, second), state(2, 1, second), state(3, 1, second.min(5))]);
        }
        tracker.look(at(500), vec![state(1, 1, 500), state(2, 1, 19), state(3, 1, 5)]);
        let seen = tracker.members().seen;
        assert!(seen[&StoreId(2)].alive);
        assert_eq!((seen[&StoreId(3)].alive, seen[&StoreId(3)].since), (false, at(500)));
    }
}
