//! What a run ends with.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::exercise::{Counts, Exercise};

/// An invariant that didn't hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Violation {
    /// Its number, as in the list of invariants.
    pub invariant: String,
    /// Simulated seconds since the start.
    pub at_s: f64,
    /// What was seen.
    pub text: String,
}

/// The verdict on one seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// In one line.
    pub scenario: String,
    /// What was done to the nodes, in order.
    pub operations: Vec<String>,
    /// The hash of the trace, in hex.
    pub trace: String,
    /// Notes in the trace.
    pub notes: u64,
    /// How long the run was, in simulated seconds.
    pub simulated_s: f64,
    /// Samples sent.
    pub sent: usize,
    /// Samples acked.
    pub acked: usize,
    /// How often each check and each fault was exercised.
    pub counts: Counts,
    /// What didn't hold; nothing in a good run.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// The verdict on a seed whose process came to no verdict.
    pub fn of_a_process_that_failed(seed: u64, text: String) -> Self {
        Self {
            seed,
            scenario: String::new(),
            operations: Vec::new(),
            trace: String::new(),
            notes: 0,
            simulated_s: 0.0,
            sent: 0,
            acked: 0,
            counts: Counts::default(),
            violations: vec![Violation { invariant: "process".to_owned(), at_s: 0.0, text }],
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.violations.is_empty() { "passed" } else { "FAILED" };
        let Self { seed, scenario, trace, simulated_s, sent, acked, counts, .. } = self;
        write!(f, "seed {seed} {word}  trace {trace}  {simulated_s:.0} s  {scenario}  ")?;
        write!(f, "{acked} of {sent} samples acked, {} answers", counts.of(Exercise::ReadAnswered))?;
        if self.violations.is_empty() {
            return Ok(());
        }
        f.write_str("\n  operations:")?;
        for operation in &self.operations {
            write!(f, "\n    {operation}")?;
        }
        f.write_str("\n  violations:")?;
        for Violation { invariant, at_s, text } in &self.violations {
            write!(f, "\n    {at_s:>8.3} s  {invariant}: {text}")?;
        }
        Ok(())
    }
}
