//! `GET /api/v1/cluster/digests`: this node's own digests, for whoever compares replicas from outside.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use ring::{StoreId, View};
use serde_json::{Value, json};
use tsdb::db::WINDOW_MS;
use tsdb::digest::DigestKey;
use tsdb::model::TenantId;

use super::compute;
use super::digests::{self, Summaries, Summary, Terms};
use crate::http::{ApiError, Effect, Kind, Params, Routes, success};
use crate::node::App;

pub(crate) fn routes() -> Routes {
    Routes::default().route("/api/v1/cluster/digests", Effect::Read, get(digests_of_node))
}

/// Of each range of the current placement that this node keeps, with its owners: digest and number of samples of each
/// window, of one tenant (`tenant=`) or of all together. The head counts as well, up to the last sample.
async fn digests_of_node(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let wanted = match params.get("tenant") {
        Some(name) => Some(TenantId::new(name).map_err(|e| ApiError::new(Kind::BadData, e.to_string()))?),
        None => None,
    };
    let (Some(view), Some(links)) = (app.repair.view(), app.repair.links.get()) else {
        return Err(ApiError::new(Kind::Unavailable, "this node hasn't joined a ring"));
    };
    let me = links.peers.me().store();
    let terms = Terms { key: DigestKey::new(view.document().digest_key), keys: app.repair.keys(&view) };
    let mut windows: BTreeMap<i64, Summaries> = BTreeMap::new();
    for tenant in app.storage.db().tenants() {
        if wanted.as_ref().is_some_and(|wanted| wanted != tenant.id()) {
            continue;
        }
        for start_ms in tenant.windows_ms() {
            let (tenant, terms) = (tenant.clone(), terms.clone());
            let times_ms = start_ms..=start_ms.saturating_add(WINDOW_MS - 1);
            let computed =
                compute(&app, move |app| digests::of_window(&app.repair.digests, &tenant, &terms, &times_ms));
            let computed = computed.await.map_err(|e| ApiError::new(Kind::Internal, e.to_string()))?;
            let window = windows.entry(start_ms).or_default();
            computed.iter().for_each(|(piece, summary)| add(window.entry(*piece).or_default(), summary));
        }
    }
    let ranges = ranges(&view, &terms, me, &windows);
    let data = json!({ "store": me.to_string(), "epoch": view.epoch(), "ranges": ranges });
    Ok(success(data.to_string().as_bytes(), &[]))
}

fn add(to: &mut Summary, from: &Summary) {
    to.series += from.series;
    to.samples += from.samples;
    to.digest += from.digest;
}

fn ranges(view: &View, terms: &Terms, me: StoreId, windows: &BTreeMap<i64, Summaries>) -> Vec<Value> {
    let mut ranges = Vec::new();
    for range in view.current().ranges() {
        let owners: Vec<StoreId> = range.owners.iter().map(|owner| view.store(*owner)).collect();
        if !owners.contains(&me) {
            continue;
        }
        let keys = range.keys();
        let pieces: RangeInclusive<u32> = terms.keys.piece(*keys.start())..=terms.keys.piece(*keys.end());
        let mut in_range = Vec::new();
        for (start_ms, summaries) in windows {
            let mut sum = Summary::default();
            summaries.range(pieces.clone()).for_each(|(_, summary)| add(&mut sum, summary));
            if sum.samples > 0 {
                let digest = sum.digest.to_string();
                in_range.push(json!({ "start_ms": start_ms, "digest": digest, "samples": sum.samples }));
            }
        }
        // Keys are 64 bits, more than a number in JSON holds.
        let key = |key: &u64| format!("{key:016x}");
        let owners: Vec<String> = owners.iter().map(StoreId::to_string).collect();
        ranges.push(json!({
            "start": key(keys.start()), "end": key(keys.end()), "owners": owners, "windows": in_range,
        }));
    }
    ranges
}
