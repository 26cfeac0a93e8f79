//! A node's life: start, run, reload, stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::bucket::{self, Blocks};
use crate::cluster::{Addresses, ArriveError, Cluster, Membership};
use crate::config::{Address, Config, Problems, WalSync};
use crate::env::{Env, Listener, Work, on_disk, run_on};
use crate::fail_stop;
use crate::identity::Identity;
use crate::log::LogControl;
use crate::metrics::Metrics;
use crate::query::{Queries, Reach, Reads};
use crate::receive::batch::SeriesHasher;
use crate::receive::budget::Budget;
use crate::receive::committer::Committer;
use crate::receive::intake::Intake;
use crate::receive::replicate::{Receiver, Replicator};
use crate::repair::{self, Repair};
use crate::server::{Http2, ServerSettings};
use crate::starting::{Meanwhile, Starting};
use crate::storage::Storage;
use crate::{grpc, http, server};

/// Shortest pause between maintenances, whatever is configured.
const MAINTENANCE_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Time between tries to hand over what a store has that was given up.
const HAND_OVER_EVERY: Duration = Duration::from_secs(5);

/// An address on no network (RFC 5737): the way to it is the way to everywhere.
const ANYWHERE: &str = "192.0.2.1:9";

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
    /// What this node keeps of its bucket can't be opened.
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    /// The cluster can't be entered.
    #[error(transparent)]
    Cluster(#[from] ArriveError),
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
    /// What it speaks with other nodes: another than this program's only in tests of mixed versions.
    pub protocol: grpc::Protocol,
}

/// A running node. Dropping it without [`Node::stop`] is a crash: nothing is sealed.
pub struct Node {
    app: Arc<App>,
    address: SocketAddr,
    peer_address: SocketAddr,
    /// HTTP and the peer port.
    servers: [JoinHandle<()>; 2],
    /// Commits and maintenance; they end after the server has.
    background: Vec<JoinHandle<()>>,
    stop_background: CancellationToken,
}

/// What all handlers share.
pub(crate) struct App {
    pub(crate) config: Arc<ArcSwap<Config>>,
    pub(crate) env: Env,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) in_flight: Arc<Budget>,
    pub(crate) queries: Queries,
    pub(crate) uploads: http::Uploads,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) replicator: Arc<Replicator>,
    pub(crate) repair: Repair,
    pub(crate) starting: Arc<Starting>,
    /// From then on no request is begun, and what others keep open here ends.
    pub(crate) stopping: CancellationToken,
    reload_succeeded: AtomicBool,
    config_time_ms: AtomicI64,
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

    /// Starts a node: takes its addresses, where it says meanwhile what it does, finds its cluster, opens its storage, then
    /// answers.
    ///
    /// # Errors
    /// When the data folder can't be opened, an address can't be listened on, or no cluster takes this node.
    pub async fn start_with(config: Config, env: Env, hooks: Hooks) -> Result<Self, StartError> {
        // First, so that a wrong address is told before a long recovery.
        let (listener, address) = listen(&env, &config.http_address).await?;
        let (peer_listener, peer_address) = listen(&env, &config.peer_address).await?;
        let at = advertised(&config, &env, address, peer_address).await;

        let starting = Arc::<Starting>::default();
        let http = Meanwhile::http(listener, address, starting.clone());
        let peers = Meanwhile::peers(peer_listener, peer_address, starting.clone());
        let app = Arc::new(App::open(config, env, hooks, &at, starting).await?);
        let (listener, peer_listener) = (http.hand_over(), peers.hand_over());
        app.queries.reach(Reach::new(app.cluster.clone(), app.cluster.peers().clone()));
        let stop_background = CancellationToken::new();
        let background = app.start_background(&stop_background);
        let config = app.config.load();
        let stop_timeout = config.http_stop_timeout.to_std();
        let settings = ServerSettings {
            max_connections: as_usize(config.http_max_connections),
            header_timeout: config.http_header_timeout.to_std(),
            stop_timeout,
            http2: Http2::Beside1,
        };
        drop(config);
        let stop = &app.stopping;
        let me = app.cluster.peers().me().clone();
        let servers = [
            tokio::spawn(server::serve(listener, http::router(app.clone()), settings, stop.clone())),
            tokio::spawn(grpc::serve(peer_listener, services(&app), me, stop_timeout, stop.clone())),
        ];
        tracing::info!(http = %address, peers = %peer_address, "listening");
        Ok(Self { app, address, peer_address, servers, background, stop_background })
    }

    #[cfg(test)]
    pub(crate) fn app_for_tests(&self) -> &Arc<App> {
        &self.app
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> SocketAddr {
        self.address
    }

    /// Where peers are served.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer_address
    }

    /// This node's part in its cluster.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.app.cluster
    }

    /// Reads the configuration again and takes what can change; returns the keys that need a restart.
    ///
    /// # Errors
    /// When the configuration has mistakes; the old one stays.
    pub fn reload(&self) -> Result<Vec<&'static str>, ReloadError> {
        self.app.reload()
    }

    /// Returns once the store has stopped after a failed sync, with why: [`Node::abandon`] the node then, and start
    /// another on its disk.
    pub async fn failed(&self) -> String {
        self.app.storage.fail_stop().stopped().await.to_owned()
    }

    /// Ends a node that has failed: tells the others that it isn't ready, and then waits for nothing, since no request
    /// and nothing in work can succeed any more. Nothing is sealed.
    pub async fn abandon(self) {
        tokio::time::sleep(fail_stop::GRACE).await;
        self.app.stopping.cancel();
        self.stop_background.cancel();
        self.servers.into_iter().chain(self.background).for_each(|task| task.abort());
    }

    /// Stops accepting, finishes the requests in work in bounded time, and seals the storage.
    ///
    /// # Errors
    /// When what was stored can't be sealed; what was acked is safe in the WAL all the same.
    pub async fn stop(self) -> tsdb::Result<()> {
        self.app.stopping.cancel();
        for server in self.servers {
            if let Err(error) = server.await {
                tracing::error!(%error, "a server failed while stopping");
            }
        }
        // Requests in work needed commits until now.
        self.stop_background.cancel();
        for task in self.background {
            if let Err(error) = task.await {
                tracing::error!(%error, "a background task failed while stopping");
            }
        }
        self.app.storage.seal(&self.app.env).await?;
        if self.app.cluster.is_to_be_emptied() {
            let (ledger, disk) = (self.app.env.ledger.clone(), self.app.env.disk.clone());
            on_disk(&*self.app.env.pool, move || Identity::finish_leaving(&*ledger, &*disk)).await?;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

impl App {
    pub(crate) async fn open(
        config: Config,
        env: Env,
        hooks: Hooks,
        at: &Addresses,
        starting: Arc<Starting>,
    ) -> Result<Self, StartError> {
        let disk = env.disk.clone();
        on_disk(&*env.pool, move || http::Uploads::clean(&*disk)).await?;
        let (cluster, storage, blocks) = open_store(&config, &env, at, hooks.protocol, &starting).await?;
        let (metrics, storage) = (Arc::new(Metrics::new(env.process.clone())), Arc::new(storage));
        metrics.collect(storage.collector());
        let queries = Queries::new(&config, &env);
        metrics.collect(queries.collector());
        metrics.collect(cluster.peers().collector());
        metrics.collect(cluster.collector());
        metrics.collect(blocks.collector());
        let replicator =
            Replicator::open(&config, &env, Arc::new(cluster.clone()), cluster.peers().clone()).await?;
        cluster.stops_with(storage.fail_stop().clone());
        cluster.keep_hints(replicator.hints().clone());
        metrics.collect(replicator.collector());
        metrics.collect(replicator.hints().collector());
        let committer = Committer::new(config.wal_sync == WalSync::Group, storage.fail_stop().clone());
        let (committer, in_flight) = (Arc::new(committer), Budget::new(config.http_max_in_flight.as_usize()));
        let config = Arc::new(ArcSwap::from_pointee(config));
        let intake = Arc::new(Intake {
            config: config.clone(),
            clock: env.clock.clone(),
            storage: storage.clone(),
            committer: committer.clone(),
            replicator: replicator.clone(),
            hasher: SeriesHasher::new(env.seed),
            budget: in_flight.clone(),
            metrics: metrics.clone(),
        });
        Ok(Self {
            cluster,
            blocks,
            intake,
            committer,
            storage,
            in_flight,
            queries,
            uploads: http::Uploads::default(),
            metrics,
            replicator,
            repair: Repair::default(),
            starting,
            stopping: CancellationToken::new(),
            reload_succeeded: AtomicBool::new(true),
            config_time_ms: AtomicI64::new(env.clock.now_ms()),
            config,
            env,
            hooks,
        })
    }

    pub(crate) fn start_background(self: &Arc<Self>, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
        let (app, stopped) = (self.clone(), stop.clone());
        let commits = async move {
            let (db, pool) = (app.storage.db().clone(), app.env.pool.clone());
            let interval = app.config.load().wal_sync_interval.to_std();
            app.committer.run(db, pool, interval, stopped).await;
        };
        let (app, stopped) = (self.clone(), stop.clone());
        let maintenance = async move {
            let interval = || app.config.load().maintenance_interval.to_std().max(MAINTENANCE_INTERVAL_MIN);
            let (clock, pool) = (app.env.clock.clone(), app.env.pool.clone());
            app.storage.maintain(interval, clock, pool, stopped).await;
        };
        let (app, stopped) = (self.clone(), stop.clone());
        let unready = async move {
            let failed = stopped.run_until_cancelled(app.storage.fail_stop().stopped());
            if failed.await.is_some() {
                app.cluster.tell_others();
            }
        };
        let membership = self.cluster.clone().run(stop.clone());
        let every = self.config.load().bucket_interval.to_std();
        // Only what a drain or a closing placement needs is shipped: while nothing compacts, more would lie there once
        // for each replica.
        let mut tasks = self.blocks.start(self.storage.db().clone(), false, every, stop);
        tasks.extend([
            tokio::spawn(commits),
            tokio::spawn(maintenance),
            tokio::spawn(unready),
            tokio::spawn(membership),
        ]);
        tasks.extend(self.replicator.start(stop));
        self.repair.join(self.cluster.peers().clone(), self.cluster.subscribe());
        self.metrics.collect(repair::collector(self));
        tasks.push(tokio::spawn(repair::run(self.clone(), stop.clone())));
        tasks
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.stopping.is_cancelled() && self.cluster.is_ready()
    }

    /// What this node is busy with, beside serving, in words.
    pub(crate) fn doing(&self) -> String {
        if self.stopping.is_cancelled() {
            return "stopping".to_owned();
        }
        if let Some(doing) = self.cluster.doing() {
            return doing;
        }
        let lacking = self.repair.progress().lacking;
        if lacking > 0 {
            return format!("repairing: {lacking} windows differ from others'");
        }
        match self.replicator.hints().pending().stores.len() {
            0 => "serving".to_owned(),
            others => format!("keeping hints for {others} nodes"),
        }
    }

    /// Whether the last reload took a configuration.
    pub(crate) fn reload_succeeded(&self) -> bool {
        self.reload_succeeded.load(Ordering::Relaxed)
    }

    /// When the configuration was taken, in milliseconds.
    pub(crate) fn config_time_ms(&self) -> i64 {
        self.config_time_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn reload(&self) -> Result<Vec<&'static str>, ReloadError> {
        let new = self.hooks.reload.as_ref().ok_or(ReloadError::NoSource)?();
        self.reload_succeeded.store(new.is_ok(), Ordering::Relaxed);
        let (new, old) = (new?, self.config.load_full());
        let restart = old.needs_restart(&new);
        if let Some(log) = &self.hooks.log {
            log.set_level(new.log_level);
        }
        let taken = old.reloaded(&new);
        self.storage.configure(&taken);
        self.cluster.configure(&taken);
        self.config.store(Arc::new(taken));
        self.config_time_ms.store(self.env.clock.now_ms(), Ordering::Relaxed);
        tracing::info!(restart = ?restart, "configuration reloaded");
        Ok(restart)
    }
}

/// Finds the cluster and opens what this store has. One that was given up meanwhile first hands over what it has, and
/// then begins anew with an empty folder.
async fn open_store(
    config: &Config,
    env: &Env,
    at: &Addresses,
    protocol: grpc::Protocol,
    starting: &Starting,
) -> Result<(Arc<Cluster>, Storage, Arc<Blocks>), StartError> {
    loop {
        starting.does("finding its cluster");
        let cluster = Cluster::arrive(config, env, at, protocol).await?;
        starting.does("reading the log");
        let storage = Storage::open(config, env, &starting.replay).await?;
        starting.does("opening what it has");
        let blocks = Blocks::open(cluster.bucket().clone(), config, env, cluster.me()).await;
        let blocks = Arc::new(blocks.map_err(ArriveError::from)?);
        cluster.keep(storage.db(), &blocks, env, storage.is_loss()).await?;
        if !cluster.is_forgotten() {
            storage.begin(config.wal_sync, env).await?;
            return Ok((cluster, storage, blocks));
        }
        tracing::warn!(store = %cluster.me(), "this store is no member any more: it hands over what it has, and begins anew");
        starting.does("handing over what it has, since it is no member any more");
        while let Err(error) = cluster.empty().await {
            tracing::warn!(error, "what this store has isn't in the bucket yet");
            tokio::time::sleep(HAND_OVER_EVERY).await;
        }
        let (db, ledger) = (storage.db().clone(), env.ledger.clone());
        run_on(&*env.pool, Work::Maintenance, move || db.seal().and_then(|()| Identity::leave(&*ledger)))
            .await?;
    }
}

/// What peers can ask of this node.
fn services(app: &Arc<App>) -> Routes {
    Routes::default()
        .add_service(Membership::server(app.cluster.clone()))
        .add_service(Receiver::server(
            app.intake.clone(),
            Arc::new(app.cluster.clone()),
            app.stopping.clone(),
        ))
        .add_service(Reads::server(app.clone()))
        .add_service(repair::Serve::service(app.clone()))
}

async fn listen(env: &Env, address: &Address) -> Result<(Box<dyn Listener>, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address: address.to_string(), source };
    let listener = env.net.listen(&address.0).await.map_err(failed)?;
    let local = listener.local_address().map_err(failed)?;
    Ok((listener, local))
}

/// Where others reach this node: as configured, or guessed from what is bound and from the way to the first seed.
async fn advertised(config: &Config, env: &Env, http: SocketAddr, peer: SocketAddr) -> Addresses {
    let with = |host: &str, port: u16| match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    if let Some(address) = &config.advertise_address.0 {
        let host = address.0.rsplit_once(':').map_or(address.0.as_str(), |(host, _)| host);
        return Addresses { peer: address.0.clone(), http: with(host, http.port()) };
    }
    if !peer.ip().is_unspecified() {
        let host = if http.ip().is_unspecified() { peer.ip() } else { http.ip() };
        return Addresses { peer: peer.to_string(), http: SocketAddr::new(host, http.port()).to_string() };
    }
    let seeds = config.seeds.0.iter().map(|seed| seed.0.as_str());
    let mut host = Ipv4Addr::LOCALHOST.into();
    for toward in seeds.chain([ANYWHERE]) {
        match env.net.own_address(toward).await {
            Ok(own) if !own.is_loopback() => {
                host = own;
                break;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(toward, %error, "no way to there"),
        }
    }
    let guessed = SocketAddr::new(host, peer.port());
    tracing::info!(%guessed, "others are told to reach this node there; --advertise-address sets another");
    Addresses { peer: guessed.to_string(), http: SocketAddr::new(host, http.port()).to_string() }
}

fn as_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
