//! From a seed to a scenario.
//!
//! Faults come as *episodes*: a beginning, some seconds, an end. A machine has one episode at a time, and so has the
//! network; episodes of different machines overlap as they like. What a scenario must not do is to lose more stores
//! for good than the promise bears: at most W - 1 disks are lost, put back, or gone with their machine; but for the one
//! that loses a quorum, after which an operator has to say so.
//!
//! Some clusters begin with a *calm*: one node is away, nothing else is wrong, and nobody may notice. Some are *restless*:
//! every few seconds the ring changes, while a node hears of it late. A third neither keep hints nor repair: what a write
//! left out is seen.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

use super::{Failure, Operation};
use crate::exercise::{Exercise, Switches};
use crate::world::{Moment, WallTime};

/// When faults may begin, after the start.
const FAULTS_FROM_MS: u64 = 5_000;
/// From the last fault until everything must succeed again, for a lone node.
const RECOVERY_ALONE_MS: u64 = 20_000;
/// The same for a cluster: connections are made anew, gossip settles, a transition ends.
const RECOVERY_MS: u64 = 60_000;
/// How many scenarios are of a lone node.
const ALONE: f64 = 0.2;
/// How many machines the others have.
const CLUSTER: std::ops::RangeInclusive<usize> = 3..=6;
/// Milliseconds of a step. Between two of them no packet moves: short steps interleave hosts finely, and cost as much as
/// long ones.
const STEPS_MS: [u64; 4] = [1, 3, 5, 5];
/// Wall milliseconds in an elapsed one. Above 1, the hours until a block is cut pass within a scenario; and at 300, so
/// does the hour without a sample after which a tenant's head is flushed.
const RATES: [i64; 3] = [1, 90, 300];
/// How far off a clock is for one reading.
const MONTH_MS: i64 = 30 * 24 * 3_600_000;
/// Operations of the disk in a cut and the checkpoint behind it, in an upload, and in an adoption, about.
const CUT_OPERATIONS: u64 = 150;
const SHIP_OPERATIONS: u64 = 20;
const ADOPT_OPERATIONS: u64 = 8;
/// How many clusters begin with a calm, are restless, and don't heal.
const CALM: f64 = 0.25;
const RESTLESS: f64 = 0.3;
const NO_HEALING: f64 = 0.33;
/// When a node goes away in a calm, from when on nobody may notice, and until when: a dead node is noticed after some
/// seconds, and calls that were on their way have timed out.
const CALM_MS: [u64; 3] = [12_000, 30_000, 42_000];
/// Stores that keep each sample, where there are as many.
pub const REPLICATION_FACTOR: u32 = 3;
/// 2026-01-01 00:00 UTC, less five minutes: scenarios cross the edge of a block's range.
const BEGIN_MS: i64 = 1_767_225_600_000 - 300_000;

/// An operation and when it happens.
#[derive(Clone, Debug)]
pub struct Timed {
    /// Since the start.
    pub at: Duration,
    /// What happens.
    pub operation: Operation,
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8.3} s  {}", self.at.as_secs_f64(), self.operation)
    }
}

/// A time in which nothing is wrong but that one node is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calm {
    from: Duration,
    until: Duration,
    away: String,
}

impl Calm {
    /// Whether what is asked of `node` at this time, since the start, must succeed.
    pub fn holds_for(&self, now: Duration, node: &str) -> bool {
        now >= self.from && now < self.until && self.away != node
    }
}

/// Everything that a seed decides about a run, but for what chance does inside of it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// How many machines there are at the start.
    pub machines: usize,
    /// How many more join.
    pub joining: usize,
    /// How wall time goes.
    pub wall: WallTime,
    /// How many writers.
    pub writers: usize,
    /// How many tenants they write for, in turn.
    pub tenants: usize,
    /// Series that each writer has at a time.
    pub series: usize,
    /// How likely a series ends with a batch, and another one takes its place.
    pub churn: f64,
    /// Whether there are native histograms and stale markers beside the floats.
    pub is_mixed: bool,
    /// Time between a writer's batches.
    pub every: Duration,
    /// What happens, in order.
    pub operations: Vec<Timed>,
    /// Whether nodes keep hints and repair.
    pub heals: bool,
    /// When one node is away and nothing else is wrong.
    pub calm: Option<Calm>,
    /// The step in which hosts have their turns and packets move.
    pub step: Duration,
    /// How many readers.
    pub readers: usize,
    /// When the last fault is mended.
    pub mended_at: Duration,
    /// From here on everything must succeed.
    pub healthy_by: Duration,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machines, joining, writers, tenants, series, .. } = self;
        let (every_ms, rate, churn) = (self.every.as_millis(), self.wall.rate, self.churn * 100.0);
        let healing = if self.heals { "" } else { ", no healing" };
        let samples = if self.is_mixed { "mixed samples" } else { "floats" };
        write!(
            f,
            "{machines}+{joining} nodes, {writers} writers of {series} series for {tenants} tenants, {samples} every \
             {every_ms} ms, {churn:.0} % churn, wall time x{rate}{healing}"
        )
    }
}

impl Scenario {
    /// The scenario of a seed, with the faults that are switched on.
    pub fn of(seed: u64, switches: &Switches) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let machines = if rng.random_bool(ALONE) { 1 } else { rng.random_range(CLUSTER) };
        let is_cluster = machines > 1;
        let faults_ms = rng.random_range(30_000..90_000);
        let mut plan = Plan::new(machines, switches, rng.random());
        let is_restless = machines > REPLICATION_FACTOR as usize && rng.random_bool(RESTLESS);
        let is_calm = is_cluster && rng.random_bool(CALM) && faults_ms > CALM_MS[2] + FAULTS_FROM_MS;
        let calm = is_calm.then(|| plan.calm());
        let mut at_ms = if is_calm { CALM_MS[2] + 1 } else { FAULTS_FROM_MS };
        let joining = usize::from(is_cluster && rng.random_bool(0.3)) + usize::from(is_restless);
        for joins in 0..joining {
            plan.at(rng.random_range(at_ms..faults_ms), Operation::Join(machines + joins));
        }
        if is_restless {
            plan.restless(at_ms + 1_000, faults_ms);
        } else if machines > REPLICATION_FACTOR as usize && rng.random_bool(0.4) {
            // Not while more copies are wanted than nodes would be left: that is refused, as it should be.
            plan.leaving(rng.random_range(at_ms..faults_ms), faults_ms);
        }
        while at_ms < faults_ms {
            plan.episode(at_ms, faults_ms);
            at_ms += plan.rng.random_range(500..15_000);
        }
        plan.lose_quorum(faults_ms);
        let operations = plan.operations(faults_ms);
        let writers = rng.random_range(1..=4);
        let recovery_ms = if is_cluster { RECOVERY_MS } else { RECOVERY_ALONE_MS };
        Self {
            seed,
            machines,
            joining,
            wall: WallTime { begin_ms: BEGIN_MS, rate: *RATES.choose(&mut rng).expect("there are some") },
            writers,
            tenants: rng.random_range(1..=3).min(writers),
            series: rng.random_range(1..=10),
            churn: *[0.0, 0.05, 0.3].choose(&mut rng).expect("there are three"),
            is_mixed: rng.random_bool(0.7),
            every: Duration::from_millis(rng.random_range(200..=2000)),
            operations,
            heals: !is_cluster || !rng.random_bool(NO_HEALING),
            calm,
            step: Duration::from_millis(*STEPS_MS.choose(&mut rng).expect("there are some")),
            readers: rng.random_range(1..=3),
            mended_at: Duration::from_millis(faults_ms),
            healthy_by: Duration::from_millis(faults_ms + recovery_ms),
        }
    }
}

/// Episodes, as they are drawn.
struct Plan {
    rng: StdRng,
    operations: Vec<(u64, Operation)>,
    /// When each machine's episode ends, in milliseconds.
    busy_until_ms: Vec<u64>,
    /// When the network's episode ends, in milliseconds.
    network_until_ms: u64,
    /// When the bucket's episode ends, in milliseconds.
    bucket_until_ms: u64,
    /// How many stores more may be lost.
    losses: usize,
    /// The machine that leaves, if any does: nothing else happens to it.
    leaves: Option<usize>,
    switches: Switches,
}

impl Plan {
    fn new(machines: usize, switches: &Switches, seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            operations: Vec::new(),
            busy_until_ms: vec![0; machines],
            network_until_ms: 0,
            bucket_until_ms: 0,
            losses: usize::from(machines >= REPLICATION_FACTOR as usize),
            leaves: None,
            switches: switches.clone(),
        }
    }

    fn at(&mut self, ms: u64, operation: Operation) {
        self.operations.push((ms, operation));
    }

    /// One node is away, and nothing else is wrong.
    fn calm(&mut self) -> Calm {
        let [away_ms, from_ms, until_ms] = CALM_MS;
        let away = self.rng.random_range(0..self.busy_until_ms.len());
        let ends = [Operation::Kill(away), Operation::PowerCut(away)];
        let end = ends.choose(&mut self.rng).expect("there are two").clone();
        self.at(away_ms, end);
        self.at(until_ms, Operation::Start(away));
        self.busy_until_ms.fill(until_ms + 1);
        let time = Duration::from_millis;
        Calm { from: time(from_ms), until: time(until_ms), away: format!("node-{}", away + 1) }
    }

    /// A node leaves in order, or is gone for good and forgotten.
    fn leaving(&mut self, at_ms: u64, last_ms: u64) {
        let node = self.rng.random_range(0..self.busy_until_ms.len());
        let is_gone = self.losses > 0 && self.rng.random();
        if is_gone {
            self.losses -= 1;
            // Whatever happened to it before is over: a machine that is gone is never started again.
            self.operations.retain(|(_, operation)| *operation != Operation::Start(node));
            self.busy_until_ms[node] = last_ms + 1;
            self.leaves = Some(node);
        }
        self.at(at_ms, if is_gone { Operation::Gone(node) } else { Operation::Drain(node) });
    }

    /// The ring changes every few seconds, and a node hears of some of it late.
    fn restless(&mut self, from_ms: u64, last_ms: u64) {
        let (mut at_ms, mut copies) = (from_ms, REPLICATION_FACTOR);
        while at_ms < last_ms {
            copies = if copies == REPLICATION_FACTOR { REPLICATION_FACTOR + 1 } else { REPLICATION_FACTOR };
            self.at(at_ms, Operation::Copies(copies));
            if self.network_until_ms <= at_ms && self.rng.random_bool(0.6) {
                let end_ms = (at_ms + self.rng.random_range(1_000..6_000)).min(last_ms);
                let late = self.rng.random_range(0..self.busy_until_ms.len());
                let others = (0..self.busy_until_ms.len()).filter(|other| *other != late).collect();
                let begin_ms = at_ms - self.rng.random_range(0..500);
                self.at(begin_ms, Operation::Hold(vec![late], others));
                self.at(end_ms, Operation::Reconnect);
                self.network_until_ms = end_ms + 1;
            }
            at_ms += self.rng.random_range(3_000..10_000);
        }
        self.at(last_ms, Operation::Copies(REPLICATION_FACTOR));
    }

    /// In the end more disks are lost than the promise bears.
    fn lose_quorum(&mut self, last_ms: u64) {
        let is_possible = self.losses > 0 && self.leaves.is_none();
        if !self.switches.draws(Exercise::LoseQuorum) || !is_possible || !self.rng.random_bool(0.2) {
            return;
        }
        let mut nodes: Vec<usize> = (0..self.busy_until_ms.len()).collect();
        nodes.shuffle(&mut self.rng);
        nodes.truncate(2);
        for node in &nodes {
            self.at(last_ms, Operation::PowerCut(*node));
        }
        self.at(last_ms, Operation::LoseQuorum(nodes));
    }

    /// Draws one episode that begins at `at_ms` and is over at `last_ms`, if there is room for one.
    fn episode(&mut self, at_ms: u64, last_ms: u64) {
        let machines = self.busy_until_ms.len();
        let end_ms = (at_ms + self.rng.random_range(200..20_000)).min(last_ms);
        let free: Vec<usize> = (0..machines).filter(|n| self.busy_until_ms[*n] <= at_ms).collect();
        match self.rng.random_range(0..13u8) {
            5 if machines > 1 && self.bucket_until_ms <= at_ms => self.ring_object(at_ms, end_ms),
            0 if machines > 1 && self.bucket_until_ms <= at_ms => {
                let mood = [Operation::BucketAway, Operation::BucketMoody];
                let mood = mood.choose(&mut self.rng).expect("there are two").clone();
                self.at(at_ms, mood);
                self.at(end_ms, Operation::BucketGood);
                self.bucket_until_ms = end_ms + 1;
            }
            1..4 if machines > 1 && self.network_until_ms <= at_ms => self.network(at_ms, end_ms),
            4 if machines > 1 && free.len() + usize::from(self.leaves.is_some()) == machines => {
                self.everybody(at_ms, end_ms);
            }
            6 if free.len() >= 2 => self.clocks(&free, at_ms, end_ms),
            _ => {
                if let Some(node) = free.choose(&mut self.rng).copied() {
                    self.machine(node, at_ms, end_ms, last_ms);
                }
            }
        }
    }

    /// The network breaks between some machines and the others.
    fn network(&mut self, at_ms: u64, end_ms: u64) {
        let mut machines: Vec<usize> = (0..self.busy_until_ms.len()).collect();
        machines.shuffle(&mut self.rng);
        let (some, others) = machines.split_at(self.rng.random_range(1..machines.len()));
        let (some, others) = (some.to_vec(), others.to_vec());
        match self.rng.random_range(0..6u8) {
            0 | 1 => {
                self.at(at_ms, Operation::Partition(some, others));
            }
            2 => self.at(at_ms, Operation::Drop(some, others)),
            3 => self.at(at_ms, Operation::Hold(some, others)),
            4 => self.at(at_ms, Operation::Deafen(some[0])),
            _ => {
                let slow_ms = self.rng.random_range(50..3000);
                self.at(at_ms, Operation::SlowLink(some[0], others[0], slow_ms));
            }
        }
        self.at(end_ms, Operation::Reconnect);
        self.network_until_ms = end_ms + 1;
    }

    /// The ring's document is lost, or becomes an older one.
    fn ring_object(&mut self, at_ms: u64, end_ms: u64) {
        let operation = match self.rng.random() {
            true => (Exercise::LoseRing, Operation::LoseRing),
            false => (Exercise::OldRing, Operation::OldRing(self.rng.random_range(1..4))),
        };
        if self.switches.draws(operation.0) {
            self.at(at_ms, operation.1);
            self.bucket_until_ms = end_ms + 1;
        }
    }

    /// Clocks of two machines are a month off, each in its own direction.
    fn clocks(&mut self, free: &[usize], at_ms: u64, end_ms: u64) {
        for node in free.choose_multiple(&mut self.rng.clone(), 2) {
            let off_ms = *[-MONTH_MS, MONTH_MS].choose(&mut self.rng).expect("there are two");
            self.at(at_ms, Operation::Clock(*node, off_ms));
            self.at(end_ms, Operation::Clock(*node, 0));
            self.busy_until_ms[*node] = end_ms + 1;
        }
    }

    /// Every machine is restarted: one after the other, or all at once.
    fn everybody(&mut self, at_ms: u64, end_ms: u64) {
        let rolling = self.rng.random_bool(0.5);
        let step_ms = self.rng.random_range(500..10_000);
        let mut next_ms = at_ms;
        for node in
            (0..self.busy_until_ms.len()).filter(|node| self.leaves != Some(*node)).collect::<Vec<_>>()
        {
            if rolling {
                self.at(next_ms, Operation::Restart(node));
                next_ms += step_ms;
            } else {
                self.at(at_ms, Operation::PowerCut(node));
                self.at(end_ms, Operation::Start(node));
            }
        }
        self.busy_until_ms.fill(end_ms.max(next_ms) + 1);
    }

    /// Something happens to one machine.
    fn machine(&mut self, node: usize, at_ms: u64, end_ms: u64, last_ms: u64) {
        let mut busy_until_ms = end_ms + 1;
        let rng = &mut self.rng;
        let episode = match rng.random_range(0..22u8) {
            0 => vec![(at_ms, Operation::Kill(node)), (end_ms, Operation::Start(node))],
            1 | 2 => {
                let fails = Operation::PowerFails(node, rng.random_range(0..60));
                let cut_ms = at_ms + rng.random_range(1..6000);
                let start = (end_ms.max(cut_ms + 1), Operation::Start(node));
                vec![(at_ms, fails), (cut_ms, Operation::PowerCut(node)), start]
            }
            3 => vec![(at_ms, Operation::PowerCut(node)), (end_ms, Operation::Start(node))],
            // A crash loop: up for a moment each time.
            4 => {
                let (mut episode, mut next_ms) = (Vec::new(), at_ms);
                for _ in 0..rng.random_range(2..8) {
                    let crash = [Operation::Kill(node), Operation::PowerCut(node)];
                    episode.push((next_ms, crash.choose(rng).expect("there are two").clone()));
                    episode.push((next_ms + 1, Operation::Start(node)));
                    next_ms += rng.random_range(2..1500);
                }
                busy_until_ms = next_ms;
                episode
            }
            5 => vec![(at_ms, Operation::Restart(node))],
            6 => {
                let full = Operation::Full(node, rng.random_range(0..500_000));
                vec![(at_ms, full), (end_ms, Operation::Room(node))]
            }
            // The store stops; somebody looks after it.
            7 => {
                let fails = Operation::FailSync(node, rng.random_range(0..20));
                vec![(at_ms, fails), (end_ms, Operation::Restart(node))]
            }
            8 => {
                let fails = Operation::FailIo(node, rng.random_range(0..100));
                vec![(at_ms, fails), (end_ms, Operation::Restart(node))]
            }
            9 => {
                let slow = Operation::SlowDisk(node, rng.random_range(20..2000));
                vec![(at_ms, slow), (end_ms, Operation::FastDisk(node))]
            }
            10 | 16 if self.losses > 0 => {
                self.losses -= 1;
                let (replace, start) = (Operation::ReplaceDisk(node), Operation::Start(node));
                vec![(at_ms, Operation::PowerCut(node)), (end_ms, replace), (end_ms, start)]
            }
            // As likely as they are rare: each needs its moment to come meanwhile, and so it waits until the end.
            11 | 12 | 17 => {
                let failures = [Failure::Io, Failure::NoSpace, Failure::Power];
                let failure = *failures.choose(rng).expect("there are three");
                let moments = [
                    (Moment::Cut, CUT_OPERATIONS),
                    (Moment::Cut, CUT_OPERATIONS),
                    (Moment::Ship, SHIP_OPERATIONS),
                    (Moment::Adopt, ADOPT_OPERATIONS),
                ];
                let (moment, operations) = *moments.choose(rng).expect("there are four");
                let fails = Operation::FailAt(node, moment, failure, rng.random_range(0..operations));
                let cut_ms = rng.random_range(end_ms..=last_ms);
                let start_ms = cut_ms + rng.random_range(1..3000);
                busy_until_ms = start_ms + 1;
                vec![(at_ms, fails), (cut_ms, Operation::PowerCut(node)), (start_ms, Operation::Start(node))]
            }
            18 => {
                let off_ms = *[-MONTH_MS, MONTH_MS].choose(rng).expect("there are two");
                vec![(at_ms, Operation::Clock(node, off_ms)), (end_ms, Operation::Clock(node, 0))]
            }
            19 if self.network_until_ms <= at_ms => {
                self.network_until_ms = end_ms + 1;
                let pause = Operation::Pause(node, end_ms - at_ms);
                vec![(at_ms, pause), (end_ms, Operation::Reconnect), (end_ms, Operation::FastDisk(node))]
            }
            20 if self.losses > 0 && self.switches.draws(Exercise::OldDisk) => {
                self.losses -= 1;
                let off_ms = (at_ms + end_ms) / 2;
                let (old, start) = (Operation::OldDisk(node), Operation::Start(node));
                let copy = (at_ms, Operation::CopyDisk(node));
                vec![copy, (off_ms, Operation::Kill(node)), (end_ms, old), (end_ms, start)]
            }
            21 if self.switches.draws(Exercise::Rot) => vec![(at_ms, Operation::Rot(node))],
            13 => {
                let ahead_ms = *[-MONTH_MS, MONTH_MS].choose(rng).expect("there are two");
                vec![(at_ms, Operation::Glitch(node, ahead_ms, rng.random_range(0..40)))]
            }
            14 => {
                let crash = [Operation::Restart(node), Operation::Kill(node), Operation::PowerCut(node)];
                let crash = crash.choose(rng).expect("there are three").clone();
                vec![(at_ms, Operation::Strays(node)), (at_ms + 1, crash), (end_ms, Operation::Start(node))]
            }
            _ => {
                let wrong = Operation::Clock(node, rng.random_range(-300_000..300_000));
                vec![(at_ms, wrong), (end_ms, Operation::Clock(node, 0))]
            }
        };
        self.operations.extend(episode);
        self.busy_until_ms[node] = busy_until_ms;
    }

    /// All of them in order; the last one mends everything.
    fn operations(self, last_ms: u64) -> Vec<Timed> {
        let mut operations = self.operations;
        operations.push((last_ms, Operation::MendAll));
        // What an episode ends with may come late, and must come: a store that has stopped is restarted.
        operations.iter_mut().for_each(|(at_ms, _)| *at_ms = (*at_ms).min(last_ms));
        operations.sort_by_key(|(at_ms, operation)| (*at_ms, *operation == Operation::MendAll));
        let timed = |(at_ms, operation)| Timed { at: Duration::from_millis(at_ms), operation };
        operations.into_iter().map(timed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exercise::SPARED;

    #[test]
    fn a_seed_is_one_scenario() {
        let print = |seed| {
            let scenario = Scenario::of(seed, &Switches::default());
            let operations: Vec<_> = scenario.operations.iter().map(ToString::to_string).collect();
            format!("{scenario} {operations:?}")
        };
        assert_eq!(print(7), print(7));
        assert_ne!(print(7), print(8));
    }

    #[test]
    fn at_most_one_store_of_several_is_lost_and_none_of_one() {
        let mut seen = 0;
        for seed in 0..300 {
            let scenario = Scenario::of(seed, &Switches { also: vec![Exercise::OldDisk] });
            let is_loss = |timed: &&Timed| {
                matches!(
                    timed.operation,
                    Operation::ReplaceDisk(_) | Operation::OldDisk(_) | Operation::Gone(_)
                )
            };
            let losses = scenario.operations.iter().filter(is_loss).count();
            assert!(losses <= usize::from(scenario.machines >= REPLICATION_FACTOR as usize), "seed {seed}");
            seen += losses;
        }
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn a_machine_that_is_gone_stays_away() {
        let mut seen = 0;
        for seed in 0..300 {
            let scenario = Scenario::of(seed, &Switches::default());
            let gone = scenario.operations.iter().find_map(|timed| match timed.operation {
                Operation::Gone(node) => Some(node),
                _ => None,
            });
            let Some(gone) = gone else { continue };
            let starts = |timed: &Timed| matches!(timed.operation, Operation::Start(node) if node == gone);
            assert!(!scenario.operations.iter().any(starts), "seed {seed}");
            seen += 1;
        }
        assert!(seen > 10, "{seen}");
    }

    #[test]
    fn what_is_spared_is_drawn_only_on_demand() {
        let is_drawn = |switches: &Switches| {
            (0..300).any(|seed| {
                let is_rot = |timed: &Timed| matches!(timed.operation, Operation::Rot(_));
                Scenario::of(seed, switches).operations.iter().any(is_rot)
            })
        };
        assert!(!is_drawn(&Switches::default()) && is_drawn(&Switches { also: vec![Exercise::Rot] }));
    }

    #[test]
    fn every_scenario_ends_mended() {
        for seed in 0..200 {
            let scenario = Scenario::of(seed, &Switches { also: SPARED.to_vec() });
            let last = scenario.operations.last().unwrap();
            assert_eq!(last.operation, Operation::MendAll);
            assert!(last.at == scenario.mended_at && scenario.mended_at < scenario.healthy_by);
            assert!(scenario.operations.windows(2).all(|pair| pair[0].at <= pair[1].at));
        }
    }
}
