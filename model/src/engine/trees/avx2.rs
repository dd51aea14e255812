//! The engines' part for x86-64 with AVX2: 32 bytes at once.
//!
//! An [`Avx2`] is the proof that the CPU has the instructions: only [`Avx2::detect`] makes one.
#![expect(
    unsafe_code,
    reason = "intrinsics need a proof that the CPU has them, and programs run without bounds checks"
)]

use std::arch::x86_64::*;

use super::blend::{Group, Lanes, Merge, Pair};
use super::ranks::{LINE, Ranks};
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
        rank ^ 0x80
    }

    /// A rank passes if it is below the limit. A probe's rank is below the largest one.
    pub fn limit(rank: u8) -> u8 {
        Avx2::coded(rank + 1)
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
    for (cut, column) in ranks.cuts.iter().zip(columns) {
        let (pivots, buckets) = ranks.lines[cut.line as usize..].split_first().expect("a cut has pivots");
        let pivots = halves(pivots);
        for (row, place) in (0..rows.rows()).zip(&mut column.0) {
            let x = rows.row(row)[cut.rule.feature as usize];
            let wide = _mm256_set1_ps(x);
            let bucket = count_below(pivots, wide);
            let rank = bucket * LINE + count_below(halves(&buckets[bucket]), wide);
            // A cut has at most 255 thresholds.
            *place = Avx2::coded(cut.fixed_rank(x).unwrap_or(rank as u8));
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn halves(line: &[f32; LINE]) -> [__m256; 2] {
    let [first, second] = line.as_chunks::<8>().0 else { unreachable!("a line has two halves") };
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
    let mut result = BYTE_LEAVES;
    for Pair { column, limit, leaf } in group.pairs() {
        let limit = _mm256_set1_epi8(*limit as i8);
        let leaf = _mm256_set1_epi8(*leaf as i8);
        // SAFETY: columns are below `columns()`, by the group's invariant, and that many there are, by the caller's word.
        let ranks = unsafe { columns.get_unchecked(usize::from(*column)) };
        // SAFETY: pairs, merges and leaf numbers together are `places()`.
        let place = unsafe { places.get_unchecked_mut(result) };
        for part in 0..PARTS {
            // Where the rank is below, all bits are set: minus one.
            let numbers = _mm256_sub_epi8(leaf, _mm256_cmpgt_epi8(limit, load(ranks, part)));
            store(place, part, numbers);
        }
        result += 1;
    }
    for Merge { column, yes, no, limit } in group.merges() {
        let limit = _mm256_set1_epi8(*limit as i8);
        // SAFETY: columns are below `columns()`, as above.
        let ranks = unsafe { columns.get_unchecked(usize::from(*column)) };
        // SAFETY: places are below `places()`, by the group's invariant, and that many there are, by the caller's word.
        let yes = unsafe { places.get_unchecked(usize::from(*yes)) };
        // SAFETY: as above.
        let no = unsafe { places.get_unchecked(usize::from(*no)) };
        let mut numbers = [_mm256_setzero_si256(); PARTS];
        for (part, numbers) in numbers.iter_mut().enumerate() {
            let passes = _mm256_cmpgt_epi8(limit, load(ranks, part));
            *numbers = _mm256_blendv_epi8(load(no, part), load(yes, part), passes);
        }
        // SAFETY: pairs, merges and leaf numbers together are `places()`.
        let place = unsafe { places.get_unchecked_mut(result) };
        for (part, numbers) in numbers.into_iter().enumerate() {
            store(place, part, numbers);
        }
        result += 1;
    }
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
