//! What is imported through one node is everybody's. Varied: whom the answer comes from, before and after the node that took
//! it is paused and gone. Held fixed: five nodes, three copies, 300 series in one file.

use std::fmt::Write as _;

use tests::cluster::Cluster;
use tests::{eventually, now_ms};

use super::safe::safe;

const SERIES: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn an_import_outlives_the_node_that_took_it() {
    let mut cluster = Cluster::start(5, 5).await;
    let (file, begin_s) = (cluster.dir().join("past.txt"), now_ms() / 1000 - 3 * 86_400);
    let mut text = "# TYPE imported gauge\n".to_owned();
    for series in 0..SERIES {
        for minute in 0..3 {
            writeln!(text, "imported{{series=\"{series}\"}} {minute} {}", begin_s + 60 * minute).unwrap();
        }
    }
    std::fs::write(&file, text + "# EOF\n").unwrap();
    let import = |node: usize| {
        let ended = cluster.run(node, &["import", "openmetrics", file.to_str().unwrap(), "-o", "json"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str::<serde_json::Value>(&ended.stdout).unwrap()
    };
    assert_eq!(import(0)["samples"], 3 * SERIES);
    assert_eq!(import(3)["blocks"], 0, "again, through another node: all of it is there");
    all_see(&cluster, &[0, 1, 2, 3, 4]).await;
    // Until the founder's own placement is closed, nobody can do without it.
    safe(&cluster, 1).await;
    cluster.kill(0);
    all_see(&cluster, &[1, 2, 3, 4]).await;
    cluster.wipe(0);
    all_see(&cluster, &[1, 2, 3, 4]).await;
}

/// Each of these nodes answers with all of it, or, while it hasn't noticed yet who is away, with an error.
async fn all_see(cluster: &Cluster, nodes: &[usize]) {
    for node in nodes {
        let http = cluster.http(*node);
        let parameters = [("query", "sum(count_over_time(imported[4d]))")];
        let count = eventually("a complete answer", 30, async || {
            let answer = http.try_get("/api/v1/query", &parameters).await.ok()?;
            assert!(answer.status == 200 || answer.status == 503, "{}", answer.body);
            (answer.status == 200).then(|| answer.json()["data"]["result"][0]["value"][1].clone())
        })
        .await;
        assert_eq!(count, (3 * SERIES).to_string(), "{}", cluster.name(*node));
    }
}
