//! What one request wants written, kept until every replica has it or a hint.
//!
//! It is one owner's: no buffer of it is used for another request while a frame may still be made of it (Cortex 5422).

use std::sync::Arc;

use tsdb::db::{Bounds, Exemplar, Metadata, SeriesKey, Tenant};
use tsdb::model::{Labels, Sample};

use super::super::batch::Batch;
use super::super::budget::Held;
use super::super::ingest::{ParseLabels, Request};
use super::route::Salt;
use crate::config::Config;

/// A decoded request.
///
/// Its *items* are its samples, then its exemplars, then its families, counted through.
pub struct Content {
    /// Whose it is.
    pub tenant: Arc<Tenant>,
    /// What the batch's raw labels point into.
    pub body: Vec<u8>,
    /// What was decoded.
    pub batch: Batch,
    /// Reads its labels.
    pub parse_labels: ParseLabels,
    /// Limits are read from it.
    pub config: Arc<Config>,
    /// This node's wall clock when it came.
    pub now_ms: i64,
    /// Its share of the bytes that may be in work.
    pub held: Held,
}

/// One item.
pub enum Item<'a> {
    /// A sample of a series.
    Sample(u32, &'a Sample),
    /// An exemplar of a series.
    Exemplar(u32, &'a Exemplar),
    /// What a family says of itself.
    Family(&'a Metadata),
}

impl Content {
    /// How many items there are.
    pub fn item_count(&self) -> usize {
        self.batch.appends.len() + self.batch.exemplars.len() + self.batch.metadata.len()
    }

    /// One of them.
    #[inline]
    pub fn item(&self, item: usize) -> Item<'_> {
        let batch = &self.batch;
        if let Some(append) = batch.appends.get(item) {
            return Item::Sample(batch.owners[item], &append.sample);
        }
        let item = item - batch.appends.len();
        match batch.exemplars.get(item) {
            Some((series, exemplar)) => Item::Exemplar(*series, exemplar),
            None => Item::Family(&batch.metadata[item - batch.exemplars.len()]),
        }
    }

    /// How many series there are.
    pub fn series_count(&self) -> usize {
        self.batch.keys.len()
    }

    /// The hash of a series' raw labels.
    pub fn key(&self, series: u32) -> SeriesKey {
        self.batch.keys[series as usize]
    }

    /// A series' labels.
    ///
    /// # Errors
    /// What is wrong with them, for the sender to read.
    pub fn labels(&self, series: u32) -> Result<Labels, String> {
        let request = self.request();
        (self.parse_labels)(self.batch.raw_labels(&self.body, series), request.limits)
    }

    /// As one node alone would take it.
    pub fn request(&self) -> Request<'_> {
        Request {
            tenant: &self.tenant,
            body: &self.body,
            parse_labels: self.parse_labels,
            limits: self.config.limits_of(self.tenant.id().as_str()),
            now_ms: self.now_ms,
        }
    }

    /// Which times may be taken, by this node's clock.
    pub fn bounds(&self) -> Bounds {
        self.request().bounds()
    }

    /// What keeps its series apart from others' in the routes.
    pub fn salt(&self) -> Salt {
        Salt::of(self.tenant.id())
    }

    /// Bytes that one item stands for, about.
    pub fn bytes_per_item(&self) -> usize {
        self.body.len() / self.item_count().max(1) + size_of::<Sample>()
    }
}
