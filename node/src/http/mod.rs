//! HTTP, as Prometheus's API has it; every path also stands under `/prometheus`.

mod api;
mod cluster;
pub mod error;
pub mod json;
mod params;
mod process;
mod server;
pub mod time;
mod upload;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

pub(crate) use api::success;
pub(crate) use error::{ApiError, Kind};
pub(crate) use params::Params;
pub(crate) use process::healthy;
pub(crate) use server::{Http2, ServerSettings, serve};
pub(crate) use upload::Uploads;

use crate::node::App;

/// Mimir's prefix, under which its clients look for everything.
pub(crate) const PREFIX: &str = "/prometheus";
/// Largest form: a query may hold a regular expression that is refused only once it is read.
const FORM_BYTES_MAX: usize = 4 << 20;
/// Answers below this aren't worth compressing.
const COMPRESSED_FROM_BYTES: u64 = 1024;

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let compression = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(COMPRESSED_FROM_BYTES));
    let answers = Router::new()
        .merge(process::routes())
        .merge(api::routes())
        .merge(cluster::routes())
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(compression);
    // Bodies of writes and uploads have limits of their own, and their answers are short.
    let routes = answers.merge(write::routes()).merge(upload::routes());
    Router::new()
        .nest(PREFIX, routes.clone())
        .merge(routes)
        .fallback(unknown)
        .layer(from_fn_with_state(app.clone(), measured))
        .with_state(app)
}

async fn unknown(request: Request) -> ApiError {
    ApiError::new(Kind::NotFound, format!("there is no {}", request.uri().path()))
}

/// Counts each request under its route; what has none counts as one.
async fn measured(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = tokio::time::Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    // Labels and queries come back in answers: no browser shall take them for a page.
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let path = route.as_ref().map_or("unknown", MatchedPath::as_str);
    let path = path.strip_prefix(PREFIX).filter(|p| !p.is_empty()).unwrap_or(path);
    app.metrics.requested(path, response.status().as_u16(), began.elapsed());
    response
}

#[cfg(test)]
pub(crate) mod tests;
