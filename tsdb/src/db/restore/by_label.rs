//! The series of one shard by label: what tenants' postings are made of, gathered where the shards are restored.
//!
//! Putting series into postings one by one compares every string of every series; here equal labels are found by the
//! numbers that the shard gives to strings, so that a string is compared once for each shard that has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::super::tenant::{RangeCounts, Tenant};
use crate::head::shard::Shard;

/// Series of one shard, by tenant and label.
#[derive(Default)]
pub(super) struct ByLabel {
    lists: Vec<List>,
    tenants: BTreeMap<u32, OfTenant>,
}

/// The series of a tenant that have a label.
struct List {
    label: Label,
    /// Ascending.
    ids: Vec<u32>,
}

/// Tenant and the shard's numbers of name and value.
type Label = [u32; 3];

/// All series of a tenant.
#[derive(Default)]
struct OfTenant {
    /// Ascending.
    ids: Vec<u32>,
    ranges: RangeCounts,
}

impl ByLabel {
    pub(super) fn new(shard: &Shard) -> Self {
        let mut this = Self::default();
        let mut table: HashTable<u32> = HashTable::new();
        for (slot, series) in shard.slots.iter() {
            let id = shard.ref_of(slot, series).local_id();
            let of_tenant = this.tenants.entry(series.tenant).or_default();
            of_tenant.ids.push(id);
            shard.count_ranges(series, &mut |timestamp_ms, samples| {
                of_tenant.ranges.add_many(timestamp_ms, samples);
            });
            let lists = &mut this.lists;
            for pair in shard.labels.run(series.labels).chunks_exact(2) {
                let label = [series.tenant, pair[0], pair[1]];
                let same = |at: &u32| lists[*at as usize].label == label;
                match table.entry(hash(label), same, |at| hash(lists[*at as usize].label)) {
                    Entry::Occupied(at) => lists[*at.get() as usize].ids.push(id),
                    Entry::Vacant(vacant) => {
                        vacant.insert(lists.len() as u32);
                        lists.push(List { label, ids: vec![id] });
                    }
                }
            }
        }
        this
    }

    /// Adds what was gathered from `shard` to the tenants, which stand at their indices.
    pub(super) fn add_to(self, shard: &Shard, tenants: &[Arc<Tenant>]) {
        let mut scratch = Vec::new();
        for List { label: [tenant, name, value], ids } in &self.lists {
            let labels = shard.labels.labels_of(&[*name, *value], &mut scratch);
            for (name, value) in &labels {
                tenants[*tenant as usize].postings.write().add_to_list(name, value, ids);
            }
        }
        for (tenant, OfTenant { ids, ranges }) in &self.tenants {
            let tenant = &tenants[*tenant as usize];
            tenant.postings.write().add_ids(ids);
            tenant.add_ranges(ranges);
        }
    }
}

/// Spreads labels: numbers come from the shard itself, one after another, so nobody outside can make them meet.
fn hash([tenant, name, value]: Label) -> u64 {
    let mixed = (u64::from(name) << 32 | u64::from(value)) ^ u64::from(tenant).rotate_right(16);
    mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26)
}
