//! Who is alive, by gossip: the only folder that names chitchat.
//!
//! 1. Every interval a member exchanges what it knows with three others, with a dead one now and then, and with a
//!    seed as long as some seed isn't a member that is alive; for ever, so that islands find each other.
//! 2. Messages travel as frames through a [`Transport`] of the owner's. They say who sends them, and are
//!    refused unless cluster, store, start and size are right.
//! 3. What chitchat then knows is looked at every interval: who is alive is judged by our own clock.
//! 4. Should chitchat fail, it is started again under a new generation.
//!
//! Gossip owns nothing: who keeps what stands in the ring document.
//!
//! Chitchat knows stores by made-up addresses (the store id as an IPv6 address), so that a store that moves stays
//! what it is. It draws randomness from the system and takes time from tokio.

mod frame;
mod shared;
mod socket;
mod tracker;

#[cfg(test)]
mod tests;

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable, FailureDetectorConfig,
    NodeState, spawn_chitchat,
};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::member::{Members, Profile};
use crate::{ClusterId, StoreId};
use frame::{Frame, address_of, listed, short_name, store_at};
use shared::Shared;
use socket::{Arrived, Wire};
use tracker::{State, Tracker};

pub use frame::{MAX_FRAME_BYTES, MAX_KNOWN, VERSION};

/// A member is away after so many intervals without a heartbeat, which reach all of 20 members in about three...
const DEAD_AFTER_INTERVALS: u32 = 8;

/// ...but not before: a machine that is short of processors stalls for seconds.
const DEAD_AFTER_MIN: Duration = Duration::from_secs(8);

/// Dead members, and earlier starts of living ones, are remembered this long.
const DEAD_GRACE: Duration = Duration::from_secs(300);

/// Messages that may wait for chitchat; more are dropped, others will come.
const MAX_WAITING: usize = 256;

/// Seeds that chitchat thinks there are; each stands for all of ours in turn.
const SEED_SLOTS: u16 = 2;

const SEED_PORT: u16 = 2;

/// The key under which a member's profile stands.
const PROFILE: &str = "profile";

/// Longest profile in bytes that is read.
const MAX_PROFILE_BYTES: usize = 4096;

/// Chitchat counts what we say; more than this was never said, but put into our mouth, and ends in an overflow.
const MAX_VERSION: u64 = 1 << 62;

/// How long to wait before chitchat is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Carries messages to addresses.
pub trait Transport: Send + Sync + 'static {
    /// Sends a frame to `host:port` in the background, or drops it; never blocks. It arrives at that member's
    /// [`Gossip::receive`].
    fn send(&self, to: &str, frame: Vec<u8>);
}

/// Who we are, for as long as the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Me {
    /// Our cluster; members of others are refused.
    pub cluster: ClusterId,
    /// Our store.
    pub store: StoreId,
    /// How many times the store has been started, from 1 to 2^48: written down before gossip starts.
    pub incarnation: u64,
    /// A random number, new with every start: tells twins from ourselves.
    pub instance: u64,
}

/// Why a frame isn't listened to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a frame, or not a message.
    #[error("gossip message can't be read: {0}")]
    Garbage(&'static str),
    /// A frame of another version.
    #[error("gossip is of version {version}, this node speaks {VERSION}: run neighbouring versions")]
    Version {
        /// Theirs.
        version: u8,
    },
    /// From another cluster.
    #[error("this node is of cluster {ours}, the sender of {theirs}: check the sender's seeds and bucket")]
    Foreign {
        /// Ours.
        ours: ClusterId,
        /// The sender's.
        theirs: ClusterId,
    },
    /// From ourselves: a seed is our own address.
    #[error("this node is the sender itself")]
    Own,
    /// For another store: its address has passed on to us.
    #[error("this node is store {here}, another one was meant")]
    Stray {
        /// Who we are.
        here: StoreId,
    },
    /// From a second process that claims to be one store.
    #[error("{first} is this store already: stop one of the two, and start it on an empty data folder")]
    Twin {
        /// Where the first is.
        first: String,
    },
    /// From an earlier start than one seen before.
    #[error(
        "the sender starts for the {incarnation}th time, and has started {highest} times: its data folder was put back; start it on an empty one"
    )]
    RolledBack {
        /// What it says.
        incarnation: u64,
        /// What was seen.
        highest: u64,
    },
    /// Too many members are known.
    #[error("gossip knows {MAX_KNOWN} members and starts of members, the most that it can")]
    Crowded,
    /// Messages come faster than they are read.
    #[error("too many gossip messages wait")]
    Busy,
}

/// Gossip that runs until it is dropped or stopped.
pub struct Gossip {
    shared: Arc<Shared>,
    arrivals: mpsc::Sender<Arrived>,
    profile: watch::Sender<Profile>,
    members: watch::Receiver<Arc<Members>>,
    task: JoinHandle<()>,
}

impl Gossip {
    /// Starts to gossip. `seeds` are `host:port` of members that may be there; ourselves among them does no harm.
    /// Runs inside a tokio runtime.
    #[must_use]
    pub fn start(
        me: Me,
        profile: Profile,
        seeds: Vec<String>,
        transport: Arc<dyn Transport>,
        interval: Duration,
    ) -> Self {
        let shared = Arc::new(Shared::new(me, &profile.peer_address, seeds));
        let (arrivals, waiting) = mpsc::channel(MAX_WAITING);
        let (profile_sender, profile) = watch::channel(profile);
        let (publish, members) = watch::channel(Arc::new(Members::default()));
        let wire = Wire { shared: shared.clone(), transport, arrivals: Arc::new(Mutex::new(waiting)) };
        let task = tokio::spawn(Runner { wire, interval, profile, publish }.run());
        Self { shared, arrivals, profile: profile_sender, members, task }
    }

    /// Takes in a frame that somebody sent.
    ///
    /// # Errors
    /// Says why it isn't listened to, which the sender should learn.
    pub fn receive(&self, bytes: &[u8]) -> Result<(), Refused> {
        let now = Instant::now();
        let frame =
            Frame::decode(bytes).map_err(|reason| self.shared.unreadable(&reason, "somebody", now))?;
        self.shared.admit(&frame, now)?;
        let members =
            listed(frame.message).map_err(|reason| self.shared.unreadable(&reason, frame.address, now))?;
        self.shared.admit_members(&members, now)?;
        let message = ChitchatMessage::deserialize(&mut &*frame.message)
            .map_err(|_| Refused::Garbage("its message isn't whole"))?;
        self.arrivals.try_send((address_of(frame.store), message)).map_err(|_| Refused::Busy)
    }

    /// Tells everybody something new of ourselves.
    pub fn say(&self, profile: Profile) {
        self.shared.set_address(&profile.peer_address);
        self.profile.send_if_modified(|said| {
            let new = *said != profile;
            *said = profile;
            new
        });
    }

    /// Seeks members at these addresses from now on, as well as those already known.
    pub fn set_seeds(&self, seeds: Vec<String>) {
        self.shared.set_seeds(seeds);
    }

    /// Everybody who is known; changes when somebody comes, goes or says something new.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// Stops at once; others find out by our silence.
    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Runner {
    wire: Wire,
    interval: Duration,
    profile: watch::Receiver<Profile>,
    publish: watch::Sender<Arc<Members>>,
}

impl Runner {
    async fn run(self) {
        let me = self.wire.shared.me;
        let mut tracker = Tracker::new(me.store, dead_after(self.interval), Instant::now());
        for restart in 0.. {
            let handle = match spawn_chitchat(self.config(restart), self.said(), &self.wire).await {
                Ok(handle) => Stopping(handle),
                Err(error) => {
                    tracing::error!(%error, "gossip can't be started");
                    sleep(RESTART_AFTER).await;
                    continue;
                }
            };
            self.follow(&handle.0, &mut tracker).await;
            drop(handle);
            tracing::error!(restart, "gossip has failed and is started again");
            sleep(RESTART_AFTER).await;
        }
    }

    /// Looks at what chitchat knows, and tells it what we say, until it ends or can't be used any more.
    async fn follow(&self, handle: &ChitchatHandle, tracker: &mut Tracker) {
        let ended = handle.termination_watcher();
        tokio::pin!(ended);
        let mut profile = self.profile.clone();
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = &mut ended => return,
                changed = profile.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                }
                _ = ticks.tick() => {}
            }
            let said = encode(&profile.borrow_and_update());
            let states = handle.with_chitchat(|chitchat| {
                let own = chitchat.self_node_state();
                if own.max_version() > MAX_VERSION {
                    return None;
                }
                // Again and again, since chitchat lets others speak in our name.
                own.set(PROFILE, &said);
                Some(chitchat.node_states().iter().filter_map(|(id, state)| read(id, state)).collect())
            });
            match states.await {
                Some(states) => self.look(states, tracker),
                None => return,
            }
        }
    }

    fn look(&self, states: Vec<State>, tracker: &mut Tracker) {
        let now = Instant::now();
        let known = states.iter().map(|state| (state.store, state.generation)).collect();
        tracker.look(now, states);
        let mut members = tracker.members();
        members.troubles = self.wire.shared.troubles(now);
        let others = members.seen.iter().filter(|(store, _)| **store != self.wire.shared.me.store);
        let places = others
            .map(|(store, seen)| (*store, seen.incarnation, seen.profile.peer_address.as_str(), seen.alive));
        self.wire.shared.refresh(known, places);
        self.publish.send_if_modified(|published| {
            let new = **published != members;
            if new {
                *published = Arc::new(members);
            }
            new
        });
    }

    fn config(&self, restart: u64) -> ChitchatConfig {
        let me = self.wire.shared.me;
        let generation = me.incarnation << RESTART_BITS | restart.min((1 << RESTART_BITS) - 1);
        let seed = |slot| {
            SocketAddr::from(SocketAddrV6::new(Ipv6Addr::from_bits(slot), SEED_PORT, 0, 0)).to_string()
        };
        ChitchatConfig {
            chitchat_id: ChitchatId::new(short_name(me.store), generation, address_of(me.store)),
            cluster_id: me.cluster.to_string(),
            gossip_interval: self.interval,
            listen_addr: address_of(me.store),
            seed_nodes: (1..=u128::from(SEED_SLOTS)).map(seed).collect(),
            // Only decides whom chitchat talks to; it is slow to give up, since who is alive is judged elsewhere.
            failure_detector_config: FailureDetectorConfig::new(
                16.0,
                100,
                self.interval * 10,
                self.interval,
                DEAD_GRACE,
            ),
            marked_for_deletion_grace_period: DEAD_GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
        }
    }

    fn said(&self) -> Vec<(String, String)> {
        vec![(PROFILE.to_owned(), encode(&self.profile.borrow()))]
    }
}

/// Aborts chitchat's server when it goes.
struct Stopping(ChitchatHandle);

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Chitchat's generation holds the store's incarnation and, below it, how often chitchat was started since.
const RESTART_BITS: u32 = 16;

fn dead_after(interval: Duration) -> Duration {
    (interval * DEAD_AFTER_INTERVALS).max(DEAD_AFTER_MIN)
}

fn incarnation(generation: u64) -> u64 {
    generation >> RESTART_BITS
}

fn read(id: &ChitchatId, state: &NodeState) -> Option<State> {
    let profile = state.get(PROFILE).filter(|text| text.len() <= MAX_PROFILE_BYTES);
    Some(State {
        store: store_at(&id.gossip_advertise_addr)?,
        generation: id.generation_id,
        heartbeat: state.heartbeat().into(),
        profile: profile.and_then(|text| serde_json::from_str(text).ok()),
    })
}

fn encode(profile: &Profile) -> String {
    serde_json::to_string(profile).expect("names and numbers always fit into JSON")
}
