//! The parser: precedence climbing over the lexer's tokens, one token ahead.
//!
//! Weakest first: `or`; `and`, `unless`; comparisons, `</`, `>/`; `+`, `-`; `*`, `/`, `%`, `atan2` and signs; `^`, the only one
//! that groups from the right; then what is written behind an expression: `[…]`, `offset`, `@`. A chain of operators is read
//! in a loop, however long it is: only what stands inside of its operands is recursion.

use std::sync::Arc;

use super::ast::{AggregateOp, Binary, BinaryOp, Call, Expr, Node, Number, Operator, Unary, ValueType};
use super::check::{self, Checked, OperatorParts, Side};
use super::lexer::{Kind, Lexer, Token};
use super::{MAX_DEPTH, MAX_NESTING, ParseError, Span, Syntax};
use crate::functions::Function;

/// Parses a query in the stable language.
///
/// # Errors
/// [`ParseError`] for the first thing that is wrong, be it syntax or types.
pub fn parse(query: &str) -> Result<Expr, ParseError> {
    parse_with(query, Syntax::default())
}

/// Parses a query, accepting what `syntax` allows.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(query: &str, syntax: Syntax) -> Result<Expr, ParseError> {
    if u32::try_from(query.len()).is_err() {
        return Err(ParseError::new("", Span::default(), "the query is longer than 4 GiB"));
    }
    let mut lexer = Lexer::new(query);
    let token = lexer.next()?;
    let mut parser =
        Parser { query, lexer, token, last: Span::default(), depth: 0, syntax, empty_matchers: false };
    if parser.token.kind == Kind::End {
        return Err(parser.error(parser.token.span, "no expression found in input"));
    }
    let tree = parser.expression(0)?;
    match parser.token.kind {
        Kind::End => Ok(tree.expr),
        _ => Err(parser.unexpected("", "")),
    }
}

/// An expression and its height, which [`MAX_DEPTH`] bounds.
pub(super) struct Tree {
    pub expr: Expr,
    pub height: usize,
}

/// A chain of operators that is being read.
struct Chain {
    operands: Vec<Expr>,
    operators: Vec<Operator>,
    /// Of its highest operand.
    height: usize,
}

impl Chain {
    fn of(first: Tree) -> Self {
        Self { operands: vec![first.expr], operators: Vec::new(), height: first.height }
    }

    fn push(&mut self, operand: Tree) {
        self.height = self.height.max(operand.height);
        self.operands.push(operand.expr);
    }

    /// What has been read, as the left side of the next operator.
    fn side(&self) -> Side {
        let (first, last) = (&self.operands[0], &self.operands[self.operands.len() - 1]);
        let value_type = self.operators.last().map_or_else(|| first.value_type(), |done| done.value_type);
        Side { value_type, span: first.span.to(last.span) }
    }
}

pub(super) struct Parser<'a> {
    pub query: &'a str,
    lexer: Lexer<'a>,
    /// The next token, not yet taken.
    pub token: Token,
    /// Where the token taken last stands.
    pub last: Span,
    /// Calls of [`Parser::expression`] under way: the parser's own recursion.
    depth: usize,
    pub syntax: Syntax,
    /// Whether a selector may match everything: it only adds to what `info` looks for.
    pub empty_matchers: bool,
}

/// Whether it is `without`, and the labels.
type Grouping = (bool, Vec<Arc<str>>);

/// How strongly a sign binds its operand: only `^` and what is written behind an expression bind more strongly.
pub(super) const SIGN_POWER: u8 = 6;

pub(super) fn binding_power(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
        BinaryOp::Pow => 6,
        _ => 3,
    }
}

impl Parser<'_> {
    /// An expression whose operators bind at least as strongly as `power`.
    fn expression(&mut self, power: u8) -> Result<Tree, ParseError> {
        self.enter()?;
        let mut tree = self.operand()?;
        // Apart, so that frames stay small where there is no operator, however deep expressions are nested.
        if self.operator().is_some_and(|op| binding_power(op) >= power) {
            tree = self.chain(tree, power)?;
        }
        self.leave();
        Ok(tree)
    }

    /// What an operand and the operators behind it make.
    fn chain(&mut self, first: Tree, power: u8) -> Result<Tree, ParseError> {
        let mut chain = Chain::of(self.powers(first)?);
        while let Some(op) = self.operator() {
            let op_power = binding_power(op);
            if op_power < power {
                break;
            }
            let op_span = self.bump()?.span;
            let modifiers = self.matching()?;
            let right = self.expression(op_power + 1)?;
            let (op_span, left) = (op_span.to(self.last), chain.side());
            let parts = OperatorParts { op, op_span, modifiers, left, right: Side::of(&right.expr) };
            let operator = parts.check().map_err(|(span, message)| self.error(span, message))?;
            chain.operators.push(operator);
            chain.push(right);
        }
        self.grown(chain)
    }

    /// Operands with `^` between them: the last belong together first.
    fn powers(&mut self, first: Tree) -> Result<Tree, ParseError> {
        let mut chain = Chain::of(first);
        let mut written = Vec::new();
        while self.operator() == Some(BinaryOp::Pow) {
            let op_span = self.bump()?.span;
            let modifiers = self.matching()?;
            chain.push(self.operand()?);
            written.push((op_span.to(self.last), modifiers));
        }
        let Some(mut right) = chain.operands.last().map(Side::of) else {
            unreachable!("a chain has an operand")
        };
        for (at, (op_span, modifiers)) in written.into_iter().enumerate().rev() {
            let left = Side::of(&chain.operands[at]);
            let parts = OperatorParts { op: BinaryOp::Pow, op_span, modifiers, left, right };
            let operator = parts.check().map_err(|(span, message)| self.error(span, message))?;
            right = Side { value_type: operator.value_type, span: left.span.to(right.span) };
            chain.operators.push(operator);
        }
        chain.operators.reverse();
        self.grown(chain)
    }

    /// A chain as a tree: an operand alone is just that.
    fn grown(&self, mut chain: Chain) -> Result<Tree, ParseError> {
        if chain.operators.is_empty()
            && let Some(expr) = chain.operands.pop()
        {
            return Ok(Tree { expr, height: chain.height });
        }
        let Chain { operands, operators, height } = chain;
        let (first, last) = (&operands[0], &operands[operands.len() - 1]);
        let span = first.span.to(last.span);
        let node = Node::Binary(Box::new(Binary { operands, operators }));
        self.grow(Ok(Expr { node, span }), height)
    }

    /// A sign and what it applies to, or an expression and what is written behind it.
    fn operand(&mut self) -> Result<Tree, ParseError> {
        let negative = match self.token.kind {
            Kind::Operator(BinaryOp::Sub) => true,
            Kind::Operator(BinaryOp::Add) => false,
            _ => {
                let operand = self.primary()?;
                return self.suffixes(operand);
            }
        };
        let start = self.bump()?.span;
        let operand = self.expression(SIGN_POWER)?;
        let span = start.to(operand.expr.span);
        if let Node::Number(number) = operand.expr.node {
            let value = if negative { -number.value } else { number.value };
            let node = Node::Number(Number { value, ..number });
            return Ok(Tree { expr: Expr { node, span }, height: operand.height });
        }
        let unary = Unary { negative, operand: operand.expr };
        self.grow(check::unary(unary, span), operand.height)
    }

    fn primary(&mut self) -> Result<Tree, ParseError> {
        let span = self.token.span;
        let leaf = |node, span| Ok(Tree { expr: Expr { node, span }, height: 1 });
        match &self.token.kind {
            Kind::Number(value) => {
                let value = *value;
                self.bump()?;
                leaf(Node::Number(Number { value, is_duration: false }), span)
            }
            #[allow(clippy::cast_precision_loss, reason = "durations are far below 2^53 ms")]
            Kind::Duration(duration_ms) => {
                let value = *duration_ms as f64 / 1000.0;
                self.bump()?;
                leaf(Node::Number(Number { value, is_duration: true }), span)
            }
            Kind::String(_) => {
                let Kind::String(value) = self.bump()?.kind else { unreachable!("the kind was just seen") };
                leaf(Node::String(value), span)
            }
            Kind::LeftParen => {
                self.bump()?;
                let inner = self.expression(0)?;
                self.take(&Kind::RightParen, "parentheses", "\")\"")?;
                let paren = Expr { node: Node::Paren(Box::new(inner.expr)), span: span.to(self.last) };
                self.grow(Ok(paren), inner.height)
            }
            Kind::LeftBrace => self.selector(None),
            Kind::Word => self.word(),
            _ => Err(self.unexpected("", "")),
        }
    }

    /// A number's name, an aggregation, a call or a metric's name: what follows the word tells.
    fn word(&mut self) -> Result<Tree, ParseError> {
        let span = self.token.span;
        let text = self.text(span);
        if let Some(value) = named_number(text) {
            self.bump()?;
            let node = Node::Number(Number { value, is_duration: false });
            return Ok(Tree { expr: Expr { node, span }, height: 1 });
        }
        if is_reserved(text) {
            return Err(self.unexpected("", ""));
        }
        let text = text.to_owned();
        self.bump()?;
        let aggregation = AggregateOp::ALL.into_iter().find(|op| op.name().eq_ignore_ascii_case(&text));
        if let Some(op) = aggregation
            && (self.token.kind == Kind::LeftParen || self.is_keyword("by") || self.is_keyword("without"))
        {
            return self.aggregate(op, span);
        }
        if self.token.kind == Kind::LeftParen && !text.contains(':') {
            return self.call(&text, span);
        }
        self.selector(Some((text.into(), span)))
    }

    fn call(&mut self, name: &str, start: Span) -> Result<Tree, ParseError> {
        let Some(function) = Function::from_name(name) else {
            return Err(self.error(start, format!("unknown function with name {name:?}")));
        };
        if function.signature().experimental && !self.syntax.experimental {
            return Err(self.experimental(&format!("{name}()"), start));
        }
        let (args, height) = self.arguments(function == Function::Info)?;
        let call = Call { function, args };
        self.grow(check::call(call, start.to(self.last)), height)
    }

    fn aggregate(&mut self, op: AggregateOp, start: Span) -> Result<Tree, ParseError> {
        if op.is_experimental() && !self.syntax.experimental {
            return Err(self.experimental(&format!("{}()", op.name()), start));
        }
        let before = self.grouping_modifier()?;
        if self.token.kind != Kind::LeftParen {
            return Err(self.unexpected("aggregation", "\"(\""));
        }
        let (args, height) = self.arguments(false)?;
        let (without, grouping) = match before {
            Some(modifier) => modifier,
            None => self.grouping_modifier()?.unwrap_or_default(),
        };
        let span = start.to(self.last);
        self.grow(check::aggregate(op, args, without, grouping, span), height)
    }

    /// `by (…)` or `without (…)`, if one of them comes next.
    fn grouping_modifier(&mut self) -> Result<Option<Grouping>, ParseError> {
        let without = self.is_keyword("without");
        if !without && !self.is_keyword("by") {
            return Ok(None);
        }
        self.bump()?;
        Ok(Some((without, self.label_list()?)))
    }

    /// `(a, b)`: expressions, and the height of the highest. Those of `info` are a vector and a bare selector.
    fn arguments(&mut self, of_info: bool) -> Result<(Vec<Expr>, usize), ParseError> {
        self.take(&Kind::LeftParen, "function call", "\"(\"")?;
        let mut args = Vec::new();
        let mut height = 0;
        if self.token.kind != Kind::RightParen {
            loop {
                self.empty_matchers = of_info && args.len() == 1;
                let arg = self.expression(0)?;
                self.empty_matchers = false;
                height = height.max(arg.height);
                args.push(arg.expr);
                if self.token.kind != Kind::Comma {
                    break;
                }
                let comma = self.bump()?.span;
                if self.token.kind == Kind::RightParen {
                    return Err(self.error(comma, "trailing commas not allowed in function call args"));
                }
            }
        }
        self.take(&Kind::RightParen, "function call", "\",\" or \")\"")?;
        Ok((args, height))
    }

    /// `(a, "b", c,)`: names of labels.
    pub fn label_list(&mut self) -> Result<Vec<Arc<str>>, ParseError> {
        self.take(&Kind::LeftParen, "grouping opts", "\"(\"")?;
        let mut labels = Vec::new();
        while self.token.kind != Kind::RightParen {
            let label: Arc<str> = match &self.token.kind {
                Kind::Word if !self.text(self.token.span).contains(':') => self.text(self.token.span).into(),
                Kind::String(name) => match name.as_str() {
                    Some(name) if !name.is_empty() => name.into(),
                    _ => {
                        let message = format!("invalid label name {name}");
                        return Err(self.error(self.token.span, message));
                    }
                },
                _ => return Err(self.unexpected("grouping opts", "label")),
            };
            labels.push(label);
            self.bump()?;
            if self.token.kind != Kind::Comma {
                break;
            }
            self.bump()?;
        }
        self.take(&Kind::RightParen, "grouping opts", "\",\" or \")\"")?;
        Ok(labels)
    }

    /// The operator that comes next, if one does.
    fn operator(&self) -> Option<BinaryOp> {
        match self.token.kind {
            Kind::Operator(op) => Some(op),
            Kind::Word => [BinaryOp::And, BinaryOp::Or, BinaryOp::Unless, BinaryOp::Atan2]
                .into_iter()
                .find(|op| self.is_keyword(op.symbol())),
            _ => None,
        }
    }

    /// One more expression inside the others.
    pub fn enter(&mut self) -> Result<(), ParseError> {
        self.depth += 1;
        if self.depth > MAX_NESTING { Err(self.too_deep(self.token.span, MAX_NESTING)) } else { Ok(()) }
    }

    /// It has ended.
    pub fn leave(&mut self) {
        self.depth -= 1;
    }

    /// A node one higher than its highest child.
    pub fn grow(&self, checked: Checked, child_height: usize) -> Result<Tree, ParseError> {
        let expr = checked.map_err(|(span, message)| self.error(span, message))?;
        let height = child_height + 1;
        if height > MAX_DEPTH {
            return Err(self.too_deep(expr.span, MAX_DEPTH));
        }
        Ok(Tree { expr, height })
    }

    /// Takes the next token, whatever it is.
    pub fn bump(&mut self) -> Result<Token, ParseError> {
        let next = self.lexer.next()?;
        let taken = std::mem::replace(&mut self.token, next);
        self.last = taken.span;
        Ok(taken)
    }

    /// Takes the next token, which must be a `kind`.
    pub fn take(&mut self, kind: &Kind, context: &str, expected: &str) -> Result<(), ParseError> {
        if self.token.kind != *kind {
            return Err(self.unexpected(context, expected));
        }
        self.bump().map(|_| ())
    }

    /// Whether the next token is this word, in any case.
    pub fn is_keyword(&self, keyword: &str) -> bool {
        self.token.kind == Kind::Word && self.text(self.token.span).eq_ignore_ascii_case(keyword)
    }

    pub fn text(&self, span: Span) -> &str {
        &self.query[span.start as usize..span.end as usize]
    }

    pub fn error(&self, span: Span, message: impl Into<String>) -> ParseError {
        ParseError::new(self.query, span, message)
    }

    /// The next token doesn't fit.
    pub fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        let text = self.text(self.token.span);
        let found = match &self.token.kind {
            Kind::End => "end of input".to_owned(),
            Kind::Word => format!("identifier {text:?}"),
            Kind::Number(_) => format!("number {text:?}"),
            Kind::Duration(_) => format!("duration {text:?}"),
            Kind::String(_) => format!("string {text:?}"),
            _ => format!("{text:?}"),
        };
        let context = if context.is_empty() { String::new() } else { format!(" in {context}") };
        let expected = if expected.is_empty() { String::new() } else { format!(", expected {expected}") };
        self.error(self.token.span, format!("unexpected {found}{context}{expected}"))
    }

    /// Whether an opening parenthesis follows the next token.
    pub fn is_before_paren(&self) -> bool {
        self.lexer.clone().next().is_ok_and(|token| token.kind == Kind::LeftParen)
    }

    pub fn experimental(&self, what: &str, span: Span) -> ParseError {
        self.error(span, format!("{what} is experimental and isn't enabled"))
    }

    pub fn too_deep(&self, span: Span, max: usize) -> ParseError {
        self.error(span, format!("the expression is nested too deeply: at most {max} levels"))
    }
}

/// `Inf` and `NaN`, in any case.
pub(super) fn named_number(word: &str) -> Option<f64> {
    if word.eq_ignore_ascii_case("inf") {
        Some(f64::INFINITY)
    } else if word.eq_ignore_ascii_case("nan") {
        Some(f64::NAN)
    } else {
        None
    }
}

/// Words that can't name a metric outside braces.
pub(super) fn is_reserved(word: &str) -> bool {
    ["atan2", "bool", "group_left", "group_right", "ignoring", "on"]
        .iter()
        .any(|reserved| reserved.eq_ignore_ascii_case(word))
}

impl ValueType {
    /// Whether operators and signs work on it.
    pub(super) fn is_operand(self) -> bool {
        matches!(self, Self::Scalar | Self::Vector)
    }
}
