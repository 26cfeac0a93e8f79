//! The clients of a scenario, all on one host.

use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use rand::Rng as _;
use rand::rngs::StdRng;

use crate::client::{
    Reader, SERIES_OF_A_WRITER, Shared, Writer, ask_everything, judge_rest, operate, prove_recovery,
    read_along, watch_epochs, write_along,
};
use crate::scenario::Scenario;

/// Time between questions of one reader, about.
const READ_EVERY: Duration = Duration::from_secs(2);

/// Writers, readers, an operator and whoever looks at the nodes; and when they have ended, the last questions.
pub fn all(scenario: &Scenario, shared: &Shared, rng: &mut StdRng) -> impl Future<Output = ()> + use<> {
    let mut clients: Vec<LocalBoxFuture<'static, ()>> = Vec::new();
    for number in 0..scenario.writers {
        let writer = writer(scenario, format!("writer-{}", number + 1), number, rng);
        clients.push(Box::pin(write_along(writer, shared.clone())));
    }
    for number in 0..scenario.readers {
        let name = format!("reader-{}", number + 1);
        let reader = Reader { name, every: READ_EVERY, seed: rng.random() };
        clients.push(Box::pin(read_along(reader, shared.clone())));
    }
    // As many series as reach owners of most ranges.
    let prober =
        Writer { series: 20, churn: 0.0, ..writer(scenario, "prober".to_owned(), scenario.writers, rng) };
    clients.push(Box::pin(prove_recovery(prober, shared.clone())));
    let is_cluster = scenario.machines > 1;
    if is_cluster {
        let (operator, watcher) = (shared.clone(), shared.clone());
        clients.push(Box::pin(async move { operate("operator", &operator).await }));
        clients.push(Box::pin(async move { watch_epochs("watcher", &watcher).await }));
    }
    let shared = shared.clone();
    async move {
        // Each is a task of its own, as it would be on a host of its own.
        join_all(clients.into_iter().map(tokio::task::spawn_local)).await;
        ask_everything("checker", &shared).await;
        judge_rest("checker", &shared).await;
    }
}

/// A writer with series of its own.
fn writer(scenario: &Scenario, name: String, number: usize, rng: &mut StdRng) -> Writer {
    Writer {
        name,
        number,
        tenant: number % scenario.tenants,
        first: number / scenario.tenants * SERIES_OF_A_WRITER,
        series: scenario.series,
        churn: scenario.churn,
        is_mixed: scenario.is_mixed,
        every: scenario.every,
        seed: rng.random(),
    }
}
