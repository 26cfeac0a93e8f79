//! Finds the end of a chunked body.

/// Where in a chunked body the next byte stands (RFC 9112, section 7.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
        bytes: u16,
    },
    SizeEnd {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// In a line of the trailer, of which so many bytes have gone by, and so many of the whole trailer.
    Trailer {
        line: u16,
        all: u16,
    },
    TrailerLf {
        line: u16,
        all: u16,
    },
    End,
}

/// Bytes of a chunk's extension, and of a trailer.
const ASIDE_BYTES_MAX: u16 = 16 << 10;

impl Chunks {
    /// Goes through bytes up to the end of the body; how many belong to it.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut at = 0;
        while at < bytes.len() && *self != Self::End {
            if let Self::Data { left } = self {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                *left -= here as u64;
                at += here;
                if *left == 0 {
                    *self = Self::DataCr;
                }
                continue;
            }
            self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<(), &'static str> {
        *self = match (&*self, byte) {
            (Self::Size { value, digits }, byte) if byte.is_ascii_hexdigit() && *digits < 16 => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Self::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Self::Size { value, digits: 1.. }, b'\r') | (Self::Extension { value, .. }, b'\r') => {
                Self::SizeEnd { value: *value }
            }
            (Self::Size { value, digits: 1.. }, b';' | b' ' | b'\t') => {
                Self::Extension { value: *value, bytes: 0 }
            }
            (Self::Extension { value, bytes }, byte) if byte != b'\n' && *bytes < ASIDE_BYTES_MAX => {
                Self::Extension { value: *value, bytes: bytes + 1 }
            }
            (Self::SizeEnd { value: 0 }, b'\n') => Self::Trailer { line: 0, all: 0 },
            (Self::SizeEnd { value }, b'\n') => Self::Data { left: *value },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size { value: 0, digits: 0 },
            (Self::Trailer { line, all }, b'\r') => Self::TrailerLf { line: *line, all: *all },
            (Self::Trailer { line, all }, byte) if byte != b'\n' && *all < ASIDE_BYTES_MAX => {
                Self::Trailer { line: line + 1, all: all + 1 }
            }
            (Self::TrailerLf { line: 0, .. }, b'\n') => Self::End,
            (Self::TrailerLf { all, .. }, b'\n') => Self::Trailer { line: 0, all: *all },
            _ => return Err("a chunked body is broken"),
        };
        Ok(())
    }
}
