//! Load and measurements: the workloads that `carillon bench` runs against any node, and against its peers.
//!
//! A measured figure is CPU time of the server's process, taken from `/proc`, so that a noisy machine and the client's
//! own work stay out of it; wall time stands beside it. Payloads come from a seed: every server gets the same bytes.

pub mod expressions;
pub mod payload;
pub mod process;
pub mod query;
pub mod storage;
pub mod workload;
pub mod write;

/// Anything that ends a benchmark early, in words for its user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

impl Error {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Least, median and most of repeated runs.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// The smallest run.
    pub least: f64,
    /// The middle run; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The largest run.
    pub most: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (&least, &most) = (sorted.first()?, sorted.last()?);
        let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { least, median, most })
    }
}

/// The value below which `share` (0 to 1) of the sorted values lie, by nearest rank.
fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).or(sorted.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_of_its_runs() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { least: 1.0, median: 2.0, most: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).map(|s| s.median), Some(2.5));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(
            (percentile(&values, 0.5), percentile(&values, 0.99), percentile(&values, 1.0)),
            (50, 99, 100)
        );
        assert_eq!(percentile(&[7], 0.99), 7);
    }
}
