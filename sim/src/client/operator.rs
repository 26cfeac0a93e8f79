//! An operator: carries out what a scenario orders, by the API that the verbs of `carillon node` and `carillon ring` use.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::Shared;
use super::http::Answer;
use crate::exercise::Exercise;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time between looks.
const EVERY: Duration = Duration::from_millis(500);
/// What a request that changes something must have.
const CHANGE: [(&str, &str); 1] = [("x-carillon-change", "yes")];

/// What an operator is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Drain this node.
    Drain(String),
    /// Have this node forgotten: it is gone for good.
    Forget(String),
    /// Say that the disks of these nodes are lost, more than the promise bears.
    Lost(Vec<String>),
    /// Ask for so many copies.
    Copies(u32),
}

/// Orders that wait or are being carried out, oldest first; the scenario adds, the operator takes.
#[derive(Clone, Default)]
pub struct Orders(Rc<RefCell<VecDeque<Order>>>);

impl Orders {
    /// Adds one.
    pub fn add(&self, order: Order) {
        self.0.borrow_mut().push_back(order);
    }

    /// Whether nothing is left to do.
    pub fn are_done(&self) -> bool {
        self.0.borrow().is_empty()
    }

    fn first(&self) -> Option<Order> {
        self.0.borrow().front().cloned()
    }

    fn done(&self) {
        self.0.borrow_mut().pop_front();
    }
}

/// Carries out orders until the end of the scenario, each until it is done. One that isn't done when everything is
/// healthy is a violation.
pub async fn operate(name: &str, shared: &Shared) {
    let operator = Operator { name, shared };
    while shared.goes_on() {
        tokio::time::sleep(EVERY).await;
        let Some(order) = shared.orders.first() else { continue };
        if let Order::Drain(node) | Order::Forget(node) = &order {
            shared.nodes.borrow_mut().retain(|other| other != node);
        }
        let mut last = String::new();
        loop {
            match operator.step(&order).await {
                Ok(true) => {
                    shared.trace.note(name, &format!("done: {order:?}"));
                    shared.tally.count(exercise(&order));
                    break;
                }
                Ok(false) => {}
                Err(error) => last = error,
            }
            if !shared.goes_on() {
                let text = || format!("all is healthy, and the operator can't do it: {order:?}: {last}");
                shared.judge(Exercise::RunEnds, false, text);
                break;
            }
            tokio::time::sleep(EVERY).await;
        }
        shared.orders.done();
    }
}

fn exercise(order: &Order) -> Exercise {
    match order {
        Order::Drain(_) => Exercise::Drain,
        Order::Forget(_) => Exercise::Forget,
        Order::Lost(_) => Exercise::LoseQuorum,
        Order::Copies(_) => Exercise::Copies,
    }
}

struct Operator<'a> {
    name: &'a str,
    shared: &'a Shared,
}

impl Operator<'_> {
    /// Asks once more, which is allowed; whether it is done.
    async fn step(&self, order: &Order) -> Result<bool, String> {
        match order {
            Order::Drain(node) => self.drain(node).await,
            Order::Forget(node) => self.forget(node).await,
            Order::Lost(nodes) => self.lost(nodes).await,
            Order::Copies(copies) => self.copies(*copies).await,
        }
    }

    async fn drain(&self, node: &str) -> Result<bool, String> {
        let members = self.members(node).await?;
        let Some(store) = members.iter().find(|m| m["name"] == node).map(store) else {
            return Err("it doesn't know itself".to_owned());
        };
        let path = format!("/api/v1/cluster/drain?store={store}");
        let progress = self.ask(node, &path).await;
        if let Ok(progress) = &progress
            && progress["done"] == true
        {
            return Ok(true);
        }
        let text = self.change(node, &path).await?;
        Err(progress.map_or(text, |progress| progress.to_string()))
    }

    async fn forget(&self, node: &str) -> Result<bool, String> {
        let asked = self.some_node();
        let members = self.members(&asked).await?;
        let is_there =
            |member: &&Value| member["name"] == node && !is_lost(member) && member["state"] != "left";
        let Some(member) = members.iter().find(is_there) else { return Ok(true) };
        Err(self.change(&asked, &format!("/api/v1/cluster/forget?store={}", store(member))).await?)
    }

    /// What `carillon node lost A B --yes` is for, in one document. Until that verb is here, step by step: each store is
    /// given up, and then its loss accepted.
    async fn lost(&self, nodes: &[String]) -> Result<bool, String> {
        let asked = self.some_node();
        let members = self.members(&asked).await?;
        let is_concerned = |member: &&Value| {
            nodes.iter().any(|node| member["name"] == *node)
                && member["alive"] != true
                && member["state"] != "left"
        };
        let mut last = None;
        for member in members.iter().filter(is_concerned) {
            let verb = match is_lost(member) {
                false => "forget",
                true if member["state"] == "lost" => "accept_loss",
                true => continue,
            };
            let path = format!("/api/v1/cluster/{verb}?store={}", store(member));
            last = Some(self.change(&asked, &path).await?);
        }
        last.map_or(Ok(true), Err)
    }

    async fn copies(&self, copies: u32) -> Result<bool, String> {
        let asked = self.some_node();
        let ring = self.ask(&asked, "/api/v1/cluster/ring").await?;
        if ring["replication_factor"] == copies {
            return Ok(true);
        }
        let path = format!("/api/v1/cluster/replication_factor?value={copies}&lower=true");
        Err(self.change(&asked, &path).await?)
    }

    /// The first of the nodes that there are: any will do, and if it doesn't answer the order waits for it.
    fn some_node(&self) -> String {
        let elapsed_s = super::phases::now().as_secs() as usize;
        let nodes = self.shared.nodes.borrow();
        nodes[elapsed_s % nodes.len()].clone()
    }

    async fn members(&self, node: &str) -> Result<Vec<Value>, String> {
        let members = self.ask(node, "/api/v1/cluster/members").await?;
        Ok(members.as_array().cloned().unwrap_or_default())
    }

    async fn ask(&self, node: &str, path: &str) -> Result<Value, String> {
        let answer = self.shared.http(self.name).get(node, path, &[], TIMEOUT).await?;
        if answer.status != 200 {
            let Answer { status, .. } = answer;
            return Err(format!("{status} {}", answer.text()));
        }
        let value: Value = serde_json::from_slice(&answer.body).map_err(|e| format!("not JSON: {e}"))?;
        Ok(value["data"].clone())
    }

    /// Asks for a change; what is answered, in words.
    async fn change(&self, node: &str, path: &str) -> Result<String, String> {
        let answer = self.shared.http(self.name).post(node, path, &CHANGE, Vec::new(), TIMEOUT).await?;
        let text = format!("{} {}", answer.status, answer.text());
        self.shared.trace.note(self.name, &format!("asked {node} for {path}: {text}"));
        Ok(text)
    }
}

fn store(member: &Value) -> String {
    member["store"].as_str().unwrap_or_default().to_owned()
}

fn is_lost(member: &Value) -> bool {
    member["state"].as_str().is_some_and(|state| state.starts_with("lost"))
}
