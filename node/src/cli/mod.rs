//! The command line: one file a verb. The bare binary is `run`.
//!
//! Results go to stdout, as a table on a terminal and as tab-separated lines otherwise, or as JSON with `-o json`;
//! everything else goes to stderr. Exit codes: 0 well, 1 not well, 2 wrong usage.

mod api;
mod bench;
mod blocks;
mod bucket;
mod completion;
mod config;
mod dev;
mod failure;
mod import;
mod node;
mod output;
mod query;
mod ring;
mod run;
mod signals;
mod when;
mod work_dir;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use failure::Failure;
use output::{Format, Output};

/// A metrics database of equal nodes: takes Prometheus's remote write, answers PromQL.
#[derive(Debug, Parser)]
#[command(name = "carillon", version, max_term_width = 110, arg_required_else_help = false)]
struct Cli {
    /// How results are shown: a table on a terminal and plain lines otherwise, unless given
    #[arg(short = 'o', long = "output", value_enum, global = true, help_heading = "Output")]
    output: Option<Format>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a node: what the bare binary does
    Run(run::Run),
    /// Run a cluster on this machine, to try things out
    Dev(dev::Dev),
    /// Show the cluster at a glance
    Status(ring::Status),
    /// Show the ring: who keeps what
    Ring(ring::Ring),
    /// List members, have one leave, give one up
    #[command(subcommand)]
    Node(node::Node),
    /// Ask a PromQL question
    #[command(subcommand)]
    Query(query::Query),
    /// List the series that selectors match
    Series(query::Series),
    /// List label names, or the values of one label
    Labels(query::Labels),
    /// Look at blocks where they lie
    #[command(subcommand)]
    Blocks(blocks::Blocks),
    /// Move the bucket of a node that is to become a cluster
    #[command(subcommand)]
    Bucket(bucket::Bucket),
    /// Bring the past into a running node
    #[command(subcommand)]
    Import(import::Import),
    /// Put load on a running node, or on any server that speaks Prometheus's protocols
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Check, print or describe the configuration
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Print a completion script for a shell
    Completion(completion::Completion),
}

/// Does what the arguments, the program's name first, say.
pub fn main(mut args: Vec<OsString>) -> ExitCode {
    insert_default_verb(&mut args);
    let parsed = Cli::command().try_get_matches_from(args).and_then(|m| Cli::from_arg_matches(&m));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version are such "errors" too; clap knows which stream and which code.
            let code = if message.use_stderr() { failure::WRONG_USAGE } else { 0 };
            drop(message.print());
            return ExitCode::from(code);
        }
    };
    let output = Output::new(cli.output);
    match cli.verb.run(&output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Who reads a node's log as JSON shall find nothing else there.
            if !matches!(failure, Failure::Logged(_)) {
                output.error(&failure);
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

impl Verb {
    fn run(self, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Run(verb) => block_on(verb.run(output)),
            Self::Dev(verb) => block_on(verb.run(output)),
            Self::Status(verb) => block_on(verb.run(output)),
            Self::Ring(verb) => block_on(verb.run(output)),
            Self::Node(verb) => block_on(verb.run(output)),
            Self::Query(verb) => block_on(verb.run(output)),
            Self::Series(verb) => block_on(verb.run(output)),
            Self::Labels(verb) => block_on(verb.run(output)),
            Self::Blocks(verb) => verb.run(output),
            Self::Bucket(verb) => block_on(verb.run(output)),
            Self::Import(verb) => block_on(verb.run(output)),
            Self::Bench(verb) => block_on(verb.run(output)),
            Self::Config(verb) => verb.run(output),
            Self::Completion(verb) => verb.run(Cli::command(), output),
        }
    }
}

/// The whole command line as clap describes it: for reference pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// `carillon --data-dir x` means `carillon run --data-dir x`: where the first argument is an option that isn't the
/// program's own, or there is none, `run` is meant.
fn insert_default_verb(args: &mut Vec<OsString>) {
    let verbless = match args.get(1).map(|first| first.to_string_lossy()) {
        None => true,
        Some(first) => {
            let own = ["-h", "--help", "-V", "--version", "-o", "--output"];
            first.starts_with('-') && !own.contains(&first.as_ref()) && !first.starts_with("--output=")
        }
    };
    if verbless {
        args.insert(args.len().min(1), "run".into());
    }
}

/// How long a verb that has ended waits for blocking calls of its runtime.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs a verb that waits for a network.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("can't start the async runtime: {e}")))?;
    let done = runtime.block_on(work);
    // What the system keeps hanging, a sync on a failed disk for example, mustn't keep the process alive.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declarations_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_option_of_run_needs_no_verb() {
        let with_verb = |args: &[&str]| {
            let mut args: Vec<OsString> = args.iter().map(Into::into).collect();
            insert_default_verb(&mut args);
            args.into_iter().map(|a| a.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(with_verb(&["carillon"]), ["carillon", "run"]);
        assert_eq!(with_verb(&["carillon", "--data-dir", "x"]), ["carillon", "run", "--data-dir", "x"]);
        assert_eq!(with_verb(&["carillon", "--help"]), ["carillon", "--help"]);
        assert_eq!(with_verb(&["carillon", "query"]), ["carillon", "query"]);
    }
}
