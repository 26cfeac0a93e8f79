//! Blocks that other systems wrote, and text: what comes in is what was in them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tests::compare::{TOLERANCE, difference};
use tests::{NodeProcess, fixtures, run};

/// Raw samples by labels, times in milliseconds.
fn samples(matrix: &Value) -> BTreeMap<String, Vec<(i64, String)>> {
    let all = matrix.as_array().into_iter().flatten();
    all.map(|series| {
        let points = series["values"].as_array().into_iter().flatten();
        let points = points.map(|point| {
            let value: f64 = point[1].as_str().unwrap().parse().unwrap();
            ((point[0].as_f64().unwrap() * 1000.0).round() as i64, value.to_string())
        });
        (series["metric"].to_string(), points.collect())
    })
    .collect()
}

fn import(node: &NodeProcess, dir: &Path) {
    let ended = run(Some(node.url()), &["import", "prometheus-tsdb", dir.to_str().unwrap(), "-o", "json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Imports a recorded block and asks for some series over all of its range; the answer must be the recorded one.
async fn gives_what_was_recorded(part: &str, selector: &str, answer: &str) {
    let Some(dir) = fixtures(part) else { return };
    let recorded: Value = serde_json::from_slice(&std::fs::read(dir.join(answer)).unwrap()).unwrap();
    let data = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(data.path(), &[]);
    import(&node, &dir);
    let expected = samples(&recorded["data"]["result"]);
    let times: Vec<i64> = expected.values().flatten().map(|(at, _)| *at).collect();
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    let ask = async || {
        let found = node.http().query(&format!("{selector}[{}ms]", last - first + 1), *last).await;
        json!({"resultType": "matrix", "result": found})
    };
    let recorded = json!({"resultType": "matrix", "result": recorded["data"]["result"]});
    assert_eq!(difference(&ask().await, &recorded, TOLERANCE), None);

    // Again is no error, and changes nothing.
    import(&node, &dir);
    assert_eq!(difference(&ask().await, &recorded, TOLERANCE), None);
}

#[tokio::test]
async fn a_prometheus_snapshot_gives_what_prometheus_gave() {
    // The recorded answer is about two of the metric's series.
    let selector = r#"vm_log_messages_total{location=~".+/opentsdb/server.go:(48|59)"}"#;
    gives_what_was_recorded("blocks/prometheus", selector, "expected_response.json").await;
}

#[tokio::test]
async fn a_mimir_block_gives_what_mimir_gave() {
    gives_what_was_recorded("blocks/mimir", "{__name__=~\".+\"}", "expected_response.json").await;
}

#[tokio::test]
async fn a_block_with_index_format_1_opens_or_says_why_not() {
    let Some(dir) = fixtures("blocks/index-v1") else { return };
    let data = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(data.path(), &[]);
    let ended = run(Some(node.url()), &["import", "prometheus-tsdb", dir.to_str().unwrap()]);
    match ended.code {
        Some(0) => {
            let count = node.http().query("count(last_over_time({bar=~\".+\"}[3h]))", 7_200_000).await;
            assert_eq!(count[0]["value"][1], "100", "{count}");
        }
        Some(1) => assert!(ended.stderr.contains("index"), "{ended:?}"),
        _ => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn of_thanos_blocks_raw_ones_come_in_with_their_external_labels_and_downsampled_ones_are_named() {
    let Some(dir) = fixtures("blocks/thanos") else { return };
    let data = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(data.path(), &[]);
    let mut summaries = Vec::new();
    for _ in 0..2 {
        let ended =
            run(Some(node.url()), &["import", "prometheus-tsdb", dir.to_str().unwrap(), "-o", "json"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for (ulid, resolution) in
            [("01KKS78PKKR6BQ0SQ5BARRTAKC", "300000"), ("01KKS78PXE91TK8YX406DERWV2", "3600000")]
        {
            let wanted = format!("{ulid}: it is downsampled (resolution {resolution} ms)");
            assert!(ended.stderr.contains(&wanted), "{ended:?}");
        }
        summaries.push(serde_json::from_str::<Value>(&ended.stdout).unwrap());
    }
    assert_eq!((&summaries[0]["blocks"], &summaries[0]["samples"]), (&json!(1), &json!(480)));
    assert_eq!((&summaries[1]["blocks"], &summaries[1]["already_there"]), (&json!(0), &json!(1)));
    let found = node.http().query("{__name__=~\".+\"}[3h]", 1_735_696_800_000).await;
    for series in found.as_array().unwrap() {
        let metric = &series["metric"];
        assert_eq!((&metric["prometheus"], &metric["replica"]), (&json!("test"), &json!("0")), "{series}");
    }
    assert_eq!(samples(&found).values().map(Vec::len).collect::<Vec<_>>(), [120; 4]);
}

#[tokio::test]
async fn an_openmetrics_file_comes_in_whole_or_not_at_all() {
    let data = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&data.path().join("node"), &[]);
    let file = data.path().join("metrics.txt");
    // Three ranges of two hours, in no order.
    let begin_s = 1_700_000_000;
    let mut text = String::from("# TYPE imported counter\n");
    for minute in (0..360).rev() {
        for series in ["a", "b"] {
            text += &format!("imported_total{{series=\"{series}\"}} {minute} {}.5\n", begin_s + minute * 60);
        }
    }
    let import = |text: &str| {
        std::fs::write(&file, text).unwrap();
        run(Some(node.url()), &["import", "openmetrics", file.to_str().unwrap(), "-o", "json"])
    };
    for (faulty, wanted) in [
        (text.clone(), "the data does not end with # EOF"),
        (format!("{}17", &text[..text.len() - 20]), "the data does not end with # EOF"),
        (format!("{text}# EOF\n{text}# EOF\n"), "there is data after # EOF"),
        (
            format!("{text}imported_total 1 1700000000000\n# EOF\n"),
            "line 722: \"1700000000000\" isn't a time",
        ),
        (format!("{text}this line is wrong\n# EOF\n"), "line 722"),
        (format!("{text}imported_total 1 4100000000\n# EOF\n"), "limits.max_future"),
    ] {
        let ended = import(&faulty);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let told: Value = serde_json::from_str(&ended.stderr).unwrap();
        assert!(told["error"].as_str().unwrap().contains(wanted), "{wanted}: {ended:?}");
        let blocks = run(None, &["blocks", "ls", node.data_dir().to_str().unwrap()]);
        assert!(blocks.stderr.contains("no block lies in"), "{blocks:?}");
    }
    let ended = import(&format!("{text}# EOF\n"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&summary["samples"], &summary["series"]), (&json!(720), &json!(2)), "{summary}");

    let found = node.http().query("imported_total[7h]", (begin_s + 360 * 60) * 1000).await;
    let found = samples(&found);
    assert_eq!(found.len(), 2);
    for points in found.values() {
        let expected: Vec<_> =
            (0..360).map(|minute| ((begin_s + minute * 60) * 1000 + 500, minute.to_string())).collect();
        assert_eq!(points, &expected);
    }
}

#[test]
fn verbs_look_at_recorded_blocks_where_they_lie() {
    let Some(dir) = fixtures("blocks/prometheus") else { return };
    let dir = dir.to_str().unwrap();
    let listed = run(None, &["blocks", "ls", dir, "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed[0]["meta"]["stats"]["numSeries"], 2434);
    assert_eq!(run(None, &["blocks", "verify", dir]).code, Some(0));
    let inspected = run(None, &["blocks", "inspect", listed[0]["path"].as_str().unwrap(), "-o", "json"]);
    let inspected: Value = serde_json::from_str(&inspected.stdout).unwrap();
    assert_eq!(inspected["meta"]["stats"]["numSamples"], 2434);
    let metrics = inspected["metrics"].as_array().unwrap();
    assert!(
        metrics.len() == 10 && metrics[0]["series"].as_u64() > metrics[9]["series"].as_u64(),
        "{inspected}"
    );
}

#[test]
fn a_file_with_samples_older_than_retention_names_the_option() {
    let data = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&data.path().join("node"), &["--storage-retention", "15d"]);
    let file = data.path().join("metrics.txt");
    std::fs::write(&file, "old 1 1700000000\n# EOF\n").unwrap();
    let ended = run(Some(node.url()), &["import", "openmetrics", file.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("storage.retention of this node allows (15d)"), "{ended:?}");
}
