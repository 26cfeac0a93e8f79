//! Memory of queries: a budget for the node and one for each tenant, beside the one that each query has.
//!
//! A query that needs more than is left ends with an error that names the limit; the others and the node go on. So that
//! resident memory keeps to the node's budget, too, the allocator is made to return what queries have given back before
//! that and what they hold come to more than the large ones may fill of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use promql::Lender;
use tsdb::model::TenantId;

use crate::env::Process;

/// One part in this many of a budget is only for queries that hold little: what large ones fill up until one of them
/// ends doesn't end the small ones.
const RESERVED_PART: usize = 4;
/// What a query may hold that counts as small.
const SMALL_BYTES_MAX: usize = 2 << 20;
/// One part in this many of the node's budget may stay with the allocator, however little is left: returning less isn't
/// worth the time.
const KEPT_PART: usize = 16;

/// What queries hold.
pub(super) struct Memory {
    process: Arc<dyn Process>,
    /// Held while memory is released: whoever asks for that meanwhile has given back more, and the allocator doesn't
    /// begin a second time before it is done.
    releasing: Mutex<()>,
    used: Mutex<Used>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.used.fmt(f)
    }
}

#[derive(Debug, Default)]
struct Used {
    node_bytes: usize,
    /// Given back since the allocator last returned what was free. It keeps that for a second, and takes of it only where
    /// the size fits: all of it may be resident beside what is borrowed next.
    kept_bytes: usize,
    /// Tenants that hold any.
    tenants: BTreeMap<TenantId, usize>,
}

impl Memory {
    /// Nobody holds anything.
    pub(super) fn new(process: Arc<dyn Process>) -> Self {
        Self { process, releasing: Mutex::default(), used: Mutex::default() }
    }

    /// An account for one query of `tenant`.
    pub(super) fn account(
        self: &Arc<Self>,
        tenant: TenantId,
        tenant_bytes_max: usize,
        node_bytes_max: usize,
    ) -> Arc<Account> {
        Arc::new(Account {
            memory: self.clone(),
            tenant,
            tenant_bytes_max,
            node_bytes_max,
            held_bytes: AtomicUsize::new(0),
        })
    }

    /// What all queries hold together.
    pub(super) fn used_bytes(&self) -> usize {
        self.used.lock().node_bytes
    }
}

/// One query's way to the memory that all share.
#[derive(Debug)]
pub(super) struct Account {
    memory: Arc<Memory>,
    tenant: TenantId,
    tenant_bytes_max: usize,
    node_bytes_max: usize,
    held_bytes: AtomicUsize,
}

impl Lender for Account {
    fn borrow(&self, bytes: usize, what: &str) -> Result<(), String> {
        let mut used = self.memory.used.lock();
        let held_bytes = self.held_bytes.load(Ordering::Relaxed).saturating_add(bytes);
        let node_bytes = used.node_bytes.saturating_add(bytes);
        let tenant_bytes = used.tenants.get(&self.tenant).copied().unwrap_or(0).saturating_add(bytes);
        for (bytes, most, whose, option) in [
            (tenant_bytes, self.tenant_bytes_max, "this tenant", "limits.max_query_memory"),
            (node_bytes, self.node_bytes_max, "this node", "query.max_total_memory"),
        ] {
            let reserved = if held_bytes > SMALL_BYTES_MAX { most / RESERVED_PART } else { 0 };
            if bytes > most - reserved {
                return Err(format!(
                    "{what} of a query that holds {held_bytes} bytes: all queries of {whose} together need more memory \
                     than their limit of {most} bytes ({option}); ask again when fewer run, or select fewer series, a \
                     shorter range or a longer step"
                ));
            }
        }
        self.held_bytes.store(held_bytes, Ordering::Relaxed);
        used.node_bytes = node_bytes;
        used.tenants.insert(self.tenant.clone(), tenant_bytes);
        let most = self.node_bytes_max - self.node_bytes_max / RESERVED_PART;
        let is_crowded = node_bytes.saturating_add(used.kept_bytes) > most
            && used.kept_bytes > self.node_bytes_max / KEPT_PART;
        if is_crowded {
            used.kept_bytes = 0;
            drop(used);
            let _alone = self.memory.releasing.lock();
            self.memory.process.release_memory();
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        let mut used = self.memory.used.lock();
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        used.node_bytes = used.node_bytes.saturating_sub(bytes);
        used.kept_bytes = used.kept_bytes.saturating_add(bytes);
        if let Some(own) = used.tenants.get_mut(&self.tenant) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                used.tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::env::Usage;

    /// Counts how often memory is released.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Process for Counting {
        fn usage(&self) -> Usage {
            Usage::default()
        }

        fn thread_cpu(&self) -> Duration {
            Duration::ZERO
        }

        fn release_memory(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn memory() -> (Arc<Memory>, Arc<Counting>) {
        let process = Arc::new(Counting::default());
        (Arc::new(Memory::new(process.clone())), process)
    }

    #[test]
    fn what_was_given_back_is_released_before_it_and_the_rest_are_more_than_the_budget() {
        const NODE_BYTES: usize = 40 << 20;
        let (memory, process) = memory();
        let account = memory.account(TenantId::new("a").unwrap(), usize::MAX, NODE_BYTES);
        let released = || process.0.load(Ordering::Relaxed);
        account.borrow(NODE_BYTES / 2, "rows").unwrap();
        account.give_back(NODE_BYTES / 2);
        account.borrow(NODE_BYTES / 4, "rows").unwrap();
        assert_eq!(released(), 0);
        account.borrow(1, "rows").unwrap();
        assert_eq!(released(), 1);
        // Little is left, and little was given back.
        account.borrow(NODE_BYTES / 2 - 1, "rows").unwrap();
        account.give_back(NODE_BYTES / KEPT_PART);
        account.borrow(NODE_BYTES / KEPT_PART, "rows").unwrap();
        assert_eq!(released(), 1);
    }

    #[test]
    fn a_tenant_and_the_node_have_their_limits() {
        let (memory, _) = memory();
        let account = |tenant| memory.account(TenantId::new(tenant).unwrap(), 60, 100);
        let (a, b) = (account("a"), account("b"));
        a.borrow(50, "rows").unwrap();
        assert!(account("a").borrow(20, "rows").unwrap_err().contains("limits.max_query_memory"));
        assert!(b.borrow(60, "rows").unwrap_err().contains("query.max_total_memory"));
        b.borrow(50, "rows").unwrap();
        assert_eq!(memory.used_bytes(), 100);
        a.give_back(50);
        b.give_back(50);
        assert_eq!((memory.used_bytes(), memory.used.lock().tenants.len()), (0, 0));
    }

    #[test]
    fn large_queries_leave_room_for_small_ones() {
        const NODE_BYTES: usize = 40 << 20;
        let (memory, _) = memory();
        let account = || memory.account(TenantId::new("a").unwrap(), usize::MAX, NODE_BYTES);
        let (large, small) = (account(), account());
        while large.borrow(1 << 20, "rows").is_ok() {}
        assert_eq!(memory.used_bytes(), NODE_BYTES - NODE_BYTES / RESERVED_PART);
        let refused = large.borrow(1 << 20, "groups").unwrap_err();
        assert!(refused.starts_with("groups of a query that holds 32505856 bytes"), "{refused}");
        small.borrow(SMALL_BYTES_MAX, "rows").unwrap();
        assert!(small.borrow(1, "rows").is_err());
    }
}
