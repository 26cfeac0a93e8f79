//! RE2's syntax as Go's `regexp/syntax` reads it with the flags Perl and DotNL, parsed into `regex-syntax`'s HIR.
//!
//! Steps: one pass over the pattern keeps the current concatenation and its finished alternatives; a repetition takes
//! the last item of the concatenation; a group recurses. A matcher only asks whether the whole value matches, so for it
//! captures are dropped. What RE2 refuses is refused here, also where the `regex` crate would accept it
//! (`x{1001}`, `a**`, `(?x)`, look-around); what both write alike but mean differently (`\d`, `\s`, `\b`, `[a&&b]`)
//! gets RE2's meaning because the crate never sees the pattern's own text.

use regex_syntax::hir::{Capture, Class, ClassUnicode, ClassUnicodeRange, Dot, Hir, Look, Repetition};

use super::classes::{fold, named_class, ranges, unicode_property};

/// Largest repetition count, and largest product of nested counts: RE2's limit.
const REPEAT_MAX: u32 = 1000;

/// Deepest nesting of groups. RE2 has 1000; patterns come from strangers and parsing recurses.
const DEPTH_MAX: usize = 200;

/// Why a pattern was refused, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Byte offset in the pattern.
    pub at: usize,
    /// What is wrong, for whoever wrote the pattern.
    pub reason: String,
}

/// What becomes of groups that capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Captures {
    Kept,
    Dropped,
}

/// Parses a whole pattern.
pub(super) fn parse(pattern: &str, captures: Captures) -> Result<Hir, Refusal> {
    let flags = Flags { fold_case: false, multi_line: false, dot_newline: true, lazy: false };
    let mut parser = Parser { pattern, at: 0, flags, depth: 0, captures, groups: 0, names: Vec::new() };
    let node = parser.alternation()?;
    if parser.peek().is_some() {
        return Err(parser.refuse("unexpected )"));
    }
    Ok(node.hir)
}

#[derive(Clone, Copy)]
struct Flags {
    fold_case: bool,
    multi_line: bool,
    dot_newline: bool,
    lazy: bool,
}

struct Node {
    hir: Hir,
    /// Largest product of nested repetition counts inside.
    weight: u32,
}

struct Parser<'a> {
    pattern: &'a str,
    at: usize,
    flags: Flags,
    depth: usize,
    captures: Captures,
    /// Capturing groups opened so far.
    groups: u32,
    names: Vec<&'a str>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.pattern[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn refuse(&self, reason: impl Into<String>) -> Refusal {
        self.refuse_at(self.at, reason)
    }

    #[allow(clippy::unused_self, reason = "reads as one family with `refuse`")]
    fn refuse_at(&self, at: usize, reason: impl Into<String>) -> Refusal {
        Refusal { at, reason: reason.into() }
    }

    /// Alternatives up to the end or to a `)`, which is left in place.
    fn alternation(&mut self) -> Result<Node, Refusal> {
        let mut alternatives = Vec::new();
        let mut items: Vec<Node> = Vec::new();
        let mut after_repeat = false;
        while let Some(c) = self.peek() {
            let start = self.at;
            let repeated = std::mem::take(&mut after_repeat);
            match c {
                ')' => break,
                '|' => {
                    self.at += 1;
                    alternatives.push(concat(std::mem::take(&mut items)));
                }
                '(' => items.extend(self.group()?),
                '*' | '+' | '?' => {
                    self.at += 1;
                    let (min, max) = match c {
                        '*' => (0, None),
                        '+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(&mut items, repeated, start, min, max, false)?;
                    after_repeat = true;
                }
                '{' => match self.counts() {
                    None => {
                        self.at += 1;
                        items.push(self.literal('{'));
                    }
                    Some((min, max)) => {
                        if min > REPEAT_MAX || max.is_some_and(|max| max > REPEAT_MAX || max < min) {
                            return Err(self.refuse_at(start, "invalid repetition count"));
                        }
                        self.repeat(&mut items, repeated, start, min, max, true)?;
                        after_repeat = true;
                    }
                },
                '\\' => self.escape_outside_class(&mut items)?,
                _ => {
                    self.at += c.len_utf8();
                    let node = match c {
                        '[' => self.class(start)?,
                        '.' if self.flags.dot_newline => leaf(Hir::dot(Dot::AnyChar)),
                        '.' => leaf(Hir::dot(Dot::AnyCharExceptLF)),
                        '^' if self.flags.multi_line => leaf(Hir::look(Look::StartLF)),
                        '^' => leaf(Hir::look(Look::Start)),
                        '$' if self.flags.multi_line => leaf(Hir::look(Look::EndLF)),
                        '$' => leaf(Hir::look(Look::End)),
                        c => self.literal(c),
                    };
                    items.push(node);
                }
            }
        }
        let last = concat(items);
        if alternatives.is_empty() {
            return Ok(last);
        }
        alternatives.push(last);
        let weight = alternatives.iter().map(|n| n.weight).max().unwrap_or(1);
        Ok(Node { hir: Hir::alternation(alternatives.into_iter().map(|n| n.hir).collect()), weight })
    }

    /// `{n}`, `{n,}` or `{n,m}`; anything else leaves the brace to be a literal. Counts beyond what fits are `u32::MAX`.
    fn counts(&mut self) -> Option<(u32, Option<u32>)> {
        let body = self.rest().strip_prefix('{')?;
        let end = body.find('}')?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let canonical = text.len() == 1 || !text.starts_with('0');
            (digits && canonical).then(|| text.parse().unwrap_or(u32::MAX))
        };
        let counts = match body[..end].split_once(',') {
            None => {
                let n = number(&body[..end])?;
                (n, Some(n))
            }
            Some((min, "")) => (number(min)?, None),
            Some((min, max)) => (number(min)?, Some(number(max)?)),
        };
        self.at += end + 2;
        Some(counts)
    }

    /// Applies a repetition, whose text began at `start`, to the last item.
    fn repeat(
        &mut self,
        items: &mut Vec<Node>,
        repeated: bool,
        start: usize,
        min: u32,
        max: Option<u32>,
        counted: bool,
    ) -> Result<(), Refusal> {
        let greedy = self.take("?") == self.flags.lazy;
        if repeated {
            return Err(self.refuse_at(start, "nested repetition operator"));
        }
        let Some(Node { hir, weight }) = items.pop() else {
            return Err(self.refuse_at(start, "missing argument to repetition operator"));
        };
        let times = if counted { max.unwrap_or(min) } else { 1 };
        let weight = if times == 0 { 1 } else { weight * times };
        if weight > REPEAT_MAX {
            return Err(self.refuse_at(start, "invalid repetition count"));
        }
        let hir = Hir::repetition(Repetition { min, max, greedy, sub: Box::new(hir) });
        items.push(Node { hir, weight });
        Ok(())
    }

    /// A group, or flags that hold to the end of the group around them and are no item.
    fn group(&mut self) -> Result<Option<Node>, Refusal> {
        let start = self.at;
        self.at += 1;
        let outer = self.flags;
        let mut capture = Some(None);
        if self.take("?") {
            let look_behind = self.rest().starts_with("<=") || self.rest().starts_with("<!");
            if self.take("P<") || (!look_behind && self.take("<")) {
                capture = Some(Some(self.capture_name(start)?.into()));
            } else if self.group_flags(start)? {
                return Ok(None);
            } else {
                capture = None;
            }
        }
        let index = self.groups + 1;
        self.groups += u32::from(capture.is_some());
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.refuse_at(start, format!("groups nest deeper than {DEPTH_MAX}")));
        }
        let Node { hir, weight } = self.alternation()?;
        self.depth -= 1;
        if !self.take(")") {
            return Err(self.refuse_at(start, "missing closing )"));
        }
        self.flags = outer;
        let hir = match capture {
            Some(name) if self.captures == Captures::Kept => {
                Hir::capture(Capture { index, name, sub: Box::new(hir) })
            }
            _ => hir,
        };
        Ok(Some(Node { hir, weight }))
    }

    fn capture_name(&mut self, start: usize) -> Result<&'a str, Refusal> {
        let name = self.rest().split_once('>').map(|(name, _)| name);
        let valid =
            |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let Some(name) = name.filter(valid) else {
            return Err(self.refuse_at(start, "invalid named capture"));
        };
        if self.names.contains(&name) {
            return Err(self.refuse_at(start, format!("duplicate capture name {name:?}")));
        }
        self.names.push(name);
        self.at += name.len() + 1;
        Ok(name)
    }

    /// Reads `flags)` (true) or `flags:` (false) and sets them.
    fn group_flags(&mut self, start: usize) -> Result<bool, Refusal> {
        let mut on = true;
        let mut named_since_minus = true;
        while let Some(c) = self.next() {
            match c {
                'i' => self.flags.fold_case = on,
                'm' => self.flags.multi_line = on,
                's' => self.flags.dot_newline = on,
                'U' => self.flags.lazy = on,
                '-' if on => {
                    on = false;
                    named_since_minus = false;
                    continue;
                }
                ':' | ')' if named_since_minus => return Ok(c == ')'),
                _ => break,
            }
            named_since_minus = true;
        }
        Err(self.refuse_at(start, "invalid or unsupported syntax after (?"))
    }

    fn literal(&self, c: char) -> Node {
        if !self.flags.fold_case {
            return leaf(Hir::literal(c.to_string().into_bytes()));
        }
        let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
        fold(&mut class);
        leaf(Hir::class(Class::Unicode(class)))
    }

    fn escape_outside_class(&mut self, items: &mut Vec<Node>) -> Result<(), Refusal> {
        let look = match self.rest().as_bytes().get(1) {
            Some(b'A') => Some(Look::Start),
            Some(b'z') => Some(Look::End),
            Some(b'b') => Some(Look::WordAscii),
            Some(b'B') => Some(Look::WordAsciiNegate),
            _ => None,
        };
        if let Some(look) = look {
            self.at += 2;
            items.push(leaf(Hir::look(look)));
        } else if self.take("\\Q") {
            let quoted = self.rest().split_once("\\E").map_or(self.rest(), |(quoted, _)| quoted);
            items.extend(quoted.chars().map(|c| self.literal(c)));
            self.at += quoted.len();
            self.take("\\E");
        } else if let Some(class) = self.class_escape()? {
            items.push(leaf(Hir::class(Class::Unicode(class))));
        } else {
            let c = self.char_escape()?;
            items.push(self.literal(c));
        }
        Ok(())
    }

    /// `\d`, `\pN`, `\p{Greek}` and their like, which mean a set of characters inside and outside brackets.
    fn class_escape(&mut self) -> Result<Option<ClassUnicode>, Refusal> {
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
    fn char_escape(&mut self) -> Result<char, Refusal> {
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

    /// A class in brackets; the opening bracket at `start` has been read.
    fn class(&mut self, start: usize) -> Result<Node, Refusal> {
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

fn leaf(hir: Hir) -> Node {
    Node { hir, weight: 1 }
}

fn concat(items: Vec<Node>) -> Node {
    let weight = items.iter().map(|n| n.weight).max().unwrap_or(1);
    Node { hir: Hir::concat(items.into_iter().map(|n| n.hir).collect()), weight }
}
