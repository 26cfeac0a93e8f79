//! One seed: its scenario is built, run to its end, and judged.
//!
//! Each step is one millisecond. Before it, operations whose time has come are applied, processes that ended by
//! themselves are started again, and the process's clocks are set; then turmoil delivers packets and gives each host
//! its turn. The run is over when all clients have ended.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tsdb::disk::Fault;
use tsdb::model::TenantId;
use turmoil::Sim;

use crate::client::{
    Counts, Ledger, Orders, Reader, SERIES_OF_A_WRITER, Shared, Writer, ask_everything, compare_digests,
    compare_rings, operate, read_along, tenant_name, watch_epochs, write_along,
};
use crate::interpose;
use crate::scenario::{Failure, Operation, REPLICATION_FACTOR, Scenario};
use crate::trace::{LogLayer, Print, Trace};
use crate::verdict::{Verdict, Violation};
use crate::world::{Around, Glitch, Links, Machine, Mood, Store};

/// The unit in which turmoil gives each host its turn, and packets arrive.
const TICK: Duration = Duration::from_millis(1);
/// Longest and shortest way of an ordinary packet.
const LATENCY: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(8)];
/// Segments that a connection holds, and connections that wait to be accepted.
const TCP_CAPACITY: usize = 4096;
/// After how long the supervisor starts a process again that ended by itself.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// Longest time that clients may take to end, beyond the scenario's end.
const STRAGGLE: Duration = Duration::from_secs(300);
/// Zones, where there are as many machines.
const ZONES: usize = 3;
/// Time between questions, about.
const READ_EVERY: Duration = Duration::from_secs(2);
/// What the simulated world's system clocks show at the start, since the Unix epoch; nothing depends on it.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// Who notes what the simulator does.
const SIMULATOR: &str = "sim";

/// Runs a seed. At most once a process: it sets the clocks and the random numbers of all of it.
pub fn run(seed: u64, print: Print) -> Verdict {
    interpose::seed(seed);
    interpose::set_time(EPOCH);
    let trace = Trace::new(print);
    let log = tracing_subscriber::registry().with(LogLayer(trace.clone()).with_filter(LevelFilter::INFO));
    let _logging = tracing::subscriber::set_default(log);
    let panics = note_panics(&trace);

    let scenario = Scenario::of(seed);
    let mut world = Running::new(&scenario, trace.clone());
    let failure = world.run();
    let (shared, bucket, machines) = (world.shared.clone(), world.bucket.clone(), world.machines.clone());
    drop(world);
    for machine in machines {
        let missing = machine.missing_strays();
        if !missing.is_empty() {
            let text = format!("{} removed or changed what isn't its own: {missing:?}", machine.name);
            shared.violated("strays", &text);
        }
    }
    if let Some(failure) = failure {
        shared.violated("I15", &failure);
    }
    for text in bucket.wrong_epochs() {
        shared.violated("I7", &text);
    }
    for panic in panics.lock().iter() {
        shared.violated("panic", panic);
    }
    let (sent, acked) = shared.ledger.borrow().totals();
    let violations: Vec<Violation> = shared.violations.take();
    Verdict {
        seed,
        scenario: scenario.to_string(),
        operations: scenario.operations.iter().map(ToString::to_string).collect(),
        trace: format!("{:016x}", trace.hash()),
        notes: trace.notes(),
        simulated_s: trace.elapsed().as_secs_f64(),
        sent,
        acked,
        counts: *shared.counts.borrow(),
        violations,
    }
}

type Panics = Arc<parking_lot::Mutex<Vec<String>>>;

/// A panic in a node's task ends that task alone; here it is a finding.
fn note_panics(trace: &Arc<Trace>) -> Panics {
    let panics = Panics::default();
    let (seen, trace) = (panics.clone(), trace.clone());
    std::panic::set_hook(Box::new(move |info| {
        let text = info.to_string().replace('\n', " ");
        trace.note(SIMULATOR, &format!("PANIC {text}"));
        seen.lock().push(text);
    }));
    panics
}

/// A scenario while it runs.
struct Running<'a> {
    sim: Sim<'a>,
    scenario: &'a Scenario,
    machines: Vec<Arc<Machine>>,
    /// Machines that should run, for the supervisor.
    wanted: BTreeSet<usize>,
    /// Machines that there are.
    plugged_in: BTreeSet<usize>,
    /// Nodes that the operator is to drain.
    orders: Orders,
    /// Since when a wanted machine doesn't run.
    down_since: Vec<Option<Duration>>,
    links: Links,
    bucket: Store,
    held: Vec<(Vec<usize>, Vec<usize>)>,
    slow: Vec<(usize, usize)>,
    trace: Arc<Trace>,
    shared: Shared,
    /// Clients that haven't ended yet.
    at_work: Rc<Cell<usize>>,
}

impl<'a> Running<'a> {
    fn new(scenario: &'a Scenario, trace: Arc<Trace>) -> Self {
        let mut rng = StdRng::seed_from_u64(scenario.seed ^ 0x5eed);
        let sim = turmoil::Builder::new()
            .rng_seed(rng.random())
            .epoch(UNIX_EPOCH + EPOCH)
            .tick_duration(TICK)
            .min_message_latency(LATENCY[0])
            .max_message_latency(LATENCY[1])
            .tcp_capacity(TCP_CAPACITY)
            .simulation_duration(scenario.end + STRAGGLE)
            .enable_random_order()
            .build();
        let links = Links::default();
        let bucket = Store::new(rng.random(), trace.clone());
        let glitches = Arc::<AtomicU64>::default();
        let seeds = if scenario.machines > 1 { scenario.machines } else { 0 };
        let around = Around {
            seeds: (0..seeds).map(node_name).collect(),
            trace: trace.clone(),
            links: links.clone(),
            bucket: bucket.clone(),
            wall: scenario.wall,
            glitches: glitches.clone(),
        };
        let machines = (0..scenario.machines + scenario.joining).map(|index| {
            let (name, zone) = (node_name(index), format!("zone-{}", index % ZONES + 1));
            Machine::new(name, zone, rng.random(), &around)
        });
        let machines: Vec<_> = machines.collect();
        let shared = Shared {
            ledger: Rc::new(RefCell::new(Ledger::default())),
            violations: Rc::default(),
            nodes: Rc::default(),
            counts: Rc::new(RefCell::new(Counts::default())),
            trace: trace.clone(),
            links: links.clone(),
            wall: scenario.wall,
            tenants: scenario.tenants,
            glitches,
            healthy_from: scenario.healthy_from,
            end: scenario.end,
        };
        let mut running = Self {
            sim,
            scenario,
            wanted: BTreeSet::new(),
            plugged_in: BTreeSet::new(),
            orders: Orders::default(),
            down_since: vec![None; machines.len()],
            machines,
            links,
            bucket,
            held: Vec::new(),
            slow: Vec::new(),
            trace,
            shared,
            at_work: Rc::default(),
        };
        for index in 0..scenario.machines {
            running.plug_in(index);
        }
        running.start_clients(&mut rng);
        running
    }

    /// The machine appears, and its process is started for the first time.
    fn plug_in(&mut self, index: usize) {
        let machine = self.machines[index].clone();
        self.wanted.insert(index);
        self.plugged_in.insert(index);
        self.shared.nodes.borrow_mut().push(machine.name.clone());
        self.sim.host(machine.name.clone(), move || {
            let machine = machine.clone();
            async move {
                machine.run().await;
                Ok(())
            }
        });
    }

    fn start_clients(&mut self, rng: &mut StdRng) {
        for number in 0..self.scenario.writers {
            let tenants = self.scenario.tenants;
            let writer = Writer {
                name: format!("writer-{}", number + 1),
                number,
                tenant: number % tenants,
                first: number / tenants * SERIES_OF_A_WRITER,
                series: self.scenario.series,
                churn: self.scenario.churn,
                is_mixed: self.scenario.is_mixed,
                every: self.scenario.every,
                seed: rng.random(),
            };
            let shared = self.shared.clone();
            self.client(&writer.name.clone(), write_along(writer, shared));
        }
        let reader = Reader { name: "reader-1".to_owned(), every: READ_EVERY, seed: rng.random() };
        let shared = self.shared.clone();
        self.client(&reader.name.clone(), read_along(reader, shared));
        if self.scenario.machines > 1 {
            let (shared, orders) = (self.shared.clone(), self.orders.clone());
            self.client("operator", async move { operate("operator", orders, &shared).await });
            let shared = self.shared.clone();
            self.client("watcher", async move { watch_epochs("watcher", &shared).await });
        }
        let (shared, at_work, is_cluster) =
            (self.shared.clone(), self.at_work.clone(), self.scenario.machines > 1);
        self.sim.client("checker", async move {
            while shared.goes_on() || at_work.get() > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            ask_everything("checker", &shared).await;
            if is_cluster {
                compare_rings("checker", &shared).await;
                compare_digests("checker", &shared).await;
            }
            Ok(())
        });
    }

    /// Starts a client that the checker waits for.
    fn client(&mut self, name: &str, work: impl Future<Output = ()> + 'static) {
        let at_work = self.at_work.clone();
        at_work.set(at_work.get() + 1);
        self.sim.client(name, async move {
            work.await;
            at_work.set(at_work.get() - 1);
            Ok(())
        });
    }

    /// Runs to the end; what kept it from ending is the answer.
    fn run(&mut self) -> Option<String> {
        let mut next = 0;
        loop {
            let elapsed = self.sim.elapsed();
            interpose::set_time(EPOCH + elapsed);
            self.trace.set_elapsed(elapsed);
            while let Some(timed) = self.scenario.operations.get(next).filter(|timed| timed.at <= elapsed) {
                self.trace.note(SIMULATOR, &timed.operation.to_string());
                self.apply(&timed.operation);
                next += 1;
            }
            self.supervise(elapsed);
            match self.sim.step() {
                Ok(false) => {}
                Ok(true) => return None,
                Err(error) => return Some(format!("the simulation ended early: {error}")),
            }
        }
    }

    /// Starts again what ended by itself.
    fn supervise(&mut self, elapsed: Duration) {
        for index in self.wanted.clone() {
            if self.sim.is_host_running(self.machines[index].name.as_str()) {
                self.down_since[index] = None;
                continue;
            }
            let since = *self.down_since[index].get_or_insert(elapsed);
            if elapsed >= since + RESTART_AFTER {
                self.start(index);
            }
        }
    }

    fn start(&mut self, index: usize) {
        self.wanted.insert(index);
        self.down_since[index] = None;
        let name = self.machines[index].name.as_str();
        if !self.sim.is_host_running(name) {
            self.trace.note(name, "started");
            self.sim.bounce(name);
        }
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Kill(node) => {
                self.wanted.remove(node);
                self.sim.crash(self.machines[*node].name.as_str());
                self.machines[*node].killed();
            }
            Operation::PowerFails(node, after) => self.machines[*node].inject(Fault::Power { after: *after }),
            Operation::PowerCut(node) => self.cut_power(*node),
            Operation::ReplaceDisk(node) => {
                if self.bucket.bears_a_loss(REPLICATION_FACTOR as u64) {
                    self.machines[*node].replace_disk();
                } else {
                    self.trace.note(SIMULATOR, "the disk is spared: some placement can't bear its loss");
                }
            }
            Operation::Start(node) => self.start(*node),
            Operation::Restart(node) => self.machines[*node].ask_to_stop(),
            Operation::Join(node) => self.plug_in(*node),
            Operation::Drain(node) => self.orders.borrow_mut().push_back(node_name(*node)),
            Operation::Drop(from, to) => self.drop_packets(from, to, true),
            Operation::Hold(one, other) => {
                for (a, b) in pairs(one, other) {
                    self.sim.hold(self.machines[a].name.as_str(), self.machines[b].name.as_str());
                }
                self.held.push((one.clone(), other.clone()));
            }
            Operation::Deafen(node) => self.links.deafen(&node_name(*node)),
            Operation::Reconnect => self.reconnect(),
            Operation::SlowLink(one, other, ms) => {
                self.slow.push((*one, *other));
                let (one, other) = (self.machines[*one].name.as_str(), self.machines[*other].name.as_str());
                self.sim.set_link_latency(one, other, Duration::from_millis(*ms));
            }
            Operation::Full(node, bytes) => self.machines[*node].set_room(Some(*bytes)),
            Operation::Room(node) => self.machines[*node].set_room(None),
            Operation::FailSync(node, after) => self.machines[*node].inject(Fault::Sync { after: *after }),
            Operation::FailIo(node, after) => self.machines[*node].inject(Fault::Io { after: *after }),
            Operation::FailCut(node, failure, after) => {
                let after = *after;
                self.machines[*node].inject_into_cut(match failure {
                    Failure::Io => Fault::Io { after },
                    Failure::NoSpace => Fault::NoSpace { after },
                    Failure::Power => Fault::Power { after },
                });
            }
            Operation::Strays(node) => self.machines[*node].leave_strays(&self.tenants()),
            Operation::SlowDisk(node, ms) => self.machines[*node].set_disk_wait(Some(*ms)),
            Operation::FastDisk(node) => self.machines[*node].set_disk_wait(None),
            Operation::Clock(node, ahead_ms) => self.machines[*node].set_clock(*ahead_ms),
            Operation::Glitch(node, ahead_ms, after) => {
                let glitch = Glitch { after: *after, ahead_ms: *ahead_ms };
                self.machines[*node].set_glitch(Some(glitch));
            }
            Operation::BucketAway => self.bucket.set_mood(Mood::Away),
            Operation::BucketMoody => self.bucket.set_mood(Mood::Moody),
            Operation::BucketGood => self.bucket.set_mood(Mood::Good),
            Operation::MendAll => self.mend_all(),
        }
    }

    fn tenants(&self) -> Vec<TenantId> {
        let id = |tenant| TenantId::new(&tenant_name(tenant)).expect("the name is plain");
        (0..self.scenario.tenants).map(id).collect()
    }

    /// Peers of a machine without power hear nothing, not even that its connections are closed.
    fn cut_power(&mut self, node: usize) {
        self.wanted.remove(&node);
        let name = self.machines[node].name.clone();
        let others: Vec<usize> = self.plugged_in.iter().copied().filter(|other| *other != node).collect();
        for other in &others {
            self.sim.partition_oneway(name.as_str(), self.machines[*other].name.as_str());
        }
        self.sim.crash(name.as_str());
        self.machines[node].lost_power();
        for other in others {
            let other = self.machines[other].name.as_str();
            if !self.links.drops(&name, other) {
                self.sim.repair_oneway(name.as_str(), other);
            }
        }
    }

    fn drop_packets(&mut self, from: &[usize], to: &[usize], dropped: bool) {
        for (a, b) in pairs(from, to) {
            let (a, b) = (self.machines[a].name.as_str(), self.machines[b].name.as_str());
            self.links.set(a, b, dropped);
            if dropped { self.sim.partition_oneway(a, b) } else { self.sim.repair_oneway(a, b) }
        }
    }

    fn reconnect(&mut self) {
        self.links.undeafen_all();
        for (one, other) in std::mem::take(&mut self.held) {
            for (a, b) in pairs(&one, &other) {
                self.sim.release(self.machines[a].name.as_str(), self.machines[b].name.as_str());
            }
        }
        for (one, other) in std::mem::take(&mut self.slow) {
            let (one, other) = (self.machines[one].name.as_str(), self.machines[other].name.as_str());
            self.sim.set_link_latency(one, other, LATENCY[0]);
            self.sim.set_link_max_message_latency(one, other, LATENCY[1]);
        }
        for (from, to) in self.links.dropped() {
            self.links.set(&from, &to, false);
            self.sim.repair_oneway(from.as_str(), to.as_str());
        }
    }

    fn mend_all(&mut self) {
        self.reconnect();
        self.bucket.set_mood(Mood::Good);
        for index in self.plugged_in.clone() {
            let machine = self.machines[index].clone();
            machine.mend_disk();
            machine.set_clock(0);
            machine.set_glitch(None);
            // A restart that the scenario asked for came too early, or met a process that was down.
            if machine.was_struck() {
                machine.ask_to_stop();
            }
            self.start(index);
        }
    }
}

fn node_name(index: usize) -> String {
    format!("node-{}", index + 1)
}

/// All pairs of machines of two groups.
fn pairs<'b>(one: &'b [usize], other: &'b [usize]) -> impl Iterator<Item = (usize, usize)> + 'b {
    one.iter().flat_map(move |a| other.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b)
}
