//! What can be done to the machines of a scenario.

use std::fmt;

use crate::world::Moment;

/// How an operation of the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Once, with EIO.
    Io,
    /// Once, with ENOSPC.
    NoSpace,
    /// For good: the power is about to go.
    Power,
}

/// One thing that happens. Machines go by their index; `node-1` is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The process is killed; its system lives on.
    Kill(usize),
    /// The disk fails for good after so many more operations: the power is about to go, amid I/O.
    PowerFails(usize, u64),
    /// The power goes: what wasn't synced is lost in part, and peers hear nothing more.
    PowerCut(usize),
    /// The disk of a machine that is off is replaced by an empty one.
    ReplaceDisk(usize),
    /// The disk is copied as it is.
    CopyDisk(usize),
    /// The disk of a machine that is off is put back to the copy.
    OldDisk(usize),
    /// One byte of a block rots.
    Rot(usize),
    /// The machine is off, and stays so: an operator has it forgotten.
    Gone(usize),
    /// The disks of machines that are off are lost, more than the promise bears: an operator says so.
    LoseQuorum(Vec<usize>),
    /// An operator asks for so many copies of each sample.
    Copies(u32),
    /// The process hears nothing and nobody hears it, and its disk takes up to so many milliseconds, until the network is
    /// whole again.
    Pause(usize, u64),
    /// The process is started.
    Start(usize),
    /// The process is asked to end, and started again once it has.
    Restart(usize),
    /// A machine appears, and its process is started for the first time.
    Join(usize),
    /// The node is to leave: an operator sees to it.
    Drain(usize),
    /// Packets between these machines and those are dropped.
    Partition(Vec<usize>, Vec<usize>),
    /// Packets from these machines to those are dropped.
    Drop(Vec<usize>, Vec<usize>),
    /// Packets between these machines and those are held back, and all arrive later.
    Hold(Vec<usize>, Vec<usize>),
    /// No gossip reaches the machine; everything else does.
    Deafen(usize),
    /// The network is whole again; what was held arrives.
    Reconnect,
    /// Packets between two machines take so long, in milliseconds.
    SlowLink(usize, usize, u64),
    /// The disk has room for so many more bytes.
    Full(usize, u64),
    /// The disk has room again.
    Room(usize),
    /// One sync fails after so many more that succeed.
    FailSync(usize, u64),
    /// One operation of the disk fails after so many more that succeed.
    FailIo(usize, u64),
    /// When next a block is cut or uploaded, or a ring adopted, an operation of the disk fails after so many more that
    /// succeed: amid it, or amid what comes behind it.
    FailAt(usize, Moment, Failure, u64),
    /// Other programs leave files and folders of theirs in the data folder.
    Strays(usize),
    /// The disk takes up to so many milliseconds for each job.
    SlowDisk(usize, u64),
    /// The disk is as fast as ever.
    FastDisk(usize),
    /// The clock is ahead by so many milliseconds; behind, if negative.
    Clock(usize, i64),
    /// One reading of the clock is ahead by so many milliseconds, after so many that are right.
    Glitch(usize, i64, u64),
    /// The ring's document is gone from the object store.
    LoseRing,
    /// The ring's document in the object store is what it was so many changes ago.
    OldRing(usize),
    /// No request to the object store succeeds.
    BucketAway,
    /// Some requests to the object store fail, some of these after they did what they should.
    BucketMoody,
    /// The object store answers.
    BucketGood,
    /// Whatever is still broken is mended, and all that should run is started.
    MendAll,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |node: &usize| format!("node-{}", node + 1);
        let names = |nodes: &[usize]| nodes.iter().map(name).collect::<Vec<_>>().join(",");
        match self {
            Self::Kill(node) => write!(f, "kill {}", name(node)),
            Self::PowerFails(node, after) => {
                write!(f, "the power of {} fails after {after} disk operations", name(node))
            }
            Self::PowerCut(node) => write!(f, "cut the power of {}", name(node)),
            Self::ReplaceDisk(node) => write!(f, "replace the disk of {} by an empty one", name(node)),
            Self::CopyDisk(node) => write!(f, "copy the disk of {}", name(node)),
            Self::OldDisk(node) => write!(f, "put the disk of {} back to its copy", name(node)),
            Self::Rot(node) => write!(f, "a byte on the disk of {} rots", name(node)),
            Self::Gone(node) => write!(f, "{} is gone for good", name(node)),
            Self::LoseQuorum(nodes) => write!(f, "the disks of {} are lost", names(nodes)),
            Self::Copies(copies) => write!(f, "ask for {copies} copies"),
            Self::Pause(node, ms) => {
                write!(f, "{} hears nothing, and its disk takes up to {ms} ms", name(node))
            }
            Self::LoseRing => f.write_str("the ring's document is lost"),
            Self::OldRing(changes) => write!(f, "the ring's document is put back by {changes} changes"),
            Self::Start(node) => write!(f, "start {}", name(node)),
            Self::Restart(node) => write!(f, "restart {} in order", name(node)),
            Self::Join(node) => write!(f, "{} joins", name(node)),
            Self::Drain(node) => write!(f, "drain {}", name(node)),
            Self::Partition(one, other) => {
                write!(f, "drop packets between {} and {}", names(one), names(other))
            }
            Self::Drop(from, to) => write!(f, "drop packets from {} to {}", names(from), names(to)),
            Self::Hold(one, other) => write!(f, "hold packets between {} and {}", names(one), names(other)),
            Self::Deafen(node) => write!(f, "no gossip reaches {}", name(node)),
            Self::Reconnect => f.write_str("mend the network"),
            Self::SlowLink(one, other, ms) => {
                write!(f, "packets between {} and {} take {ms} ms", name(one), name(other))
            }
            Self::Full(node, bytes) => write!(f, "the disk of {} has {bytes} bytes left", name(node)),
            Self::Room(node) => write!(f, "the disk of {} has room", name(node)),
            Self::FailSync(node, after) => write!(f, "a sync of {} fails after {after}", name(node)),
            Self::FailIo(node, after) => {
                write!(f, "a disk operation of {} fails after {after}", name(node))
            }
            Self::FailAt(node, moment, failure, after) => {
                let what = match moment {
                    Moment::Cut => "cuts a block",
                    Moment::Ship => "uploads a block",
                    Moment::Adopt => "adopts a ring",
                };
                write!(f, "{} {what}: {failure:?} after {after} disk operations", name(node))
            }
            Self::Strays(node) => write!(f, "strays in the folders of {}", name(node)),
            Self::SlowDisk(node, ms) => write!(f, "the disk of {} takes up to {ms} ms", name(node)),
            Self::FastDisk(node) => write!(f, "the disk of {} is fast", name(node)),
            Self::Clock(node, ms) => write!(f, "the clock of {} is ahead by {ms} ms", name(node)),
            Self::Glitch(node, ms, after) => {
                write!(f, "one reading of the clock of {} is ahead by {ms} ms, after {after}", name(node))
            }
            Self::BucketAway => f.write_str("the bucket is away"),
            Self::BucketMoody => f.write_str("the bucket is moody"),
            Self::BucketGood => f.write_str("the bucket is good"),
            Self::MendAll => f.write_str("mend everything"),
        }
    }
}
