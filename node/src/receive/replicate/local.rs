//! This node's own part of a write.

use tsdb::db::{Append, Bounds, Exemplar, Metadata, Outcome, SeriesKey, SeriesRef, Tenant};
use tsdb::model::{Labels, Sample};
use tsdb::wal::WalPosition;
use tsdb::{Error, Result};

use super::content::{Content, Item};
use super::round::{Place, Round};
use crate::grpc::frame::Verdict;

/// Appends these items, and says what became of each. Acks count once a commit has reached the position.
///
/// # Errors
/// When none of them may be acked: a full disk, a store that has stopped.
pub fn store(round: &Round, places: &[Place]) -> Result<(WalPosition, Vec<Verdict>)> {
    let content = &*round.content;
    let mut verdicts = vec![Verdict::NeedLabels; places.len()];
    let mut names = Names::look_up(content, places);
    let mut position = append(content, places, &mut names, &mut verdicts)?;
    if verdicts.contains(&Verdict::NeedLabels) {
        // Collected between look-up and append; a second time the sender comes again.
        names.forget();
        let missing: Vec<_> = (0..places.len()).filter(|i| verdicts[*i] == Verdict::NeedLabels).collect();
        let again: Vec<_> = missing.iter().map(|i| places[*i]).collect();
        let mut second = vec![Verdict::NeedLabels; again.len()];
        position = position.max(append(content, &again, &mut names, &mut second)?);
        missing.into_iter().zip(second).for_each(|(i, verdict)| verdicts[i] = verdict);
    }
    Ok((position, verdicts))
}

/// Series of this store by their index in the request.
struct Names(Vec<std::result::Result<SeriesRef, Verdict>>);

impl Names {
    fn look_up(content: &Content, places: &[Place]) -> Self {
        let mut found = Vec::new();
        if places.len() * 2 > content.item_count() {
            content.tenant.lookup(&content.batch.keys, &mut found);
            return Self(found.into_iter().map(Ok).collect());
        }
        let mut names = Self(vec![Ok(SeriesRef::NONE); content.series_count()]);
        let mut wanted: Vec<u32> = places.iter().filter_map(|p| series_of(content, *p)).collect();
        wanted.dedup();
        let keys: Vec<_> = wanted.iter().map(|series| content.key(*series)).collect();
        content.tenant.lookup(&keys, &mut found);
        wanted.iter().zip(found).for_each(|(series, name)| names.0[*series as usize] = Ok(name));
        names
    }

    fn forget(&mut self) {
        self.0.fill(Ok(SeriesRef::NONE));
    }

    /// The series' name. Where there is none it is made, unless the item that asks for it is refused by a new series:
    /// then this is what is said of it.
    fn get(
        &mut self,
        content: &Content,
        series: u32,
        refusal: Option<Verdict>,
    ) -> Result<std::result::Result<SeriesRef, Verdict>> {
        let name = &mut self.0[series as usize];
        if *name != Ok(SeriesRef::NONE) {
            return Ok(*name);
        }
        let found = match (content.labels(series), refusal) {
            (Err(_), _) => Err(Verdict::Invalid),
            (Ok(labels), None) => intern(&content.tenant, content.key(series), &labels)?,
            (Ok(labels), Some(refusal)) => {
                match content.tenant.find(content.key(series), &labels) {
                    Some(found) => Ok(found),
                    // A later item may be one that it is made for.
                    None => return Ok(Err(refusal)),
                }
            }
        };
        *name = found;
        Ok(found)
    }
}

/// The series with these labels, or why there can be none.
///
/// # Errors
/// When nothing can be stored at all.
pub fn intern(
    tenant: &Tenant,
    key: SeriesKey,
    labels: &Labels,
) -> Result<std::result::Result<SeriesRef, Verdict>> {
    match tenant.intern(key, labels) {
        Ok(name) => Ok(Ok(name)),
        Err(Error::Limit(_)) => Ok(Err(Verdict::SeriesLimit)),
        Err(Error::Invalid(_)) => Ok(Err(Verdict::Invalid)),
        Err(error) => Err(error),
    }
}

fn series_of(content: &Content, place: Place) -> Option<u32> {
    match content.item(place.item as usize) {
        Item::Sample(series, _) | Item::Exemplar(series, _) => Some(series),
        Item::Family(_) => None,
    }
}

/// What is appended in one go.
#[derive(Default)]
pub struct Gathered {
    appends: Vec<Append>,
    /// Where each sample's verdict goes.
    places: Vec<usize>,
    /// Exemplars with their series.
    pub exemplars: Vec<(SeriesRef, Exemplar)>,
    /// What families say of themselves.
    pub families: Vec<Metadata>,
}

impl Gathered {
    /// With room for samples.
    pub fn with_room(samples: usize) -> Self {
        let (appends, places) = (Vec::with_capacity(samples), Vec::with_capacity(samples));
        Self { appends, places, ..Self::default() }
    }

    /// Adds a sample, whose verdict will stand at `place`.
    pub fn sample(&mut self, place: usize, series: SeriesRef, sample: Sample) {
        self.places.push(place);
        self.appends.push(Append { series, sample });
    }

    /// Appends all of it; the verdicts of samples are set.
    ///
    /// # Errors
    /// When nothing may be acked.
    pub fn append(self, tenant: &Tenant, bounds: &Bounds, verdicts: &mut [Verdict]) -> Result<WalPosition> {
        let mut position = WalPosition::default();
        if !self.appends.is_empty() {
            let mut outcomes: Vec<Outcome> = Vec::new();
            position = tenant.append(&self.appends, bounds, &mut outcomes)?;
            for (place, outcome) in self.places.into_iter().zip(outcomes) {
                verdicts[place] = outcome.into();
            }
        }
        if !self.exemplars.is_empty() {
            position = position.max(tenant.append_exemplars(&self.exemplars)?);
        }
        if !self.families.is_empty() {
            position = position.max(tenant.append_metadata(&self.families)?);
        }
        Ok(position)
    }
}

fn append(
    content: &Content,
    places: &[Place],
    names: &mut Names,
    verdicts: &mut [Verdict],
) -> Result<WalPosition> {
    let mut gathered = Gathered::with_room(places.len());
    let bounds = content.bounds();
    for (at, place) in places.iter().enumerate() {
        match content.item(place.item as usize) {
            Item::Sample(series, sample) => {
                let refusal = bounds.refusal_of_first(sample).map(Verdict::from);
                match names.get(content, series, refusal)? {
                    Ok(series) => gathered.sample(at, series, sample.clone()),
                    Err(verdict) => verdicts[at] = verdict,
                }
            }
            // No series is made for its sake. It isn't refused either: its samples are, if there were any.
            Item::Exemplar(series, exemplar) => {
                match names.get(content, series, Some(Verdict::Superseded))? {
                    Ok(series) => {
                        gathered.exemplars.push((series, exemplar.clone()));
                        verdicts[at] = Verdict::Stored;
                    }
                    Err(verdict) => verdicts[at] = verdict,
                }
            }
            Item::Family(family) => {
                gathered.families.push(family.clone());
                verdicts[at] = Verdict::Stored;
            }
        }
    }
    gathered.append(&content.tenant, &bounds, verdicts)
}
