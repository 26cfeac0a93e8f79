//! One shard on its way back, on whichever thread: from its checkpoint, through its records, to its series by label.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ulid::Ulid;

use super::super::log::CutMark;
use super::super::maintain::ShardFiles;
use super::super::settings::DbSettings;
use super::super::types::{Append, Bounds};
use super::by_label::ByLabel;
use crate::chunk::Writes;
use crate::disk::Disk;
use crate::head::append::Terms;
use crate::head::checkpoint::Checkpoint;
use crate::head::chunks::FilesEnd;
use crate::head::rule::RANGE_MS;
use crate::head::shard::Shard;
use crate::model::{Sample, Value};
use crate::wal::record::exemplars::Exemplars;
use crate::wal::record::floats::{FloatSample, Floats};
use crate::wal::record::metadata::MetadataRecords;
use crate::wal::record::samples;
use crate::wal::record::series::Series;
use crate::wal::{RecordKind, RecordRef};
use crate::{Error, Result, files};

/// A shard that isn't whole yet.
pub(super) struct RestoringShard {
    pub(super) shard: Shard,
    pub(super) files: ShardFiles,
    /// Highest of any series.
    pub(super) generation: u32,
    /// Samples taken from the WAL, and those of series that nobody defines.
    pub(super) samples: u64,
    pub(super) orphans: u64,
    /// Finished chunks that can't be read: tenant, times, error.
    pub(super) unreadable: Vec<(u32, RangeInclusive<i64>, Error)>,
    /// Cuts met in the replay whose block is there: before this, in milliseconds, a tenant's samples are in blocks.
    pub(super) cut_until_ms: BTreeMap<u32, i64>,
    /// Samples of the record at hand.
    batch: Vec<Append>,
}

/// What a shard has to know of a tenant.
pub(super) struct Known<'a> {
    pub(super) tenant: u32,
    /// What the checkpoints say.
    pub(super) cut_until_ms: i64,
    /// Blocks that are there.
    pub(super) ulids: &'a BTreeSet<Ulid>,
}

/// A checkpoint whose checksum is right, still to be read.
pub(super) struct Chosen {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    pub(super) bytes: Bytes,
    /// Indices of its tenants.
    pub(super) tenants: Vec<u32>,
}

impl RestoringShard {
    /// Opens shard `index` as a checkpoint has it, or without one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the checkpoint can't be read after all; [`Error::Io`].
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        index: usize,
        bits: u32,
        settings: &DbSettings,
        chosen: Option<&Chosen>,
    ) -> Result<Self> {
        let shard = Shard::new(Arc::clone(disk), files::head_shard(index), index as u32, bits, settings);
        let mut this = Self {
            shard,
            files: ShardFiles { next: 1, ..ShardFiles::default() },
            generation: 0,
            samples: 0,
            orphans: 0,
            unreadable: Vec::new(),
            cut_until_ms: BTreeMap::new(),
            batch: Vec::new(),
        };
        match chosen {
            None => this.shard.open_chunks(FilesEnd::default())?,
            Some(chosen) => this.load(chosen).map_err(|error| error.in_file(&chosen.path))?,
        }
        Ok(this)
    }

    fn load(&mut self, chosen: &Chosen) -> Result<()> {
        let shard = &mut self.shard;
        let checkpoint = Checkpoint::open_checked(&chosen.bytes, shard.index())?;
        let header = checkpoint.header.clone();
        shard.open_chunks(header.files_end)?;
        checkpoint.restore(shard, &chosen.tenants)?;
        shard.logged = header.position;
        self.unreadable = shard.drop_unreadable();
        self.generation = header.generation;
        self.files.kept = Some((chosen.number, header.position));
        Ok(())
    }

    /// Whether the checkpoint lacks a record. Definitions are always taken: samples behind it may need them.
    pub(super) fn lacks(&self, record: &RecordRef<'_>) -> bool {
        record.kind == RecordKind::Series || record.end > self.shard.logged
    }

    /// Takes a record of the WAL that the checkpoint lacks.
    ///
    /// # Errors
    /// [`Error::Corrupt`]: the log has checked its bytes, so a newer version wrote it, or there is a bug.
    pub(super) fn take(&mut self, known: &Known<'_>, record: &RecordRef<'_>) -> Result<()> {
        let Self { shard, batch, .. } = self;
        let tenant = known.tenant;
        batch.clear();
        match record.kind {
            RecordKind::Series => {
                for definition in Series::new(record.payload) {
                    let (series, labels) = definition?;
                    self.generation = self.generation.max(series.generation());
                    shard.add_as(series, tenant, &labels)?;
                }
            }
            RecordKind::Floats => {
                for sample in Floats::new(record.payload) {
                    let FloatSample { series, timestamp_ms, start_ms, value } = sample?;
                    let sample = Sample { timestamp_ms, start_ms, value: Value::Float(value) };
                    batch.push(Append { series, sample });
                }
            }
            RecordKind::Samples => {
                for sample in samples::read(record.payload)? {
                    let (series, sample) = sample?;
                    batch.push(Append { series, sample });
                }
            }
            RecordKind::Exemplars => {
                for exemplar in Exemplars::new(record.payload) {
                    let (series, exemplar) = exemplar?;
                    shard.exemplars.push(series, exemplar);
                }
            }
            RecordKind::Metadata => {
                for metadata in MetadataRecords::new(record.payload) {
                    shard.metadata.set(tenant, metadata?);
                }
            }
            RecordKind::Shard => {
                let mark = CutMark::decode(record.payload)?;
                if known.ulids.contains(&mark.block) {
                    shard.drop_cut(tenant, mark.start_ms);
                    let until_ms = self.cut_until_ms.entry(tenant).or_insert(known.cut_until_ms);
                    *until_ms = (*until_ms).max(mark.start_ms + RANGE_MS);
                }
            }
        }
        if !batch.is_empty() {
            let cut_until_ms = self.cut_until_ms.get(&tenant).copied().unwrap_or(known.cut_until_ms);
            if planted::is(planted::Bug::LateSamplesNotReplayed) {
                batch.retain(|append| append.sample.timestamp_ms >= cut_until_ms);
            }
            // What the WAL has was kept when it came.
            let writes = Writes::WithStarts;
            let terms = Terms { tenant, bounds: Bounds::ALL, cut_until_ms, segment: 0, writes };
            self.samples += batch.len() as u64;
            self.orphans += shard.replay(terms, batch);
        }
        Ok(())
    }

    /// Ends the replay: series without samples go.
    pub(super) fn finish(&mut self) -> ByLabel {
        self.batch = Vec::new();
        self.shard.drop_empty();
        ByLabel::new(&self.shard)
    }
}
