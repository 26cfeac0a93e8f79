//! Names, metadata, exemplars and counts from all who keep anything.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::FutureExt as _;
use tsdb::model::TenantId;

use super::super::coverage::Coverage;
use super::super::names::{Found, Question};
use super::super::own::{self, Roles};
use super::super::reach::Reach;
use super::super::{Error, blocks};
use super::stream::{self, Purse};
use super::{Failure, Plans, gather};
use crate::bucket;
use crate::env::on_cores;
use crate::grpc::read::NamesAsk;
use crate::node::App;

/// Asks all who keep anything.
///
/// # Errors
/// Whatever keeps the question from being answered; missing owners aren't an error here.
pub(in super::super) async fn ask(
    app: &Arc<App>,
    reach: &Reach,
    tenant: &TenantId,
    question: &Question,
    purse: &Purse,
    cancelled: &Arc<AtomicBool>,
) -> Result<(Found, Coverage), Error> {
    let me = reach.ring.me();
    let mut plans = Plans::default();
    let (owners, gathered, unread, in_bucket) = loop {
        let owners = reach.owners();
        let view = &owners.view;
        let catalog = blocks::catalog(app, view, tenant, plans.catalog_min).await;
        let known = catalog.as_ref().map_or_else(|_| Arc::default(), Arc::clone);
        let asking = gather(&owners, |store, asked| {
            let (tenant, question) = (tenant.clone(), question.clone());
            let catalog_version = catalog.as_ref().ok().map(|catalog| catalog.version());
            let ask = NamesAsk { tenant, question, asked, catalog_version };
            let view = view.clone();
            async move {
                if store != me {
                    return stream::names(reach, store, &ask, purse).await;
                }
                let opening = reach.opening(&view);
                let (app_, cancelled) = (app.clone(), cancelled.clone());
                let work = move || {
                    let roles = Roles::new(&view, &ask.tenant, me, me, &ask.asked);
                    own::names(&app_, &ask, &|labels| roles.sends(labels), &cancelled)
                };
                let found = on_cores(&*app.env.pool, false, work).await.map_err(Failure::Question)?;
                Ok((opening, vec![found]))
            }
            .boxed()
        });
        let (gathered, in_bucket) =
            futures_util::future::join(asking, blocks::names(app, tenant, &known, question)).await;
        let gathered = gathered?;
        if let Err(bucket::Error::Replan { .. }) = in_bucket {
            plans.again(None)?;
            app.blocks.catalogs.refresh(tenant).await?;
            continue;
        }
        if plans.is_settled(reach, &owners, &gathered).await? {
            let unread = catalog.as_ref().err().or(in_bucket.as_ref().err()).map(ToString::to_string);
            break (owners, gathered, unread, in_bucket.unwrap_or_default());
        }
    };
    let coverage = Coverage { unread, ..gathered.coverage(&owners) };
    let question = question.clone();
    let merge = move || {
        let all = gathered.answers.into_values().flat_map(|(_, found)| found).chain(in_bucket);
        question.merged(all)
    };
    Ok((on_cores(&*app.env.pool, false, merge).await, coverage))
}
