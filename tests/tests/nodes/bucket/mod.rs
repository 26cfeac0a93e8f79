//! What every bucket must do, on each that can be had: memory, a folder, and servers that speak S3.

mod conformance;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use node::bucket::{Bucket, ByUrl, Error};
use node::env::Env;
use tempfile::TempDir;
use tests::{NodeProcess, Peer, free_port};

const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "carillon-tests"),
    ("AWS_SECRET_ACCESS_KEY", "carillon-tests-secret"),
    ("AWS_REGION", "us-east-1"),
];
const NAME: &str = "metrics";

/// A node's world, with a data folder of its own and these variables.
fn env(dir: &Path, variables: &[(&str, &str)]) -> Env {
    let variables = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Env { bucket: Arc::new(ByUrl::new(variables)), ..Env::production(dir, 1).unwrap() }
}

/// An S3 server that keeps its data in memory or in a folder that goes with it.
struct S3 {
    _server: Peer,
    dir: TempDir,
    endpoint: String,
}

impl S3 {
    async fn moto() -> Option<Self> {
        let program = tests::python_peer("moto_server")?;
        let port = free_port();
        let args = ["-H", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned);
        Some(Self::start(&program, port, &args, "/moto-api/").await)
    }

    async fn seaweed() -> Option<Self> {
        let program = tests::python_peer("weed")?;
        let port = free_port();
        let mut args: Vec<String> =
            ["server", "-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-filer"]
                .map(str::to_owned)
                .into();
        args.extend([
            format!("-s3.port={port}"),
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
        ]);
        args.extend(["-volume.max=50".to_owned(), "-master.volumeSizeLimitMB=30".to_owned()]);
        for service in ["master", "volume", "filer"] {
            args.push(format!("-{service}.port={}", free_port()));
        }
        for service in ["master", "volume", "filer", "s3"] {
            args.push(format!("-{service}.port.grpc={}", free_port()));
        }
        Some(Self::start(&program, port, &args, "/status").await)
    }

    async fn rclone() -> Option<Self> {
        let program = tests::python_peer("rclone")?;
        let port = free_port();
        let [(_, id), (_, secret), _] = KEYS;
        let args = [
            "serve".to_owned(),
            "s3".to_owned(),
            "--addr".to_owned(),
            format!("127.0.0.1:{port}"),
            "--auth-key".to_owned(),
            format!("{id},{secret}"),
            ".".to_owned(),
        ];
        let (dir, endpoint) = (tempfile::tempdir().unwrap(), format!("http://127.0.0.1:{port}"));
        std::fs::create_dir(dir.path().join(NAME)).unwrap();
        let server = Peer::start_until(&program, port, &args, dir.path(), "/", &[400]).await;
        Some(Self { _server: server, dir, endpoint })
    }

    async fn start(program: &Path, port: u16, args: &[String], ready: &str) -> Self {
        let (dir, endpoint) = (tempfile::tempdir().unwrap(), format!("http://127.0.0.1:{port}"));
        let server = Peer::start(program, port, args, dir.path(), ready).await;
        let client = node::client::client([], std::time::Duration::from_secs(10)).unwrap();
        tests::eventually("a bucket", 60, async || {
            let made = client.put(format!("{endpoint}/{NAME}")).send().await.ok()?;
            made.status().is_success().then_some(())
        })
        .await;
        Self { _server: server, dir, endpoint }
    }

    fn url(&self, prefix: &str) -> String {
        format!("s3://{NAME}/{prefix}?endpoint={}", self.endpoint)
    }

    fn env(&self) -> Env {
        env(&self.dir.path().join("node"), &KEYS)
    }
}

#[tokio::test]
async fn memory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let env = env(dir.path(), &[]);
    let bucket = Bucket::open("memory:", &env).unwrap();
    conformance::all(&bucket, &env).await;
}

#[tokio::test]
async fn a_folder_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let env = env(&dir.path().join("node"), &[]);
    let bucket = Bucket::open(dir.path().join("bucket").to_str().unwrap(), &env).unwrap();
    conformance::all(&bucket, &env).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moto_conforms() {
    let Some(s3) = S3::moto().await else { return };
    let env = s3.env();
    conformance::all(&Bucket::open(&s3.url("deep/prefix"), &env).unwrap(), &env).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_conforms() {
    let Some(s3) = S3::seaweed().await else { return };
    let env = s3.env();
    conformance::all(&Bucket::open(&s3.url(""), &env).unwrap(), &env).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_ignores_conditions_is_refused_by_name() {
    let Some(s3) = S3::rclone().await else { return };
    let bucket = Bucket::open(&s3.url(""), &s3.env()).unwrap();
    let refused = bucket.self_test(1).await.unwrap_err();
    assert!(matches!(refused, Error::NoConditions { .. }), "{refused}");
    assert!(refused.to_string().contains("s3://metrics/"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_founds_nothing_in_a_store_that_ignores_conditions() {
    let Some(s3) = S3::rclone().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(tests::carillon());
    command.envs(KEYS);
    let more = ["--peer-address", "127.0.0.1:0", "--bucket", &s3.url("")];
    let started = NodeProcess::try_start_by(command, &dir.path().join("node"), "127.0.0.1:0", &more);
    let log = started.err().expect("it would lead by what anybody overwrites");
    assert!(log.contains("ignores conditions") && log.contains("s3://metrics/"), "{log}");
    assert!(!s3.dir.path().join(NAME).join("carillon/cluster").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_bucket_from_use_is_told_apart() {
    let Some(s3) = S3::moto().await else { return };
    let elsewhere = s3.url("").replace(NAME, "never-made");
    let missing = Bucket::open(&elsewhere, &s3.env()).unwrap().self_test(1).await.unwrap_err();
    assert!(matches!(missing, Error::Missing { .. }), "{missing}");
    drop(s3);
    let Some(s3) = S3::rclone().await else { return };
    let wrong = [("AWS_ACCESS_KEY_ID", "carillon-tests"), ("AWS_SECRET_ACCESS_KEY", "wrong")];
    let env = env(&s3.dir.path().join("other"), &wrong);
    let denied = Bucket::open(&s3.url(""), &env).unwrap().self_test(1).await.unwrap_err();
    assert!(matches!(denied, Error::Denied { .. }), "{denied}");
    assert!(denied.to_string().contains("AWS_SECRET_ACCESS_KEY"), "{denied}");
    let nobody = format!("s3://{NAME}?endpoint=http://127.0.0.1:{}", free_port());
    let away = Bucket::open(&nobody, &s3.env()).unwrap().self_test(1).await.unwrap_err();
    assert!(matches!(away, Error::Unreachable { .. }), "{away}");
}
