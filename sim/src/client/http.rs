//! HTTP/1.1 over the simulated network: one connection a request, as a client that trusts none of its old ones.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use node::env::{Lane, Net as _};

use crate::trace::Trace;
use crate::world::{Links, PORT, SimNet};

/// Sends requests from one host.
pub struct Http {
    net: SimNet,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text, cut to what a person reads.
    pub fn text(&self) -> String {
        const CHARS_MAX: usize = 300;
        String::from_utf8_lossy(&self.body).trim().chars().take(CHARS_MAX).collect()
    }
}

impl Http {
    /// From `host`.
    pub fn new(host: &str, links: Links, trace: Arc<Trace>) -> Self {
        Self { net: SimNet { host: host.to_owned(), links, trace } }
    }

    /// Asks `node` for a path with its query.
    ///
    /// # Errors
    /// When there is no complete answer in time; the text says why.
    pub async fn get(
        &self,
        node: &str,
        path: &str,
        headers: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<Answer, String> {
        let mut request = Request::get(path).header(HOST, node);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).expect("paths are percent-encoded");
        self.send(node, request, timeout).await
    }

    /// Posts a body with these headers.
    ///
    /// # Errors
    /// When there is no complete answer in time; the text says why.
    pub async fn post(
        &self,
        node: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Answer, String> {
        let mut request = Request::post(path).header(HOST, node);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(node, request.body(Full::from(body)).expect("headers are literals"), timeout).await
    }

    async fn send(
        &self,
        node: &str,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Answer, String> {
        let exchange = async {
            let stream =
                self.net.connect(&format!("{node}:{PORT}"), Lane::Data).await.map_err(|e| e.to_string())?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|e| e.to_string())?;
            let driven = tokio::spawn(connection);
            let answered = async {
                let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
                let status = response.status().as_u16();
                let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
                Ok(Answer { status, body })
            };
            let answer = answered.await;
            driven.abort();
            answer
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err("timed out".to_owned()),
        }
    }
}

/// Percent-encodes a query's value.
pub fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes everything");
        }
    }
    encoded
}
