//! What a query tells besides its result: warnings and infos in Prometheus's words, with their place in the query.
//!
//! One text is kept once, with the place where it first stands in the query, so that a condition met by ten thousand
//! series is told once, and the outcome doesn't depend on the order in which series were evaluated.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::parse::Span;

/// How grave an annotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// The result may well be wrong.
    Warning,
    /// Something worth knowing; the result is what was asked for.
    Info,
}

/// Warnings and infos of one query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    texts: BTreeMap<(Level, String), Span>,
}

impl Annotations {
    /// Adds `text`, given without its prefix.
    pub fn add(&mut self, level: Level, text: &str, span: Span) {
        let prefix = match level {
            Level::Warning => "PromQL warning",
            Level::Info => "PromQL info",
        };
        self.add_whole(level, format!("{prefix}: {text}"), span);
    }

    /// Adds a text as [`Annotations::of`] gives it.
    pub fn add_whole(&mut self, level: Level, text: String, span: Span) {
        let first = self.texts.entry((level, text)).or_insert(span);
        if (span.start, span.end) < (first.start, first.end) {
            *first = span;
        }
    }

    /// Takes in those of another part of the query.
    pub fn merge(&mut self, other: Self) {
        for ((level, text), span) in other.texts {
            self.add_whole(level, text, span);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Texts of one level with their places in the query, in order of the text.
    pub fn of(&self, level: Level) -> impl Iterator<Item = (&str, Span)> {
        self.texts
            .iter()
            .filter(move |((l, _), _)| *l == level)
            .map(|((_, text), span)| (text.as_str(), *span))
    }

    /// At most `limit` texts of one level, each followed by its line and column in `query`, as Prometheus's API gives
    /// them; a last line counts what was left out. A limit of 0 is none.
    pub fn render(&self, level: Level, query: &str, limit: usize) -> Vec<String> {
        let total = self.of(level).count();
        let shown = if limit == 0 { total } else { limit };
        let mut lines: Vec<String> = self
            .of(level)
            .take(shown)
            .map(|(text, span)| {
                let mut line = text.to_owned();
                let (row, column) = line_and_column(query, span.start);
                write!(line, " ({row}:{column})").expect("writing to a string can't fail");
                line
            })
            .collect();
        if total > shown {
            let kind = match level {
                Level::Warning => "warning",
                Level::Info => "info",
            };
            lines.push(format!("{} more {kind} annotations omitted", total - shown));
        }
        lines
    }
}

/// Line and column, from 1, of a byte of the query.
fn line_and_column(query: &str, at: u32) -> (usize, usize) {
    let before = query.get(..at as usize).unwrap_or(query);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before.len() - line_start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_at_its_first_place() {
        let mut annotations = Annotations::default();
        annotations.add(Level::Info, "ignored histogram in max aggregation", Span { start: 9, end: 12 });
        annotations.add(Level::Info, "ignored histogram in max aggregation", Span { start: 4, end: 8 });
        assert_eq!(
            annotations.render(Level::Info, "a +\nmax(b)", 10),
            ["PromQL info: ignored histogram in max aggregation (2:1)"]
        );
        assert!(annotations.render(Level::Warning, "", 10).is_empty());
    }

    #[test]
    fn what_is_over_the_limit_is_counted() {
        let mut annotations = Annotations::default();
        for text in ["a", "b", "c"] {
            annotations.add(Level::Warning, text, Span::default());
        }
        let lines = annotations.render(Level::Warning, "x", 1);
        assert_eq!(lines, ["PromQL warning: a (1:1)", "2 more warning annotations omitted"]);
    }
}
