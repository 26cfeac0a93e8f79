//! What senders and askers get wrong, and what they are told.

use tests::{Answer, Http, NodeProcess, now_ms, wire};

/// The error of an answer, which must be one with this status and these words.
fn refused(answer: &Answer, status: u16, words: &[&str], what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.body);
    let lower = answer.body.to_lowercase();
    for word in words {
        assert!(lower.contains(&word.to_lowercase()), "{what}: {word:?} is missing in {}", answer.body);
    }
}

/// What is wrong with a series, its labels, and words of the error.
type Wrong = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

fn good(timestamp_ms: i64) -> wire::Sample<'static> {
    (&[("__name__", "good"), ("job", "a")], 1.0, timestamp_ms)
}

/// The node still takes what is right, and serves it.
async fn still_works(http: &Http) {
    let now_ms = now_ms();
    assert!(http.write(wire::body(&[good(now_ms)])).await.status < 300);
    let result = http.query("good", now_ms).await;
    assert_eq!(result.as_array().map(Vec::len), Some(1), "{result}");
}

#[tokio::test]
async fn bodies_that_arent_remote_write_are_refused_by_what_is_wrong_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &[]);
    let http = node.http();
    let message = wire::message(&[good(now_ms())]);
    let whole = wire::compress(&message);

    // A block that declares 4 GiB - 1 bytes in its first five.
    let mut bomb = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
    bomb.extend_from_slice(&whole);
    refused(&http.write(bomb).await, 413, &["bytes"], "a declared length over the cap");
    refused(&http.write(whole[..whole.len() / 2].to_vec()).await, 400, &["snappy"], "half a snappy block");
    refused(&http.write(b"not snappy at all".to_vec()).await, 400, &["snappy"], "text");
    refused(&http.write(Vec::new()).await, 400, &["snappy"], "nothing");
    let cut = wire::compress(&message[..message.len() - 3]);
    refused(&http.write(cut).await, 400, &[], "a protobuf message that ends in the middle");
    let mut noise = message.clone();
    noise[0] = 0x0f;
    refused(&http.write(wire::compress(&noise)).await, 400, &[], "a wire type that doesn't exist");
    still_works(&http).await;
}

#[tokio::test]
async fn labels_that_cant_be_are_named_and_the_good_series_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &[]);
    let http = node.http();
    let now_ms = now_ms();
    let wrong: [Wrong; 4] = [
        ("a series without a name", &[("job", "a")], &["name"]),
        ("a label twice", &[("__name__", "m"), ("a", "1"), ("a", "2")], &["a"]),
        ("an empty label name", &[("", "x"), ("__name__", "m")], &["empty"]),
        ("no labels at all", &[], &["label"]),
    ];
    for (at, (what, labels, words)) in wrong.into_iter().enumerate() {
        let timestamp_ms = now_ms + at as i64;
        let answer = http.write(wire::body(&[(labels, 1.0, timestamp_ms), good(timestamp_ms)])).await;
        refused(&answer, 400, words, what);
        let kept = http.query("good", timestamp_ms).await;
        assert_eq!(kept[0]["value"][1], "1", "{what}: the good series was dropped");
    }

    let mut not_text = wire::message(&[(&[("__name__", "m"), ("a", "XX")], 1.0, now_ms)]);
    let at = not_text.windows(2).position(|w| w == b"XX").unwrap();
    not_text[at] = 0xff;
    refused(&http.write(wire::compress(&not_text)).await, 400, &["UTF-8"], "bytes that aren't text");
    still_works(&http).await;
}

#[tokio::test]
async fn a_label_with_an_empty_value_is_an_absent_one() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &[]);
    let (http, now_ms) = (node.http(), now_ms());
    let answer = http.write(wire::body(&[(&[("__name__", "m"), ("a", ""), ("b", "1")], 1.0, now_ms)])).await;
    assert!(answer.status < 300, "{}", answer.body);
    let result = http.query("m", now_ms).await;
    assert_eq!(result[0]["metric"], serde_json::json!({"__name__": "m", "b": "1"}));
}

#[tokio::test]
async fn every_float_is_a_value() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &[]);
    let (http, now_ms) = (node.http(), now_ms());
    for (value, shown) in
        [(f64::NAN, "NaN"), (f64::INFINITY, "+Inf"), (f64::NEG_INFINITY, "-Inf"), (-0.0, "-0")]
    {
        let labels = [("__name__", "m"), ("shown", shown)];
        assert!(http.write(wire::body(&[(&labels, value, now_ms)])).await.status < 300);
        let result = http.query(&format!("m{{shown={shown:?}}}"), now_ms).await;
        assert_eq!(result[0]["value"][1], shown);
    }
}

#[tokio::test]
async fn samples_too_far_ahead_or_behind_are_refused_with_their_age() {
    const HOUR_MS: i64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &[]);
    let (http, now_ms) = (node.http(), now_ms());
    let at = |name, timestamp_ms| wire::body(&[(&[("__name__", name)], 1.0, timestamp_ms)]);
    refused(&http.write(at("ahead", now_ms + HOUR_MS)).await, 400, &["ahead"], "an hour ahead");
    refused(&http.write(at("behind", now_ms - 48 * HOUR_MS)).await, 400, &["old"], "two days behind");
    refused(&http.write(at("far", i64::MAX)).await, 400, &["ahead"], "the end of time");
    refused(&http.write(at("far", i64::MIN)).await, 400, &["old"], "the beginning of time");
    // In order for its series, a sample may be a day old; out of order, two hours.
    assert!(http.write(at("backfilled", now_ms - 20 * HOUR_MS)).await.status < 300);
    assert!(http.write(at("late", now_ms)).await.status < 300);
    assert!(http.write(at("late", now_ms - HOUR_MS)).await.status < 300);
    refused(
        &http.write(at("late", now_ms - 5 * HOUR_MS)).await,
        400,
        &["order"],
        "out of order for five hours",
    );
    still_works(&http).await;
}

#[tokio::test]
async fn the_same_sample_again_is_a_success() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &[]);
    let (http, body) = (node.http(), wire::body(&[good(now_ms())]));
    for _ in 0..3 {
        let answer = http.write(body.clone()).await;
        assert!(answer.status < 300, "{}", answer.body);
    }
}

#[tokio::test]
async fn questions_that_cant_be_answered_say_why_and_the_node_lives() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &[]);
    let (http, now_ms) = (node.http(), now_ms());
    let nested = format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000));
    refused(&http.form("/api/v1/query", &[("query", &nested)]).await, 400, &["nest"], "10,000 parentheses");
    let minus = format!("{}1", "-".repeat(10_000));
    let answer = http.form("/api/v1/query", &[("query", &minus)]).await;
    assert!(answer.status == 400 || answer.status == 200, "10,000 signs: {}", answer.body);
    let calls = format!("{}up{}", "abs(".repeat(10_000), ")".repeat(10_000));
    refused(&http.form("/api/v1/query", &[("query", &calls)]).await, 400, &["nest"], "10,000 calls");

    let regex = format!("up{{job=~\"{}\"}}", "(a|b)".repeat(1_000_000 / 5));
    let answer = http.form("/api/v1/query", &[("query", &regex)]).await;
    refused(&answer, 400, &[], "a regex of 1 MB");
    let tower = format!("up{{job=~\"{}x{}\"}}", "(".repeat(5_000), "){9}".repeat(5_000));
    refused(&http.form("/api/v1/query", &[("query", &tower)]).await, 400, &[], "a regex that explodes");

    let end = format!("{}", now_ms / 1000);
    let start = format!("{}", now_ms / 1000 - 11_001);
    let range = [("query", "up"), ("start", &start), ("end", &end), ("step", "1")];
    refused(&http.form("/api/v1/query_range", &range).await, 400, &["11,000"], "11,002 points");
    for (name, value) in [("step", "0"), ("step", "-1"), ("end", "nonsense"), ("start", "NaN")] {
        let mut wrong = range;
        wrong.iter_mut().find(|(n, _)| *n == name).unwrap().1 = value;
        refused(&http.form("/api/v1/query_range", &wrong).await, 400, &[name], "a range that can't be");
    }
    refused(&http.form("/api/v1/query", &[("query", "up{")]).await, 400, &["bad_data"], "half a selector");
    refused(&http.form("/api/v1/query", &[("query", "{job=~\".*\"}")]).await, 400, &["empty"], "all series");
    refused(&http.form("/api/v1/query", &[]).await, 400, &["query"], "no query");
    still_works(&http).await;
}

#[tokio::test]
async fn a_tenants_name_is_never_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &[]);
    for tenant in ["..", ".", "a/b", "a\\b", "%2e%2e", "a|b", "", &"x".repeat(151)] {
        let http = node.http().tenant(tenant);
        let answer = http.write(wire::body(&[good(now_ms())])).await;
        if tenant.is_empty() {
            continue;
        }
        refused(&answer, 400, &["tenant"], tenant);
    }
    still_works(&node.http().tenant("a-valid_one.(1)")).await;
}

#[tokio::test]
async fn tenants_dont_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &[]);
    let now_ms = now_ms();
    assert!(node.http().tenant("a").write(wire::body(&[good(now_ms)])).await.status < 300);
    assert_eq!(node.http().tenant("a").query("good", now_ms).await.as_array().map(Vec::len), Some(1));
    for other in ["b", "default", "A"] {
        let seen = node.http().tenant(other).query("good", now_ms).await;
        assert_eq!(seen.as_array().map(Vec::len), Some(0), "tenant {other}");
    }
}
