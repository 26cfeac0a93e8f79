//! HTTP, as Prometheus's API has it; every path also stands under `/prometheus`.

mod api;
mod cluster;
pub mod error;
mod front;
mod guard;
pub mod json;
mod page;
mod params;
mod process;
mod routes;
mod upload;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

pub(crate) use api::success;
pub(crate) use error::{ApiError, Kind};
pub(crate) use guard::CHANGE_HEADER;
pub(crate) use params::Params;
pub(crate) use process::healthy;
pub(crate) use routes::{Effect, Routes};
pub(crate) use upload::Uploads;

use crate::node::App;

/// Mimir's prefix, under which its clients look for everything.
pub(crate) const PREFIX: &str = "/prometheus";
/// Answers below this aren't worth compressing.
const COMPRESSED_FROM_BYTES: u64 = 1024;

/// All routes, without what stands around them.
fn routes() -> Routes {
    let compression = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(COMPRESSED_FROM_BYTES));
    let answers = process::routes().merge(page::routes()).merge(api::routes()).merge(cluster::routes());
    // The answers of writes and uploads are short.
    answers.map(|router| router.layer(compression)).merge(write::routes()).merge(upload::routes())
}

/// What a node serves over HTTP: each path as it stands in [`routes`], and under [`PREFIX`].
pub(crate) fn router(app: Arc<App>) -> Router {
    let (routes, effects) = routes().into_parts();
    let guard = Arc::new(guard::Guard::new(app.clone(), effects));
    let routed = Router::new()
        .nest(PREFIX, routes.clone())
        .merge(routes)
        .fallback(unknown)
        .method_not_allowed_fallback(other_methods)
        .layer(from_fn_with_state(guard, guard::guarded))
        .layer(from_fn_with_state(app.clone(), measured))
        .with_state(app);
    // A layer of the router itself would come after the route is chosen.
    Router::new().fallback_service(routed).layer(from_fn(front::tidied))
}

/// A path without Mimir's prefix.
fn without_prefix(path: &str) -> &str {
    match path.strip_prefix(PREFIX) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

async fn unknown(request: Request) -> ApiError {
    ApiError::new(Kind::NotFound, format!("there is no {}", request.uri().path()))
}

async fn other_methods(request: Request) -> ApiError {
    let message = format!("{} isn't answered here; the header Allow lists what is", request.method());
    ApiError::new(Kind::MethodNotAllowed, message)
}

/// Counts each request under its route; what has none counts as one.
async fn measured(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = tokio::time::Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    // Labels and queries come back in answers: no browser shall take them for a page.
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let path = route.as_ref().map_or("unknown", |route| without_prefix(route.as_str()));
    app.metrics.requested(path, response.status().as_u16(), began.elapsed());
    response
}

#[cfg(test)]
pub(crate) mod tests;
