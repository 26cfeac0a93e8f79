//! A node's life seen from outside.

use tests::{NodeProcess, run};

#[tokio::test]
async fn a_start_prints_urls_that_answer() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &[]);
    assert!(node.url().starts_with("http://127.0.0.1:"), "{}", node.url());
    for path in ["/", "/-/healthy", "/-/ready", "/metrics"] {
        let answer = node.http().get(path, &[]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
}

#[test]
fn a_stop_in_order_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::start(dir.path(), &[]);
    assert_eq!(node.stop().code(), Some(0), "{}", node.log());
}

#[test]
fn a_second_node_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = NodeProcess::start(dir.path(), &[]);
    let log = NodeProcess::try_start(dir.path(), &[]).err().expect("it mustn't start");
    assert!(log.contains("error: ") && log.contains(&dir.path().display().to_string()), "{log}");
}

#[test]
fn a_node_that_isnt_there_ends_with_1_and_a_hint() {
    let url = format!("http://127.0.0.1:{}", tests::free_port());
    let ended = run(Some(&url), &["query", "instant", "up"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("carillon run"), "{ended:?}");
}
