//! What blocks do with AVX2, and nothing else: ranks of a row, answers of splits.
//!
//! Invariant: [`ByteShuffles`] exist only where the CPU has these instructions, so its methods may use them.
#![expect(unsafe_code, reason = "functions that need CPU features, and loads of whole registers")]

use std::arch::x86_64::{
    __m256i, _CMP_LT_OQ, _mm_loadu_si128, _mm256_adds_epu8, _mm256_broadcastsi128_si256, _mm256_cmp_ps,
    _mm256_cmpeq_epi8, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_movemask_ps,
    _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_ps, _mm256_shuffle_epi8, _mm256_sub_epi8,
};

use super::blocks::{self, Block, RowRanks};
use super::ranks::{Cut, LINE, Ranks};
use crate::engine::simd::Simd;

/// The proof that this CPU has what [`Simd::Avx2`] asks for.
#[derive(Clone, Copy)]
pub(super) struct ByteShuffles(());

impl ByteShuffles {
    /// None if the path asks for less.
    pub fn of(simd: Simd) -> Option<ByteShuffles> {
        (simd >= Simd::Avx2 && Simd::Avx2.is_available()).then_some(ByteShuffles(()))
    }

    /// The ranks of a row, but for those of sets.
    pub fn rank_row(self, ranks: &Ranks, row: &[f32], row_ranks: &mut RowRanks) {
        // SAFETY: ByteShuffles are made only where the CPU has the features that the function asks for (ByteShuffles::of).
        unsafe { rank_row(ranks, row, row_ranks) }
    }

    /// The ordinals of the leaves that a row of `columns` ranks, 64 at most, ends at, for the trees whose root blocks are
    /// `roots`.
    pub fn follow(self, row: &RowRanks, columns: usize, roots: &[Block], all: &[Block], found: &mut [u32]) {
        match columns {
            // SAFETY: ByteShuffles are made only where the CPU has the features that the function asks for (ByteShuffles::of).
            0..=16 => unsafe { follow::<1>(row, roots, all, found) },
            // SAFETY: as above.
            17..=32 => unsafe { follow::<2>(row, roots, all, found) },
            // SAFETY: as above.
            _ => unsafe { follow::<4>(row, roots, all, found) },
        }
    }
}

#[target_feature(enable = "avx2,popcnt")]
fn rank_row(ranks: &Ranks, row: &[f32], row_ranks: &mut RowRanks) {
    for (cut, place) in ranks.cuts.iter().zip(&mut row_ranks.0) {
        let x = row[cut.rule.feature as usize];
        *place = match cut.fixed_rank(x) {
            None => rank(cut, &ranks.lines, x),
            Some(rank) => rank,
        };
    }
}

/// How many thresholds of the cut are below `x`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn rank(cut: &Cut, lines: &[[f32; LINE]], x: f32) -> u8 {
    let x = _mm256_set1_ps(x);
    let below = |line: &[f32; LINE]| {
        let [first, second] = [0, 1].map(|half| {
            // SAFETY: half a line is the 8 f32 that are read; the load needs no alignment.
            let thresholds = unsafe { _mm256_loadu_ps(line.as_chunks::<8>().0[half].as_ptr()) };
            _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(thresholds, x)) as u32
        });
        (first | second << 8).count_ones()
    };
    let buckets = below(&lines[cut.line as usize]);
    let near = below(&lines[(cut.line + 1 + buckets) as usize]);
    (buckets * LINE as u32 + near) as u8
}

/// With `TABLES` tables of 16 ranks.
#[target_feature(enable = "avx2,popcnt,bmi2")]
fn follow<const TABLES: usize>(row: &RowRanks, roots: &[Block], all: &[Block], found: &mut [u32]) {
    let mut tables = [_mm256_set1_epi8(0); TABLES];
    for (table, ranks) in tables.iter_mut().zip(row.0.as_chunks::<16>().0) {
        // SAFETY: the chunk is the 16 bytes that are read; the load needs no alignment.
        *table = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(ranks.as_ptr().cast()) });
    }
    blocks::follow(roots, all, found, |block| {
        let halves = block.columns.as_chunks::<32>().0.iter().zip(block.ranks.as_chunks::<32>().0);
        let mut yes = [0_u32; 2];
        for ((columns, ranks), yes) in halves.zip(&mut yes) {
            let looked_at = look_up(&tables, load(columns));
            // The smaller one of two is the first: it is at most the second.
            let is_yes = _mm256_cmpeq_epi8(_mm256_min_epu8(looked_at, load(ranks)), looked_at);
            *yes = _mm256_movemask_epi8(is_yes) as u32;
        }
        !(u64::from(yes[0]) | u64::from(yes[1]) << 32)
    });
}

/// The ranks of these columns. A shuffle finds a byte among 16 by the lower four bits, and gives 0 where the highest bit is set:
/// a saturating addition sets it for columns that are another table's.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up<const TABLES: usize>(tables: &[__m256i; TABLES], columns: __m256i) -> __m256i {
    if TABLES == 1 {
        return _mm256_shuffle_epi8(tables[0], columns);
    }
    let mut ranks = _mm256_set1_epi8(0);
    for (index, table) in tables.iter().enumerate() {
        let in_table = _mm256_sub_epi8(columns, _mm256_set1_epi8(16 * index as i8));
        let here = _mm256_shuffle_epi8(*table, _mm256_adds_epu8(in_table, _mm256_set1_epi8(0x70)));
        ranks = _mm256_or_si256(ranks, here);
    }
    ranks
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the array is the 32 bytes that are read; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}
