//! Whether the process is alive and ready, and reloading its configuration.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::node::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(ready))
        .route("/-/reload", post(reload).put(reload))
}

async fn healthy() -> &'static str {
    "Carillon is healthy.\n"
}

async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match app.is_ready() {
        true => (StatusCode::OK, "Carillon is ready.\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "Carillon is not ready.\n"),
    }
}

async fn reload(State(app): State<Arc<App>>) -> Response {
    match app.reload() {
        Ok(restart) if restart.is_empty() => "reloaded\n".into_response(),
        Ok(restart) => format!("reloaded; a restart is needed for: {}\n", restart.join(", ")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
