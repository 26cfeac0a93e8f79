//! `query_exemplars`: the exemplars of the series that a query's selectors match.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use promql::Syntax;
use promql::parse::ast::{Expr, Node};
use tsdb::db::SeriesExemplars;
use tsdb::model::Matcher;

use super::{covered, success};
use crate::http::error::ApiError;
use crate::http::json::{push_float, push_labels, push_timestamp};
use crate::http::params::{Params, Tenant};
use crate::http::routes::{Effect, Routes};
use crate::node::App;
use crate::query::names::{Found, Question, Scope, ask, merge_exemplars};

pub(super) fn routes() -> Routes {
    Routes::default().route("/api/v1/query_exemplars", Effect::Read, get(query).post(query))
}

async fn query(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let start_ms = params.time_ms("start")?.unwrap_or(i64::MIN);
    let end_ms = params.time_ms("end")?.unwrap_or(i64::MAX);
    if end_ms < start_ms {
        return Err(ApiError::parameter("end", "the end lies before the start"));
    }
    let config = app.config.load_full();
    let syntax = Syntax { experimental: config.query_experimental };
    let expr = promql::parse_with(params.get("query").unwrap_or_default(), syntax)
        .map_err(|e| ApiError::parameter("query", e))?;
    let mut selectors = Vec::new();
    gather_selectors(&expr, &mut selectors);
    let replicas = params.replicas(&config, &tenant)?;
    let question = Question::Exemplars(Scope { selectors, range_ms: start_ms..=end_ms });
    let answer = ask(&app, tenant, question, config.query_timeout.to_std(), params.partial()?).await?;
    let Found::Exemplars(mut found) = answer.found else { unreachable!("exemplars were asked for") };
    if !replicas.is_empty() {
        let stripped = found.into_iter().map(|s| SeriesExemplars { labels: replicas.strip(&s.labels), ..s });
        found = merge_exemplars(stripped);
    }
    Ok(covered(success(&data(&found), &answer.warnings), &answer.coverage))
}

fn gather_selectors(expr: &Expr, selectors: &mut Vec<Vec<Matcher>>) {
    match &expr.node {
        Node::Vector(selector) => selectors.push(selector.matchers.clone()),
        Node::Matrix(matrix) => selectors.push(matrix.selector.matchers.clone()),
        _ => expr.children().into_iter().for_each(|child| gather_selectors(child, selectors)),
    }
}

fn data(found: &[SeriesExemplars]) -> Vec<u8> {
    let mut out = vec![b'['];
    for (i, series) in found.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"{\"seriesLabels\":" } else { b",{\"seriesLabels\":" });
        push_labels(&mut out, &series.labels);
        out.extend_from_slice(b",\"exemplars\":[");
        for (j, exemplar) in series.exemplars.iter().enumerate() {
            out.extend_from_slice(if j == 0 { b"{\"labels\":" } else { b",{\"labels\":" });
            push_labels(&mut out, &exemplar.labels);
            out.extend_from_slice(b",\"value\":\"");
            push_float(&mut out, exemplar.value);
            out.extend_from_slice(b"\",\"timestamp\":");
            push_timestamp(&mut out, exemplar.timestamp_ms);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    out
}
