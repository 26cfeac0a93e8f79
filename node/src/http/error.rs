//! What goes wrong, in the envelope that Prometheus's clients know.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::json::push_string;
use crate::query;
use crate::text::shortened;

/// Seconds after which a client that met a limit may try again.
pub const RETRY_AFTER_S: u64 = 5;

/// Prometheus's kinds of errors, each with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request can't be understood.
    BadData,
    /// The query can't be evaluated.
    Execution,
    /// It took too long.
    Timeout,
    /// The client went away, or the node stops.
    Canceled,
    /// The node can't answer now.
    Unavailable,
    /// The node failed.
    Internal,
    /// There is no such thing.
    NotFound,
    /// The node can't read this kind of body.
    UnsupportedMedia,
    /// The body is too large.
    TooLarge,
    /// A limit was reached.
    TooMany,
    /// It is there already.
    Conflict,
    /// Nobody who may sends this.
    Forbidden,
    /// The path has other methods.
    MethodNotAllowed,
    /// The request's headers are too large.
    HeadersTooLarge,
    /// The request's URL is too long.
    UriTooLong,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::BadData
            | Self::UnsupportedMedia
            | Self::TooLarge
            | Self::Conflict
            | Self::MethodNotAllowed
            | Self::HeadersTooLarge
            | Self::UriTooLong => "bad_data",
            Self::Execution => "execution",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::NotFound => "not_found",
            Self::TooMany => "too_many_requests",
            Self::Forbidden => "forbidden",
        }
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Timeout | Self::Canceled | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }
}

/// An answer that says what went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of error.
    pub kind: Kind,
    /// What, and what to do about it.
    pub message: String,
}

impl ApiError {
    /// An error of a kind; of a message from outside that is long, only the beginning is told.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: shortened(message.into()) }
    }

    /// A parameter that can't be understood.
    pub fn parameter(name: &str, why: impl std::fmt::Display) -> Self {
        Self::new(Kind::BadData, format!("invalid parameter {name:?}: {why}"))
    }
}

impl From<tsdb::Error> for ApiError {
    fn from(error: tsdb::Error) -> Self {
        let kind = match &error {
            tsdb::Error::Invalid(_) => Kind::BadData,
            tsdb::Error::Limit(_) => Kind::TooMany,
            tsdb::Error::Busy(_) | tsdb::Error::NoSpace(_) | tsdb::Error::Stopped(_) => Kind::Unavailable,
            tsdb::Error::Corrupt { .. } | tsdb::Error::Io { .. } => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<promql::Error> for ApiError {
    fn from(error: promql::Error) -> Self {
        match error {
            promql::Error::Invalid(message) => Self::parameter("query", message),
            promql::Error::Execution(message) | promql::Error::Limit(message) => {
                Self::new(Kind::Execution, message)
            }
            promql::Error::Cancelled => Self::new(Kind::Canceled, error.to_string()),
            promql::Error::Storage(error) => error.into(),
        }
    }
}

impl From<query::Error> for ApiError {
    fn from(error: query::Error) -> Self {
        let kind = match error {
            query::Error::Busy
            | query::Error::Incomplete(_)
            | query::Error::Behind { .. }
            | query::Error::Bucket(_)
            | query::Error::Restless => Kind::Unavailable,
            query::Error::Late(_) => Kind::Timeout,
            query::Error::Query(error) => return error.into(),
            query::Error::Storage(error) => return error.into(),
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = b"{\"status\":\"error\",\"errorType\":\"".to_vec();
        body.extend_from_slice(self.kind.word().as_bytes());
        body.extend_from_slice(b"\",\"error\":");
        push_string(&mut body, &self.message);
        body.push(b'}');
        let mut response = (self.kind.status(), [(CONTENT_TYPE, "application/json")], body).into_response();
        if matches!(self.kind, Kind::TooMany | Kind::Unavailable) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}
