//! Frames with a checksum around them.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use prost::Message;
use proto::peer::read::Sealed;

use super::Malformed;

/// A frame as it travels.
pub fn seal(frame: &impl Message) -> Sealed {
    let body = Bytes::from(frame.encode_to_vec());
    Sealed { crc32c: crc(&body), body }
}

/// The frame inside.
///
/// # Errors
/// When it was damaged on its way, or isn't such a frame.
pub fn open<M: Message + Default>(sealed: Sealed) -> Result<M, Malformed> {
    if crc(&sealed.body) != sealed.crc32c {
        return Err(Malformed::new("the checksum is wrong"));
    }
    M::decode(sealed.body).map_err(|e| Malformed::new(e.to_string()))
}

#[allow(clippy::cast_possible_truncation, reason = "a checksum of 32 bits")]
fn crc(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use proto::peer::read::Opening;

    use super::*;

    #[test]
    fn what_was_damaged_is_refused() {
        let opening = Opening { epoch: 7, disclaimed: vec![3], stale_catalog: None };
        let sealed = seal(&opening);
        assert_eq!(open::<Opening>(sealed.clone()).unwrap(), opening);
        for at in 0..sealed.body.len() {
            let mut body = sealed.body.to_vec();
            body[at] ^= 0x10;
            assert!(open::<Opening>(Sealed { body: body.into(), ..sealed }).is_err());
        }
    }
}
