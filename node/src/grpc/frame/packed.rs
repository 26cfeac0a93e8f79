//! Definitions of series, compressed: those of one request have most of their labels in common.
//!
//! ```text
//! | length u32 little-endian | zstd frame |      length: bytes when unpacked
//! ```
//! Without definitions there is nothing.

use tsdb::{Error, Result};

use crate::grpc::MESSAGE_BYTES_MAX;

/// Most bytes of a frame's definitions, unpacked. Frames are cut at a sixteenth of it; one series may be longer.
pub const SERIES_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// The cheapest; higher levels save little of text like this.
const LEVEL: i32 = 1;

/// Packs definitions.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let length = u32::try_from(bytes.len()).expect("frames are cut far below 4 GiB");
    let frame = zstd::bulk::compress(bytes, LEVEL).expect("memory is compressed into memory");
    [&length.to_le_bytes(), frame.as_slice()].concat()
}

/// Unpacks them.
///
/// # Errors
/// When they aren't as long as they say, or longer than [`SERIES_BYTES_MAX`].
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    if packed.is_empty() {
        return Ok(Vec::new());
    }
    let wrong = |why: &str| Error::corrupt("frame's series", 0, why);
    let (length, frame) = packed.split_first_chunk::<4>().ok_or_else(|| wrong("they are cut short"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > SERIES_BYTES_MAX {
        return Err(wrong("they say that they are longer than anybody sends"));
    }
    let bytes = zstd::bulk::decompress(frame, length).map_err(|_| wrong("they don't unpack"))?;
    if bytes.len() != length {
        return Err(wrong("they aren't as long as they say"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_unpack_and_nothing_is_nothing() {
        let text = b"http_requests_total instance=host-1:9100 ".repeat(100);
        let packed = pack(&text);
        assert!(packed.len() * 20 < text.len(), "{}", packed.len());
        assert_eq!(unpack(&packed).unwrap(), text);
        assert!(pack(&[]).is_empty() && unpack(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_length_that_is_wrong_or_beyond_the_limit_is_refused() {
        let mut packed = pack(b"text");
        for (length, said) in
            [(3, "unpack"), (5, "as long"), (SERIES_BYTES_MAX as u32 + 1, "longer than anybody")]
        {
            packed[..4].copy_from_slice(&u32::to_le_bytes(length));
            let error = unpack(&packed).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(unpack(&packed[..3]).unwrap_err().to_string().contains("cut short"));
    }
}
