//! `/api/v1/cluster/*`: the cluster as this node sees it, and what operators do with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use ring::StoreId;
use serde_json::{Map, Value, json};

use super::error::{ApiError, Kind};
use super::params::{Params, Tenant};
use super::routes::{Effect, Routes};
use crate::cluster::{ChangeError, RestoreError};
use crate::env::on_disk;
use crate::node::App;
use crate::repair;

/// Most series whose owners are told at once.
const SERIES_MAX: usize = 10_000;

pub(super) fn routes() -> Routes {
    Routes::default()
        .route("/api/v1/cluster/members", Effect::Read, get(members))
        .route("/api/v1/cluster/ring", Effect::Read, get(ring))
        .route("/api/v1/cluster/node", Effect::Read, get(own))
        .route("/api/v1/cluster/safe", Effect::Read, get(safe))
        .route("/api/v1/cluster/owners", Effect::Read, get(owners).post(owners))
        .route("/api/v1/cluster/drain", Effect::Change, get(draining).post(drain))
        .route("/api/v1/cluster/forget", Effect::Change, post(forget))
        .route("/api/v1/cluster/accept_loss", Effect::Change, post(accept_loss))
        .route("/api/v1/cluster/lost", Effect::Change, post(lost))
        .route("/api/v1/cluster/revert", Effect::Change, post(revert))
        .route("/api/v1/cluster/restore", Effect::Change, post(restore))
        .route("/api/v1/cluster/replication_factor", Effect::Change, post(replication_factor))
}

fn success(data: &Value) -> Response {
    super::success(data.to_string().as_bytes(), &[])
}

async fn members(State(app): State<Arc<App>>) -> Response {
    success(&app.cluster.describe_members())
}

async fn ring(State(app): State<Arc<App>>) -> Response {
    success(&app.cluster.describe_ring())
}

/// Whether the next node may be taken, and what speaks against it.
async fn safe(State(app): State<Arc<App>>) -> Response {
    success(&safety(&app).await)
}

/// The same as JSON.
pub(super) async fn safety(app: &Arc<App>) -> Value {
    let safety = repair::of_cluster(app).await;
    json!({"safe": safety.is_safe(), "reasons": safety.reasons})
}

/// This node alone: what it does now, what it keeps for others and lacks itself.
async fn own(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    Ok(success(&tell_of_own(&app).await?))
}

/// What this node tells of itself.
pub(super) async fn tell_of_own(app: &App) -> Result<Value, ApiError> {
    let disk = app.env.disk.clone();
    let free_bytes = on_disk(&*app.env.pool, move || disk.free_bytes());
    let free_bytes = free_bytes.await.map_err(|e| ApiError::new(Kind::Internal, e.to_string()))?;
    let (repair, hints, health) =
        (app.repair.progress(), app.replicator.hints().pending(), app.cluster.bucket().health());
    let shipping = app.blocks.shipper.progress();
    let names: Vec<String> = hints.stores.iter().map(|store| app.cluster.name(*store)).collect();
    let time = |ms: i64| crate::time::format_rfc3339(ms);
    let wal = app.storage.db().stats().wal;
    let mut problems = app.cluster.own_problems();
    if wal.stopped {
        problems
            .push("the store has stopped after a failed sync: nothing is written until a restart".to_owned());
    } else if wal.full {
        problems.push("the disk is full: writes are answered 503 until there is room".to_owned());
    }
    Ok(json!({
        "problems": problems,
        "store": app.cluster.me().to_string(),
        "name": app.cluster.name(app.cluster.me()),
        "ready": app.is_ready(),
        "doing": app.doing(),
        "repair": {
            "rounds": repair.rounds,
            "last_round": repair.round_ended_ms.map(time),
            "windows_lacking": repair.lacking,
            "peers_unasked": repair.unasked,
            "samples": repair.samples,
            "bytes": repair.bytes,
            "refused_series": repair.refused,
            "failures": repair.failures,
            "last_failure": repair.failure,
        },
        "hints": {"bytes": hints.bytes, "for": names},
        "bucket": {
            "last_success": health.last_success_ms.map(time),
            "last_failure": health.last_failure.as_ref().map(|(ms, _)| time(*ms)),
            "last_problem": health.last_failure.map(|(_, why)| why),
            "failures": health.failures,
            "blocks_waiting": shipping.waiting,
            "blocks_shipped": shipping.blocks,
            "blocks_refused": shipping.refused.iter().map(|(ulid, why)| (ulid.to_string(), Value::from(why.as_str()))).collect::<Map<_, _>>(),
        },
        "disk": {"free_bytes": free_bytes},
    }))
}

async fn owners(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let text = required(&params, "series")?;
    let series: Vec<Map<String, Value>> =
        serde_json::from_str(text).map_err(|e| ApiError::parameter("series", e))?;
    if series.len() > SERIES_MAX {
        return Err(ApiError::parameter("series", format!("at most {SERIES_MAX} at once")));
    }
    Ok(success(&app.cluster.describe_owners(tenant.as_str(), &series)))
}

async fn draining(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let (progress, done) =
        app.cluster.leaving_of(store(&params)?).await.map_err(|status| unavailable(&status))?;
    Ok(success(&json!({"progress": progress, "done": done})))
}

/// Each change can be tried with `dry_run=true`: the answer is that of the change, and nothing is changed.
fn is_dry(params: &Params) -> Result<bool, ApiError> {
    Ok(params.switch("dry_run")?.unwrap_or(false))
}

async fn drain(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let (store, stop) = (store(&params)?, params.switch("stop")?.unwrap_or(false));
    if is_dry(&params)? {
        app.cluster.check_drain(store).await.map_err(|status| unavailable(&status))?;
        return Ok(success(&json!({"dry_run": true})));
    }
    let (progress, done) = app.cluster.drain(store, stop).await.map_err(|status| unavailable(&status))?;
    Ok(success(&json!({"progress": progress, "done": done})))
}

async fn forget(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let (store, dry_run) = (store(&params)?, is_dry(&params)?);
    let blocked = app.cluster.forget(store, dry_run).await.map_err(|error| refused(&error))?;
    Ok(changed(dry_run, json!({"state": "lost"}), blocked))
}

async fn accept_loss(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let (store, dry_run) = (store(&params)?, is_dry(&params)?);
    let blocked = app.cluster.accept_loss(store, dry_run).await.map_err(|error| refused(&error))?;
    Ok(changed(dry_run, json!({"state": "lost, accepted"}), blocked))
}

/// `store` names one or more, with commas between.
async fn lost(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let dry_run = is_dry(&params)?;
    let stores = stores("store", required(&params, "store")?)?;
    let blocked = app.cluster.write_off(&stores, dry_run).await.map_err(|error| refused(&error))?;
    Ok(changed(dry_run, json!({"state": "lost, accepted"}), blocked))
}

async fn revert(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let dry_run = is_dry(&params)?;
    let blocked = app.cluster.revert(dry_run).await.map_err(|error| refused(&error))?;
    Ok(changed(dry_run, json!({"state": "taken back"}), blocked))
}

/// `gone` names stores that never answer again, with commas between.
async fn restore(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let dry_run = is_dry(&params)?;
    let gone = params.get("gone").map_or_else(|| Ok(BTreeSet::new()), |named| stores("gone", named))?;
    let restored = app.cluster.restore_document(&gone, dry_run).await.map_err(|error| {
        let kind = match error {
            RestoreError::OtherHistory { .. } | RestoreError::Newer { .. } | RestoreError::Alive(_) => {
                Kind::Conflict
            }
            _ => Kind::Unavailable,
        };
        ApiError::new(kind, error.to_string())
    })?;
    Ok(success(&json!({
        "dry_run": dry_run, "epoch": restored.epoch, "instead_of": restored.instead_of, "asked": restored.asked,
        "silent": restored.silent,
    })))
}

async fn replication_factor(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let text = required(&params, "value")?;
    let copies = text.parse().map_err(|_| ApiError::parameter("value", "not a number"))?;
    let (lower, dry_run) = (params.switch("lower")?.unwrap_or(false), is_dry(&params)?);
    let asked = app.cluster.set_replication_factor(copies, lower, dry_run).await;
    let blocked = asked.map_err(|error| refused(&error))?;
    Ok(changed(dry_run, json!({"replication_factor": copies}), blocked))
}

/// The answer to a change of the ring: what was done, and under `blocked` what keeps it from ending, if anything does.
fn changed(dry_run: bool, mut done: Value, blocked: Option<String>) -> Response {
    if dry_run {
        done = json!({"dry_run": true});
    }
    done["blocked"] = blocked.into();
    success(&done)
}

fn store(params: &Params) -> Result<StoreId, ApiError> {
    required(params, "store")?.parse().map_err(|e| ApiError::parameter("store", e))
}

fn stores(parameter: &str, named: &str) -> Result<BTreeSet<StoreId>, ApiError> {
    let parsed = |id: &str| id.trim().parse().map_err(|e| ApiError::parameter(parameter, e));
    named.split(',').map(parsed).collect()
}

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, ApiError> {
    params.get(name).ok_or_else(|| ApiError::parameter(name, "it is missing"))
}

fn refused(error: &ChangeError) -> ApiError {
    let kind = match error {
        ChangeError::Refused(_) | ChangeError::Alive(_) => Kind::Conflict,
        _ => Kind::Unavailable,
    };
    ApiError::new(kind, error.to_string())
}

fn unavailable(status: &tonic::Status) -> ApiError {
    let kind = match status.code() {
        tonic::Code::FailedPrecondition => Kind::Conflict,
        _ => Kind::Unavailable,
    };
    ApiError::new(kind, status.message())
}
