//! The page at `/`: what `carillon status` shows, as plain HTML that needs no script. Names come from other nodes, and
//! the expression from whoever made the link, so all text is escaped.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{MatchedPath, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;

use super::PREFIX;
use super::cluster::{safety, tell_of_own};
use super::error::ApiError;
use super::params::Params;
use super::routes::{Effect, Routes};
use crate::glance::{self, list, text};
use crate::node::App;

/// Parameters that hold an expression in links to Prometheus's pages.
const EXPRESSIONS: [&str; 3] = ["g0.expr", "expr", "query"];

/// Nothing is loaded from anywhere, and nobody frames the page.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");

const STYLE: &str = "body{font:15px/1.5 sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse}\
                     th,td{text-align:left;padding:.2em 1em .2em 0;border-bottom:1px solid #ccc;vertical-align:top}\
                     .n{text-align:right}.bad{color:#a00}pre{background:#eee;padding:.7em;overflow:auto}\
                     @media(prefers-color-scheme:dark){body{background:#222;color:#ddd}a{color:#8cf}.bad{color:#f88}\
                     pre{background:#333}}";

pub(super) fn routes() -> Routes {
    Routes::default().route("/", Effect::Read, get(page)).route("/graph", Effect::Read, get(to_page)).route(
        "/query",
        Effect::Read,
        get(to_page),
    )
}

/// Where links to Prometheus's pages lead, until there are pages for queries.
async fn to_page(path: MatchedPath, uri: Uri) -> Response {
    let prefix = if path.as_str().starts_with(PREFIX) { PREFIX } else { "" };
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    match HeaderValue::try_from(format!("{prefix}/{query}")) {
        Ok(location) => (StatusCode::FOUND, [(LOCATION, location)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn page(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let (ring, members) = (app.cluster.describe_ring(), app.cluster.describe_members());
    let own = tell_of_own(&app).await?;
    let safety = safety(&app).await;
    let nodes: Vec<Value> = list(&members)
        .iter()
        .map(|member| if member["me"] == true { own.clone() } else { Value::Null })
        .collect();
    let expression = EXPRESSIONS.iter().find_map(|name| params.get(name));
    let html = render(&ring, &safety, &members, &nodes, app.cluster.http_address(), expression);
    let headers = [(CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((headers, Html(html)).into_response())
}

/// The whole page. `address` is where this node serves HTTP.
fn render(
    ring: &Value,
    safety: &Value,
    members: &Value,
    nodes: &[Value],
    address: &str,
    expression: Option<&str>,
) -> String {
    let problems = glance::problems(ring, members, nodes);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Carillon</title><style>{STYLE}</style></head><body><h1>Carillon</h1>\n"
    );
    // Writing to a string can't fail.
    let mut put = |text: std::fmt::Arguments<'_>| {
        let _ = page.write_fmt(text);
    };
    if let Some(expression) = expression {
        let query: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        put(format_args!(
            "<p>There is no page for queries yet. The answer to <code>{}</code>, as JSON: \
             <a href=\"api/v1/query?query={query}\">api/v1/query</a></p>\n",
            Escaped(expression)
        ));
    }
    put(format_args!("<table>"));
    for (name, text) in glance::summary(ring, safety, members, problems.len()) {
        let class = if name == "health" && !problems.is_empty() { " class=\"bad\"" } else { "" };
        put(format_args!("<tr><th>{name}</th><td{class}>{}</td></tr>", Escaped(&text)));
    }
    put(format_args!("</table>\n"));
    if !problems.is_empty() {
        put(format_args!("<ul class=\"bad\">"));
        for problem in &problems {
            put(format_args!("<li>{}</li>", Escaped(problem)));
        }
        put(format_args!("</ul>\n"));
    }
    put(format_args!("<h2>Members</h2><table><tr>"));
    let numeric = |column: usize| if glance::HEADINGS[column].starts_with('#') { " class=\"n\"" } else { "" };
    for (column, heading) in glance::HEADINGS.iter().enumerate() {
        put(format_args!("<th{}>{}</th>", numeric(column), heading.trim_start_matches('#')));
    }
    put(format_args!("</tr>"));
    for (member, cells) in list(members).iter().zip(glance::rows(members, nodes)) {
        put(format_args!("<tr>"));
        for (column, cell) in cells.iter().enumerate() {
            let cell = Escaped(cell);
            let is_elsewhere = member["me"] != true && member["alive"] == true;
            match column {
                0 if member["me"] == true => put(format_args!("<td><b>{cell}</b></td>")),
                0 if is_elsewhere => {
                    let at = text(&member["http_address"]);
                    put(format_args!("<td><a href=\"http://{}/\">{cell}</a></td>", Escaped(&at)));
                }
                8 if is_elsewhere => put(format_args!("<td>there: its own page tells more</td>")),
                _ => put(format_args!("<td{}>{cell}</td>", numeric(column))),
            }
        }
        put(format_args!("</tr>"));
    }
    let address = Escaped(address);
    put(format_args!(
        "</table>\n<h2>What next</h2>\n\
         <pre>curl --data-binary 'my_metric{{from=\"me\"}} 1' http://{address}/api/v1/import/prometheus\n\
         carillon query instant my_metric --url http://{address}\n\
         carillon status --url http://{address}</pre>\n\
         <p>Prometheus sends samples to <code>http://{address}/api/v1/write</code> (<code>remote_write</code>); Grafana \
         asks <code>http://{address}</code> as a Prometheus data source.</p>\n\
         <p>As JSON: <a href=\"api/v1/status/tsdb\">storage</a>, <a href=\"api/v1/cluster/members\">members</a>, \
         <a href=\"api/v1/cluster/ring\">ring</a>, <a href=\"api/v1/cluster/node\">this node</a>, \
         <a href=\"api/v1/status/config\">configuration</a>, <a href=\"api/v1/status/flags\">flags</a>, \
         <a href=\"api/v1/status/runtimeinfo\">runtime</a>, <a href=\"api/v1/status/buildinfo\">build</a>; \
         <a href=\"metrics\">metrics</a>, <a href=\"-/healthy\">healthy?</a>, <a href=\"-/ready\">ready?</a></p>\n\
         </body></html>\n"
    ));
    page
}

/// Text as HTML, in an element or in an attribute between double quotes.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_name_becomes_a_part_of_the_page() {
        let hostile = "\"><script>alert('x')</script>&";
        let ring = json!({
            "cluster": hostile, "epoch": 1, "placements": [{}], "replication_factor": 3, "effective_rf": 3,
            "bucket": {"url": hostile, "problem": hostile}, "problems": [hostile],
        });
        let member = |me: bool| {
            json!({
                "name": hostile, "zone": hostile, "state": hostile, "http_address": hostile, "alive": true, "me": me,
            })
        };
        let own = json!({"doing": hostile, "problems": [hostile]});
        let members = json!([member(true), member(false)]);
        let safety = json!({"safe": false, "reasons": [hostile]});
        let page = render(&ring, &safety, &members, &[own, Value::Null], hostile, Some(hostile));
        assert!(page.matches("&lt;script&gt;").count() >= 10, "{page}");
        assert!(!page.contains("<script") && !page.contains("'x'") && !page.contains("\"\">"), "{page}");
    }
}
