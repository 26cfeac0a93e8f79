//! The configuration: what there is to set, and how it is read.
//!
//! Every option stands once, in this file: its YAML key, type, default, help, and whether it can change while the
//! node runs. Flag (`--wal-sync`), variable (`CARILLON_WAL_SYNC`), reference page and JSON Schema follow from that.
//! [`load()`] reads flag over environment over file, and names every mistake at once.

mod declare;
mod describe;
mod load;
mod origin;
mod values;
mod yaml;

use std::collections::BTreeMap;

pub use declare::Declared;
use declare::options;
pub use describe::{arguments, reference, schema, to_yaml, values};
pub use load::{Problem, Problems, Sources, Variables, load};
pub use origin::CorsOrigin;
pub use values::{
    Address, Addresses, Bound, ChunkEncoding, Duration, FilePath, Kind, LabelNames, LogFormat, LogLevel,
    OptionalAddress, ReplicationFactor, Setting, Size, WalSync, parse_duration_ms,
};

/// The hosts that both ports bind by default: this machine alone, or every interface once there are others.
const HOST_ALONE: &str = "127.0.0.1";
const HOST_AMONG_OTHERS: &str = "0.0.0.0";

options! {
    /// All options of a node. Options of tenants have their defaults in `limits` and exceptions in `tenants`.
    Config {
        /// Folder that holds everything this node stores. One node a folder.
        "data_dir" data_dir: FilePath = FilePath("./carillon-data".into()), restart;

        /// What people call this node; empty means its advertised address. A node that starts with an empty disk
        /// under the name and address of a lost one takes its place in the ring.
        "name" name: String = String::new(), restart;
        /// Which of the places that fail alone (a zone, a rack, a machine) this node stands in. Replicas of a series
        /// stand in different zones where there are enough.
        "zone" zone: String = "default".to_owned(), restart;
        /// Peer address of a node of the cluster to join; give it several times for several nodes. The first node of a
        /// cluster may name itself, or one that starts later. Without seeds a node is a cluster of its own. Names are
        /// resolved again on each attempt.
        "seed" seeds: Addresses = Addresses::default(), restart;
        /// What all nodes of the cluster share: a folder, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or
        /// `az://CONTAINER/PREFIX`. Empty means the folder `bucket` in the data folder, for a node on its own.
        "bucket" bucket: String = String::new(), restart;
        /// Stores that keep each sample, where there are as many. It counts when a cluster is founded; later
        /// `carillon ring replication-factor` changes it.
        "replication_factor" replication_factor: ReplicationFactor = ReplicationFactor(3), restart;
        /// The address at which the other nodes reach this one's peer port. Empty means that it is guessed, and logged.
        "advertise_address" advertise_address: OptionalAddress = OptionalAddress(None), restart;

        /// Where other nodes reach this one, and nobody else should: gRPC, gossip included. Port 0 takes a free one.
        /// With seeds, unless it is set, every interface is bound.
        "peer.address" peer_address: Address = Address(format!("{HOST_ALONE}:9481")), restart;
        /// A node that all others miss for this long without a break is forgotten, if enough owners have all that it
        /// had: its place in the ring goes to the others.
        "cluster.forget_after" forget_after: Bound<Duration> = Bound::Max(Duration::from_h(4)), reload;
        /// Time between messages of gossip. A dead node is noticed after about ten of them.
        "cluster.gossip_interval" gossip_interval: Duration = Duration { ms: 500 }, restart;
        /// How often the ring document in the bucket is looked at; news travel faster between the nodes themselves.
        "cluster.bucket_interval" bucket_interval: Duration = Duration::from_s(10), restart;
        /// How long a change of the ring may wait for the nodes that must agree before it is taken back.
        "cluster.transition_timeout" transition_timeout: Duration = Duration::from_min(2), reload;

        /// How long a write waits for enough replicas before it is answered 503.
        "write.timeout" write_timeout: Duration = Duration::from_s(10), restart;
        /// Disk and memory for samples that other nodes missed, until they are back; 0 keeps none, and leaves it to
        /// repair.
        "hints.max_bytes" hints_max_bytes: Size = Size::mib(1024), restart;
        /// How long such samples are kept. A node that was away for longer is repaired from the others.
        "hints.max_age" hints_max_age: Duration = Duration::from_h(4), restart;

        /// Time between rounds in which this node compares what it has with the other owners of the same series, and pulls
        /// what it lacks.
        "repair.interval" repair_interval: Duration = Duration::from_s(10), reload;

        /// Where HTTP is served. Port 0 takes a free one. With seeds, unless it is set, every interface is bound.
        "http.address" http_address: Address = Address(format!("{HOST_ALONE}:9480")), restart;
        /// Connections served at once; further ones wait to be accepted.
        "http.max_connections" http_max_connections: u64 = 4096, restart;
        /// How long a client may take to send a request's headers; an idle connection is closed after as long.
        "http.header_timeout" http_header_timeout: Duration = Duration::from_s(60), restart;
        /// Largest body of a write request, as sent; larger ones are answered 413.
        "http.max_body" http_max_body: Size = Size::mib(32), reload;
        /// Largest body of a write request after decompression; a request that declares more is answered 413
        /// before anything is allocated.
        "http.max_decompressed_body" http_max_decompressed_body: Size = Size::mib(64), reload;
        /// Memory of write requests in work at once: bodies as sent, decompressed, and decoded. Beyond it requests
        /// are answered 503, and senders try again; one whose decoded parts alone need more than half is answered 413.
        "http.max_in_flight" http_max_in_flight: Size = Size::mib(256), restart;
        /// Largest body of a question: a form, or an object of parameters; larger ones are answered 413.
        "http.max_query_body" http_max_query_body: Size = Size::mib(10), reload;
        /// Pages of which origins may read what the API answers, as a regular expression for whole origins: as in
        /// Prometheus, all of them; empty means none. What changes state, other origins can never ask for.
        "http.cors_origin" http_cors_origin: CorsOrigin = CorsOrigin::default(), reload;
        /// How long a stopping node waits for requests in work.
        "http.stop_timeout" http_stop_timeout: Duration = Duration::from_s(10), reload;

        /// `group`: a write is answered after its `fdatasync`, shared by all that wait. `interval`: it is answered
        /// at once, and an end out of order, of process or machine, loses what came since the last sync; in a cluster
        /// such a store doesn't count for complete answers until its placements close or an operator accepts the loss.
        "wal.sync" wal_sync: WalSync = WalSync::Group, restart;
        /// Time between syncs under `interval`.
        "wal.sync_interval" wal_sync_interval: Duration = Duration::from_s(1), restart;

        /// How long blocks are kept on this node, counted from the newest sample in them.
        "storage.retention" retention: Bound<Duration> = Bound::Unlimited, reload;
        /// Room in the data folder for blocks that were fetched from the bucket to answer questions; those that weren't
        /// asked for longest make way. A block that is larger can't be read.
        "storage.bucket_cache" bucket_cache: Size = Size::mib(10 << 10), restart;
        /// `xor`: start times of samples are dropped, and every Prometheus and Thanos reads the blocks. `xor2`: they are
        /// kept, and series that have any are written in an encoding that Prometheus reads from 3.14 on. The same on
        /// all nodes, or replicas differ for ever.
        "storage.chunk_encoding" chunk_encoding: ChunkEncoding = ChunkEncoding::Xor, restart;
        /// Time between rounds of cutting blocks, checkpoints and retention.
        "storage.maintenance_interval" maintenance_interval: Duration = Duration::from_s(1), reload;

        /// Threads that evaluate queries; 0 = as many as there are cores.
        "query.threads" query_threads: u64 = 0, restart;
        /// Queries in work at once; further ones wait. One tenant's are at most three times as many as are left for others.
        "query.max_concurrency" query_max_concurrency: u64 = 32, restart;
        /// Queries that may wait, shared between tenants in the same way; further ones are answered 503.
        "query.max_waiting" query_max_waiting: u64 = 256, restart;
        /// Longest time a query may take, waiting included; `timeout=` can only shorten it.
        "query.timeout" query_timeout: Duration = Duration::from_s(120), reload;
        /// How far back an instant selector looks for a sample.
        "query.lookback_delta" query_lookback: Duration = Duration::from_s(300), reload;
        /// Memory that one query may take for samples and results.
        "query.max_memory" query_max_memory: Size = Size::mib(1024), reload;
        /// Memory that all queries in work may take together; one that needs more ends with an error. A quarter of it is
        /// only for queries that hold at most 2 MiB: large ones can't keep small ones from being answered.
        "query.max_total_memory" query_max_total_memory: Size = Size::mib(2048), reload;
        /// Whether experimental PromQL functions are allowed.
        "query.experimental_functions" query_experimental: bool = true, reload;
        /// Whether a metric's name that an operation takes away goes at the very end, as in a Prometheus with
        /// `promql-delayed-name-removal`: until then it can still be matched and grouped by. The same on all nodes.
        "query.delayed_name_removal" query_delayed_name_removal: bool = false, reload;

        /// The least important lines that are logged.
        "log.level" log_level: LogLevel = LogLevel::Info, reload;
        /// `logfmt`: pairs of `key=value`; `json`: an object a line.
        "log.format" log_format: LogFormat = LogFormat::Logfmt, restart;
    }
    /// What a tenant may do, where `tenants` names no exception.
    + limits: Limits;
    /// Exceptions by tenant.
    + tenants: BTreeMap<String, Limits>;
}

options! {
    /// What one tenant may do: `limits.KEY` for all, `tenants.NAME.KEY` for one.
    Limits {
        /// Oldest sample taken, if in order for its series, counted back from this node's clock.
        "max_backfill" max_backfill: Bound<Duration> = Bound::Max(Duration::from_h(24)), reload;
        /// Oldest sample taken out of order, counted back from this node's clock.
        "out_of_order_window" out_of_order_window: Bound<Duration> = Bound::Max(Duration::from_h(2)), reload;
        /// How far ahead of this node's clock a sample may be.
        "max_future" max_future: Bound<Duration> = Bound::Max(Duration::from_min(10)), reload;
        /// Series that have samples in the head at once; a write that would add more is answered 429.
        "max_series" max_series: Bound<u64> = Bound::Unlimited, reload;
        /// Labels of a series.
        "max_labels" max_labels: u64 = 64, reload;
        /// Bytes of a label's name.
        "max_label_name_length" max_label_name_length: u64 = 1024, reload;
        /// Bytes of a label's value.
        "max_label_value_length" max_label_value_length: u64 = 8192, reload;
        /// Memory that all queries in work may take together; one that needs more ends with an error. A quarter of it is
        /// only for queries that hold at most 2 MiB.
        "max_query_memory" max_query_memory: Size = Size::mib(2048), reload;
        /// Labels by which the servers of an HA pair differ, as `replica`: series that differ in nothing else are
        /// merged into one when they are asked for. `replicaLabels[]` names others, and `dedup=false` none.
        "replica_labels" replica_labels: LabelNames = LabelNames::default(), reload;
    }
}

impl Config {
    /// What `tenant` may do.
    pub fn limits_of(&self, tenant: &str) -> &Limits {
        self.tenants.get(tenant).unwrap_or(&self.limits)
    }

    /// Lets the ports that nobody set be reached by others, once there are others. `is_set` tells whether somebody set
    /// the option at a key.
    fn open_ports(&mut self, is_set: impl Fn(&str) -> bool) {
        if self.seeds.0.is_empty() {
            return;
        }
        for (key, address) in
            [("http.address", &mut self.http_address), ("peer.address", &mut self.peer_address)]
        {
            if !is_set(key) {
                *address = Address(address.0.replacen(HOST_ALONE, HOST_AMONG_OTHERS, 1));
            }
        }
    }

    /// The bucket's place: what is configured, or the folder in the data folder.
    pub fn bucket_url(&self) -> String {
        match self.bucket.is_empty() {
            true => self.data_dir.0.join("bucket").to_string_lossy().into_owned(),
            false => self.bucket.clone(),
        }
    }

    /// The keys of options that differ and can't change while the node runs.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let differs = |o: &&Declared| !o.reload && self.show(o.key) != new.show(o.key);
        Self::DECLARED.iter().filter(differs).map(|o| o.key).collect()
    }

    /// These options with everything of `new` that can change while the node runs.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let mut result = new.clone();
        for option in Self::DECLARED.iter().filter(|o| !o.reload) {
            let old = self.show(option.key).expect("the option is declared");
            result.set(option.key, &old).expect("the option is declared").expect("what is shown reads back");
        }
        result
    }
}
