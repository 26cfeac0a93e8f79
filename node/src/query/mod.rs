//! How questions are answered, whatever asks them.
//!
//! | module | what it holds |
//! |---|---|
//! | `turns` | how many work at once, and for how long |
//! | `memory` | what they may take, each and together |
//! | [`answer`] | a PromQL query: plan, fetch, merge replicas, evaluate |
//! | [`names`] | what there is: labels, values, series, metadata, exemplars |
//! | [`dedup`] | one series out of those of an HA pair |

pub mod answer;
pub mod dedup;
mod error;
mod memory;
pub mod names;
mod turns;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use error::Error;
use memory::Memory;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use turns::Turns;

use crate::config::Config;
use crate::env::on_cores;
use crate::metrics::Asked;
use crate::node::App;

/// What all questions share.
pub struct Queries {
    turns: Turns,
    memory: Arc<Memory>,
}

impl Queries {
    /// As configured.
    pub fn new(config: &Config) -> Self {
        let as_usize = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            turns: Turns::new(as_usize(config.query_max_concurrency), as_usize(config.query_max_waiting)),
            memory: Arc::default(),
        }
    }

    /// What `/metrics` shows of them.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(Shown { memory: self.memory.clone() })
    }
}

#[derive(Debug)]
struct Shown {
    memory: Arc<Memory>,
}

impl Collector for Shown {
    #[allow(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let used = self.memory.used_bytes() as f64;
        Asked(encoder).gauge("carillon_query_memory_bytes", "Memory that queries in work hold", used)
    }
}

/// Runs `work` on the pool when it is its turn; `work` looks at the switch it gets, and ends when it is set.
///
/// # Errors
/// Those of `work`; a timeout; too many that wait.
pub(crate) async fn in_turn<T: Send + 'static>(
    app: &App,
    timeout: Duration,
    work: impl FnOnce(Arc<AtomicBool>) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    turns::within(timeout, async |cancelled: Arc<AtomicBool>| {
        let turn = app.queries.turns.take().await?;
        on_cores(&*app.env.pool, false, move || {
            // Held by the work itself: it may outlive whoever waits for it, and still needs its core.
            let _turn = turn;
            turns::check(&cancelled)?;
            work(cancelled)
        })
        .await
    })
    .await
}
