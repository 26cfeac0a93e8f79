//! RE2's syntax as Go's `regexp/syntax` reads it with the flags Perl and DotNL, parsed into `regex-syntax`'s HIR.
//!
//! Steps: one pass over the pattern keeps the current concatenation and its finished alternatives; a repetition takes
//! the last item of the concatenation; a group recurses. A matcher only asks whether the whole value matches, so for it
//! captures are dropped. What RE2 refuses is refused here, also where the `regex` crate would accept it
//! (`x{1001}`, `a**`, `(?x)`, look-around); what both write alike but mean differently (`\d`, `\s`, `\b`, `[a&&b]`)
//! gets RE2's meaning because the crate never sees the pattern's own text.

mod brackets;
mod escapes;

use regex_syntax::hir::{
    Capture, Class, ClassUnicode, ClassUnicodeRange, Dot, Hir, HirKind, Look, Repetition,
};

use super::classes::fold;

/// Largest repetition count, and largest product of nested counts: RE2's limit.
const REPEAT_MAX: u32 = 1000;

/// Deepest nesting of groups. RE2 has 1000; patterns come from strangers and parsing recurses.
pub(super) const DEPTH_MAX: usize = 200;

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
        items.push(Node { hir: repetition(hir, min, max, greedy), weight });
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
                let name = self.capture_name(start)?;
                // The engine allows no such names; by its number, the group can be had all the same.
                let is_kept = !name.starts_with(|c: char| c.is_ascii_digit());
                capture = Some(is_kept.then(|| name.into()));
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
}

fn leaf(hir: Hir) -> Node {
    Node { hir, weight: 1 }
}

/// `hir` repeated, in a form whose printed text means the same. A `?` right behind another repetition would make that
/// one lazy: an option of a repetition becomes a choice. Groups that are never entered would be left out, and those behind
/// them change their numbers: a choice that fails keeps them.
fn repetition(hir: Hir, min: u32, max: Option<u32>, greedy: bool) -> Hir {
    let is_repetition = matches!(hir.kind(), HirKind::Repetition(_));
    match (min, max) {
        (0, Some(1)) if is_repetition && greedy => Hir::alternation(vec![hir, Hir::empty()]),
        (0, Some(1)) if is_repetition => Hir::alternation(vec![Hir::empty(), hir]),
        (_, Some(0)) if hir.properties().explicit_captures_len() > 0 => {
            Hir::alternation(vec![Hir::empty(), Hir::concat(vec![Hir::fail(), hir])])
        }
        _ => Hir::repetition(Repetition { min, max, greedy, sub: Box::new(hir) }),
    }
}

fn concat(items: Vec<Node>) -> Node {
    let weight = items.iter().map(|n| n.weight).max().unwrap_or(1);
    Node { hir: Hir::concat(items.into_iter().map(|n| n.hir).collect()), weight }
}
