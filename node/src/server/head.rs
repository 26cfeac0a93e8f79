//! Reads the heads of HTTP/1 requests before hyper does: what hyper takes and a server shouldn't, and what a server should
//! take and hyper can't.
//!
//! 1. A head is kept back until it is whole. It is refused where a line ends without CR, where it has no `Host` or two
//!    (HTTP/1.1), or where it says in two ways how long its body is: whoever stands between client and node may read such
//!    a request as another one.
//! 2. A query string that is longer than hyper's URIs may be goes on in a header, and becomes the request's again in
//!    `http::front`.
//! 3. Bodies go through as they are; their lengths only tell where the next head begins.
//!
//! A refused request goes on as a small one that bears the reason, so that its answer has the envelope of all others, and
//! comes after the answers to what was asked before it. HTTP/2 goes through as it is.

mod chunks;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use chunks::Chunks;

/// Longest request target: the longest line of Go's servers.
const TARGET_BYTES_MAX: usize = 1 << 20;
/// Longest target that hyper is given: its URIs end at 64 KiB.
const INLINE_TARGET_BYTES: usize = 32 << 10;
/// Bytes of a head beside its target.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Bytes of the longest head that goes on to hyper.
pub(super) const HEAD_BYTES_MAX: usize = TARGET_BYTES_MAX + HEADER_BYTES_MAX;
/// Headers of a request; hyper takes a few more.
const HEADERS_MAX: usize = 96;
/// Heads longer than this are few at once...
const SMALL_HEAD_BYTES: usize = HEADER_BYTES_MAX;
/// ...and this many are read at once, on all connections together.
pub(super) const LARGE_HEADS_MAX: usize = 64;
/// Bytes that are asked of the connection at once.
const READ_BYTES: usize = 16 << 10;
/// Bytes of a refused request that are still taken, so that its sender comes to read the answer.
const DISCARDED_BYTES_MAX: usize = 8 << 20;

/// Bears the reason of a refusal: a status, a space and a text.
pub(crate) const REFUSED_HEADER: &str = "x-carillon-refused";
/// Bears a long query string.
pub(crate) const QUERY_HEADER: &str = "x-carillon-query";

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection of which hyper reads heads that were looked at.
pub(super) struct Heads<S> {
    stream: S,
    state: State,
    /// Bytes that were read and not looked at yet.
    unread: BytesMut,
    /// Bytes of a head at the beginning of `unread` that were looked at already.
    scanned: usize,
    /// A head for hyper.
    passed: Bytes,
    /// Whether the other side has ended.
    is_over: bool,
    larges: Arc<Semaphore>,
    /// Held while a long head is read.
    large: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The first bytes tell which HTTP it is.
    Preface,
    Head,
    /// A body of so many bytes more.
    Body(u64),
    Chunks(Chunks),
    /// HTTP/2.
    Through,
    /// Nothing is asked any more; so many bytes were thrown away.
    Refused(usize),
}

impl<S: AsyncRead + Unpin> Heads<S> {
    pub(super) fn new(stream: S, larges: Arc<Semaphore>) -> Self {
        Self {
            stream,
            state: State::Preface,
            unread: BytesMut::new(),
            scanned: 0,
            passed: Bytes::new(),
            is_over: false,
            larges,
            large: None,
        }
    }

    /// Reads some more bytes into `unread`; false at the end of the connection.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.is_over {
            return Poll::Ready(Ok(false));
        }
        let length = self.unread.len();
        self.unread.resize(length + READ_BYTES, 0);
        let mut buffer = ReadBuf::new(&mut self.unread[length..]);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        let read = buffer.filled().len();
        self.unread.truncate(length + read);
        ready!(polled)?;
        self.is_over = read == 0;
        Poll::Ready(Ok(read > 0))
    }

    /// Looks at what is there of a head; whether more is needed.
    fn look(&mut self) -> bool {
        while self.scanned == 0 && self.unread.starts_with(b"\r\n") {
            self.unread.advance(2);
        }
        let outcome = match scan(&self.unread, &mut self.scanned) {
            Scan::More => match self.may_grow(self.unread.len()) {
                Ok(()) => return true,
                Err(refusal) => Err(refusal),
            },
            Scan::BareLine => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "a line of the request's head doesn't end in CR LF",
            )),
            Scan::End(end) => {
                self.may_grow(end).and_then(|()| Head::read(&self.unread[..end])).map(|head| (end, head))
            }
        };
        self.scanned = 0;
        self.large = None;
        match outcome {
            Ok((end, head)) => {
                self.state = match head.body {
                    Length::Known(bytes) => State::Body(bytes),
                    Length::Chunked => State::Chunks(Chunks::Size { value: 0, digits: 0 }),
                };
                let whole = self.unread.split_to(end).freeze();
                self.passed = head.for_hyper(whole);
            }
            Err(refusal) => {
                self.state = State::Refused(0);
                self.unread = BytesMut::new();
                self.passed = refusal.request().into();
            }
        }
        false
    }

    /// Whether a head may have `length` bytes.
    fn may_grow(&mut self, length: usize) -> Result<(), Refusal> {
        if length <= SMALL_HEAD_BYTES {
            return Ok(());
        }
        let target = self.unread.iter().position(|byte| *byte == b'\r').unwrap_or(self.unread.len());
        if target > TARGET_BYTES_MAX {
            let text =
                format!("the URL has more than {TARGET_BYTES_MAX} bytes: send the parameters as a form");
            return Err(Refusal::new(StatusCode::URI_TOO_LONG, text));
        }
        if length.saturating_sub(target) > HEADER_BYTES_MAX {
            let text = format!("the request's headers have more than {HEADER_BYTES_MAX} bytes");
            return Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text));
        }
        if self.large.is_none() {
            let permit = self.larges.clone().try_acquire_owned();
            self.large = Some(permit.map_err(|_| {
                Refusal::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many long URLs are being read: send the parameters as a form",
                )
            })?);
        }
        Ok(())
    }

    /// Passes on up to `most` bytes of a body; how many that were.
    fn poll_through(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        most: u64,
    ) -> Poll<io::Result<usize>> {
        let most = buf.remaining().min(usize::try_from(most).unwrap_or(usize::MAX));
        if !self.unread.is_empty() {
            let bytes = self.unread.split_to(most.min(self.unread.len()));
            buf.put_slice(&bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let most = most.min(READ_BYTES * 4);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        self.is_over = read == 0;
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heads<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if !this.passed.is_empty() {
                let bytes = this.passed.split_to(this.passed.len().min(buf.remaining()));
                buf.put_slice(&bytes);
                return Poll::Ready(Ok(()));
            }
            match &mut this.state {
                State::Preface => {
                    let known = this.unread.len().min(PREFACE.len());
                    if this.unread[..known] != PREFACE[..known] {
                        this.state = State::Head;
                    } else if known == PREFACE.len() {
                        this.state = State::Through;
                    } else if !ready!(this.poll_more(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Head => {
                    let is_lacking = this.unread.is_empty() || this.look();
                    if is_lacking && !ready!(this.poll_more(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Body(0) => this.state = State::Head,
                State::Body(left) => {
                    let left = *left;
                    let read = ready!(this.poll_through(cx, buf, left))?;
                    this.state = State::Body(left - read as u64);
                    return Poll::Ready(Ok(()));
                }
                State::Chunks(chunks) => {
                    let passed = chunks.pass(&this.unread[..this.unread.len().min(buf.remaining())]);
                    let passed = passed.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
                    if *chunks == Chunks::End {
                        this.state = State::Head;
                    }
                    if passed > 0 {
                        buf.put_slice(&this.unread.split_to(passed));
                        return Poll::Ready(Ok(()));
                    }
                    if matches!(this.state, State::Chunks(_)) && !ready!(this.poll_more(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Through => {
                    ready!(this.poll_through(cx, buf, u64::MAX))?;
                    return Poll::Ready(Ok(()));
                }
                State::Refused(thrown) => {
                    let so_far = *thrown;
                    if so_far >= DISCARDED_BYTES_MAX || !ready!(this.poll_more(cx))? {
                        // An end would have hyper drop the answer that is on its way.
                        return Poll::Pending;
                    }
                    this.state = State::Refused(so_far + this.unread.len());
                    this.unread.clear();
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heads<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Where the next look at a head begins, and what the last came to.
#[derive(Debug, PartialEq, Eq)]
enum Scan {
    /// The head goes on.
    More,
    /// A line ends without a CR, or a CR stands in the middle of one.
    BareLine,
    /// The head has so many bytes, its empty line included.
    End(usize),
}

/// Looks for the end of a head from `scanned` on, which is set to where the next look has to begin.
fn scan(bytes: &[u8], scanned: &mut usize) -> Scan {
    let mut at = *scanned;
    while let Some(found) = bytes[at..].iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let line_end = at + found;
        match (bytes[line_end], bytes.get(line_end + 1)) {
            (b'\r', Some(b'\n')) => {}
            (b'\r', None) => {
                *scanned = line_end;
                return Scan::More;
            }
            _ => return Scan::BareLine,
        }
        let next = line_end + 2;
        match (bytes.get(next), bytes.get(next + 1)) {
            (Some(b'\r'), Some(b'\n')) => return Scan::End(next + 2),
            (Some(b'\r') | None, None) => {
                *scanned = line_end;
                return Scan::More;
            }
            _ => at = next,
        }
    }
    *scanned = bytes.len();
    Scan::More
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// The request that goes on in place of the refused one.
    fn request(&self) -> Vec<u8> {
        let status = self.status.as_u16();
        format!(
            "GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n{REFUSED_HEADER}: {status} {}\r\n\r\n",
            self.text
        )
        .into_bytes()
    }
}

/// How long a body is.
#[derive(Debug, PartialEq, Eq)]
enum Length {
    Known(u64),
    Chunked,
}

/// What matters of a head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    body: Length,
    /// Where a query string that is too long for hyper begins, behind its `?`, and where the target ends.
    long_query: Option<(usize, usize)>,
}

impl Head {
    /// Reads a whole head, with its empty line.
    fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let bad = |text: &str| Refusal::new(StatusCode::BAD_REQUEST, text);
        let mut lines = bytes[..bytes.len() - 4]
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let first = lines.next().unwrap_or_default();
        let words: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
        let [method, target, version] = words[..] else {
            return Err(bad("the first line isn't a method, a target and HTTP's version"));
        };
        let is_one = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return Err(bad("neither HTTP/1.1 nor HTTP/1.0 is spoken")),
        };
        let (mut hosts, mut count) = (0, 0);
        let (mut length, mut is_chunked): (Option<u64>, bool) = (None, false);
        for line in lines {
            count += 1;
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                return Err(bad("a header has no colon"));
            };
            let (name, value) = (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii());
            // A name of this kind could be taken for another by whoever reads the request next.
            if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
                return Err(bad("a header's name is none"));
            }
            match name.as_slice() {
                b"host" => hosts += 1,
                b"content-length" => {
                    let text = std::str::from_utf8(value).unwrap_or_default();
                    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                    let found = text.parse().ok().filter(|_| is_number);
                    let found = found.ok_or_else(|| bad("Content-Length isn't a number of bytes"))?;
                    if length.is_some_and(|length| length != found) {
                        return Err(bad("Content-Length is there twice"));
                    }
                    length = Some(found);
                }
                b"transfer-encoding" => {
                    if is_chunked || !value.eq_ignore_ascii_case(b"chunked") || !is_one {
                        return Err(bad("Transfer-Encoding is something else than chunked"));
                    }
                    is_chunked = true;
                }
                name if name == REFUSED_HEADER.as_bytes() || name == QUERY_HEADER.as_bytes() => {
                    return Err(bad("a header is this server's own"));
                }
                _ => {}
            }
        }
        if count > HEADERS_MAX {
            let text = format!("the request has more than {HEADERS_MAX} headers");
            return Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text));
        }
        if hosts > 1 || (is_one && hosts == 0) {
            return Err(bad("a request has one header Host"));
        }
        let body = match (is_chunked, length) {
            (true, Some(_)) => return Err(bad("Content-Length and Transfer-Encoding are both there")),
            (true, None) => Length::Chunked,
            (false, length) => Length::Known(length.unwrap_or(0)),
        };
        let begin = method.len() + 1;
        let long_query = if target.len() > INLINE_TARGET_BYTES {
            let mark =
                target.iter().position(|byte| *byte == b'?').filter(|mark| *mark <= INLINE_TARGET_BYTES);
            let mark =
                mark.ok_or_else(|| Refusal::new(StatusCode::URI_TOO_LONG, "the URL's path is too long"))?;
            let is_query = |byte: &u8| byte.is_ascii_graphic();
            if !target[mark + 1..].iter().all(is_query) {
                return Err(bad("the URL has bytes that have to be percent-encoded"));
            }
            Some((begin + mark + 1, begin + target.len()))
        } else {
            None
        };
        Ok(Self { body, long_query })
    }

    /// The head as it goes on.
    fn for_hyper(&self, whole: Bytes) -> Bytes {
        let Some((query, end)) = self.long_query else { return whole };
        let fragment = whole[query..end].iter().position(|byte| *byte == b'#').map_or(end, |at| query + at);
        let mut out = Vec::with_capacity(whole.len() + 32);
        out.extend_from_slice(&whole[..query - 1]);
        out.extend_from_slice(&whole[end..whole.len() - 2]);
        out.extend_from_slice(QUERY_HEADER.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(&whole[query..fragment]);
        out.extend_from_slice(b"\r\n\r\n");
        out.into()
    }
}

#[cfg(test)]
mod tests;
