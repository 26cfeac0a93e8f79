//! A request's parameters, from the query string and, for a POST, the form; and the tenant, from its header.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, FromRequest, FromRequestParts, Query, Request};
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::request::Parts;
use tsdb::model::{METRIC_NAME, TenantId};

use super::error::{ApiError, Kind};
use super::time::{parse_step_ms, parse_time_ms};
use crate::config::Config;
use crate::node::App;
use crate::query::dedup::Replicas;

/// Headers that name a tenant: Mimir's and Thanos's.
const TENANT_HEADERS: [&str; 2] = ["x-scope-orgid", "thanos-tenant"];
/// Longest wait for a form.
const FORM_TIMEOUT: Duration = Duration::from_secs(30);
/// The tenant of requests that name none.
pub const DEFAULT_TENANT: &str = "default";

/// Whose request it is.
pub struct Tenant(pub TenantId);

impl FromRequestParts<Arc<App>> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        tenant(&parts.headers).map(Self)
    }
}

fn tenant(headers: &HeaderMap) -> Result<TenantId, ApiError> {
    let bad = |message: String| ApiError::new(Kind::BadData, message);
    let mut named: Option<&str> = None;
    for header in TENANT_HEADERS {
        for value in headers.get_all(header) {
            let value = value.to_str().map_err(|_| bad(format!("header {header} isn't a tenant's name")))?;
            if named.is_some_and(|n| n != value) {
                return Err(bad(format!(
                    "headers name more than one tenant ({})",
                    TENANT_HEADERS.join(", ")
                )));
            }
            named = Some(value);
        }
    }
    TenantId::new(named.unwrap_or(DEFAULT_TENANT)).map_err(|e| bad(e.to_string()))
}

/// Parameters by name, in the order they came; a form's come first.
pub struct Params(Vec<(String, String)>);

impl FromRequest<Arc<App>> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let bad = |why: String| ApiError::new(Kind::BadData, why);
        let Query(in_url) =
            Query::<Vec<(String, String)>>::try_from_uri(request.uri()).map_err(|e| bad(e.body_text()))?;
        let is_form = request.headers().get(CONTENT_TYPE).is_some_and(|kind| {
            kind.to_str()
                .is_ok_and(|k| k.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded"))
        });
        let mut all = Vec::new();
        if is_form && request.method() == axum::http::Method::POST {
            let read = Form::<Vec<(String, String)>>::from_request(request, app);
            let late = |_| bad(format!("the form didn't arrive within {FORM_TIMEOUT:?}"));
            let Form(form) =
                tokio::time::timeout(FORM_TIMEOUT, read).await.map_err(late)?.map_err(|rejection| {
                    let kind = match &rejection {
                        FormRejection::BytesRejection(_) => Kind::TooLarge,
                        _ => Kind::BadData,
                    };
                    ApiError::new(kind, rejection.body_text())
                })?;
            all = form;
        }
        all.extend(in_url);
        Ok(Self(all))
    }
}

impl Params {
    /// The first value of a parameter; an empty one is as good as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, value)| n == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A point in time in milliseconds, if given.
    pub fn time_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let parse = |text| {
            parse_time_ms(text).ok_or_else(|| {
                ApiError::parameter(name, format!("{text:?} isn't seconds or an RFC 3339 time"))
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// A point in time in milliseconds that has to be given.
    pub fn required_time_ms(&self, name: &str) -> Result<i64, ApiError> {
        self.time_ms(name)?.ok_or_else(|| ApiError::parameter(name, "a time is missing"))
    }

    /// A length of time in milliseconds, if given.
    pub fn duration_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let parse = |text| {
            parse_step_ms(text)
                .ok_or_else(|| ApiError::parameter(name, format!("{text:?} isn't seconds or a duration")))
        };
        self.get(name).map(parse).transpose()
    }

    /// A switch, if given.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let parse = |text: &str| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(ApiError::parameter(name, format!("{text:?} is neither true nor false"))),
        };
        self.get(name).map(parse).transpose()
    }

    /// Whether an answer may lack what too few owners answered for.
    pub fn partial(&self) -> Result<bool, ApiError> {
        Ok(self.switch("partial_response")?.unwrap_or(false))
    }

    /// Whether owners aggregate what they keep, wherever that can be; without it, where it pays.
    pub fn push_down(&self) -> Result<Option<bool>, ApiError> {
        self.switch("push_down")
    }

    /// The labels by which replicas of a scraper differ: `replicaLabels[]`, or the tenant's setting; none where
    /// `dedup=false`.
    pub fn replicas(&self, config: &Config, tenant: &TenantId) -> Result<Replicas, ApiError> {
        if self.switch("dedup")? == Some(false) {
            return Ok(Replicas::default());
        }
        let mut named = self.all("replicaLabels[]").chain(self.all("replicaLabels")).peekable();
        if named.peek().is_none() {
            return Ok(Replicas::new(config.limits_of(tenant.as_str()).replica_labels.0.iter().cloned()));
        }
        let named: Vec<_> = named.map(str::to_owned).collect();
        if named.iter().any(|name| name == METRIC_NAME) {
            return Err(ApiError::parameter("replicaLabels[]", "replicas don't differ in a metric's name"));
        }
        Ok(Replicas::new(named))
    }

    /// How many results are wanted; 0 = all.
    pub fn limit(&self, name: &str) -> Result<usize, ApiError> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| ApiError::parameter(name, format!("{text:?} isn't a number of at least 0")))
        };
        Ok(self.get(name).map(parse).transpose()?.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&'static str, &'static str)]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        tenant(&headers).map(|t| t.to_string()).map_err(|e| e.message)
    }

    #[test]
    fn one_valid_tenant_or_none() {
        assert_eq!(named(&[]).unwrap(), "default");
        assert_eq!(named(&[("x-scope-orgid", "a")]).unwrap(), "a");
        assert_eq!(named(&[("x-scope-orgid", "a"), ("thanos-tenant", "a")]).unwrap(), "a");
        assert!(
            named(&[("x-scope-orgid", "a"), ("thanos-tenant", "b")]).unwrap_err().contains("more than one")
        );
        assert!(named(&[("x-scope-orgid", "a"), ("x-scope-orgid", "b")]).is_err());
        for bad in ["", "..", "a/b", "a|b", "%2e%2e"] {
            assert!(named(&[("x-scope-orgid", bad)]).is_err(), "{bad}");
        }
    }
}
