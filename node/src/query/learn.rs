//! What is listed for all is known to all: a block that no owner keeps is counted on once no complete answer can do
//! without it.
//!
//! Questions go by the catalog that the asking node knows, which may be a while old. Where a block came from an owner, that
//! owner answers from it until the asker knows better; a block that was imported (`NOBODY`'s) nobody answers from. So
//! before an import is acked, owners are told which version lists it (`Learn`), and keep that in their ledgers: of each
//! range so many that fewer than R of the others are left. Whoever then goes by an older version hears of the newer one from one of the
//! owners that it needs ([`super::blocks::needed`]), and asks again.
//!
//! That holds in the placements that writes go to now, and stays true when they are closed: whoever vouches for one tells the
//! catalog's version as well, and the ring document asks for at least that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proto::peer::read as pb;
use ring::StoreId;
use tonic::Status;
use tsdb::model::TenantId;

use super::reach::Reach;
use crate::grpc::Lane;
use crate::grpc::read::ReadClient;
use crate::node::App;

/// How long an owner may take: it reads the catalog from the bucket, and writes it to its ledger.
const LEARN_TIMEOUT: Duration = Duration::from_secs(10);

/// Too few owners know.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ranges} ranges have too few owners that know of it ({silent}): import it again when these answer")]
pub(crate) struct TooFew {
    ranges: usize,
    /// Who doesn't, and why.
    silent: String,
}

/// Has owners know a version of a tenant's catalog: on return no complete answer goes by an older one.
///
/// # Errors
/// Where too few of them can be reached, or can read the catalog.
pub(crate) async fn make_known(app: &Arc<App>, tenant: &TenantId, version: u64) -> Result<(), TooFew> {
    let Some(reach) = app.queries.reach.get() else { return Ok(()) };
    let (view, me) = (reach.view(), reach.ring.me());
    let owners: BTreeSet<StoreId> = view
        .write_tables()
        .iter()
        .flat_map(ring::PlacementTable::members)
        .map(|owner| view.store(*owner))
        .filter(|store| !view.document().members[store].state.is_lost())
        .collect();
    let asking = owners.iter().map(|store| async move {
        // This node has listed it, or read the catalog that does.
        let learned = if *store == me { Ok(()) } else { learn(reach, *store, tenant, version).await };
        (*store, learned)
    });
    let answers = futures_util::future::join_all(asking).await;
    let knows: BTreeSet<StoreId> =
        answers.iter().filter(|(_, learned)| learned.is_ok()).map(|(store, _)| *store).collect();
    // Of owners that may answer and don't know, fewer than an answer needs.
    let ranges = view.write_tables().iter().flat_map(ring::PlacementTable::ranges).filter(|range| {
        let ignorant = range.owners.iter().map(|owner| view.store(*owner));
        let ignorant = ignorant.filter(|store| owners.contains(store) && !knows.contains(store)).count();
        ignorant >= range.read_quorum.max(1)
    });
    let ranges = ranges.count();
    if ranges == 0 {
        return Ok(());
    }
    let silent = answers.iter().filter_map(|(store, learned)| {
        let status = learned.as_ref().err()?;
        Some(format!("{}: {}", view.document().members[store].name, status.message()))
    });
    Err(TooFew { ranges, silent: silent.collect::<Vec<_>>().join(", ") })
}

async fn learn(reach: &Reach, store: StoreId, tenant: &TenantId, version: u64) -> Result<(), Status> {
    let channel = reach.peers.to_store(store, Lane::Data)?.timeout(LEARN_TIMEOUT);
    let request = pb::LearnRequest { tenant: tenant.to_string(), version };
    let known = ReadClient::new(channel).learn(request).await?.into_inner().version;
    match known >= version {
        true => Ok(()),
        false => Err(Status::unavailable(format!("it knows version {known} of the catalog, not {version}"))),
    }
}
