//! What a backslash begins: sets of characters, and single ones.

use regex_syntax::hir::ClassUnicode;

use super::{Parser, Refusal};
use crate::model::regex::classes::{fold, named_class, ranges, unicode_property};

impl Parser<'_> {
    /// `\d`, `\pN`, `\p{Greek}` and their like, which mean a set of characters inside and outside brackets.
    pub(super) fn class_escape(&mut self) -> Result<Option<ClassUnicode>, Refusal> {
        let start = self.at;
        let Some(kind) = self.rest().strip_prefix('\\').and_then(|rest| rest.chars().next()) else {
            return Ok(None);
        };
        let mut class = match kind.to_ascii_lowercase() {
            'd' => named_class("digit"),
            's' => Some(ranges(&[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')])),
            'w' => named_class("word"),
            'p' => {
                self.at += 2;
                let mut negated = kind == 'P';
                let mut class = self.property(start, &mut negated)?;
                if self.flags.fold_case {
                    fold(&mut class);
                }
                if negated {
                    class.negate();
                }
                return Ok(Some(class));
            }
            _ => None,
        };
        if let Some(class) = &mut class {
            self.at += 2;
            if self.flags.fold_case {
                fold(class);
            }
            if kind.is_ascii_uppercase() {
                class.negate();
            }
        }
        Ok(class)
    }

    /// What follows `\p`: one letter, or a name in braces, which a `^` negates once more.
    fn property(&mut self, start: usize, negated: &mut bool) -> Result<ClassUnicode, Refusal> {
        let mut name = match self.next() {
            Some('{') => {
                let Some((name, _)) = self.rest().split_once('}') else {
                    return Err(self.refuse_at(start, "invalid character class range"));
                };
                self.at += name.len() + 1;
                name
            }
            Some(c) => &self.pattern[self.at - c.len_utf8()..self.at],
            None => "",
        };
        if let Some(rest) = name.strip_prefix('^') {
            *negated = !*negated;
            name = rest;
        }
        unicode_property(name)
            .ok_or_else(|| self.refuse_at(start, format!("unknown character class {name:?}")))
    }

    /// An escape that means one character.
    pub(super) fn char_escape(&mut self) -> Result<char, Refusal> {
        let start = self.at;
        self.at += 1;
        let invalid = |at: usize| Refusal { at, reason: "invalid escape sequence".to_owned() };
        let Some(c) = self.next() else {
            return Err(self.refuse_at(start, "trailing backslash"));
        };
        Ok(match c {
            // An octal number; a single digit but 0 would be a back reference.
            '1'..='7' if !matches!(self.peek(), Some('0'..='7')) => return Err(invalid(start)),
            '0'..='7' => {
                let mut code = c as u32 - '0' as u32;
                for _ in 0..2 {
                    let Some(digit @ '0'..='7') = self.peek() else { break };
                    code = code * 8 + (digit as u32 - '0' as u32);
                    self.at += 1;
                }
                char::from_u32(code).ok_or_else(|| invalid(start))?
            }
            'x' => self.hexadecimal().ok_or_else(|| invalid(start))?,
            'a' => '\x07',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            _ => return Err(invalid(start)),
        })
    }

    /// `41` or `{10FFFF}` after `\x`.
    fn hexadecimal(&mut self) -> Option<char> {
        let digits = if self.take("{") {
            let (digits, _) = self.rest().split_once('}')?;
            self.at += digits.len() + 1;
            digits
        } else {
            let digits = self.rest().get(..2)?;
            self.at += 2;
            digits
        };
        let hexadecimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let code = hexadecimal.then(|| u32::from_str_radix(digits, 16))?.ok()?;
        char::from_u32(code)
    }
}
