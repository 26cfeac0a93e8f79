//! Blocks that the bucket holds, as questions use them.
//!
//! A question goes by one version of the tenant's catalog. What that lists, the asker reads itself; owners leave exactly
//! that out and answer from everything else. An owner that lacks a block of its own which that version doesn't list yet
//! says so, and the asker begins again with a newer one: nothing falls between the two, and nothing comes twice. So does an
//! owner that knows of a newer block which nobody made and nobody keeps, as an imported one is.

use std::sync::Arc;

use ring::{StoreId, View};
use tsdb::model::TenantId;
use tsdb::select::{Select, Series};
use ulid::Ulid;

use super::names::{Cost, Found, Question, Scope};
use crate::bucket;
use crate::bucket::catalog::{Catalog, NOBODY};
use crate::node::App;

/// The catalog to go by: at least as new as the ring document says that it must be, and as `at_least`.
///
/// # Errors
/// What keeps it from being read.
pub(super) async fn catalog(
    app: &App,
    view: &View,
    tenant: &TenantId,
    at_least: u64,
) -> bucket::Result<Arc<Catalog>> {
    let floor = view.document().catalog_floors.get(tenant.as_str()).copied().unwrap_or(0);
    app.blocks.catalogs.at_least(tenant, floor.max(at_least)).await
}

/// The blocks that an owner leaves out.
pub(super) fn is_left_out(catalog: &Catalog, version: Option<u64>) -> impl Fn(Ulid) -> bool {
    move |ulid| {
        let version =
            if planted::is(planted::Bug::UnlistedLeftOut) { version.map(|_| u64::MAX) } else { version };
        version.is_some_and(|version| catalog.block(ulid).is_some_and(|listed| listed.version <= version))
    }
}

/// The version that a question must go by at least, where `version` doesn't list a block which this store has made and
/// has no more, or which nobody has made.
pub(super) fn needed(
    app: &App,
    catalog: &Catalog,
    tenant: &TenantId,
    me: StoreId,
    version: Option<u64>,
) -> Option<u64> {
    let version = version.filter(|version| *version < catalog.version())?;
    if planted::is(planted::Bug::StaleCatalogUntold) {
        return None;
    }
    let local = app.storage.existing(tenant);
    let is_here = |ulid| local.as_ref().is_some_and(|tenant| tenant.block(ulid).is_some());
    let later =
        catalog.blocks().filter(|listed| [me, NOBODY].contains(&listed.store) && listed.version > version);
    later.filter(|listed| !is_here(listed.ulid)).map(|listed| listed.version).max()
}

/// The series of listed blocks.
///
/// # Errors
/// Those of the bucket; there is no answer without a block.
pub(super) async fn select(
    app: &App,
    tenant: &TenantId,
    catalog: &Catalog,
    selects: &[Select],
) -> bucket::Result<Vec<Vec<Series>>> {
    if selects.iter().all(|select| catalog.blocks_in(&select.range_ms).next().is_none()) {
        return Ok(Vec::new());
    }
    let local = app.storage.existing(tenant);
    app.blocks.remote.select(tenant, catalog, local.as_deref(), selects).await
}

/// Names, values, series or the cost of listed blocks; nothing for questions that blocks don't answer.
///
/// # Errors
/// Those of the bucket.
pub(super) async fn names(
    app: &App,
    tenant: &TenantId,
    catalog: &Catalog,
    question: &Question,
) -> bucket::Result<Vec<Found>> {
    let (Question::Names(scope, _)
    | Question::Values(_, scope, _)
    | Question::Series(scope, _)
    | Question::Cost(scope)) = question
    else {
        return Ok(Vec::new());
    };
    if catalog.blocks_in(&scope.range_ms).next().is_none() {
        return Ok(Vec::new());
    }
    let local = app.storage.existing(tenant);
    let (local, remote) = (local.as_deref(), &app.blocks.remote);
    if let Question::Cost(Scope { selectors, range_ms }) = question {
        let bucket = remote.weigh(catalog, local, selectors, range_ms).await?;
        return Ok(vec![Found::Cost(Cost { bucket, ..Cost::default() })]);
    }
    let mut found = Vec::new();
    for matchers in each(scope) {
        let range_ms = &scope.range_ms;
        found.push(match question {
            Question::Values(name, ..) => {
                let values = remote.label_values(tenant, catalog, local, name, matchers, range_ms).await?;
                Found::Texts(values.into_iter().collect())
            }
            Question::Series(..) => {
                let series = remote.series(tenant, catalog, local, matchers, range_ms).await?;
                Found::Series(series.into_iter().collect())
            }
            _ => {
                let names = remote.label_names(tenant, catalog, local, matchers, range_ms).await?;
                Found::Texts(names.into_iter().collect())
            }
        });
    }
    Ok(found)
}

/// Each selector, or one that everything passes.
fn each(scope: &Scope) -> impl Iterator<Item = &[tsdb::model::Matcher]> {
    let everything = scope.selectors.is_empty().then_some(&[][..]);
    scope.selectors.iter().map(Vec::as_slice).chain(everything)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::catalog::Listed;
    use crate::http::tests::TestNode;

    /// Three listed blocks, the first two made by store 1, none of them on this disk; each asker's version.
    #[tokio::test]
    async fn owners_leave_out_what_the_askers_catalog_lists_and_say_where_it_must_list_more() {
        let node = TestNode::start().await;
        let (tenant, catalogs) = (TenantId::new("t").unwrap(), &node.app.blocks.catalogs);
        for (ulid, store) in [(1, 1), (2, 1), (3, 2)] {
            let (ulid, store) = (Ulid(ulid), StoreId(store));
            let (min_ms, max_ms, version, samples, series, size_bytes, level) = (0, 100, 0, 10, 2, 1000, 1);
            let block = Listed { ulid, min_ms, max_ms, version, samples, series, size_bytes, level, store };
            catalogs.list_block(&tenant, &block).await.unwrap();
        }
        let catalog = catalogs.refresh(&tenant).await.unwrap();
        let asked = [None, Some(0), Some(1), Some(2), Some(3)];
        let left_out = |version| (1..=3).filter(|ulid| is_left_out(&catalog, version)(Ulid(*ulid))).count();
        assert_eq!(asked.map(left_out), [0, 0, 1, 2, 3]);
        let needed =
            |store| asked.map(|version| needed(&node.app, &catalog, &tenant, StoreId(store), version));
        assert_eq!(needed(1), [None, Some(2), Some(2), None, None]);
        assert_eq!(needed(2), [None, Some(3), Some(3), Some(3), None]);
        assert_eq!(needed(7), [None; 5]);
    }
}
