//! What is wrong with a query, and where.

use super::Span;

/// A query that can't be parsed. Shown as `line:column: parse error: message`, counted from 1, columns in bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: parse error: {message}")]
pub struct ParseError {
    /// What is wrong.
    pub message: String,
    /// The bytes of the query that are wrong.
    pub span: Span,
    /// Line of the first such byte, from 1.
    pub line: usize,
    /// Its column in bytes, from 1.
    pub column: usize,
}

impl ParseError {
    /// An error at `span` of `query`.
    pub(super) fn new(query: &str, span: Span, message: impl Into<String>) -> Self {
        let before = &query.as_bytes()[..query.len().min(span.start as usize)];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        Self {
            message: message.into(),
            span,
            line: 1 + before.iter().filter(|b| **b == b'\n').count(),
            column: 1 + before.len() - line_start,
        }
    }
}
