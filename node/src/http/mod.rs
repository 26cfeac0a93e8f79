//! HTTP, as Prometheus's API has it; every path also stands under `/prometheus`.

mod process;
mod server;
pub mod time;

use std::sync::Arc;

use axum::Router;

pub(crate) use server::{ServerSettings, serve};

use crate::node::App;

/// Mimir's prefix, under which its clients look for everything.
const PREFIX: &str = "/prometheus";

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let routes = process::routes();
    Router::new().nest(PREFIX, routes.clone()).merge(routes).with_state(app)
}
