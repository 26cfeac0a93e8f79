//! Clusters of real processes: what an operator sees when nodes die, come, go and are cut off.

mod formation;
mod grow;
mod imported;
mod loss;
mod lost;
mod moved;
mod partition;
mod prometheus;
mod promqltest;
mod push_down;
mod restored;
mod safe;

use tests::cluster::Cluster;
use tests::load::{Book, Load};

/// A writer for each of these nodes, which goes on with the others where its own is gone.
fn load(name: &'static str, cluster: &Cluster, targets: &[usize]) -> Load {
    let writers = (0..targets.len()).map(|first| {
        let order = targets[first..].iter().chain(&targets[..first]);
        order.map(|node| cluster.http(*node)).collect()
    });
    Load::start(name, writers.collect())
}

/// Nothing refused, nothing short; every node has every acked sample once, and nothing else.
async fn all_is_well(cluster: &Cluster, book: &Book) {
    assert!(book.refusals.is_empty(), "{} refusals, first: {}", book.refusals.len(), book.refusals[0]);
    assert!(
        book.findings.is_empty(),
        "{} of {} answers, first: {}",
        book.findings.len(),
        book.questions,
        book.findings[0]
    );
    complete(cluster, book).await;
}

/// Every node has every acked sample once, and nothing else.
async fn complete(cluster: &Cluster, book: &Book) {
    assert!(book.ledger.acked() > 0, "nothing was acked");
    for node in cluster.running() {
        let findings = book.check(&cluster.http(node)).await;
        let acked = book.ledger.acked();
        assert!(
            findings.is_empty(),
            "{}, {acked} acked: {} lost, {} invented, {} doubled, such as {:?}",
            cluster.name(node),
            findings.lost.len(),
            findings.invented.len(),
            findings.doubled.len(),
            findings.lost.first().or(findings.invented.first()).or(findings.doubled.first()),
        );
    }
}
