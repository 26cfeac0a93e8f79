//! The client's side of the HTTP API: asks a node, and turns its envelope into a result or a failure.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::Failure;
use crate::http::CHANGE_HEADER;

/// Longer than any server lets a query run by default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(150);

/// For one file of a block.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);

/// Which node, and as whom.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Where the node's HTTP API is
    #[arg(
        long,
        env = "CARILLON_URL",
        default_value = "http://127.0.0.1:9480",
        value_parser = parse_url,
        help_heading = "Connection"
    )]
    pub url: reqwest::Url,
    /// Which tenant is meant; the node's default where absent
    #[arg(long, env = "CARILLON_TENANT", help_heading = "Connection")]
    pub tenant: Option<String>,
}

/// A URL; `host:port` alone is one of HTTP.
fn parse_url(text: &str) -> Result<reqwest::Url, String> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    match reqwest::Url::parse(&whole) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        Ok(url) => Err(format!("{}:// isn't spoken, http:// and https:// are", url.scheme())),
        Err(error) => Err(format!("{error}; it looks like http://127.0.0.1:9480")),
    }
}

/// An answer's payload and remarks.
#[derive(Debug)]
pub struct Answer {
    /// The envelope's `data`.
    pub data: Value,
    /// Warnings.
    pub warnings: Vec<String>,
    /// Infos.
    pub infos: Vec<String>,
}

impl Answer {
    /// The data for programs, with warnings and infos where there are any and the data has names.
    pub fn whole(&self) -> Value {
        let mut data = self.data.clone();
        if let Value::Object(object) = &mut data {
            for (name, remarks) in [("warnings", &self.warnings), ("infos", &self.infos)] {
                if !remarks.is_empty() {
                    object.insert(name.to_owned(), remarks.clone().into());
                }
            }
        }
        data
    }
}

/// A client of one node.
#[derive(Clone, Debug)]
pub struct Api {
    base: reqwest::Url,
    client: reqwest::Client,
}

impl Api {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// When the tenant's name can't be a header.
    pub fn new(connection: &Connection) -> Result<Self, Failure> {
        let tenant = connection.tenant.as_deref().map(|tenant| ("x-scope-orgid", tenant));
        let client = crate::client::client(tenant, REQUEST_TIMEOUT).map_err(Failure::usage)?;
        Ok(Self { base: connection.url.clone(), client })
    }

    /// The same for the node at `host:port`; `None` where that is no address.
    pub fn at(&self, address: &str) -> Option<Self> {
        let base = format!("{}://{address}", self.base.scheme()).parse().ok()?;
        Some(Self { base, client: self.client.clone() })
    }

    /// The address of `path` (which begins with `/`) on this node.
    pub fn url(&self, path: &str) -> reqwest::Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }

    /// Asks by a form, so that long expressions fit.
    ///
    /// # Errors
    /// When the node can't be reached, or answers with an error.
    pub async fn ask(&self, path: &str, parameters: &[(&str, String)]) -> Result<Answer, Failure> {
        let mut form = reqwest::Url::parse("http://form").expect("a URL");
        form.query_pairs_mut().extend_pairs(parameters);
        let request = self
            .client
            .post(self.url(path))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned());
        self.send(request).await
    }

    /// Has the node change something; with `dry_run` it only says whether it would.
    ///
    /// # Errors
    /// As [`Api::ask`].
    pub async fn change(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        dry_run: bool,
    ) -> Result<Answer, Failure> {
        let mut object: serde_json::Map<String, Value> =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
        if dry_run {
            object.insert("dry_run".to_owned(), true.into());
        }
        let request = self
            .client
            .post(self.url(path))
            .header("content-type", "application/json")
            .header(CHANGE_HEADER, "yes")
            .body(Value::Object(object).to_string());
        self.send(request).await
    }

    /// Asks by GET, for paths that know nothing else.
    ///
    /// # Errors
    /// As [`Api::ask`].
    pub async fn get(&self, path: &str, parameters: &[(&str, String)]) -> Result<Answer, Failure> {
        let mut url = self.url(path);
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        self.send(self.client.get(url)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, Failure> {
        let (status, body) = self.raw(request).await?;
        let envelope: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        if !status.is_success() || envelope["status"] != "success" {
            let kind = envelope["errorType"].as_str().map(|k| format!(" ({k})")).unwrap_or_default();
            let reason = envelope["error"].as_str().unwrap_or_else(|| body.trim());
            return Err(Failure::failed(format!("{} answered {status}{kind}: {reason}", self.base)));
        }
        let remarks = |kind: &str| -> Vec<String> {
            let all = envelope[kind].as_array().into_iter().flatten();
            all.filter_map(|remark| remark.as_str().map(str::to_owned)).collect()
        };
        let (warnings, infos) = (remarks("warnings"), remarks("infos"));
        let data = envelope.get("data").cloned().unwrap_or(Value::Null);
        Ok(Answer { data, warnings, infos })
    }

    /// Posts bytes; the answer as it is, good or bad.
    ///
    /// # Errors
    /// When the node can't be reached.
    pub async fn post_bytes(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        body: bytes::Bytes,
    ) -> Result<(reqwest::StatusCode, String), Failure> {
        let mut url = self.url(path);
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        // A chunk file has up to half a gigabyte, and the node syncs it to disk.
        self.raw(self.client.post(url).timeout(UPLOAD_TIMEOUT).body(body)).await
    }

    /// Gets a JSON document that has no envelope.
    ///
    /// # Errors
    /// When the node can't be reached, answers with an error, or not with JSON.
    pub async fn get_plain(&self, path: &str) -> Result<Value, Failure> {
        let (status, body) = self.raw(self.client.get(self.url(path))).await?;
        let document = serde_json::from_str(&body).ok().filter(|_| status.is_success());
        document.ok_or_else(|| Failure::failed(format!("{} answered {status}: {}", self.base, body.trim())))
    }

    /// Sends a request to this node and reads the answer whole.
    async fn raw(&self, request: reqwest::RequestBuilder) -> Result<(reqwest::StatusCode, String), Failure> {
        let failed = |e: reqwest::Error| {
            let hint = "is a node running there? start one with `carillon run`, or name another by --url";
            Failure::failed(format!("can't reach {}: {}; {hint}", self.base, innermost(&e)))
        };
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        Ok((status, answer.text().await.map_err(failed)?))
    }
}

/// The cause that says most: reqwest's own text only repeats the URL.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_needs_no_scheme() {
        for (text, wanted) in [
            ("127.0.0.1:9480", "http://127.0.0.1:9480/"),
            ("localhost:9480", "http://localhost:9480/"),
            ("node-1", "http://node-1/"),
            ("https://host/prometheus", "https://host/prometheus"),
        ] {
            assert_eq!(parse_url(text).unwrap().as_str(), wanted);
        }
        assert!(parse_url("ftp://host").is_err() && parse_url("").is_err());
    }
}
