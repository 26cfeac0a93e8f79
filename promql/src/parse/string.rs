//! String literals: Go's escapes, hence bytes that need not be UTF-8.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// A string's value. Escapes such as `\xc5` can make bytes that aren't UTF-8; label names and values can't be such.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StringLiteral(Box<[u8]>);

impl StringLiteral {
    /// The text, or `None` when the bytes aren't UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, wrong bytes replaced by U+FFFD.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl From<&str> for StringLiteral {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl From<Vec<u8>> for StringLiteral {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

/// Quoted, as it may stand in a query.
impl fmt::Display for StringLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        quote_bytes(f, &self.0)
    }
}

impl fmt::Debug for StringLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `text` in double quotes, with escapes that PromQL reads back.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote_bytes(&mut out, text.as_bytes()).expect("writing to a string never fails");
    out
}

fn quote_bytes(out: &mut impl Write, bytes: &[u8]) -> fmt::Result {
    out.write_char('"')?;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.write_str("\\\"")?,
                '\\' => out.write_str("\\\\")?,
                '\n' => out.write_str("\\n")?,
                '\t' => out.write_str("\\t")?,
                '\r' => out.write_str("\\r")?,
                '\u{7}' => out.write_str("\\a")?,
                '\u{8}' => out.write_str("\\b")?,
                '\u{b}' => out.write_str("\\v")?,
                '\u{c}' => out.write_str("\\f")?,
                c if u32::from(c) < 0x20 || c == '\u{7f}' => write!(out, "\\x{:02x}", u32::from(c))?,
                c if is_printable(c) => out.write_char(c)?,
                c if u32::from(c) <= 0xffff => write!(out, "\\u{:04x}", u32::from(c))?,
                c => write!(out, "\\U{:08x}", u32::from(c))?,
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}")?;
        }
    }
    out.write_char('"')
}

/// The value of the text between two `quote`s, or the offset of a wrong escape and what is wrong with it.
pub(super) fn unescape(text: &str, quote: char) -> Result<StringLiteral, (usize, String)> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let offset = text.len() - rest.len() + at;
        let length = escape(&rest[at + 1..], quote, &mut bytes).map_err(|message| (offset, message))?;
        rest = &rest[at + 1 + length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes.into())
}

/// Reads one escape, the backslash excluded, and gives its length in bytes.
fn escape(text: &str, quote: char, out: &mut Vec<u8>) -> Result<usize, String> {
    let Some(kind) = text.chars().next() else { return Err("escape sequence not terminated".to_owned()) };
    let (skipped, digits, radix) = match kind {
        '0'..='7' => (0, 3, 8),
        'x' => (1, 2, 16),
        'u' => (1, 4, 16),
        'U' => (1, 8, 16),
        _ => {
            out.push(match kind {
                'a' => 7,
                'b' => 8,
                'f' => 12,
                'n' => b'\n',
                'r' => b'\r',
                't' => b'\t',
                'v' => 11,
                '\\' => b'\\',
                '"' | '\'' if kind == quote => kind as u8,
                _ => return Err(format!("unknown escape sequence \\{kind}")),
            });
            return Ok(1);
        }
    };
    let mut value: u32 = 0;
    let mut characters = text[skipped..].chars();
    for _ in 0..digits {
        let Some(c) = characters.next() else { return Err("escape sequence not terminated".to_owned()) };
        let Some(digit) = c.to_digit(radix) else {
            return Err(format!("illegal character {c:?} in escape sequence"));
        };
        value = value * radix + digit;
    }
    if matches!(kind, 'u' | 'U') {
        let c = char::from_u32(value).ok_or("escape sequence is an invalid Unicode code point")?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        out.push(u8::try_from(value).map_err(|_| "escape sequence is larger than a byte")?);
    }
    Ok(skipped + digits)
}

/// Whether a character can be shown as it is: Rust's own escaping knows. Combining marks, which would join the
/// character before them, are escaped too.
fn is_printable(c: char) -> bool {
    c == '\'' || c.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_a_query_cannot_show() {
        assert_eq!(quoted("a\"b\\c\n\u{1}'é€😀"), r#""a\"b\\c\n\x01'é€😀""#);
        assert_eq!(StringLiteral::from(b"a\xc5z".to_vec()).to_string(), r#""a\xc5z""#);
    }

    #[test]
    fn escapes_are_those_of_go() {
        let value = |text| unescape(text, '"').unwrap().to_string_lossy().into_owned();
        assert_eq!(value(r#"\a\b\f\n\r\t\v\\\""#), "\u{7}\u{8}\u{c}\n\r\t\u{b}\\\"");
        assert_eq!(value(r"\101\x41\u00e9\U0001f600é"), "AAé😀é");
        assert_eq!(unescape(r"a\xc5z", '"').unwrap().as_bytes(), b"a\xc5z");
        for (wrong, at) in [
            (r"ab\q", 2),
            (r"\'", 0),
            (r"\x4", 0),
            (r"\400", 0),
            (r"\ud800", 0),
            (r"\U00110000", 0),
            (r"\xé1", 0),
        ] {
            assert_eq!(unescape(wrong, '"').unwrap_err().0, at, "{wrong}");
        }
    }

    #[test]
    fn text_is_given_only_for_utf8() {
        assert_eq!(StringLiteral::from("é").as_str(), Some("é"));
        assert_eq!(StringLiteral::from(vec![0xff]).as_str(), None);
    }
}
