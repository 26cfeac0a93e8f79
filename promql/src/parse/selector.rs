//! Selectors, and what may be written behind an expression: `[5m]`, `[1h:5m]`, `offset`, `@`.

use std::sync::Arc;

use tsdb::model::{METRIC_NAME, MatchOp, Matcher};

use super::ast::{At, BinaryOp, Edges, Expr, MatrixSelector, Node, Subquery, ValueType, VectorSelector};
use super::length::Length;
use super::lexer::Kind;
use super::parser::{Parser, Tree};
use super::{ParseError, Span};

/// What `offset` and `@` may follow, as errors say it.
const MODIFIABLE: &str =
    "must be preceded by an instant vector selector or range vector selector or a subquery";

impl Parser<'_> {
    /// A selector whose name, if it has one, was just taken.
    pub fn selector(&mut self, name: Option<(Arc<str>, Span)>) -> Result<Tree, ParseError> {
        let start = name.as_ref().map_or(self.token.span, |(_, span)| *span);
        let mut name = name.map(|(name, _)| name);
        let mut matchers = Vec::new();
        if self.token.kind == Kind::LeftBrace {
            self.bump()?;
            while self.token.kind != Kind::RightBrace {
                self.matcher(&mut name, &mut matchers, start)?;
                if self.token.kind != Kind::Comma {
                    break;
                }
                self.bump()?;
            }
            self.take(&Kind::RightBrace, "label matching", "\",\" or \"}\"")?;
        }
        let span = start.to(self.last);
        match &name {
            Some(name) => {
                if let Some(twice) = matchers.iter().find(|m: &&Matcher| m.name() == METRIC_NAME) {
                    return Err(self.named_twice(span, name, twice.value()));
                }
                matchers.push(Matcher::equal(METRIC_NAME, name.clone()));
            }
            None if !self.empty_matchers && matchers.iter().all(|m| m.matches("")) => {
                return Err(self.error(span, "vector selector must contain at least one non-empty matcher"));
            }
            None => {}
        }
        let edges = Edges::default();
        let selector = VectorSelector { name, matchers, edges, offset: Length::Fixed(0), at: None };
        Ok(Tree { expr: Expr { node: Node::Vector(selector), span }, height: 1 })
    }

    /// `label="value"`, `"label"=~"value"`, or `"metric"` alone.
    fn matcher(
        &mut self,
        name: &mut Option<Arc<str>>,
        matchers: &mut Vec<Matcher>,
        start: Span,
    ) -> Result<(), ParseError> {
        let label_span = self.token.span;
        let (label, is_quoted): (Arc<str>, bool) = match &self.token.kind {
            Kind::Word if !self.text(label_span).contains(':') => (self.text(label_span).into(), false),
            Kind::String(label) => match label.as_str() {
                Some(label) => (label.into(), true),
                None => return Err(self.error(label_span, format!("invalid label name {label}"))),
            },
            _ => return Err(self.unexpected("label matching", "identifier or \"}\"")),
        };
        self.bump()?;
        let op = match self.token.kind {
            Kind::Assign => MatchOp::Equal,
            Kind::Operator(BinaryOp::NotEqual) => MatchOp::NotEqual,
            Kind::Regex => MatchOp::Regex,
            Kind::NotRegex => MatchOp::NotRegex,
            Kind::Comma | Kind::RightBrace if is_quoted && label.is_empty() => {
                // No name at all, but a matcher that series without one pass.
                matchers.push(Matcher::equal(METRIC_NAME, label));
                return Ok(());
            }
            Kind::Comma | Kind::RightBrace if is_quoted => {
                if let Some(first) = name {
                    return Err(self.named_twice(start.to(self.last), first, &label));
                }
                *name = Some(label);
                return Ok(());
            }
            _ => return Err(self.unexpected("label matching", "label matching operator")),
        };
        self.bump()?;
        let Kind::String(value) = &self.token.kind else {
            return Err(self.unexpected("label matching", "string"));
        };
        let Some(value) = value.as_str() else {
            return Err(self.error(self.token.span, format!("the value {value} isn't UTF-8")));
        };
        let matcher = Matcher::new(op, label, value);
        self.bump()?;
        matchers.push(matcher.map_err(|e| self.error(label_span.to(self.last), e.to_string()))?);
        Ok(())
    }

    fn named_twice(&self, span: Span, first: &str, second: &str) -> ParseError {
        self.error(span, format!("metric name must not be set twice: {first:?} or {second:?}"))
    }

    /// Everything that is written behind `tree`.
    pub fn suffixes(&mut self, mut tree: Tree) -> Result<Tree, ParseError> {
        // Modifiers stand in the nodes and can't be told from none by their value: `offset 0` is one.
        let mut has_offset = false;
        loop {
            if self.token.kind == Kind::LeftBracket {
                tree = self.range(tree, has_offset)?;
                has_offset = false;
            } else if self.is_keyword("offset") {
                self.offset(&mut tree.expr, has_offset)?;
                has_offset = true;
            } else if self.token.kind == Kind::At {
                self.at(&mut tree.expr)?;
            } else if self.is_keyword("anchored") {
                self.edges(&mut tree.expr, Edges::Anchored)?;
            } else if self.is_keyword("smoothed") {
                self.edges(&mut tree.expr, Edges::Smoothed)?;
            } else {
                return Ok(tree);
            }
        }
    }

    /// `[5m]` or `[1h:5m]`.
    fn range(&mut self, tree: Tree, has_offset: bool) -> Result<Tree, ParseError> {
        let bracket = self.bump()?.span;
        let range = self.length("subquery or range selector")?;
        if self.token.kind == Kind::Colon {
            self.bump()?;
            let step = match self.token.kind {
                Kind::RightBracket => None,
                _ => Some(self.length("subquery selector")?),
            };
            self.take(&Kind::RightBracket, "subquery selector", "\"]\"")?;
            let span = tree.expr.span.to(self.last);
            let inner = tree.expr.value_type();
            if inner != ValueType::Vector {
                let message =
                    format!("subquery is only allowed on instant vector, got {} instead", inner.described());
                return Err(self.error(span, message));
            }
            let subquery = Subquery { expr: tree.expr, range, step, offset: Length::Fixed(0), at: None };
            return self.grow(Ok(Expr { node: Node::Subquery(Box::new(subquery)), span }), tree.height);
        }
        self.take(&Kind::RightBracket, "subquery or range selector", "\":\" or \"]\"")?;
        let brackets = bracket.to(self.last);
        let span = tree.expr.span.to(self.last);
        let Node::Vector(selector) = tree.expr.node else {
            return Err(self.error(brackets, "ranges only allowed for vector selectors"));
        };
        if has_offset {
            return Err(self.error(brackets, "no offset modifiers allowed before range"));
        }
        if selector.at.is_some() {
            return Err(self.error(brackets, "no @ modifiers allowed before range"));
        }
        let node = Node::Matrix(MatrixSelector { selector, range });
        Ok(Tree { expr: Expr { node, span }, height: tree.height })
    }

    /// `offset 5m`, `offset -5m`.
    fn offset(&mut self, expr: &mut Expr, has_offset: bool) -> Result<(), ParseError> {
        let keyword = self.bump()?.span;
        let offset = self.offset_length()?;
        let place = match &mut expr.node {
            Node::Vector(selector) => &mut selector.offset,
            Node::Matrix(matrix) => &mut matrix.selector.offset,
            Node::Subquery(subquery) => &mut subquery.offset,
            _ => return Err(self.error(expr.span, format!("offset modifier {MODIFIABLE}"))),
        };
        *place = offset;
        expr.span = expr.span.to(self.last);
        if has_offset {
            return Err(self.error(keyword.to(self.last), "offset may not be set multiple times"));
        }
        Ok(())
    }

    /// `anchored`, `smoothed`.
    fn edges(&mut self, expr: &mut Expr, edges: Edges) -> Result<(), ParseError> {
        let span = self.bump()?.span;
        let keyword = edges.keyword();
        if !self.syntax.experimental {
            return Err(self.experimental(&format!("the {keyword} modifier"), span));
        }
        let place = match &mut expr.node {
            Node::Vector(selector) => &mut selector.edges,
            Node::Matrix(matrix) => &mut matrix.selector.edges,
            _ => {
                let what = "must be preceded by an instant vector selector or range vector selector";
                return Err(self.error(expr.span, format!("{keyword} modifier {what}")));
            }
        };
        if *place != Edges::Plain && *place != edges {
            return Err(self.error(span, "anchored and smoothed modifiers cannot be used together"));
        }
        *place = edges;
        expr.span = expr.span.to(self.last);
        Ok(())
    }

    /// `@ 1234.5`, `@ start()`, `@ end()`.
    fn at(&mut self, expr: &mut Expr) -> Result<(), ParseError> {
        let sign = self.bump()?.span;
        let at = if self.is_keyword("start") || self.is_keyword("end") {
            let at = if self.is_keyword("start") { At::Start } else { At::End };
            self.bump()?;
            self.take(&Kind::LeftParen, "@", "\"(\"")?;
            self.take(&Kind::RightParen, "@", "\")\"")?;
            at
        } else {
            At::Time(self.timestamp()?)
        };
        let place = match &mut expr.node {
            Node::Vector(selector) => &mut selector.at,
            Node::Matrix(matrix) => &mut matrix.selector.at,
            Node::Subquery(subquery) => &mut subquery.at,
            _ => return Err(self.error(expr.span, format!("@ modifier {MODIFIABLE}"))),
        };
        if place.is_some() {
            return Err(self.error(sign.to(self.last), "@ <timestamp> may not be set multiple times"));
        }
        *place = Some(at);
        expr.span = expr.span.to(self.last);
        Ok(())
    }

    /// Seconds since the epoch, as milliseconds.
    fn timestamp(&mut self) -> Result<i64, ParseError> {
        let (seconds, span) = self.signed_number("@", "timestamp")?;
        to_ms(seconds).ok_or_else(|| {
            self.error(span, format!("timestamp out of bounds for @ modifier: {}", self.text(span)))
        })
    }
}

/// Milliseconds, or `None` when they don't fit.
fn to_ms(seconds: f64) -> Option<i64> {
    /// 2^63, the first float above every `i64`.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    let ms = (seconds * 1000.0).round();
    #[allow(clippy::cast_possible_truncation, reason = "checked to be in range")]
    (ms > -LIMIT && ms < LIMIT).then_some(ms as i64)
}
