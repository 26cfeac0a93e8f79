//! Memory of queries: a budget for the node and one for each tenant, beside the one that each query has.
//!
//! A query that needs more than is left ends with an error that names the limit; the others and the node go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use promql::Lender;
use tsdb::model::TenantId;

/// One part in this many of a budget is only for queries that hold little: what large ones fill up until one of them
/// ends doesn't end the small ones.
const RESERVED_PART: usize = 4;
/// What a query may hold that counts as small.
const SMALL_BYTES_MAX: usize = 2 << 20;

/// What queries hold.
#[derive(Debug, Default)]
pub(super) struct Memory {
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    node_bytes: usize,
    /// Tenants that hold any.
    tenants: BTreeMap<TenantId, usize>,
}

impl Memory {
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
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        let mut used = self.memory.used.lock();
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        used.node_bytes = used.node_bytes.saturating_sub(bytes);
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
    use super::*;

    #[test]
    fn a_tenant_and_the_node_have_their_limits() {
        let memory = Arc::new(Memory::default());
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
        let memory = Arc::new(Memory::default());
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
