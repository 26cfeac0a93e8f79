//! `carillon dev`: a cluster on this machine, to try things out.
//!
//! 1. Each node is a process of its own, so that one can be killed as real ones are; all share a folder as bucket.
//! 2. Their log lines come out as one log, each behind the name of its node.
//! 3. They end together: in order when this process is told to stop, and by the system's help when it is killed.
//!    A node that ends on its own stays away, and the others go on.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal as OsSignal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::signals::{PARENT_VARIABLE, Signals};
use super::{Failure, Output};

/// Ports between one node's and the next one's.
const PORTS_PER_NODE: u16 = 10;
/// Where the first node serves HTTP, and where verbs look for it.
const DEFAULT_PORT: u16 = 9480;
/// As many as one machine bears.
const NODES_MAX: u16 = 64;
/// Most time for all nodes to become ready.
const READY_MAX: Duration = Duration::from_secs(120);
/// Time between looks whether a node is ready.
const READY_EVERY: Duration = Duration::from_millis(100);
/// Most time for all nodes to end in order.
const STOP_MAX: Duration = Duration::from_secs(60);

/// A cluster on this machine.
#[derive(Debug, Args)]
pub struct Dev {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: u16,
    /// How many zones they stand in, by turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    zones: u16,
    /// Node k serves HTTP on this port + 10k, and its peers on the port after
    #[arg(long, default_value_t = DEFAULT_PORT)]
    base_port: u16,
    /// Folder that holds the bucket and each node's data
    #[arg(long, default_value = "./carillon-dev", value_hint = clap::ValueHint::DirPath)]
    data_dir: PathBuf,
    /// Options that every node gets: `-- --replication-factor 2`
    #[arg(last = true)]
    options: Vec<OsString>,
}

/// One node to be.
struct Plan {
    name: String,
    zone: String,
    http: String,
    peer: String,
}

impl Dev {
    pub(super) async fn run(self, output: &Output) -> Result<(), Failure> {
        let plans = self.plans()?;
        let mut signals = Signals::new()?;
        let mut nodes = Nodes::default();
        for plan in &plans {
            nodes.start(plan, self.command(plan, &plans)?)?;
        }
        let ended = tokio::select! {
            biased;
            () = signals.stop() => Ok(()),
            ended = self.attend(&mut nodes, &plans, output) => ended,
        };
        output.note("stopping");
        nodes.stop(output).await;
        ended
    }

    /// Says where the nodes are once they are ready, and returns when there are none any more.
    async fn attend(&self, nodes: &mut Nodes, plans: &[Plan], output: &Output) -> Result<(), Failure> {
        match tokio::time::timeout(READY_MAX, nodes.ready(plans)).await {
            Ok(ready) => ready?,
            Err(_) => return Err(Failure::failed("the nodes weren't ready in time; their log says why")),
        }
        output.text(&self.announcement(plans))?;
        nodes.ended(output).await;
        Err(Failure::failed("all nodes have ended"))
    }

    fn plans(&self) -> Result<Vec<Plan>, Failure> {
        let port = |k: u16, offset: u16| {
            let port = PORTS_PER_NODE
                .checked_mul(k)
                .and_then(|p| p.checked_add(offset)?.checked_add(self.base_port));
            let port = port.filter(|_| self.base_port > 0);
            port.ok_or_else(|| {
                Failure::usage(format!("--base-port {}: there is no port for node {k}", self.base_port))
            })
        };
        (0..self.nodes)
            .map(|k| {
                Ok(Plan {
                    name: format!("node-{k}"),
                    zone: format!("zone-{}", k % self.zones + 1),
                    http: format!("127.0.0.1:{}", port(k, 0)?),
                    peer: format!("127.0.0.1:{}", port(k, 1)?),
                })
            })
            .collect()
    }

    fn command(&self, plan: &Plan, all: &[Plan]) -> Result<Command, Failure> {
        let program =
            std::env::current_exe().map_err(|e| Failure::failed(format!("can't find this program: {e}")))?;
        let mut command = Command::new(program);
        command.arg("run").args(["--name", &plan.name, "--zone", &plan.zone]);
        command.args(["--http-address", &plan.http, "--peer-address", &plan.peer]);
        command.arg("--data-dir").arg(self.data_dir.join(&plan.name));
        command.arg("--bucket").arg(self.bucket());
        for seed in all {
            command.args(["--seed", &seed.peer]);
        }
        command.args(&self.options);
        command.env(PARENT_VARIABLE, std::process::id().to_string());
        // Ctrl-C reaches this process alone, which then stops the nodes in order.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    fn bucket(&self) -> PathBuf {
        self.data_dir.join("bucket")
    }

    fn announcement(&self, plans: &[Plan]) -> String {
        let mut text = format!(
            "Carillon {}: {} nodes are ready, their data in {}\n",
            env!("CARGO_PKG_VERSION"),
            plans.len(),
            self.data_dir.display()
        );
        for plan in plans {
            text +=
                &format!("  {:<8} http://{}/  peers {}  {}\n", plan.name, plan.http, plan.peer, plan.zone);
        }
        let url = plans.first().map_or_else(String::new, |plan| format!(" --url http://{}", plan.http));
        // Verbs ask the default port where nobody names another.
        let url = if self.base_port == DEFAULT_PORT { "" } else { &url };
        text + &format!(
            "Write to any (/api/v1/write), ask any (as a Prometheus data source); `carillon status{url}` shows them.\n\
             Ctrl-C stops all\n"
        )
    }
}

/// The nodes that run.
#[derive(Default)]
struct Nodes {
    children: Vec<(String, Child)>,
    /// Each node's word that it listens on the ports that it was given.
    listening: Vec<oneshot::Receiver<()>>,
    logs: Vec<JoinHandle<()>>,
}

impl Nodes {
    fn start(&mut self, plan: &Plan, mut command: Command) -> Result<(), Failure> {
        let failed = |e| Failure::failed(format!("can't start {}: {e}", plan.name));
        let mut child = command.spawn().map_err(failed)?;
        let lines = child.stderr.take().expect("it was piped");
        self.logs.push(tokio::spawn(relay(plan.name.clone(), lines)));
        let (tell, listening) = oneshot::channel();
        self.logs.push(tokio::spawn(hear(child.stdout.take().expect("it was piped"), tell)));
        self.listening.push(listening);
        self.children.push((plan.name.clone(), child));
        Ok(())
    }

    /// Waits until every node is ready.
    async fn ready(&mut self, plans: &[Plan]) -> Result<(), Failure> {
        let client = crate::client::client([], READY_EVERY * 10).map_err(Failure::failed)?;
        // First its own word: somebody else's server may answer in place of a node that couldn't have its port.
        for (at, mut listening) in std::mem::take(&mut self.listening).into_iter().enumerate() {
            loop {
                tokio::select! {
                    told = &mut listening => match told {
                        Ok(()) => break,
                        Err(_) => return Err(self.end_of(at).await),
                    },
                    () = tokio::time::sleep(READY_EVERY) => self.check_running()?,
                }
            }
        }
        for plan in plans {
            let url = format!("http://{}/-/ready", plan.http);
            while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                self.check_running()?;
                tokio::time::sleep(READY_EVERY).await;
            }
        }
        self.check_running()
    }

    /// Waits for the end of a node that has closed its stdout, and says how it ended.
    async fn end_of(&mut self, at: usize) -> Failure {
        let (name, child) = &mut self.children[at];
        match child.wait().await {
            Ok(status) => Failure::failed(format!("{name} ended with {status}; its log says why")),
            Err(error) => Failure::failed(format!("{name} can't be waited for: {error}")),
        }
    }

    fn check_running(&mut self) -> Result<(), Failure> {
        for (name, child) in &mut self.children {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Failure::failed(format!("{name} ended with {status}; its log says why")));
            }
        }
        Ok(())
    }

    /// Returns once every node has ended, and tells of each.
    async fn ended(&mut self, output: &Output) {
        while !self.children.is_empty() {
            let mut left = Vec::new();
            for (name, mut child) in std::mem::take(&mut self.children) {
                match child.try_wait() {
                    Ok(Some(status)) => output.note(&format!("{name} ended with {status}, and stays away")),
                    _ => left.push((name, child)),
                }
            }
            self.children = left;
            tokio::time::sleep(READY_EVERY).await;
        }
    }

    /// Tells every node to stop, and waits; one that takes too long is killed.
    async fn stop(&mut self, output: &Output) {
        for (_, child) in &self.children {
            let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
            // One that has ended meanwhile needs no telling.
            let _ = pid.map(|pid| kill_process(pid, OsSignal::TERM));
        }
        let deadline = tokio::time::Instant::now() + STOP_MAX;
        for (name, child) in &mut self.children {
            if tokio::time::timeout_at(deadline, child.wait()).await.is_err() {
                output.note(&format!("{name} takes too long to stop, and is killed"));
                drop(child.kill().await);
            }
        }
        for log in self.logs.drain(..) {
            drop(log.await);
        }
    }
}

/// Tells once a node has said on stdout that it is ready; what it says there is what this command says of all.
async fn hear(stdout: impl AsyncRead + Unpin, tell: oneshot::Sender<()>) {
    let mut lines = BufReader::new(stdout).lines();
    if let Ok(Some(_)) = lines.next_line().await {
        // Nobody waits any more where another node has ended meanwhile.
        let _ = tell.send(());
    }
    while let Ok(Some(_)) = lines.next_line().await {}
}

/// Passes on a node's log line by line.
async fn relay(name: String, log: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(log).lines();
    let output = Output::new(None);
    while let Ok(Some(line)) = lines.next_line().await {
        output.note(&format!("{name:<8} | {line}"));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        dev: Dev,
    }

    fn dev(args: &[&str]) -> Dev {
        Line::try_parse_from([&["dev"], args].concat()).unwrap().dev
    }

    #[test]
    fn nodes_have_ports_and_zones_by_turns() {
        let plans = dev(&["--nodes", "4"]).plans().unwrap();
        let shown: Vec<_> =
            plans.iter().map(|p| format!("{} {} {} {}", p.name, p.zone, p.http, p.peer)).collect();
        assert_eq!(
            shown,
            [
                "node-0 zone-1 127.0.0.1:9480 127.0.0.1:9481",
                "node-1 zone-2 127.0.0.1:9490 127.0.0.1:9491",
                "node-2 zone-3 127.0.0.1:9500 127.0.0.1:9501",
                "node-3 zone-1 127.0.0.1:9510 127.0.0.1:9511",
            ]
        );
        assert!(dev(&["--base-port", "65520"]).plans().is_err());
        assert!(dev(&["--base-port", "0"]).plans().is_err());
    }

    #[test]
    fn every_node_gets_all_seeds_and_the_options_behind_the_dashes() {
        let dev = dev(&["--nodes", "2", "--data-dir", "/d", "--", "--wal-sync", "interval"]);
        let plans = dev.plans().unwrap();
        let command = dev.command(&plans[1], &plans).unwrap();
        let args: Vec<_> = command.as_std().get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        let text = args.join(" ");
        assert!(text.contains("--seed 127.0.0.1:9481 --seed 127.0.0.1:9491 --wal-sync interval"), "{text}");
        assert!(text.contains("--data-dir /d/node-1 --bucket /d/bucket"), "{text}");
    }

    #[test]
    fn the_last_line_names_the_port_that_status_has_to_ask() {
        let said = |args: &[&str]| {
            let dev = dev(args);
            dev.announcement(&dev.plans().unwrap())
        };
        assert!(said(&[]).contains("`carillon status` shows"));
        assert!(
            said(&["--base-port", "7000"]).contains("`carillon status --url http://127.0.0.1:7000` shows")
        );
    }

    /// A server that was there before has the port, and answers well.
    #[tokio::test]
    #[allow(clippy::disallowed_methods, reason = "a stranger's server isn't a node's")]
    async fn only_children_of_this_command_count_as_ready() {
        let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = stranger.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = stranger.accept().await {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                // One that closes with the request unread resets the connection.
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
            }
        });
        let plan = |name: &str| Plan {
            name: name.to_owned(),
            zone: String::new(),
            http: address.clone(),
            peer: String::new(),
        };
        let child = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).kill_on_drop(true);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        };
        let mut nodes = Nodes::default();
        nodes.start(&plan("says-nothing"), child("sleep 0.2; exit 3")).unwrap();
        let failure = nodes.ready(&[plan("says-nothing")]).await.unwrap_err().to_string();
        assert!(failure.contains("says-nothing ended"), "{failure}");

        let mut nodes = Nodes::default();
        nodes.start(&plan("says-so"), child("echo ready; read line")).unwrap();
        nodes.ready(&[plan("says-so")]).await.unwrap();
    }
}
