//! A checkpoint: what a shard holds in memory only, so that a restart reads the WAL from here on.
//!
//! It names finished chunks by their position in the head-chunk files, which are synced before it is written; it is
//! written beside its predecessor, synced, and renamed. The predecessor stays, with the WAL that it needs, for the case
//! that this one can't be read.
//!
//! ```text
//! magic "CRLK" | version u8 | shard u8 | log2(shards) u8
//! WAL position (segment, offset) | head-chunk files' end (file, length) | generation
//! tenants     count | (id, cut until ms) ...                     later parts name tenants by their place here
//! symbols     count | bytes | (length, text) ...
//! series      count | (slot, generation, tenant, hash u64 LE, pairs, symbols..., newest ms, pace (ms, steps),
//!                      open chunk, finished chunks: count, u64 LE each,
//!                      late samples: chunks; count, (position, min ms, max ms) each) ...
//! exemplars   count | (ref, ms, value u64 LE, labels) ...
//! metadata    count | (tenant, family, kind, help, unit) ...
//! crc32c of everything before, u32 LE
//! chunk = encoding u8 (0 = none, and nothing follows) | min ms | max ms | bytes
//! ```
//! Numbers without a width are varints, zigzag where they are times; texts and bytes have their length in front.

use super::chunks::{FilesEnd, Position, crc32c};
use super::coding::{Reader, put_bytes};
use super::late::{Late, LateChunk};
use super::open::{Finished, OpenChunk};
use super::reference::SeriesRef;
use super::rule::Pace;
use super::series::{MemSeries, SealedRef};
use super::shard::Shard;
use crate::chunk::{Decoder, Encoding};
use crate::db::{Exemplar, Metadata};
use crate::model::{Labels, TenantId};
use crate::select::Chunk;
use crate::varint;
use crate::wal::WalPosition;
use crate::{Error, Result};

const MAGIC: &[u8; 4] = b"CRLK";
const VERSION: u8 = 1;

/// What a checkpoint says besides the shard's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointHeader {
    /// log2 of the number of shards.
    pub(crate) bits: u32,
    /// Records of the shard that end at or before this are in it.
    pub(crate) position: WalPosition,
    pub(crate) files_end: FilesEnd,
    /// No series was made in a later generation.
    pub(crate) generation: u32,
}

/// A tenant as a checkpoint names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointTenant {
    pub(crate) id: TenantId,
    /// The tenant's samples before this, in milliseconds, are in blocks.
    pub(crate) cut_until_ms: i64,
}

/// Writes a shard down; its head-chunk files are flushed. `tenant` tells who a tenant's index is.
pub(crate) fn encode(
    shard: &Shard,
    header: &CheckpointHeader,
    tenant: &mut dyn FnMut(u32) -> CheckpointTenant,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(shard.slots.len() * 256 + 1024);
    out.extend_from_slice(MAGIC);
    out.extend([VERSION, shard.index() as u8, header.bits as u8]);
    varint::put(&mut out, header.position.to_u64());
    varint::put(&mut out, header.files_end.file.into());
    varint::put(&mut out, header.files_end.length.into());
    varint::put(&mut out, header.generation.into());

    let mut indices: Vec<u32> = shard.slots.iter().map(|(_, s)| s.tenant).collect();
    indices.extend(shard.metadata.iter().map(|(tenant, _)| tenant));
    indices.sort_unstable();
    indices.dedup();
    let place = |index: u32| indices.binary_search(&index).expect("all tenants were gathered") as u64;
    varint::put(&mut out, indices.len() as u64);
    for index in &indices {
        let tenant = tenant(*index);
        put_bytes(&mut out, tenant.id.as_str().as_bytes());
        varint::put_signed(&mut out, tenant.cut_until_ms);
    }

    let symbols = shard.labels.symbols();
    varint::put(&mut out, symbols.len() as u64);
    symbols.for_each(|symbol| out.extend_from_slice(symbol));

    varint::put(&mut out, shard.slots.len() as u64);
    for (slot, series) in shard.slots.iter() {
        varint::put(&mut out, slot.into());
        varint::put(&mut out, place(series.tenant));
        put_series(&mut out, shard, series);
    }

    varint::put(&mut out, shard.exemplars.iter().len() as u64);
    for (series, exemplar) in shard.exemplars.iter() {
        varint::put(&mut out, series.to_u64());
        varint::put_signed(&mut out, exemplar.timestamp_ms);
        out.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
        put_bytes(&mut out, exemplar.labels.as_bytes());
    }
    varint::put(&mut out, shard.metadata.iter().len() as u64);
    for (tenant, metadata) in shard.metadata.iter() {
        varint::put(&mut out, place(tenant));
        for text in [&metadata.family, &metadata.kind, &metadata.help, &metadata.unit] {
            put_bytes(&mut out, text.as_bytes());
        }
    }
    let checksum = crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

fn put_series(out: &mut Vec<u8>, shard: &Shard, series: &MemSeries) {
    varint::put(out, series.generation.into());
    out.extend_from_slice(&series.hash.to_le_bytes());
    let symbols = shard.labels.run(series.labels);
    varint::put(out, symbols.len() as u64);
    symbols.iter().for_each(|symbol| varint::put(out, (*symbol).into()));
    varint::put_signed(out, series.newest_ms);
    let (least_step_ms, steps) = series.open.pace().to_parts();
    varint::put(out, least_step_ms.into());
    out.push(steps);
    match series.open.finished() {
        Some(open) => put_chunk(out, open),
        None => out.push(0),
    }
    varint::put(out, series.sealed.len() as u64);
    series.sealed.iter().for_each(|sealed| out.extend_from_slice(&sealed.to_u64().to_le_bytes()));
    let buffered = series.late.as_ref().map(|late| late.buffered_chunks()).unwrap_or_default();
    varint::put(out, buffered.len() as u64);
    for Chunk { min_ms, max_ms, encoding, data } in &buffered {
        put_chunk(out, Finished { encoding: *encoding, min_ms: *min_ms, max_ms: *max_ms, bytes: data });
    }
    let sealed = series.late.as_ref().map(|late| &late.sealed[..]).unwrap_or_default();
    varint::put(out, sealed.len() as u64);
    for chunk in sealed {
        varint::put(out, chunk.at.0.into());
        varint::put_signed(out, chunk.min_ms);
        varint::put_signed(out, chunk.max_ms);
    }
}

fn put_chunk(out: &mut Vec<u8>, chunk: Finished<'_>) {
    out.push(chunk.encoding as u8);
    varint::put_signed(out, chunk.min_ms);
    varint::put_signed(out, chunk.max_ms);
    put_bytes(out, chunk.bytes);
}

/// A checkpoint whose checksum is right.
pub(crate) struct Checkpoint<'a> {
    pub(crate) header: CheckpointHeader,
    pub(crate) tenants: Vec<CheckpointTenant>,
    body: Reader<'a>,
}

fn wrong(reason: &str) -> Error {
    Error::corrupt("checkpoint", 0, reason)
}

/// What is checked, and the checksum behind it.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8; 4])> {
    bytes.split_last_chunk::<4>().ok_or_else(|| wrong("it is cut short"))
}

impl<'a> Checkpoint<'a> {
    /// Checks the bytes of a checkpoint of shard `index` and reads its beginning.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Invalid`] when a newer version wrote it.
    pub(crate) fn open(bytes: &'a [u8], index: u32) -> Result<Self> {
        let (body, checksum) = split(bytes)?;
        if crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err(wrong("its checksum is wrong"));
        }
        Self::read(body, index)
    }

    /// As [`Checkpoint::open`], of bytes that it has checked already.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`].
    pub(crate) fn open_checked(bytes: &'a [u8], index: u32) -> Result<Self> {
        Self::read(split(bytes)?.0, index)
    }

    fn read(body: &'a [u8], index: u32) -> Result<Self> {
        let mut reader = Reader::new("checkpoint", body);
        if reader.take(4)? != MAGIC {
            return Err(wrong("it isn't one"));
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Error::Invalid(format!(
                "a checkpoint has version {version}, which this program can't read"
            )));
        }
        if u32::from(reader.u8()?) != index {
            return Err(wrong("it belongs to another shard"));
        }
        let header = CheckpointHeader {
            bits: reader.u8()?.into(),
            position: WalPosition::from_u64(reader.uvarint()?),
            files_end: FilesEnd { file: reader.u32()?, length: reader.u32()? },
            generation: reader.u32()?,
        };
        let mut tenants = Vec::new();
        for _ in 0..reader.uvarint()? {
            let id = TenantId::new(reader.text()?).map_err(|_| reader.wrong("a tenant's id is none"))?;
            tenants.push(CheckpointTenant { id, cut_until_ms: reader.varint()? });
        }
        Ok(Self { header, tenants, body: reader })
    }

    /// Fills an empty shard, whose head-chunk files are open; `tenants` are the indices of [`Checkpoint::tenants`].
    ///
    /// # Errors
    /// [`Error::Corrupt`]: the shard is then to be thrown away.
    pub(crate) fn restore(mut self, shard: &mut Shard, tenants: &[u32]) -> Result<()> {
        let reader = &mut self.body;
        let tenant = |reader: &mut Reader<'_>| -> Result<u32> {
            let place = reader.uvarint()? as usize;
            tenants.get(place).copied().ok_or_else(|| reader.wrong("a tenant isn't listed"))
        };
        for number in 0..reader.uvarint()? {
            let mut encoded = Vec::new();
            put_bytes(&mut encoded, reader.text()?.as_bytes());
            if u64::from(shard.labels.intern(&encoded)) != number {
                return Err(reader.wrong("a symbol occurs twice"));
            }
        }
        for _ in 0..reader.uvarint()? {
            let slot = reader.u32()?;
            let tenant = tenant(reader)?;
            let series = take_series(reader, shard, tenant)?;
            if !shard.restore(slot, series) {
                return Err(reader.wrong("a slot is taken twice"));
            }
        }
        for _ in 0..reader.uvarint()? {
            let series = SeriesRef::from_u64(reader.uvarint()?);
            let timestamp_ms = reader.varint()?;
            let value = f64::from_bits(reader.fixed64()?);
            let labels = Labels::from_bytes(reader.bytes()?)?;
            shard.exemplars.push(series, Exemplar { timestamp_ms, value, labels });
        }
        for _ in 0..reader.uvarint()? {
            let tenant = tenant(reader)?;
            let mut text = || reader.text().map(str::to_owned);
            let metadata = Metadata { family: text()?, kind: text()?, help: text()?, unit: text()? };
            shard.metadata.set(tenant, metadata);
        }
        if reader.is_empty() { Ok(()) } else { Err(reader.wrong("something stands behind the end")) }
    }
}

fn take_series(reader: &mut Reader<'_>, shard: &mut Shard, tenant: u32) -> Result<MemSeries> {
    let generation = reader.u32()?;
    let hash = reader.fixed64()?;
    let mut symbols = Vec::new();
    for _ in 0..reader.uvarint()? {
        symbols.push(reader.u32()?);
    }
    let mut series = MemSeries::new(tenant, generation, hash, shard.labels.add_run(&symbols)?);
    series.newest_ms = reader.varint()?;
    let pace = Pace::from_parts(reader.u32()?, reader.u8()?)?;
    series.open = OpenChunk::resume(pace, take_chunk(reader)?)?;
    for _ in 0..reader.uvarint()? {
        series.sealed.push(SealedRef::from_u64(reader.fixed64()?));
    }
    series.sealed.shrink_to_fit();
    let mut late = Late::default();
    for _ in 0..reader.uvarint()? {
        let chunk = take_chunk(reader)?.ok_or_else(|| reader.wrong("a chunk is missing"))?;
        for sample in Decoder::new(chunk.encoding, chunk.bytes)? {
            late.buffer.push(sample?);
        }
    }
    for _ in 0..reader.uvarint()? {
        let at = Position(reader.u32()?);
        late.sealed.push(LateChunk {
            at,
            min_ms: reader.varint()?,
            max_ms: reader.varint()?,
            is_frozen: false,
        });
    }
    series.late = (!late.is_empty()).then(|| Box::new(late));
    Ok(series)
}

fn take_chunk<'a>(reader: &mut Reader<'a>) -> Result<Option<Finished<'a>>> {
    let encoding = reader.u8()?;
    if encoding == 0 {
        return Ok(None);
    }
    let encoding =
        Encoding::from_byte(encoding).ok_or_else(|| reader.wrong("a chunk's encoding is unknown"))?;
    Ok(Some(Finished {
        encoding,
        min_ms: reader.varint()?,
        max_ms: reader.varint()?,
        bytes: reader.bytes()?,
    }))
}
