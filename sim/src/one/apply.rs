//! What operations do to machines, links and the bucket; each is counted where it takes effect.

use std::time::Duration;

use tsdb::disk::Fault;
use tsdb::model::TenantId;

use super::{LATENCY, Running, SIMULATOR, node_name};
use crate::client::{Order, tenant_name};
use crate::exercise::Exercise;
use crate::scenario::{Failure, Operation, REPLICATION_FACTOR};
use crate::world::{Glitch, Mood};

/// A clock that is further off than this is wrong by more than any limit allows.
const FAR_MS: i64 = 24 * 3_600_000;

impl Running<'_> {
    /// Does it.
    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Kill(node) => {
                self.count_if_running(*node, Exercise::Kill);
                self.wanted.remove(node);
                self.sim.crash(self.machines[*node].name.as_str());
                self.machines[*node].killed();
            }
            Operation::PowerFails(node, after) => {
                self.machines[*node].inject(Exercise::PowerFails, Fault::Power { after: *after });
            }
            Operation::PowerCut(node) => self.cut_power(*node),
            Operation::ReplaceDisk(node) => {
                if self.bears_a_loss() {
                    self.machines[*node].replace_disk();
                    self.tally.count(Exercise::ReplaceDisk);
                }
            }
            Operation::CopyDisk(node) => self.machines[*node].copy_disk(),
            Operation::OldDisk(node) => {
                if self.bears_a_loss() && self.machines[*node].put_disk_back() {
                    self.tally.count(Exercise::OldDisk);
                }
            }
            Operation::Rot(node) => {
                if let Some(path) = self.machines[*node].rot() {
                    self.trace.note(SIMULATOR, &format!("it lies in {}", path.display()));
                    self.tally.count(Exercise::Rot);
                }
            }
            Operation::Gone(node) => {
                if self.bears_a_loss() {
                    self.cut_power(*node);
                    self.plugged_in.remove(node);
                    self.orders.add(Order::Forget(node_name(*node)));
                }
            }
            Operation::LoseQuorum(nodes) => {
                nodes.iter().for_each(|node| self.machines[*node].replace_disk());
                self.shared.ledger.borrow_mut().lose();
                self.orders.add(Order::Lost(nodes.iter().map(|node| node_name(*node)).collect()));
            }
            Operation::Copies(copies) => self.orders.add(Order::Copies(*copies)),
            Operation::Pause(node, ms) => {
                self.count_if_running(*node, Exercise::Pause);
                self.machines[*node].set_disk_wait(Some(*ms));
                let others: Vec<usize> = self.plugged_in.iter().copied().filter(|n| n != node).collect();
                for (a, b) in pairs(&[*node], &others) {
                    self.sim.hold(self.machines[a].name.as_str(), self.machines[b].name.as_str());
                }
                self.held.push((vec![*node], others, self.bucket.epoch()));
            }
            Operation::Start(node) => self.start(*node),
            Operation::Restart(node) => {
                self.count_if_running(*node, Exercise::Restart);
                self.machines[*node].ask_to_stop();
            }
            Operation::Join(node) => {
                self.tally.count(Exercise::Join);
                self.plug_in(*node);
            }
            Operation::Drain(node) => self.orders.add(Order::Drain(node_name(*node))),
            Operation::Partition(some, others) => {
                self.tally.count(Exercise::Partition);
                self.drop_packets(some, others);
                self.drop_packets(others, some);
            }
            Operation::Drop(from, to) => {
                self.tally.count(Exercise::OneWay);
                self.drop_packets(from, to);
            }
            Operation::Hold(one, other) => {
                self.tally.count(Exercise::Hold);
                for (a, b) in pairs(one, other) {
                    self.sim.hold(self.machines[a].name.as_str(), self.machines[b].name.as_str());
                }
                self.held.push((one.clone(), other.clone(), self.bucket.epoch()));
            }
            Operation::Deafen(node) => {
                self.tally.count(Exercise::Deafen);
                self.links.deafen(&node_name(*node));
            }
            Operation::Reconnect => self.reconnect(),
            Operation::SlowLink(one, other, ms) => {
                self.tally.count(Exercise::SlowLink);
                self.slow.push((*one, *other));
                let (one, other) = (self.machines[*one].name.as_str(), self.machines[*other].name.as_str());
                self.sim.set_link_latency(one, other, Duration::from_millis(*ms));
            }
            Operation::Full(node, bytes) => self.machines[*node].set_room(Some(*bytes)),
            Operation::Room(node) => self.machines[*node].set_room(None),
            Operation::FailSync(node, after) => {
                self.machines[*node].inject(Exercise::FailSync, Fault::Sync { after: *after });
            }
            Operation::FailIo(node, after) => {
                self.machines[*node].inject(Exercise::FailIo, Fault::Io { after: *after });
            }
            Operation::FailAt(node, moment, failure, after) => {
                let after = *after;
                let fault = match failure {
                    Failure::Io => Fault::Io { after },
                    Failure::NoSpace => Fault::NoSpace { after },
                    Failure::Power => Fault::Power { after },
                };
                self.machines[*node].inject_at(*moment, fault);
            }
            Operation::Strays(node) => {
                let left = self.machines[*node].leave_strays(&self.tenants());
                self.tally.add(Exercise::Strays, left as u64);
            }
            Operation::SlowDisk(node, ms) => {
                self.count_if_running(*node, Exercise::SlowDisk);
                self.machines[*node].set_disk_wait(Some(*ms));
            }
            Operation::FastDisk(node) => self.machines[*node].set_disk_wait(None),
            Operation::Clock(node, ahead_ms) => {
                self.set_clock(*node, *ahead_ms);
            }
            Operation::Glitch(node, ahead_ms, after) => {
                let glitch = Glitch { after: *after, ahead_ms: *ahead_ms };
                self.machines[*node].set_glitch(Some(glitch));
            }
            Operation::LoseRing => {
                if self.bucket.lose_ring() {
                    self.tally.count(Exercise::LoseRing);
                }
            }
            Operation::OldRing(changes) => {
                if self.bucket.put_ring_back(*changes) {
                    self.tally.count(Exercise::OldRing);
                }
            }
            Operation::BucketAway => self.bucket.set_mood(Mood::Away),
            Operation::BucketMoody => self.bucket.set_mood(Mood::Moody),
            Operation::BucketGood => self.bucket.set_mood(Mood::Good),
            Operation::MendAll => self.mend_all(),
        }
    }

    /// Whether one more store may be lost: the promise holds for as many as any open placement bears.
    fn bears_a_loss(&self) -> bool {
        let bears = self.bucket.bears_a_loss(REPLICATION_FACTOR);
        if !bears {
            self.trace.note(SIMULATOR, "the disk is spared: some placement can't bear its loss");
        }
        bears
    }

    fn set_clock(&mut self, node: usize, ahead_ms: i64) {
        self.machines[node].set_clock(ahead_ms);
        let is_far = ahead_ms.abs() >= FAR_MS;
        let far = {
            let mut far = self.shared.far_clocks.borrow_mut();
            let _ = if is_far { far.insert(node_name(node)) } else { far.remove(&node_name(node)) };
            far.len()
        };
        match ahead_ms {
            0 => {}
            _ if !is_far => self.count_if_running(node, Exercise::Clock),
            _ if far == 1 => self.count_if_running(node, Exercise::ClockMonth),
            _ => self.count_if_running(node, Exercise::ClockMonths),
        }
    }

    /// Counts what only a process that runs feels.
    fn count_if_running(&mut self, node: usize, exercise: Exercise) {
        if self.is_running(node) {
            self.tally.count(exercise);
        }
    }

    fn tenants(&self) -> Vec<TenantId> {
        let id = |tenant| TenantId::new(&tenant_name(tenant)).expect("the name is plain");
        (0..self.scenario.tenants).map(id).collect()
    }

    /// Peers of a machine without power hear nothing, not even that its connections are closed.
    fn cut_power(&mut self, node: usize) {
        self.count_if_running(node, Exercise::PowerCut);
        self.wanted.remove(&node);
        let name = self.machines[node].name.clone();
        let others: Vec<usize> = self.plugged_in.iter().copied().filter(|other| *other != node).collect();
        for other in &others {
            self.sim.partition_oneway(name.as_str(), self.machines[*other].name.as_str());
        }
        self.sim.crash(name.as_str());
        self.machines[node].lost_power();
        for other in others {
            let other = self.machines[other].name.as_str();
            if !self.links.drops(&name, other) {
                self.sim.repair_oneway(name.as_str(), other);
            }
        }
    }

    fn drop_packets(&mut self, from: &[usize], to: &[usize]) {
        for (a, b) in pairs(from, to) {
            let (a, b) = (self.machines[a].name.as_str(), self.machines[b].name.as_str());
            self.links.set(a, b, true);
            self.sim.partition_oneway(a, b);
        }
    }

    fn reconnect(&mut self) {
        self.links.undeafen_all();
        for (one, other, epoch) in std::mem::take(&mut self.held) {
            if self.bucket.epoch() > epoch {
                self.tally.count(Exercise::Lag);
            }
            for (a, b) in pairs(&one, &other) {
                self.sim.release(self.machines[a].name.as_str(), self.machines[b].name.as_str());
            }
        }
        for (one, other) in std::mem::take(&mut self.slow) {
            let (one, other) = (self.machines[one].name.as_str(), self.machines[other].name.as_str());
            self.sim.set_link_latency(one, other, LATENCY[0]);
            self.sim.set_link_max_message_latency(one, other, LATENCY[1]);
        }
        for (from, to) in self.links.dropped() {
            self.links.set(&from, &to, false);
            self.sim.repair_oneway(from.as_str(), to.as_str());
        }
    }

    fn mend_all(&mut self) {
        self.reconnect();
        self.bucket.set_mood(Mood::Good);
        if !self.bucket.has_newest_ring() {
            self.orders.restore();
        }
        for index in self.plugged_in.clone() {
            let machine = self.machines[index].clone();
            machine.mend_disk();
            self.set_clock(index, 0);
            machine.set_glitch(None);
            // A restart that the scenario asked for came too early, or met a process that was down.
            if machine.was_struck() {
                machine.ask_to_stop();
            }
            self.start(index);
        }
    }
}

/// All pairs of machines of two groups.
fn pairs<'b>(one: &'b [usize], other: &'b [usize]) -> impl Iterator<Item = (usize, usize)> + 'b {
    one.iter().flat_map(move |a| other.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b)
}
