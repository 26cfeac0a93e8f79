//! A request's parameters, from the query string and, for a POST, the form; and the tenant, from its header.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Extensions, Method};
use http_body_util::BodyExt as _;
use tsdb::model::{METRIC_NAME, TenantId};

use super::error::{ApiError, Kind};
use crate::config::Config;
use crate::node::App;
use crate::query::dedup::Replicas;
use crate::receive::budget::Held;
use crate::time::{parse_step_ms, parse_time_ms};

/// Headers that name a tenant: Mimir's and Thanos's.
const TENANT_HEADERS: [&str; 2] = ["x-scope-orgid", "thanos-tenant"];
/// Longest wait for a body of parameters.
const FORM_TIMEOUT: Duration = Duration::from_secs(30);
/// Parameters of this many bytes aren't counted among what `http.max_in_flight` bounds: small questions are answered
/// however many writes are in work.
const UNCOUNTED_BYTES: usize = 64 << 10;
/// Most parameters of a request: a body may hold millions of empty ones.
const PARAMETERS_MAX: usize = 100_000;
/// The tenant of requests that name none.
pub const DEFAULT_TENANT: &str = "default";

/// Whose request it is.
pub struct Tenant(pub TenantId);

impl FromRequestParts<Arc<App>> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        tenant(&parts.headers).map(Self)
    }
}

fn tenant(headers: &HeaderMap) -> Result<TenantId, ApiError> {
    let bad = |message: String| ApiError::new(Kind::BadData, message);
    let mut named: Option<&str> = None;
    for header in TENANT_HEADERS {
        for value in headers.get_all(header) {
            let value = value.to_str().map_err(|_| bad(format!("header {header} isn't a tenant's name")))?;
            if named.is_some_and(|n| n != value) {
                return Err(bad(format!(
                    "headers name more than one tenant ({})",
                    TENANT_HEADERS.join(", ")
                )));
            }
            named = Some(value);
        }
    }
    TenantId::new(named.unwrap_or(DEFAULT_TENANT)).map_err(|e| bad(e.to_string()))
}

/// A query string that is longer than a URI may be: `super::head` hands it on beside the request.
#[derive(Clone)]
pub(super) struct LongQuery(pub(super) HeaderValue);

/// Parameters by name, in the order they came; those in the body come first.
pub struct Params {
    pairs: Vec<(String, String)>,
    /// Room for them while the request is in work.
    _held: Option<Held>,
}

impl FromRequest<Arc<App>> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let mut held = app.in_flight.hold();
        let kind = if parts.method == Method::POST { BodyKind::of(&parts.headers)? } else { BodyKind::Other };
        let body = match kind {
            BodyKind::Other => Bytes::new(),
            BodyKind::Form | BodyKind::Json => all_of(&mut held, app, body).await?,
        };
        let mut all = Self { pairs: Vec::new(), _held: Some(held) };
        match kind {
            BodyKind::Json => all.push_json(&body)?,
            BodyKind::Form | BodyKind::Other => all.push_form(&body)?,
        }
        all.push_form(query_string(&parts.uri, &parts.extensions))?;
        Ok(all)
    }
}

impl Params {
    /// Those of the URL alone.
    pub(super) fn of_url(parts: &Parts) -> Result<Self, ApiError> {
        let mut all = Self { pairs: Vec::new(), _held: None };
        all.push_form(query_string(&parts.uri, &parts.extensions))?;
        Ok(all)
    }

    fn push_form(&mut self, form: &[u8]) -> Result<(), ApiError> {
        for (name, value) in form_urlencoded::parse(form) {
            self.push(name.into_owned(), value.into_owned())?;
        }
        Ok(())
    }

    /// Takes a flat object: `{"value": 3, "dry_run": true}`.
    fn push_json(&mut self, body: &[u8]) -> Result<(), ApiError> {
        if body.is_empty() {
            return Ok(());
        }
        let bad = |why: String| {
            ApiError::new(Kind::BadData, format!("the body isn't a JSON object of parameters: {why}"))
        };
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(body).map_err(|e| bad(e.to_string()))?;
        for (name, value) in object {
            match value {
                serde_json::Value::String(text) => self.push(name, text)?,
                serde_json::Value::Number(_) | serde_json::Value::Bool(_) => {
                    self.push(name, value.to_string())?;
                }
                _ => return Err(bad(format!("{name:?} is neither text, a number, true nor false"))),
            }
        }
        Ok(())
    }

    fn push(&mut self, name: String, value: String) -> Result<(), ApiError> {
        if self.pairs.len() >= PARAMETERS_MAX {
            let message = format!("a request has at most {PARAMETERS_MAX} parameters");
            return Err(ApiError::new(Kind::BadData, message));
        }
        self.pairs.push((name, value));
        Ok(())
    }
}

/// What a body holds, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyKind {
    Form,
    Json,
    /// Nothing that is looked at.
    Other,
}

impl BodyKind {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
        let is = |wanted: &[u8]| kind.as_ref().is_some_and(|kind| kind.starts_with(wanted));
        if is(b"application/x-www-form-urlencoded") {
            Ok(Self::Form)
        } else if is(b"application/json") {
            Ok(Self::Json)
        } else if is(b"multipart/") {
            let message = "a multipart body isn't read here: send application/x-www-form-urlencoded, or put the \
                           parameters into the URL";
            Err(ApiError::new(Kind::UnsupportedMedia, message))
        } else {
            Ok(Self::Other)
        }
    }
}

fn query_string<'a>(uri: &'a axum::http::Uri, extensions: &'a Extensions) -> &'a [u8] {
    match extensions.get::<LongQuery>() {
        Some(long) => long.0.as_bytes(),
        None => uri.query().unwrap_or_default().as_bytes(),
    }
}

/// A body of parameters, which counts among what `http.max_in_flight` bounds where it is large.
async fn all_of(held: &mut Held, app: &App, body: Body) -> Result<Bytes, ApiError> {
    let most = app.config.load().http_max_query_body.as_usize();
    let mut counted = 0;
    let room =
        |bytes: usize| bytes <= UNCOUNTED_BYTES || held.grow(bytes - std::mem::replace(&mut counted, bytes));
    read(body, most, "http.max_query_body", room).await
}

/// A whole body of at most `most` bytes, which `limit` names; in bounded time.
pub(super) async fn read_body(body: Body, most: usize, limit: &str) -> Result<Bytes, ApiError> {
    read(body, most, limit, |_| true).await
}

/// Asks for room for all bytes so far before more of them are kept.
async fn read(
    mut body: Body,
    most: usize,
    limit: &str,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Bytes, ApiError> {
    let bad = |why: String| ApiError::new(Kind::BadData, why);
    let all = async {
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| bad(format!("the body can't be read: {e}")))?;
            let Some(data) = frame.data_ref() else { continue };
            if all.len() + data.len() > most {
                let message = format!("the body has more than {most} bytes ({limit})");
                return Err(ApiError::new(Kind::TooLarge, message));
            }
            if !room(all.len() + data.len()) {
                let message = "too many bytes of requests are in work (http.max_in_flight)";
                return Err(ApiError::new(Kind::Unavailable, message));
            }
            all.extend_from_slice(data);
        }
        Ok(all.into())
    };
    let late = |_| bad(format!("the body didn't arrive within {FORM_TIMEOUT:?}"));
    tokio::time::timeout(FORM_TIMEOUT, all).await.map_err(late)?
}

impl Params {
    /// The first value of a parameter; an empty one is as good as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, value)| n == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A point in time in milliseconds, if given.
    pub fn time_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let parse = |text| {
            parse_time_ms(text).ok_or_else(|| {
                ApiError::parameter(name, format!("{text:?} isn't seconds or an RFC 3339 time"))
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// A point in time in milliseconds that has to be given.
    pub fn required_time_ms(&self, name: &str) -> Result<i64, ApiError> {
        self.time_ms(name)?.ok_or_else(|| ApiError::parameter(name, "a time is missing"))
    }

    /// A length of time in milliseconds, if given.
    pub fn duration_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let parse = |text| {
            parse_step_ms(text)
                .ok_or_else(|| ApiError::parameter(name, format!("{text:?} isn't seconds or a duration")))
        };
        self.get(name).map(parse).transpose()
    }

    /// A switch, if given.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let parse = |text: &str| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(ApiError::parameter(name, format!("{text:?} is neither true nor false"))),
        };
        self.get(name).map(parse).transpose()
    }

    /// Whether an answer may lack what too few owners answered for.
    pub fn partial(&self) -> Result<bool, ApiError> {
        Ok(self.switch("partial_response")?.unwrap_or(false))
    }

    /// Whether owners aggregate what they keep, wherever that can be; without it, where it pays.
    pub fn push_down(&self) -> Result<Option<bool>, ApiError> {
        self.switch("push_down")
    }

    /// The labels by which replicas of a scraper differ: `replicaLabels[]`, or the tenant's setting; none where
    /// `dedup=false`.
    pub fn replicas(&self, config: &Config, tenant: &TenantId) -> Result<Replicas, ApiError> {
        if self.switch("dedup")? == Some(false) {
            return Ok(Replicas::default());
        }
        let mut named = self.all("replicaLabels[]").chain(self.all("replicaLabels")).peekable();
        if named.peek().is_none() {
            return Ok(Replicas::new(config.limits_of(tenant.as_str()).replica_labels.0.iter().cloned()));
        }
        let named: Vec<_> = named.map(str::to_owned).collect();
        if named.iter().any(|name| name == METRIC_NAME) {
            return Err(ApiError::parameter("replicaLabels[]", "replicas don't differ in a metric's name"));
        }
        Ok(Replicas::new(named))
    }

    /// How many results are wanted; 0 = all.
    pub fn limit(&self, name: &str) -> Result<usize, ApiError> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| ApiError::parameter(name, format!("{text:?} isn't a number of at least 0")))
        };
        Ok(self.get(name).map(parse).transpose()?.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&'static str, &'static str)]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        tenant(&headers).map(|t| t.to_string()).map_err(|e| e.message)
    }

    #[test]
    fn one_valid_tenant_or_none() {
        assert_eq!(named(&[]).unwrap(), "default");
        assert_eq!(named(&[("x-scope-orgid", "a")]).unwrap(), "a");
        assert_eq!(named(&[("x-scope-orgid", "a"), ("thanos-tenant", "a")]).unwrap(), "a");
        assert!(
            named(&[("x-scope-orgid", "a"), ("thanos-tenant", "b")]).unwrap_err().contains("more than one")
        );
        assert!(named(&[("x-scope-orgid", "a"), ("x-scope-orgid", "b")]).is_err());
        for bad in ["", "..", "a/b", "a|b", "%2e%2e"] {
            assert!(named(&[("x-scope-orgid", bad)]).is_err(), "{bad}");
        }
    }
}
