//! The whole node behind its routes, on a disk in memory and a clock that stands still.

mod copies;
mod fail_stop;
mod fairness;
mod guard;
mod judged;
mod limits;
mod names;
mod query;
mod raw;
mod replicas;
mod status;
mod surface;
pub(crate) mod upload;
mod write;
mod write_v2;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use prost::Message as _;
use proto::prometheus as pb;
use rand::SeedableRng as _;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tsdb::disk::MemoryDisk;

use crate::bucket::{Blocks, Bucket, Handed};
use crate::cluster::Addresses;
use crate::config::{Config, Sources, load};
use crate::env::{DiskLedger, Env, Inline, ManualClock, OsProcess, TcpNet};
use crate::node::{App, Hooks};

/// 2026-01-01T00:00:00Z.
pub(crate) const NOW_MS: i64 = 1_767_225_600_000;

/// A node without a network.
pub(crate) struct TestNode {
    pub(crate) app: Arc<App>,
    pub(crate) disk: MemoryDisk,
    bucket: Arc<InMemory>,
    router: Router,
    stop: CancellationToken,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl TestNode {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// A node with a configuration file.
    pub(crate) async fn with(yaml: &str) -> Self {
        Self::on(MemoryDisk::new(), Arc::default(), yaml).await
    }

    async fn on(disk: MemoryDisk, bucket: Arc<InMemory>, yaml: &str) -> Self {
        Self::changed(disk, bucket, yaml, async |_: &mut App| {}).await
    }

    /// A node whose blocks go to a bucket that others use too.
    pub(crate) async fn on_bucket(store: Arc<dyn ObjectStore>, seed: u128, yaml: &str) -> Self {
        Self::changed(MemoryDisk::new(), Arc::default(), yaml, async |app: &mut App| {
            let env = Env { bucket: Arc::new(Handed(store)), seed, ..app.env.clone() };
            let bucket = Bucket::open("memory:", &env).unwrap();
            let blocks = Blocks::open(bucket, &app.config.load(), &env, app.cluster.me()).await;
            app.blocks = Arc::new(blocks.unwrap());
        })
        .await
    }

    /// A node of which `change` changes what a cluster would have made of it.
    async fn changed(
        disk: MemoryDisk,
        bucket: Arc<InMemory>,
        yaml: &str,
        change: impl AsyncFnOnce(&mut App),
    ) -> Self {
        let shared = Arc::new(disk.clone());
        let env = Env {
            clock: Arc::new(ManualClock::new(NOW_MS)),
            disk: shared.clone(),
            lock: None,
            ledger: Arc::new(DiskLedger::open(shared).unwrap()),
            net: Arc::new(TcpNet),
            pool: Arc::new(Inline),
            bucket: Arc::new(Handed(bucket.clone())),
            process: Arc::new(OsProcess::new()),
            seed: 42,
        };
        let config: Config = load(&Sources { file: Some(("test", yaml)), ..Sources::default() }).unwrap();
        let at = Addresses { peer: "127.0.0.1:1".to_owned(), http: "127.0.0.1:2".to_owned() };
        let mut app = App::open(config, env, Hooks::default(), &at, Arc::default()).await.unwrap();
        change(&mut app).await;
        let app = Arc::new(app);
        let stop = CancellationToken::new();
        app.start_background(&stop);
        let router = crate::http::router(app.clone());
        Self { app, disk, bucket, router, stop }
    }

    /// Cuts the power and starts again on what is left.
    pub(crate) async fn crash(self, yaml: &str) -> Self {
        self.stop.cancel();
        self.disk.crash(&mut rand::rngs::StdRng::seed_from_u64(7));
        Self::on(self.disk.clone(), self.bucket.clone(), yaml).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let encoded = |c: char| match c {
            '{' | '}' | '"' | '|' | '<' | '>' | ' ' => format!("%{:02x}", c as u32),
            _ => c.to_string(),
        };
        let path: String = path.chars().map(encoded).collect();
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let request = headers.iter().fold(Request::post(path), |r, (name, value)| r.header(*name, *value));
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn form(&self, path: &str, form: &str) -> Answer {
        self.post(path, &[("content-type", "application/x-www-form-urlencoded")], form.to_owned()).await
    }

    /// Remote write of whole series.
    pub(crate) async fn write(&self, timeseries: Vec<pb::TimeSeries>) -> Answer {
        self.write_request(&pb::WriteRequest { timeseries, metadata: Vec::new() }).await
    }

    pub(crate) async fn write_as(&self, tenant: &str, timeseries: Vec<pb::TimeSeries>) -> Answer {
        let request = pb::WriteRequest { timeseries, metadata: Vec::new() };
        let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
        self.post("/api/v1/write", &[("x-scope-orgid", tenant)], body).await
    }

    pub(crate) async fn write_request(&self, request: &pb::WriteRequest) -> Answer {
        let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
        let headers = [("content-encoding", "snappy"), ("content-type", "application/x-protobuf")];
        self.post("/api/v1/write", &headers, body).await
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    /// The data of a success.
    pub(crate) fn data(&self) -> serde_json::Value {
        let json = self.json();
        assert_eq!((self.status, &json["status"]), (StatusCode::OK, &"success".into()), "{json}");
        json["data"].clone()
    }

    /// Status, kind and message of an error in the envelope.
    pub(crate) fn error(&self) -> (u16, String, String) {
        let json = self.json();
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("status"), "error", "{json}");
        (self.status.as_u16(), text("errorType"), text("error"))
    }
}

/// A series with samples of `(timestamp_ms, value)`.
pub(crate) fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> pb::TimeSeries {
    let label =
        |(name, value): &(&str, &str)| pb::Label { name: (*name).to_owned(), value: (*value).to_owned() };
    pb::TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: samples
            .iter()
            .map(|(timestamp, value)| pb::Sample { value: *value, timestamp: *timestamp })
            .collect(),
        ..pb::TimeSeries::default()
    }
}
