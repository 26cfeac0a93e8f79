//! What the node is and how it stands: `status/*`, and the lists that stay empty until somebody evaluates rules or
//! scrapes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use serde_json::{Map, Value, json};
use tsdb::db::{Cardinality, TenantStats};
use tsdb::model::METRIC_NAME;

use super::{covered, success};
use crate::config;
use crate::http::error::ApiError;
use crate::http::params::{Params, Tenant};
use crate::http::routes::{Effect, Routes};
use crate::node::App;
use crate::query::coverage::Coverage;
use crate::query::names::{Found, Question, ask};
use crate::time::format_rfc3339;

/// Entries of each list of `status/tsdb`, if no limit is given.
const TOP_DEFAULT: usize = 10;
/// Most entries of each list.
const TOP_MAX: usize = 10_000;

pub(super) fn routes() -> Routes {
    Routes::default()
        .route("/api/v1/status/buildinfo", Effect::Read, get(buildinfo))
        .route("/api/v1/status/flags", Effect::Read, get(flags))
        .route("/api/v1/status/config", Effect::Read, get(configuration))
        .route("/api/v1/status/runtimeinfo", Effect::Read, get(runtimeinfo))
        .route("/api/v1/status/tsdb", Effect::Read, get(tsdb))
        .route("/api/v1/status/walreplay", Effect::Read, get(walreplay))
        .route("/api/v1/rules", Effect::Read, fixed(|| json!({"groups": []})))
        .route("/api/v1/alerts", Effect::Read, fixed(|| json!({"alerts": []})))
        .route(
            "/api/v1/targets",
            Effect::Read,
            fixed(|| json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}})),
        )
        .route("/api/v1/targets/metadata", Effect::Read, fixed(|| json!([])))
        .route("/api/v1/scrape_pools", Effect::Read, fixed(|| json!({"scrapePools": []})))
        .route("/api/v1/notifications", Effect::Read, fixed(|| json!([])))
        .route(
            "/api/v1/alertmanagers",
            Effect::Read,
            fixed(|| json!({"activeAlertmanagers": [], "droppedAlertmanagers": []})),
        )
}

fn fixed(data: fn() -> Value) -> MethodRouter<Arc<App>> {
    get(move || async move { answer(&data()) })
}

fn answer(data: &Value) -> Response {
    success(data.to_string().as_bytes(), &[])
}

/// Grafana tells Mimir from Prometheus by a key `features`, so there is none.
async fn buildinfo() -> Response {
    answer(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": option_env!("CARILLON_REVISION").unwrap_or(""),
    }))
}

async fn flags(State(app): State<Arc<App>>) -> Response {
    let config = app.config.load();
    let flags: Map<String, Value> =
        config::values(&config).into_iter().map(|(flag, value)| (flag, Value::from(value))).collect();
    answer(&Value::Object(flags))
}

async fn configuration(State(app): State<Arc<App>>) -> Response {
    answer(&json!({"yaml": config::to_yaml(&app.config.load(), |_, _| true)}))
}

#[allow(clippy::cast_possible_truncation, reason = "seconds since 1970 fit")]
async fn runtimeinfo(State(app): State<Arc<App>>) -> Response {
    let usage = app.env.process.usage();
    let config = app.config.load();
    let cores = app.env.pool.parallelism();
    answer(&json!({
        "startTime": format_rfc3339((usage.start_s * 1000.0) as i64),
        "serverTime": format_rfc3339(app.env.clock.now_ms()),
        "reloadConfigSuccess": app.reload_succeeded(),
        "lastConfigTime": format_rfc3339(app.config_time_ms()),
        "GOMAXPROCS": cores,
        "storageRetention": config.retention.to_string(),
    }))
}

async fn walreplay(State(app): State<Arc<App>>) -> Response {
    answer(&app.starting.walreplay())
}

async fn tsdb(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = match params.limit("limit")? {
        0 => TOP_DEFAULT,
        limit if limit > TOP_MAX => {
            return Err(ApiError::parameter("limit", format!("it is at most {TOP_MAX}")));
        }
        limit => limit,
    };
    let timeout = app.config.load().query_timeout.to_std();
    let own = app.clone();
    let of = tenant.clone();
    let has_others = app.queries.has_others();
    let asked = crate::query::with_permit(&app, &tenant, timeout, move |_| {
        let tenant = own.storage.existing(&of);
        let top = |tenant: &tsdb::db::Tenant| if has_others { None } else { Some(tenant.cardinality(limit)) };
        Ok(tenant.map_or_else(Default::default, |t| (t.stats(), top(&t).unwrap_or_default())))
    });
    let (mut stats, mut top): (TenantStats, Cardinality) = asked.await?;
    let mut coverage = Coverage::alone();
    let mut warnings = Vec::new();
    if has_others {
        let answer = ask(&app, tenant, Question::Counts, timeout, params.partial()?).await?;
        let Found::Counts(counts) = answer.found else { unreachable!("counts were asked for") };
        stats.label_pairs = counts.len() as u64;
        stats.series =
            counts.iter().filter(|((name, _), _)| name == METRIC_NAME).map(|(_, series)| series).sum();
        let pairs = counts.iter().map(|((name, value), series)| (&**name, &**value, *series));
        top = Cardinality::of(pairs, limit);
        (coverage, warnings) = (answer.coverage, answer.warnings);
    }
    let list = |entries: &[(String, u64)]| -> Vec<Value> {
        entries.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    };
    let data = json!({
        "headStats": {
            "numSeries": stats.series,
            "numLabelPairs": stats.label_pairs,
            "minTime": stats.head_min_ms.unwrap_or(0),
            "maxTime": stats.newest_ms.unwrap_or(0),
        },
        "seriesCountByMetricName": list(&top.series_by_metric),
        "labelValueCountByLabelName": list(&top.values_by_label),
        "memoryInBytesByLabelName": list(&top.bytes_by_label),
        "seriesCountByLabelValuePair": list(&top.series_by_pair),
    });
    Ok(covered(success(data.to_string().as_bytes(), &warnings), &coverage))
}
