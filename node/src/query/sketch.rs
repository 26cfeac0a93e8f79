//! Sketches of sets of marks: sums from which those marks are read in which two sets differ, in bytes that go by how many
//! those are and not by how large the sets are.
//!
//! A sketch has three rows of cells. Each mark is added to one cell of each row, chosen by the mark itself. What two
//! sketches of the same size differ by is a sketch of the marks that only one of both sets has. Where a cell holds one mark
//! alone, that is read and taken out of its other cells, in which then others may stand alone. Where that ends before all
//! cells are empty, there were more differences than cells for them, and nothing is known.
//!
//! ```text
//! cell  how many, less those of the other set i32 LE | check u32 LE | hash u64 LE | fingerprint u128 LE
//!       all but the first are the exclusive or of the marks'
//! ```

use xxhash_rust::xxh3::xxh3_128;

use crate::grpc::read::Mark;

const ROWS: usize = 3;
/// Of a cell, as it is sent.
const CELL_BYTES: usize = 32;
/// Cells of the smallest sketch: fewer would too often hold two marks in the same places.
const CELLS_MIN: usize = 24;
/// Cells for each series in which owners may differ. That is two marks, and one mark needs somewhat more than a cell.
const CELLS_EACH: usize = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    count: i32,
    check: u32,
    hash: u64,
    fingerprint: u128,
}

/// A sketch of a set of marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch(Vec<Cell>);

/// Marks that one of two sets has and the other doesn't.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Those of the first.
    pub ours: Vec<Mark>,
    /// Those of the second.
    pub theirs: Vec<Mark>,
}

impl Sketch {
    /// Of nothing yet, large enough for what is to be expected where `unequal` of `buckets` differ.
    pub fn sized(unequal: usize, buckets: usize) -> Self {
        let cells = CELLS_MIN + CELLS_EACH * differing(unequal, buckets);
        Self(vec![Cell::default(); cells.next_multiple_of(ROWS)])
    }

    /// How many bytes it takes on its way.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() * CELL_BYTES
    }

    /// Adds a mark that isn't in it.
    pub fn add(&mut self, mark: Mark) {
        self.put(mark, 1);
    }

    fn put(&mut self, mark: Mark, count: i32) {
        let (places, check) = places(mark, self.0.len());
        for place in places {
            let cell = &mut self.0[place];
            cell.count = cell.count.wrapping_add(count);
            cell.check ^= check;
            cell.hash ^= mark.hash;
            cell.fingerprint ^= mark.fingerprint;
        }
    }

    /// What this one's set and another's differ by; `None` where it can't be told.
    pub(super) fn difference(&self, other: &Self) -> Option<Difference> {
        if self.0.len() != other.0.len() {
            return None;
        }
        let less = |(a, b): (&Cell, &Cell)| Cell {
            count: a.count.wrapping_sub(b.count),
            check: a.check ^ b.check,
            hash: a.hash ^ b.hash,
            fingerprint: a.fingerprint ^ b.fingerprint,
        };
        let mut rest = Self(self.0.iter().zip(&other.0).map(less).collect());
        let mut difference = Difference::default();
        let mut suspects: Vec<usize> = (0..rest.0.len()).collect();
        while let Some(place) = suspects.pop() {
            let Cell { count, check, hash, fingerprint } = rest.0[place];
            let mark = Mark { hash, fingerprint };
            let (places, expected) = places(mark, rest.0.len());
            if count.abs() != 1 || check != expected || !places.contains(&place) {
                continue;
            }
            let side = if count == 1 { &mut difference.ours } else { &mut difference.theirs };
            side.push(mark);
            // A cell gives one mark at most, where nobody made it up.
            if difference.ours.len() + difference.theirs.len() > rest.0.len() {
                return None;
            }
            rest.put(mark, -count);
            suspects.extend(places);
        }
        rest.0.iter().all(|cell| *cell == Cell::default()).then_some(difference)
    }

    /// As bytes, to be sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let cell = |cell: &Cell| {
            let mut bytes = [0; CELL_BYTES];
            bytes[..4].copy_from_slice(&cell.count.to_le_bytes());
            bytes[4..8].copy_from_slice(&cell.check.to_le_bytes());
            bytes[8..16].copy_from_slice(&cell.hash.to_le_bytes());
            bytes[16..].copy_from_slice(&cell.fingerprint.to_le_bytes());
            bytes
        };
        self.0.iter().flat_map(cell).collect()
    }

    /// From what [`Sketch::to_bytes`] gave; `None` where it didn't.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (cells, rest) = bytes.as_chunks::<CELL_BYTES>();
        if !rest.is_empty() || cells.len() < ROWS || !cells.len().is_multiple_of(ROWS) {
            return None;
        }
        let cell = |bytes: &[u8; CELL_BYTES]| {
            let (narrow, fingerprint) = bytes.split_at(16);
            let (counted, hash) = narrow.split_at(8);
            let (count, check) = counted.split_at(4);
            Cell {
                count: i32::from_le_bytes(count.try_into().expect("four bytes")),
                check: u32::from_le_bytes(check.try_into().expect("four bytes")),
                hash: u64::from_le_bytes(hash.try_into().expect("eight bytes")),
                fingerprint: u128::from_le_bytes(fingerprint.try_into().expect("sixteen bytes")),
            }
        };
        Some(Self(cells.iter().map(cell).collect()))
    }
}

/// A mark's cells, one of each row, and its check.
fn places(mark: Mark, cells: usize) -> ([usize; ROWS], u32) {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&mark.hash.to_le_bytes());
    bytes[8..].copy_from_slice(&mark.fingerprint.to_le_bytes());
    let hash = xxh3_128(&bytes);
    let row = cells / ROWS;
    let place = |i: usize| {
        let part = (hash >> (32 * i)) as u32;
        i * row + ((u64::from(part) * row as u64) >> 32) as usize
    };
    (std::array::from_fn(place), (hash >> 96) as u32)
}

/// How many series differ, most likely, where so many buckets do: several may be in one bucket.
fn differing(unequal: usize, buckets: usize) -> usize {
    // Where all differ, there is no telling; then as if half a bucket were equal.
    let equal = (buckets.saturating_sub(unequal) as f64).max(0.5);
    let buckets = buckets as f64;
    (buckets * (buckets / equal).ln()).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(i: u64) -> Mark {
        Mark { hash: i.wrapping_mul(0x9e37_79b9_7f4a_7c15), fingerprint: u128::from(i) << 50 | 3 }
    }

    fn sketch(unequal: usize, marks: impl IntoIterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::sized(unequal, 256);
        marks.into_iter().for_each(|i| sketch.add(mark(i)));
        sketch
    }

    fn told(difference: Option<Difference>) -> Option<(Vec<Mark>, Vec<Mark>)> {
        difference.map(|Difference { mut ours, mut theirs }| {
            ours.sort_unstable();
            theirs.sort_unstable();
            (ours, theirs)
        })
    }

    fn marks(all: impl IntoIterator<Item = u64>) -> Vec<Mark> {
        let mut marks: Vec<_> = all.into_iter().map(mark).collect();
        marks.sort_unstable();
        marks
    }

    #[test]
    fn differences_are_read_however_large_the_sets_are() {
        let ours = sketch(20, 0..100_000);
        assert_eq!(told(ours.difference(&ours)), Some((Vec::new(), Vec::new())));
        let theirs = sketch(20, (15..100_000).chain(200_000..200_020));
        assert_eq!(told(ours.difference(&theirs)), Some((marks(0..15), marks(200_000..200_020))));
        let back = Sketch::from_bytes(&theirs.to_bytes()).unwrap();
        assert_eq!(back, theirs);
        assert!(theirs.to_bytes().len() < 4096 && theirs.to_bytes().len() == theirs.bytes());
    }

    #[test]
    fn what_is_to_be_expected_is_read_nearly_always() {
        for unequal in [1, 2, 10, 100, 255] {
            let each = differing(unequal, 256) as u64;
            let unread = (0..200).filter(|round| {
                let first = round * 1_000_000;
                let ours = sketch(unequal, first..first + each);
                let theirs = sketch(unequal, first + 500_000..first + 500_000 + each);
                ours.difference(&theirs).is_none()
            });
            assert!(unread.count() <= 4, "{unequal}");
        }
    }

    #[test]
    fn too_many_differences_are_noticed() {
        for more in [60, 1_000, 20_000] {
            assert_eq!(sketch(1, 0..more).difference(&sketch(1, [])), None, "{more}");
        }
        assert_eq!(sketch(1, 0..3).difference(&sketch(200, 0..3)), None);
    }

    #[test]
    fn more_buckets_that_differ_take_more_cells() {
        let cells: Vec<_> = [1, 64, 200, 255, 256, 257].map(|n| Sketch::sized(n, 256).0.len()).to_vec();
        assert!(cells.is_sorted() && cells[4] == cells[5], "{cells:?}");
        assert!(cells[0] < 40 && cells[4] < 8_000, "{cells:?}");
    }

    #[test]
    fn made_up_cells_end_in_nothing() {
        let mut random = 7_u64;
        for _ in 0..200 {
            let mut bytes = sketch(1, 0..5).to_bytes();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let place = random as usize % bytes.len();
            bytes[place] ^= 1 << (random >> 60 & 7);
            assert_eq!(Sketch::from_bytes(&bytes).unwrap().difference(&sketch(1, 0..4)), None);
        }
        for length in [0, 31, 32, 64, 128] {
            assert_eq!(Sketch::from_bytes(&vec![0; length]), None, "{length}");
        }
    }
}
