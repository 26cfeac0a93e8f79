//! The table of routes: which paths there are, and what a POST to each of them does.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::routing::MethodRouter;

use crate::node::App;

/// What a request does that isn't a GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It asks, and its parameters may come as a form.
    Read,
    /// It stores samples, as any sender does.
    Ingest,
    /// It brings a block, by tools that send nothing but the block.
    Upload,
    /// It changes the node or the cluster, as an operator does.
    Change,
}

/// Routes with their effects. There is no way to add a route without one.
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<Arc<App>>,
    effects: BTreeMap<&'static str, Effect>,
}

impl Routes {
    /// Adds a path.
    pub(crate) fn route(
        mut self,
        path: &'static str,
        effect: Effect,
        methods: MethodRouter<Arc<App>>,
    ) -> Self {
        let former = self.effects.insert(path, effect);
        debug_assert!(former.is_none(), "{path} has one handler");
        self.router = self.router.route(path, methods);
        self
    }

    /// Adds all paths of another table.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.effects.extend(other.effects);
        self
    }

    /// Changes the router: by a layer over the paths so far, for example.
    pub(crate) fn map(mut self, change: impl FnOnce(Router<Arc<App>>) -> Router<Arc<App>>) -> Self {
        self.router = change(self.router);
        self
    }

    /// The router, and each path with its effect.
    pub(crate) fn into_parts(self) -> (Router<Arc<App>>, BTreeMap<&'static str, Effect>) {
        (self.router, self.effects)
    }
}
