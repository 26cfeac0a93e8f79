//! Lengths of time in a query: of a range, a step, an offset. They may be computed: `[5m * 2]`, `offset (step() + 1)`.

use std::fmt;

use super::ast::{BinaryOp, Number};
use super::lexer::Kind;
use super::parser::{Parser, SIGN_POWER, binding_power};
use super::{MAX_NESTING, ParseError, Span, duration};

/// A length of time.
#[derive(Clone, Debug, PartialEq)]
pub enum Length {
    /// Milliseconds.
    Fixed(i64),
    /// Computed once the query's range is known; experimental.
    Computed(Box<LengthExpr>),
}

/// An expression for a length of time, in seconds.
#[derive(Clone, Debug, PartialEq)]
pub enum LengthExpr {
    /// `5m`, `300`.
    Number(Number),
    /// `step()`: the distance of the query's steps; 0 for an instant query.
    Step,
    /// `range()`: from the query's first step to its end; 0 for an instant query.
    Range,
    /// `-expr`.
    Negate(Box<LengthExpr>),
    /// `(expr)`.
    Paren(Box<LengthExpr>),
    /// `left op right`, the operator one of `+ - * / % ^`.
    Binary(BinaryOp, Box<(LengthExpr, LengthExpr)>),
    /// `min_of(a, b)`.
    MinOf(Box<(LengthExpr, LengthExpr)>),
    /// `max_of(a, b)`.
    MaxOf(Box<(LengthExpr, LengthExpr)>),
}

/// Why a length can't be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    /// It isn't a finite number of milliseconds, or longer than [`duration::MAX_MS`].
    #[error("duration out of range")]
    OutOfRange,
    /// It must be above 0.
    #[error("duration must be greater than 0")]
    NotPositive,
    /// A division by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// A remainder of a division by zero.
    #[error("modulo by zero")]
    ModuloByZero,
}

impl Length {
    /// Milliseconds, in a query whose steps are `step_ms` apart and span `range_ms`.
    ///
    /// # Errors
    /// [`LengthError::OutOfRange`], and divisions by zero.
    pub fn ms(&self, step_ms: i64, range_ms: i64) -> Result<i64, LengthError> {
        match self {
            Self::Fixed(ms) => Ok(*ms),
            Self::Computed(expr) => from_seconds(expr.seconds(seconds(step_ms), seconds(range_ms))?),
        }
    }

    /// As [`Length::ms`], for a length that must be above 0.
    ///
    /// # Errors
    /// [`LengthError::NotPositive`] too.
    pub fn positive_ms(&self, step_ms: i64, range_ms: i64) -> Result<i64, LengthError> {
        match self.ms(step_ms, range_ms)? {
            ms if ms > 0 => Ok(ms),
            _ => Err(LengthError::NotPositive),
        }
    }

    /// Milliseconds, if they don't depend on the query's range.
    pub fn constant_ms(&self) -> Option<Result<i64, LengthError>> {
        match self {
            Self::Computed(expr) if !expr.is_constant() => None,
            _ => Some(self.ms(0, 0)),
        }
    }

    /// Whether it is just 0, and so wasn't necessarily written.
    pub fn is_zero(&self) -> bool {
        *self == Self::Fixed(0)
    }
}

impl LengthExpr {
    fn is_constant(&self) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Step | Self::Range => false,
            Self::Negate(inner) | Self::Paren(inner) => inner.is_constant(),
            Self::Binary(_, sides) | Self::MinOf(sides) | Self::MaxOf(sides) => {
                sides.0.is_constant() && sides.1.is_constant()
            }
        }
    }

    fn seconds(&self, step_s: f64, range_s: f64) -> Result<f64, LengthError> {
        let of = |expr: &Self| expr.seconds(step_s, range_s);
        Ok(match self {
            Self::Number(number) => number.value,
            Self::Step => step_s,
            Self::Range => range_s,
            Self::Negate(inner) => -of(inner)?,
            Self::Paren(inner) => of(inner)?,
            Self::MinOf(sides) => of(&sides.0)?.min(of(&sides.1)?),
            Self::MaxOf(sides) => of(&sides.0)?.max(of(&sides.1)?),
            Self::Binary(op, sides) => match (op, of(&sides.0)?, of(&sides.1)?) {
                (BinaryOp::Add, a, b) => a + b,
                (BinaryOp::Sub, a, b) => a - b,
                (BinaryOp::Mul, a, b) => a * b,
                (BinaryOp::Div, _, 0.0) => return Err(LengthError::DivisionByZero),
                (BinaryOp::Div, a, b) => a / b,
                (BinaryOp::Mod, _, 0.0) => return Err(LengthError::ModuloByZero),
                (BinaryOp::Mod, a, b) => a % b,
                (BinaryOp::Pow, a, b) => a.powf(b),
                _ => unreachable!("the parser lets only arithmetic stand between lengths"),
            },
        })
    }
}

/// As it is written in a query; a sign, where one is needed, in front.
impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(ms) => f.write_str(&duration::format(*ms)),
            Self::Computed(expr) => expr.fmt(f),
        }
    }
}

impl fmt::Display for LengthExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Step => f.write_str("step()"),
            Self::Range => f.write_str("range()"),
            Self::Negate(inner) => write!(f, "-{inner}"),
            Self::Paren(inner) => write!(f, "({inner})"),
            Self::Binary(op, sides) => write!(f, "{} {} {}", sides.0, op.symbol(), sides.1),
            Self::MinOf(sides) => write!(f, "min_of({}, {})", sides.0, sides.1),
            Self::MaxOf(sides) => write!(f, "max_of({}, {})", sides.0, sides.1),
        }
    }
}

impl Parser<'_> {
    /// A length above 0, as it stands in brackets.
    pub fn length(&mut self, context: &str) -> Result<Length, ParseError> {
        let start = self.token.span;
        let expr = self.length_expr(0, context)?;
        let span = start.to(self.last);
        let length = self.finish_length(expr, span)?;
        match length.constant_ms() {
            Some(Ok(ms)) if ms <= 0 => Err(self.error(span, LengthError::NotPositive.to_string())),
            _ => Ok(length),
        }
    }

    /// The length behind `offset`: a single term with a sign or none, since `offset 5m + 1` adds 1 to the value.
    pub fn offset_length(&mut self) -> Result<Length, ParseError> {
        let start = self.token.span;
        let negative = self.token.kind == Kind::Operator(BinaryOp::Sub);
        if negative || self.token.kind == Kind::Operator(BinaryOp::Add) {
            self.bump()?;
        }
        let term = self.length_term("offset")?;
        let expr = match term {
            LengthExpr::Number(number) if negative => {
                LengthExpr::Number(Number { value: -number.value, ..number })
            }
            term if negative => LengthExpr::Negate(Box::new(term)),
            term => term,
        };
        self.finish_length(expr, start.to(self.last))
    }

    /// A number alone is fixed; all else is computed.
    fn finish_length(&self, expr: LengthExpr, span: Span) -> Result<Length, ParseError> {
        let length = match expr {
            LengthExpr::Number(number) => from_seconds(number.value).map(Length::Fixed),
            _ if !self.syntax.experimental => {
                return Err(self.error(span, "computed durations are experimental and aren't enabled"));
            }
            expr => Ok(Length::Computed(Box::new(expr))),
        };
        let length = length.and_then(|length| length.constant_ms().unwrap_or(Ok(0)).map(|_| length));
        length.map_err(|e| self.error(span, e.to_string()))
    }

    /// Terms and operators that bind at least as strongly as `power`.
    fn length_expr(&mut self, power: u8, context: &str) -> Result<LengthExpr, ParseError> {
        self.enter()?;
        let mut left = match self.token.kind {
            Kind::Operator(BinaryOp::Sub) => {
                self.bump()?;
                LengthExpr::Negate(Box::new(self.length_expr(SIGN_POWER, context)?))
            }
            Kind::Operator(BinaryOp::Add) => {
                self.bump()?;
                self.length_expr(SIGN_POWER, context)?
            }
            _ => self.length_term(context)?,
        };
        let mut terms = 1;
        while let Kind::Operator(
            op @ (BinaryOp::Add
            | BinaryOp::Sub
            | BinaryOp::Mul
            | BinaryOp::Div
            | BinaryOp::Mod
            | BinaryOp::Pow),
        ) = self.token.kind
        {
            let op_power = binding_power(op);
            if op_power < power {
                break;
            }
            terms += 1;
            if terms > MAX_NESTING {
                return Err(self.too_deep(self.token.span, MAX_NESTING));
            }
            self.bump()?;
            let right =
                self.length_expr(if op == BinaryOp::Pow { op_power } else { op_power + 1 }, context)?;
            left = LengthExpr::Binary(op, Box::new((left, right)));
        }
        self.leave();
        Ok(left)
    }

    /// A number, `step()`, `range()`, `min_of(…)`, `max_of(…)`, or an expression in parentheses.
    fn length_term(&mut self, context: &str) -> Result<LengthExpr, ParseError> {
        #[allow(clippy::cast_precision_loss, reason = "durations are far below 2^53 ms")]
        let term = match self.token.kind {
            Kind::Number(value) => LengthExpr::Number(Number { value, is_duration: false }),
            Kind::Duration(ms) => LengthExpr::Number(Number { value: ms as f64 / 1000.0, is_duration: true }),
            Kind::LeftParen => {
                self.bump()?;
                let inner = self.length_expr(0, context)?;
                self.take(&Kind::RightParen, context, "\")\"")?;
                return Ok(LengthExpr::Paren(Box::new(inner)));
            }
            _ if self.is_keyword("step") || self.is_keyword("range") => {
                let term = if self.is_keyword("step") { LengthExpr::Step } else { LengthExpr::Range };
                self.bump()?;
                self.take(&Kind::LeftParen, context, "\"(\"")?;
                self.take(&Kind::RightParen, context, "\")\"")?;
                return Ok(term);
            }
            _ if self.is_keyword("min_of") || self.is_keyword("max_of") => {
                let of = if self.is_keyword("min_of") { LengthExpr::MinOf } else { LengthExpr::MaxOf };
                self.bump()?;
                self.take(&Kind::LeftParen, context, "\"(\"")?;
                let first = self.length_expr(0, context)?;
                self.take(&Kind::Comma, context, "\",\"")?;
                let second = self.length_expr(0, context)?;
                self.take(&Kind::RightParen, context, "\")\"")?;
                return Ok(of(Box::new((first, second))));
            }
            _ => return Err(self.unexpected(context, "duration")),
        };
        self.bump()?;
        Ok(term)
    }
}

#[allow(clippy::cast_precision_loss, reason = "times in a query are far below 2^53 ms")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// To the nearest millisecond.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "checked to be in range")]
pub(super) fn from_seconds(seconds: f64) -> Result<i64, LengthError> {
    let ms = (seconds * 1000.0).round();
    if ms.abs() <= duration::MAX_MS as f64 { Ok(ms as i64) } else { Err(LengthError::OutOfRange) }
}
