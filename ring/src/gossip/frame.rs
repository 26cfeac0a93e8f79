//! What stands around a gossip message on its way, and what a message may hold.
//!
//! ```text
//! 0         1          17        33              41           49     65       66
//! | version | cluster  | store   | incarnation   | instance   | to   | length | address…  | message…
//!   1         16         16        8               8            16     1        length
//! ```
//!
//! Numbers are big-endian. `store`, `incarnation`, `instance` (a random number of this start) and `address` say who
//! sends; `to` is the store meant, 0 for whoever listens there. What follows is a message of chitchat 0.11, which is
//! looked through before chitchat sees it: it applies what anybody sends, allocates what it is told to, and unpacks
//! 64 KiB of zeros from 19 bytes.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::{ClusterId, StoreId};

/// Version of the frame.
pub const VERSION: u8 = 1;

/// Longest message of chitchat: the payload of a UDP datagram.
const MAX_MESSAGE_BYTES: usize = 65_507;

/// Longest frame.
pub const MAX_FRAME_BYTES: usize = HEADER_BYTES + u8::MAX as usize + MAX_MESSAGE_BYTES;

/// Most compressed blocks in a message; each unpacks to 64 KiB at most. Ours hold 16 KiB: what 1,000 members say of
/// themselves takes 20.
const MAX_BLOCKS: usize = 24;

/// Most members, dead ones and earlier starts among them, that gossip may know: a list of more doesn't fit into one
/// message.
pub const MAX_KNOWN: usize = 512;

const HEADER_BYTES: usize = 66;

/// The port of a store's made-up address.
const MEMBER_PORT: u16 = 1;

/// A frame, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) cluster: ClusterId,
    pub(super) store: StoreId,
    pub(super) incarnation: u64,
    pub(super) instance: u64,
    pub(super) to: Option<StoreId>,
    pub(super) address: &'a str,
    pub(super) message: &'a [u8],
}

/// Why bytes aren't a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    Version(u8),
    Garbage(&'static str),
}

impl<'a> Frame<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.address.len() + self.message.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.cluster.0.to_be_bytes());
        bytes.extend_from_slice(&self.store.0.to_be_bytes());
        bytes.extend_from_slice(&self.incarnation.to_be_bytes());
        bytes.extend_from_slice(&self.instance.to_be_bytes());
        bytes.extend_from_slice(&self.to.map_or(0, |store| store.0).to_be_bytes());
        bytes.push(self.address.len() as u8);
        bytes.extend_from_slice(self.address.as_bytes());
        bytes.extend_from_slice(self.message);
        bytes
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader(bytes);
        let version = reader.number::<1>()? as u8;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(Unreadable::Garbage("it is too long"));
        }
        let cluster = ClusterId(reader.number::<16>()?);
        let store = StoreId(reader.number::<16>()?);
        let incarnation = reader.number::<8>()? as u64;
        let instance = reader.number::<8>()? as u64;
        let to = reader.number::<16>()?;
        let length = reader.number::<1>()? as usize;
        let address = std::str::from_utf8(reader.take(length)?)
            .map_err(|_| Unreadable::Garbage("an address isn't text"))?;
        let to = (to != 0).then_some(StoreId(to));
        Ok(Self { cluster, store, incarnation, instance, to, address, message: reader.0 })
    }
}

/// The made-up address by which chitchat knows a store: where it really is, the address book says.
pub(super) fn address_of(store: StoreId) -> SocketAddr {
    SocketAddrV6::new(Ipv6Addr::from(store.0), MEMBER_PORT, 0, 0).into()
}

/// The store of a made-up address.
pub(super) fn store_at(address: &SocketAddr) -> Option<StoreId> {
    match address {
        SocketAddr::V6(v6) if v6.port() == MEMBER_PORT => Some(StoreId(v6.ip().to_bits())),
        _ => None,
    }
}

/// What chitchat calls a store.
pub(super) fn short_name(store: StoreId) -> String {
    format!("{:08x}", store.0 >> 96)
}

/// Looks a message of chitchat through and gives the members that it lists: store and generation.
pub(super) fn listed(message: &[u8]) -> Result<Vec<(StoreId, u64)>, Unreadable> {
    const MAGIC: [u8; 2] = 45_139_u16.to_le_bytes();
    const SYN: u8 = 0;
    const SYN_ACK: u8 = 1;
    const ACK: u8 = 2;
    const BAD_CLUSTER: u8 = 3;
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(Unreadable::Garbage("its message is too long"));
    }
    let mut reader = Reader(message);
    if reader.take(3)? != [MAGIC[0], MAGIC[1], 0] {
        return Err(Unreadable::Garbage("its message isn't one of chitchat's"));
    }
    let kind = reader.take(1)?[0];
    let mut members = Vec::new();
    if matches!(kind, SYN | SYN_ACK) {
        let count = reader.short()?;
        if count > MAX_KNOWN {
            return Err(Unreadable::Garbage("it lists too many members"));
        }
        for _ in 0..count {
            members.push(reader.member()?);
        }
    }
    match kind {
        SYN => {
            let length = reader.short()?;
            reader.take(length)?;
        }
        SYN_ACK | ACK => reader.blocks()?,
        BAD_CLUSTER => {}
        _ => return Err(Unreadable::Garbage("its message is of no known kind")),
    }
    if reader.0.is_empty() {
        Ok(members)
    } else {
        Err(Unreadable::Garbage("its message goes on after its end"))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Unreadable::Garbage("it is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// A big-endian number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<u128, Unreadable> {
        Ok(self.take(N)?.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }

    /// Chitchat's numbers are little-endian.
    fn short(&mut self) -> Result<usize, Unreadable> {
        let bytes = self.take(2)?;
        Ok(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }

    fn long(&mut self) -> Result<u64, Unreadable> {
        Ok(self.take(8)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Name, generation, address; then heartbeat and two versions.
    fn member(&mut self) -> Result<(StoreId, u64), Unreadable> {
        let length = self.short()?;
        let name = self.take(length)?;
        let generation = self.long()?;
        if self.take(1)?[0] != 6 {
            return Err(Unreadable::Garbage("a member has no address of ours"));
        }
        let store = StoreId(self.number::<16>()?);
        let port = self.short()?;
        if usize::from(MEMBER_PORT) != port || name != short_name(store).as_bytes() {
            return Err(Unreadable::Garbage("a member has no address of ours"));
        }
        self.take(3 * 8)?;
        Ok((store, generation))
    }

    fn blocks(&mut self) -> Result<(), Unreadable> {
        for _ in 0..=MAX_BLOCKS {
            if self.take(1)?[0] == 0 {
                return Ok(());
            }
            let length = self.short()?;
            self.take(length)?;
        }
        Err(Unreadable::Garbage("it would unpack to too much"))
    }
}

#[cfg(test)]
mod tests {
    use chitchat::{ChitchatMessage, Deserializable, Serializable};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_reads_what_it_writes() {
        for to in [None, Some(StoreId(9))] {
            let frame = Frame {
                cluster: ClusterId(1),
                store: StoreId(u128::MAX),
                incarnation: 3,
                instance: u64::MAX,
                to,
                address: "host:9201",
                message: b"message",
            };
            assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn other_versions_are_named() {
        assert_eq!(Frame::decode(&[VERSION + 1, 2, 3]), Err(Unreadable::Version(VERSION + 1)));
    }

    #[test]
    fn made_up_addresses_name_stores() {
        let store = StoreId(0xfd00 << 112 | 77);
        assert_eq!(store_at(&address_of(store)), Some(store));
        assert_eq!(store_at(&address_of(store).to_string().parse().unwrap()), Some(store));
        assert_eq!(store_at(&"[::1]:2".parse().unwrap()), None);
    }

    /// 64 KiB of zeros from a few bytes, and again and again.
    #[test]
    fn a_bomb_is_refused_before_it_is_unpacked() {
        let mut bomb = vec![0x53, 0xb0, 0, 2];
        for _ in 0..3_000 {
            bomb.extend_from_slice(&[1, 16, 0]);
            bomb.extend_from_slice(&[0; 16]);
        }
        bomb.push(0);
        assert_eq!(listed(&bomb), Err(Unreadable::Garbage("it would unpack to too much")));
    }

    #[test]
    fn members_that_are_not_stores_are_refused() {
        let mut message = vec![0x53, 0xb0, 0, 0, 1, 0, 4, 0];
        message.extend_from_slice(b"evil");
        message.extend_from_slice(&7_u64.to_le_bytes());
        message.extend_from_slice(&[4, 127, 0, 0, 1, 1, 0]);
        message.extend_from_slice(&[0; 24]);
        message.extend_from_slice(&[0, 0]);
        assert!(ChitchatMessage::deserialize(&mut &message[..]).is_ok());
        assert_eq!(listed(&message), Err(Unreadable::Garbage("a member has no address of ours")));
    }

    #[test]
    fn an_empty_message_passes() {
        let message = ChitchatMessage::BadCluster.serialize_to_vec();
        assert_eq!(listed(&message), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn garbage_never_breaks_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Frame::decode(&bytes);
            let _ = listed(&bytes);
            let mut like = vec![0x53, 0xb0, 0];
            like.extend_from_slice(&bytes);
            let _ = listed(&like);
        }
    }
}
