//! Whether the process is alive and ready, whether the next node may be taken, its metrics, and reloading.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;

use super::error::{ApiError, Kind};
use super::params::Params;
use super::routes::{Effect, Routes};
use crate::env::on_disk;
use crate::metrics::Format;
use crate::node::App;
use crate::repair;

const JSON: &str = "application/json";

pub(super) fn routes() -> Routes {
    Routes::default()
        .route("/-/healthy", Effect::Read, get(healthy))
        .route("/-/ready", Effect::Read, get(ready))
        .route("/-/safe", Effect::Read, get(safe))
        .route("/-/reload", Effect::Change, post(reload).put(reload))
        .route("/metrics", Effect::Read, get(metrics))
}

pub(crate) async fn healthy() -> &'static str {
    "Carillon is healthy.\n"
}

async fn ready(State(app): State<Arc<App>>) -> (StatusCode, String) {
    // A node is ready for its own part, whatever keeps the ring from changing; whoever looks shall see both.
    let blocked =
        app.cluster.blocked(&app.cluster.view()).map_or(String::new(), |blocked| format!("{blocked}\n"));
    match app.is_ready() {
        true => (StatusCode::OK, format!("Carillon is ready.\n{blocked}")),
        false => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("Carillon is not ready: {}\n{blocked}", app.doing()))
        }
    }
}

/// Whether the next node may be taken, in text or, where that is accepted, as JSON; with `scope=node`, whether this node
/// stands in nobody's way.
async fn safe(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    params: Params,
) -> Result<(StatusCode, Response), ApiError> {
    let safety = match params.get("scope") {
        None | Some("cluster") => repair::of_cluster(&app).await,
        Some("node") => repair::of_node(&app),
        Some(other) => {
            return Err(ApiError::parameter("scope", format!("{other:?} is neither cluster nor node")));
        }
    };
    let status = if safety.is_safe() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let wants_json =
        headers.get_all(ACCEPT).iter().any(|value| value.as_bytes().starts_with(JSON.as_bytes()));
    if wants_json {
        let body = json!({"safe": safety.is_safe(), "reasons": safety.reasons}).to_string();
        return Ok((status, ([(CONTENT_TYPE, JSON)], body).into_response()));
    }
    let text = match safety.is_safe() {
        true => "It is safe to take the next node.\n".to_owned(),
        false => format!("It is not safe to take the next node:\n  {}\n", safety.reasons.join("\n  ")),
    };
    Ok((status, text.into_response()))
}

async fn reload(State(app): State<Arc<App>>) -> Response {
    match app.reload() {
        Ok(restart) if restart.is_empty() => "reloaded\n".into_response(),
        Ok(restart) => format!("reloaded; a restart is needed for: {}\n", restart.join(", ")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let disk = app.env.disk.clone();
    let free = on_disk(&*app.env.pool, move || disk.free_bytes()).await;
    app.metrics.disk_free(free.ok());
    let text = app.metrics.text().map_err(|_| ApiError::new(Kind::Internal, "metrics can't be written"))?;
    let accepted: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accepted.join(","));
    Ok(([(CONTENT_TYPE, format.content_type())], format.write(text)).into_response())
}
