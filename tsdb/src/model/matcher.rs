//! Label matchers.

use std::fmt;
use std::sync::Arc;

use super::regex::Pattern;
use crate::Result;

/// How a label's value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// Whether it refuses what its value or pattern describes: `!=` and `!~`.
    pub fn is_negative(self) -> bool {
        matches!(self, Self::NotEqual | Self::NotRegex)
    }

    /// The op that matches exactly the other values.
    #[must_use]
    pub fn inverse(self) -> Self {
        match self {
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Regex => Self::NotRegex,
            Self::NotRegex => Self::Regex,
        }
    }
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        })
    }
}

/// One condition on a label. A label that a series lacks has the value `""`. Cloning copies pointers.
#[derive(Clone)]
pub struct Matcher {
    name: Arc<str>,
    value: Arc<str>,
    test: Test,
}

/// A comparison with what it needs, so that no regex matcher can lack its pattern.
#[derive(Clone)]
enum Test {
    Equal,
    NotEqual,
    Regex(Arc<Pattern>),
    NotRegex(Arc<Pattern>),
}

impl Matcher {
    /// A matcher; patterns have RE2's meaning, `.` matches newline, and both ends are anchored.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when the pattern isn't RE2, [`Error::Limit`](crate::Error::Limit)
    /// when it is longer than [`PATTERN_BYTES_MAX`](super::PATTERN_BYTES_MAX) or too large once compiled.
    pub fn new(op: MatchOp, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Result<Self> {
        let (name, value) = (name.into(), value.into());
        let test = match op {
            MatchOp::Equal => Test::Equal,
            MatchOp::NotEqual => Test::NotEqual,
            MatchOp::Regex => Test::Regex(Arc::new(Pattern::new(&value)?)),
            MatchOp::NotRegex => Test::NotRegex(Arc::new(Pattern::new(&value)?)),
        };
        Ok(Self { name, value, test })
    }

    /// `name="value"`.
    pub fn equal(name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), value: value.into(), test: Test::Equal }
    }

    /// The label's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The comparison.
    pub fn op(&self) -> MatchOp {
        match self.test {
            Test::Equal => MatchOp::Equal,
            Test::NotEqual => MatchOp::NotEqual,
            Test::Regex(_) => MatchOp::Regex,
            Test::NotRegex(_) => MatchOp::NotRegex,
        }
    }

    /// The value or pattern as written.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label with `value` passes; pass `""` for a label that is absent.
    pub fn matches(&self, value: &str) -> bool {
        match &self.test {
            Test::Equal => *self.value == *value,
            Test::NotEqual => *self.value != *value,
            Test::Regex(pattern) => pattern.matches(value),
            Test::NotRegex(pattern) => !pattern.matches(value),
        }
    }

    /// Whether a series that lacks the label passes.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// Whether it passes whatever the value, and whether or not the label exists: `=~".*"`.
    pub fn matches_all(&self) -> bool {
        matches!(&self.test, Test::Regex(pattern) if pattern.is_everything())
    }

    /// The matcher that passes exactly what this one refuses.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let test = match &self.test {
            Test::Equal => Test::NotEqual,
            Test::NotEqual => Test::Equal,
            Test::Regex(pattern) => Test::NotRegex(Arc::clone(pattern)),
            Test::NotRegex(pattern) => Test::Regex(Arc::clone(pattern)),
        };
        Self { name: Arc::clone(&self.name), value: Arc::clone(&self.value), test }
    }

    /// All values that pass, sorted, where the matcher spells them out: `=`, and `=~` with a pattern such as `a|b`,
    /// `x[12]` or `(?i)up`. `None` where they aren't known, and for `!=` and `!~` (ask [`Matcher::inverse`]).
    pub fn set_matches(&self) -> Option<Vec<&str>> {
        match &self.test {
            Test::Equal => Some(vec![&self.value]),
            Test::Regex(pattern) => pattern.set().map(|set| set.iter().map(|value| &**value).collect()),
            Test::NotEqual | Test::NotRegex(_) => None,
        }
    }

    /// What every passing value of `=~` begins with, so that a sorted list of values is read in part only; `""` where
    /// nothing is known.
    pub fn prefix(&self) -> &str {
        match &self.test {
            Test::Equal => &self.value,
            Test::Regex(pattern) => pattern.prefix(),
            Test::NotEqual | Test::NotRegex(_) => "",
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (self.op(), &self.name, &self.value) == (other.op(), &other.name, &other.value)
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.op(), &self.name, &self.value).hash(state);
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op(), self.value)
    }
}
