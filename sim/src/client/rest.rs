//! What must hold once nobody writes any more: the ring, replicas, catalogs and queues, and what is answered without any
//! one node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use node::bucket::catalog::Catalog;
use node::bucket::keys;

use super::phases::now;
use super::reader::count_without;
use super::ring::{compare_digests, compare_rings};
use super::{Findings, Shared};
use crate::exercise::Exercise;

/// Time between looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long it takes to take away each node in turn, at most: calls that got no answer time out one after the other.
const WITHOUT_EACH_MAX: Duration = Duration::from_secs(120);
/// After how long a node that is cut off is taken for away.
const NOTICED_AFTER: Duration = Duration::from_secs(5);
/// What waits on a node for others or for its disk: nothing may, in the end.
const QUEUES: [&str; 3] =
    ["carillon_hints_bytes", "carillon_wal_pending_bytes", "carillon_query_memory_bytes"];
/// What nodes did, by the counters that tell of it.
const DEEDS: [(&str, Exercise); 4] = [
    ("carillon_hints_replayed_total", Exercise::HintsSent),
    ("carillon_repair_samples_total", Exercise::Repaired),
    ("carillon_bucket_blocks_uploaded_total", Exercise::Shipped),
    ("carillon_query_pushed_down_total", Exercise::PushedDown),
];

/// Judges nodes as soon as they are at rest, or when they have had their time.
pub async fn judge_rest(name: &str, shared: &Shared) {
    loop {
        let mut found = compare_catalogs(shared);
        if shared.nodes.borrow().len() > 1 {
            found.extend(compare_rings(name, shared).await);
        }
        if shared.heals && shared.nodes.borrow().len() > 1 {
            found.extend(compare_digests(name, shared).await);
        }
        let (queues, deeds) = look_at_metrics(name, shared).await;
        found.extend(queues);
        if found.iter().all(|(_, holds, _)| *holds) || now() >= shared.phases.at_rest_by() {
            found.into_iter().for_each(|(check, holds, text)| shared.judge(check, holds, || text));
            deeds.into_iter().for_each(|(exercise, times)| shared.tally.add(exercise, times));
            break;
        }
        tokio::time::sleep(EVERY).await;
    }
    // Where hints and repair have made replicas equal, each answers for the others anyway.
    if !shared.heals {
        without_each(name, shared).await;
    }
}

/// Each block that a catalog lists lies in the bucket with all of its files.
fn compare_catalogs(shared: &Shared) -> Findings {
    let objects = shared.bucket.list();
    let mut found = Findings::new();
    for key in objects.keys().filter(|key| key.prefix_matches(&keys::catalogs())) {
        let bytes = shared.bucket.get(key).unwrap_or_default();
        let catalog = match Catalog::decode(&bytes) {
            Ok(catalog) => catalog,
            Err(error) => {
                found.push((Exercise::Catalogs, false, format!("{key} can't be read: {error}")));
                continue;
            }
        };
        for block in catalog.blocks() {
            let dir = keys::block(block.ulid);
            let files = objects.iter().filter(|(file, _)| file.prefix_matches(&dir));
            let size_bytes: u64 = files.map(|(_, size)| size).sum();
            let has = |name| objects.contains_key(&keys::block_file(block.ulid, name));
            let is_whole = ["meta.json", "index", "chunks/000001"].into_iter().all(has);
            let text = format!(
                "{key} lists {} of {} bytes, and there are {size_bytes}",
                block.ulid, block.size_bytes
            );
            found.push((Exercise::Catalogs, is_whole && size_bytes >= block.size_bytes, text));
        }
    }
    found
}

/// What nodes tell of themselves: what waits, and what they did since they were started.
async fn look_at_metrics(name: &str, shared: &Shared) -> (Findings, Vec<(Exercise, u64)>) {
    let (mut found, mut deeds) = (Findings::new(), Vec::new());
    let nodes = shared.nodes.borrow().clone();
    for node in &nodes {
        let answer = shared.http(name).get(node, "/metrics", &[], TIMEOUT).await;
        let text = match &answer {
            Ok(answer) if answer.status == 200 => String::from_utf8_lossy(&answer.body),
            other => {
                found.push((Exercise::Bounded, false, format!("{node} tells no metrics: {other:?}")));
                continue;
            }
        };
        let values: BTreeMap<&str, f64> =
            text.lines().filter_map(|line| line.split_once(' ')).filter_map(parsed).collect();
        for queue in QUEUES {
            let bytes = values.get(queue).copied();
            let told = format!("{node} has {bytes:?} bytes in {queue}");
            // What is kept for a store that is gone for good waits until it is too old.
            let is_empty =
                bytes == Some(0.0) || (queue.contains("hints") && bytes.is_some() && shared.lost_stores());
            found.push((Exercise::Bounded, is_empty, told));
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts of some thousands"
        )]
        deeds.extend(
            DEEDS.iter().map(|(name, deed)| (*deed, values.get(name).copied().unwrap_or(0.0) as u64)),
        );
    }
    (found, deeds)
}

fn parsed<'a>((name, value): (&'a str, &str)) -> Option<(&'a str, f64)> {
    value.trim().parse().ok().map(|value| (name, value))
}

/// Takes away one node after the other, and asks another one: what it calls complete must hold all that was acked. That
/// asks each owner alone, with as few others as an answer needs.
async fn without_each(name: &str, shared: &Shared) {
    let (nodes, until) = (shared.nodes.borrow().clone(), now() + WITHOUT_EACH_MAX);
    for away in nodes.iter().take_while(|_| now() < until) {
        let others: BTreeSet<&String> = nodes.iter().filter(|node| *node != away).collect();
        let cut = |dropped| {
            for other in &others {
                for (from, to) in [(away, *other), (*other, away)] {
                    shared.links.set(from, to, dropped);
                    if dropped {
                        turmoil::partition_oneway(from.as_str(), to.as_str());
                    } else {
                        turmoil::repair_oneway(from.as_str(), to.as_str());
                    }
                }
            }
        };
        cut(true);
        tokio::time::sleep(NOTICED_AFTER).await;
        if let Some(asked) = others.first() {
            for tenant in 0..shared.tenants {
                count_without(name, asked, away, shared, tenant).await;
            }
        }
        cut(false);
    }
}
