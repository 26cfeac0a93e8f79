//! Many seeds, each in a process of its own, several at once.

use std::fmt;
use std::ops::Range;
use std::process::Command;
use std::time::Duration;

use parking_lot::Mutex;
use planted::Bug;

use crate::exercise::{Counts, Switches};
use crate::verdict::{Verdict, Violation};

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that passed.
    pub passed: u64,
    /// Seeds that didn't.
    pub failed: u64,
    /// The first of these.
    pub first_failed: Option<u64>,
    /// Simulated time of all runs.
    pub simulated: Duration,
    /// Samples that were acked, and are there.
    pub acked: usize,
    /// How often each check and each fault was exercised.
    pub counts: Counts,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, acked, .. } = self;
        let minutes = self.simulated.as_secs() / 60;
        write!(f, "{}", self.counts)?;
        write!(
            f,
            "{passed} seeds passed, {failed} failed; {minutes} simulated minutes, {acked} samples acked"
        )?;
        match self.first_failed {
            Some(seed) => write!(f, "\nsee: carillon-sim replay --seed {seed}"),
            None => Ok(()),
        }
    }
}

/// Runs `seeds`, `jobs` at once (0 = one a core), and tells each verdict in the order of seeds.
pub fn run(
    seeds: Range<u64>,
    switches: &Switches,
    jobs: usize,
    twice: bool,
    tell: &(dyn Fn(&Verdict) + Sync),
) -> Summary {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = if jobs == 0 { cores() } else { jobs };
    let queue = Mutex::new(seeds.clone());
    let told = Mutex::new(Told { next: seeds.start, waiting: Vec::new(), summary: Summary::default() });
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let Some(seed) = queue.lock().next() else { return };
                    told.lock().add(verdict_of(seed, switches, twice), tell);
                }
            });
        }
    });
    told.into_inner().summary
}

/// Verdicts, told in order.
struct Told {
    next: u64,
    waiting: Vec<Verdict>,
    summary: Summary,
}

impl Told {
    fn add(&mut self, verdict: Verdict, tell: &dyn Fn(&Verdict)) {
        self.waiting.push(verdict);
        while let Some(at) = self.waiting.iter().position(|v| v.seed == self.next) {
            let verdict = self.waiting.swap_remove(at);
            tell(&verdict);
            let summary = &mut self.summary;
            summary.simulated += Duration::from_secs_f64(verdict.simulated_s);
            summary.acked += verdict.acked;
            summary.counts.add(&verdict.counts);
            if verdict.violations.is_empty() {
                summary.passed += 1;
            } else {
                summary.failed += 1;
                summary.first_failed.get_or_insert(verdict.seed);
            }
            self.next += 1;
        }
    }
}

fn verdict_of(seed: u64, switches: &Switches, twice: bool) -> Verdict {
    let mut verdict = in_a_process(seed, switches, None);
    if twice {
        let again = in_a_process(seed, switches, None);
        if again.trace != verdict.trace {
            let text = format!("two runs of the seed differ: {} and {}", verdict.trace, again.trace);
            verdict.violations.push(Violation { invariant: "I17".to_owned(), at_s: 0.0, text });
        }
    }
    verdict
}

/// The verdict on a seed that runs in a process of its own, with a bug planted where one is named.
pub fn in_a_process(seed: u64, switches: &Switches, bug: Option<Bug>) -> Verdict {
    let child = std::env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        command.envs(bug.map(|bug| (planted::VARIABLE, bug.name())));
        command.args(["run", "--seed", &seed.to_string(), "--output", "json"]);
        for exercise in &switches.also {
            command.args(["--also", exercise.name()]);
        }
        command.output()
    });
    let wrong = |text: String| Verdict::of_a_process_that_failed(seed, text);
    let output = match child {
        Ok(output) => output,
        Err(error) => return wrong(format!("can't start a process: {error}")),
    };
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        wrong(format!("the process ended by {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
    })
}
