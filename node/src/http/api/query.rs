//! `query`, `query_range`, `format_query`, `parse_query`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use promql::parse::ast::Expr;
use promql::value::{Output, Value};
use promql::{Level, QueryRange, Syntax};
use tsdb::model::TenantId;

use super::{ANNOTATIONS_MAX, covered, push_texts, success};
use crate::config::Config;
use crate::http::error::{ApiError, Kind};
use crate::http::json::{ResultBody, push_string};
use crate::http::params::{Params, Tenant};
use crate::node::App;
use crate::query::answer::{self, Answer, answer};
use crate::query::coverage::Coverage;
use crate::query::dedup::Replicas;

/// Most steps of a range query.
const STEPS_MAX: i64 = 11_000;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/query", get(instant).post(instant))
        .route("/api/v1/query_range", get(range).post(range))
        .route("/api/v1/format_query", get(format_query).post(format_query))
        .route("/api/v1/parse_query", get(parse_query).post(parse_query))
}

async fn instant(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let config = app.config.load_full();
    let query = Question::from_params(&config, &tenant, &params)?;
    let time_ms = params.time_ms("time")?.unwrap_or_else(|| app.env.clock.now_ms());
    let range = QueryRange::instant(time_ms, query.lookback_ms);
    query.answer(&app, tenant, range).await
}

async fn range(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let config = app.config.load_full();
    let start_ms = params.required_time_ms("start")?;
    let end_ms = params.required_time_ms("end")?;
    if end_ms < start_ms {
        return Err(ApiError::parameter("end", "the end lies before the start"));
    }
    let step_ms =
        params.duration_ms("step")?.ok_or_else(|| ApiError::parameter("step", "a step is missing"))?;
    if step_ms <= 0 {
        return Err(ApiError::parameter("step", "a step is above 0"));
    }
    if end_ms.saturating_sub(start_ms) / step_ms > STEPS_MAX {
        let message = "the query has more than 11,000 steps: make `step` longer, or the range shorter";
        return Err(ApiError::new(Kind::BadData, message));
    }
    let query = Question::from_params(&config, &tenant, &params)?;
    let range = QueryRange { start_ms, end_ms, step_ms, lookback_ms: query.lookback_ms };
    query.answer(&app, tenant, range).await
}

/// What instant and range queries have in common.
struct Question {
    text: String,
    expr: Expr,
    lookback_ms: i64,
    timeout: Duration,
    /// Series wanted; 0 = all.
    limit: usize,
    stats: bool,
    replicas: Replicas,
    partial: bool,
}

impl Question {
    fn from_params(config: &Config, tenant: &TenantId, params: &Params) -> Result<Self, ApiError> {
        let text = params.get("query").unwrap_or_default().to_owned();
        let expr = parse(config, &text)?;
        let lookback_ms = params.duration_ms("lookback_delta")?.unwrap_or(config.query_lookback.ms);
        if lookback_ms <= 0 {
            return Err(ApiError::parameter("lookback_delta", "it is above 0"));
        }
        let most = config.query_timeout.ms;
        let timeout_ms = params.duration_ms("timeout")?.map_or(most, |ms| ms.clamp(0, most));
        Ok(Self {
            text,
            expr,
            lookback_ms,
            timeout: Duration::from_millis(timeout_ms.unsigned_abs()),
            limit: params.limit("limit")?,
            stats: params.get("stats").is_some(),
            replicas: params.replicas(config, tenant)?,
            partial: params.partial()?,
        })
    }

    async fn answer(self, app: &Arc<App>, tenant: TenantId, range: QueryRange) -> Result<Response, ApiError> {
        let began = tokio::time::Instant::now();
        let Self { expr, timeout, replicas, partial, .. } = self;
        let question = answer::Question { tenant, expr, range, timeout, replicas, partial };
        let Answer { mut output, warnings: shortcomings, coverage } = answer(app, question).await?;
        app.metrics.queried(&output.stats);
        let mut warnings = shortcomings;
        warnings.extend(output.annotations.render(Level::Warning, &self.text, ANNOTATIONS_MAX));
        let infos = output.annotations.render(Level::Info, &self.text, ANNOTATIONS_MAX);
        if cut(&mut output.value, self.limit) {
            warnings.push(format!("the result was cut to {} series (limit)", self.limit));
        }
        let mut tail = Vec::new();
        if self.stats {
            push_stats(&mut tail, &output, &coverage, began.elapsed());
        }
        tail.push(b'}');
        push_texts(&mut tail, "warnings", &warnings);
        push_texts(&mut tail, "infos", &infos);
        tail.push(b'}');
        let head = b"{\"status\":\"success\",\"data\":";
        let body = ResultBody::new(head, output.value, tail).into_body();
        let response = ([(CONTENT_TYPE, "application/json")], body).into_response();
        Ok(covered(response, &coverage))
    }
}

/// Whether series were left out.
fn cut(value: &mut Value, limit: usize) -> bool {
    let length = match value {
        Value::Vector(samples) => samples.len(),
        Value::Matrix(series) => series.len(),
        Value::Scalar(_) | Value::String(_) => 0,
    };
    if limit == 0 || length <= limit {
        return false;
    }
    match value {
        Value::Vector(samples) => samples.truncate(limit),
        Value::Matrix(series) => series.truncate(limit),
        Value::Scalar(_) | Value::String(_) => {}
    }
    true
}

fn push_stats(out: &mut Vec<u8>, output: &Output, coverage: &Coverage, elapsed: Duration) {
    let stats = serde_json::json!({
        "timings": {"execTotalTime": elapsed.as_secs_f64()},
        "samples": {"totalQueryableSamples": output.stats.samples},
        "carillon": {
            "series": output.stats.series,
            "peakBytes": output.stats.peak_bytes,
            "coverage": coverage.json(),
        },
    });
    out.extend_from_slice(b",\"stats\":");
    out.extend_from_slice(stats.to_string().as_bytes());
}

fn parse(config: &Config, text: &str) -> Result<Expr, ApiError> {
    let syntax = Syntax { experimental: config.query_experimental };
    promql::parse_with(text, syntax).map_err(|e| ApiError::parameter("query", e))
}

async fn format_query(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let expr = parse(&app.config.load(), params.get("query").unwrap_or_default())?;
    let mut data = Vec::new();
    push_string(&mut data, &expr.pretty());
    Ok(success(&data, &[]))
}

async fn parse_query(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let expr = parse(&app.config.load(), params.get("query").unwrap_or_default())?;
    Ok(success(expr.to_json().as_bytes(), &[]))
}
