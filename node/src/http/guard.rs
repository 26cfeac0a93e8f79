//! State is changed only by who means it.
//!
//! A browser sends what any page has it send, to every address that it reaches, with whatever a node takes for the
//! operator's wish: a form on a page that an operator visits could lower the replication factor. So each request that
//! isn't a GET is judged by its route's [`Effect`] before the handler sees it; a route that is in no table counts as
//! [`Effect::Change`].
//!
//! | effect | from a page of another origin | without [`CHANGE_HEADER`] or a JSON body | logged |
//! |---|---|---|---|
//! | `Read`, `Ingest` | goes through | goes through | no |
//! | `Upload` | refused | goes through: its clients send nothing but the block | info |
//! | `Change` | refused | refused: a page can send neither without asking first | warn |
//!
//! A page of another origin shows by `Sec-Fetch-Site`, or by an `Origin` that isn't the `Host`. A name that an attacker
//! lets point to this node (DNS rebinding) makes the two equal, so a browser's `Host` must be an address or a name that
//! the node was given.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, CONTENT_TYPE, HOST, HeaderMap, ORIGIN, USER_AGENT, VARY,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::{ApiError, Kind};
use super::params::read_body;
use super::routes::Effect;
use super::without_prefix;
use crate::config::{Config, CorsOrigin};
use crate::log::Repeats;
use crate::node::App;
use crate::server::Caller;

/// A header that a page of another origin can't send; any value will do.
pub(crate) const CHANGE_HEADER: &str = "x-carillon-change";
/// Tells, in a browser's words, where a request comes from.
const SEC_FETCH_SITE: &str = "sec-fetch-site";
/// Largest body of a request that changes state: a few parameters.
const CHANGE_BYTES_MAX: usize = 64 << 10;
/// Longest text of a client's that is logged.
const LOGGED_BYTES_MAX: usize = 256;
/// Begins the paths of the API: those that pages of other origins may read.
const API: &str = "/api/v1/";
/// Paths that Prometheus answers to a HEAD.
const HEAD_PATHS: [&str; 3] = ["/-/healthy", "/-/ready", "/-/safe"];

/// Judges requests by their route's effect.
pub(super) struct Guard {
    app: Arc<App>,
    effects: BTreeMap<&'static str, Effect>,
    /// A page may send a thousand requests a second.
    refusals: Repeats,
}

impl Guard {
    pub(super) fn new(app: Arc<App>, effects: BTreeMap<&'static str, Effect>) -> Self {
        Self { app, effects, refusals: Repeats::default() }
    }

    /// The effect of the request's route; `None` where it has no route.
    fn effect(&self, request: &Request) -> Option<Effect> {
        let path = without_prefix(request.extensions().get::<MatchedPath>()?.as_str());
        Some(self.effects.get(path).copied().unwrap_or(Effect::Change))
    }
}

/// The layer over all routes.
pub(super) async fn guarded(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let Some(effect) = guard.effect(&request) else { return next.run(request).await };
    let path = without_prefix(request.uri().path());
    let is_api = path.starts_with(API);
    // Reading alone: with these headers on a route that changes state, a browser would send what a page adds.
    let is_shared = is_api && effect == Effect::Read;
    let origin = request.headers().get(ORIGIN).filter(|_| is_shared).cloned();
    let mut response = match *request.method() {
        Method::OPTIONS if is_api => StatusCode::NO_CONTENT.into_response(),
        // axum answers HEAD wherever there is a GET, at the price of a GET.
        Method::HEAD if !HEAD_PATHS.contains(&path) => {
            ApiError::new(Kind::MethodNotAllowed, "HEAD isn't answered here").into_response()
        }
        Method::GET | Method::HEAD | Method::OPTIONS => next.run(request).await,
        _ => match effect {
            Effect::Read | Effect::Ingest => next.run(request).await,
            Effect::Upload | Effect::Change => guard.change(effect, request, next).await,
        },
    };
    if let Some(origin) = origin {
        let config = guard.app.config.load();
        share(response.headers_mut(), &config.http_cors_origin, &origin);
    }
    response
}

/// Lets pages of other origins read an answer, as Prometheus does.
fn share(headers: &mut HeaderMap, allowed: &CorsOrigin, origin: &HeaderValue) {
    let text = HeaderValue::from_static;
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, text("Accept, Authorization, Content-Type, Origin"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, text("GET, POST, OPTIONS"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, text("Date"));
    headers.append(VARY, text("Origin"));
    if allowed.is_any() {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, text("*"));
    } else if origin.to_str().is_ok_and(|origin| allowed.matches(origin)) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
}

impl Guard {
    /// Lets a request through that changes state, if somebody means it, and logs it with its caller.
    async fn change(&self, effect: Effect, request: Request, next: Next) -> Response {
        let (parts, body) = request.into_parts();
        let refusal = foreign(&parts.headers, parts.uri.host(), &self.app.config.load())
            .or_else(|| if effect == Effect::Change { unmeant(&parts.headers) } else { None });
        let log = Logged::of(&parts);
        if let Some(why) = refusal {
            if let Some(untold) = self.refusals.due(&why) {
                log.refused(&why, untold);
            }
            return ApiError::new(Kind::Forbidden, why).into_response();
        }
        if effect == Effect::Upload {
            let response = next.run(Request::from_parts(parts, body)).await;
            log.uploaded(response.status());
            return response;
        }
        let body = match read_body(body, CHANGE_BYTES_MAX, "a change takes a few parameters").await {
            Ok(body) => body,
            Err(error) => return error.into_response(),
        };
        let parameters = cut(&body);
        let response = next.run(Request::from_parts(parts, Body::from(body))).await;
        log.changed(&parameters, response.status());
        response
    }
}

/// What is logged of a request.
struct Logged {
    caller: String,
    agent: String,
    request: String,
}

impl Logged {
    fn of(parts: &axum::http::request::Parts) -> Self {
        let caller = parts.extensions.get::<Caller>().map_or_else(String::new, |caller| caller.0.to_string());
        let agent = parts.headers.get(USER_AGENT).map_or_else(String::new, |agent| cut(agent.as_bytes()));
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        Self { caller, agent, request: format!("{} {}", parts.method, cut(target.as_bytes())) }
    }

    fn refused(&self, why: &str, untold: u64) {
        let Self { caller, agent, request } = self;
        tracing::warn!(caller, agent, request, untold, why, "a request to change state is refused");
    }

    fn uploaded(&self, status: StatusCode) {
        let Self { caller, agent, request } = self;
        tracing::info!(caller, agent, request, status = status.as_u16(), "a request to upload a block");
    }

    fn changed(&self, parameters: &str, status: StatusCode) {
        let Self { caller, agent, request } = self;
        tracing::warn!(
            caller,
            agent,
            request,
            parameters,
            status = status.as_u16(),
            "a request to change state"
        );
    }
}

fn cut(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(LOGGED_BYTES_MAX)]).into_owned()
}

/// Why a request is a page's of another origin; `None` where it isn't, or no browser sent it.
fn foreign(headers: &HeaderMap, authority: Option<&str>, config: &Config) -> Option<String> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
    if let Some(site) = text(SEC_FETCH_SITE)
        && !matches!(site.as_str(), "same-origin" | "none")
    {
        return Some(format!("a page of another origin can't change anything here (Sec-Fetch-Site: {site})"));
    }
    let origin = text(ORIGIN.as_str())?;
    let host = text(HOST.as_str()).or_else(|| authority.map(str::to_ascii_lowercase)).unwrap_or_default();
    let is_same = origin.split_once("://").is_some_and(|(_, from)| from == host);
    if !is_same {
        return Some(format!(
            "a page of another origin can't change anything here (Origin: {})",
            cut(origin.as_bytes())
        ));
    }
    if !is_own(host_name(&host), config) {
        return Some(format!(
            "a browser can't change anything here under the name {:?}, which this node wasn't given: use its address",
            cut(host.as_bytes())
        ));
    }
    None
}

/// Why nobody means a request, as far as it shows.
fn unmeant(headers: &HeaderMap) -> Option<String> {
    let is_json = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"application/json"));
    let is_meant = is_json || headers.contains_key(CHANGE_HEADER);
    (!is_meant).then(|| {
        "a request that changes state needs the header `X-Carillon-Change: yes`, or `Content-Type: application/json`: \
         no page of another origin can send these"
            .to_owned()
    })
}

/// `host:port` without the port, `[::1]` without its brackets.
fn host_name(host: &str) -> &str {
    let is_port = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    name.trim_start_matches('[').trim_end_matches(']')
}

/// Whether a name is this node's by itself: an address, this machine, or what the configuration calls the node.
fn is_own(name: &str, config: &Config) -> bool {
    let given = [Some(&config.http_address.0), config.advertise_address.0.as_ref().map(|address| &address.0)];
    name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || given.into_iter().flatten().any(|address| host_name(address).eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(headers: &[(&'static str, &str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let address = crate::config::Address("node-1.example:9480".to_owned());
        let config = Config { http_address: address, ..Config::default() };
        foreign(&map, None, &config)
    }

    #[test]
    fn a_page_of_another_origin_shows_by_what_its_browser_sends() {
        let own = [
            &[("host", "evil.example")][..],
            &[("host", "127.0.0.1:9480"), ("origin", "http://127.0.0.1:9480")],
            &[("host", "[::1]:9480"), ("origin", "http://[::1]:9480"), ("sec-fetch-site", "same-origin")],
            &[("host", "localhost:1"), ("origin", "http://localhost:1"), ("sec-fetch-site", "none")],
            &[("host", "NODE-1.example:9480"), ("origin", "https://node-1.example:9480")],
        ];
        for headers in own {
            assert_eq!(judged(headers), None, "{headers:?}");
        }
        let foreign = [
            &[("host", "127.0.0.1:9480"), ("origin", "http://evil.example")][..],
            &[("host", "127.0.0.1:9480"), ("origin", "http://127.0.0.1:9490")],
            &[("host", "127.0.0.1:9480"), ("origin", "null")],
            &[("host", "127.0.0.1:9480"), ("origin", "")],
            &[("host", "127.0.0.1:9480"), ("sec-fetch-site", "cross-site")],
            &[("host", "127.0.0.1:9480"), ("sec-fetch-site", "same-site")],
            // A name that points here, for as long as the attacker likes.
            &[
                ("host", "evil.example:9480"),
                ("origin", "http://evil.example:9480"),
                ("sec-fetch-site", "same-origin"),
            ],
        ];
        for headers in foreign {
            assert!(judged(headers).is_some(), "{headers:?}");
        }
    }

    #[test]
    fn a_header_or_a_json_body_shows_that_a_change_is_meant() {
        let judged = |name: &'static str, value: &str| {
            let mut map = HeaderMap::new();
            map.insert(name, value.parse().unwrap());
            unmeant(&map).is_none()
        };
        assert!(
            judged("x-carillon-change", "yes") && judged("content-type", "Application/JSON; charset=utf-8")
        );
        for kind in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"] {
            assert!(!judged("content-type", kind), "{kind}: a form sends it");
        }
    }
}
