//! Two real Prometheus servers scrape themselves and node_exporter, and send to us and to a judge, which is a
//! Prometheus 3 that only receives. Then a hundred questions are asked of both, on the samples' grid and off it.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tests::compare::{TOLERANCE, difference};
use tests::{
    Http, NodeProcess, Peer, eventually, free_port, node_exporter, now_ms, prometheus, prometheus_new,
    promtool,
};

/// How long the servers are scraped, once a second.
const SCRAPED: Duration = Duration::from_secs(40);
const STEP_MS: i64 = 1000;
/// Ranges asked: within what was scraped, windows of 20 s before them included.
const RANGE_MS: i64 = 15_000;

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
struct Stage {
    node: NodeProcess,
    judge: Peer,
    /// Where the judge has samples, in milliseconds: the first and the last.
    from_ms: i64,
    to_ms: i64,
    /// A timestamp of a sample in between.
    on_grid_ms: i64,
}

impl Stage {
    async fn set(dir: &Path) -> Option<Self> {
        let (old, new, exporter) = (prometheus()?, prometheus_new()?, node_exporter()?);
        let node = NodeProcess::start(&dir.join("node"), &[]);
        let judge = super::judge(&new, &dir.join("judge")).await;
        let port = free_port();
        let args = [format!("--web.listen-address=127.0.0.1:{port}")];
        let exporter = Peer::start(&exporter, port, &args, dir, "/").await;
        let receivers = [node.url().to_owned(), judge.url()];
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
            let ours = samples(&node.http().query(&span, to_ms).await);
            let theirs = samples(&judge.http().query(&span, to_ms).await);
            (ours == theirs && theirs > 0).then_some(())
        })
        .await;
        drop(scrapers);
        let at_ms = to_ms - 2000;
        let stamp = judge.http().query("timestamp(up{job=\"node\", prom=\"new\"})", at_ms).await;
        let on_grid_s: f64 = stamp[0]["value"][1].as_str()?.parse().unwrap();
        Some(Self { node, judge, from_ms, to_ms, on_grid_ms: (on_grid_s * 1000.0).round() as i64 })
    }

    /// What differs in the answers to one question, which both must answer; else whether there was anything to compare.
    async fn compare(&self, path: &str, parameters: &[(&str, &str)], tolerance: f64) -> Result<bool, String> {
        let ask = async |http: Http| http.form(path, parameters).await;
        let (ours, theirs) = (ask(self.node.http()).await, ask(self.judge.http()).await);
        if theirs.status != 200 {
            return Err(format!("the judge doesn't answer: {}", theirs.body));
        }
        if ours.status != 200 {
            return Err(format!("we don't answer: {}", ours.body));
        }
        let (ours, theirs) = (ours.json(), theirs.json());
        match difference(&ours["data"], &theirs["data"], tolerance) {
            Some(what) => Err(what),
            None => Ok(theirs["data"]["result"].as_array().is_some_and(|result| !result.is_empty())),
        }
    }
}

/// How many samples a matrix holds.
fn samples(matrix: &Value) -> usize {
    matrix.as_array().into_iter().flatten().map(|s| s["values"].as_array().map_or(0, Vec::len)).sum()
}

fn seconds(ms: i64) -> String {
    format!("{:.3}", ms as f64 / 1000.0)
}

/// `instant` or `range`, tolerance, expression.
fn questions() -> Vec<(bool, f64, &'static str)> {
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

#[test]
fn there_are_at_least_a_hundred_questions() {
    assert!(questions().len() >= 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_answers_are_prometheus_3s() {
    let dir = tempfile::tempdir().unwrap();
    let Some(stage) = Stage::set(dir.path()).await else { return };
    assert!(stage.on_grid_ms > stage.from_ms && stage.on_grid_ms <= stage.to_ms);
    let (mut wrong, mut empty, mut asked) = (Vec::new(), Vec::new(), 0);
    for (is_range, tolerance, expr) in questions() {
        // On a sample's timestamp, between two, and just before one.
        for shift_ms in [0, -337, -1] {
            let end_ms = stage.on_grid_ms + shift_ms;
            let (end, start) = (seconds(end_ms), seconds(end_ms - RANGE_MS));
            let found = if is_range {
                let step = if shift_ms == 0 { seconds(STEP_MS) } else { seconds(STEP_MS - 123) };
                let range = [("query", expr), ("start", &start), ("end", &end), ("step", &step)];
                stage.compare("/api/v1/query_range", &range, tolerance).await
            } else {
                stage.compare("/api/v1/query", &[("query", expr), ("time", &end)], tolerance).await
            };
            asked += 1;
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

    listings(&stage).await;
    promtool_asks(&stage);
}

/// Names, values and series are the same too.
async fn listings(stage: &Stage) {
    let (start, end) = (seconds(stage.from_ms), seconds(stage.to_ms));
    let range = [("start", start.as_str()), ("end", &end)];
    for (path, selector) in [
        ("/api/v1/labels", None),
        ("/api/v1/labels", Some("up")),
        ("/api/v1/label/__name__/values", None),
        ("/api/v1/label/job/values", None),
        ("/api/v1/label/mode/values", Some("node_cpu_seconds_total{mode=~\"i.*\"}")),
        ("/api/v1/series", Some("{__name__=~\"prometheus_tsdb_.*\"}")),
    ] {
        let mut parameters = range.to_vec();
        parameters.extend(selector.map(|s| ("match[]", s)));
        let sorted = async |http: Http| {
            let answer = http.get(path, &parameters).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            let mut data: Vec<_> =
                answer.json()["data"].as_array().unwrap().iter().map(Value::to_string).collect();
            data.sort();
            data
        };
        assert_eq!(sorted(stage.node.http()).await, sorted(stage.judge.http()).await, "{path} {selector:?}");
    }
}

fn promtool_asks(stage: &Stage) {
    let Some(promtool) = promtool() else { return };
    let (url, time) = (stage.node.url(), seconds(stage.on_grid_ms));
    let start = seconds(stage.on_grid_ms - RANGE_MS);
    let calls: [(&[&str], &str); 4] = [
        (&["query", "instant", "--time", &time, url, "up"], "up{"),
        (&["query", "range", "--start", &start, "--end", &time, "--step", "1s", url, "sum(up)"], "{} =>"),
        (&["query", "series", "--match", "up", "--start", &start, "--end", &time, url], "job=\"node\""),
        (&["query", "labels", "--start", &start, "--end", &time, url, "job"], "prometheus"),
    ];
    for (args, wanted) in calls {
        let output = std::process::Command::new(&promtool).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains(wanted), "promtool {args:?}: {text}{told}");
    }
}
