//! The simulator: the real node code on simulated time, network and disk, under faults, judged by a ledger of what was
//! acked.
//!
//! 1. A seed is a [`scenario`]: machines, load, and operations with times.
//! 2. [`one`] runs it: turmoil gives each host its turns and carries its packets, [`world`] is what a node takes for
//!    the world, [`client`] writes and asks and judges, [`trace`] folds all that happens into a hash.
//! 3. [`exercise`] declares what is judged and done, and counts it; a run in which something of it never happened fails.
//! 4. [`many`] runs seeds one after the other, each in a process of its own: [`interpose`] replaces the clocks and
//!    random numbers of the whole process.
//! 4. [`bugs`] plants bugs in the nodes, to see which seed notices.

mod bugs;
mod client;
mod exercise;
mod interpose;
mod many;
mod one;
mod scenario;
mod trace;
mod verdict;
mod world;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exercise::{Exercise, SEEDS_MIN, Switches};
use crate::trace::Print;
use crate::verdict::Verdict;

/// Runs Carillon's nodes under faults, from a seed.
#[derive(Parser)]
#[command(name = "carillon-sim", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs seeds; tells the verdict on each, and of the first that fails what was done to the nodes.
    Run(RunArguments),
    /// Runs one seed and prints its log, with simulated seconds and names.
    Replay {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// Prints the network too: everything that goes into the trace's hash.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        switches: SwitchArguments,
    },
    /// Plants bugs in the nodes, one after the other, and runs seeds until one notices; for builds with `--features
    /// planted`.
    Planted(bugs::Arguments),
}

#[derive(Args)]
struct SwitchArguments {
    /// Draws a fault that nodes don't bear yet, by the name of its row; may be given several times.
    #[arg(long)]
    also: Vec<Exercise>,
}

impl SwitchArguments {
    fn switches(&self) -> Switches {
        Switches { also: self.also.clone() }
    }
}

#[derive(Args)]
struct RunArguments {
    #[command(flatten)]
    switches: SwitchArguments,
    /// One seed, in this process.
    #[arg(long, conflicts_with_all = ["seeds", "from", "twice", "jobs"])]
    seed: Option<u64>,
    /// How many seeds, each in a process of its own.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Seeds at once; 0 = as many as there are cores.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Runs each seed twice and compares the hashes of the traces.
    #[arg(long)]
    twice: bool,
    /// Whether a check that was never reached, or a fault that never took effect, fails the run; by default from 100
    /// seeds on.
    #[arg(long)]
    exhaustive: Option<bool>,
    /// How verdicts are printed.
    #[arg(short, long, value_enum, default_value_t = Output::Plain)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line each.
    Plain,
    /// A JSON object a line.
    Json,
}

fn main() -> ExitCode {
    let good = match Arguments::parse().verb {
        Verb::Run(arguments) => run(&arguments),
        Verb::Replay { seed, all, switches } => {
            let lines = if all { Print::All } else { Print::Log };
            let verdict = one::run(seed, &switches.switches(), lines);
            print(&verdict, Output::Plain);
            verdict.violations.is_empty()
        }
        Verb::Planted(arguments) => bugs::run(&arguments),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(arguments: &RunArguments) -> bool {
    if let Some(seed) = arguments.seed {
        let verdict = one::run(seed, &arguments.switches.switches(), Print::Nothing);
        print(&verdict, arguments.output);
        return verdict.violations.is_empty();
    }
    let told = |verdict: &Verdict| print(verdict, arguments.output);
    let seeds = arguments.from..arguments.from.saturating_add(arguments.seeds);
    let (switches, jobs) = (arguments.switches.switches(), arguments.jobs);
    let summary = many::run(seeds, &switches, jobs, arguments.twice, &told);
    if arguments.output == Output::Plain {
        print_line(&summary.to_string());
    }
    let missing: Vec<_> = summary.counts.missing(&switches).into_iter().map(Exercise::what).collect();
    let is_exhaustive = arguments.exhaustive.unwrap_or(arguments.seeds >= SEEDS_MIN);
    if is_exhaustive && !missing.is_empty() {
        print_line(&format!("FAILED: never exercised: {}", missing.join("; ")));
        return false;
    }
    summary.failed == 0
}

fn print(verdict: &Verdict, output: Output) {
    print_line(&match output {
        Output::Plain => verdict.to_string(),
        Output::Json => serde_json::to_string(verdict).expect("a verdict is plain data"),
    });
}

#[allow(clippy::print_stdout, reason = "this is what the command is for")]
fn print_line(line: &str) {
    println!("{line}");
}
