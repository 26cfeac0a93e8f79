//! Group commit: many requests wait for one `fdatasync`.
//!
//! A request appends, which costs no I/O, and waits until the WAL is durable up to its position. One task commits,
//! on the pool, for as long as somebody waits; whoever comes meanwhile is in the next round. When the disk is full
//! the committer tries again until there is room; after a failed sync, of the log or of anything else that the store rests
//! on, the store has stopped, and stays so: the node ends (`fail_stop`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tsdb::db::Db;
use tsdb::wal::WalPosition;
use tsdb::{Error, Result};

use crate::env::{Pool, Work, run_on};
use crate::fail_stop::FailStop;

/// Time between attempts while the disk is full.
const RETRY: Duration = Duration::from_secs(1);

/// Where requests wait.
pub struct Committer {
    wanted: Notify,
    state: watch::Sender<State>,
    /// Whether requests wait for the sync, or only for the next interval's.
    group: bool,
    fail_stop: Arc<FailStop>,
}

#[derive(Clone, Debug)]
struct State {
    durable: WalPosition,
    failure: Option<Failure>,
}

/// Why nothing can be acked.
#[derive(Clone, Debug)]
enum Failure {
    NoSpace(String),
    Stopped(String),
}

impl Failure {
    fn of(error: &Error) -> Self {
        match error {
            Error::NoSpace(why) => Self::NoSpace(why.clone()),
            other => Self::Stopped(other.to_string()),
        }
    }

    fn to_error(&self) -> Error {
        match self {
            Self::NoSpace(why) => Error::NoSpace(why.clone()),
            Self::Stopped(why) => Error::Stopped(why.clone()),
        }
    }
}

impl Committer {
    /// With `group`, requests wait for the sync that makes them safe. `fail_stop` hears when the store has stopped.
    pub(crate) fn new(group: bool, fail_stop: Arc<FailStop>) -> Self {
        let (state, _) = watch::channel(State { durable: WalPosition::default(), failure: None });
        Self { wanted: Notify::new(), state, group, fail_stop }
    }

    /// Waits until the WAL is durable up to `position`.
    ///
    /// # Errors
    /// When the disk is full or the store has stopped: the request must not be acked.
    pub async fn wait(&self, position: WalPosition) -> Result<()> {
        let done = |state: &State| match &state.failure {
            Some(failure) => Some(Err(failure.to_error())),
            None if planted::is(planted::Bug::AckBeforeSync) => Some(Ok(())),
            None if !self.group || state.durable >= position => Some(Ok(())),
            None => None,
        };
        if let Some(result) = done(&self.state.borrow()) {
            return result;
        }
        let mut state = self.state.subscribe();
        self.wanted.notify_one();
        let state = state.wait_for(|s| done(s).is_some()).await.expect("the committer's sender lives in it");
        done(&state).expect("it was waited for")
    }

    /// Commits until `stop`; `interval` is the time between syncs that nobody waits for.
    pub async fn run(&self, db: Arc<Db>, pool: Arc<dyn Pool>, interval: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(interval) => {}
            }
            while !self.commit(&db, &*pool).await {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }

    /// One round; false when there is no room and it has to be tried again.
    async fn commit(&self, db: &Arc<Db>, pool: &dyn Pool) -> bool {
        let own = db.clone();
        let committed = run_on(pool, Work::Commit, move || own.commit()).await;
        if let Some(reason) = db.stop_reason() {
            self.fail_stop.stop(&reason);
        }
        match committed {
            Ok(durable) => {
                let had_failed = self.state.borrow().failure.is_some();
                self.state.send_modify(|state| *state = State { durable, failure: None });
                if had_failed {
                    tracing::info!("writes are taken again");
                }
                true
            }
            Err(error) => {
                let failure = Failure::of(&error);
                let again = matches!(failure, Failure::NoSpace(_));
                if self.state.borrow().failure.is_none() {
                    tracing::error!(%error, "writes are refused");
                }
                self.state.send_modify(|state| state.failure = Some(failure));
                !again
            }
        }
    }
}
