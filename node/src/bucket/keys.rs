//! Every name in the bucket, in one place.
//!
//! ```text
//! 01J9…/                          a block, named by its ULID, as Thanos lays it out
//!   chunks/000001 …
//!   index
//!   meta.json                     written last: a block without it is being uploaded, or is a leftover
//! carillon/                       ours; Thanos passes over it, since it is no ULID
//!   catalog/TENANT                which blocks a tenant has (`catalog`)
//!   self-test/NONCE               written and removed by the self-test (`swap`)
//! ```
//!
//! Other modules name their objects with [`own`].

use object_store::path::Path;
use tsdb::model::TenantId;
use ulid::Ulid;

/// The folder of everything that isn't a block.
const OWN: &str = "carillon";
const CATALOG: &str = "catalog";
const SELF_TEST: &str = "self-test";

/// An object of ours that isn't a block's: `carillon/PART/PART`.
pub fn own<'a>(parts: impl IntoIterator<Item = &'a str>) -> Path {
    Path::from_iter(std::iter::once(OWN).chain(parts))
}

/// The folder with the catalogs of all tenants.
pub fn catalogs() -> Path {
    own([CATALOG])
}

/// A tenant's catalog. What a path can't hold is encoded in it, so that tenants never share one.
pub fn catalog(tenant: &TenantId) -> Path {
    own([CATALOG, tenant.as_str()])
}

/// Whose catalog it is; `None` for what is none.
pub(super) fn tenant_of_catalog(key: &Path) -> Option<TenantId> {
    let name = key.filename()?.replace(ENCODED_STAR, "*");
    TenantId::new(&name).ok().filter(|tenant| catalog(tenant) == *key)
}

/// The one character of a tenant's name that keys can't hold; they have this for it.
const ENCODED_STAR: &str = "%2A";

/// Whether an object is ours and no block's.
pub fn is_own(key: &Path) -> bool {
    key.prefix_matches(&own([]))
}

/// Whether an object is one that a self-test left behind.
pub fn is_self_test(key: &Path) -> bool {
    key.prefix_matches(&own([SELF_TEST]))
}

/// What the self-test writes, as the ring names it: relative to our folder.
pub(super) fn self_test(nonce: u128) -> String {
    format!("{SELF_TEST}/{nonce:032x}")
}

/// The folder of a block.
pub fn block(ulid: Ulid) -> Path {
    Path::from(ulid.to_string())
}

/// A file of a block, by its name there: `chunks/000001`.
pub fn block_file(ulid: Ulid, name: &str) -> Path {
    Path::from(format!("{ulid}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_never_share_a_catalog() {
        let names = ["a", "A", "a.b", "a*b", "a'b", "a(b)", "!_-."];
        let tenants = names.map(|name| TenantId::new(name).unwrap());
        let keys: std::collections::BTreeSet<_> = tenants.iter().map(catalog).collect();
        assert_eq!(keys.len(), names.len());
        let back: Vec<_> =
            tenants.iter().map(|tenant| tenant_of_catalog(&catalog(tenant)).unwrap()).collect();
        assert_eq!(back, tenants);
        assert!(keys.iter().all(|key| key.prefix_matches(&catalogs()) && key.parts().count() == 3));
    }

    #[test]
    fn a_blocks_files_lie_in_its_folder() {
        let ulid = Ulid(7);
        assert_eq!(block_file(ulid, "chunks/000001").as_ref(), format!("{ulid}/chunks/000001"));
        assert!(block_file(ulid, "index").prefix_matches(&block(ulid)));
    }
}
