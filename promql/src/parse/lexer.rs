//! Cuts a query into tokens. Words aren't told apart here: nearly every keyword may also name a metric or a label,
//! so the parser decides by place.

use super::ast::BinaryOp;
use super::string::{self, StringLiteral};
use super::{ParseError, Span, duration, number};

/// What a token is; its text is that of its span.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    End,
    /// Letters, digits, `_` and (outside brackets) `:`, not starting with a digit.
    Word,
    Number(f64),
    /// In milliseconds.
    Duration(i64),
    String(StringLiteral),
    /// An operator written with signs; `!=` is also a matcher's.
    Operator(BinaryOp),
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    At,
    /// `=`
    Assign,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub kind: Kind,
    pub span: Span,
}

#[derive(Clone)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    position: usize,
    /// Inside `[…]` a colon separates range and step; elsewhere it belongs to a metric's name.
    in_brackets: bool,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, position: 0, in_brackets: false }
    }

    /// The next token; at the end of the text, [`Kind::End`] for ever.
    pub fn next(&mut self) -> Result<Token, ParseError> {
        self.skip_blanks();
        let start = self.position;
        let Some(first) = self.peek() else { return Ok(self.token(start, Kind::End)) };
        let second = self.text[start + first.len_utf8()..].chars().next();
        if first.is_ascii_digit() || (first == '.' && second.is_some_and(|c| c.is_ascii_digit())) {
            return self.number();
        }
        if is_word_start(first) || (first == ':' && !self.in_brackets) {
            let in_brackets = self.in_brackets;
            self.advance_while(|c| is_word_start(c) || c.is_ascii_digit() || (c == ':' && !in_brackets));
            return Ok(self.token(start, Kind::Word));
        }
        if matches!(first, '"' | '\'' | '`') {
            return self.string(first);
        }
        let (length, kind) = match (first, second) {
            ('=', Some('=')) => (2, Kind::Operator(BinaryOp::Equal)),
            ('=', Some('~')) => (2, Kind::Regex),
            ('!', Some('=')) => (2, Kind::Operator(BinaryOp::NotEqual)),
            ('!', Some('~')) => (2, Kind::NotRegex),
            ('<', Some('=')) => (2, Kind::Operator(BinaryOp::LessOrEqual)),
            ('>', Some('=')) => (2, Kind::Operator(BinaryOp::GreaterOrEqual)),
            ('<', Some('/')) => (2, Kind::Operator(BinaryOp::TrimUpper)),
            ('>', Some('/')) => (2, Kind::Operator(BinaryOp::TrimLower)),
            ('=', _) => (1, Kind::Assign),
            ('<', _) => (1, Kind::Operator(BinaryOp::Less)),
            ('>', _) => (1, Kind::Operator(BinaryOp::Greater)),
            ('+', _) => (1, Kind::Operator(BinaryOp::Add)),
            ('-', _) => (1, Kind::Operator(BinaryOp::Sub)),
            ('*', _) => (1, Kind::Operator(BinaryOp::Mul)),
            ('/', _) => (1, Kind::Operator(BinaryOp::Div)),
            ('%', _) => (1, Kind::Operator(BinaryOp::Mod)),
            ('^', _) => (1, Kind::Operator(BinaryOp::Pow)),
            ('(', _) => (1, Kind::LeftParen),
            (')', _) => (1, Kind::RightParen),
            ('{', _) => (1, Kind::LeftBrace),
            ('}', _) => (1, Kind::RightBrace),
            ('[', _) => (1, Kind::LeftBracket),
            (']', _) => (1, Kind::RightBracket),
            (',', _) => (1, Kind::Comma),
            (':', _) => (1, Kind::Colon),
            ('@', _) => (1, Kind::At),
            _ => {
                self.position += first.len_utf8();
                return Err(self.error(start, format!("unexpected character: {first:?}")));
            }
        };
        match kind {
            Kind::LeftBracket => self.in_brackets = true,
            Kind::RightBracket => self.in_brackets = false,
            _ => {}
        }
        self.position += length;
        Ok(self.token(start, kind))
    }

    fn peek(&self) -> Option<char> {
        self.text[self.position..].chars().next()
    }

    fn advance_while(&mut self, mut belongs: impl FnMut(char) -> bool) {
        let rest = &self.text[self.position..];
        self.position += rest.find(|c| !belongs(c)).unwrap_or(rest.len());
    }

    /// Spaces, line ends and comments.
    fn skip_blanks(&mut self) {
        loop {
            self.advance_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
            if self.peek() != Some('#') {
                return;
            }
            self.advance_while(|c| c != '\n' && c != '\r');
        }
    }

    /// A number or a duration: everything that looks like a part of it is taken, and must make sense as a whole.
    fn number(&mut self) -> Result<Token, ParseError> {
        let start = self.position;
        let bytes = self.text.as_bytes();
        let is_hex =
            bytes[start] == b'0' && bytes.get(start + 1).is_some_and(|b| b.eq_ignore_ascii_case(&b'x'));
        let mut previous = '0';
        self.advance_while(|c| {
            let signed_exponent = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E') && !is_hex;
            previous = c;
            c.is_alphanumeric() || c == '_' || c == '.' || signed_exponent
        });
        let text = &self.text[start..self.position];
        match number::parse(text) {
            number::Parsed::Value(value) => Ok(self.token(start, Kind::Number(value))),
            number::Parsed::OutOfRange => {
                Err(self.error(start, format!("error parsing number: {text:?} is out of range")))
            }
            number::Parsed::NotANumber => match duration::parse(text) {
                Ok(duration_ms) => Ok(self.token(start, Kind::Duration(duration_ms))),
                Err(duration::Error::OutOfRange) => Err(self.error(start, "duration out of range")),
                Err(duration::Error::Syntax) => {
                    Err(self.error(start, format!("bad number or duration syntax: {text:?}")))
                }
            },
        }
    }

    fn string(&mut self, quote: char) -> Result<Token, ParseError> {
        let start = self.position;
        self.position += 1;
        let body = self.position;
        let is_raw = quote == '`';
        let mut escaped = false;
        self.advance_while(|c| {
            let ends = !escaped && (c == quote || (c == '\n' && !is_raw));
            escaped = !escaped && !is_raw && c == '\\';
            !ends
        });
        if self.peek() != Some(quote) {
            let what = if is_raw { "unterminated raw string" } else { "unterminated quoted string" };
            return Err(self.error(start, what));
        }
        let text = &self.text[body..self.position];
        self.position += 1;
        if is_raw {
            return Ok(self.token(start, Kind::String(text.into())));
        }
        match string::unescape(text, quote) {
            Ok(value) => Ok(self.token(start, Kind::String(value))),
            Err((at, message)) => Err(self.error(body + at, message)),
        }
    }

    fn token(&self, start: usize, kind: Kind) -> Token {
        Token { kind, span: span(start, self.position) }
    }

    fn error(&self, start: usize, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, span(start, self.position), message)
    }
}

fn is_word_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

/// The parser refuses texts whose positions don't fit.
fn span(start: usize, end: usize) -> Span {
    let position = |at| u32::try_from(at).expect("a query is shorter than 4 GiB");
    Span { start: position(start), end: position(end) }
}
