//! What the world sends: each sender as it is installed and with external labels, as any fleet has them. All its series
//! arrive: a sender that is answered 400 drops them for good.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use tests::{
    Http, NodeProcess, Peer, eventually, free_port, now_ms, npm_client, prometheus, prometheus_new, vmagent,
};

/// Requests of the routes of a made-up service.
const ROUTES: usize = 200;
/// Series of [`exposition`]: a counter a route, four of a histogram, four of a summary.
const SERIES: usize = ROUTES + 4 + 4;

/// Labels that come before and behind those of any target, and between them.
const EXTERNAL_LABELS: &str = "{aaa: first, cluster: c1, zzz: last}";

/// A target's text: names that sort before external labels and behind them, `le` and `quantile`, and labels that other
/// systems keep for themselves.
fn exposition() -> String {
    let mut text = String::from("# TYPE made_requests_total counter\n");
    for route in 0..ROUTES {
        let labels = format!("A=\"1\",method=\"get\",path=\"/{route}\",tenant_id=\"{route}\",zzzz=\"é\"");
        writeln!(text, "made_requests_total{{{labels}}} {route}").unwrap();
    }
    text += "# TYPE made_seconds histogram\nmade_seconds_bucket{le=\"1\"} 1\nmade_seconds_bucket{le=\"+Inf\"} 2\n\
             made_seconds_sum 3\nmade_seconds_count 2\n# TYPE made_bytes summary\nmade_bytes{quantile=\"0.5\"} 1\n\
             made_bytes{quantile=\"1\"} 2\nmade_bytes_sum 3\nmade_bytes_count 2\n";
    text
}

/// Serves the exposition on the loopback until the process ends; returns the port.
fn serve() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = exposition();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = BufReader::new(&stream).lines().map_while(Result::ok);
            head.take_while(|line| !line.is_empty()).for_each(drop);
            // A scraper that has gone away comes again.
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{text}",
                text.len()
            );
        }
    });
    port
}

/// One job under external labels, with the sender's name as another.
fn scraping(sender: &str, target: u16) -> String {
    let external = EXTERNAL_LABELS.replace('}', &format!(", sender: {sender}}}"));
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, external_labels: {external}}}\n\
         scrape_configs:\n  - {{job_name: made, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}\n"
    )
}

/// Waits until all series of a sender can be asked for.
async fn all_arrive(ours: &Http, sender: &str) {
    let what = format!("all series of {sender}");
    let own = format!("count({{sender=\"{sender}\", aaa=\"first\", __name__=~\"made_.+\"}})");
    let count = async || {
        let answer = ours.query(&own, now_ms()).await;
        answer[0]["value"][1].as_str().and_then(|count| count.parse::<usize>().ok()).unwrap_or(0)
    };
    eventually(&what, 60, async || (count().await >= SERIES).then_some(())).await;
    assert_eq!(count().await, SERIES, "{sender}");
    let up = ours.query(&format!("up{{sender=\"{sender}\", cluster=\"c1\", zzz=\"last\"}}"), now_ms()).await;
    assert_eq!(up[0]["value"][1], "1", "{sender}: {up}");
}

async fn prometheus_at(program: &Path, dir: &Path, sender: &str, target: u16, remote_write: &str) -> Peer {
    let config = scraping(sender, target) + "remote_write:\n" + remote_write;
    Peer::prometheus(program, &dir.join(sender), &config, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_series_of_vmagent_with_external_labels_arrive() {
    let Some(program) = vmagent() else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&dir.path().join("node"), &[]);
    let config = dir.path().join("vmagent.yml");
    std::fs::write(&config, scraping("vmagent", serve())).unwrap();
    let port = free_port();
    let args = [
        format!("-httpListenAddr=127.0.0.1:{port}"),
        format!("-promscrape.config={}", config.display()),
        format!("-remoteWrite.url={}/api/v1/write", node.url()),
        format!("-remoteWrite.tmpDataPath={}", dir.path().join("vmagent").display()),
    ];
    let agent = Peer::start(&program, port, &args, dir.path(), "/health").await;
    all_arrive(&node.http(), "vmagent").await;
    assert!(!agent.log().contains("rejected"), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_series_of_an_old_and_a_new_prometheus_arrive_by_both_protocols() {
    let (Some(old), Some(new)) = (prometheus(), prometheus_new()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&dir.path().join("node"), &[]);
    let target = serve();
    let url = format!("{}/api/v1/write", node.url());
    let first = format!("  - {{url: '{url}'}}\n");
    let second = format!("  - {{url: '{url}', protobuf_message: io.prometheus.write.v2.Request}}\n");
    let _peers = [
        prometheus_at(&old, dir.path(), "old", target, &first).await,
        prometheus_at(&new, dir.path(), "new", target, &first).await,
        prometheus_at(&new, dir.path(), "new_by_2", target, &second).await,
    ];
    for sender in ["old", "new", "new_by_2"] {
        all_arrive(&node.http(), sender).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_series_of_the_client_of_npm_arrive() {
    const SCRIPT: &str = "
        const { pushTimeseries } = require(process.argv[1]);
        const labels = (i) => ({ svc: 'a', __name__: 'pushed', zone: 'z', host: 'h' + i, tenant_id: '' + i });
        const all = Array.from({ length: 50 }, (_, i) => ({ labels: labels(i), samples: [{ value: i }] }));
        pushTimeseries(all, { url: process.argv[2], fetch, labels: { service: 'x' } })
            .then((r) => { console.log(r.status, r.errorMessage || ''); process.exit(r.status < 300 ? 0 : 1); });";
    let Some(client) = npm_client() else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&dir.path().join("node"), &[]);
    let url = format!("{}/api/v1/write", node.url());
    let ran = Command::new("node").args(["-e", SCRIPT]).arg(client).arg(url).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    let found = node.http().query("count(pushed{svc=\"a\", service=\"x\", zone=\"z\"})", now_ms()).await;
    assert_eq!(found[0]["value"][1], "50");
}
