//! This node's own part of a write.

use tsdb::db::{Append, Outcome, SeriesRef, Tenant};
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

    /// The series' name, made where there is none.
    fn get(&mut self, content: &Content, series: u32) -> Result<std::result::Result<SeriesRef, Verdict>> {
        let name = &mut self.0[series as usize];
        if *name == Ok(SeriesRef::NONE) {
            *name = match content.labels(series) {
                Ok(labels) => intern(&content.tenant, content.key(series), &labels)?,
                Err(_) => Err(Verdict::Invalid),
            };
        }
        Ok(*name)
    }
}

/// The series with these labels, or why there can be none.
///
/// # Errors
/// When nothing can be stored at all.
pub fn intern(
    tenant: &Tenant,
    key: tsdb::db::SeriesKey,
    labels: &tsdb::model::Labels,
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

fn append(
    content: &Content,
    places: &[Place],
    names: &mut Names,
    verdicts: &mut [Verdict],
) -> Result<WalPosition> {
    let tenant = &content.tenant;
    let (mut appends, mut places_of_appends) =
        (Vec::with_capacity(places.len()), Vec::with_capacity(places.len()));
    let (mut exemplars, mut families) = (Vec::new(), Vec::new());
    for (at, place) in places.iter().enumerate() {
        match content.item(place.item as usize) {
            Item::Sample(series, sample) => match names.get(content, series)? {
                Ok(series) => {
                    appends.push(Append { series, sample: sample.clone() });
                    places_of_appends.push(at);
                }
                Err(verdict) => verdicts[at] = verdict,
            },
            Item::Exemplar(series, exemplar) => match names.get(content, series)? {
                Ok(series) => {
                    exemplars.push((series, exemplar.clone()));
                    verdicts[at] = Verdict::Stored;
                }
                Err(verdict) => verdicts[at] = verdict,
            },
            Item::Family(family) => {
                families.push(family.clone());
                verdicts[at] = Verdict::Stored;
            }
        }
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut position = WalPosition::default();
    if !appends.is_empty() {
        position = tenant.append(&appends, &content.bounds(), &mut outcomes)?;
        for (at, outcome) in places_of_appends.into_iter().zip(outcomes) {
            verdicts[at] = outcome.into();
        }
    }
    if !exemplars.is_empty() {
        position = position.max(tenant.append_exemplars(&exemplars)?);
    }
    if !families.is_empty() {
        position = position.max(tenant.append_metadata(&families)?);
    }
    Ok(position)
}
