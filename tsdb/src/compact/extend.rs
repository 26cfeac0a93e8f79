//! Writes a block anew with labels that hold for all of its series: what others say of a block as a whole.
//!
//! 1. The new labels' strings are merged into the symbols, which are sorted, so that numbers compare as strings do.
//! 2. Every series' labels are read in these numbers, the new ones put in; of a name that the series has already the new
//!    value wins, as external labels do in Thanos. Then the series are sorted: a label in the middle changes their order.
//! 3. Chunks are copied. Series that are the same by now become one: their chunks are merged.
//!
//! Memory: 8 bytes a label, [`LABELS_MAX`] at most, and 16 a series.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::series::Gathered;
use super::symbols::Renumbering;
use super::{FilesWriter, in_index};
use crate::block::{Block, BlockMeta};
use crate::disk::Disk;
use crate::files;
use crate::index::postings::PostingsSource as _;
use crate::index::reader::SeriesEntry;
use crate::index::writer::SymbolStage;
use crate::model::Labels;
use crate::{Error, Result};

/// Most labels of all series of a block together: 1 GiB of them.
const LABELS_MAX: usize = 128 << 20;

/// Writes the block `meta` into the folder `parent`: what `block` holds, each series with `labels` besides. It appears
/// whole or not at all; deletions are carried out. `None`, and no block, when nothing is left.
///
/// # Errors
/// [`Error::Corrupt`] names the file that is damaged; [`Error::Limit`] when there are more than `LABELS_MAX` labels, or
/// the index outgrows its format; those of the disk.
pub fn extend(
    disk: &Arc<dyn Disk>,
    parent: &Path,
    meta: BlockMeta,
    block: &Block,
    labels: &Labels,
) -> Result<Option<BlockMeta>> {
    extend_up_to(disk, parent, meta, block, labels, LABELS_MAX)
}

fn extend_up_to(
    disk: &Arc<dyn Disk>,
    parent: &Path,
    meta: BlockMeta,
    block: &Block,
    labels: &Labels,
    labels_max: usize,
) -> Result<Option<BlockMeta>> {
    let mut output = FilesWriter::create(disk, parent, meta)?;
    let symbols = NewSymbols::of(block, labels)?;
    let mut stage = SymbolStage::create(disk, &output.path(files::BLOCK_INDEX), symbols.count)?;
    for_each_symbol(block, labels, |text, _| stage.symbol(text))?;
    let mut index = stage.finish(&output.temporary("postings"))?;

    let all = AllSeries::read(block, &symbols, labels_max)?;
    let mut gathered = Gathered::default();
    let mut entry = SeriesEntry::default();
    for same in all.sorted().chunk_by(|a, b| all.labels(*a) == all.labels(*b)) {
        gathered.clear();
        for series in same {
            let id = all.ids[*series as usize];
            block.parts().index.series(id, &mut entry).map_err(|e| in_index(block, e))?;
            gathered.add(block, id, &entry.chunks);
        }
        let chunks = gathered.write(&mut output)?;
        if !chunks.is_empty() {
            index.series(all.labels(same[0]), chunks)?;
        }
    }
    if output.meta.stats.num_series == 0 {
        return Ok(None);
    }
    index.finish()?;
    output.finish().map(Some)
}

/// Visits all strings in order, each with what the block calls it, if it does.
fn for_each_symbol(
    block: &Block,
    labels: &Labels,
    mut visit: impl FnMut(&str, Option<u32>) -> Result<()>,
) -> Result<()> {
    let new: BTreeSet<&str> = labels.iter().flat_map(|(name, value)| [name, value]).collect();
    let mut new = new.into_iter().peekable();
    let mut previous: Option<&str> = None;
    for symbol in block.parts().index.symbols().iter() {
        let (reference, text) = symbol.map_err(|e| in_index(block, e))?;
        if previous.replace(text).is_some_and(|previous| previous >= text) {
            let error = Error::corrupt("symbol table", 0, format!("{text:?} isn't in order"));
            return Err(in_index(block, error));
        }
        while let Some(before) = new.next_if(|new| *new < text) {
            visit(before, None)?;
        }
        new.next_if_eq(&text);
        visit(text, Some(reference))?;
    }
    new.try_for_each(|text| visit(text, None))
}

/// What strings are called in the new index.
struct NewSymbols {
    count: u32,
    /// By what the block calls them.
    renumbering: Renumbering,
    /// The labels that are added, by name.
    added: Vec<(u32, u32)>,
}

impl NewSymbols {
    fn of(block: &Block, labels: &Labels) -> Result<Self> {
        let mut added: Vec<(u32, u32)> = labels.iter().map(|_| (0, 0)).collect();
        let (mut count, mut pairs) = (0, Vec::new());
        for_each_symbol(block, labels, |text, reference| {
            for (numbers, (name, value)) in added.iter_mut().zip(labels.iter()) {
                if name == text {
                    numbers.0 = count;
                }
                if value == text {
                    numbers.1 = count;
                }
            }
            pairs.extend(reference.map(|reference| (reference, count)));
            count += 1;
            Ok(())
        })?;
        Ok(Self { count, renumbering: Renumbering::new(pairs), added })
    }
}

/// The new labels of a block's series.
struct AllSeries {
    ids: Vec<u32>,
    /// Where each series' labels end in `pairs`.
    ends: Vec<usize>,
    pairs: Vec<(u32, u32)>,
}

impl AllSeries {
    fn read(block: &Block, symbols: &NewSymbols, labels_max: usize) -> Result<Self> {
        let index = &block.parts().index;
        let mut all = Self { ids: Vec::new(), ends: Vec::new(), pairs: Vec::new() };
        let mut entry = SeriesEntry::default();
        for id in &index.all().map_err(|e| in_index(block, e))? {
            index.series(id, &mut entry).map_err(|e| in_index(block, e))?;
            let start = all.pairs.len();
            for &(name, value) in &entry.labels {
                let numbers = symbols.renumbering.get(name).zip(symbols.renumbering.get(value));
                let wrong = || Error::corrupt("series", 0, format!("series {id}: it refers to no symbol"));
                let (name, value) = numbers.ok_or_else(|| in_index(block, wrong()))?;
                if symbols.added.iter().all(|(added, _)| *added != name) {
                    all.pairs.push((name, value));
                }
            }
            all.pairs.extend_from_slice(&symbols.added);
            if all.pairs.len() > labels_max {
                return Err(Error::Limit(format!(
                    "the series of block {} have more than {labels_max} labels together: too many to add others",
                    block.meta().ulid
                )));
            }
            all.pairs[start..].sort_unstable();
            if !all.pairs[start..].is_sorted_by(|a, b| a.0 < b.0) {
                let wrong = Error::corrupt("series", 0, format!("series {id}: a label occurs twice"));
                return Err(in_index(block, wrong));
            }
            all.ids.push(id);
            all.ends.push(all.pairs.len());
        }
        Ok(all)
    }

    fn labels(&self, series: u32) -> &[(u32, u32)] {
        let series = series as usize;
        let start = if series == 0 { 0 } else { self.ends[series - 1] };
        &self.pairs[start..self.ends[series]]
    }

    /// Numbers of the series in order of their new labels.
    fn sorted(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.ids.len() as u32).collect();
        // Of equal labels the first stays first, so that the same input makes the same block.
        order.sort_by(|a, b| self.labels(*a).cmp(self.labels(*b)));
        order
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use proptest::prelude::*;
    use ulid::Ulid;

    use super::super::tests::{block, disk, labels, read, run};
    use super::*;
    use crate::model::LabelsBuilder;

    fn extended(disk: &Arc<dyn Disk>, input: &Block, added: &Labels) -> Block {
        let old = input.meta();
        let meta = BlockMeta::new(Ulid(99), old.min_ms, old.max_ms);
        let meta = extend(disk, Path::new(""), meta, input, added).unwrap().unwrap();
        let output = Block::open(&**disk, &PathBuf::from(meta.ulid.to_string())).unwrap();
        assert_eq!(output.verify().problems, [""; 0]);
        assert_eq!(output.meta(), &meta);
        output
    }

    #[test]
    fn every_series_has_the_labels_and_of_two_values_the_new_one() {
        let disk = disk();
        let contents = [
            (labels(&[("__name__", "up"), ("job", "x")]), run(0..100, 1.0)),
            (labels(&[("__name__", "up"), ("cluster", "old"), ("job", "x")]), run(50..150, 2.0)),
            (labels(&[("__name__", "up"), ("job", "y"), ("zone", "z")]), run(0..3, 3.0)),
        ];
        let input = block(&disk, 1, &contents.into());
        let output = extended(&disk, &input, &labels(&[("cluster", "eu1"), ("job", "x")]));
        let found = read(&output);
        let expected = [
            labels(&[("__name__", "up"), ("cluster", "eu1"), ("job", "x")]),
            labels(&[("__name__", "up"), ("cluster", "eu1"), ("job", "x"), ("zone", "z")]),
        ];
        assert_eq!(found.keys().cloned().collect::<Vec<_>>(), expected);
        assert_eq!(
            found[&expected[0]].len(),
            150,
            "two series that are the same now have one another's samples"
        );
        assert_eq!(found[&expected[1]].len(), 3);
    }

    #[test]
    fn a_block_with_too_many_labels_is_refused_and_leaves_nothing() {
        let disk = disk();
        let contents = [(labels(&[("a", "1")]), run(0..9, 1.0)), (labels(&[("a", "2")]), run(0..9, 1.0))];
        let input = block(&disk, 1, &contents.into());
        let meta = BlockMeta::new(Ulid(2), 0, 7_200_000);
        let added = labels(&[("b", "3")]);
        let refused = extend_up_to(&disk, Path::new(""), meta.clone(), &input, &added, 3);
        assert!(matches!(refused, Err(Error::Limit(_))), "{refused:?}");
        assert_eq!(disk.list(Path::new("")).unwrap().len(), 1);
        assert!(extend_up_to(&disk, Path::new(""), meta, &input, &added, 4).unwrap().is_some());
    }

    fn few_labels() -> impl Strategy<Value = Labels> {
        prop::collection::btree_map("[a-d]{1,2}", "[a-c]{1,2}", 0..4)
            .prop_map(|m| Labels::from_sorted(m.iter().map(|(n, v)| (n.as_str(), v.as_str()))))
    }

    proptest! {
        #[test]
        fn it_is_as_if_the_series_had_had_them(
            contents in prop::collection::btree_map(few_labels(), prop::collection::btree_map(0..7_200_000i64, any::<i8>().prop_map(f64::from), 1..30), 1..10),
            added in few_labels(),
        ) {
            let disk = disk();
            let input = block(&disk, 1, &contents);
            let mut expected = BTreeMap::<Labels, BTreeSet<i64>>::new();
            for (own, samples) in &contents {
                let mut builder = LabelsBuilder::default();
                for (name, value) in own.iter().chain(added.iter()) {
                    builder.set(name, value);
                }
                expected.entry(builder.labels()).or_default().extend(samples.keys());
            }
            let found = read(&extended(&disk, &input, &added));
            let times = found.into_iter().map(|(labels, samples)| (labels, samples.into_keys().collect()));
            prop_assert_eq!(times.collect::<BTreeMap<_, BTreeSet<i64>>>(), expected);
        }
    }
}
