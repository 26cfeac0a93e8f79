//! A server that takes remote write 2.0 and answers Prometheus's HTTP API. Each `clear` begins a fresh tenant.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value as Json;
use tsdb::model::Labels;

use crate::expect::{Answer, Number, ShownHistogram, Value};
use crate::load::Load;
use crate::remote_write;
use crate::run::Target;
use crate::script::When;

pub struct Api {
    /// `host:port`.
    address: String,
    /// What stands in front of `/api/v1`.
    prefix: String,
    /// Tenants are named this, a dash, and a number.
    tenant_prefix: String,
    tenant: usize,
}

impl Api {
    pub fn new(url: &str, tenant_prefix: String) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url}: expected http://HOST:PORT"))?;
        let (address, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = format!("/{prefix}");
        let prefix = prefix.trim_end_matches('/').to_owned();
        Ok(Self { address: address.to_owned(), prefix, tenant_prefix, tenant: 0 })
    }

    /// Status and body of the answer. HTTP/1.0, so that the body ends with the connection.
    fn post(&self, path: &str, headers: &str, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
        let Self { address, prefix, tenant_prefix, tenant, .. } = self;
        let mut stream = TcpStream::connect(address).map_err(|e| format!("{address}: {e}"))?;
        let length = body.len();
        let head = format!(
            "POST {prefix}{path} HTTP/1.0\r\nHost: {address}\r\nX-Scope-OrgID: {tenant_prefix}-{tenant}\r\n{headers}\
             Content-Length: {length}\r\n\r\n"
        );
        let mut answer = Vec::new();
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .and_then(|()| stream.read_to_end(&mut answer))
            .map_err(|e| format!("{address}: {e}"))?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.ok_or_else(|| format!("{address}: the answer has no head"))?;
        let head = String::from_utf8_lossy(&answer[..end]);
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| format!("{address}: {head}"))?;
        Ok((status, answer.split_off(end + 4)))
    }
}

impl Target for Api {
    fn clear(&mut self) -> Result<(), String> {
        self.tenant += 1;
        Ok(())
    }

    fn load(&mut self, load: &Load) -> Result<(), String> {
        let headers = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n\
                       Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 2.0.0\r\n";
        let (status, body) = self.post("/api/v1/write", headers, &remote_write::encode(&load.series)?)?;
        if (200..300).contains(&status) {
            return Ok(());
        }
        Err(format!("the write was answered with {status}: {}", String::from_utf8_lossy(&body).trim()))
    }

    fn ask(&mut self, query: &str, when: When) -> Result<Answer, String> {
        let query = percent_encoded(query);
        let (path, form) = match when {
            When::Instant(at_ms) => ("/api/v1/query", format!("query={query}&time={}", seconds(at_ms))),
            When::Range { start_ms, end_ms, step_ms } => {
                let [start, end, step] = [start_ms, end_ms, step_ms].map(seconds);
                ("/api/v1/query_range", format!("query={query}&start={start}&end={end}&step={step}"))
            }
        };
        let headers = "Content-Type: application/x-www-form-urlencoded\r\n";
        let (_, body) = self.post(path, headers, form.as_bytes())?;
        let json: Json = serde_json::from_slice(&body)
            .map_err(|e| format!("the answer is no JSON: {e}: {}", String::from_utf8_lossy(&body)))?;
        if json["status"] != "success" {
            return Err(bare_error(json["error"].as_str().unwrap_or("")).to_owned());
        }
        let texts = |key: &str| {
            let texts = json[key].as_array().into_iter().flatten().filter_map(Json::as_str);
            texts.map(str::to_owned).collect()
        };
        let value = value(&json["data"]).ok_or_else(|| format!("unexpected data {}", json["data"]))?;
        Ok(Answer { value, warnings: texts("warnings"), infos: texts("infos") })
    }
}

fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// An error without what the API puts in front of it: the parameter's name, and line and column.
fn bare_error(error: &str) -> &str {
    let error = error.strip_prefix("invalid parameter \"query\": ").unwrap_or(error);
    error.split_once(": parse error: ").map_or(error, |(_, message)| message)
}

fn value(data: &Json) -> Option<Value> {
    let result = &data["result"];
    let series = || {
        result
            .as_array()?
            .iter()
            .map(|series| Some((labels(&series["metric"])?, series)))
            .collect::<Option<Vec<_>>>()
    };
    Some(match data["resultType"].as_str()? {
        "scalar" => Value::Scalar(float(&result[1])?),
        "string" => Value::String(result[1].as_str()?.to_owned()),
        "vector" => {
            let point = |series: &Json| {
                float(&series["value"][1])
                    .map(Number::Float)
                    .or_else(|| histogram(&series["histogram"][1]).map(Number::Shown))
            };
            let vector = series()?.into_iter().map(|(labels, series)| Some((labels, point(series)?)));
            Value::Vector(vector.collect::<Option<_>>()?)
        }
        _ => {
            let matrix = series()?.into_iter().map(|(labels, series)| Some((labels, points(series)?)));
            Value::Matrix(matrix.collect::<Option<_>>()?)
        }
    })
}

fn labels(metric: &Json) -> Option<Labels> {
    let pairs = metric.as_object()?.iter().map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    Labels::from_pairs(pairs.collect::<Option<Vec<_>>>()?).ok()
}

/// Floats and histograms of a series by time.
fn points(series: &Json) -> Option<Vec<(i64, Number)>> {
    let of = |key: &str| series[key].as_array().cloned().unwrap_or_default();
    let floats = of("values").into_iter().map(|p| Some((ms(&p[0])?, Number::Float(float(&p[1])?))));
    let histograms =
        of("histograms").into_iter().map(|p| Some((ms(&p[0])?, Number::Shown(histogram(&p[1])?))));
    let mut points = floats.chain(histograms).collect::<Option<Vec<_>>>()?;
    points.sort_by_key(|(timestamp_ms, _)| *timestamp_ms);
    Some(points)
}

#[allow(clippy::cast_possible_truncation, reason = "times in scripts are small")]
fn ms(seconds: &Json) -> Option<i64> {
    Some((seconds.as_f64()? * 1000.0).round() as i64)
}

fn float(text: &Json) -> Option<f64> {
    text.as_str()?.parse().ok()
}

fn histogram(json: &Json) -> Option<ShownHistogram> {
    let bucket = |b: &Json| Some((float(&b[1])?, float(&b[2])?, float(&b[3])?));
    let buckets = json["buckets"].as_array().map_or(Some(Vec::new()), |b| b.iter().map(bucket).collect())?;
    Some(ShownHistogram { count: float(&json["count"])?, sum: float(&json["sum"])?, buckets })
}
