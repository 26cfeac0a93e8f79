//! The types an option can have: each reads itself from text, the same for flag, environment and file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A type an option can have.
pub trait Setting: Sized + fmt::Display {
    /// How the reference page and the JSON Schema call it.
    const KIND: Kind;

    /// From the text of a flag, a variable or a YAML scalar; the error says what would be right.
    fn parse(text: &str) -> Result<Self, String>;
}

/// What kind of text an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Number,
    /// `90s`, `1h30m`, `15d`.
    Duration,
    /// `64MiB`, `1GB`, or a number of bytes.
    Size,
    /// A duration or `unlimited`.
    DurationOrUnlimited,
    /// A whole number or `unlimited`.
    NumberOrUnlimited,
    /// `host:port`, any number of them.
    Addresses,
    /// Names of labels, any number of them.
    LabelNames,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// A length of time; shown as Prometheus writes durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
    /// Milliseconds, at least 0.
    pub ms: i64,
}

impl Duration {
    /// A whole number of seconds.
    pub const fn from_s(s: i64) -> Self {
        Self { ms: s * 1000 }
    }

    /// A whole number of minutes.
    pub const fn from_min(minutes: i64) -> Self {
        Self::from_s(minutes * 60)
    }

    /// A whole number of hours.
    pub const fn from_h(hours: i64) -> Self {
        Self::from_min(hours * 60)
    }

    /// As the standard library's duration.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.ms.unsigned_abs())
    }
}

/// Units from the longest; a duration names each at most once, in this order, as in PromQL.
const DURATION_UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// A duration as PromQL writes it (`1h30m`), in milliseconds; `None` when it isn't one or is beyond 2^63 ms.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total, mut next_unit) = (text, 0i64, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let amount: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = DURATION_UNITS.iter().position(|(name, _)| *name == &rest[..letters])?;
        if unit < next_unit {
            return None;
        }
        next_unit = unit + 1;
        rest = &rest[letters..];
        total = total.checked_add(amount.checked_mul(DURATION_UNITS[unit].1)?)?;
    }
    (!text.is_empty()).then_some(total)
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ms == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.ms;
        for (unit, ms) in DURATION_UNITS {
            // Years and weeks are shown only where they are exact, as Prometheus does: 15d, not 2w1d.
            if rest < ms || (matches!(unit, "y" | "w") && rest % ms != 0) {
                continue;
            }
            write!(f, "{}{unit}", rest / ms)?;
            rest %= ms;
        }
        Ok(())
    }
}

impl Setting for Duration {
    const KIND: Kind = Kind::Duration;

    fn parse(text: &str) -> Result<Self, String> {
        let ms =
            parse_duration_ms(text).ok_or_else(|| format!("{text:?} isn't a duration like 90s or 1h30m"))?;
        Ok(Self { ms })
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    /// Bytes.
    pub bytes: u64,
}

impl Size {
    /// Mebibytes.
    pub const fn mib(mib: u64) -> Self {
        Self { bytes: mib << 20 }
    }

    /// The same in memory: on a machine that can't address it, all there is.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }
}

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |(_, unit): &&(&str, u64)| self.bytes > 0 && self.bytes.is_multiple_of(*unit);
        let (name, unit) = SIZE_UNITS.iter().find(exact).unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.bytes / unit)
    }
}

impl Setting for Size {
    const KIND: Kind = Kind::Size;

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} isn't a size like 64MiB, 1GB or a number of bytes");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let amount: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let unit = text[digits..].trim_start();
        let factor = match unit {
            "" => 1,
            _ => SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?.1,
        };
        Ok(Self { bytes: amount.checked_mul(factor).ok_or_else(wrong)? })
    }
}

/// A bound that can be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound<T> {
    /// At most this.
    Max(T),
    /// No bound.
    Unlimited,
}

impl<T: Copy> Bound<T> {
    /// The bound, if there is one.
    pub fn max(&self) -> Option<T> {
        match self {
            Self::Max(most) => Some(*most),
            Self::Unlimited => None,
        }
    }
}

impl<T: fmt::Display> fmt::Display for Bound<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max(most) => most.fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

impl<T: Setting> Setting for Bound<T> {
    const KIND: Kind = match T::KIND {
        Kind::Duration => Kind::DurationOrUnlimited,
        _ => Kind::NumberOrUnlimited,
    };

    fn parse(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(Self::Unlimited);
        }
        T::parse(text).map(Self::Max).map_err(|e| format!("{e}, or unlimited"))
    }
}

impl Setting for u64 {
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} isn't a whole number of at least 0"))
    }
}

impl Setting for bool {
    const KIND: Kind = Kind::Switch;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
    }
}

impl Setting for String {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

/// A folder or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Setting for FilePath {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path can't be empty".to_owned()) } else { Ok(Self(text.into())) }
    }
}

/// `host:port`; the host may be a name, and port 0 takes a free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(pub String);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Setting for Address {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && u16::from_str(port).is_ok() => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(format!("{text:?} isn't an address like 127.0.0.1:9480")),
        }
    }
}

/// Any number of addresses: a list in the file, several flags, or commas between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(pub Vec<Address>);

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(|a| a.0.as_str()).collect();
        f.write_str(&texts.join(","))
    }
}

impl Setting for Addresses {
    const KIND: Kind = Kind::Addresses;

    fn parse(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|a| !a.is_empty())
            .map(Address::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Any number of labels' names: a list in the file, several flags, or commas between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelNames(pub Vec<String>);

impl fmt::Display for LabelNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl Setting for LabelNames {
    const KIND: Kind = Kind::LabelNames;

    fn parse(text: &str) -> Result<Self, String> {
        let names: Vec<_> = text.split(',').map(str::trim).filter(|n| !n.is_empty()).collect();
        if names.contains(&tsdb::model::METRIC_NAME) {
            return Err("a metric's name isn't a label by which replicas differ".to_owned());
        }
        Ok(Self(names.into_iter().map(str::to_owned).collect()))
    }
}

/// An address, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalAddress(pub Option<Address>);

impl fmt::Display for OptionalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |address| address.fmt(f))
    }
}

impl Setting for OptionalAddress {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(Self(None)) } else { Address::parse(text).map(|address| Self(Some(address))) }
    }
}

/// How many stores keep a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationFactor(pub u32);

/// More copies than this cost much and save nothing.
const REPLICATION_FACTOR_MAX: u32 = 9;

impl fmt::Display for ReplicationFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Setting for ReplicationFactor {
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Result<Self, String> {
        let copies = text.parse().ok().filter(|n| (1..=REPLICATION_FACTOR_MAX).contains(n));
        copies.map(Self).ok_or_else(|| format!("{text:?} isn't a number from 1 to {REPLICATION_FACTOR_MAX}"))
    }
}

/// Declares an option of a few words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$word_doc])* $variant),+ }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }

        impl Setting for $name {
            const KIND: Kind = Kind::OneOf(&[$($word),+]);

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("{text:?} isn't one of {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}

words! {
    /// When the WAL is made safe.
    WalSync {
        /// Before each answer, many requests at once.
        Group = "group",
        /// At intervals: an OS crash or a power cut loses what was acked since the last.
        Interval = "interval",
    }
}

words! {
    /// How samples are encoded in memory and in blocks.
    ChunkEncoding {
        /// As every reader of blocks knows it; start times are dropped.
        Xor = "xor",
        /// Series with start times as Prometheus 3.14 writes them, all others as under `xor`.
        Xor2 = "xor2",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        /// `key=value` pairs.
        Logfmt = "logfmt",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// The least important lines that are logged.
    LogLevel {
        /// Failures that need somebody.
        Error = "error",
        /// What may become one.
        Warn = "warn",
        /// What happens seldom.
        Info = "info",
        /// What happens often.
        Debug = "debug",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_as_promql_does() {
        for (text, ms) in
            [("0", 0), ("1h30m", 5_400_000), ("15d", 1_296_000_000), ("2ms", 2), ("1y", 31_536_000_000)]
        {
            assert_eq!(parse_duration_ms(text), Some(ms), "{text}");
        }
        for text in ["", "5", "m5", "5m1h", "1m1m", "-1s", "1.5h", "99999999999999y", "5 m"] {
            assert_eq!(parse_duration_ms(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_take_binary_and_decimal_units() {
        assert_eq!(Size::parse("64MiB").unwrap(), Size::mib(64));
        assert_eq!(Size::parse("1 GB").unwrap().bytes, 1_000_000_000);
        assert_eq!(Size::parse("17").unwrap().bytes, 17);
        assert!(Size::parse("64Mib/s").is_err() && Size::parse("").is_err());
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        assert!(Address::parse("localhost:0").is_ok() && Address::parse("[::]:9480").is_ok());
        assert!(Address::parse("9480").is_err() && Address::parse(":9480").is_err());
        assert!(Address::parse("host:99999").is_err());
        let several = Addresses::parse("a:1, b:2,").unwrap();
        assert_eq!((several.0.len(), several.to_string().as_str()), (2, "a:1,b:2"));
        assert!(Addresses::parse("").unwrap().0.is_empty() && Addresses::parse("a:1,b").is_err());
    }

    #[test]
    fn label_names_come_with_commas_between_them() {
        let names = LabelNames::parse("replica, prometheus_replica,").unwrap();
        assert_eq!((names.0.len(), names.to_string().as_str()), (2, "replica,prometheus_replica"));
        assert!(LabelNames::parse("").unwrap().0.is_empty() && LabelNames::parse("__name__").is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ms in 0..i64::MAX, bytes: u64) {
            prop_assert_eq!(Duration::parse(&Duration { ms }.to_string()).unwrap().ms, ms);
            prop_assert_eq!(Size::parse(&Size { bytes }.to_string()).unwrap().bytes, bytes);
        }
    }
}
