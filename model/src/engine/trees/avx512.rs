//! The engines' part for x86-64 with AVX-512 and VBMI: 64 bytes at once.
//!
//! An [`Avx512`] is the proof that the CPU has the instructions: only [`Avx512::detect`] makes one. Bytes lie in columns as they
//! do for AVX2, so that its blends do where 32 rows are enough.
#![expect(
    unsafe_code,
    reason = "intrinsics need a proof that the CPU has them, and programs run without bounds checks"
)]

use std::arch::x86_64::*;

use super::ROWS_MAX;
use super::avx2::Avx2;
use super::blend::{Group, Lanes, Merge, Pair, Quad};
use super::blocks::{Fork, Root, TREES_TOGETHER};
use super::jumps::{Ends, Leaving, PLACES, Page};
use super::ranks::{LINE, Line, Ranks, Row, SIGNED, by_rule};
use super::sums::{BYTE_LEAVES, Matrix};
use crate::engine::simd::Simd;

/// Proof that this CPU has AVX-512 F, BW, VL, DQ and VBMI, and AVX2 with what comes with it.
#[derive(Clone, Copy)]
pub(super) struct Avx512 {
    avx2: Avx2,
}

/// Rows that AVX2's registers hold.
const HALF: usize = 32;

impl Avx512 {
    pub fn detect() -> Option<Avx512> {
        let avx2 = Avx2::detect()?;
        Simd::Avx512.is_available().then_some(Avx512 { avx2 })
    }

    pub fn rank_row(self, ranks: &Ranks, row: &[f32], places: &mut Row) {
        // SAFETY: the CPU has the features, or there were no `self`.
        unsafe { rank_row(ranks, row, places) }
    }

    pub fn jump<'a, const ROWS: usize>(
        self,
        pages: impl Iterator<Item = Page<'a>>,
        rounds: u32,
        rows: &[Row; ROWS],
        columns: usize,
        leaving: &mut impl Leaving<ROWS>,
    ) {
        match (columns, rounds) {
            // SAFETY: the CPU has the features, or there were no `self`.
            (0..=64, 0..=3) => unsafe { jump::<1, 3, ROWS>(pages, rows, leaving) },
            // SAFETY: as above.
            (0..=64, _) => unsafe { jump::<1, 6, ROWS>(pages, rows, leaving) },
            // SAFETY: as above.
            (65..=128, _) => unsafe { jump::<2, 6, ROWS>(pages, rows, leaving) },
            // SAFETY: as above.
            _ => unsafe { jump::<4, 6, ROWS>(pages, rows, leaving) },
        }
    }

    pub fn find(self, roots: &[Root], forks: &[Fork], row: &Row, columns: usize, found: &mut [u32; TREES_TOGETHER]) {
        self.avx2.find(roots, forks, row, columns, found);
    }

    pub fn rank_columns(self, ranks: &Ranks, rows: Matrix<'_>, columns: &mut [Lanes]) {
        // SAFETY: the CPU has the features, or there were no `self`.
        unsafe { rank_columns(ranks, rows, columns) }
    }

    pub fn blend(self, group: &Group, rows: usize, columns: &[Lanes], places: &mut [Lanes]) {
        if rows <= HALF {
            return self.avx2.blend(group, rows, columns, places);
        }
        assert!(columns.len() >= group.columns() && places.len() >= group.places(), "room for what the group names");
        // SAFETY: the CPU has the features, or there were no `self`; the slices are as long as asked, see above.
        unsafe { blend(group, columns, places) }
    }
}

#[target_feature(enable = "avx512f,popcnt")]
fn rank_columns(ranks: &Ranks, rows: Matrix<'_>, columns: &mut [Lanes]) {
    let (mut values, mut below) = ([0.0; ROWS_MAX], [0; ROWS_MAX]);
    for cut in &ranks.cuts {
        let (pivots, buckets) = ranks.lines(cut);
        let pivots = load_line(pivots);
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt")]
fn rank_row(ranks: &Ranks, row: &[f32], places: &mut Row) {
    for cut in &ranks.cuts {
        let (pivots, buckets) = ranks.lines(cut);
        let x = row[cut.feature as usize];
        places.put(cut, x, count(load_line(pivots), buckets, x));
    }
    places.finish(SIGNED);
}

/// How many thresholds of a cut are below a value.
#[inline]
#[target_feature(enable = "avx512f,popcnt")]
fn count(pivots: __m512, buckets: &[Line], x: f32) -> u8 {
    let wide = _mm512_set1_ps(x);
    let bucket = count_below(pivots, wide);
    // A cut has at most 255 thresholds.
    (bucket * LINE + count_below(load_line(&buckets[bucket]), wide)) as u8
}

/// How many numbers of an ascending line are below `x`; none is below NaN.
#[inline]
#[target_feature(enable = "avx512f,popcnt")]
fn count_below(line: __m512, x: __m512) -> usize {
    _mm512_cmp_ps_mask::<_CMP_LT_OQ>(line, x).count_ones() as usize
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_line(line: &Line) -> __m512 {
    // SAFETY: there are sixteen numbers, and a line is aligned to 64 bytes.
    unsafe { _mm512_load_ps(line.0.as_ptr()) }
}

/// Runs a group's programs for 64 rows.
///
/// # Safety
/// `columns` and `places` are as long as the group says.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn blend(group: &Group, columns: &[Lanes], places: &mut [Lanes]) {
    // SAFETY: columns are below `columns()`, by the group's invariant, and that many there are, by the caller's word.
    let ranks_of = |column: u16| unsafe { columns.get_unchecked(usize::from(column)) };
    let mut result = BYTE_LEAVES;
    for Pair { column, limit, leaf } in group.pairs() {
        // SAFETY: pairs, quads, merges and leaf numbers together are `places()`.
        let place = unsafe { places.get_unchecked_mut(result) };
        store(place, of_pair(ranks_of(*column), *limit, *leaf));
        result += 1;
    }
    for Quad { columns, limits, leaves } in group.quads() {
        let ranks = columns.map(ranks_of);
        let no = of_pair(ranks[1], limits[1], leaves[0]);
        let yes = of_pair(ranks[2], limits[2], leaves[1]);
        // SAFETY: as above.
        let place = unsafe { places.get_unchecked_mut(result) };
        store(place, _mm512_mask_blend_epi8(passes(ranks[0], limits[0]), no, yes));
        result += 1;
    }
    for Merge { column, yes, no, limit } in group.merges() {
        // SAFETY: places are below `places()`, by the group's invariant, and that many there are, by the caller's word.
        let yes = unsafe { places.get_unchecked(usize::from(*yes)) };
        // SAFETY: as above.
        let no = unsafe { places.get_unchecked(usize::from(*no)) };
        let numbers = _mm512_mask_blend_epi8(passes(ranks_of(*column), *limit), load(&no.0), load(&yes.0));
        // SAFETY: pairs, quads, merges and leaf numbers together are `places()`.
        let place = unsafe { places.get_unchecked_mut(result) };
        store(place, numbers);
        result += 1;
    }
}

/// The leaf numbers of a pair.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn of_pair(ranks: &Lanes, limit: u8, leaf: u8) -> __m512i {
    let leaf = _mm512_set1_epi8(leaf as i8);
    _mm512_mask_add_epi8(leaf, passes(ranks, limit), leaf, _mm512_set1_epi8(1))
}

/// Whose rank is below the limit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn passes(ranks: &Lanes, limit: u8) -> __mmask64 {
    _mm512_cmplt_epi8_mask(load(&ranks.0), _mm512_set1_epi8(limit as i8))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: there are 64 bytes, at any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(lanes: &mut Lanes, numbers: __m512i) {
    // SAFETY: as for `load`; the bytes are borrowed for writing.
    unsafe { _mm512_storeu_si512(lanes.0.as_mut_ptr().cast(), numbers) }
}

/// Tells by which exits rows leave the trees of some pages. `TABLES` registers hold the ranks of each row.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn jump<'a, const TABLES: usize, const ROUNDS: usize, const ROWS: usize>(
    pages: impl Iterator<Item = Page<'a>>,
    rows: &[Row; ROWS],
    leaving: &mut impl Leaving<ROWS>,
) {
    let mut tables = [[_mm512_setzero_si512(); TABLES]; ROWS];
    for (tables, row) in tables.iter_mut().zip(rows) {
        for (table, ranks) in tables.iter_mut().zip(row.ranks.0.as_chunks::<PLACES>().0) {
            *table = load(ranks);
        }
    }
    let exits = load(&EXITS);
    for Page { questions, ways } in pages {
        let (columns, limits) = (load(&questions.columns), load(&questions.limits));
        let (yes, no) = (load(&ways.yes), load(&ways.no));
        let mut ends = [Ends::default(); ROWS];
        for (ends, tables) in ends.iter_mut().zip(tables) {
            let passes = _mm512_cmplt_epi8_mask(pick(columns, tables), limits);
            let mut next = _mm512_mask_blend_epi8(passes, no, yes);
            for _ in 0..ROUNDS {
                next = _mm512_permutex2var_epi8(next, next, exits);
            }
            *ends = _mm_cvtsi128_si64(_mm512_castsi512_si128(next)).to_le_bytes();
        }
        leaving.leaves(ends);
    }
}

/// Whoever has left a page stays where he is.
const EXITS: [u8; PLACES] = {
    let mut exits = [0; PLACES];
    let mut index = 0;
    while index < PLACES {
        exits[index] = (PLACES + index) as u8;
        index += 1;
    }
    exits
};

/// The ranks of 64 columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn pick<const TABLES: usize>(columns: __m512i, tables: [__m512i; TABLES]) -> __m512i {
    // A permutation looks at the lower six bits of a column, one of two tables at seven, a mask is the highest one.
    let of_two = |first: usize| _mm512_permutex2var_epi8(tables[first], columns, tables[first + 1]);
    match TABLES {
        1 => _mm512_permutexvar_epi8(columns, tables[0]),
        2 => of_two(0),
        _ => _mm512_mask_blend_epi8(_mm512_movepi8_mask(columns), of_two(0), of_two(2)),
    }
}
