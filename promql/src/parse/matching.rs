//! What may stand between an operator and its right side: `bool`, `on (…)`, `group_left (…)`, `fill (…)` and their kin.

use super::ast::{Cardinality, Fill, VectorMatching};
use super::lexer::Kind;
use super::parser::{Parser, named_number};
use super::{ParseError, Span};
use crate::parse::ast::BinaryOp;

/// What modifies an operator, as written.
#[derive(Debug, Default)]
pub(super) struct Modifiers {
    pub return_bool: bool,
    /// Where `on` or `ignoring` was written.
    pub matching: Option<VectorMatching>,
    pub fill: Fill,
}

impl Parser<'_> {
    /// All modifiers that come next.
    pub fn matching(&mut self) -> Result<Modifiers, ParseError> {
        let mut modifiers = Modifiers { return_bool: self.is_keyword("bool"), ..Modifiers::default() };
        if modifiers.return_bool {
            self.bump()?;
        }
        let on = self.is_keyword("on");
        if on || self.is_keyword("ignoring") {
            self.bump()?;
            let labels = self.label_list()?;
            let cardinality = if self.is_keyword("group_left") {
                Cardinality::ManyToOne
            } else if self.is_keyword("group_right") {
                Cardinality::OneToMany
            } else {
                Cardinality::OneToOne
            };
            let mut include = Vec::new();
            if cardinality != Cardinality::OneToOne {
                self.bump()?;
                if self.token.kind == Kind::LeftParen {
                    include = self.label_list()?;
                }
            }
            let fill = Fill::default();
            modifiers.matching = Some(VectorMatching { cardinality, on, labels, include, fill });
        }
        modifiers.fill = self.fill()?;
        Ok(modifiers)
    }

    /// `fill (0)`, or `fill_left (0)` and `fill_right (0)` in either order, or nothing. Without parentheses behind
    /// them these words name metrics.
    fn fill(&mut self) -> Result<Fill, ParseError> {
        let mut fill = Fill::default();
        if self.is_modifier("fill") {
            let value = self.fill_value()?;
            return Ok(Fill { left: Some(value), right: Some(value) });
        }
        loop {
            if fill.left.is_none() && self.is_modifier("fill_left") {
                fill.left = Some(self.fill_value()?);
            } else if fill.right.is_none() && self.is_modifier("fill_right") {
                fill.right = Some(self.fill_value()?);
            } else {
                return Ok(fill);
            }
        }
    }

    fn is_modifier(&self, keyword: &str) -> bool {
        self.is_keyword(keyword) && self.is_before_paren()
    }

    fn fill_value(&mut self) -> Result<f64, ParseError> {
        let keyword = self.bump()?.span;
        if !self.syntax.experimental {
            let name = self.text(keyword).to_ascii_lowercase();
            return Err(self.experimental(&format!("the {name} modifier"), keyword));
        }
        self.take(&Kind::LeftParen, "fill modifier", "\"(\"")?;
        let value = self.signed_number("fill modifier", "number")?;
        self.take(&Kind::RightParen, "fill modifier", "\")\"")?;
        Ok(value.0)
    }

    /// A number or a duration in seconds, with a sign or none, and where it stands.
    pub fn signed_number(&mut self, context: &str, expected: &str) -> Result<(f64, Span), ParseError> {
        let start = self.token.span;
        let negative = self.token.kind == Kind::Operator(BinaryOp::Sub);
        if negative || self.token.kind == Kind::Operator(BinaryOp::Add) {
            self.bump()?;
        }
        #[allow(clippy::cast_precision_loss, reason = "durations are far below 2^53 ms")]
        let value = match self.token.kind {
            Kind::Number(value) => Some(value),
            Kind::Duration(duration_ms) => Some(duration_ms as f64 / 1000.0),
            Kind::Word => named_number(self.text(self.token.span)),
            _ => None,
        };
        let Some(value) = value else { return Err(self.unexpected(context, expected)) };
        self.bump()?;
        Ok((if negative { -value } else { value }, start.to(self.last)))
    }
}
