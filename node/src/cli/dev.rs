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
use tokio::task::JoinHandle;

use super::signals::{PARENT_VARIABLE, Signals};
use super::{Failure, Output};

/// Ports between one node's and the next one's.
const PORTS_PER_NODE: u16 = 10;
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
    #[arg(long, default_value_t = 9480)]
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
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
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
        text + "Write to any (/api/v1/write), ask any (as a Prometheus data source); `carillon status` shows them.\n\
                Ctrl-C stops all\n"
    }
}

/// The nodes that run.
#[derive(Default)]
struct Nodes {
    children: Vec<(String, Child)>,
    logs: Vec<JoinHandle<()>>,
}

impl Nodes {
    fn start(&mut self, plan: &Plan, mut command: Command) -> Result<(), Failure> {
        let failed = |e| Failure::failed(format!("can't start {}: {e}", plan.name));
        let mut child = command.spawn().map_err(failed)?;
        let lines = child.stderr.take().expect("it was piped");
        self.logs.push(tokio::spawn(relay(plan.name.clone(), lines)));
        self.children.push((plan.name.clone(), child));
        Ok(())
    }

    /// Waits until every node is ready.
    async fn ready(&mut self, plans: &[Plan]) -> Result<(), Failure> {
        let client = crate::client::client([], READY_EVERY * 10).map_err(Failure::failed)?;
        for plan in plans {
            let url = format!("http://{}/-/ready", plan.http);
            while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                self.check_running()?;
                tokio::time::sleep(READY_EVERY).await;
            }
        }
        // Somebody else's server may have answered in place of a node that couldn't have its port.
        self.check_running()
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
}
