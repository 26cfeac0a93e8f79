//! What one store answers to a question that several are asked.
//!
//! Of every series one of them sends the chunks, the others a *mark*: a hash of labels and chunks. Replicas encode the
//! same samples into the same bytes, nearly always, so that marks tell the asker what it has already; where they differ,
//! it asks again, with a digest of the samples that it has, and gets what that doesn't cover.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use ring::hash::series_token;
use ring::{StoreId, StoreIndex, View};
use tsdb::chunk::Columns;
use tsdb::digest::DigestKey;
use tsdb::model::{Labels, TenantId};
use tsdb::select::{Chunk, Series};
use xxhash_rust::xxh3::Xxh3;

use super::names::Found;
use super::sketch::Sketch;
use super::{Error, blocks, permits};
use crate::bucket::catalog::Catalog;
use crate::grpc::read::{Mark, NamesAsk, SelectAsk};
use crate::node::App;

/// Series and marks, by selection.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Sorted by labels.
    pub series: Vec<Vec<Series>>,
    /// Of series whose chunks somebody else sends.
    pub marks: Vec<Vec<Mark>>,
    /// Of marks, by the number of their set of owners; empty where none are asked for.
    pub sketches: Vec<BTreeMap<u32, Sketch>>,
}

impl Own {
    /// Nothing of so many selections.
    pub(super) fn of(selections: usize) -> Self {
        Self {
            series: vec![Vec::new(); selections],
            marks: vec![Vec::new(); selections],
            sketches: Vec::new(),
        }
    }
}

/// Which of several stores sends a series' chunks.
pub(super) struct Roles<'a> {
    view: &'a View,
    tenant: &'a str,
    me: Option<StoreIndex>,
    asker: Option<StoreIndex>,
    asked: Vec<StoreIndex>,
}

impl<'a> Roles<'a> {
    /// As seen by store `me` of a question by `asker` to all of `asked`.
    pub(super) fn new(
        view: &'a View,
        tenant: &'a TenantId,
        me: StoreId,
        asker: StoreId,
        asked: &[StoreId],
    ) -> Self {
        let mut asked: Vec<_> = asked.iter().filter_map(|store| view.index(*store)).collect();
        asked.sort_unstable();
        let asker = view.index(asker).filter(|asker| asked.contains(asker));
        Self { view, tenant: tenant.as_str(), me: view.index(me), asker, asked }
    }

    /// Whether this store sends the chunks of the series with these labels: if it is the asker and keeps it, or else the
    /// first owner that is asked, in the newest placement where there is one.
    pub(super) fn sends(&self, labels: &Labels) -> bool {
        let token = series_token(self.tenant, labels.iter());
        let mut first = None;
        for table in self.view.read_sets().iter().rev() {
            let owners = table.replicas(token);
            if self.asker.is_some_and(|asker| owners.contains(&asker)) {
                return self.me == self.asker;
            }
            first = first
                .or_else(|| owners.iter().find(|owner| self.asked.binary_search(owner).is_ok()).copied());
        }
        // Where no owner is asked, whoever has it sends it.
        first.is_none_or(|first| self.me == Some(first))
    }
}

/// What this store has of the series that are asked for; for the pool. `sends` says of which it sends the chunks, and
/// blocks that `catalog` knows to be listed at the question's version are left out.
///
/// # Errors
/// Those of the engine; when it is cancelled.
pub(super) fn select(
    app: &App,
    ask: &SelectAsk,
    sends: &dyn Fn(&Labels) -> bool,
    catalog: &Catalog,
    digest_key: u128,
    cancelled: &AtomicBool,
) -> Result<Own, Error> {
    let mut own = Own::of(ask.selects.len());
    let Some(tenant) = app.storage.existing(&ask.tenant) else { return Ok(own) };
    let is_left_out = blocks::is_left_out(catalog, ask.catalog_version);
    let mut columns = Columns::default();
    for (i, select) in ask.selects.iter().enumerate() {
        permits::check(cancelled)?;
        let wanted = ask.wanted.as_ref().map(|wanted| &wanted[i]);
        if wanted.is_some_and(BTreeMap::is_empty) {
            continue;
        }
        let found = tenant.select_without(select, &is_left_out)?;
        let Some(wanted) = wanted else {
            for series in found {
                if sends(&series.labels) {
                    own.series[i].push(series);
                } else {
                    own.marks[i].push(mark(&series, digest_key));
                }
            }
            continue;
        };
        for series in found {
            let Some(theirs) = wanted.get(&series.labels.hash64()) else { continue };
            let is_same = match theirs {
                None => false,
                Some(theirs) => {
                    let range_ms = select.range_ms.clone();
                    series.digest(DigestKey::new(digest_key), range_ms, &mut columns)? == *theirs
                }
            };
            if !is_same {
                own.series[i].push(series);
            }
        }
    }
    Ok(own)
}

/// The series that `is_wanted`, of each of the question's selections; for the pool. Listed blocks are left out as in
/// [`select`].
///
/// # Errors
/// Those of the engine; when it is cancelled.
pub(super) fn series(
    app: &App,
    ask: &SelectAsk,
    is_wanted: &dyn Fn(usize, &Labels) -> bool,
    catalog: &Catalog,
    cancelled: &AtomicBool,
) -> Result<Vec<Vec<Series>>, Error> {
    let Some(tenant) = app.storage.existing(&ask.tenant) else {
        return Ok(vec![Vec::new(); ask.selects.len()]);
    };
    let is_left_out = blocks::is_left_out(catalog, ask.catalog_version);
    let one = |(i, select)| {
        permits::check(cancelled)?;
        let mut found = tenant.select_without(select, &is_left_out)?;
        found.retain(|series| is_wanted(i, &series.labels));
        Ok(found)
    };
    ask.selects.iter().enumerate().map(one).collect()
}

/// What this store has of anything else; for the pool. `counts` says which series it counts; where it matters, listed
/// blocks are left out as in [`select`].
///
/// # Errors
/// Those of the engine; when it is cancelled.
pub(super) fn names(
    app: &App,
    ask: &NamesAsk,
    counts: &dyn Fn(&Labels) -> bool,
    catalog: &Catalog,
    cancelled: &AtomicBool,
) -> Result<Found, Error> {
    let is_left_out = blocks::is_left_out(catalog, ask.catalog_version);
    match app.storage.existing(&ask.tenant) {
        Some(tenant) => ask.question.of(&tenant, counts, &is_left_out, cancelled),
        None => Ok(ask.question.nothing()),
    }
}

/// The mark of a series.
pub(super) fn mark(series: &Series, digest_key: u128) -> Mark {
    let mut hasher = Xxh3::with_seed((digest_key >> 64) as u64);
    add(&mut hasher, series.labels.as_bytes());
    series.chunks.iter().for_each(|chunk| add_chunk(&mut hasher, chunk));
    for deleted in &series.deleted_ms {
        add(&mut hasher, &deleted.start().to_le_bytes());
        add(&mut hasher, &deleted.end().to_le_bytes());
    }
    Mark { hash: series.labels.hash64(), fingerprint: hasher.digest128() }
}

/// Adds what makes a chunk equal to another.
pub(super) fn add_chunk(hasher: &mut Xxh3, chunk: &Chunk) {
    add(hasher, &[chunk.encoding as u8]);
    add(hasher, &chunk.data);
}

/// Adds some bytes as a whole.
pub(super) fn add(hasher: &mut Xxh3, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}
