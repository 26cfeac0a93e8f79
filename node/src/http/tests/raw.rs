//! What comes over a connection, byte by byte.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::env::Net as _;
use crate::server::{Http2, ServerSettings, serve};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node on a port of the loopback.
struct Served {
    _node: TestNode,
    address: String,
    stop: CancellationToken,
}

impl Served {
    async fn start() -> Self {
        let node = TestNode::start().await;
        let listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().unwrap().to_string();
        let settings = ServerSettings {
            max_connections: 100,
            header_timeout: PATIENCE,
            stop_timeout: PATIENCE,
            http2: Http2::Beside1,
        };
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, node.router.clone(), settings, stop.clone()));
        Self { _node: node, address, stop }
    }

    /// All that comes back until the node closes the connection.
    async fn sent(&self, bytes: &[u8]) -> String {
        let mut stream = TcpNet.connect(&self.address, crate::env::Lane::Data).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("an answer in time")
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn heads_that_can_be_read_in_two_ways_are_refused_in_the_envelope() {
    let node = Served::start().await;
    let path = "GET /-/healthy HTTP/1.1\r\n";
    for (head, word) in [
        (format!("{path}\r\n"), "Host"),
        (format!("{path}Host: a\r\nHost: a\r\n\r\n"), "Host"),
        (format!("{}Host: a\n\n", path.replace("\r\n", "\n")), "CR LF"),
        (format!("{path}Host: a\n\r\n"), "CR LF"),
    ] {
        let answer = node.sent(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head:?}: {answer}");
        assert!(answer.contains("\"status\":\"error\"") && answer.contains(word), "{head:?}: {answer}");
    }
    let fine = node.sent(format!("{path}Host: a\r\nConnection: close\r\n\r\n").as_bytes()).await;
    assert!(fine.starts_with("HTTP/1.1 200 OK\r\n"), "{fine}");
    let older = node.sent(b"GET /-/healthy HTTP/1.0\r\n\r\n").await;
    assert!(older.starts_with("HTTP/1.0 200 OK\r\n"), "{older}");
}

#[tokio::test]
async fn a_url_of_a_megabyte_is_a_question_and_a_longer_one_an_error() {
    let node = Served::start().await;
    let get = |bytes: usize| {
        let query = format!("query=1%2B1&time=4&x={}", "a".repeat(bytes));
        format!("GET /prometheus/api/v1/query?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    };
    for bytes in [0, 40_000, 70_000, 1_000_000] {
        let answer = node.sent(get(bytes).as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("[4,\"2\"]"),
            "{bytes}: {answer}"
        );
    }
    let answer = node.sent(get(1 << 20).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 414 "), "{answer}");
    assert!(answer.contains("send the parameters as a form"), "{answer}");
    let headers = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "a".repeat(70_000));
    let answer = node.sent(headers.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("\"status\":\"error\""), "{answer}");
}

#[tokio::test]
async fn requests_behind_each_other_on_a_connection_are_answered_in_turn() {
    let node = Served::start().await;
    let form = "query=7&time=4";
    let all = format!(
        "POST /api/v1/query HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}POST /api/v1/query HTTP/1.1\r\nHost: a\r\nContent-Type: \
         application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n{}\r\n0\r\n\r\n\
         GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        form.len(),
        form.replace('7', "8"),
    );
    let answer = node.sent(all.as_bytes()).await;
    let at = |text: &str| answer.find(text).unwrap_or_else(|| panic!("{text} is missing in {answer}"));
    assert!(at("[4,\"7\"]") < at("[4,\"8\"]") && at("[4,\"8\"]") < at("Carillon is healthy"), "{answer}");
    assert!(at("Carillon is healthy") < at("HTTP/1.1 400 "), "{answer}");
}
