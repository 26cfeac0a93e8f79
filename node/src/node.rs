//! A node's life: start, run, reload, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Problems};
use crate::env::{Env, on_disk};
use crate::http;
use crate::identity::Identity;
use crate::log::LogControl;

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The HTTP address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// As configured.
        address: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The data folder can't be opened.
    #[error(transparent)]
    Storage(#[from] tsdb::Error),
}

/// Reads the configuration again.
pub type Reload = Box<dyn Fn() -> Result<Config, Problems> + Send + Sync>;

/// What only a process has, and a test lacks.
#[derive(Default)]
pub struct Hooks {
    /// Reads the configuration again.
    pub reload: Option<Reload>,
    /// Changes the log level.
    pub log: Option<LogControl>,
}

/// A running node. Dropping it without [`Node::stop`] is a crash: nothing is sealed.
pub struct Node {
    app: Arc<App>,
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

/// What all handlers share.
pub(crate) struct App {
    pub(crate) config: ArcSwap<Config>,
    ready: AtomicBool,
    hooks: Hooks,
}

/// Why a reload failed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration has mistakes; the old one stays.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// The node was started without a configuration to read again.
    #[error("this node has no configuration that could be read again")]
    NoSource,
}

impl Node {
    /// Starts a node without hooks.
    ///
    /// # Errors
    /// When the data folder can't be opened or the address can't be listened on.
    pub async fn start(config: Config, env: Env) -> Result<Self, StartError> {
        Self::start_with(config, env, Hooks::default()).await
    }

    /// Starts a node: opens its storage, then listens.
    ///
    /// # Errors
    /// When the data folder can't be opened or the address can't be listened on.
    pub async fn start_with(config: Config, env: Env, hooks: Hooks) -> Result<Self, StartError> {
        let settings = http::ServerSettings {
            max_connections: usize::try_from(config.http_max_connections).unwrap_or(usize::MAX >> 3),
            header_timeout: config.http_header_timeout.to_std(),
            stop_timeout: config.http_stop_timeout.to_std(),
        };
        let wanted = config.http_address.to_string();
        let listen = |source| StartError::Listen { address: wanted.clone(), source };
        let listener = env.net.listen(&wanted).await.map_err(listen)?;
        let address = listener.local_address().map_err(listen)?;

        let pool = env.pool.clone();
        let (ledger, fresh_id) = (env.ledger.clone(), env.seed);
        let identity = on_disk(&*pool, move || Identity::begin(&*ledger, fresh_id)).await?;
        let store = format!("{:032x}", identity.store_id);
        let app =
            Arc::new(App { config: ArcSwap::from_pointee(config), ready: AtomicBool::new(true), hooks });
        let stop = CancellationToken::new();
        let server = tokio::spawn(http::serve(listener, http::router(app.clone()), settings, stop.clone()));
        tracing::info!(%address, store, incarnation = identity.incarnation, "listening");
        Ok(Self { app, address, stop, server })
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> SocketAddr {
        self.address
    }

    /// Reads the configuration again and takes what can change; returns the keys that need a restart.
    ///
    /// # Errors
    /// When the configuration has mistakes; the old one stays.
    pub fn reload(&self) -> Result<Vec<&'static str>, ReloadError> {
        self.app.reload()
    }

    /// Stops accepting, finishes the requests in work in bounded time, and seals the storage.
    ///
    /// # Errors
    /// When what was stored can't be sealed; what was acked is safe in the WAL all the same.
    pub async fn stop(self) -> tsdb::Result<()> {
        self.app.ready.store(false, Ordering::Relaxed);
        self.stop.cancel();
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the server failed while stopping");
        }
        Ok(())
    }
}

impl App {
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn reload(&self) -> Result<Vec<&'static str>, ReloadError> {
        let new = self.hooks.reload.as_ref().ok_or(ReloadError::NoSource)?()?;
        let old = self.config.load_full();
        let restart = old.needs_restart(&new);
        if let Some(log) = &self.hooks.log {
            log.set_level(new.log_level);
        }
        self.config.store(Arc::new(old.reloaded(&new)));
        tracing::info!(restart = ?restart, "configuration reloaded");
        Ok(restart)
    }
}
