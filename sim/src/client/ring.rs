//! What nodes say of the ring: epochs only grow (I7), and once the network is whole all say the same (I6).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{Answer, Shared};

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
            if epoch < *highest {
                shared.violated("I7", &format!("{node} was at epoch {highest} and is at {epoch} now"));
            }
            *highest = epoch.max(*highest);
        }
    }
}

/// All nodes show the same ring.
pub async fn compare_rings(name: &str, shared: &Shared) {
    let mut first: Option<(&String, Value)> = None;
    let nodes = shared.nodes.borrow().clone();
    for node in &nodes {
        match ring_of(name, node, shared).await {
            Err(error) => shared.violated("I15", &format!("{node} doesn't tell its ring: {error}")),
            Ok(mut ring) => {
                // The only thing that is each node's own.
                ring.as_object_mut().map(|ring| ring.remove("store"));
                match &first {
                    None => first = Some((node, ring)),
                    Some((other, expected)) if *expected != ring => {
                        shared.violated("I6", &format!("{other} shows {expected}, {node} {ring}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

async fn ring_of(name: &str, node: &str, shared: &Shared) -> Result<Value, String> {
    let answer = shared.http(name).get(node, "/api/v1/cluster/ring", TIMEOUT).await?;
    if answer.status != 200 {
        let Answer { status, .. } = answer;
        return Err(format!("{status} {}", answer.text()));
    }
    let value: Value = serde_json::from_slice(&answer.body).map_err(|e| format!("not JSON: {e}"))?;
    Ok(value["data"].clone())
}
