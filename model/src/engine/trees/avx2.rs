//! The engines' part for x86-64 with AVX2: 32 bytes at once.
//!
//! An [`Avx2`] is the proof that the CPU has the instructions: only [`Avx2::detect`] makes one.
#![expect(
    unsafe_code,
    reason = "intrinsics need a proof that the CPU has them, and programs run without bounds checks"
)]

use std::arch::x86_64::*;

use super::ROWS_MAX;
use super::blend::{Group, Lanes, Merge, Pair, Quad};
use super::blocks::{EXIT, Fork, Root, TO_FORK, TREES_TOGETHER, exit_of};
use super::ranks::{LINE, Line, Ranks, Row, SIGNED, by_rule};
use super::sums::{BYTE_LEAVES, Matrix};
use crate::engine::simd::Simd;

/// Proof that this CPU has AVX2 and what comes with it.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// Rows in a register.
const WIDTH: usize = 32;

impl Avx2 {
    pub fn detect() -> Option<Avx2> {
        Simd::Avx2.is_available().then_some(Avx2(()))
    }

    /// Bytes are compared as signed ones.
    pub fn coded(rank: u8) -> u8 {
        rank ^ SIGNED
    }

    /// A rank passes if it is below the limit. A probe's rank is below the largest one.
    pub fn limit(rank: u8) -> u8 {
        Avx2::coded(rank + 1)
    }

    /// Eight registers of sixteen.
    pub const BLOCK_COLUMNS: usize = 128;

    pub fn rank_row(self, ranks: &Ranks, row: &[f32], places: &mut Row) {
        // SAFETY: the CPU has the features, or there were no `self`.
        unsafe { rank_row(ranks, row, places) }
    }

    pub fn find(self, roots: &[Root], forks: &[Fork], row: &Row, columns: usize, found: &mut [u32; TREES_TOGETHER]) {
        match columns {
            // SAFETY: the CPU has the features, or there were no `self`.
            0..=16 => unsafe { find::<1>(roots, forks, row, found) },
            // SAFETY: as above.
            17..=32 => unsafe { find::<2>(roots, forks, row, found) },
            // SAFETY: as above.
            33..=64 => unsafe { find::<4>(roots, forks, row, found) },
            // SAFETY: as above.
            _ => unsafe { find::<8>(roots, forks, row, found) },
        }
    }

    pub fn rank_columns(self, ranks: &Ranks, rows: Matrix<'_>, columns: &mut [Lanes]) {
        // SAFETY: the CPU has the features, or there were no `self`.
        unsafe { rank_columns(ranks, rows, columns) }
    }

    pub fn blend(self, group: &Group, rows: usize, columns: &[Lanes], places: &mut [Lanes]) {
        assert!(columns.len() >= group.columns() && places.len() >= group.places(), "room for what the group names");
        if rows <= WIDTH {
            // SAFETY: the CPU has the features, or there were no `self`; the slices are as long as asked, see above.
            unsafe { blend::<1>(group, columns, places) }
        } else {
            // SAFETY: as above.
            unsafe { blend::<2>(group, columns, places) }
        }
    }
}

#[target_feature(enable = "avx2,popcnt")]
fn rank_columns(ranks: &Ranks, rows: Matrix<'_>, columns: &mut [Lanes]) {
    let (mut values, mut below) = ([0.0; ROWS_MAX], [0; ROWS_MAX]);
    for cut in &ranks.cuts {
        let (pivots, buckets) = ranks.lines(cut);
        let pivots = halves(pivots);
        let features = rows.numbers[cut.feature as usize..].iter().step_by(rows.columns);
        for ((feature, value), below) in features.zip(&mut values).zip(&mut below) {
            *value = *feature;
            *below = count(pivots, buckets, *feature);
        }
        for column in cut.columns.clone() {
            by_rule(ranks.rules[column], &values, &below, SIGNED, &mut columns[column]);
        }
    }
}

#[target_feature(enable = "avx2,popcnt")]
fn rank_row(ranks: &Ranks, row: &[f32], places: &mut Row) {
    for cut in &ranks.cuts {
        let (pivots, buckets) = ranks.lines(cut);
        let x = row[cut.feature as usize];
        places.put(cut, x, count(halves(pivots), buckets, x));
    }
    places.finish(SIGNED);
}

/// How many thresholds of a cut are below a value.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn count(pivots: [__m256; 2], buckets: &[Line], x: f32) -> u8 {
    let wide = _mm256_set1_ps(x);
    let bucket = count_below(pivots, wide);
    // A cut has at most 255 thresholds.
    (bucket * LINE + count_below(halves(&buckets[bucket]), wide)) as u8
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn halves(line: &Line) -> [__m256; 2] {
    let [first, second] = line.0.as_chunks::<8>().0 else { unreachable!("a line has two halves") };
    [load_numbers(first), load_numbers(second)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_numbers(numbers: &[f32; 8]) -> __m256 {
    // SAFETY: there are eight numbers, at any alignment.
    unsafe { _mm256_loadu_ps(numbers.as_ptr()) }
}

/// How many numbers of an ascending line are below `x`; none is below NaN.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn count_below(line: [__m256; 2], x: __m256) -> usize {
    let below = line.map(|half| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(half, x)));
    (below[0] | (below[1] << 8)).count_ones() as usize
}

/// Runs a group's programs for the first `PARTS` times 32 rows.
///
/// # Safety
/// `columns` and `places` are as long as the group says.
#[target_feature(enable = "avx2,popcnt")]
unsafe fn blend<const PARTS: usize>(group: &Group, columns: &[Lanes], places: &mut [Lanes]) {
    // SAFETY: columns are below `columns()`, by the group's invariant, and that many there are, by the caller's word.
    let ranks_of = |column: u16| unsafe { columns.get_unchecked(usize::from(column)) };
    let mut result = BYTE_LEAVES;
    for Pair { column, limit, leaf } in group.pairs() {
        let ranks = ranks_of(*column);
        let (limit, leaf) = (_mm256_set1_epi8(*limit as i8), _mm256_set1_epi8(*leaf as i8));
        // SAFETY: pairs, quads, merges and leaf numbers together are `places()`.
        let place = unsafe { places.get_unchecked_mut(result) };
        for part in 0..PARTS {
            store(place, part, of_pair(load(ranks, part), limit, leaf));
        }
        result += 1;
    }
    for Quad { columns, limits, leaves } in group.quads() {
        let ranks = columns.map(ranks_of);
        let limits = limits.map(|limit| _mm256_set1_epi8(limit as i8));
        let leaves = leaves.map(|leaf| _mm256_set1_epi8(leaf as i8));
        // SAFETY: as above.
        let place = unsafe { places.get_unchecked_mut(result) };
        for part in 0..PARTS {
            let no = of_pair(load(ranks[1], part), limits[1], leaves[0]);
            let yes = of_pair(load(ranks[2], part), limits[2], leaves[1]);
            let passes = _mm256_cmpgt_epi8(limits[0], load(ranks[0], part));
            store(place, part, _mm256_blendv_epi8(no, yes, passes));
        }
        result += 1;
    }
    for Merge { column, yes, no, limit } in group.merges() {
        let limit = _mm256_set1_epi8(*limit as i8);
        let ranks = ranks_of(*column);
        // SAFETY: places are below `places()`, by the group's invariant, and that many there are, by the caller's word.
        let yes = unsafe { places.get_unchecked(usize::from(*yes)) };
        // SAFETY: as above.
        let no = unsafe { places.get_unchecked(usize::from(*no)) };
        let mut numbers = [_mm256_setzero_si256(); PARTS];
        for (part, numbers) in numbers.iter_mut().enumerate() {
            let passes = _mm256_cmpgt_epi8(limit, load(ranks, part));
            *numbers = _mm256_blendv_epi8(load(no, part), load(yes, part), passes);
        }
        // SAFETY: pairs, quads, merges and leaf numbers together are `places()`.
        let place = unsafe { places.get_unchecked_mut(result) };
        for (part, numbers) in numbers.into_iter().enumerate() {
            store(place, part, numbers);
        }
        result += 1;
    }
}

/// The leaf numbers of a pair.
#[inline]
#[target_feature(enable = "avx2")]
fn of_pair(ranks: __m256i, limit: __m256i, leaf: __m256i) -> __m256i {
    // Where the rank is below, all bits are set: minus one.
    _mm256_sub_epi8(leaf, _mm256_cmpgt_epi8(limit, ranks))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(lanes: &Lanes, part: usize) -> __m256i {
    let bytes = &lanes.0.as_chunks::<WIDTH>().0[part];
    // SAFETY: there are 32 bytes; lanes are aligned to 64, so each part of them to 32.
    unsafe { _mm256_load_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(lanes: &mut Lanes, part: usize, numbers: __m256i) {
    let bytes = &mut lanes.0.as_chunks_mut::<WIDTH>().0[part];
    // SAFETY: as for `load`; the bytes are borrowed for writing.
    unsafe { _mm256_store_si256(bytes.as_mut_ptr().cast(), numbers) }
}

/// The leaves of a row in some trees. `TABLES` registers hold its ranks, twice each.
#[target_feature(enable = "avx2,popcnt")]
fn find<const TABLES: usize>(roots: &[Root], forks: &[Fork], row: &Row, found: &mut [u32; TREES_TOGETHER]) {
    let mut tables = [_mm256_setzero_si256(); TABLES];
    for (table, ranks) in tables.iter_mut().zip(row.ranks.0.as_chunks::<16>().0) {
        *table = _mm256_broadcastsi128_si256(load_sixteen(ranks));
    }
    let mut late = [0_u8; TREES_TOGETHER + 1];
    let mut late_count = 0;
    for ((tree, root), place) in roots.iter().enumerate().zip(found.iter_mut()) {
        let exit = root.exits[exit_of(decide(root, tables))];
        *place = exit;
        late[late_count] = tree as u8;
        late_count += usize::from(exit >= TO_FORK);
    }
    while late_count > 0 {
        let mut later_count = 0;
        for index in 0..late_count {
            let tree = late[index];
            let place = &mut found[usize::from(tree)];
            let fork = &forks[(*place ^ TO_FORK) as usize];
            let exit = fork.exits[usize::from(EXIT[decide_fork(fork, tables)])];
            *place = exit;
            late[later_count] = tree;
            later_count += usize::from(exit >= TO_FORK);
        }
        late_count = later_count;
    }
}

/// The decisions of a root's splits, as bits.
#[inline]
#[target_feature(enable = "avx2")]
fn decide<const TABLES: usize>(root: &Root, tables: [__m256i; TABLES]) -> u64 {
    let mut decisions = 0;
    let parts = root.columns.as_chunks::<WIDTH>().0.iter().zip(root.limits.as_chunks::<WIDTH>().0);
    for (part, (columns, limits)) in parts.enumerate() {
        let ranks = pick(load_bytes(columns), tables);
        let passes = _mm256_cmpgt_epi8(load_bytes(limits), ranks);
        decisions |= u64::from(_mm256_movemask_epi8(passes) as u32) << (part * WIDTH);
    }
    decisions
}

/// The decisions of a fork's splits, as bits.
#[inline]
#[target_feature(enable = "avx2")]
fn decide_fork<const TABLES: usize>(fork: &Fork, tables: [__m256i; TABLES]) -> usize {
    let wide = |bytes: [u8; 8]| _mm256_castsi128_si256(_mm_cvtsi64_si128(i64::from_le_bytes(bytes)));
    let ranks = pick(wide(fork.columns), tables);
    let passes = _mm256_cmpgt_epi8(wide(fork.limits), ranks);
    (_mm256_movemask_epi8(passes) & 0x7F) as usize
}

/// The ranks of 32 columns.
#[inline]
#[target_feature(enable = "avx2")]
fn pick<const TABLES: usize>(columns: __m256i, tables: [__m256i; TABLES]) -> __m256i {
    // Each table is asked for the lower four bits. Then the highest bit that tells tables apart chooses between their halves,
    // and so on down to bit 4. A blend looks at the top of a byte: doubling moves the next bit there.
    let doubled = |bytes| _mm256_add_epi8(bytes, bytes);
    let mut answers = tables.map(|table| _mm256_shuffle_epi8(table, columns));
    let mut choice = (TABLES.ilog2()..4).fold(columns, |choice, _| doubled(choice));
    let mut count = TABLES / 2;
    while count > 0 {
        for index in 0..count {
            answers[index] = _mm256_blendv_epi8(answers[index], answers[index + count], choice);
        }
        choice = doubled(choice);
        count /= 2;
    }
    answers[0]
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_bytes(bytes: &[u8; WIDTH]) -> __m256i {
    // SAFETY: there are 32 bytes, at any alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_sixteen(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: there are 16 bytes, at any alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}
