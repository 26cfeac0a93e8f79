//! A hundred questions are asked of us and of a judge, on the samples' grid and off it.

use serde_json::Value;
use tests::{Http, NodeProcess, promtool};

use super::stage::{RANGE_MS, Stage, questions, seconds};

#[test]
fn there_are_at_least_a_hundred_questions() {
    assert!(questions().len() >= 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_answers_are_prometheus_3s() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&dir.path().join("node"), &[]);
    let Some(stage) = Stage::set(dir.path(), vec![node.http()]).await else { return };
    stage.ask(usize::MAX).await;
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
        assert_eq!(
            sorted(stage.nodes[0].clone()).await,
            sorted(stage.judge.http()).await,
            "{path} {selector:?}"
        );
    }
}

fn promtool_asks(stage: &Stage) {
    let Some(promtool) = promtool() else { return };
    let (url, time) = (stage.nodes[0].base(), seconds(stage.on_grid_ms));
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
