//! What is judged, what is done to the nodes, and what they must have done: declared once, here, and counted.
//!
//! A check that is never reached and a fault that never takes effect prove nothing, and nobody notices. So neither can
//! be used without a row of this table: `Shared::judge` takes the row with the verdict, and what is done to a machine
//! is counted where it takes effect. After enough seeds a run fails if a row that counts in it stayed at nought.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds from which on a run fails if a row stays at nought.
pub const SEEDS_MIN: u64 = 100;

/// What kind of thing a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Something that must hold; counted each time it was looked at and there was something to see.
    Check,
    /// Something that was done to the nodes; counted each time it took effect.
    Fault,
    /// Something that nodes did, which only some faults make them do.
    Deed,
}

macro_rules! exercises {
    ($($name:ident: $kind:ident $label:literal $what:literal;)+) => {
        /// A row of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Exercise {
            $(#[doc = $what] $name,)+
        }

        impl Exercise {
            /// All rows, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// What it is.
            pub fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)+ }
            }

            /// The invariant's number, for a check; a word for anything else.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// In a line.
            pub fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)+ }
            }

            /// Its name in a verdict.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }
    };
}

exercises! {
    Raw: Check "I1/I11" "a complete answer holds all raw samples that were acked";
    Twice: Check "I2" "no sample and no series is there twice";
    Invented: Check "I3/I13" "nothing is there that nobody sent this tenant";
    Count: Check "I1/I2/I3" "owners count as many samples as were acked, and no more than were sent";
    Newest: Check "I1/I11" "each series shows its newest sample, or has ended";
    Names: Check "I1/I11" "the list of series holds each that was acked";
    Expression: Check "I11" "expressions have the values that the reference makes of the ledger";
    Resets: Check "I4" "each series began anew as often as its samples say";
    SameEverywhere: Check "I12" "each node answers the same question alike";
    EpochsShown: Check "I7" "the epoch that a store shows never falls";
    EpochsInBucket: Check "I7" "epochs in the bucket grow one by one";
    OneTransition: Check "I7" "one transition of the ring ends before the next begins";
    Rings: Check "I6" "in the end all nodes show the same ring";
    Digests: Check "I1/repair" "in the end all owners of a window have equal digests";
    Catalogs: Check "I10" "in the end each block that is listed lies in the bucket, whole";
    WithoutOne: Check "I1/I18" "without any one node what is complete holds all that was acked, series by series";
    Bounded: Check "I14" "in the end nothing waits in hints and logs";
    MinorityAway: Check "I15" "while one node of many is away every write and every question to the others succeeds";
    GoodSample: Check "I15" "a good sample is never refused for good";
    WritesSucceed: Check "I15" "once all is healthy every write succeeds";
    ReadsSucceed: Check "I15" "once all is healthy every question is answered";
    RunEnds: Check "I15" "clients and drains come to an end";
    StraysStay: Check "strays" "what other programs left in a data folder stays as it was";
    NoPanic: Check "panic" "no task of a node panics";

    WriteAcked: Deed "client" "a write is acked";
    WriteRefused: Deed "client" "a write is refused, or gets no answer";
    ReadAnswered: Deed "client" "a question gets a complete answer";
    ReadRefused: Deed "client" "a question is refused, or gets no answer";

    HintsSent: Deed "node" "hints are taken by whom they were kept for";
    Repaired: Deed "node" "samples are pulled from another owner";
    Shipped: Deed "node" "blocks are uploaded";
    PushedDown: Deed "node" "owners evaluate parts of a question";

    RestoreRing: Deed "client" "an operator has the ring's document put back";

    Kill: Fault "process" "a process is killed";
    Restart: Fault "process" "a process is asked to end, and started again";
    Pause: Fault "process" "a process hears nothing, and waits for its disk";
    PowerCut: Fault "process" "the power is cut";
    PowerFails: Fault "disk" "the power fails amid the disk's operations";
    ReplaceDisk: Fault "disk" "a disk is replaced by an empty one";
    DiskFull: Fault "disk" "a disk is full";
    FailSync: Fault "disk" "a sync fails";
    FailIo: Fault "disk" "an operation of the disk fails";
    FailCut: Fault "disk" "an operation of the disk fails amid a cut or the checkpoint behind it";
    FailShip: Fault "disk" "an operation of the disk fails amid an upload";
    FailAdopt: Fault "disk" "an operation of the disk fails while a ring is adopted";
    OldDisk: Fault "disk" "a disk is put back to what it was some time ago";
    Rot: Fault "disk" "one byte of a block rots";
    SlowDisk: Fault "disk" "a disk is slow";
    Strays: Fault "disk" "other programs leave files in a data folder";
    Partition: Fault "network" "packets between some nodes and the others are dropped";
    OneWay: Fault "network" "packets are dropped in one direction";
    Hold: Fault "network" "packets are held back, and all arrive later";
    Deafen: Fault "network" "no gossip reaches a node";
    SlowLink: Fault "network" "a link is slow";
    Clock: Fault "clock" "a clock is some minutes off";
    ClockMonth: Fault "clock" "a clock is a month off";
    ClockMonths: Fault "clock" "the clocks of two nodes are a month off";
    Glitch: Fault "clock" "one reading of a clock is a month off";
    BucketAway: Fault "bucket" "no request to the bucket succeeds";
    BucketFails: Fault "bucket" "a request to the bucket fails before it did anything";
    BucketLies: Fault "bucket" "a write to the bucket succeeds, and its answer is lost";
    LoseRing: Fault "bucket" "the ring's document is lost";
    OldRing: Fault "bucket" "the ring's document is put back to an older one";
    Lag: Fault "network" "packets of a node are held back while the ring changes";
    NoHealing: Fault "node" "nodes keep no hints and don't repair";
    Copies: Fault "ring" "another number of copies is asked for";
    Forget: Fault "ring" "a node that is gone for good is forgotten";
    LoseQuorum: Fault "ring" "more disks are lost than the promise bears, and the operator says so";
    Join: Fault "ring" "a node joins";
    Drain: Fault "ring" "a node is drained";
}

/// Faults that nodes don't bear yet, and so are never drawn, and not missed. A row goes from here when what it does is
/// mended; until then `--also NAME` draws it.
pub const SPARED: &[Exercise] = &[Exercise::Rot];

/// Which faults are drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// Of the spared ones, those that are drawn all the same.
    pub also: Vec<Exercise>,
}

impl Switches {
    /// Whether a fault is drawn.
    pub fn draws(&self, exercise: Exercise) -> bool {
        !SPARED.contains(&exercise) || self.also.contains(&exercise)
    }
}

impl FromStr for Exercise {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|exercise| exercise.name() == name);
        found.ok_or_else(|| format!("no row of the table has the name {name:?}"))
    }
}

/// How often each row was exercised. Clones share their counts.
#[derive(Clone)]
pub struct Tally(Arc<[AtomicU64; Exercise::ALL.len()]>);

impl Default for Tally {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl Tally {
    /// Counts a row once.
    pub fn count(&self, exercise: Exercise) {
        self.add(exercise, 1);
    }

    /// Counts a row so many times.
    pub fn add(&self, exercise: Exercise, times: u64) {
        self.0[exercise as usize].fetch_add(times, Ordering::Relaxed);
    }

    /// All counts by name, noughts included.
    pub fn counts(&self) -> Counts {
        let count = |exercise: &Exercise| {
            (exercise.name().to_owned(), self.0[*exercise as usize].load(Ordering::Relaxed))
        };
        Counts(Exercise::ALL.iter().map(count).collect())
    }
}

/// Counts of one run or of many, by name of the row.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name.clone()).or_default() += count;
        }
    }

    /// How often a row was exercised.
    pub fn of(&self, exercise: Exercise) -> u64 {
        self.0.get(exercise.name()).copied().unwrap_or(0)
    }

    /// Rows at nought, but for those that are spared.
    pub fn missing(&self, switches: &Switches) -> Vec<Exercise> {
        let is_missing = |exercise: &Exercise| self.of(*exercise) == 0 && switches.draws(*exercise);
        Exercise::ALL.iter().copied().filter(is_missing).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for exercise in Exercise::ALL {
            let (kind, count) = (format!("{:?}", exercise.kind()).to_lowercase(), self.of(*exercise));
            writeln!(f, "{count:>9}  {kind:<5} {:<9} {}", exercise.label(), exercise.what())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_no_run_exercised_is_missing() {
        let (one, other) = (Tally::default(), Tally::default());
        one.count(Exercise::Kill);
        other.add(Exercise::Raw, 3);
        let mut all = one.counts();
        all.add(&other.counts());
        assert_eq!((all.of(Exercise::Kill), all.of(Exercise::Raw)), (1, 3));
        let missing = |switches| all.missing(&switches).len();
        assert_eq!(missing(Switches::default()), Exercise::ALL.len() - 2 - SPARED.len());
        assert_eq!(missing(Switches { also: SPARED.to_vec() }), Exercise::ALL.len() - 2);
        assert!(all.to_string().contains("        3  check I1/I11"), "{all}");
    }

    #[test]
    fn rows_are_told_apart_by_name() {
        let names: std::collections::BTreeSet<_> = Exercise::ALL.iter().map(|row| row.name()).collect();
        assert_eq!(names.len(), Exercise::ALL.len());
    }
}
