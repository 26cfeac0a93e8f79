//! Tokens: points on a circle, held by members, that say who keeps which keys.
//!
//! The circle has 2^32 points; a key stands at the upper half of its 64-bit hash. A token owns the points from behind
//! the token before it up to itself. The owners of a point are found by walking on from it, token by token, and
//! taking each holder that isn't taken yet, at most [`zone_limit`] of a zone, until there are enough.
//!
//! Tokens are laid out ([`plan()`]) and then written down, so that how they are laid out may change and the ring stays.

mod circle;
mod plan;
mod zone;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use plan::{Layout, Seat, plan};
pub use zone::zone_limit;

pub(crate) use circle::walk;

/// How many tokens a new member gets. More would spread load more finely and make the document longer (8 bytes of it
/// each).
pub const TOKENS_PER_MEMBER: usize = 64;

/// Most tokens of a member: it takes over tokens of members that leave.
pub const MAX_TOKENS_PER_MEMBER: usize = 256;

/// A member's tokens, in ascending order.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tokens(pub Vec<u32>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

/// Eight hex digits a token, nothing between them.
impl Serialize for Tokens {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(self.0.len() * HEX_DIGITS);
        for token in &self.0 {
            let _ = write!(text, "{token:08x}");
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        read_tokens(&text)
            .ok_or_else(|| serde::de::Error::custom("tokens are ascending runs of 8 hex digits"))
    }
}

const HEX_DIGITS: usize = 8;

fn read_tokens(text: &str) -> Option<Tokens> {
    let digits = text.as_bytes();
    let whole = digits.len().is_multiple_of(HEX_DIGITS) && digits.iter().all(u8::is_ascii_hexdigit);
    if !whole || digits.len() > MAX_TOKENS_PER_MEMBER * HEX_DIGITS {
        return None;
    }
    let token = |run: &[u8]| u32::from_str_radix(std::str::from_utf8(run).ok()?, 16).ok();
    let tokens: Vec<u32> = digits.chunks(HEX_DIGITS).map(token).collect::<Option<_>>()?;
    tokens.is_sorted_by(|a, b| a < b).then_some(Tokens(tokens))
}

/// The point of a key on the circle.
#[must_use]
pub fn point(token: u64) -> u32 {
    (token >> 32) as u32
}
