//! `carillon bucket move`: a node on its own becomes one of three.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tests::cluster::Cluster;
use tests::{Http, NodeProcess, carillon, eventually, now_ms, run, wire};

const SERIES: usize = 50;
/// Objects of the move that is killed, and how many are there before.
const OBJECTS: usize = 1000;
const KILLED_AFTER: usize = 20;

async fn write(http: &Http, name: &str, at_ms: i64) {
    let series: Vec<_> = (0..SERIES).map(|s| s.to_string()).collect();
    let labels: Vec<_> = series.iter().map(|s| [("__name__", name), ("series", s.as_str())]).collect();
    let samples: Vec<wire::Sample<'_>> = labels.iter().map(|l| (&l[..], 1.5, at_ms)).collect();
    let answer = http.write(wire::body(&samples)).await;
    assert!(answer.status < 300, "{}", answer.body);
}

/// Samples of this name that a node's answers hold.
async fn count(http: &Http, name: &str, at_ms: i64) -> Option<usize> {
    let time = format!("{:.3}", at_ms as f64 / 1000.0);
    let asked = [("query", name), ("time", &*time)];
    let answer = http.try_get("/api/v1/query", &asked).await.ok().filter(|answer| answer.status == 200)?;
    answer.json()["data"]["result"].as_array().map(Vec::len)
}

/// A node on its own, with its bucket where it is by default.
fn single(data_dir: &Path) -> Result<NodeProcess, String> {
    NodeProcess::try_start(data_dir, &[])
}

fn arguments<'a>(data_dir: &'a Path, to: &'a str) -> [&'a str; 6] {
    ["bucket", "move", to, "--data-dir", data_dir.to_str().unwrap(), "--yes"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_its_own_moves_its_bucket_and_grows_to_three() {
    let mut cluster = Cluster::empty();
    for zone in ["z0", "z1", "z2"] {
        cluster.place(zone);
    }
    let (data_dir, to) = (cluster.data_dir(0), cluster.bucket().display().to_string());
    let mut node = single(&data_dir).unwrap();
    let at_ms = now_ms() - 1000;
    write(&node.http(), "before", at_ms).await;
    let refused = run(None, &arguments(&data_dir, &to));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("must be stopped"), "{refused:?}");
    node.stop();

    let words = arguments(&data_dir, &to);
    let shown = run(None, &words[..5]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stderr.contains("with --yes it is done"), "{shown:?}");
    assert!(!cluster.bucket().join("carillon").exists(), "it was only shown");
    let moved = run(None, &[&words[..], &["-o", "json"]].concat());
    assert_eq!(moved.code, Some(0), "{moved:?}");
    let told: serde_json::Value = serde_json::from_str(&moved.stdout).unwrap();
    assert_eq!((&told["state"], &told["to"]), (&"moved".into(), &to.as_str().into()), "{told}");

    let log = single(&data_dir).err().expect("the old bucket is closed");
    assert!(log.contains(&format!("start this node with --bucket {to}")), "{log}");
    // The zone, too, is another than the one it had on its own.
    for node in 0..3 {
        cluster.begin(node);
        cluster.ready(node, 60).await;
    }
    write(&cluster.http(1), "after", at_ms).await;
    cluster.agreed(60).await;
    cluster.replicas_equal(120).await;
    cluster.kill(0);
    for node in [1, 2] {
        for name in ["before", "after"] {
            eventually("all samples on two of three", 60, async || {
                (count(&cluster.http(node), name, at_ms).await == Some(SERIES)).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_killed_is_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let (data_dir, to) = (dir.path().join("node"), dir.path().join("shared"));
    let to_text = to.to_str().unwrap();
    single(&data_dir).unwrap().stop();
    // As blocks would lie there.
    let block = data_dir.join("bucket/01JD0000000000000000000000");
    std::fs::create_dir(&block).unwrap();
    for object in 0..OBJECTS {
        std::fs::write(block.join(object.to_string()), [7; 100]).unwrap();
    }
    let mut words = Command::new(carillon());
    words
        .args(arguments(&data_dir, to_text))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child: Child = words.spawn().unwrap();
    let arrived = to.join(block.file_name().unwrap());
    // What is being written has a name with a number sign, and stays behind where that was cut off; it is no object.
    let is_object = |entry: &std::fs::DirEntry| !entry.file_name().to_string_lossy().contains('#');
    let there = || {
        let entries = std::fs::read_dir(&arrived).into_iter().flatten();
        entries.filter(|entry| entry.as_ref().is_ok_and(is_object)).count()
    };
    eventually("some objects have arrived", 60, async || (there() >= KILLED_AFTER).then_some(())).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(there() < OBJECTS, "it wasn't killed in the middle");

    let log = NodeProcess::try_start(&data_dir, &["--bucket", to_text]).err().expect("half a bucket is none");
    assert!(log.contains("run it again"), "{log}");
    // Until all is there, the old one is the node's.
    single(&data_dir).unwrap().stop();
    let again = run(None, &arguments(&data_dir, to_text));
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(there(), OBJECTS);
    let log = single(&data_dir).err().expect("the old bucket is closed");
    assert!(log.contains(to_text), "{log}");
    NodeProcess::start(&data_dir, &["--bucket", to_text]).stop();
    let done = run(None, &arguments(&data_dir, to_text));
    assert!(done.code == Some(0) && done.stderr.contains("moved already"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_of_others_are_not_moved_and_not_moved_to() {
    let other = Cluster::start(1, 1).await;
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("node");
    let mut node = single(&data_dir).unwrap();
    let mine = node.http().get("/api/v1/cluster/ring", &[]).await.json()["data"]["cluster"].clone();
    node.stop();
    let to = other.bucket().display().to_string();
    let refused = run(None, &arguments(&data_dir, &to));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for id in [mine, other.asked(0, "ring").await["cluster"].clone()] {
        assert!(refused.stderr.contains(id.as_str().unwrap()), "{id} isn't named: {refused:?}");
    }

    let mut two = Cluster::start(2, 1).await;
    two.stop(0);
    let (from, to) = (two.bucket().display().to_string(), dir.path().join("x").display().to_string());
    let data_dir = two.data_dir(0);
    let refused = run(None, &[&arguments(&data_dir, &to)[..], &["--bucket", &from]].concat());
    assert!(refused.code == Some(1) && refused.stderr.contains("node0, node1"), "{refused:?}");
    let nowhere = dir.path().join("mistyped");
    assert_eq!(run(None, &arguments(&nowhere, &to)).code, Some(2));
    assert!(!nowhere.exists());
}
