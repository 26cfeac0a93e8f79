//! What goes on to hyper, whatever pieces it comes in.

use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;

use super::*;

/// Gives what it has in pieces of so many bytes.
struct Pieces {
    bytes: Vec<u8>,
    size: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let piece = self.size.min(self.bytes.len()).min(buf.remaining());
        buf.put_slice(&self.bytes[..piece]);
        self.bytes.drain(..piece);
        Poll::Ready(Ok(()))
    }
}

/// All that goes on of a connection; up to the refusal, where there is one.
async fn passed(bytes: &[u8], size: usize) -> String {
    let mut heads = Heads::new(Pieces { bytes: bytes.to_vec(), size }, Arc::new(Semaphore::new(1)));
    let mut all = Vec::new();
    let mut piece = [0; 1000];
    while heads.state != State::Refused(0) || !heads.passed.is_empty() {
        match heads.read(&mut piece).await {
            Ok(0) => break,
            Ok(read) => all.extend_from_slice(&piece[..read]),
            Err(error) => {
                all.extend_from_slice(format!("<{error}>").as_bytes());
                break;
            }
        }
    }
    String::from_utf8(all).unwrap()
}

const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nhost: x\r\nContent-Length: 5\r\n\r\na\n\r\n\n";
const CHUNKED: &str = "POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\n\r\n3;a=b\r\n\nGE\r\n0a\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
const OLD: &str = "GET /a HTTP/1.0\r\n\r\n";

#[tokio::test]
async fn what_is_right_goes_through_as_it_is() {
    let all = [GET, POST, CHUNKED, "\r\n", OLD, GET].concat();
    // An empty line before a request is left out, as hyper would.
    let wanted = [GET, POST, CHUNKED, OLD, GET].concat();
    for size in [1, 2, 3, 7, 100_000] {
        assert_eq!(passed(all.as_bytes(), size).await, wanted, "{size}");
    }
    let second = [std::str::from_utf8(PREFACE).unwrap(), "\n\n\n"].concat();
    assert_eq!(passed(second.as_bytes(), 5).await, second, "HTTP/2 is another's business");
}

#[tokio::test]
async fn what_two_readers_could_read_in_two_ways_is_refused() {
    let length = |more: &str| format!("POST / HTTP/1.1\r\nhost: x\r\n{more}\r\n\r\n");
    for (request, why) in [
        ("GET / HTTP/1.1\nHost: x\n\n".to_owned(), "CR LF"),
        ("GET / HTTP/1.1\r\nHost: x\n\r\n".to_owned(), "CR LF"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\n".to_owned(), "CR LF"),
        ("GET / HTTP/1.1\r\nHost: x\ry\r\n\r\n".to_owned(), "CR LF"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "one header Host"),
        ("GET / HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n".to_owned(), "one header Host"),
        ("GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n".to_owned(), "one header Host"),
        ("GET / HTTP/1.1\r\nHost: x\r\n y: z\r\n\r\n".to_owned(), "name"),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n".to_owned(), "name"),
        ("GET / HTTP/1.1\r\nHost x\r\n\r\n".to_owned(), "colon"),
        ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "first line"),
        ("GET /\r\n\r\n".to_owned(), "first line"),
        ("GET / HTTP/1.2\r\nHost: x\r\n\r\n".to_owned(), "HTTP/1.1"),
        (length("content-length: 1\r\ncontent-length: 2"), "twice"),
        (length("content-length: +1"), "number"),
        (length("content-length: 1, 1"), "number"),
        (length("content-length: 1\r\ntransfer-encoding: chunked"), "both"),
        (length("transfer-encoding: gzip, chunked"), "chunked"),
        (length("x-carillon-refused: 400 x"), "own"),
        (length("x-carillon-query: a=b"), "own"),
    ] {
        for size in [1, 1000] {
            let found = passed([GET, &request].concat().as_bytes(), size).await;
            let rest =
                found.strip_prefix(GET).unwrap_or_else(|| panic!("what came before is answered: {found}"));
            let (_, reason) =
                rest.split_once("x-carillon-refused: 400 ").unwrap_or_else(|| panic!("{request:?}: {rest}"));
            assert!(reason.contains(why), "{request:?}: {reason}");
        }
    }
}

#[tokio::test]
async fn a_query_string_of_a_megabyte_goes_on_in_a_header_and_more_is_refused() {
    let get = |bytes: usize| format!("GET /a?q={} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(bytes));
    let long = passed([&get(1_000_000), GET].concat().as_bytes(), 50_000).await;
    let query = "x".repeat(1_000_000);
    assert_eq!(long, format!("GET /a HTTP/1.1\r\nhost: x\r\nx-carillon-query: q={query}\r\n\r\n{GET}"));
    for (request, status) in [
        (get(TARGET_BYTES_MAX), "414"),
        (format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000)), "414"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "a".repeat(HEADER_BYTES_MAX)), "431"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX)), "431"),
    ] {
        let found = passed(request.as_bytes(), 10_000).await;
        assert!(
            found.contains(&format!("x-carillon-refused: {status} ")),
            "{status}: {}",
            &found[..200.min(found.len())]
        );
    }
}

#[tokio::test]
async fn only_so_many_long_heads_are_read_at_once() {
    let larges = Arc::new(Semaphore::new(1));
    let held = larges.clone().try_acquire_owned().unwrap();
    let bytes = format!("GET /a?q={} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000)).into_bytes();
    let mut heads = Heads::new(Pieces { bytes: bytes.clone(), size: 10_000 }, larges.clone());
    let mut piece = [0; 1000];
    let read = heads.read(&mut piece).await.unwrap();
    assert!(String::from_utf8_lossy(&piece[..read]).contains("x-carillon-refused: 503 "));
    drop(held);
    let mut heads = Heads::new(Pieces { bytes, size: 10_000 }, larges.clone());
    let read = heads.read(&mut piece).await.unwrap();
    assert!(String::from_utf8_lossy(&piece[..read]).starts_with("GET /a HTTP/1.1"));
    assert_eq!(larges.available_permits(), 1, "given back once it is read");
}

#[tokio::test]
async fn a_broken_chunked_body_ends_the_connection() {
    let head = "POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in ["\r\n", "g\r\n", "1\na\r\n", "1\r\nab\r\n", "11111111111111111\r\n", "0\r\n\n", "1;x\n"] {
        let found = passed([head, body].concat().as_bytes(), 1).await;
        assert!(found.ends_with("<a chunked body is broken>"), "{body:?}: {found}");
    }
}

proptest! {
    /// Whatever comes: no panic, and no more goes on than came, but for refusals and moved queries.
    #[test]
    fn nothing_breaks_it(parts in prop::collection::vec(prop_oneof![
        Just("GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
        Just("transfer-encoding: chunked\r\n".to_owned()),
        Just("content-length: 3\r\n".to_owned()),
        Just("POST / HTTP/1.1\r\nhost: x\r\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("\n".to_owned()),
        Just("PRI * HTTP/2.0\r\n".to_owned()),
        "[0-9a-f;: \r\n]{0,8}",
    ], 0..12), size in 1usize..40) {
        let bytes = parts.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(passed(bytes.as_bytes(), size));
        prop_assert!(found.len() <= bytes.len() + 300);
    }
}
