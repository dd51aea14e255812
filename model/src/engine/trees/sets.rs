//! Answers to the splits that ask whether a value lies in a set: all sets of a feature at once.
//!
//! The ends of all intervals cut the numbers into cells, in each of which the answers are the same: a search finds a value's
//! cell, and a table has the answers. A table has the answers of at most [`SETS_MAX`] sets, which bounds its size by a small
//! multiple of the intervals'.
#![forbid(unsafe_code)]

use super::sums::Matrix;
use crate::form::Interval;

/// Sets that share a table. Larger: tables grow with the square of the sets. Smaller: more searches a row.
const SETS_MAX: usize = 64;

/// The answer yes, in a byte: the smallest one.
pub(super) const YES: u8 = 0;
/// The answer no, in a byte: the largest one.
pub(super) const NO: u8 = u8::MAX;

/// A set of a feature: feature, the answer for NaN, what it holds.
pub(super) type Set = (u32, bool, Box<[Interval]>);

/// All sets that an ensemble asks for.
#[derive(Clone, Default)]
pub(super) struct Sets {
    count: usize,
    tables: Vec<Table>,
}

#[derive(Clone)]
struct Table {
    feature: u32,
    /// Which sets its columns answer.
    sets: Vec<u32>,
    /// Where cells begin, ascending: cell `n` has the numbers from `starts[n - 1]` to below `starts[n]`.
    starts: Vec<f32>,
    /// [`YES`] or [`NO`], shape `[cells, sets]`; the last cell is NaN.
    answers: Vec<u8>,
}

impl Sets {
    pub fn new(sets: Vec<Set>) -> Sets {
        let mut order: Vec<u32> = (0..sets.len() as u32).collect();
        order.sort_by_key(|set| sets[*set as usize].0);
        let of_one_feature = order.chunk_by(|one, other| sets[*one as usize].0 == sets[*other as usize].0);
        let tables = of_one_feature.flat_map(|chunk| chunk.chunks(SETS_MAX)).map(|chunk| Table::new(&sets, chunk));
        Sets { count: sets.len(), tables: tables.collect() }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn bytes(&self) -> usize {
        let table = |table: &Table| table.sets.len() * 4 + table.starts.len() * 4 + table.answers.len();
        self.tables.iter().map(table).sum()
    }

    /// Calls `put` with row, set and answer, for all of them.
    #[inline]
    pub fn answer(&self, rows: Matrix<'_>, mut put: impl FnMut(usize, usize, u8)) {
        for table in &self.tables {
            for row in 0..rows.rows() {
                let answers = table.answers_for(rows.row(row)[table.feature as usize]);
                for (set, answer) in table.sets.iter().zip(answers) {
                    put(row, *set as usize, *answer);
                }
            }
        }
    }
}

impl Table {
    fn new(sets: &[Set], chunk: &[u32]) -> Table {
        let sets_here = || chunk.iter().map(|set| &sets[*set as usize]);
        let mut starts: Vec<f32> = sets_here().flat_map(|set| &set.2).flat_map(starts).collect();
        starts.sort_unstable_by(f32::total_cmp);
        starts.dedup();
        let cells = starts.len() + 2;
        let mut answers = vec![NO; cells * chunk.len()];
        let mut places = answers.chunks_exact_mut(chunk.len());
        // No interval begins before the first start.
        places.next();
        for (start, places) in starts.iter().zip(&mut places) {
            for (set, place) in sets_here().zip(places) {
                *place = if holds(&set.2, *start) { YES } else { NO };
            }
        }
        let missing = places.next().expect("a cell for NaN");
        for (set, place) in sets_here().zip(missing) {
            *place = if set.1 { YES } else { NO };
        }
        Table { feature: sets[chunk[0] as usize].0, sets: chunk.to_vec(), starts, answers }
    }

    #[inline]
    fn answers_for(&self, x: f32) -> &[u8] {
        let after = self.starts.partition_point(|start| *start <= x);
        let cell = if x.is_nan() { self.starts.len() + 1 } else { after };
        &self.answers[cell * self.sets.len()..][..self.sets.len()]
    }
}

/// Where an interval's cell begins, and the cell after it.
fn starts(interval: &Interval) -> impl Iterator<Item = f32> {
    let after = (interval.last < f32::INFINITY).then(|| interval.last.next_up());
    [Some(interval.first), after].into_iter().flatten().map(super::columns::positive_zero)
}

fn holds(intervals: &[Interval], x: f32) -> bool {
    let after = intervals.partition_point(|interval| interval.first <= x);
    after > 0 && x <= intervals[after - 1].last
}
