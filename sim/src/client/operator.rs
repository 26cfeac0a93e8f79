//! An operator: carries out what a scenario orders, as `carillon node drain` does.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::Shared;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time between looks.
const EVERY: Duration = Duration::from_millis(500);

/// Nodes to drain, in order; the scenario adds, the operator takes.
pub type Orders = Rc<RefCell<VecDeque<String>>>;

/// Carries out orders until the end of the scenario, each until it is done. One that isn't done when everything is
/// healthy is a violation.
pub async fn operate(name: &str, orders: Orders, shared: &Shared) {
    while shared.goes_on() {
        tokio::time::sleep(EVERY).await;
        let Some(node) = orders.borrow_mut().pop_front() else { continue };
        shared.nodes.borrow_mut().retain(|other| *other != node);
        let mut last = String::new();
        loop {
            match drained(name, &node, shared).await {
                Ok(true) => {
                    shared.trace.note(name, &format!("{node} is drained"));
                    break;
                }
                Ok(false) => {}
                Err(error) => last = error,
            }
            if !shared.goes_on() {
                shared.violated("I15", &format!("all is healthy, and {node} isn't drained: {last}"));
                break;
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// Asks for the drain, again and again: that is allowed, and says whether it is done.
async fn drained(name: &str, node: &str, shared: &Shared) -> Result<bool, String> {
    let http = shared.http(name);
    let ask = async |path: &str| -> Result<Value, String> {
        let answer = http.get(node, path, &[], TIMEOUT).await?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map_err(|e| format!("not JSON: {e}")),
            status => Err(format!("{status} {}", answer.text())),
        }
    };
    let members = ask("/api/v1/cluster/members").await?;
    let is_it = |member: &&Value| member["name"] == node;
    let member = members["data"].as_array().into_iter().flatten().find(is_it).cloned();
    let Some(store) = member.and_then(|m| m["store"].as_str().map(str::to_owned)) else {
        return Err("it doesn't know itself".to_owned());
    };
    let path = format!("/api/v1/cluster/drain?store={store}");
    let progress = ask(&path).await;
    if let Ok(progress) = &progress
        && progress["data"]["done"] == true
    {
        return Ok(true);
    }
    let answer = http.post(node, &path, &[("x-carillon-change", "yes")], Vec::new(), TIMEOUT).await?;
    let text = format!("{} {}", answer.status, answer.text());
    shared.trace.note(name, &format!("asked {node} to drain: {text}"));
    Err(progress.map_or(text, |progress| progress["data"].to_string()))
}
