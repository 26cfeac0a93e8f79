//! Remote write 2.0: from a body to a batch. Strings stand once in a table, and everything else refers to them.
//!
//! 1. One pass finds the table, wherever in the message its parts are: only offsets are noted.
//! 2. A second pass reads the series. Labels are spelled out one behind the other as remote write 1.0 has them, so that
//!    they have the same key whichever way they come, and are parsed by the same code if they are new. What is spelled
//!    out is taken from the request's memory: a few bytes of references may stand for many of text.
//! 3. What families say of themselves comes with every series, and is kept once.
//!
//! A series that refers to nothing, or breaks another rule of the format, is refused by itself; the others are taken.

use tsdb::db::{Exemplar, Metadata};

use super::survey::{Layout, survey};
use super::{BodyError, KINDS, sample};
use crate::receive::batch::{
    Batch, EXEMPLAR_BYTES, Family, METADATA_BYTES, Raw, SAMPLE_BYTES, SERIES_BYTES, SYMBOL_BYTES,
    SeriesHasher, histogram_bytes,
};
use crate::receive::budget::DecodedBytes;
use crate::receive::wire::{Malformed, Reader};
use crate::receive::{histogram, labels};
use tsdb::varint;

/// The symbol that stands for "nothing".
const NOTHING: u64 = 0;

/// Room that a label takes besides its texts: tags and lengths, at most.
const LABEL_FRAME_BYTES: usize = 3 * (1 + 5);

/// Where its parts are.
const LAYOUT: Layout = Layout { series: 5, symbols: 4, metadata: 0, samples: 2, histograms: 3, exemplars: 4 };

/// Decodes a message `io.prometheus.write.v2.Request` into `batch`, whose growth is taken from `memory` beforehand.
///
/// # Errors
/// When the message is broken or needs too much memory; the batch is then of no use.
pub fn decode<'a>(
    plain: &'a [u8],
    hasher: &'a SeriesHasher,
    memory: &'a mut DecodedBytes<'a>,
    batch: &'a mut Batch,
) -> Result<(), BodyError> {
    survey(plain, &LAYOUT, memory, batch)?;
    let mut decoder = Decoder { plain, hasher, batch, memory };
    decoder.symbols()?;
    let mut request = Reader::new(plain);
    let mut index = 0;
    while let Some((number, field)) = request.field()? {
        if number == 5 {
            decoder.series(index, field.bytes()?)?;
            index += 1;
        }
    }
    decoder.families()
}

struct Decoder<'a> {
    plain: &'a [u8],
    hasher: &'a SeriesHasher,
    batch: &'a mut Batch,
    memory: &'a mut DecodedBytes<'a>,
}

/// What a series refers to, in the order of its fields.
#[derive(Default)]
struct Parts {
    floats: u64,
    histograms: u64,
    exemplars: u64,
    /// Which symbol is the metric's name.
    metric: Option<u64>,
    kind: u64,
    help: u64,
    unit: u64,
    /// Of all samples that have none of their own: where drafts of the format up to 2.0-rc.3 put it.
    start_ms: i64,
}

impl<'a> Decoder<'a> {
    /// Notes where each symbol is.
    fn symbols(&mut self) -> Result<(), BodyError> {
        let mut request = Reader::new(self.plain);
        while let Some((number, field)) = request.field()? {
            if number != 4 {
                continue;
            }
            let symbol = field.bytes()?;
            if self.batch.symbols.is_empty() && !symbol.is_empty() {
                return Err(Malformed::Symbols.into());
            }
            self.memory.take(SYMBOL_BYTES)?;
            let end = request.position();
            self.batch.symbols.push(((end - symbol.len()) as u32, end as u32));
        }
        Ok(())
    }

    /// A symbol's text, or why there is none.
    fn symbol(&self, reference: u64) -> Result<&'a [u8], String> {
        let at = usize::try_from(reference).ok().and_then(|at| self.batch.symbols.get(at));
        let (start, end) = at.ok_or_else(|| {
            format!("it refers to symbol {reference}, but there are {}", self.batch.symbols.len())
        })?;
        Ok(&self.plain[*start as usize..*end as usize])
    }

    /// The message `TimeSeries` that comes `index`th.
    fn series(&mut self, index: usize, bytes: &[u8]) -> Result<(), BodyError> {
        self.memory.take(SERIES_BYTES)?;
        let owner = u32::try_from(self.batch.keys.len()).map_err(|_| Malformed::TooMany)?;
        let batch = &*self.batch;
        let before = (batch.appends.len(), batch.exemplars.len(), batch.refused.mark(), batch.gathered.len());
        let mut parts = Parts::default();
        let wrong = match self.read(bytes, owner, &mut parts)? {
            Err(why) => Some(why),
            Ok(()) if parts.floats > 0 && parts.histograms > 0 => {
                Some("it has both samples and histograms".to_owned())
            }
            // Prometheus sends exemplars as series of their own.
            Ok(()) if parts.floats + parts.histograms + parts.exemplars == 0 => {
                Some("it has neither samples nor histograms".to_owned())
            }
            Ok(()) => None,
        };
        let (appends, exemplars, refused, gathered) = before;
        if let Some(why) = wrong {
            let metric = parts.metric.and_then(|at| self.symbol(at).ok());
            let describe = || {
                let metric = metric.map_or_else(String::new, |name| {
                    format!(" ({})", labels::quoted(&String::from_utf8_lossy(name)))
                });
                format!("series {index} of the request{metric}: {why}")
            };
            let batch = &mut *self.batch;
            batch.appends.truncate(appends);
            batch.owners.truncate(appends);
            batch.exemplars.truncate(exemplars);
            batch.refused.truncate(refused);
            batch.gathered.truncate(gathered);
            let count = (parts.floats + parts.histograms).max(1);
            batch.refused.push(None, count, describe);
            return Ok(());
        }
        let batch = &mut *self.batch;
        if parts.start_ms != 0 {
            let unset = batch.appends[appends..].iter_mut().filter(|append| append.sample.start_ms == 0);
            unset.for_each(|append| append.sample.start_ms = parts.start_ms);
        }
        let raw = gathered as u32..batch.gathered.len() as u32;
        let key = self.hasher.key(&batch.gathered[gathered..]);
        batch.push_series(key, Raw::Gathered(raw));
        self.metadata(owner, &parts)
    }

    /// Reads a series' fields; its labels are spelled out. `Ok(Err)` is why it can't be taken.
    fn read(&mut self, bytes: &[u8], owner: u32, parts: &mut Parts) -> Result<Result<(), String>, BodyError> {
        let mut wrong = None;
        let mut name = None;
        let mut fields = Reader::new(bytes);
        while let Some((number, field)) = fields.field()? {
            match number {
                1 => {
                    let mut full = Ok(());
                    field.varints(|reference| {
                        if wrong.is_some() || full.is_err() {
                            return;
                        }
                        match (self.symbol(reference), name.take()) {
                            (Err(why), _) => wrong = Some(why),
                            (Ok(text), None) => name = Some(text),
                            (Ok(text), Some(name)) => {
                                if name == b"__name__" {
                                    parts.metric = Some(reference);
                                }
                                full = self.label(name, text);
                            }
                        }
                    })?;
                    full?;
                }
                2 => {
                    parts.floats += 1;
                    self.memory.take(SAMPLE_BYTES)?;
                    self.batch.push_sample(owner, sample::<true>(field.bytes()?)?);
                }
                3 => {
                    parts.histograms += 1;
                    let message = field.bytes()?;
                    self.memory.take(histogram_bytes(message.len()))?;
                    match histogram::decode::<true>(message)? {
                        Ok(sample) => self.batch.push_sample(owner, sample),
                        Err(why) => self.batch.refuse(owner, why),
                    }
                }
                4 => {
                    parts.exemplars += 1;
                    self.exemplar(field.bytes()?, owner)?;
                }
                5 => {
                    let mut metadata = Reader::new(field.bytes()?);
                    while let Some((number, field)) = metadata.field()? {
                        match number {
                            1 => parts.kind = field.varint()?,
                            3 => parts.help = field.varint()?,
                            4 => parts.unit = field.varint()?,
                            _ => {}
                        }
                    }
                }
                6 => parts.start_ms = field.varint()? as i64,
                _ => {}
            }
        }
        Ok(match (wrong, name) {
            (Some(why), _) => Err(why),
            (None, Some(_)) => Err("its label references are odd in number".to_owned()),
            (None, None) => Ok(()),
        })
    }

    /// Spells a label out: field 1 of remote write 1.0's `TimeSeries`.
    #[inline]
    fn label(&mut self, name: &[u8], value: &[u8]) -> Result<(), BodyError> {
        self.memory.take(LABEL_FRAME_BYTES + name.len() + value.len())?;
        let out = &mut self.batch.gathered;
        let part_bytes = |text: &[u8]| 1 + varint_bytes(text.len()) + text.len();
        out.push(0x0a);
        varint::put(out, (part_bytes(name) + part_bytes(value)) as u64);
        for (tag, text) in [(0x0a, name), (0x12, value)] {
            out.push(tag);
            varint::put(out, text.len() as u64);
            out.extend_from_slice(text);
        }
        Ok(())
    }

    fn exemplar(&mut self, bytes: &[u8], owner: u32) -> Result<(), BodyError> {
        self.memory.take(EXEMPLAR_BYTES)?;
        let (mut value, mut timestamp_ms) = (0.0, 0);
        let mut texts = Vec::new();
        let mut wrong = None;
        let mut fields = Reader::new(bytes);
        while let Some((number, field)) = fields.field()? {
            match number {
                1 => {
                    let mut full = Ok(());
                    field.varints(|reference| {
                        if wrong.is_some() || full.is_err() {
                            return;
                        }
                        match self.symbol(reference) {
                            Ok(text) => {
                                full = self.memory.take(labels::PAIR_BYTES + text.len());
                                texts.push(text);
                            }
                            Err(why) => wrong = Some(why),
                        }
                    })?;
                    full?;
                }
                2 => value = field.double()?,
                3 => timestamp_ms = field.varint()? as i64,
                _ => {}
            }
        }
        let (pairs, rest) = texts.as_chunks::<2>();
        let judged = match wrong {
            Some(why) => Err(format!("exemplar: {why}")),
            None if !rest.is_empty() => Err("exemplar: its label references are odd in number".to_owned()),
            None if timestamp_ms == 0 => Err("exemplar has no timestamp".to_owned()),
            None => labels::of_exemplar(pairs.iter().map(|[name, value]| (*name, *value))),
        };
        match judged {
            Ok(labels) => self.batch.exemplars.push((owner, Exemplar { timestamp_ms, value, labels })),
            Err(why) => self.batch.refuse(owner, why),
        }
        Ok(())
    }

    /// Notes what a series says of its family.
    fn metadata(&mut self, owner: u32, parts: &Parts) -> Result<(), BodyError> {
        if (parts.kind, parts.help, parts.unit) == (0, NOTHING, NOTHING) {
            return Ok(());
        }
        for reference in [parts.help, parts.unit] {
            if let Err(why) = self.symbol(reference) {
                self.batch.refuse(owner, format!("metadata: {why}"));
                return Ok(());
            }
        }
        // A series without a name is refused when its labels are looked at.
        let Some(metric) = parts.metric else { return Ok(()) };
        let kind = usize::try_from(parts.kind).ok().filter(|kind| *kind < KINDS.len()).unwrap_or(0);
        let (start, end) = self.batch.symbols[metric as usize];
        let name = family_of(&self.plain[start as usize..end as usize], KINDS[kind]);
        let family = Family {
            name: (start, start + name.len() as u32),
            kind: kind as u8,
            help: parts.help as u32,
            unit: parts.unit as u32,
        };
        if self.batch.families.last() != Some(&family) {
            self.memory.take(size_of::<Family>())?;
            self.batch.families.push(family);
        }
        Ok(())
    }

    /// Spells out what families say of themselves, each word once.
    fn families(self) -> Result<(), BodyError> {
        let mut families = std::mem::take(&mut self.batch.families);
        let text = |(start, end): (u32, u32)| &self.plain[start as usize..end as usize];
        // One family may be named by several symbols, of which it is the beginning.
        let key = |family: &Family| (text(family.name), family.kind, family.help, family.unit);
        families.sort_unstable_by_key(key);
        families.dedup_by(|a, b| key(a) == key(b));
        for family in &families {
            let [help, unit] = [family.help, family.unit].map(|at| text(self.batch.symbols[at as usize]));
            let name = text(family.name);
            self.memory.take(METADATA_BYTES + name.len() + help.len() + unit.len())?;
            let owned = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.batch.metadata.push(Metadata {
                family: owned(name),
                kind: KINDS[usize::from(family.kind)].to_owned(),
                help: owned(help),
                unit: owned(unit),
            });
        }
        // Its memory is for the next request.
        self.batch.families = families;
        Ok(())
    }
}

/// The family that a series of this name belongs to: histograms and summaries have several series.
fn family_of<'t>(name: &'t [u8], kind: &str) -> &'t [u8] {
    let suffixes: &[&[u8]] = match kind {
        "histogram" => &[b"_bucket", b"_count", b"_sum"],
        "gaugehistogram" => &[b"_bucket", b"_gcount", b"_gsum"],
        "summary" => &[b"_count", b"_sum"],
        _ => &[],
    };
    let stripped = suffixes.iter().find_map(|suffix| name.strip_suffix(*suffix));
    stripped.filter(|family| !family.is_empty()).unwrap_or(name)
}

fn varint_bytes(value: usize) -> usize {
    (value | 1).ilog2() as usize / 7 + 1
}

#[cfg(test)]
mod tests;
