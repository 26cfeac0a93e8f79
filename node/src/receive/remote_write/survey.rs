//! What a large message would take when decoded, counted before anything of it is: a body of fifty megabytes may hold
//! twenty million elements of two bytes each.
//!
//! Small messages aren't surveyed: what they hold is charged while they are decoded.

use super::BodyError;
use crate::receive::batch::{
    Batch, EXEMPLAR_BYTES, METADATA_BYTES, SAMPLE_BYTES, SERIES_BYTES, SYMBOL_BYTES, histogram_bytes,
};
use crate::receive::budget::DecodedBytes;
use crate::receive::wire::{Malformed, Reader};

/// Messages of fewer bytes aren't surveyed.
const SURVEYED_BYTES_MIN: usize = 1 << 20;

/// Which fields of a message, and of its series, hold what; 0 is no field's number.
pub(super) struct Layout {
    pub(super) series: u32,
    pub(super) symbols: u32,
    pub(super) metadata: u32,
    pub(super) samples: u32,
    pub(super) histograms: u32,
    pub(super) exemplars: u32,
}

/// Refuses a message whose parts are too many for `memory`; makes room in `batch` for those that aren't, so that nothing
/// is copied while it grows.
///
/// # Errors
/// When the message is broken, or needs too much.
pub(super) fn survey(
    plain: &[u8],
    layout: &Layout,
    memory: &DecodedBytes<'_>,
    batch: &mut Batch,
) -> Result<(), BodyError> {
    if plain.len() < SURVEYED_BYTES_MIN {
        return Ok(());
    }
    let (mut series, mut samples, mut others_bytes) = (0, 0, 0);
    let mut request = Reader::new(plain);
    while let Some((number, field)) = request.field()? {
        if number == layout.series {
            series += 1;
            let (more, bytes) = parts_of_series(field.bytes()?, layout)?;
            samples += more;
            others_bytes += bytes;
        } else if number == layout.symbols {
            others_bytes += SYMBOL_BYTES;
        } else if number == layout.metadata && !field.bytes()?.is_empty() {
            others_bytes += METADATA_BYTES;
        }
    }
    memory.check(series * SERIES_BYTES + samples * SAMPLE_BYTES + others_bytes)?;
    batch.keys.reserve_exact(series);
    batch.raw.reserve_exact(series);
    batch.appends.reserve_exact(samples);
    batch.owners.reserve_exact(samples);
    Ok(())
}

/// How many samples a series has, histograms among them, and what it holds beside them.
fn parts_of_series(bytes: &[u8], layout: &Layout) -> Result<(usize, usize), Malformed> {
    let (mut samples, mut others_bytes) = (0, 0);
    let mut fields = Reader::new(bytes);
    while let Some((number, field)) = fields.field()? {
        if number == layout.samples {
            samples += 1;
        } else if number == layout.histograms {
            samples += 1;
            others_bytes += histogram_bytes(field.bytes()?.len()) - SAMPLE_BYTES;
        } else if number == layout.exemplars {
            others_bytes += EXEMPLAR_BYTES;
        }
    }
    Ok((samples, others_bytes))
}
