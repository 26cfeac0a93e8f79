//! What happened, as a hash: two runs of one seed must give the same (I17).
//!
//! Everything observable is noted: bytes that a host sent or received, log lines of the nodes, operations of the
//! scenario, results of clients. Each note is folded into the hash with its simulated time and host; on demand it is
//! printed too, so that two runs can be compared line by line.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Print {
    /// Nothing.
    Nothing,
    /// Everything but the network.
    Log,
    /// All that goes into the hash.
    All,
}

/// The notes of one run.
pub struct Trace {
    hash: Mutex<Xxh3Default>,
    notes: AtomicU64,
    elapsed_us: AtomicU64,
    /// The runtime that each process runs on, and its host.
    hosts: Mutex<HashMap<Id, String>>,
    print: Print,
}

impl Trace {
    /// An empty one.
    pub fn new(print: Print) -> Arc<Self> {
        Arc::new(Self {
            hash: Mutex::new(Xxh3Default::new()),
            notes: AtomicU64::new(0),
            elapsed_us: AtomicU64::new(0),
            hosts: Mutex::default(),
            print,
        })
    }

    /// Sets the simulated time of the notes to come.
    pub fn set_elapsed(&self, elapsed: Duration) {
        let elapsed_us = u64::try_from(elapsed.as_micros()).expect("a simulation ends before");
        self.elapsed_us.store(elapsed_us, Ordering::Relaxed);
    }

    /// The simulated time since the start, to the step.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.elapsed_us.load(Ordering::Relaxed))
    }

    /// What runs on this runtime logs for `host`.
    pub fn runs_here(&self, host: &str) {
        self.hosts.lock().insert(Handle::current().id(), host.to_owned());
    }

    /// Notes a line of a host, or of the simulator itself.
    pub fn note(&self, host: &str, line: &str) {
        self.fold(host, line.as_bytes());
        if self.print >= Print::Log {
            self.print(host, line);
        }
    }

    /// Notes bytes on the network; `what` says which way they went.
    pub fn network(&self, host: &str, what: &str, bytes: &[u8]) {
        self.fold(host, what.as_bytes());
        self.fold(host, bytes);
        if self.print == Print::All {
            self.print(host, &format!("{what} {} bytes {:016x}", bytes.len(), xxh3_64(bytes)));
        }
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash.lock().digest()
    }

    /// How many notes there were.
    pub fn notes(&self) -> u64 {
        self.notes.load(Ordering::Relaxed)
    }

    fn fold(&self, host: &str, bytes: &[u8]) {
        let mut hash = self.hash.lock();
        hash.update(&self.elapsed_us.load(Ordering::Relaxed).to_le_bytes());
        for part in [host.as_bytes(), bytes] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        self.notes.fetch_add(1, Ordering::Relaxed);
    }

    fn print(&self, host: &str, line: &str) {
        // Whoever reads may have seen enough.
        let _ = writeln!(stdout(), "{:>10.3} {host:<8} {}", self.elapsed().as_secs_f64(), line.trim_end());
    }
}

/// Notes what the nodes log. Which host logs follows from the runtime: turmoil has a span for each turn of a host, and
/// making one costs more than most turns.
pub struct LogLayer(pub Arc<Trace>);

/// Whose events and spans aren't looked at: turmoil's network is noted where hosts read and write.
const NETWORK_TARGET: &str = "turmoil";

impl LogLayer {
    /// What is noted.
    pub fn filter() -> Targets {
        Targets::new().with_default(LevelFilter::INFO).with_target(NETWORK_TARGET, LevelFilter::OFF)
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line =
            Line { level: *event.metadata().level(), message: String::new(), fields: String::new() };
        event.record(&mut line);
        let host = Handle::try_current().ok().and_then(|here| self.0.hosts.lock().get(&here.id()).cloned());
        let text = format!("{:<5} {}{}", line.level, line.message, line.fields);
        self.0.note(host.as_deref().unwrap_or("-"), &text);
    }
}

struct Line {
    level: Level,
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string can't fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_tells_hosts_times_and_boundaries_apart() {
        let hash = |notes: &[(u64, &str, &str)]| {
            let trace = Trace::new(Print::Nothing);
            for (ms, host, line) in notes {
                trace.set_elapsed(Duration::from_millis(*ms));
                trace.note(host, line);
            }
            trace.hash()
        };
        let plain = hash(&[(1, "a", "bc")]);
        assert_eq!(plain, hash(&[(1, "a", "bc")]));
        assert_ne!(plain, hash(&[(2, "a", "bc")]));
        assert_ne!(plain, hash(&[(1, "ab", "c")]));
        assert_ne!(hash(&[(1, "a", "b"), (1, "a", "c")]), hash(&[(1, "a", "c"), (1, "a", "b")]));
    }
}
