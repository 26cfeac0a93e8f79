//! Whether the process is alive and ready, its metrics, reloading, and a page of links.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};

use super::error::{ApiError, Kind};
use crate::metrics;
use crate::node::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(page))
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(ready))
        .route("/-/reload", post(reload).put(reload))
        .route("/metrics", get(metrics))
}

async fn page() -> Html<&'static str> {
    Html(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Carillon</title></head><body>\
         <h1>Carillon</h1><ul>\
         <li>Prometheus API: <code>/api/v1/query</code>, <code>/api/v1/query_range</code>, …</li>\
         <li>Remote write: <code>/api/v1/write</code></li>\
         <li><a href=\"api/v1/status/tsdb\">Storage</a></li>\
         <li><a href=\"api/v1/status/config\">Configuration</a></li>\
         <li><a href=\"api/v1/status/flags\">Flags</a></li>\
         <li><a href=\"api/v1/status/runtimeinfo\">Runtime</a></li>\
         <li><a href=\"api/v1/status/buildinfo\">Build</a></li>\
         <li><a href=\"metrics\">Metrics</a></li>\
         <li><a href=\"-/healthy\">Healthy?</a> <a href=\"-/ready\">Ready?</a></li>\
         </ul></body></html>\n",
    )
}

pub(crate) async fn healthy() -> &'static str {
    "Carillon is healthy.\n"
}

async fn ready(State(app): State<Arc<App>>) -> (StatusCode, String) {
    match app.is_ready() {
        true => (StatusCode::OK, "Carillon is ready.\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, format!("Carillon is not ready: {}\n", app.doing())),
    }
}

async fn reload(State(app): State<Arc<App>>) -> Response {
    match app.reload() {
        Ok(restart) if restart.is_empty() => "reloaded\n".into_response(),
        Ok(restart) => format!("reloaded; a restart is needed for: {}\n", restart.join(", ")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let text = app.metrics.text().map_err(|_| ApiError::new(Kind::Internal, "metrics can't be written"))?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
