//! The list of bugs: what each does, and behind it which invariant (I…), row (R…) or review stands for its kind.

/// Makes the enum and its list.
macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $name:ident in $package:literal,)+) => {
        /// A bug that can be planted. Its name is what the environment says, `AckBeforeSync` for one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $($(#[doc = $what])+ $name,)+
        }

        impl Bug {
            /// All of them, by their way through a node: ring, storage, writes, reads.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The bug of that name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|bug| bug.name() == name)
            }

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// The package that it is planted in.
            #[must_use]
            pub const fn package(self) -> &'static str {
                match self {
                    $(Self::$name => $package,)+
                }
            }

            /// What is wrong with it, in one line, and what it stands for.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($what),+).trim_ascii(),)+
                }
            }
        }
    };
}

bugs! {
    /// One voucher closes a placement, where R owners of each range must vouch (I18).
    OneVoucher in "ring",
    /// A joint document is made final though nobody has adopted it (I7, I18).
    FinalUnadopted in "ring",
    /// In joint only the quorum of the new placement counts: a revert loses what was acked (I1).
    NewQuorumOnly in "ring",
    /// What a lost store says counts as an owner's word (I18).
    LostStoreCounts in "ring",
    /// A placement counts as sealed while a joint document still takes writes by it (I18).
    SealedWhileJoint in "ring",
    /// A closed placement leaves no floor for catalogs: an asker with an old one misses its blocks (I18).
    FloorForgotten in "ring",
    /// Two replicas of a series stand on one node (R2).
    TwoReplicasOnOneNode in "ring",
    /// An older ring document is taken for a newer one (I7, R35).
    OlderDocumentWins in "ring",
    /// A later ring document of another history is taken for one of this (I7).
    HistoryUnasked in "ring",
    /// Gossip of an earlier start of a store is believed after that of a later one (I7, R46).
    OlderIncarnationWins in "ring",
    /// The hash of labels has no separators: `{a="bc"}` is `{ab="c"}` (R43).
    LabelsRunTogether in "ring",

    /// A cut takes the series that there were before it had the shards' locks, and the log says all (I1).
    CutTakesTooFew in "tsdb",
    /// A cut drops late samples that came after it took its own (I1).
    CutDropsTooMany in "tsdb",
    /// A checkpoint takes head-chunk files for synced before they are: after an error the next one forgets them (R49).
    CheckpointForgetsFiles in "tsdb",
    /// A checkpoint lets go of the log though the head-chunk files that it names aren't synced (R48).
    CheckpointNamesUnsynced in "tsdb",
    /// A checkpoint isn't synced before it has its name and the log is let go of (R48).
    CheckpointUnsynced in "tsdb",
    /// A checkpoint's place in the log is ahead of what the disk has of the log (R45).
    CheckpointAheadOfLog in "tsdb",
    /// What memory has and the log refused is acked as a duplicate (I1).
    DuplicateOfMemory in "tsdb",
    /// A duplicate is acked before the commit of what it is a duplicate of (I1, R48).
    DuplicateUncommitted in "tsdb",
    /// The number of shards is that of the folders in `head/`, strays among them (I1, I3).
    ShardsCounted in "tsdb",
    /// One reading of the wall clock is believed (I9).
    OneClockReading in "tsdb",
    /// Blocks are removed by the wall clock alone, whatever the samples' own time (I9).
    RetentionByWallClock in "tsdb",
    /// A replay takes all floats of a record before its histograms (I4, I12).
    FloatsReplayedFirst in "tsdb",
    /// A sync that failed is tried again, and its success believed (R49).
    FailedSyncTriedAgain in "tsdb",
    /// A replay leaves out samples from before the last cut: late ones are lost (R19, R37).
    LateSamplesNotReplayed in "tsdb",
    /// A replay ends at the first damage: later segments are lost (R40).
    ReplayEndsAtDamage in "tsdb",
    /// A block has its name before its folder is synced (R41).
    BlockFolderUnsynced in "tsdb",
    /// A sample that a block has is refused as too old instead of known: its sender drops it (I15).
    KnownSampleRefused in "tsdb",
    /// Floats of two replicas at one timestamp are both kept (I2).
    BothSamplesKept in "tsdb",
    /// Keys of series have no tenant: one finds another's series (I13).
    TenantsShareKeys in "tsdb",

    /// One ack is enough for a sample (I1).
    OneAck in "node",
    /// A quorum is counted for the request and not for each sample (I1, R1).
    QuorumOfRequest in "node",
    /// Writes are acked before they are synced (R48).
    AckBeforeSync in "node",
    /// A node whose store has stopped goes on (R49).
    StoppedNodeGoesOn in "node",
    /// Hints are never kept.
    HintsNotKept in "node",
    /// Hints are removed before they are sent (R45).
    HintsRemovedUnsent in "node",
    /// Hints whose store isn't the owner any more go to one owner alone.
    HintsToOneOwner in "node",
    /// Hints are refused where they have become too old on the way.
    HintsRefusedAsOld in "node",
    /// Receivers let in writes that were routed by an older ring document (I7, I18).
    GateOpen in "node",
    /// An adoption doesn't wait for older writes that are under way (I18).
    AdoptionUnawaited in "node",
    /// An adopted document isn't in the ledger: a restart goes back (I7).
    AdoptionForgotten in "node",
    /// A store vouches for a placement before its blocks are listed (I18).
    VouchedUnlisted in "node",
    /// A drained node empties itself before its placements are closed (I1).
    DrainedTooEarly in "node",
    /// A newcomer founds a second history beside a cluster whose ring document is lost (I1, I7).
    FoundedBeside in "node",
    /// A store that lost samples doesn't disclaim (I18).
    LossNotDisclaimed in "node",
    /// A disk that was put back to an older state isn't noticed (I18).
    RollbackUnnoticed in "node",
    /// A store that may lack samples may say that another can be forgotten (I1).
    UnsoundMayForget in "node",
    /// A change of a catalog whose answer was lost is made again (I8).
    NonceIgnored in "node",
    /// Repair never pulls what is lacking (I1, I12).
    RepairNeverPulls in "node",

    /// One owner's answer is enough for a range (I11, I18).
    OneAnswer in "node",
    /// An answer counts though its store disclaims the placement (I11, I18).
    DisclaimedCounts in "node",
    /// A newer ring document that an answer tells of is ignored (I11, I18).
    NewerEpochIgnored in "node",
    /// Owners leave out listed blocks that the asker's catalog doesn't list (I11, I18).
    UnlistedLeftOut in "node",
    /// An owner doesn't say that it lacks a block that the asker's catalog doesn't list (I11, I18).
    StaleCatalogUntold in "node",
}
