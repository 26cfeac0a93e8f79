//! What there is: `series`, `labels`, `label/<name>/values`, `metadata`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use promql::Syntax;
use promql::parse::ast::Node;
use tsdb::model::{Matcher, TenantId};

use super::{LIMITED, covered, success};
use crate::http::error::ApiError;
use crate::http::json::{push_labels, push_string};
use crate::http::params::{Params, Tenant};
use crate::http::routes::{Effect, Routes};
use crate::node::App;
use crate::query::dedup::Replicas;
use crate::query::names::{Found, Question, Scope, ask};

pub(super) fn routes() -> Routes {
    Routes::default()
        .route("/api/v1/series", Effect::Read, get(series).post(series))
        .route("/api/v1/labels", Effect::Read, get(labels).post(labels))
        .route("/api/v1/label/{name}/values", Effect::Read, get(values))
        .route("/api/v1/metadata", Effect::Read, get(metadata))
}

/// What these questions have in common.
struct Asked {
    tenant: TenantId,
    scope: Scope,
    /// Results wanted; 0 = all.
    limit: usize,
    replicas: Replicas,
    partial: bool,
}

impl Asked {
    fn from_params(app: &App, tenant: TenantId, params: &Params) -> Result<Self, ApiError> {
        let start_ms = params.time_ms("start")?.unwrap_or(i64::MIN);
        let end_ms = params.time_ms("end")?.unwrap_or(i64::MAX);
        if end_ms < start_ms {
            return Err(ApiError::parameter("end", "the end lies before the start"));
        }
        let config = app.config.load();
        let syntax = Syntax { experimental: config.query_experimental };
        let selectors = params.all("match[]").map(|text| selector(text, syntax)).collect::<Result<_, _>>()?;
        Ok(Self {
            scope: Scope { selectors, range_ms: start_ms..=end_ms },
            limit: params.limit("limit")?,
            replicas: params.replicas(&config, &tenant)?,
            partial: params.partial()?,
            tenant,
        })
    }

    /// How many to ask for: one more than wanted tells whether something is left out, and where replicas are merged
    /// nobody knows how many entries become one.
    fn ask_for(&self) -> usize {
        if self.limit == 0 || !self.replicas.is_empty() { 0 } else { self.limit + 1 }
    }

    /// Cuts to the limit, with a warning.
    fn cut<T>(&self, found: &mut Vec<T>) -> Vec<String> {
        if self.limit == 0 || found.len() <= self.limit {
            return Vec::new();
        }
        found.truncate(self.limit);
        vec![LIMITED.to_owned()]
    }

    async fn texts(self, app: &Arc<App>, question: Question) -> Result<Response, ApiError> {
        let timeout = app.config.load().query_timeout.to_std();
        let answer = ask(app, self.tenant.clone(), question, timeout, self.partial).await?;
        let Found::Texts(mut texts) = answer.found else { unreachable!("texts were asked for") };
        texts.retain(|text| !self.replicas.contains(text));
        let warnings = [answer.warnings, self.cut(&mut texts)].concat();
        let response = success(&list(&texts, |out, text| push_string(out, text)), &warnings);
        Ok(covered(response, &answer.coverage))
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
    let asked = Asked::from_params(&app, tenant, &params)?;
    if asked.scope.selectors.is_empty() {
        return Err(ApiError::parameter("match[]", "at least one selector is needed"));
    }
    let timeout = app.config.load().query_timeout.to_std();
    let question = Question::Series(asked.scope.clone(), asked.ask_for());
    let answer = ask(&app, asked.tenant.clone(), question, timeout, asked.partial).await?;
    let Found::Series(mut series) = answer.found else { unreachable!("series were asked for") };
    if !asked.replicas.is_empty() {
        series = series.iter().map(|labels| asked.replicas.strip(labels)).collect();
        series.sort_unstable();
        series.dedup();
    }
    let warnings = [answer.warnings, asked.cut(&mut series)].concat();
    Ok(covered(success(&list(&series, push_labels), &warnings), &answer.coverage))
}

async fn labels(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let asked = Asked::from_params(&app, tenant, &params)?;
    let question = Question::Names(asked.scope.clone(), asked.ask_for());
    asked.texts(&app, question).await
}

/// Values of replica labels are listed too: who asks for them wants to know which replicas there are.
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
    let asked = Asked { replicas: Replicas::default(), ..Asked::from_params(&app, tenant, &params)? };
    let question = Question::Values(name, asked.scope.clone(), asked.ask_for());
    asked.texts(&app, question).await
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
    let family = params.get("metric").map(str::to_owned);
    let timeout = app.config.load().query_timeout.to_std();
    let question = Question::Metadata(family, params.limit("limit")?);
    let answer = ask(&app, tenant, question, timeout, params.partial()?).await?;
    let Found::Metadata(found) = answer.found else { unreachable!("metadata was asked for") };
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
    Ok(covered(success(&data, &answer.warnings), &answer.coverage))
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
