//! `carillon import {prometheus-tsdb,openmetrics}`: brings the past into a running node, as blocks.

mod openmetrics;
mod prometheus;
mod upload;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Failure;
use super::output::{Output, Rows};

/// Where from.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// Upload the blocks of a Prometheus data folder, a snapshot, or any folder that holds blocks
    PrometheusTsdb(prometheus::PrometheusTsdb),
    /// Make blocks of a file in OpenMetrics's text format, every sample with a timestamp, and upload them
    Openmetrics(openmetrics::OpenMetrics),
}

/// What was brought in.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// Blocks uploaded.
    blocks: u64,
    /// Samples in them.
    samples: u64,
    /// Series in them, each once.
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<u64>,
    /// The sum of the blocks' series: one that is in several blocks counts in each.
    #[serde(skip_serializing_if = "Option::is_none")]
    series_of_blocks: Option<u64>,
    /// Blocks that the node had before.
    already_there: u64,
    /// Parts that weren't brought in, with the reason.
    refused: Vec<String>,
}

impl Import {
    pub(super) async fn run(&self, output: &Output) -> Result<(), Failure> {
        let summary = match self {
            Self::PrometheusTsdb(verb) => verb.run(output).await?,
            Self::Openmetrics(verb) => verb.run(output).await?,
        };
        summary.show(output)
    }
}

impl Summary {
    fn show(&self, output: &Output) -> Result<(), Failure> {
        output.show(self, || {
            let mut rows = Rows::new(&["what", "#count"]);
            for (what, count) in [
                ("blocks", Some(self.blocks)),
                ("samples", Some(self.samples)),
                ("series", self.series),
                ("series, summed over blocks", self.series_of_blocks),
                ("blocks that were there already", Some(self.already_there)),
            ] {
                rows.extend(count.map(|count| vec![what.to_owned(), count.to_string()]));
            }
            rows
        })?;
        if self.refused.is_empty() {
            return Ok(());
        }
        Err(Failure::failed(format!("not everything was imported:\n{}", self.refused.join("\n"))))
    }
}

/// What every import does with a block that can't be read: named here, so that the verbs agree.
#[derive(Debug, Args)]
struct Checks {
    /// Upload blocks without reading them whole beforehand; the node still checks them
    #[arg(long)]
    no_verify: bool,
}
