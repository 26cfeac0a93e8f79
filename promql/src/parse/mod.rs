//! From a query's text to a typed tree, and back.
//!
//! 1. `lexer` cuts the text into tokens, one at a time, as the parser asks for them.
//! 2. `parser` builds the tree by precedence climbing; selectors and their modifiers are in `selector`, those of
//!    operators in `matching`. Every
//!    node is checked (`check`) as it is built, so the first error met is the one reported.
//! 3. `display` writes a tree in one line, `pretty` in several, `json` as Prometheus's `parse_query` does.

pub mod ast;
mod check;
mod display;
pub mod duration;
mod error;
mod json;
pub mod length;
mod lexer;
mod matching;
mod number;
mod parser;
mod pretty;
mod selector;
pub mod string;

pub use error::ParseError;
pub use parser::{parse, parse_with};

/// Height of the highest tree that the parser builds, as `f(f(…))` is one; a chain such as `1+1+…` is one level. It bounds
/// the stack of every walk over a tree: planning and evaluating take the most, 7 KiB a level unoptimised, of the 2 MiB that
/// a thread has.
pub const MAX_DEPTH: usize = 200;

/// Most expressions that may stand inside one another: parentheses, calls, signs, operands of operators. It bounds
/// the parser's own stack, to well below the 2 MiB of a thread even in an unoptimised build.
pub const MAX_NESTING: usize = 128;

/// A run of bytes of the query, the end excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
}

impl Span {
    /// From the start of `self` to the end of `other`.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end }
    }
}

/// What the parser accepts beyond the stable language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Syntax {
    /// Functions, aggregations and syntax that Prometheus marks as experimental.
    pub experimental: bool,
}

#[cfg(test)]
mod targets;
#[cfg(test)]
mod tests;
