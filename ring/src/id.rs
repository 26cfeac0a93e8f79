//! Names that are never reused: of a store, and of a cluster. 128 random bits, written as 32 hex digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that isn't 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id has 32 hex digits, this has {found:?}")]
pub struct ParseIdError {
    /// What stood there, cut to a bearable length.
    pub found: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                hex128::deserialize(deserializer).map(Self)
            }
        }
    };
}

id! {
    /// One data folder's life. A wiped or replaced disk is another store.
    StoreId
}

id! {
    /// One cluster; decided once, in the bucket.
    ClusterId
}

fn parse(text: &str) -> Result<u128, ParseIdError> {
    let whole = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = whole.then(|| u128::from_str_radix(text, 16).ok()).flatten();
    number.ok_or_else(|| ParseIdError { found: text.chars().take(40).collect() })
}

/// 128 bits in JSON, as 32 hex digits.
pub(crate) mod hex128 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:032x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Numbers of 64 bits in JSON, each as 16 hex digits: readers in other languages would round them.
pub(crate) mod hex64s {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(numbers: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(numbers.iter().map(|number| format!("{number:016x}")))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let number = |text: &String| match text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            true => u64::from_str_radix(text, 16).map_err(serde::de::Error::custom),
            false => Err(serde::de::Error::custom("it isn't 16 hex digits")),
        };
        texts.iter().map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_what_it_writes() {
        for id in [0, 1, 0xabc, u128::MAX] {
            let id = StoreId(id);
            assert_eq!(id.to_string().parse::<StoreId>(), Ok(id));
            let json = serde_json::to_string(&id).unwrap();
            assert_eq!(serde_json::from_str::<StoreId>(&json).unwrap(), id);
        }
    }

    #[test]
    fn an_id_is_exactly_32_hex_digits() {
        for text in
            ["", "0", "+0000000000000000000000000000001", &"0".repeat(33), &"g".repeat(32), &"é".repeat(16)]
        {
            assert!(text.parse::<ClusterId>().is_err(), "{text:?}");
        }
    }
}
