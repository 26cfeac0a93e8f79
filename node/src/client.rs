//! Makes HTTP clients: for the command line and the benchmarks, which ask nodes as anybody else would.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName};

use crate::error_text::causes;

/// A client that sends these headers with each request, over HTTP/1.1, and gives up on an answer after `timeout`.
///
/// # Errors
/// When a header's name or value has bytes that headers can't hold; the text names it.
pub fn client<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    timeout: Duration,
) -> Result<reqwest::Client, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let wrong = |_| format!("{name}: {value:?} can't be a header");
        let value = value.parse().map_err(|e: reqwest::header::InvalidHeaderValue| wrong(e.to_string()))?;
        let name: HeaderName =
            name.parse().map_err(|e: reqwest::header::InvalidHeaderName| wrong(e.to_string()))?;
        map.insert(name, value);
    }
    // reqwest wants TLS ready even where no URL is https; an error means that it already is.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .default_headers(map)
        .http1_only()
        .timeout(timeout)
        .build()
        .map_err(|e| format!("can't make an HTTP client: {}", causes(&e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_cant_be_is_named() {
        let wrong = client([("x-scope-orgid", "a\nb")], Duration::from_secs(1)).unwrap_err();
        assert!(wrong.contains("x-scope-orgid"), "{wrong}");
        assert!(client([("x-scope-orgid", "a")], Duration::from_secs(1)).is_ok());
    }
}
