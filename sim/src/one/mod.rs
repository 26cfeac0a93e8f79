//! One seed: its scenario is built, run to its end, and judged.
//!
//! A step is some milliseconds, the same in all of a run. Before it, operations whose time has come are applied
//! (`apply`), processes that ended by themselves are started again, and the process's clocks are set; then turmoil
//! delivers packets and gives each host its turn. All clients live on one host (`clients`): what a step costs grows with
//! the square of hosts. The run is over when they have ended.

mod apply;
mod clients;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use turmoil::Sim;

use crate::client::{Ledger, Orders, Phases, Shared};
use crate::exercise::{Exercise, Switches, Tally};
use crate::interpose;
use crate::scenario::Scenario;
use crate::trace::{LogLayer, Print, Trace};
use crate::verdict::{Verdict, Violation};
use crate::world::{Around, Links, Machine, Store};

/// Longest and shortest way of an ordinary packet.
const LATENCY: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(8)];
/// Segments that a connection holds, and connections that wait to be accepted.
const TCP_CAPACITY: usize = 4096;
/// Time between looks at processes that ended by themselves.
const SUPERVISE_EVERY: Duration = Duration::from_millis(50);
/// After how long the supervisor starts a process again that ended by itself.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// Longest time that clients may take to end, beyond the time that everything has to be healthy.
const STRAGGLE: Duration = Duration::from_secs(300);
/// Zones, where there are as many machines.
const ZONES: usize = 3;
/// What the simulated world's system clocks show at the start, since the Unix epoch; nothing depends on it.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// Who notes what the simulator does.
const SIMULATOR: &str = "sim";

/// Runs a seed. At most once a process: it sets the clocks and the random numbers of all of it.
pub fn run(seed: u64, switches: &Switches, print: Print) -> Verdict {
    interpose::seed(seed);
    interpose::set_time(EPOCH);
    let trace = Trace::new(print);
    let log = tracing_subscriber::registry().with(LogLayer(trace.clone()).with_filter(LogLayer::filter()));
    let _logging = tracing::subscriber::set_default(log);
    let panics = note_panics(&trace);

    let scenario = Scenario::of(seed, switches);
    let mut world = Running::new(&scenario, trace.clone());
    let failure = world.run();
    let (shared, bucket, machines) = (world.shared.clone(), world.bucket.clone(), world.machines.clone());
    drop(world);
    for machine in machines {
        let (left, missing) = machine.strays();
        if left > 0 {
            let text = || format!("{} removed or changed what isn't its own: {missing:?}", machine.name);
            shared.judge(Exercise::StraysStay, missing.is_empty(), text);
        }
    }
    shared.judge(Exercise::RunEnds, failure.is_none(), || failure.unwrap_or_default());
    for (check, text) in bucket.wrong_documents() {
        shared.judge(check, false, || text);
    }
    let panics = std::mem::take(&mut *panics.lock());
    shared.judge(Exercise::NoPanic, panics.is_empty(), || panics.join("; "));
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
        counts: shared.tally.counts(),
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
    /// What the operator is to do.
    orders: Orders,
    /// Since when a wanted machine doesn't run.
    down_since: Vec<Option<Duration>>,
    links: Links,
    bucket: Store,
    /// Between whom packets are held, and the ring's epoch when that began.
    held: Vec<(Vec<usize>, Vec<usize>, u64)>,
    slow: Vec<(usize, usize)>,
    trace: Arc<Trace>,
    tally: Tally,
    shared: Shared,
}

impl<'a> Running<'a> {
    fn new(scenario: &'a Scenario, trace: Arc<Trace>) -> Self {
        let mut rng = StdRng::seed_from_u64(scenario.seed ^ 0x5eed);
        let sim = turmoil::Builder::new()
            .rng_seed(rng.random())
            .epoch(UNIX_EPOCH + EPOCH)
            .tick_duration(scenario.step)
            .min_message_latency(LATENCY[0])
            .max_message_latency(LATENCY[1])
            .tcp_capacity(TCP_CAPACITY)
            .simulation_duration(scenario.healthy_by + STRAGGLE)
            .enable_random_order()
            .build();
        let (links, tally) = (Links::default(), Tally::default());
        let bucket = Store::new(rng.random(), trace.clone(), tally.clone());
        let glitches = Arc::<AtomicU64>::default();
        let seeds = if scenario.machines > 1 { scenario.machines } else { 0 };
        let around = Around {
            seeds: (0..seeds).map(node_name).collect(),
            trace: trace.clone(),
            tally: tally.clone(),
            links: links.clone(),
            bucket: bucket.clone(),
            wall: scenario.wall,
            glitches: glitches.clone(),
            heals: scenario.heals,
        };
        let machines = (0..scenario.machines + scenario.joining).map(|index| {
            let (name, zone) = (node_name(index), format!("zone-{}", index % ZONES + 1));
            Machine::new(name, zone, rng.random(), &around)
        });
        let machines: Vec<_> = machines.collect();
        let orders = Orders::default();
        let shared = Shared {
            ledger: Rc::new(RefCell::new(Ledger::default())),
            violations: Rc::default(),
            nodes: Rc::default(),
            tally: tally.clone(),
            trace: trace.clone(),
            links: links.clone(),
            wall: scenario.wall,
            tenants: scenario.tenants,
            glitches,
            far_clocks: Rc::default(),
            bucket: bucket.clone(),
            heals: scenario.heals,
            calm: scenario.calm.clone(),
            orders: orders.clone(),
            phases: Phases::new(scenario.mended_at, scenario.healthy_by),
        };
        let mut running = Self {
            sim,
            scenario,
            wanted: BTreeSet::new(),
            plugged_in: BTreeSet::new(),
            orders,
            down_since: vec![None; machines.len()],
            machines,
            links,
            bucket,
            held: Vec::new(),
            slow: Vec::new(),
            trace,
            tally,
            shared,
        };
        for index in 0..scenario.machines {
            running.plug_in(index);
        }
        if !scenario.heals {
            running.tally.count(Exercise::NoHealing);
        }
        let clients = clients::all(scenario, &running.shared, &mut rng);
        running.sim.client("clients", async move {
            clients.await;
            Ok(())
        });
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

    /// Runs to the end; what kept it from ending is the answer.
    fn run(&mut self) -> Option<String> {
        let (mut next, mut supervised) = (0, Duration::ZERO);
        loop {
            let elapsed = self.sim.elapsed();
            interpose::set_time(EPOCH + elapsed);
            self.trace.set_elapsed(elapsed);
            while let Some(timed) = self.scenario.operations.get(next).filter(|timed| timed.at <= elapsed) {
                self.trace.note(SIMULATOR, &timed.operation.to_string());
                self.apply(&timed.operation);
                next += 1;
            }
            if elapsed >= supervised + SUPERVISE_EVERY {
                self.supervise(elapsed);
                supervised = elapsed;
            }
            match self.sim.step() {
                Ok(false) => {}
                Ok(true) => return None,
                Err(error) => return Some(format!("the simulation ended early: {error}")),
            }
        }
    }

    /// Starts again what ended by itself, and counts faults of disks that have struck.
    fn supervise(&mut self, elapsed: Duration) {
        self.machines.iter().for_each(|machine| machine.note_struck());
        for index in self.wanted.clone() {
            if self.is_running(index) {
                self.down_since[index] = None;
                continue;
            }
            let since = *self.down_since[index].get_or_insert(elapsed);
            if elapsed >= since + RESTART_AFTER {
                self.start(index);
            }
        }
    }

    fn is_running(&mut self, index: usize) -> bool {
        self.plugged_in.contains(&index) && self.sim.is_host_running(self.machines[index].name.as_str())
    }

    fn start(&mut self, index: usize) {
        self.wanted.insert(index);
        self.down_since[index] = None;
        if !self.is_running(index) {
            let name = self.machines[index].name.as_str();
            self.trace.note(name, "started");
            self.sim.bounce(name);
        }
    }
}

fn node_name(index: usize) -> String {
    format!("node-{}", index + 1)
}
