//! Names, metadata, exemplars and counts from all who keep anything.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::super::coverage::Coverage;
use super::super::names::{Found, Question};
use super::super::own::{self, Roles};
use super::super::{Error, blocks};
use super::{Asker, Failure, Plan, Settled, stream};
use crate::bucket::catalog::Catalog;
use crate::grpc::read::NamesAsk;

impl Asker<'_> {
    /// Asks all who keep anything.
    ///
    /// # Errors
    /// Whatever keeps the question from being answered; missing owners aren't an error here.
    pub(in super::super) async fn ask(&self, question: &Question) -> Result<(Found, Coverage), Error> {
        let me = self.reach.ring.me();
        let ask = |plan: &Plan, store, asked| {
            let (tenant, question) = (self.tenant.clone(), question.clone());
            let ask = NamesAsk { tenant, question, asked, catalog_version: plan.catalog_version };
            let (view, catalog) = (plan.view.clone(), plan.catalog.clone());
            async move {
                if store != me {
                    return stream::names(self.reach, store, &ask, self.purse).await;
                }
                let opening = self.reach.opening(&view);
                let app = self.app.clone();
                let found = self.permit.on_cores(self.app, move |cancelled| {
                    let roles = Roles::new(&view, &ask.tenant, me, me, &ask.asked);
                    own::names(&app, &ask, &|labels| roles.sends(labels), &catalog, cancelled)
                });
                Ok((opening, vec![found.await.map_err(Failure::of_own)?]))
            }
            .boxed()
        };
        let in_bucket = |catalog: Arc<Catalog>| {
            async move { blocks::names(self.app, self.tenant, &catalog, question).await }.boxed()
        };
        let Settled { owners, gathered, in_bucket, unread, .. } = self.settled(ask, in_bucket).await?;
        let coverage = Coverage { unread, ..gathered.coverage(&owners) };
        let question = question.clone();
        let merge = move |_: &_| {
            let own = gathered.answers.into_values().flat_map(|(_, found)| found);
            Ok(question.merged(own.chain(in_bucket.unwrap_or_default())))
        };
        Ok((self.permit.on_cores(self.app, merge).await?, coverage))
    }
}
