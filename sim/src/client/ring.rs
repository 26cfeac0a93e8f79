//! What nodes say of the ring: epochs only grow (I7), and once the network is whole all say the same (I6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::{Answer, Findings, Shared};
use crate::exercise::Exercise;

/// How long a look may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time between looks at one node after the other.
const EVERY: Duration = Duration::from_secs(1);

/// Looks at one node after the other until the end of the scenario: what a store once said of its epoch it never takes
/// back.
pub async fn watch_epochs(name: &str, shared: &Shared) {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    while shared.goes_on() {
        let nodes = shared.nodes.borrow().clone();
        for node in &nodes {
            tokio::time::sleep(EVERY).await;
            let Ok(ring) = ring_of(name, node, shared).await else { continue };
            // A machine with a new disk is a new store, and begins anew.
            let store = format!("{node} {}", ring["store"].as_str().unwrap_or_default());
            let epoch = ring["epoch"].as_u64().unwrap_or(0);
            let highest = seen.entry(store).or_default();
            let fell = || format!("{node} was at epoch {highest} and is at {epoch} now");
            shared.judge(Exercise::EpochsShown, epoch >= *highest, fell);
            *highest = epoch.max(*highest);
        }
    }
}

/// What is each node's own of what it shows of the ring: who it is, how it got on with the bucket, what it noticed.
const OWN: [&str; 3] = ["store", "bucket", "problems"];

/// Whether a node is part of a ring that isn't changing.
pub async fn is_at_rest(name: &str, node: &str, shared: &Shared) -> bool {
    ring_of(name, node, shared).await.is_ok_and(|ring| ring["joint"] == false)
}

/// All nodes show the same ring.
pub async fn compare_rings(name: &str, shared: &Shared) -> Findings {
    let (mut first, mut found): (Option<(&String, Value)>, _) = (None, Findings::new());
    let nodes = shared.nodes.borrow().clone();
    for node in &nodes {
        match ring_of(name, node, shared).await {
            Err(error) => {
                let text = format!("{node} doesn't tell its ring: {error}");
                found.push((Exercise::ReadsSucceed, false, text));
            }
            Ok(mut ring) => {
                if let Some(fields) = ring.as_object_mut() {
                    fields.retain(|name, _| !OWN.contains(&name.as_str()));
                }
                match &first {
                    None => first = Some((node, ring)),
                    Some((other, expected)) => {
                        let text = format!("{other} shows {expected}, {node} {ring}");
                        found.push((Exercise::Rings, *expected == ring, text));
                    }
                }
            }
        }
    }
    found
}

/// All owners of a range have the same samples: what one of them missed was handed to it or pulled.
pub async fn compare_digests(name: &str, shared: &Shared) -> Findings {
    let mut found = Findings::new();
    // What each window should be, and who was the first to say so.
    let mut known: BTreeMap<(String, String), (String, String)> = BTreeMap::new();
    let mut stores: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    let mut owned: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let nodes = shared.nodes.borrow().clone();
    for node in &nodes {
        let data = match look(name, node, "/api/v1/cluster/digests", shared).await {
            Ok(data) => data,
            Err(error) => {
                let text = format!("{node} doesn't tell its digests: {error}");
                found.push((Exercise::ReadsSucceed, false, text));
                continue;
            }
        };
        let store = data["store"].as_str().unwrap_or_default().to_owned();
        for range in data["ranges"].as_array().into_iter().flatten() {
            let key = format!("{}-{}", range["start"], range["end"]);
            let owners = range["owners"].as_array().into_iter().flatten();
            owned.insert(key.clone(), owners.filter_map(|o| o.as_str().map(str::to_owned)).collect());
            for window in range["windows"].as_array().into_iter().flatten() {
                let place = (key.clone(), window["start_ms"].to_string());
                let content = format!("{} of {} samples", window["digest"], window["samples"]);
                stores.entry(store.clone()).or_default().insert(place.clone());
                let (first, expected) =
                    known.entry(place.clone()).or_insert_with(|| (node.clone(), content.clone()));
                if first != node {
                    let text = format!("{first} has {expected}, {node} {content} in {place:?}");
                    found.push((Exercise::Digests, *expected == content, text));
                }
            }
        }
    }
    shared.trace.note(name, &format!("compared the digests of {} windows", known.len()));
    let is_told = !known.is_empty() || shared.ledger.borrow().totals().1 == 0;
    found.push((Exercise::Digests, is_told, "samples were acked, and no store has a digest".to_owned()));
    for (place, (first, content)) in &known {
        for owner in owned.get(&place.0).into_iter().flatten() {
            if let Some(windows) = stores.get(owner) {
                let text = format!("{first} has {content}, store {owner} nothing in {place:?}");
                found.push((Exercise::Digests, windows.contains(place), text));
            }
        }
    }
    found
}

async fn ring_of(name: &str, node: &str, shared: &Shared) -> Result<Value, String> {
    look(name, node, "/api/v1/cluster/ring", shared).await
}

async fn look(name: &str, node: &str, path: &str, shared: &Shared) -> Result<Value, String> {
    let answer = shared.http(name).get(node, path, &[], TIMEOUT).await?;
    if answer.status != 200 {
        let Answer { status, .. } = answer;
        return Err(format!("{status} {}", answer.text()));
    }
    let value: Value = serde_json::from_slice(&answer.body).map_err(|e| format!("not JSON: {e}"))?;
    Ok(value["data"].clone())
}
