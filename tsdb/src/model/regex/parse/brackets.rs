//! Classes in brackets: ranges, escapes and POSIX's names inside them.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir};

use super::{Node, Parser, Refusal, leaf};
use crate::model::regex::classes::{fold, named_class};

impl Parser<'_> {
    /// A class in brackets; the opening bracket at `start` has been read.
    pub(super) fn class(&mut self, start: usize) -> Result<Node, Refusal> {
        let negated = self.take("^");
        let mut class = ClassUnicode::empty();
        let mut first = true;
        loop {
            match self.peek() {
                None => return Err(self.refuse_at(start, "missing closing ]")),
                Some(']') if !first => break,
                Some(_) => {}
            }
            first = false;
            if let Some(named) = self.posix_class()? {
                class.union(&named);
            } else if let Some(escaped) = self.class_escape()? {
                class.union(&escaped);
            } else {
                class.push(self.class_range()?);
            }
        }
        self.at += 1;
        if self.flags.fold_case {
            fold(&mut class);
        }
        if negated {
            class.negate();
        }
        Ok(leaf(Hir::class(Class::Unicode(class))))
    }

    /// `[:alpha:]` or `[:^alpha:]` inside brackets; without the closing `:]` it is no class.
    fn posix_class(&mut self) -> Result<Option<ClassUnicode>, Refusal> {
        let Some(name) =
            self.rest().strip_prefix("[:").and_then(|rest| rest.split_once(":]")).map(|(name, _)| name)
        else {
            return Ok(None);
        };
        let Some(mut class) = named_class(name.strip_prefix('^').unwrap_or(name)) else {
            return Err(self.refuse("invalid character class range"));
        };
        self.at += name.len() + 4;
        if self.flags.fold_case {
            fold(&mut class);
        }
        if name.starts_with('^') {
            class.negate();
        }
        Ok(Some(class))
    }

    fn class_range(&mut self) -> Result<ClassUnicodeRange, Refusal> {
        let start = self.at;
        let low = self.class_char(start)?;
        let mut high = low;
        let rest = self.rest();
        if rest.len() >= 2 && rest.starts_with('-') && !rest.starts_with("-]") {
            self.at += 1;
            high = self.class_char(start)?;
            if high < low {
                return Err(self.refuse_at(start, "invalid character class range"));
            }
        }
        Ok(ClassUnicodeRange::new(low, high))
    }

    fn class_char(&mut self, start: usize) -> Result<char, Refusal> {
        match self.peek() {
            Some('\\') => self.char_escape(),
            Some(c) => {
                self.at += c.len_utf8();
                Ok(c)
            }
            None => Err(self.refuse_at(start, "missing closing ]")),
        }
    }
}
