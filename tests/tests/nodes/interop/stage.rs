//! Two real Prometheus servers scrape themselves and node_exporter, and send to us and to a judge, which is a
//! Prometheus 3 that only receives: whoever is asked has the same samples.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tests::compare::{TOLERANCE, difference};
use tests::{Http, Peer, eventually, free_port, node_exporter, now_ms, prometheus, prometheus_new};

/// How long the servers are scraped, once a second.
const SCRAPED: Duration = Duration::from_secs(40);
const STEP_MS: i64 = 1000;
/// Ranges asked: within what was scraped, windows of 20 s before them included.
pub const RANGE_MS: i64 = 15_000;

const QUERIES: &str = include_str!("queries.txt");

fn configuration(name: &str, exporter: u16, receivers: &[String]) -> String {
    let mut text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, external_labels: {{prom: {name}}}}}\n\
         scrape_configs:\n  - {{job_name: prometheus, static_configs: [{{targets: ['SELF']}}]}}\n  \
         - {{job_name: node, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}\nremote_write:\n"
    );
    for receiver in receivers {
        text += &format!(
            "  - {{url: '{receiver}/api/v1/write', queue_config: {{batch_send_deadline: 500ms}}}}\n"
        );
    }
    text
}

/// Everything that runs in this test.
pub struct Stage {
    /// Nodes to ask; what is sent goes to the first.
    pub nodes: Vec<Http>,
    /// Who knows the right answers.
    pub judge: Peer,
    /// Where the judge has samples, in milliseconds: the first and the last.
    pub from_ms: i64,
    /// See `from_ms`.
    pub to_ms: i64,
    /// A timestamp of a sample in between.
    pub on_grid_ms: i64,
}

impl Stage {
    /// Sets it, its files in `dir`; `None` with a message where a peer isn't installed.
    pub async fn set(dir: &Path, nodes: Vec<Http>) -> Option<Self> {
        let (old, new, exporter) = (prometheus()?, prometheus_new()?, node_exporter()?);
        let judge = super::judge(&new, &dir.join("judge")).await;
        let port = free_port();
        let args = [format!("--web.listen-address=127.0.0.1:{port}")];
        let exporter = Peer::start(&exporter, port, &args, dir, "/").await;
        let receivers = [nodes[0].base().to_owned(), judge.url()];
        let from_ms = now_ms();
        let scrapers = [
            Peer::prometheus(&old, &dir.join("old"), &configuration("old", exporter.port(), &receivers), &[])
                .await,
            Peer::prometheus(&new, &dir.join("new"), &configuration("new", exporter.port(), &receivers), &[])
                .await,
        ];
        tokio::time::sleep(SCRAPED).await;
        let to_ms = now_ms();
        // The last second may still be under way; both must have all up to `to_ms`.
        let span = format!("{{__name__=~\".+\"}}[{}ms]", to_ms - from_ms);
        eventually("both have been sent the same samples", 60, async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let ours = samples(&nodes[0].query(&span, to_ms).await);
            let theirs = samples(&judge.http().query(&span, to_ms).await);
            (ours == theirs && theirs > 0).then_some(())
        })
        .await;
        drop(scrapers);
        let at_ms = to_ms - 2000;
        let stamp = judge.http().query("timestamp(up{job=\"node\", prom=\"new\"})", at_ms).await;
        let on_grid_s: f64 = stamp[0]["value"][1].as_str()?.parse().unwrap();
        Some(Self { nodes, judge, from_ms, to_ms, on_grid_ms: (on_grid_s * 1000.0).round() as i64 })
    }

    /// Asks the first `count` questions of every node and of the judge.
    pub async fn ask(&self, count: usize) {
        assert!(self.on_grid_ms > self.from_ms && self.on_grid_ms <= self.to_ms);
        let (mut wrong, mut empty, mut asked) = (Vec::new(), Vec::new(), 0);
        for (is_range, tolerance, expr) in questions().into_iter().take(count) {
            // On a sample's timestamp, between two, and just before one.
            for shift_ms in [0, -337, -1] {
                let end_ms = self.on_grid_ms + shift_ms;
                let (end, start) = (seconds(end_ms), seconds(end_ms - RANGE_MS));
                let found = if is_range {
                    let step = if shift_ms == 0 { seconds(STEP_MS) } else { seconds(STEP_MS - 123) };
                    let range = [("query", expr), ("start", &start), ("end", &end), ("step", &step)];
                    self.compare("/api/v1/query_range", &range, tolerance).await
                } else {
                    self.compare("/api/v1/query", &[("query", expr), ("time", &end)], tolerance).await
                };
                asked += self.nodes.len();
                match found {
                    Err(what) => wrong.push(format!("{expr} ({shift_ms} ms off the grid): {what}")),
                    Ok(false) if !expr.contains("absent") => empty.push(expr),
                    Ok(_) => {}
                }
            }
        }
        println!("{asked} answers compared, {} differ", wrong.len());
        assert!(wrong.is_empty(), "{} of {asked} answers differ:\n{}", wrong.len(), wrong.join("\n"));
        // Two empty answers are equal and show nothing.
        assert!(empty.is_empty(), "nothing was found by {empty:?}");
    }

    /// What differs in the answers to one question, which all must answer; else whether there was anything to compare.
    async fn compare(&self, path: &str, parameters: &[(&str, &str)], tolerance: f64) -> Result<bool, String> {
        let theirs = self.judge.http().form(path, parameters).await;
        if theirs.status != 200 {
            return Err(format!("the judge doesn't answer: {}", theirs.body));
        }
        let theirs = theirs.json();
        for node in &self.nodes {
            let ours = node.form(path, parameters).await;
            if ours.status != 200 {
                return Err(format!("we don't answer: {}", ours.body));
            }
            if let Some(what) = difference(&ours.json()["data"], &theirs["data"], tolerance) {
                return Err(what);
            }
        }
        Ok(theirs["data"]["result"].as_array().is_some_and(|result| !result.is_empty()))
    }
}

/// How many samples a matrix holds.
fn samples(matrix: &Value) -> usize {
    matrix.as_array().into_iter().flatten().map(|s| s["values"].as_array().map_or(0, Vec::len)).sum()
}

pub fn seconds(ms: i64) -> String {
    format!("{:.3}", ms as f64 / 1000.0)
}

/// `instant` or `range`, tolerance, expression.
pub fn questions() -> Vec<(bool, f64, &'static str)> {
    let lines = QUERIES.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (kind, expr) = line.split_once(' ').unwrap();
            let (kind, tolerance) = match kind.split_once('~') {
                Some((kind, tolerance)) => (kind, tolerance.parse().unwrap()),
                None => (kind, TOLERANCE),
            };
            assert!(kind == "instant" || kind == "range", "{line}");
            (kind == "range", tolerance, expr)
        })
        .collect()
}
