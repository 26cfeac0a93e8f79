//! The simulator: the real node code on simulated time, network and disk, under faults, judged by a ledger of what was
//! acked.
//!
//! 1. A seed is a [`scenario`]: machines, load, and operations with times.
//! 2. [`one`] runs it: turmoil gives each host its turns and carries its packets, [`world`] is what a node takes for
//!    the world, [`client`] writes and asks and judges, [`trace`] folds all that happens into a hash.
//! 3. [`many`] runs seeds one after the other, each in a process of its own: [`interpose`] replaces the clocks and
//!    random numbers of the whole process.
//! 4. [`bugs`] plants bugs in the nodes, to see which seed notices.

mod bugs;
mod client;
mod interpose;
mod many;
mod one;
mod scenario;
mod trace;
mod verdict;
mod world;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    },
    /// Plants bugs in the nodes, one after the other, and runs seeds until one notices; for builds with `--features
    /// planted`.
    Planted(bugs::Arguments),
}

#[derive(Args)]
struct RunArguments {
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
        Verb::Replay { seed, all } => {
            let verdict = one::run(seed, if all { Print::All } else { Print::Log });
            print(&verdict, Output::Plain);
            verdict.violations.is_empty()
        }
        Verb::Planted(arguments) => bugs::run(&arguments),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(arguments: &RunArguments) -> bool {
    if let Some(seed) = arguments.seed {
        let verdict = one::run(seed, Print::Nothing);
        print(&verdict, arguments.output);
        return verdict.violations.is_empty();
    }
    let told = |verdict: &Verdict| print(verdict, arguments.output);
    let (seeds, jobs) = (arguments.from..arguments.from.saturating_add(arguments.seeds), arguments.jobs);
    let summary = many::run(seeds, jobs, arguments.twice, &told);
    if arguments.output == Output::Plain {
        print_line(&summary.to_string());
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
