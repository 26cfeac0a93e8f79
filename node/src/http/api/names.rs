//! What there is: `series`, `labels`, `label/<name>/values`, `metadata`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use promql::Syntax;
use promql::parse::ast::Node;
use tsdb::db;
use tsdb::model::{Matcher, TenantId};

use super::evaluate::in_turn;
use super::success;
use crate::http::error::ApiError;
use crate::http::json::{push_labels, push_string};
use crate::http::params::{Params, Tenant};
use crate::node::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/series", get(series).post(series))
        .route("/api/v1/labels", get(labels).post(labels))
        .route("/api/v1/label/{name}/values", get(values))
        .route("/api/v1/metadata", get(metadata))
}

/// What these questions have in common.
struct Question {
    tenant: TenantId,
    /// Each `match[]`; none = everything.
    selectors: Vec<Vec<Matcher>>,
    range_ms: RangeInclusive<i64>,
    /// Results wanted; 0 = all.
    limit: usize,
}

impl Question {
    fn from_params(app: &App, tenant: TenantId, params: &Params) -> Result<Self, ApiError> {
        let start_ms = params.time_ms("start")?.unwrap_or(i64::MIN);
        let end_ms = params.time_ms("end")?.unwrap_or(i64::MAX);
        if end_ms < start_ms {
            return Err(ApiError::parameter("end", "the end lies before the start"));
        }
        let syntax = Syntax { experimental: app.config.load().query_experimental };
        let selectors = params.all("match[]").map(|text| selector(text, syntax)).collect::<Result<_, _>>()?;
        Ok(Self { tenant, selectors, range_ms: start_ms..=end_ms, limit: params.limit("limit")? })
    }

    /// Asks for each selector in turn (or once for everything) and gathers what `ask` finds, sorted, at most one more
    /// than the limit.
    async fn gather<T: Ord + Send + 'static>(
        self,
        app: &Arc<App>,
        ask: impl Fn(&db::Tenant, &[Matcher], RangeInclusive<i64>, usize) -> tsdb::Result<Vec<T>> + Send + 'static,
    ) -> Result<(Vec<T>, Vec<String>), ApiError> {
        let limit = self.limit;
        // One more than wanted tells whether something is left out.
        let ask_for = if limit == 0 { 0 } else { limit + 1 };
        let own = app.clone();
        let work = move |cancelled: Arc<AtomicBool>| {
            let Some(tenant) = own.storage.existing(&self.tenant) else { return Ok(Vec::new()) };
            if self.selectors.len() < 2 {
                let matchers = self.selectors.first().map_or(&[][..], Vec::as_slice);
                return Ok(ask(&tenant, matchers, self.range_ms, ask_for)?);
            }
            let mut all = BTreeSet::new();
            for matchers in &self.selectors {
                if cancelled.load(Ordering::Relaxed) {
                    return Err(promql::Error::Cancelled.into());
                }
                all.extend(ask(&tenant, matchers, self.range_ms.clone(), ask_for)?);
            }
            Ok(all.into_iter().collect())
        };
        let timeout = app.config.load().query_timeout.to_std();
        let mut found = in_turn(app, timeout, work).await?;
        let mut warnings = Vec::new();
        if limit > 0 && found.len() > limit {
            found.truncate(limit);
            warnings.push(format!("the result was cut to {limit} entries (limit)"));
        }
        Ok((found, warnings))
    }
}

/// The matchers of a selector.
fn selector(text: &str, syntax: Syntax) -> Result<Vec<Matcher>, ApiError> {
    let expr = promql::parse_with(text, syntax).map_err(|e| ApiError::parameter("match[]", e))?;
    match expr.node {
        Node::Vector(selector) if selector.offset.is_zero() && selector.at.is_none() => Ok(selector.matchers),
        _ => Err(ApiError::parameter("match[]", format!("{text:?} isn't a selector like up{{job=\"a\"}}"))),
    }
}

async fn series(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let question = Question::from_params(&app, tenant, &params)?;
    if question.selectors.is_empty() {
        return Err(ApiError::parameter("match[]", "at least one selector is needed"));
    }
    let (found, warnings) = question.gather(&app, db::Tenant::series).await?;
    Ok(success(&list(&found, push_labels), &warnings))
}

async fn labels(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let question = Question::from_params(&app, tenant, &params)?;
    let (found, warnings) = question.gather(&app, db::Tenant::label_names).await?;
    Ok(success(&list(&found, |out, name| push_string(out, name)), &warnings))
}

async fn values(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = unescaped(&name);
    if name.is_empty() {
        return Err(ApiError::parameter("name", "a label's name is needed"));
    }
    let question = Question::from_params(&app, tenant, &params)?;
    let ask = move |tenant: &db::Tenant, matchers: &[Matcher], range, limit| {
        tenant.label_values(&name, matchers, range, limit)
    };
    let (found, warnings) = question.gather(&app, ask).await?;
    Ok(success(&list(&found, |out, value| push_string(out, value)), &warnings))
}

/// Names outside of `[a-zA-Z0-9_]` come as `U__` with `_2e_` for a dot and `__` for an underscore, so that they fit a
/// path.
fn unescaped(name: &str) -> String {
    let Some(mut rest) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut plain = String::new();
    while let Some(at) = rest.find('_') {
        plain.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let Some(end) = tail.find('_') else { return name.to_owned() };
        if end == 0 {
            plain.push('_');
        } else {
            match u32::from_str_radix(&tail[..end], 16).ok().and_then(char::from_u32) {
                Some(c) => plain.push(c),
                None => return name.to_owned(),
            }
        }
        rest = &tail[end + 1..];
    }
    plain.push_str(rest);
    plain
}

async fn metadata(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit("limit")?;
    let found =
        app.storage.existing(&tenant).map_or_else(Vec::new, |t| t.metadata(params.get("metric"), limit));
    let mut data = vec![b'{'];
    for (i, metadata) in found.iter().enumerate() {
        if i > 0 {
            data.push(b',');
        }
        push_string(&mut data, &metadata.family);
        data.extend_from_slice(b":[{\"type\":");
        push_string(&mut data, &metadata.kind);
        data.extend_from_slice(b",\"help\":");
        push_string(&mut data, &metadata.help);
        data.extend_from_slice(b",\"unit\":");
        push_string(&mut data, &metadata.unit);
        data.extend_from_slice(b"}]");
    }
    data.push(b'}');
    Ok(success(&data, &[]))
}

fn list<T>(items: &[T], mut push: impl FnMut(&mut Vec<u8>, &T)) -> Vec<u8> {
    let mut out = vec![b'['];
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push(&mut out, item);
    }
    out.push(b']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_become_plain() {
        assert_eq!(unescaped("job"), "job");
        assert_eq!(unescaped("U__http_2e_status__code"), "http.status_code");
        assert_eq!(unescaped("U__broken_zz_"), "U__broken_zz_");
        assert_eq!(unescaped("U__cut_2e"), "U__cut_2e");
    }
}
