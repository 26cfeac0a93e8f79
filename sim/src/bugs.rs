//! Planted bugs: of each, which is the first seed that fails.
//!
//! A seed catches a bug where it fails with it and passes without: one that fails anyway shows nothing. Seeds run in
//! order, several at once, so that the first that catches is the same whatever `--jobs` says.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use clap::error::ErrorKind;
use parking_lot::Mutex;
use planted::Bug;
use serde::Serialize;

use crate::exercise::Switches;
use crate::{Output, many, print_line};

/// What `planted` is asked.
#[derive(Args)]
pub struct Arguments {
    /// The bugs, by name, with commas between them; without, all.
    #[arg(long, value_delimiter = ',', value_parser = bug)]
    bugs: Vec<Bug>,
    /// How many seeds may try to catch each, from 0.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Seeds at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
    /// How many bugs have to be caught; without, all.
    #[arg(long)]
    at_least: Option<usize>,
    /// How rows are printed.
    #[arg(short, long, value_enum, default_value_t = Output::Plain)]
    output: Output,
}

/// What came of one bug.
#[derive(Debug, Serialize)]
struct Row {
    bug: &'static str,
    what: &'static str,
    /// How many seeds were allowed to try.
    seeds: u64,
    caught: Option<Catch>,
}

/// The first seed that noticed.
#[derive(Debug, Serialize)]
struct Catch {
    seed: u64,
    /// Which invariant didn't hold first, and what was seen.
    invariant: String,
    text: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<26}", self.bug)?;
        match &self.caught {
            Some(Catch { seed, invariant, text }) => {
                write!(f, "seed {seed:<4} {invariant:<8} {}", text.lines().next().unwrap_or_default())
            }
            None => write!(f, "not caught in {} seeds", self.seeds),
        }
    }
}

/// Tries all bugs that are asked for, and prints a row for each; whether enough were caught.
pub fn run(arguments: &Arguments) -> bool {
    if !planted::IS_POSSIBLE {
        let how = "no bug can be planted in this build: cargo build --release -p sim --features planted\n";
        clap::Error::raw(ErrorKind::InvalidSubcommand, how).exit();
    }
    let bugs = if arguments.bugs.is_empty() { Bug::ALL } else { &arguments.bugs };
    let mut caught = 0;
    for bug in bugs {
        let row = Row {
            bug: bug.name(),
            what: bug.what(),
            seeds: arguments.seeds,
            caught: catch(*bug, arguments.seeds, arguments.jobs),
        };
        caught += usize::from(row.caught.is_some());
        print_line(&match arguments.output {
            Output::Plain => row.to_string(),
            Output::Json => serde_json::to_string(&row).expect("a row is plain data"),
        });
    }
    if arguments.output == Output::Plain {
        print_line(&format!("{caught} of {} planted bugs caught", bugs.len()));
    }
    caught >= arguments.at_least.unwrap_or(bugs.len())
}

/// Runs seeds below `seeds` until one catches the bug.
fn catch(bug: Bug, seeds: u64, jobs: u64) -> Option<Catch> {
    let next = AtomicU64::new(0);
    let first: Mutex<Option<Catch>> = Mutex::default();
    let is_of_use = |seed| seed < seeds && first.lock().as_ref().is_none_or(|found| seed < found.seed);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !is_of_use(seed) {
                        return;
                    }
                    let Some(violation) = many::in_a_process(seed, &Switches::default(), Some(bug))
                        .violations
                        .into_iter()
                        .next()
                    else {
                        continue;
                    };
                    if many::in_a_process(seed, &Switches::default(), None).violations.is_empty()
                        && is_of_use(seed)
                    {
                        let (invariant, text) = (violation.invariant, violation.text);
                        *first.lock() = Some(Catch { seed, invariant, text });
                    }
                }
            });
        }
    });
    first.into_inner()
}

fn bug(name: &str) -> Result<Bug, String> {
    Bug::named(name).ok_or_else(|| {
        let names: Vec<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        format!("there is no such bug; there are {}", names.join(", "))
    })
}
