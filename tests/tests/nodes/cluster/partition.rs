//! A partition by dropped packets: the minority refuses, the majority goes on, and after healing all agree.
//!
//! Every node lives in a network namespace of its own with two links: one to the client, and one to a bridge over
//! which the nodes talk. To cut a node off, its second link is moved to another bridge: nothing is answered any more,
//! not even by an error. All of it happens inside a namespace that this test makes for itself (it starts itself again
//! in there), so the machine's own network isn't touched. Without the privilege to do that the test is skipped.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::cluster::Cluster;
use tests::{eventually, now_ms, skip, wire};

const INNER: &str = "cluster::partition::inside_of_a_network_of_its_own";
/// Set for the process inside.
const INSIDE: &str = "CARILLON_TEST_INSIDE";
/// Until a node that is cut off knows it, and until all agree again.
const NOTICED_WITHIN_S: u64 = 30;
const AGREED_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn a_minority_that_is_cut_off_refuses_and_the_majority_goes_on() {
    let can =
        Command::new("unshare").args(["--net", "ip", "link", "add", "probe", "type", "bridge"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skip("this needs the privilege to make network namespaces (root), and `ip`");
    }
    let me = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .arg("--net")
        .arg(me)
        .args(["--exact", INNER, "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success());
}

/// A network of its own: the client and its nodes.
struct Network {
    /// Processes that do nothing but keep a node's namespace.
    holders: Vec<Child>,
}

impl Network {
    fn new() -> Self {
        ip("link set lo up");
        for bridge in ["clients", "peers", "island"] {
            ip(&format!("link add {bridge} type bridge"));
            ip(&format!("link set {bridge} up"));
        }
        ip("addr add 10.1.0.254/24 dev clients");
        Self { holders: Vec::new() }
    }

    /// A namespace for one more node; the addresses of its two links, and what runs a program in it.
    fn node(&mut self) -> ([String; 2], Vec<String>) {
        let n = self.holders.len() + 1;
        let holder =
            Command::new("unshare").args(["--net", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        let pid = holder.id();
        self.holders.push(holder);
        let own = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        while own(pid) == own(std::process::id()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        for (link, bridge) in [("c", "clients"), ("p", "peers")] {
            ip(&format!("link add {link}{n} type veth peer name {link} netns {pid}"));
            ip(&format!("link set {link}{n} master {bridge} up"));
        }
        let hosts = [format!("10.1.0.{n}"), format!("10.2.0.{n}")];
        let enter: Vec<_> =
            ["nsenter", "-t", &pid.to_string(), "-n"].iter().map(|word| (*word).to_owned()).collect();
        for (link, host) in [("c", &hosts[0]), ("p", &hosts[1])] {
            within(&enter, &format!("addr add {host}/24 dev {link}"));
            within(&enter, &format!("link set {link} up"));
        }
        within(&enter, "link set lo up");
        (hosts, enter)
    }

    /// Takes a node away from the others.
    fn cut(&self, node: usize) {
        ip(&format!("link set p{} master island", node + 1));
    }

    /// Brings it back.
    fn heal(&self, node: usize) {
        ip(&format!("link set p{} master peers", node + 1));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            // The namespaces go with the last process in them.
            drop(holder.kill());
            drop(holder.wait());
        }
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn within(enter: &[String], arguments: &str) {
    let status =
        Command::new(&enter[0]).args(&enter[1..]).arg("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments} in a namespace");
}

async fn write(cluster: &Cluster, node: usize) -> u16 {
    let series: Vec<_> = (0..20).map(|s| s.to_string()).collect();
    let labels: Vec<_> = series.iter().map(|s| [("__name__", "cut"), ("series", s.as_str())]).collect();
    let at_ms = now_ms();
    let samples: Vec<wire::Sample<'_>> = labels.iter().map(|l| (&l[..], 1.0, at_ms)).collect();
    cluster.http(node).write(wire::body(&samples)).await.status
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the test above, in a namespace"]
async fn inside_of_a_network_of_its_own() {
    if std::env::var_os(INSIDE).is_none() {
        return skip("it would change the machine's own network");
    }
    let mut network = Network::new();
    let mut cluster = Cluster::empty();
    for node in 0..3 {
        let (hosts, enter) = network.node();
        cluster.place_at(&format!("z{node}"), hosts, enter);
    }
    cluster.begin_all().await;
    cluster.agreed(30).await;
    assert!(write(&cluster, 2).await < 300);

    network.cut(2);
    // Before and after anybody has noticed: the majority takes everything, the minority nothing.
    assert_eq!(write(&cluster, 2).await, 503);
    assert!(write(&cluster, 0).await < 300);
    let asked = cluster.http(2).get("/api/v1/query", &[("query", "cut")]).await;
    assert_eq!(asked.status, 503, "{}", asked.body);
    let asked = cluster.http(1).get("/api/v1/query", &[("query", "count(cut)")]).await;
    assert_eq!((asked.status, asked.body.contains("\"20\"")), (200, true), "{}", asked.body);
    eventually("the majority sees that one is gone", NOTICED_WITHIN_S, async || {
        let members = cluster.asked(0, "members").await;
        let members = members.as_array().cloned().unwrap_or_default();
        (members.iter().filter(|m| m["alive"] == true).count() == 2).then_some(())
    })
    .await;
    assert_eq!(write(&cluster, 2).await, 503);
    assert!(write(&cluster, 1).await < 300);

    network.heal(2);
    let healed = Instant::now();
    eventually("the island is back", AGREED_WITHIN.as_secs(), async || {
        (write(&cluster, 2).await < 300).then_some(())
    })
    .await;
    cluster.agreed(AGREED_WITHIN.as_secs()).await;
    println!("healed: one ring document on all nodes after {:.1?}", healed.elapsed());
    cluster.replicas_equal(30).await;
}
