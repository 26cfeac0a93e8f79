//! Runs Prometheus's PromQL test scripts against the engine in this process, or against a server.
//!
//! `cargo run --release -p promql --example promqltest -- [--url URL] [--tenant PREFIX] [--verbose] FILES`

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]
#![allow(clippy::disallowed_methods, reason = "a tool reads its files itself")]

mod api;
mod engine;
mod expect;
mod histogram;
mod load;
mod nhcb;
mod remote_write;
mod run;
mod scan;
mod script;
mod values;

use std::path::Path;
use std::process::ExitCode;

use run::{Score, Target};

const USAGE: &str = "usage: promqltest [--url URL [--tenant PREFIX]] [--verbose] FILES

  --url URL         ask a server that takes remote write 2.0 and answers Prometheus's HTTP API; it must keep start
                    times, and the age limits of its tenants must be lifted, since scripts begin in 1970
  --tenant PREFIX   names of the tenants that each `clear` begins, without their number
  --verbose         tell each case that doesn't pass";

fn main() -> ExitCode {
    match run_files(std::env::args().skip(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

/// Whether every case passed.
fn run_files(mut arguments: impl Iterator<Item = String>) -> Result<bool, String> {
    let (mut verbose, mut files) = (false, Vec::new());
    let mut url = None;
    let mut tenant = format!("promqltest-{}", std::process::id());
    let value = |flag: &str, arguments: &mut dyn Iterator<Item = String>| {
        arguments.next().ok_or_else(|| format!("{flag} wants a value\n{USAGE}"))
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--verbose" => verbose = true,
            "--url" => url = Some(value("--url", &mut arguments)?),
            "--tenant" => tenant = value("--tenant", &mut arguments)?,
            "--help" => return Err(USAGE.to_owned()),
            flag if flag.starts_with("--") => return Err(format!("unknown option {flag}\n{USAGE}")),
            file => files.push(file.to_owned()),
        }
    }
    if files.is_empty() {
        return Err(USAGE.to_owned());
    }
    let mut target: Box<dyn Target> = match url {
        Some(url) => Box::new(api::Api::new(&url, tenant)?),
        None => Box::new(engine::Engine::default()),
    };
    let mut sum = Score::default();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
        let name = Path::new(&file).file_name().map_or(file.as_str().into(), |name| name.to_string_lossy());
        let score = run::run(&script::parse(&text), &mut *target, |line, query, message| {
            if verbose {
                println!("{name}:{line}: {query}: {message}");
            }
        });
        println!("{name}: {} of {}", score.passed, score.total);
        sum.passed += score.passed;
        sum.total += score.total;
    }
    println!("total: {} of {}", sum.passed, sum.total);
    Ok(sum.passed == sum.total)
}
