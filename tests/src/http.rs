//! A client that keeps what it got, good or bad.

use std::time::Duration;

use serde_json::Value;

/// How long an answer may take: longer than a node works on any question.
const TIMEOUT: Duration = Duration::from_secs(60 * crate::PATIENCE);

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Its headers, in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON; `null` where it isn't.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Http {
    base: String,
    client: reqwest::Client,
    headers: Vec<(String, String)>,
}

impl Http {
    /// For a URL without a slash at the end.
    pub fn new(base: &str) -> Self {
        let client = node::client::client([], TIMEOUT).unwrap();
        Self { base: base.to_owned(), client, headers: Vec::new() }
    }

    /// The URL that it was made for.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The same, for a tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: &str) -> Self {
        self.headers.push(("x-scope-orgid".to_owned(), tenant.to_owned()));
        self
    }

    /// GET with parameters; an error is one of the connection.
    pub async fn try_get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Answer, reqwest::Error> {
        let mut url: reqwest::Url = format!("{}{path}", self.base).parse().unwrap();
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        self.send(self.client.get(url)).await
    }

    /// GET with parameters.
    pub async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        self.try_get(path, parameters).await.unwrap()
    }

    /// POST of a form.
    pub async fn form(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        let mut form: reqwest::Url = "http://form".parse().unwrap();
        form.query_pairs_mut().extend_pairs(parameters);
        let body = form.query().unwrap_or_default().to_owned();
        self.post(path, &[("content-type", "application/x-www-form-urlencoded")], body.into_bytes()).await
    }

    /// POST of bytes.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        self.try_post(path, headers, body).await.unwrap()
    }

    /// POST of bytes; an error is one of the connection.
    pub async fn try_post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.post(format!("{}{path}", self.base)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request).await
    }

    /// A remote-write 1.0 request with this compressed body.
    pub async fn try_write(&self, body: Vec<u8>) -> Result<Answer, reqwest::Error> {
        let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
        self.try_post("/api/v1/write", &headers, body).await
    }

    /// As [`Http::try_write`], with an answer.
    pub async fn write(&self, body: Vec<u8>) -> Answer {
        self.try_write(body).await.unwrap()
    }

    /// The result of an instant query.
    ///
    /// # Panics
    /// When the answer isn't a success.
    pub async fn query(&self, expr: &str, time_ms: i64) -> Value {
        let time = format!("{:.3}", time_ms as f64 / 1000.0);
        let answer = self.form("/api/v1/query", &[("query", expr), ("time", &time)]).await;
        assert_eq!(answer.status, 200, "{expr}: {}", answer.body);
        answer.json()["data"]["result"].clone()
    }

    async fn send(&self, mut request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        Ok(Answer { status, headers, body: answer.text().await? })
    }
}
