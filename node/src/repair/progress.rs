//! How far repair is: for `status` and `/metrics`.

use std::sync::Weak;

use prometheus_client::collector::Collector;

use crate::metrics::at_scrape;
use crate::node::App;

/// How far repair is. Counts are since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rounds through all peers.
    pub rounds: u64,
    /// When the last one ended, by the wall clock, in milliseconds.
    pub round_ended_ms: Option<i64>,
    /// Windows in which the last whole round found something to pull: 0 = as far as could be asked, nothing is lacking.
    pub lacking: u64,
    /// Peers that the last round couldn't ask.
    pub unasked: u64,
    /// Epoch of the ring document under which the last whole round asked everybody; `None` before there was one, and
    /// while somebody can't be asked.
    pub whole: Option<ring::Epoch>,
    /// Windows whose digests were compared.
    pub compared: u64,
    /// Those that differed.
    pub differing: u64,
    /// Series that came.
    pub series: u64,
    /// Samples that were lacking and are stored now.
    pub samples: u64,
    /// Encoded bytes that came.
    pub bytes: u64,
    /// Series that a tenant had no room for.
    pub refused: u64,
    /// Comparisons that ended with an error.
    pub failures: u64,
    /// The last of those errors.
    pub failure: Option<String>,
}

/// Tells it at each scrape.
pub(super) fn collector(app: Weak<App>) -> Box<dyn Collector> {
    at_scrape(move |out| {
        let Some(app) = app.upgrade() else { return Ok(()) };
        let progress = app.repair.progress();
        for (name, help, count) in [
            ("carillon_repair_rounds", "Rounds of repair through all peers", progress.rounds),
            ("carillon_repair_windows_compared", "Windows compared with a peer", progress.compared),
            ("carillon_repair_windows_differing", "Windows that differed", progress.differing),
            ("carillon_repair_series", "Series pulled", progress.series),
            ("carillon_repair_samples", "Samples that were lacking, stored by repair", progress.samples),
            ("carillon_repair_bytes", "Encoded bytes pulled", progress.bytes),
            ("carillon_repair_refused_series", "Series that a tenant had no room for", progress.refused),
            ("carillon_repair_failures", "Comparisons that ended with an error", progress.failures),
        ] {
            out.counter(name, help, count as f64)?;
        }
        out.gauge(
            "carillon_repair_windows_lacking",
            "Windows in which the last round found something to pull",
            progress.lacking as f64,
        )?;
        out.gauge(
            "carillon_repair_peers_unasked",
            "Peers that the last round couldn't ask",
            progress.unasked as f64,
        )
    })
}
