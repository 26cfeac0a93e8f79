//! Quantiles over overlapping windows: all samples of a series are ranked once, and a tree counts those inside by rank,
//! so that a window costs the samples that come and go, and each rank that is asked for, a logarithm.

use super::{FloatRun, StepValues, Window, Windows};
use crate::eval::number::{nan_first, quantile as quantile_of, weighted};

/// `quantile_over_time`
pub fn quantile(windows: &Windows, run: FloatRun<'_>, phi: &StepValues, out: &mut [f64]) {
    slide(windows, run, |window, inside| out[window.step] = inside.quantile(phi.at(window.step)));
}

/// `mad_over_time`: the median of the distances from the median; NaN where a sample is.
pub fn median_deviation(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    slide(windows, run, |window, inside| {
        // NaN has the lowest ranks.
        let median = if inside.nth(0).is_nan() { f64::NAN } else { inside.quantile(0.5) };
        out[window.step] = if median.is_finite() {
            inside.deviation(median)
        } else if median.is_nan() {
            f64::NAN
        } else {
            // Infinite values have no distance from it, others an infinite one: nothing to order.
            let distances = run.values[window.lo..window.hi].iter().map(|v| (v - median).abs());
            quantile_of(0.5, &mut distances.collect::<Vec<f64>>())
        };
    });
}

fn slide(windows: &Windows, run: FloatRun<'_>, mut result: impl FnMut(Window, &Inside)) {
    let mut inside = Inside::new(run.values);
    let (mut from, mut to) = (0, 0);
    windows.each(run.timestamps, |window| {
        if window.len() == 0 {
            return;
        }
        (from..window.lo.min(to)).for_each(|at| inside.put(at, -1));
        (to.max(window.lo)..window.hi).for_each(|at| inside.put(at, 1));
        (from, to) = (window.lo, window.hi);
        result(window, &inside);
    });
}

/// The samples inside of a window, by rank.
struct Inside {
    /// Of each sample.
    ranks: Vec<u32>,
    /// By rank.
    sorted: Vec<f64>,
    /// A Fenwick tree over ranks (Fenwick 1994): node `i`, from 1 on, counts the ranks `i - lowbit(i)` to `i - 1`.
    tree: Vec<i32>,
    count: usize,
}

impl Inside {
    fn new(values: &[f64]) -> Self {
        let index = |i: usize| u32::try_from(i).expect("a series in memory has fewer than 2^32 samples");
        let mut order: Vec<u32> = (0..values.len()).map(index).collect();
        order.sort_by(|a, b| nan_first(&values[*a as usize], &values[*b as usize]));
        let mut ranks = vec![0; values.len()];
        for (rank, at) in order.iter().enumerate() {
            ranks[*at as usize] = index(rank);
        }
        let sorted = order.iter().map(|at| values[*at as usize]).collect();
        Self { ranks, sorted, tree: vec![0; values.len() + 1], count: 0 }
    }

    /// Takes a sample in (1) or out (-1).
    fn put(&mut self, at: usize, change: i32) {
        self.count = self.count.saturating_add_signed(change as isize);
        let mut node = self.ranks[at] as usize + 1;
        while node < self.tree.len() {
            self.tree[node] += change;
            node += node & node.wrapping_neg();
        }
    }

    /// The `n`-th least value inside, from 0 on.
    fn nth(&self, n: usize) -> f64 {
        let mut wanted = n as i32;
        let mut node = 0;
        let mut width = self.tree.len().next_power_of_two() / 2;
        while width > 0 {
            if node + width < self.tree.len() && self.tree[node + width] <= wanted {
                node += width;
                wanted -= self.tree[node];
            }
            width /= 2;
        }
        self.sorted[node]
    }

    fn quantile(&self, phi: f64) -> f64 {
        weighted(phi, self.count, |n| (self.nth(n), self.nth(self.after(n))))
    }

    /// The median distance from `center`, none of the values NaN.
    fn deviation(&self, center: f64) -> f64 {
        let nth = |n| self.nth_distance(center, n);
        weighted(0.5, self.count, |n| (nth(n), nth(self.after(n))))
    }

    /// The rank after `n`, or `n` where that is the last.
    fn after(&self, n: usize) -> usize {
        (n + 1).min(self.count - 1)
    }

    /// The `n`-th least distance from `center`: what is below and what is above are each sorted by distance, so it is
    /// enough to find how many of the `n + 1` nearest lie below.
    fn nth_distance(&self, center: f64, n: usize) -> f64 {
        let (mut below, mut high) = (0, self.count);
        while below < high {
            let middle = usize::midpoint(below, high);
            if self.nth(middle) <= center { below = middle + 1 } else { high = middle }
        }
        let above = self.count - below;
        let left = |i: usize| (self.nth(below - 1 - i) - center).abs();
        let right = |i: usize| (self.nth(below + i) - center).abs();
        let nearest = n + 1;
        let (mut least, mut most) = (nearest.saturating_sub(above), nearest.min(below));
        while least < most {
            let taken = usize::midpoint(least, most);
            // Too few from the left, if the next of them is nearer than the last from the right.
            if left(taken) < right(nearest - taken - 1) { least = taken + 1 } else { most = taken }
        }
        let from_left = least.checked_sub(1).map_or(f64::NEG_INFINITY, left);
        let from_right = (nearest - least).checked_sub(1).map_or(f64::NEG_INFINITY, right);
        from_left.max(from_right)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranks_inside_are_those_of_sorting(
            values in prop::collection::vec(-20i32..20, 1..60), from in 0usize..60, length in 1usize..60
        ) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let from = from.min(values.len() - 1);
            let to = (from + length).min(values.len());
            let mut inside = Inside::new(&values);
            (from..to).for_each(|at| inside.put(at, 1));
            let mut sorted = values[from..to].to_vec();
            sorted.sort_by(f64::total_cmp);
            let center = inside.quantile(0.5);
            let mut distances: Vec<f64> = sorted.iter().map(|v| (v - center).abs()).collect();
            distances.sort_by(f64::total_cmp);
            for n in 0..sorted.len() {
                prop_assert_eq!(inside.nth(n), sorted[n]);
                prop_assert_eq!(inside.nth_distance(center, n), distances[n]);
            }
        }
    }
}
