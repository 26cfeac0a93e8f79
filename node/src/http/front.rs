//! What a request goes through before its route is chosen: its path is made tidy, and what no route can read is refused.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::uri::{PathAndQuery, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::{ApiError, Kind};
use super::params::LongQuery;
use crate::server::{QUERY_HEADER, REFUSED_HEADER};

/// Has `//` and slashes at the end of a path lead where the path without them leads: a URL in a client's settings often
/// ends in one. Prometheus redirects, which turns a POST into a GET.
pub(super) async fn tidied(mut request: Request, next: Next) -> Response {
    if let Some(refusal) = request.headers().get(REFUSED_HEADER) {
        return refused(refusal).into_response();
    }
    if let Some(query) = request.headers_mut().remove(QUERY_HEADER) {
        request.extensions_mut().insert(LongQuery(query));
    }
    let path = request.uri().path();
    if !is_text(path) {
        let message = format!("the path {path:?} isn't UTF-8 where it is percent-encoded");
        return ApiError::new(Kind::BadData, message).into_response();
    }
    if let Some(tidy) = tidy(request.uri()) {
        *request.uri_mut() = tidy;
    }
    next.run(request).await
}

/// The error that the reader of heads gave as a reason.
fn refused(refusal: &HeaderValue) -> ApiError {
    let text = refusal.to_str().unwrap_or_default();
    let (status, why) = text.split_once(' ').unwrap_or_default();
    let kind = match status {
        "414" => Kind::UriTooLong,
        "431" => Kind::HeadersTooLarge,
        "503" => Kind::Unavailable,
        _ => Kind::BadData,
    };
    ApiError::new(kind, why)
}

/// Whether what stands for bytes in a path makes text.
fn is_text(path: &str) -> bool {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digit = |at: usize| rest.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else { return false };
        bytes.push((high * 16 + low) as u8);
        rest = &rest[2..];
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// The URI with a tidy path; `None` where it has one.
fn tidy(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("//") && (path == "/" || !path.ends_with('/')) {
        return None;
    }
    let mut tidy = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        tidy.push('/');
        tidy.push_str(part);
    }
    if tidy.is_empty() {
        tidy.push('/');
    }
    if let Some(query) = uri.query() {
        tidy.push('?');
        tidy.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    // Less of what was a path and a query is one, too.
    parts.path_and_query = Some(PathAndQuery::try_from(tidy).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_too_many_are_left_out() {
        for (uri, wanted) in [
            ("/", None),
            ("/api/v1/query?query=a//b/", None),
            ("//api///v1/query/?query=a//b", Some("/api/v1/query?query=a//b")),
            ("/prometheus/", Some("/prometheus")),
            ("//", Some("/")),
            ("http://host:1/a//b", Some("http://host:1/a/b")),
        ] {
            let found = tidy(&uri.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), wanted, "{uri}");
        }
    }

    #[test]
    fn a_path_is_text_behind_its_percent_encoding() {
        assert!(
            is_text("/a/%c3%bc/%2F")
                && !is_text("/%ff")
                && !is_text("/%c3")
                && !is_text("/%zz")
                && !is_text("/%1")
        );
    }
}
