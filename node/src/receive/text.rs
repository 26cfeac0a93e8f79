//! Prometheus's text exposition format and OpenMetrics, line by line, without copying on a hit.
//!
//! ```text
//! # TYPE http_requests_total counter
//! http_requests_total{method="post",code="200"} 1027 1395066363000
//! {"a metric with spaces", "a label"="b"} 1
//! foo_bucket{le="1"} 11 # {trace_id="KOO5"} 0.67 1520879607.789        (OpenMetrics: seconds; exemplars)
//! ```
//! A series' raw bytes are those from the line's start to the closing brace; only series that are new are parsed.
//! Bounds of histograms and summaries are spelled one way (`canonical_bound`): such a series is written anew.
//! A line that can't be read is refused by its number, and the others are taken. OpenMetrics ends with `# EOF`: a body
//! that doesn't was cut, and one that goes on behind it was put together of several; neither is taken at all.

use std::borrow::Cow;

use tsdb::db::{Exemplar, Metadata};
use tsdb::model::{Labels, METRIC_NAME, Sample, Value};

use self::bound::canonical_bound;
use super::batch::{Batch, EXEMPLAR_BYTES, METADATA_BYTES, Raw, SAMPLE_BYTES, SERIES_BYTES, SeriesHasher};
use super::budget::{Budget, DecodedBytes, OverBudget};
use super::labels;
use crate::config::Limits;

mod bound;

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`: timestamps in milliseconds.
    Text,
    /// `application/openmetrics-text`: timestamps in seconds, exemplars, and nothing after `# EOF`.
    OpenMetrics,
}

/// Latest time of OpenMetrics, in seconds since the Unix epoch: the end of the year 9999. The text format's milliseconds,
/// taken for seconds, lie beyond it from 1978 on.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// Most labels of an exemplar: OpenMetrics allows 128 characters for all of them.
const EXEMPLAR_LABELS_MAX: usize = 128;

/// Why a body can't be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// It isn't what it says it is.
    #[error("{0}")]
    Fault(String),
    /// Its parts take more memory than there is for them.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

/// Decodes a whole `body` into `batch`, whose growth is taken from `memory` beforehand; samples without a timestamp get
/// `now_ms`.
///
/// # Errors
/// Those of [`Reader::read`] and [`Reader::finish`], and that there is too little memory: nothing that is in `batch` may
/// be stored then.
pub fn decode(
    body: &[u8],
    format: Format,
    now_ms: i64,
    hasher: &SeriesHasher,
    memory: &mut DecodedBytes<'_>,
    batch: &mut Batch,
) -> Result<(), TextError> {
    // As if each line were a sample: what is far too much is refused before it fills the memory.
    memory.check(body.iter().filter(|byte| **byte == b'\n').count() * (SERIES_BYTES + SAMPLE_BYTES))?;
    let mut reader = Reader::new(format, now_ms);
    reader.read_within(body, hasher, memory, batch)?;
    reader.finish().map_err(TextError::Fault)
}

/// Whether every line of a decoded body, and the labels of each of its series, can be read: what a format with an end
/// mark is judged by before anything of it is stored.
///
/// # Errors
/// The first fault, and how many there are besides.
pub fn judge(body: &[u8], batch: &Batch, limits: &Limits) -> Result<(), String> {
    let mut first = batch.refused.described().first().map(|refused| refused.why.clone());
    let mut faults = batch.refused.count();
    for series in 0..batch.raw.len() as u32 {
        if let Err(why) = labels(batch.raw_labels(body, series), limits) {
            faults += 1;
            first = first.or(Some(why));
        }
    }
    let Some(first) = first else { return Ok(()) };
    let more = match faults - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Err(format!("{first}{more}; nothing of the body is stored"))
}

/// Reads a body in pieces of whole lines.
#[derive(Clone, Debug)]
pub struct Reader {
    format: Format,
    now_ms: i64,
    /// Lines read so far.
    lines: usize,
    /// Whether the end mark was read.
    has_ended: bool,
    /// The type that the last `# TYPE` line names.
    kind: &'static str,
}

impl Reader {
    /// At the start of a body; samples without a timestamp get `now_ms`.
    pub fn new(format: Format, now_ms: i64) -> Self {
        Self { format, now_ms, lines: 0, has_ended: false, kind: UNKNOWN }
    }

    /// Adds the samples of the next piece of a file to `batch`, which refers into it; what they take is bounded by the
    /// length of the piece.
    ///
    /// # Errors
    /// The line that stands behind the end mark.
    pub fn read(&mut self, piece: &[u8], hasher: &SeriesHasher, batch: &mut Batch) -> Result<(), String> {
        let mut held = Budget::new(usize::MAX).hold();
        let mut memory = DecodedBytes::new(&mut held, usize::MAX);
        self.read_within(piece, hasher, &mut memory, batch).map_err(|error| error.to_string())
    }

    fn read_within(
        &mut self,
        piece: &[u8],
        hasher: &SeriesHasher,
        memory: &mut DecodedBytes<'_>,
        batch: &mut Batch,
    ) -> Result<(), TextError> {
        let mut families = Families::default();
        let mut offset = 0;
        for line in piece.split_inclusive(|b| *b == b'\n') {
            let start = offset;
            offset += line.len();
            self.lines += 1;
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let content = trimmed(line);
            if self.has_ended && !content.is_empty() {
                return Err(TextError::Fault(format!("line {}: there is data after # EOF", self.lines)));
            }
            let taken = match content {
                [] => Ok(()),
                [b'#', comment @ ..] => {
                    self.has_ended = self.format == Format::OpenMetrics && trimmed(comment) == b"EOF";
                    let before = families.found.len();
                    let kind = families.take(comment);
                    memory.take((families.found.len() - before) * (METADATA_BYTES + comment.len()))?;
                    kind.map(|kind| self.kind = kind.unwrap_or(self.kind))
                }
                _ => {
                    let before = (batch.exemplars.len(), batch.gathered.len());
                    let taken = self.sample(line, start, hasher, batch);
                    let exemplars = (batch.exemplars.len() - before.0) * (EXEMPLAR_BYTES + line.len());
                    memory.take(SERIES_BYTES + SAMPLE_BYTES + exemplars + batch.gathered.len() - before.1)?;
                    taken
                }
            };
            if let Err(why) = taken {
                batch.refused.push(None, 1, || format!("line {}: {why}", self.lines));
            }
        }
        families.finish(&mut batch.metadata);
        Ok(())
    }

    /// Adds the sample of a line that begins at `offset` in the piece.
    fn sample(
        &self,
        line: &[u8],
        offset: usize,
        hasher: &SeriesHasher,
        batch: &mut Batch,
    ) -> Result<(), String> {
        let indent = line.iter().take_while(|b| is_space(**b)).count();
        let end = indent + series_length(&line[indent..])?;
        let raw = &line[indent..end];
        let mut words = Words(&line[end..]);
        let value = number(words.next().ok_or("the value is missing")?)?;
        let timestamp_ms = match words.next_unless_exemplar() {
            Some(text) => timestamp(text, self.format)?,
            None => self.now_ms,
        };
        let exemplar = match (self.format, words.exemplar()) {
            (_, None) => None,
            (Format::OpenMetrics, Some(text)) => Some(exemplar(text, timestamp_ms)?),
            (Format::Text, Some(_)) => return Err("there is something behind the timestamp".to_owned()),
        };
        if words.next().is_some() {
            return Err("there is something behind the timestamp".to_owned());
        }
        let at = |i: usize| u32::try_from(i).map_err(|_| "the body is too large".to_owned());
        let (key, place) = match with_canonical_bound(raw, self.kind)? {
            None => (hasher.key(raw), Raw::Body(at(offset + indent)?..at(offset + end)?)),
            Some(spelled) => {
                let start = at(batch.gathered.len())?;
                batch.gathered.extend_from_slice(spelled.as_bytes());
                (hasher.key(spelled.as_bytes()), Raw::Gathered(start..at(batch.gathered.len())?))
            }
        };
        let owner = batch.push_series(key, place);
        batch.push_sample(owner, Sample { timestamp_ms, start_ms: 0, value: Value::Float(value) });
        if let Some(exemplar) = exemplar {
            batch.exemplars.push((owner, exemplar));
        }
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// When the format has an end mark, and none was read.
    pub fn finish(&self) -> Result<(), String> {
        if self.format == Format::OpenMetrics && !self.has_ended {
            return Err(format!(
                "the data does not end with # EOF, which OpenMetrics demands: it was cut short behind line {}, or is of \
                 another format",
                self.lines
            ));
        }
        Ok(())
    }
}

/// A series' raw bytes with its bound spelled as it is stored; `None` where it is so already, or there is none.
///
/// # Errors
/// What is wrong with its labels.
fn with_canonical_bound(raw: &[u8], kind: &str) -> Result<Option<String>, String> {
    let label = match kind {
        "histogram" => "le",
        "summary" => "quantile",
        _ => return Ok(None),
    };
    if !raw.windows(label.len()).any(|at| at == label.as_bytes()) {
        return Ok(None);
    }
    let mut pairs = pairs(raw, usize::MAX)?;
    let mut is_other = false;
    for (name, value) in &mut pairs {
        if let Cow::Owned(spelled) = canonical_bound(kind, name, value) {
            *value = spelled;
            is_other = true;
        }
    }
    // Debug's quotes and escapes aren't the format's: those are backslash, quote and newline alone.
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let shown = pairs.iter().map(|(name, value)| format!("\"{}\"=\"{}\"", quoted(name), quoted(value)));
    Ok(is_other.then(|| format!("{{{}}}", shown.collect::<Vec<_>>().join(","))))
}

/// Bytes from the line's start to the end of the name, or to the closing brace.
fn series_length(line: &[u8]) -> Result<usize, String> {
    let name = line.iter().position(|b| is_space(*b) || *b == b'{').unwrap_or(line.len());
    // A space may stand between name and brace.
    let brace = name + line[name..].iter().take_while(|b| is_space(**b)).count();
    if line.get(brace) != Some(&b'{') {
        return if name == 0 { Err("the name is missing".to_owned()) } else { Ok(name) };
    }
    closing_brace(&line[brace..]).map(|length| brace + length)
}

/// Bytes from an opening brace to behind its closing one, braces in quotes aside.
fn closing_brace(text: &[u8]) -> Result<usize, String> {
    let (mut quoted, mut at) = (false, 1);
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Ok(at + 1),
            _ => {}
        }
        at += 1;
    }
    Err("a closing brace is missing".to_owned())
}

/// The labels in a series' raw bytes.
///
/// # Errors
/// What is wrong with them, for the sender to read.
pub fn labels(raw: &[u8], limits: &Limits) -> Result<Labels, String> {
    let mut pairs = pairs(raw, labels::pairs_max(limits))?;
    pairs.sort_unstable();
    let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    if let Some(twice) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
        return Err(format!("label {} occurs twice", labels::quoted(twice[0].0)));
    }
    labels::checked(&pairs, limits)
}

/// The pairs in a series' raw bytes, in their order: at most `most`.
fn pairs(raw: &[u8], most: usize) -> Result<Vec<(String, String)>, String> {
    let text = std::str::from_utf8(raw).map_err(|_| "the series isn't UTF-8".to_owned())?;
    let (name, braces) = text.find('{').map_or((text, ""), |at| text.split_at(at));
    let mut pairs = Vec::with_capacity(16);
    let name = name.trim_matches([' ', '\t']);
    if !name.is_empty() {
        if !name.bytes().enumerate().all(|(i, b)| is_name(i, b) || b == b':') {
            return Err(format!("{} isn't a metric's name", labels::quoted(name)));
        }
        pairs.push((METRIC_NAME.to_owned(), name.to_owned()));
    }
    if !braces.is_empty() {
        parse_braces(braces, most, &mut pairs)?;
    }
    Ok(pairs)
}

fn is_name(at: usize, byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || (at > 0 && byte.is_ascii_digit())
}

/// Pairs in `{a="b", "c d"="e", "a metric's name"}`: at most `most`, a hostile line has millions.
fn parse_braces(text: &str, most: usize, pairs: &mut Vec<(String, String)>) -> Result<(), String> {
    let mut rest = text.strip_prefix('{').ok_or("an opening brace is missing")?;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if rest.starts_with('}') {
            return Ok(());
        }
        if pairs.len() >= most {
            return Err(format!("there are more than {most} labels"));
        }
        let quoted = rest.starts_with('"');
        let name = if quoted {
            take_quoted(&mut rest)?
        } else {
            let length = rest.bytes().enumerate().take_while(|(i, b)| is_name(*i, *b)).count();
            let (name, tail) = rest.split_at(length);
            rest = tail;
            name.to_owned()
        };
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(tail) = rest.strip_prefix('=').filter(|_| !name.is_empty()) {
            rest = tail.trim_start_matches([' ', '\t']);
            let value = take_quoted(&mut rest)?;
            pairs.push((name, value));
        } else if quoted {
            pairs.push((METRIC_NAME.to_owned(), name));
        } else {
            return Err(format!("a label's name and = are expected at {}", labels::quoted(rest)));
        }
        rest = rest.trim_start_matches([' ', '\t']);
        match rest.strip_prefix(',') {
            Some(tail) => rest = tail,
            None if rest.starts_with('}') => {}
            None => return Err(format!("a comma or closing brace is expected at {}", labels::quoted(rest))),
        }
    }
}

/// A help text: each backslash that escapes is read with what it escapes, from left to right.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.as_str().chars().next()) {
            ('\\', Some('n')) => plain.push('\n'),
            ('\\', Some(escaped @ ('\\' | '"'))) => plain.push(escaped),
            _ => {
                plain.push(c);
                continue;
            }
        }
        chars.next();
    }
    plain
}

/// Text in quotes, with `\\`, `\"` and `\n` as escapes; any other backslash stands for itself.
fn take_quoted(rest: &mut &str) -> Result<String, String> {
    let wrong = || format!("text in quotes is expected at {}", labels::quoted(rest));
    let mut text = rest.strip_prefix('"').ok_or_else(wrong)?;
    let mut value = String::new();
    loop {
        let at = text.find(['"', '\\']).ok_or_else(|| "a closing quote is missing".to_owned())?;
        value.push_str(&text[..at]);
        if text[at..].starts_with('"') {
            *rest = &text[at + 1..];
            return Ok(value);
        }
        let escaped = text[at + 1..].chars().next();
        match escaped {
            Some('n') => value.push('\n'),
            Some(c @ ('"' | '\\')) => value.push(c),
            _ => {
                value.push('\\');
                text = &text[at + 1..];
                continue;
            }
        }
        text = &text[at + 2..];
    }
}

/// The words behind a series.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        self.0 = self.0.trim_ascii_start();
        let end = self.0.iter().position(|b| is_space(*b)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    fn next_unless_exemplar(&mut self) -> Option<&'a [u8]> {
        self.0 = self.0.trim_ascii_start();
        if self.0.starts_with(b"#") { None } else { self.next() }
    }

    /// All that is left, if it begins like an exemplar.
    fn exemplar(&mut self) -> Option<&'a [u8]> {
        self.0 = self.0.trim_ascii_start();
        let text = self.0.strip_prefix(b"#")?;
        self.0 = &[];
        Some(text)
    }
}

/// `{labels} value [timestamp]`, behind the `#`.
fn exemplar(text: &[u8], sample_ms: i64) -> Result<Exemplar, String> {
    let text = text.trim_ascii_start();
    if !text.starts_with(b"{") {
        return Err("an exemplar's labels are missing".to_owned());
    }
    let end = closing_brace(text)?;
    let raw = std::str::from_utf8(&text[..end]).map_err(|_| "the exemplar isn't UTF-8".to_owned())?;
    let mut pairs = Vec::new();
    parse_braces(raw, EXEMPLAR_LABELS_MAX, &mut pairs)?;
    let labels = Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    let mut words = Words(&text[end..]);
    let value = number(words.next().ok_or("the exemplar's value is missing")?)?;
    let timestamp_ms = words.next().map_or(Ok(sample_ms), |text| timestamp(text, Format::OpenMetrics))?;
    if words.next().is_some() {
        return Err("there is something behind the exemplar".to_owned());
    }
    Ok(Exemplar { timestamp_ms, value, labels: labels.map_err(|e| format!("exemplar: {e}"))? })
}

fn number(text: &[u8]) -> Result<f64, String> {
    let parsed = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
    parsed.ok_or_else(|| format!("{} isn't a number", labels::quoted(&String::from_utf8_lossy(text))))
}

#[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
fn timestamp(text: &[u8], format: Format) -> Result<i64, String> {
    let shown = || labels::quoted(&String::from_utf8_lossy(text));
    match format {
        Format::Text => {
            let parsed = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
            parsed.ok_or_else(|| format!("{} isn't a timestamp in milliseconds", shown()))
        }
        Format::OpenMetrics => {
            let seconds = number(text)?;
            if seconds.abs() <= SECONDS_MAX {
                Ok((seconds * 1000.0).round() as i64)
            } else {
                Err(format!(
                    "{} isn't a time in seconds up to the year 9999 (is it in milliseconds?)",
                    shown()
                ))
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.trim_ascii()
}

/// Metadata from comments; lines of one family stand together.
#[derive(Default)]
struct Families {
    found: Vec<Metadata>,
}

/// Types of metric families; what else is written counts as unknown.
const KINDS: [&str; 7] = ["counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];
const UNKNOWN: &str = "unknown";

impl Families {
    /// Reads a comment; the type that it names.
    fn take(&mut self, comment: &[u8]) -> Result<Option<&'static str>, String> {
        let mut words = Words(comment);
        let keyword = words.next().unwrap_or_default();
        if ![&b"HELP"[..], b"TYPE", b"UNIT"].contains(&keyword) {
            return Ok(None);
        }
        let text = std::str::from_utf8(words.0).map_err(|_| "the comment isn't UTF-8".to_owned())?;
        let mut rest = text.trim_start_matches([' ', '\t']);
        let family = if rest.starts_with('"') {
            take_quoted(&mut rest)?
        } else {
            let (name, tail) = rest.split_at(rest.find([' ', '\t']).unwrap_or(rest.len()));
            rest = tail;
            name.to_owned()
        };
        if family.is_empty() {
            return Err("a metric family's name is missing".to_owned());
        }
        let rest = rest.trim_matches([' ', '\t']);
        if self.found.last().is_none_or(|last| last.family != family) {
            let kind = UNKNOWN.to_owned();
            self.found.push(Metadata { family, kind, ..Metadata::default() });
        }
        let last = self.found.last_mut().expect("one was pushed");
        match keyword {
            b"HELP" => last.help = unescaped(rest),
            b"UNIT" => rest.clone_into(&mut last.unit),
            _ => {
                let kind = KINDS.iter().find(|kind| **kind == rest).copied().unwrap_or(UNKNOWN);
                kind.clone_into(&mut last.kind);
                return Ok(Some(kind));
            }
        }
        Ok(None)
    }

    fn finish(self, metadata: &mut Vec<Metadata>) {
        metadata.extend(self.found);
    }
}

#[cfg(test)]
mod tests;
