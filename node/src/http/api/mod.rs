//! Prometheus's query API.

mod exemplars;
mod names;
mod query;
mod stats;
mod status;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::json::push_string;
use super::routes::Routes;
use crate::query::coverage::Coverage;
use crate::repair;

/// How many warnings, and how many infos, an answer carries.
const ANNOTATIONS_MAX: usize = 10;
/// What a request's `limit` left out is told by Prometheus's words: clients look for them.
const LIMITED: &str = "results truncated due to limit";

pub(super) fn routes() -> Routes {
    Routes::default()
        .merge(query::routes())
        .merge(names::routes())
        .merge(exemplars::routes())
        .merge(status::routes())
        .merge(repair::routes())
}

/// `{"status":"success","data":DATA}` with warnings.
pub(crate) fn success(data: &[u8], warnings: &[String]) -> Response {
    let mut body = Vec::with_capacity(data.len() + 64);
    body.extend_from_slice(b"{\"status\":\"success\",\"data\":");
    body.extend_from_slice(data);
    push_texts(&mut body, "warnings", warnings);
    body.push(b'}');
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The header that tells who answered.
const COVERAGE: HeaderName = HeaderName::from_static("x-carillon-coverage");

/// Tells who answered.
fn covered(mut response: Response, coverage: &Coverage) -> Response {
    let value = HeaderValue::from_str(&coverage.header()).expect("words and numbers");
    response.headers_mut().insert(COVERAGE, value);
    response
}

/// `,"name":["text",…]`, or nothing where there is no text.
fn push_texts(out: &mut Vec<u8>, name: &str, texts: &[String]) {
    for (i, text) in texts.iter().enumerate() {
        if i == 0 {
            out.extend_from_slice(format!(",\"{name}\":[").as_bytes());
        } else {
            out.push(b',');
        }
        push_string(out, text);
    }
    if !texts.is_empty() {
        out.push(b']');
    }
}
