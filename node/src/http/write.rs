//! Remote write and text import: bodies in, bounded in size, number and time.
//!
//! Answers are those that make senders do the right thing: 400 for what can never succeed (the good samples are
//! stored all the same), 429 for a limit, 503 for a node that can't now; identical samples again are a success.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::BodyExt as _;
use tsdb::model::TenantId;

use super::error::{ApiError, Kind, RETRY_AFTER_S};
use super::params::Tenant;
use super::routes::{Effect, Routes};
use crate::config::Config;
use crate::env::{Work, run_on};
use crate::node::App;
use crate::receive::budget::{Held, OverBudget};
use crate::receive::ingest::{ParseLabels, Reason, Report};
use crate::receive::intake::{Pending, Unacked, Write};
use crate::receive::replicate::NoQuorum;
use crate::receive::{labels, remote_write, text};

/// Longest wait for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Bodies above this are decoded on the pool: the async threads have others to serve.
const INLINE_BYTES_MAX: usize = 1 << 20;

pub(super) fn routes() -> Routes {
    Routes::default()
        .route("/api/v1/write", Effect::Ingest, post(write))
        .route("/api/v1/receive", Effect::Ingest, post(write))
        .route("/api/v1/push", Effect::Ingest, post(write))
        .route("/api/v1/import/prometheus", Effect::Ingest, post(import))
}

async fn write(
    State(app): State<Arc<App>>,
    Tenant(id): Tenant,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, WriteError> {
    let message = Message::of(&headers)?;
    let (report, result) = match append_remote_write(&app, &id, message, &headers, body).await {
        Ok(pending) => finish(&app, pending).await,
        Err(error) => (Report::default(), Err(error)),
    };
    let mut response = result.map_or_else(IntoResponse::into_response, IntoResponse::into_response);
    if message == Message::V2 {
        let samples = report.stored + report.known - report.histograms;
        let written = [samples, report.histograms, report.exemplars];
        for (name, count) in WRITTEN.into_iter().zip(written) {
            response.headers_mut().insert(name, HeaderValue::from(count));
        }
    }
    Ok(response)
}

async fn append_remote_write(
    app: &Arc<App>,
    id: &TenantId,
    message: Message,
    headers: &HeaderMap,
    body: Body,
) -> Result<Pending, WriteError> {
    let config = app.config.load_full();
    let (body, mut held) = read_body(app, &config, headers, body).await?;
    let most = config.http_max_decompressed_body.as_usize();
    let declared = remote_write::declared_bytes(&body, most)?;
    if !held.grow(declared) {
        return Err(OverBudget::Node.into());
    }
    let is_small = declared <= INLINE_BYTES_MAX;
    let write = request(app, id, config, labels::from_remote_write, held)?;
    let intake = app.intake.clone();
    let work = move || {
        intake.append(write, |decoding| {
            remote_write::decompress(&body, declared, decoding.body)?;
            let (plain, batch, hasher, mut memory) = decoding.split();
            match message {
                Message::V1 => remote_write::decode(plain, hasher, &mut memory, batch)?,
                Message::V2 => remote_write::v2::decode(plain, hasher, &mut memory, batch)?,
            }
            Ok(())
        })
    };
    if is_small { work() } else { run_on(&*app.env.pool, Work::Write, work).await }
}

async fn import(
    State(app): State<Arc<App>>,
    Tenant(id): Tenant,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, WriteError> {
    let config = app.config.load_full();
    let (body, held) = read_body(&app, &config, &headers, body).await?;
    let encoding = Encoding::of(&headers)?;
    let most = config.http_max_decompressed_body.as_usize().min(u32::MAX as usize);
    let is_openmetrics = headers.get(CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes().to_ascii_lowercase().starts_with(b"application/openmetrics-text")
    });
    let format = if is_openmetrics { text::Format::OpenMetrics } else { text::Format::Text };
    let write = request(&app, &id, config, text::labels, held)?;
    let (intake, now_ms, config) = (app.intake.clone(), write.now_ms, write.config.clone());
    let work = move || {
        intake.append(write, move |decoding| {
            match encoding {
                Encoding::Plain => *decoding.body = body.into(),
                Encoding::Gzip => gunzip(&body, most, decoding.held, decoding.body)?,
            }
            let (plain, batch, hasher, mut memory) = decoding.split();
            text::decode(plain, format, now_ms, hasher, &mut memory, batch)?;
            if format == text::Format::OpenMetrics {
                text::judge(plain, batch, config.limits_of(id.as_str())).map_err(WriteError::Broken)?;
            }
            Ok::<_, WriteError>(())
        })
    };
    let pending = run_on(&*app.env.pool, Work::Write, work).await?;
    finish(&app, pending).await.1.map(IntoResponse::into_response)
}

/// A request of a tenant's that came just now.
fn request(
    app: &App,
    id: &TenantId,
    config: Arc<Config>,
    parse_labels: ParseLabels,
    held: Held,
) -> Result<Write, WriteError> {
    let (tenant, now_ms) = (app.intake.tenant(id)?, app.env.clock.now_ms());
    Ok(Write { tenant, config, now_ms, parse_labels, held })
}

/// Waits until a write may be acked, and says what became of it.
async fn finish(app: &App, pending: Pending) -> (Report, Result<StatusCode, WriteError>) {
    let (report, acked) = app.intake.finish(pending).await;
    let result = acked.map_err(WriteError::from).and_then(|()| judge(&report));
    (report, result)
}

/// What the sender is told of a write that came to its end.
fn judge(report: &Report) -> Result<StatusCode, WriteError> {
    let limited = report.refused_for(Reason::SeriesLimit);
    let others = report.refused() - limited;
    let rest = |count: u64| if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
    match (&report.limited, &report.first) {
        (Some(first), _) => Err(WriteError::Limited(format!("{first}{}", rest(limited + others)))),
        (None, Some(first)) => Err(WriteError::Refused(format!("{first}{}", rest(others)))),
        (None, None) => Ok(StatusCode::NO_CONTENT),
    }
}

/// Where answers to remote write 2.0 tell how many samples, histograms and exemplars are stored.
const WRITTEN: [&str; 3] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
    "x-prometheus-remote-write-exemplars-written",
];

/// Which remote write a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

impl Message {
    /// By the headers alone, as the specification demands.
    fn of(headers: &HeaderMap) -> Result<Self, WriteError> {
        let text =
            |name| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap_or("?").to_ascii_lowercase());
        if let Some(encoding) = text(CONTENT_ENCODING)
            && encoding != "snappy"
        {
            return Err(WriteError::Unsupported(format!("content encoding {encoding:?} isn't snappy")));
        }
        let Some(kind) = text(CONTENT_TYPE) else { return Ok(Self::V1) };
        let mut parts = kind.split(';').map(str::trim);
        let is_protobuf = parts.next() == Some("application/x-protobuf");
        let message = parts.find_map(|p| p.strip_prefix("proto=")).map(|name| name.trim_matches('"'));
        match message {
            None | Some("prometheus.writerequest") if is_protobuf => Ok(Self::V1),
            Some("io.prometheus.write.v2.request") if is_protobuf => Ok(Self::V2),
            _ => Err(WriteError::Unsupported(format!(
                "content type {kind:?} isn't application/x-protobuf of prometheus.WriteRequest (remote write 1.0) \
                 or io.prometheus.write.v2.Request (2.0)"
            ))),
        }
    }
}

/// The whole body, as it was sent.
async fn read_body(
    app: &App,
    config: &Config,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Held), WriteError> {
    let most = config.http_max_body.as_usize();
    let too_large = || WriteError::TooLarge(format!("the body has more than {most} bytes (http.max_body)"));
    let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let mut held = app.in_flight.hold();
    let mut body = body;
    let read = async {
        let mut first: Option<Bytes> = None;
        let mut joined = Vec::new();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| WriteError::Broken(format!("the body can't be read: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            length += data.len();
            if length > most {
                return Err(too_large());
            }
            if !held.grow(data.len()) {
                return Err(OverBudget::Node.into());
            }
            match &first {
                None => first = Some(data),
                Some(one) => {
                    if joined.is_empty() {
                        joined.reserve(declared.unwrap_or(2 * length));
                        joined.extend_from_slice(one);
                    }
                    joined.extend_from_slice(&data);
                }
            }
        }
        Ok(if joined.is_empty() { first.unwrap_or_default() } else { joined.into() })
    };
    let timed_out = |_| WriteError::Broken(format!("the body didn't arrive within {BODY_TIMEOUT:?}"));
    let body = tokio::time::timeout(BODY_TIMEOUT, read).await.map_err(timed_out)??;
    Ok((body, held))
}

#[derive(Clone, Copy)]
enum Encoding {
    Plain,
    Gzip,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, WriteError> {
        match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"" | b"identity") => Ok(Self::Plain),
            Some(b"gzip") => Ok(Self::Gzip),
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                Err(WriteError::Unsupported(format!(
                    "content encoding {other:?} is neither gzip nor identity"
                )))
            }
        }
    }
}

/// Decompressed in steps, so that a bomb is noticed before it fills the memory.
const GUNZIP_STEP_BYTES: usize = 256 << 10;

fn gunzip(body: &[u8], most: usize, held: &mut Held, plain: &mut Vec<u8>) -> Result<(), WriteError> {
    plain.clear();
    let mut decoder = flate2::read::MultiGzDecoder::new(body);
    loop {
        if !held.grow(GUNZIP_STEP_BYTES) {
            return Err(OverBudget::Node.into());
        }
        let mut step = decoder.by_ref().take(GUNZIP_STEP_BYTES as u64);
        let read =
            step.read_to_end(plain).map_err(|e| WriteError::Broken(format!("the body isn't gzip: {e}")))?;
        if plain.len() > most {
            return Err(WriteError::TooLarge(format!(
                "the body has more than {most} decompressed bytes (http.max_decompressed_body)"
            )));
        }
        if read == 0 {
            return Ok(());
        }
    }
}

/// A write that wasn't a full success. Bodies are plain text: senders log them.
#[derive(Debug)]
enum WriteError {
    /// The request can't be read.
    Broken(String),
    /// It is of a kind that isn't taken.
    Unsupported(String),
    /// It is too large.
    TooLarge(String),
    /// Parts of it can never be stored.
    Refused(String),
    /// Parts of it met a limit.
    Limited(String),
    /// Its memory isn't to be had, now or ever.
    OverBudget(OverBudget),
    /// Too few replicas have them, or said so in time.
    NoQuorum(NoQuorum),
    /// The engine's answer.
    Engine(tsdb::Error),
}

impl From<text::TextError> for WriteError {
    fn from(error: text::TextError) -> Self {
        match error {
            text::TextError::Fault(why) => Self::Broken(why),
            text::TextError::OverBudget(error) => error.into(),
        }
    }
}

impl From<OverBudget> for WriteError {
    fn from(error: OverBudget) -> Self {
        Self::OverBudget(error)
    }
}

impl From<Unacked> for WriteError {
    fn from(error: Unacked) -> Self {
        match error {
            Unacked::Commit(error) => Self::Engine(error),
            Unacked::NoQuorum(error) => Self::NoQuorum(error),
        }
    }
}

impl From<tsdb::Error> for WriteError {
    fn from(error: tsdb::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<remote_write::BodyError> for WriteError {
    fn from(error: remote_write::BodyError) -> Self {
        match error {
            remote_write::BodyError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            remote_write::BodyError::OverBudget(error) => error.into(),
            _ => Self::Broken(error.to_string()),
        }
    }
}

impl IntoResponse for WriteError {
    fn into_response(self) -> Response {
        let (kind, message) = match self {
            Self::Broken(message) | Self::Refused(message) => (Kind::BadData, message),
            Self::Unsupported(message) => (Kind::UnsupportedMedia, message),
            Self::TooLarge(message) => (Kind::TooLarge, message),
            Self::Limited(message) => (Kind::TooMany, message),
            Self::OverBudget(error @ OverBudget::Request { .. }) => (Kind::TooLarge, error.to_string()),
            Self::OverBudget(error @ OverBudget::Node) => (Kind::Unavailable, error.to_string()),
            Self::NoQuorum(error) => (Kind::Unavailable, error.to_string()),
            Self::Engine(error) => {
                let ApiError { kind, message } = error.into();
                (kind, message)
            }
        };
        let mut response = (kind.status(), format!("{message}\n")).into_response();
        if matches!(kind, Kind::TooMany | Kind::Unavailable) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}
