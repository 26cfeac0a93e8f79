//! From a query's text to a typed tree, and back.

pub mod ast;
pub mod string;

/// Height of the highest tree that the parser builds: `((…))`, `1+1+…` and `f(f(…))` all count. It bounds the stack
/// of every walk over a tree.
pub const MAX_DEPTH: usize = 500;

/// A run of bytes of the query, the end excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
}
