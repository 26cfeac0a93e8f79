//! Nodes as processes.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::{Http, PATIENCE, carillon};

/// How long a node may take to print its URLs, recovery after a crash included; debug builds on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60 * PATIENCE);
/// How long a node may take to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(60 * PATIENCE);

/// A running node. Dropping it kills it.
pub struct NodeProcess {
    child: Child,
    url: String,
    data_dir: PathBuf,
    log: Arc<Mutex<String>>,
}

/// How a program ended, with what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs `carillon` with these arguments to its end, asking the node at `url` where one is named.
pub fn run(url: Option<&str>, args: &[&str]) -> Ended {
    let mut command = Command::new(carillon());
    command.args(args).env_remove("CARILLON_URL").stdin(Stdio::null());
    if let Some(url) = url {
        command.env("CARILLON_URL", url);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

impl NodeProcess {
    /// Starts a node on a free port with its data in `data_dir`, and waits for the URLs that it prints.
    pub fn start(data_dir: &Path, args: &[&str]) -> Self {
        Self::try_start(data_dir, args).unwrap_or_else(|log| panic!("the node didn't start:\n{log}"))
    }

    /// As [`NodeProcess::start`]; where the node ends instead, what it said on stderr.
    pub fn try_start(data_dir: &Path, args: &[&str]) -> Result<Self, String> {
        let mut all = vec!["--peer-address", "127.0.0.1:0"];
        all.extend(args);
        Self::try_start_at(data_dir, "127.0.0.1:0", &all)
    }

    /// As [`NodeProcess::try_start`], with an address of its own for HTTP.
    pub fn try_start_at(data_dir: &Path, http_address: &str, args: &[&str]) -> Result<Self, String> {
        Self::try_start_by(Command::new(carillon()), data_dir, http_address, args)
    }

    /// As [`NodeProcess::try_start_at`], by a command that runs `carillon` with the arguments it is given.
    pub fn try_start_by(
        mut command: Command,
        data_dir: &Path,
        http_address: &str,
        args: &[&str],
    ) -> Result<Self, String> {
        let mut child = command
            .args(["run", "--http-address", http_address, "--data-dir"])
            .arg(data_dir)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let reader = std::thread::spawn({
            let (log, mut stderr) = (Arc::clone(&log), child.stderr.take().expect("it was piped"));
            move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                    log.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
                }
            }
        });
        let stdout = BufReader::new(child.stdout.take().expect("it was piped"));
        let (send, urls) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let mut words = line.split_whitespace();
                if let Some(url) = words.find(|word| word.starts_with("http://")) {
                    // Nobody listens any more after the first.
                    drop(send.send(url.trim_end_matches('/').to_owned()));
                }
            }
        });
        let url = urls.recv_timeout(START_LIMIT);
        let mut node = Self { child, url: String::new(), data_dir: data_dir.to_owned(), log };
        match url {
            Ok(url) => {
                node.url = url;
                Ok(node)
            }
            Err(_) => {
                node.kill();
                drop(reader.join());
                Err(node.log())
            }
        }
    }

    /// Where its HTTP API is, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of it.
    pub fn http(&self) -> Http {
        Http::new(&self.url)
    }

    /// Its process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The exit code of a process that has ended; `None` where a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Stops it in its tracks, as a machine that is suspended.
    pub fn pause(&self) {
        signal("STOP", self.child.id());
    }

    /// Lets a paused one go on.
    pub fn go_on(&self) {
        signal("CONT", self.child.id());
    }

    /// Ends it with SIGKILL, at once.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Ends it with SIGTERM and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        signal("TERM", self.child.id());
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the node didn't stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the node's log\n{}---", self.log());
        }
    }
}

/// Sends a signal to one process, by its id.
pub(crate) fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "can't signal {pid}");
}
