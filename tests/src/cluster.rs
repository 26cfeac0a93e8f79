//! Clusters of nodes as processes: started, killed, wiped and asked as an operator would.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Ended, Http, NodeProcess, PATIENCE, carillon, eventually, free_port, run};

/// Nodes on the loopback that share a folder as bucket.
pub struct Cluster {
    dir: TempDir,
    places: Vec<Place>,
    /// Options that every node gets.
    options: Vec<String>,
}

/// Where a node runs, whether it runs or not.
struct Place {
    name: String,
    zone: String,
    http_port: u16,
    peer_port: u16,
    /// Where its HTTP and its peer port are reached.
    hosts: [String; 2],
    /// What the program's name is put behind, to run it elsewhere.
    prefix: Vec<String>,
    process: Option<NodeProcess>,
}

impl Cluster {
    /// Starts `nodes` nodes, spread over `zones` zones, and waits until all are ready.
    pub async fn start(nodes: usize, zones: usize) -> Self {
        Self::start_with(nodes, zones, &[]).await
    }

    /// As [`Cluster::start`], with more options for every node.
    pub async fn start_with(nodes: usize, zones: usize, options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut cluster = Self { dir: tempfile::tempdir().unwrap(), places: Vec::new(), options };
        for node in 0..nodes {
            cluster.place(&format!("z{}", node % zones));
        }
        cluster.begin_all().await;
        cluster
    }

    /// Without any nodes.
    pub fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), places: Vec::new(), options: Vec::new() }
    }

    /// Starts a node at every place, and waits until all are ready.
    pub async fn begin_all(&mut self) {
        for node in 0..self.places.len() {
            self.begin(node);
        }
        self.all_ready(60).await;
    }

    /// A further place elsewhere: HTTP and peers at these hosts, the program run by `prefix`.
    pub fn place_at(&mut self, zone: &str, hosts: [String; 2], prefix: Vec<String>) -> usize {
        let node = self.place(zone);
        self.places[node].hosts = hosts;
        self.places[node].prefix = prefix;
        node
    }

    /// A further place, where nothing runs yet.
    pub fn place(&mut self, zone: &str) -> usize {
        let name = format!("node{}", self.places.len());
        let (http_port, peer_port) = (free_port(), free_port());
        let zone = zone.to_owned();
        let hosts = ["127.0.0.1".to_owned(), "127.0.0.1".to_owned()];
        self.places.push(Place {
            name,
            zone,
            http_port,
            peer_port,
            hosts,
            prefix: Vec::new(),
            process: None,
        });
        self.places.len() - 1
    }

    /// Starts a node at its place; it isn't ready yet.
    pub fn begin(&mut self, node: usize) {
        let process = self.try_begin(node, &[]).unwrap_or_else(|log| panic!("it didn't start:\n{log}"));
        self.places[node].process = Some(process);
    }

    /// Starts a node with more options; what it logged where it ended instead.
    pub fn try_begin(&self, node: usize, more: &[&str]) -> Result<NodeProcess, String> {
        self.try_begin_with(node, &self.bucket().display().to_string(), more)
    }

    /// As [`Cluster::try_begin`], with another bucket.
    pub fn try_begin_with(&self, node: usize, bucket: &str, more: &[&str]) -> Result<NodeProcess, String> {
        let place = &self.places[node];
        let mut args = vec![
            "--peer-address".to_owned(),
            format!("{}:{}", place.hosts[1], place.peer_port),
            "--name".to_owned(),
            place.name.clone(),
            "--zone".to_owned(),
            place.zone.clone(),
            "--bucket".to_owned(),
            bucket.to_owned(),
        ];
        for seed in self.places.iter().take(3) {
            args.extend(["--seed".to_owned(), format!("{}:{}", seed.hosts[1], seed.peer_port)]);
        }
        args.extend(self.options.iter().cloned());
        args.extend(more.iter().map(|option| (*option).to_owned()));
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let mut words = place.prefix.iter().map(OsString::from).chain([carillon().into()]);
        let mut command = Command::new(words.next().expect("at least the program's own name"));
        command.args(words);
        let http = format!("{}:{}", place.hosts[0], place.http_port);
        NodeProcess::try_start_by(command, &self.data_dir(node), &http, &args)
    }

    /// Where a node keeps its data.
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.dir.path().join(&self.places[node].name)
    }

    /// The folder that all nodes use as bucket.
    pub fn bucket(&self) -> PathBuf {
        self.dir.path().join("bucket")
    }

    /// The folder in which everything lies.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A client of a node, whether it runs or not.
    pub fn http(&self, node: usize) -> Http {
        Http::new(&self.url(node))
    }

    /// Where a node serves HTTP.
    pub fn url(&self, node: usize) -> String {
        let place = &self.places[node];
        format!("http://{}:{}", place.hosts[0], place.http_port)
    }

    /// A node's name.
    pub fn name(&self, node: usize) -> &str {
        &self.places[node].name
    }

    /// The process of a node that runs.
    pub fn process(&mut self, node: usize) -> &mut NodeProcess {
        self.places[node].process.as_mut().expect("it runs")
    }

    /// Nodes that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.places.len()).filter(|node| self.places[*node].process.is_some()).collect()
    }

    /// kill -9.
    pub fn kill(&mut self, node: usize) {
        self.process(node).kill();
        self.places[node].process = None;
    }

    /// SIGTERM, and waits until it has ended.
    pub fn stop(&mut self, node: usize) {
        let status = self.process(node).stop();
        assert_eq!(status.code(), Some(0), "{}", self.process(node).log());
        self.places[node].process = None;
    }

    /// Notes that a node's process has ended by itself, and returns what it logged.
    pub fn ended(&mut self, node: usize) -> String {
        self.places[node].process.take().expect("it ran").log()
    }

    /// Removes all that a stopped node has on its disk.
    pub fn wipe(&self, node: usize) {
        assert!(self.places[node].process.is_none(), "it runs");
        std::fs::remove_dir_all(self.data_dir(node)).unwrap();
    }

    /// Waits until a node is ready.
    pub async fn ready(&self, node: usize, limit_s: u64) {
        let http = self.http(node);
        let what = format!("{} is ready", self.name(node));
        eventually(&what, limit_s, async || {
            http.try_get("/-/ready", &[]).await.ok().filter(|answer| answer.status == 200)
        })
        .await;
    }

    /// Waits until all that run are ready.
    pub async fn all_ready(&self, limit_s: u64) {
        for node in self.running() {
            self.ready(node, limit_s).await;
        }
    }

    /// Runs a command against a node.
    pub fn run(&self, node: usize, args: &[&str]) -> Ended {
        run(Some(&self.url(node)), args)
    }

    /// `/api/v1/cluster/WHAT` as a node sees it; `null` where it doesn't answer.
    pub async fn asked(&self, node: usize, what: &str) -> Value {
        let answer = self.http(node).try_get(&format!("/api/v1/cluster/{what}"), &[]).await;
        answer.map_or(Value::Null, |answer| answer.json()["data"].clone())
    }

    /// Waits until all nodes that run name the same ring document, and it isn't a joint one.
    pub async fn agreed(&self, limit_s: u64) -> Value {
        eventually("one final ring document on all nodes", limit_s, async || {
            let mut documents = BTreeMap::new();
            for node in self.running() {
                let ring = self.asked(node, "ring").await;
                documents.insert(ring["digest"].to_string(), ring);
            }
            let (_, ring) = documents.pop_first()?;
            (documents.is_empty() && ring["joint"] == false).then_some(ring)
        })
        .await
    }

    /// Waits until, for every range and window, all owners that run report the same digest; returns how many windows
    /// were compared.
    pub async fn replicas_equal(&self, limit_s: u64) -> usize {
        let limit_s = limit_s * PATIENCE;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(limit_s);
        loop {
            match self.compare_replicas().await {
                Ok(compared) => return compared,
                Err(why) if std::time::Instant::now() > deadline => {
                    panic!("replicas differ after {limit_s} s: {why}")
                }
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(500)).await,
            }
        }
    }

    async fn compare_replicas(&self) -> Result<usize, String> {
        // (start of range, window) → digests and who has them; a window that a node leaves out is empty.
        let mut windows: BTreeMap<(String, i64), BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut epochs = BTreeSet::new();
        for node in self.running() {
            let data = self.asked(node, "digests").await;
            let store = data["store"].as_str().ok_or("a node doesn't answer")?.to_owned();
            epochs.insert(data["epoch"].as_u64());
            for range in data["ranges"].as_array().into_iter().flatten() {
                let start = range["start"].to_string();
                owners.entry(start.clone()).or_default().insert(store.clone());
                for window in range["windows"].as_array().into_iter().flatten() {
                    let key = (start.clone(), window["start_ms"].as_i64().unwrap_or_default());
                    let digest = window["digest"].to_string();
                    windows.entry(key).or_default().entry(digest).or_default().insert(store.clone());
                }
            }
        }
        if epochs.len() != 1 {
            return Err(format!("epochs {epochs:?}"));
        }
        if windows.is_empty() {
            return Err("nobody has anything".to_owned());
        }
        for ((start, window), digests) in &windows {
            let all = &owners[start];
            if digests.len() != 1 || digests.values().next() != Some(all) {
                return Err(format!("range {start}, window {window}: {digests:?}, owners {all:?}"));
            }
        }
        Ok(windows.len())
    }
}
