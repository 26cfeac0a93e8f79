//! An operator: carries out what a scenario orders, by the API that the verbs of `carillon node` and `carillon ring` use.

use std::cell::{Cell, RefCell};
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
pub struct Orders {
    queue: Rc<RefCell<VecDeque<Order>>>,
    /// Whether the ring document is to be put back into the bucket: the others may wait for that.
    restores: Rc<Cell<bool>>,
}

impl Orders {
    /// Adds one.
    pub fn add(&self, order: Order) {
        self.queue.borrow_mut().push_back(order);
    }

    /// Has the ring document put back, before anything else.
    pub fn restore(&self) {
        self.restores.set(true);
    }

    /// Whether nothing is left to do.
    pub fn are_done(&self) -> bool {
        self.queue.borrow().is_empty() && !self.restores.get()
    }

    /// Nodes whose disks are said to be lost.
    fn lost(&self) -> Vec<String> {
        let queue = self.queue.borrow();
        let lost = queue.iter().filter_map(|order| match order {
            Order::Lost(nodes) => Some(nodes.clone()),
            _ => None,
        });
        lost.flatten().collect()
    }

    fn first(&self) -> Option<Order> {
        self.queue.borrow().front().cloned()
    }

    fn done(&self) {
        self.queue.borrow_mut().pop_front();
    }
}

/// Carries out orders until the end of the scenario, each until it is done. One that isn't done when everything is
/// healthy is a violation.
pub async fn operate(name: &str, shared: &Shared) {
    let operator = Operator { name, shared };
    while shared.goes_on() {
        tokio::time::sleep(EVERY).await;
        operator.restore().await;
        let Some(order) = shared.orders.first() else { continue };
        if let Order::Drain(node) | Order::Forget(node) = &order {
            shared.nodes.borrow_mut().retain(|other| other != node);
        }
        let mut last = String::new();
        loop {
            operator.restore().await;
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

    /// As `carillon ring restore --yes` does, where that is ordered; what fails is tried again.
    async fn restore(&self) {
        if !self.shared.orders.restores.get() {
            return;
        }
        let asked = self.some_node();
        let lost = self.shared.orders.lost();
        let members = self.members(&asked).await.unwrap_or_default();
        let is_gone =
            |member: &&Value| member["alive"] != true && lost.iter().any(|node| member["name"] == *node);
        let gone: Vec<String> = members.iter().filter(is_gone).map(store).collect();
        let path = match gone.is_empty() {
            true => "/api/v1/cluster/restore".to_owned(),
            false => format!("/api/v1/cluster/restore?gone={}", gone.join(",")),
        };
        let answer = self.change(&asked, &path).await;
        if answer.is_ok_and(|answer| answer.starts_with("200 ")) {
            self.shared.orders.restores.set(false);
            self.shared.tally.count(Exercise::RestoreRing);
        }
    }

    async fn drain(&self, node: &str) -> Result<bool, String> {
        let members = self.members(node).await?;
        // Another store may have had its name: its disk was replaced.
        let Some(store) = members.iter().find(|member| member["me"] == true).map(store) else {
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

    /// As `carillon node lost A B --yes` does: in one document.
    async fn lost(&self, nodes: &[String]) -> Result<bool, String> {
        let asked = self.some_node();
        let members = self.members(&asked).await?;
        let is_concerned = |member: &&Value| {
            nodes.iter().any(|node| member["name"] == *node)
                && member["alive"] != true
                && member["state"] != "left"
        };
        let is_accepted = |member: &Value| member["state"] == "lost, accepted";
        let concerned = members.iter().filter(is_concerned).filter(|member| !is_accepted(member));
        let stores: Vec<String> = concerned.map(store).collect();
        if stores.is_empty() {
            // Right after their ends they may still seem to be there.
            // One that was drained before had nothing that only it had.
            let is_drained = |node: &String| !self.shared.nodes.borrow().contains(node);
            let is_done = |node: &String| {
                is_drained(node) || members.iter().any(|m| m["name"] == *node && is_accepted(m))
            };
            return if nodes.iter().all(is_done) {
                Ok(true)
            } else {
                Err("they seem to be there".to_owned())
            };
        }
        Err(self.change(&asked, &format!("/api/v1/cluster/lost?store={}", stores.join(","))).await?)
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
