//! A matcher's pattern, compiled: RE2's meaning, anchored at both ends, `.` matching newline.
//!
//! Steps: refuse patterns over [`PATTERN_BYTES_MAX`]; parse RE2's syntax (`parse`); look for a form that needs no
//! regex engine (everything, a set of literals, literals with `.*` and `.+` between them); else hand the parsed form,
//! printed again, to the `regex` crate, whose compiled size is limited (`engine`).

mod classes;
mod engine;
mod parse;
#[cfg(test)]
mod targets;
#[cfg(test)]
mod tests;

use parse::Captures;
use regex_syntax::hir::{Class, ClassUnicodeRange, Dot, Hir, HirKind, Look};

use crate::{Error, Result};

/// Longest pattern, in bytes. A list of 10,000 host names fits; a pattern of 1 MB is an accident or an attack.
pub const PATTERN_BYTES_MAX: usize = 512 << 10;

/// Largest compiled form, in bytes, of a pattern that needs the regex engine: what RE2's limits of repetition let a class
/// of Unicode come to, such as `\pL{1,500}`.
pub const COMPILED_BYTES_MAX: usize = 64 << 20;

/// Most values that a pattern is expanded to: above the number of alternatives that fit a pattern of
/// [`PATTERN_BYTES_MAX`] bytes at four bytes each.
const SET_MAX: usize = 1 << 17;

/// Most values that classes and options multiply to: `[a-c]x?` is six. More are quicker by the engine.
const PRODUCT_MAX: usize = 256;

/// A pattern as a whole value has to match it, with its capturing groups: for functions that replace. A group whose name
/// begins with a digit has its number alone.
///
/// # Errors
/// [`Error::Invalid`] where it isn't RE2; [`Error::Limit`] where it is longer than [`PATTERN_BYTES_MAX`] or larger than
/// [`COMPILED_BYTES_MAX`] once compiled.
pub fn anchored_regex(pattern: &str) -> Result<regex::Regex> {
    compile(parsed(pattern, Captures::Kept)?)
}

fn parsed(pattern: &str, captures: Captures) -> Result<Hir> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(Error::Limit(format!(
            "regular expression of {} bytes: the limit is {PATTERN_BYTES_MAX}",
            pattern.len()
        )));
    }
    parse::parse(pattern, captures).map_err(|refusal| {
        let shown: String = pattern.chars().take(80).collect();
        Error::Invalid(format!(
            "invalid regular expression {shown:?}: {} at byte {}",
            refusal.reason, refusal.at
        ))
    })
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    form: Form,
    prefix: Box<str>,
}

#[derive(Clone, Debug)]
enum Form {
    /// `.*`
    Everything,
    /// The only values that match, sorted.
    Set(Box<[Box<str>]>),
    /// Literals with gaps between them.
    Glob(Glob),
    Regex(regex::Regex),
}

/// `prefix`, then for each part a gap and a literal; the last part ends the value.
#[derive(Clone, Debug)]
struct Glob {
    prefix: Box<str>,
    parts: Box<[Part]>,
}

#[derive(Clone, Debug)]
struct Part {
    /// Whether the gap before the literal has at least one character (`.+`), not any number (`.*`).
    gap_needed: bool,
    literal: Box<str>,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it isn't RE2; [`Error::Limit`] where it is too long or too large once compiled.
    pub(super) fn new(pattern: &str) -> Result<Self> {
        let hir = parsed(pattern, Captures::Dropped)?;
        let hir = without_anchors(hir, true, true);
        let prefix = literal_prefix(&hir);
        let form = match set_of(&hir) {
            Some(mut set) => {
                set.sort_unstable();
                set.dedup();
                Form::Set(set.into_iter().map(String::into_boxed_str).collect())
            }
            None if is_gap(&hir) == Some(false) => Form::Everything,
            None => match Glob::of(&hir) {
                Some(glob) => Form::Glob(glob),
                None => Form::Regex(compile(hir)?),
            },
        };
        Ok(Self { form, prefix })
    }

    /// Whether the whole of `value` matches.
    pub(super) fn matches(&self, value: &str) -> bool {
        match &self.form {
            Form::Everything => true,
            Form::Set(set) => set.binary_search_by(|v| (**v).cmp(value)).is_ok(),
            Form::Glob(glob) => glob.matches(value),
            Form::Regex(regex) => regex.is_match(value),
        }
    }

    /// All values that match, sorted, where the pattern spells them out.
    pub(super) fn set(&self) -> Option<&[Box<str>]> {
        match &self.form {
            Form::Set(set) => Some(set),
            _ => None,
        }
    }

    /// What every matching value begins with; `""` where nothing is known.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether every value matches, the empty one too.
    pub(super) fn is_everything(&self) -> bool {
        matches!(self.form, Form::Everything)
    }
}

impl Glob {
    fn of(hir: &Hir) -> Option<Self> {
        let items = match hir.kind() {
            HirKind::Concat(items) => items.as_slice(),
            _ => std::slice::from_ref(hir),
        };
        let mut prefix = String::new();
        let mut parts: Vec<(bool, String)> = Vec::new();
        let mut after_gap = false;
        for item in items {
            if let Some(needed) = is_gap(item) {
                // `.+.+` needs two characters: rare, left to the engine.
                if after_gap {
                    return None;
                }
                parts.push((needed, String::new()));
                after_gap = true;
            } else {
                let HirKind::Literal(literal) = item.kind() else { return None };
                let text = std::str::from_utf8(&literal.0).ok()?;
                parts.last_mut().map_or(&mut prefix, |(_, literal)| literal).push_str(text);
                after_gap = false;
            }
        }
        let parts =
            parts.into_iter().map(|(gap_needed, literal)| Part { gap_needed, literal: literal.into() });
        Some(Self { prefix: prefix.into(), parts: parts.collect() })
    }

    /// Takes each literal at its first place: any later place leaves less room for those after it.
    fn matches(&self, value: &str) -> bool {
        let Some(mut rest) = value.strip_prefix(&*self.prefix) else { return false };
        let Some((last, middle)) = self.parts.split_last() else { return rest.is_empty() };
        for part in middle {
            let Some(found) =
                after_gap(rest, part.gap_needed).and_then(|from| from.split_once(&*part.literal))
            else {
                return false;
            };
            rest = found.1;
        }
        after_gap(rest, last.gap_needed).is_some_and(|rest| rest.ends_with(&*last.literal))
    }
}

/// What is left once a gap's needed character is taken.
fn after_gap(rest: &str, needed: bool) -> Option<&str> {
    let mut chars = rest.chars();
    if needed {
        chars.next()?;
    }
    Some(chars.as_str())
}

/// Whether this is `.*` (false) or `.+` (true) with a dot that matches newline.
fn is_gap(hir: &Hir) -> Option<bool> {
    match hir.kind() {
        HirKind::Repetition(r) if r.max.is_none() && r.min <= 1 && *r.sub == Hir::dot(Dot::AnyChar) => {
            Some(r.min == 1)
        }
        _ => None,
    }
}

/// `^` in front and `$` behind say what is so anyway.
fn without_anchors(hir: Hir, at_start: bool, at_end: bool) -> Hir {
    match hir.into_kind() {
        HirKind::Look(Look::Start) if at_start => Hir::empty(),
        HirKind::Look(Look::End) if at_end => Hir::empty(),
        HirKind::Concat(items) => {
            let last = items.len() - 1;
            let item = |(i, hir)| without_anchors(hir, at_start && i == 0, at_end && i == last);
            Hir::concat(items.into_iter().enumerate().map(item).collect())
        }
        HirKind::Alternation(items) => {
            Hir::alternation(items.into_iter().map(|hir| without_anchors(hir, at_start, at_end)).collect())
        }
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Repetition(repetition) => Hir::repetition(repetition),
        HirKind::Capture(capture) => Hir::capture(capture),
    }
}

fn compile(hir: Hir) -> Result<regex::Regex> {
    let anchored = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
    engine::compile(&anchored.to_string())
}

/// The literal that every match begins with.
fn literal_prefix(hir: &Hir) -> Box<str> {
    let first = match hir.kind() {
        HirKind::Concat(items) => &items[0],
        _ => hir,
    };
    match first.kind() {
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).unwrap_or("").into(),
        _ => "".into(),
    }
}

/// All values that match, unsorted, where they are few.
fn set_of(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(literal) => Some(vec![String::from_utf8(literal.0.to_vec()).ok()?]),
        HirKind::Class(Class::Unicode(class)) => {
            let count: usize = class.iter().map(ClassUnicodeRange::len).sum();
            (count <= PRODUCT_MAX).then(|| {
                class.iter().flat_map(|range| range.start()..=range.end()).map(String::from).collect()
            })
        }
        HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) => None,
        HirKind::Repetition(repetition) => {
            let max = repetition.max?;
            let once = set_of(&repetition.sub)?;
            let mut power = vec![String::new()];
            let mut set = Vec::new();
            for times in 0..=max {
                if times >= repetition.min {
                    set.extend_from_slice(&power);
                }
                if times < max {
                    power = product(&power, &once)?;
                }
            }
            (set.len() <= PRODUCT_MAX).then_some(set)
        }
        HirKind::Capture(capture) => set_of(&capture.sub),
        HirKind::Concat(items) => {
            let mut set = vec![String::new()];
            for item in items {
                set = product(&set, &set_of(item)?)?;
            }
            Some(set)
        }
        HirKind::Alternation(items) => {
            let mut set = Vec::new();
            for item in items {
                set.append(&mut set_of(item)?);
                if set.len() > SET_MAX {
                    return None;
                }
            }
            Some(set)
        }
    }
}

/// Every value of `left` followed by every one of `right`. A single literal beside a long list multiplies nothing.
fn product(left: &[String], right: &[String]) -> Option<Vec<String>> {
    let count = left.len().checked_mul(right.len())?;
    let multiplied = left.len() > 1 && right.len() > 1;
    if count > if multiplied { PRODUCT_MAX } else { SET_MAX } {
        return None;
    }
    Some(left.iter().flat_map(|l| right.iter().map(move |r| format!("{l}{r}"))).collect())
}
