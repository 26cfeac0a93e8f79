//! `query`, `query_range`, `query_explain`, `query_cost`, `format_query`, `parse_query`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use promql::parse::ast::Expr;
use promql::value::Value;
use promql::{Level, QueryRange, Syntax};
use tsdb::model::TenantId;

use super::{ANNOTATIONS_MAX, LIMITED, covered, push_texts, stats, success};
use crate::config::Config;
use crate::http::error::{ApiError, Kind};
use crate::http::json::{ResultBody, push_string};
use crate::http::params::{Params, Tenant};
use crate::http::routes::{Effect, Routes};
use crate::node::App;
use crate::query::answer::{self, Answer, Told, answer};
use crate::query::cost;
use crate::query::dedup::Replicas;

/// Most steps of a range query.
const STEPS_MAX: i128 = 11_000;

pub(super) fn routes() -> Routes {
    Routes::default()
        .route("/api/v1/query", Effect::Read, get(instant).post(instant))
        .route("/api/v1/query_range", Effect::Read, get(range).post(range))
        .route("/api/v1/query_explain", Effect::Read, get(explain).post(explain))
        .route("/api/v1/query_cost", Effect::Read, get(estimate).post(estimate))
        .route("/api/v1/format_query", Effect::Read, get(format_query).post(format_query))
        .route("/api/v1/parse_query", Effect::Read, get(parse_query).post(parse_query))
}

async fn instant(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let query = Question::from_params(&app.config.load(), &tenant, &params)?;
    let range = query.at(&app, &params)?;
    query.answer(&app, tenant, range).await
}

async fn range(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let query = Question::from_params(&app.config.load(), &tenant, &params)?;
    let range = query.over(&params)?;
    query.answer(&app, tenant, range).await
}

async fn explain(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let query = Question::from_params(&app.config.load(), &tenant, &params)?;
    let range = query.at_or_over(&app, &params)?;
    query.explain(&app, tenant, range).await
}

async fn estimate(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let query = Question::from_params(&app.config.load(), &tenant, &params)?;
    let range = query.at_or_over(&app, &params)?;
    let costs = cost::cost(&app, &query.asked(tenant, range, Told::default())).await?;
    let limit_bytes = app.config.load().query_max_memory.as_usize();
    let data = stats::costs(&costs, limit_bytes).to_string();
    Ok(covered(success(data.as_bytes(), &costs.warnings), &costs.coverage))
}

/// What instant and range queries have in common.
struct Question {
    text: String,
    expr: Expr,
    lookback_ms: i64,
    timeout: Duration,
    /// Series wanted; 0 = all.
    limit: usize,
    stats: Option<stats::Wanted>,
    replicas: Replicas,
    partial: bool,
    experimental: bool,
    delayed_name_removal: bool,
    push_down: Option<bool>,
}

impl Question {
    fn from_params(config: &Config, tenant: &TenantId, params: &Params) -> Result<Self, ApiError> {
        let text = params.get("query").unwrap_or_default().to_owned();
        let expr = parse(config, &text)?;
        // As in Prometheus, what isn't above 0 asks for the default.
        let lookback_ms = params.duration_ms("lookback_delta")?.filter(|ms| *ms > 0);
        let lookback_ms = lookback_ms.unwrap_or(config.query_lookback.ms);
        let most = config.query_timeout.ms;
        let timeout_ms = params.duration_ms("timeout")?.map_or(most, |ms| ms.clamp(0, most));
        Ok(Self {
            text,
            expr,
            lookback_ms,
            timeout: Duration::from_millis(timeout_ms.unsigned_abs()),
            limit: params.limit("limit")?,
            stats: params.get("stats").filter(|stats| !stats.is_empty()).map(stats::Wanted::of),
            replicas: params.replicas(config, tenant)?,
            partial: params.partial()?,
            experimental: config.query_experimental,
            delayed_name_removal: config.query_delayed_name_removal,
            push_down: params.push_down()?,
        })
    }

    /// One time.
    fn at(&self, app: &App, params: &Params) -> Result<QueryRange, ApiError> {
        let time_ms = params.time_ms("time")?.unwrap_or_else(|| app.env.clock.now_ms());
        Ok(QueryRange::instant(time_ms, self.lookback_ms))
    }

    /// From a start to an end in steps.
    fn over(&self, params: &Params) -> Result<QueryRange, ApiError> {
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
        // The difference of two times may not fit into one.
        let span_ms = i128::from(end_ms) - i128::from(start_ms);
        if span_ms / i128::from(step_ms) > STEPS_MAX {
            let message = "the query has more than 11,000 steps: make `step` longer, or the range shorter";
            return Err(ApiError::new(Kind::BadData, message));
        }
        Ok(QueryRange { start_ms, end_ms, step_ms, lookback_ms: self.lookback_ms })
    }

    /// A range where there is a `start` or a `step`, else one time.
    fn at_or_over(&self, app: &App, params: &Params) -> Result<QueryRange, ApiError> {
        let is_range = params.get("start").is_some() || params.get("step").is_some();
        if is_range { self.over(params) } else { self.at(app, params) }
    }

    /// For the engine.
    fn asked(&self, tenant: TenantId, range: QueryRange, told: Told) -> answer::Question {
        answer::Question {
            tenant,
            text: self.text.clone(),
            expr: self.expr.clone(),
            experimental: self.experimental,
            delayed_name_removal: self.delayed_name_removal,
            range,
            timeout: self.timeout,
            replicas: self.replicas.clone(),
            partial: self.partial,
            told,
            push_down: self.push_down,
        }
    }

    async fn answer(self, app: &Arc<App>, tenant: TenantId, range: QueryRange) -> Result<Response, ApiError> {
        let began = tokio::time::Instant::now();
        let told = Told { per_step: self.stats.is_some(), explained: false };
        let answer = answer(app, self.asked(tenant, range, told)).await?;
        app.metrics.queried(&answer.output.stats);
        let tail_stats =
            self.stats.map(|wanted| stats::json(wanted, &answer, &range, began.elapsed()).to_string());
        let Answer { mut output, mut warnings, coverage, .. } = answer;
        warnings.extend(output.annotations.render(Level::Warning, &self.text, ANNOTATIONS_MAX));
        let infos = output.annotations.render(Level::Info, &self.text, ANNOTATIONS_MAX);
        if cut(&mut output.value, self.limit) {
            warnings.push(LIMITED.to_owned());
        }
        let mut tail = Vec::new();
        if let Some(stats) = tail_stats {
            tail.extend_from_slice(b",\"stats\":");
            tail.extend_from_slice(stats.as_bytes());
        }
        tail.push(b'}');
        push_texts(&mut tail, "warnings", &warnings);
        push_texts(&mut tail, "infos", &infos);
        tail.push(b'}');
        let head = b"{\"status\":\"success\",\"data\":";
        let body = ResultBody::new(head, output.value, output.held, tail).into_body();
        let response = ([(CONTENT_TYPE, "application/json")], body).into_response();
        Ok(covered(response, &coverage))
    }

    async fn explain(
        self,
        app: &Arc<App>,
        tenant: TenantId,
        range: QueryRange,
    ) -> Result<Response, ApiError> {
        let began = tokio::time::Instant::now();
        let told = Told { per_step: true, explained: true };
        let answer = answer(app, self.asked(tenant, range, told)).await?;
        app.metrics.queried(&answer.output.stats);
        let node = app.cluster.name(app.cluster.me());
        let data = serde_json::json!({
            "plan": answer.output.explained.as_ref().map(|step| stats::step(step, &node, &answer)),
            "stats": stats::json(stats::Wanted::All, &answer, &range, began.elapsed()),
        });
        let Answer { output, mut warnings, coverage, .. } = answer;
        warnings.extend(output.annotations.render(Level::Warning, &self.text, ANNOTATIONS_MAX));
        Ok(covered(success(data.to_string().as_bytes(), &warnings), &coverage))
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
