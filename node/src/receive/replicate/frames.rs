//! Cutting what a store shall get into frames.

use std::collections::VecDeque;

use proto::peer::write as pb;

use super::content::Item;
use super::round::{Place, Round};
use crate::grpc::frame::{BodyWriter, Dictionary, REFS_MAX, Verdict};

/// Most items of a frame: what a receiver does at a stretch on an async thread.
pub const FRAME_ITEMS_MAX: usize = 8192;
/// A frame ends once its body has this many bytes.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// How the series of a round are called in some dictionary.
pub trait Names {
    /// The ref of a series, if it has one.
    fn find(&self, series: u32, hop: u8) -> Option<u32>;
    /// Gives a series a ref.
    fn set(&mut self, series: u32, hop: u8, name: u32);
}

/// Names for one frame that stands for itself: a hint.
pub struct OwnNames(Vec<u32>);

impl OwnNames {
    /// For the series of a round.
    pub fn of(round: &Round) -> Self {
        Self(vec![u32::MAX; round.content.series_count()])
    }
}

impl Names for OwnNames {
    fn find(&self, series: u32, _: u8) -> Option<u32> {
        Some(self.0[series as usize]).filter(|name| *name != u32::MAX)
    }

    fn set(&mut self, series: u32, _: u8, name: u32) {
        self.0[series as usize] = name;
    }
}

/// A frame and what it holds, in the order in which it is answered.
pub struct Cut {
    /// To be sent; without an id.
    pub frame: pb::Frame,
    /// One a verdict.
    pub places: Vec<Place>,
}

/// Makes frames.
#[derive(Default)]
pub struct Cutter {
    body: BodyWriter,
}

impl Cutter {
    /// Whether the dictionary has room for whatever a frame may define.
    pub fn has_room(dictionary: &Dictionary) -> bool {
        dictionary.len() + FRAME_ITEMS_MAX <= REFS_MAX
    }

    /// The next frame of `places`, which are taken from the front; `None` when there are none left. The dictionary
    /// must have room.
    pub fn next(
        &mut self,
        round: &Round,
        places: &mut VecDeque<Place>,
        dictionary: &mut Dictionary,
        names: &mut dyn Names,
    ) -> Option<Cut> {
        // Verdicts come in this order.
        let (mut samples, mut exemplars, mut families) =
            (Vec::with_capacity(places.len().min(FRAME_ITEMS_MAX)), Vec::new(), Vec::new());
        let mut metadata = Vec::new();
        let mut count = 0;
        while count < FRAME_ITEMS_MAX && self.body.size_bytes() < FRAME_BYTES_MAX {
            let Some(place) = places.pop_front() else { break };
            count += 1;
            match round.content.item(place.item as usize) {
                Item::Sample(series, sample) => {
                    let Some(name) = self.name(round, series, place, dictionary, names) else { continue };
                    self.body.sample(dictionary, name, sample);
                    samples.push(place);
                }
                Item::Exemplar(series, exemplar) => {
                    let Some(name) = self.name(round, series, place, dictionary, names) else { continue };
                    self.body.exemplar(name, exemplar);
                    exemplars.push(place);
                }
                Item::Family(family) => {
                    metadata.push(pb::Family {
                        name: family.family.clone(),
                        kind: family.kind.clone(),
                        help: family.help.clone(),
                        unit: family.unit.clone(),
                    });
                    families.push(place);
                }
            }
        }
        if count == 0 {
            return None;
        }
        samples.append(&mut exemplars);
        samples.append(&mut families);
        let bounds = round.content.bounds();
        let frame = pb::Frame {
            id: 0,
            epoch: round.view.epoch(),
            tenant: round.content.tenant.id().to_string(),
            in_order_min_ms: bounds.in_order_min_ms,
            out_of_order_min_ms: bounds.out_of_order_min_ms,
            max_ms: bounds.max_ms,
            is_hint: false,
            forget: false,
            body: self.body.finish().into(),
            families: metadata,
        };
        Some(Cut { frame, places: samples })
    }

    fn name(
        &mut self,
        round: &Round,
        series: u32,
        place: Place,
        dictionary: &mut Dictionary,
        names: &mut dyn Names,
    ) -> Option<u32> {
        let known = names.find(series, place.hop);
        if known.is_some() {
            return known;
        }
        // They could be read when the route was made, but limits may have changed since.
        let Ok(labels) = round.content.labels(series) else {
            round.refuse(place.item, Verdict::Invalid);
            return None;
        };
        let name = dictionary.define().expect("there is room for a frame");
        self.body.series(name, &labels);
        names.set(series, place.hop, name);
        Some(name)
    }
}

/// Frames that hold these places for a store, each complete in itself.
pub fn hints(round: &Round, places: Vec<Place>) -> Vec<pb::Frame> {
    let mut cutter = Cutter::default();
    let mut places = VecDeque::from(places);
    let mut frames = Vec::new();
    loop {
        let mut names = OwnNames::of(round);
        let Some(cut) = cutter.next(round, &mut places, &mut Dictionary::default(), &mut names) else {
            return frames;
        };
        frames.push(pb::Frame { is_hint: true, forget: true, ..cut.frame });
    }
}
