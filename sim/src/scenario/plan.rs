//! From a seed to a scenario.
//!
//! Faults come as *episodes*: a beginning, some seconds, an end. A machine has one episode at a time, and so has the
//! network; episodes of different machines overlap as they like. What a scenario must not do is to lose more stores
//! for good than the promise bears: at most W - 1 disks are replaced.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

use super::{Failure, Operation};
use crate::world::WallTime;

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
/// How long everything must succeed before the last questions.
const HEALTHY_MS: u64 = 15_000;
/// Wall milliseconds in an elapsed one. Above 1, the hours until a block is cut pass within a scenario; and at 300, so
/// does the hour without a sample after which a tenant's head is flushed.
const RATES: [i64; 3] = [1, 90, 300];
/// How far off a clock is for one reading.
const MONTH_MS: i64 = 30 * 24 * 3_600_000;
/// Operations of the disk in a cut and the checkpoint behind it, about.
const CUT_OPERATIONS: u64 = 150;
/// Stores that keep each sample, where there are as many.
pub const REPLICATION_FACTOR: usize = 3;
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
    /// From here on everything must succeed.
    pub healthy_from: Duration,
    /// When clients end.
    pub end: Duration,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machines, joining, writers, tenants, series, .. } = self;
        let (every_ms, rate, churn) = (self.every.as_millis(), self.wall.rate, self.churn * 100.0);
        let samples = if self.is_mixed { "mixed samples" } else { "floats" };
        write!(
            f,
            "{machines}+{joining} nodes, {writers} writers of {series} series for {tenants} tenants, {samples} every \
             {every_ms} ms, {churn:.0} % churn, wall time x{rate}"
        )
    }
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let machines = if rng.random_bool(ALONE) { 1 } else { rng.random_range(CLUSTER) };
        let is_cluster = machines > 1;
        let faults_ms = rng.random_range(30_000..90_000);
        let joining = usize::from(is_cluster && rng.random_bool(0.3));
        let drains = machines > REPLICATION_FACTOR && rng.random_bool(0.3);
        let mut plan = Plan::new(machines, rng.random());
        if joining > 0 {
            plan.at(rng.random_range(FAULTS_FROM_MS..faults_ms), Operation::Join(machines));
        }
        if drains {
            plan.at(
                rng.random_range(FAULTS_FROM_MS..faults_ms),
                Operation::Drain(rng.random_range(0..machines)),
            );
        }
        let mut at_ms = FAULTS_FROM_MS;
        while at_ms < faults_ms {
            plan.episode(at_ms, faults_ms);
            at_ms += plan.rng.random_range(500..15_000);
        }
        let operations = plan.operations(faults_ms);
        let writers = rng.random_range(1..=4);
        let recovery_ms = if is_cluster { RECOVERY_MS } else { RECOVERY_ALONE_MS };
        let healthy_from = Duration::from_millis(faults_ms + recovery_ms);
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
            healthy_from,
            end: healthy_from + Duration::from_millis(HEALTHY_MS),
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
    /// How many disks more may be replaced.
    replacements: usize,
}

impl Plan {
    fn new(machines: usize, seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            operations: Vec::new(),
            busy_until_ms: vec![0; machines],
            network_until_ms: 0,
            bucket_until_ms: 0,
            replacements: usize::from(machines >= REPLICATION_FACTOR),
        }
    }

    fn at(&mut self, ms: u64, operation: Operation) {
        self.operations.push((ms, operation));
    }

    /// Draws one episode that begins at `at_ms` and is over at `last_ms`, if there is room for one.
    fn episode(&mut self, at_ms: u64, last_ms: u64) {
        let machines = self.busy_until_ms.len();
        let end_ms = (at_ms + self.rng.random_range(200..20_000)).min(last_ms);
        let free: Vec<usize> = (0..machines).filter(|n| self.busy_until_ms[*n] <= at_ms).collect();
        match self.rng.random_range(0..12u8) {
            0 if machines > 1 && self.bucket_until_ms <= at_ms => {
                let mood = [Operation::BucketAway, Operation::BucketMoody];
                let mood = mood.choose(&mut self.rng).expect("there are two").clone();
                self.at(at_ms, mood);
                self.at(end_ms, Operation::BucketGood);
                self.bucket_until_ms = end_ms + 1;
            }
            1..4 if machines > 1 && self.network_until_ms <= at_ms => self.network(at_ms, end_ms),
            4 if machines > 1 && free.len() == machines => self.everybody(at_ms, end_ms),
            _ => {
                if let Some(node) = free.choose(&mut self.rng).copied() {
                    self.machine(node, at_ms, end_ms);
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
                self.at(at_ms, Operation::Drop(some.clone(), others.clone()));
                self.at(at_ms, Operation::Drop(others, some));
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

    /// Every machine is restarted: one after the other, or all at once.
    fn everybody(&mut self, at_ms: u64, end_ms: u64) {
        let rolling = self.rng.random_bool(0.5);
        let step_ms = self.rng.random_range(500..10_000);
        let mut next_ms = at_ms;
        for node in 0..self.busy_until_ms.len() {
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
    fn machine(&mut self, node: usize, at_ms: u64, end_ms: u64) {
        let mut busy_until_ms = end_ms + 1;
        let rng = &mut self.rng;
        let episode = match rng.random_range(0..16u8) {
            0 => vec![(at_ms, Operation::Kill(node)), (end_ms, Operation::Start(node))],
            1 | 2 => {
                let fails = Operation::PowerFails(node, rng.random_range(0..60));
                let cut_ms = at_ms + rng.random_range(1..1500);
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
                let full = Operation::Full(node, rng.random_range(0..2_000_000));
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
            10 if self.replacements > 0 => {
                self.replacements -= 1;
                let (replace, start) = (Operation::ReplaceDisk(node), Operation::Start(node));
                vec![(at_ms, Operation::PowerCut(node)), (end_ms, replace), (end_ms, start)]
            }
            // As likely as they are rare: each needs a cut to happen meanwhile.
            11 | 12 => {
                let failures = [Failure::Io, Failure::NoSpace, Failure::Power];
                let failure = *failures.choose(rng).expect("there are three");
                let fails = Operation::FailCut(node, failure, rng.random_range(0..CUT_OPERATIONS));
                let start_ms = end_ms + rng.random_range(1..3000);
                busy_until_ms = start_ms + 1;
                vec![(at_ms, fails), (end_ms, Operation::PowerCut(node)), (start_ms, Operation::Start(node))]
            }
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

    #[test]
    fn a_seed_is_one_scenario() {
        let print = |seed| {
            let scenario = Scenario::of(seed);
            let operations: Vec<_> = scenario.operations.iter().map(ToString::to_string).collect();
            format!("{scenario} {operations:?}")
        };
        assert_eq!(print(7), print(7));
        assert_ne!(print(7), print(8));
    }

    #[test]
    fn at_most_one_disk_of_several_is_replaced_and_none_of_one() {
        let replaced = |machines, seed| {
            let mut plan = Plan::new(machines, seed);
            (0..100).for_each(|n| plan.episode(n * 10_000, 2_000_000));
            let is_replacement = |timed: &&Timed| matches!(timed.operation, Operation::ReplaceDisk(_));
            plan.operations(2_000_000).iter().filter(is_replacement).count()
        };
        assert!((0..20).all(|seed| replaced(1, seed) == 0));
        assert!((0..20).all(|seed| replaced(5, seed) <= 1));
        assert!((0..20).any(|seed| replaced(5, seed) == 1));
    }

    #[test]
    fn every_scenario_ends_mended() {
        for seed in 0..200 {
            let scenario = Scenario::of(seed);
            let last = scenario.operations.last().unwrap();
            assert_eq!(last.operation, Operation::MendAll);
            assert!(last.at < scenario.healthy_from && scenario.healthy_from < scenario.end);
            assert!(scenario.operations.windows(2).all(|pair| pair[0].at <= pair[1].at));
        }
    }
}
