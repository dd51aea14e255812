//! The engines' part for any CPU: what a compiler makes of loops over bytes.
#![forbid(unsafe_code)]

use super::ROWS_MAX;
use super::blend::{Group, Lanes, Quad};
use super::ranks::{LINE, Line, Ranks, SIGNED, by_rule};
use super::sums::{BYTE_LEAVES, Matrix};

/// A rank as it lies in a column: compared as a signed byte, as most CPUs can.
pub(super) fn coded(rank: u8) -> u8 {
    rank ^ SIGNED
}

/// A rank passes if it is below the limit. A probe's rank is below the largest one.
pub(super) fn limit(rank: u8) -> u8 {
    coded(rank + 1)
}

pub(super) fn rank_columns(ranks: &Ranks, rows: Matrix<'_>, columns: &mut [Lanes]) {
    let (mut values, mut below) = ([0.0; ROWS_MAX], [0; ROWS_MAX]);
    for cut in &ranks.cuts {
        let (pivots, buckets) = ranks.lines(cut);
        for (row, (value, below)) in (0..rows.rows()).zip(values.iter_mut().zip(&mut below)) {
            *value = rows.row(row)[cut.feature as usize];
            let bucket = count_below(pivots, *value);
            // A cut has at most 255 thresholds.
            *below = (bucket * LINE + count_below(&buckets[bucket], *value)) as u8;
        }
        for column in cut.columns.clone() {
            by_rule(ranks.rules[column], &values, &below, SIGNED, &mut columns[column]);
        }
    }
}

/// How many numbers of a line are below `x`.
#[inline(always)]
fn count_below(line: &Line, x: f32) -> usize {
    line.0.iter().map(|threshold| u32::from(*threshold < x)).sum::<u32>() as usize
}

/// Runs a group's programs for some rows.
pub(super) fn blend(group: &Group, rows: usize, columns: &[Lanes], places: &mut [Lanes]) {
    match rows {
        0..=16 => blend_rows::<16>(group, columns, places),
        17..=32 => blend_rows::<32>(group, columns, places),
        _ => blend_rows::<ROWS_MAX>(group, columns, places),
    }
}

fn blend_rows<const ROWS: usize>(group: &Group, columns: &[Lanes], places: &mut [Lanes]) {
    let (pairs, quads) = (group.pairs(), group.quads());
    let ranks_of = |column: u16| -> &[u8; ROWS] { first(&columns[usize::from(column)]) };
    let (pair_places, quad_places) = places[BYTE_LEAVES..].split_at_mut(pairs.len());
    for (pair, place) in pairs.iter().zip(pair_places) {
        for (rank, place) in ranks_of(pair.column).iter().zip(&mut place.0) {
            *place = of_pair(*rank, pair.limit, pair.leaf);
        }
    }
    for (Quad { columns, limits, leaves }, place) in quads.iter().zip(quad_places) {
        let ranks = columns.map(ranks_of);
        for (row, place) in place.0.iter_mut().enumerate().take(ROWS) {
            let no = of_pair(ranks[1][row], limits[1], leaves[0]);
            let yes = of_pair(ranks[2][row], limits[2], leaves[1]);
            *place = no ^ ((yes ^ no) & passes(ranks[0][row], limits[0]));
        }
    }
    for (merge, result) in group.merges().iter().zip(BYTE_LEAVES + pairs.len() + quads.len()..) {
        let (before, place) = places.split_at_mut(result);
        let (yes, no) = (&before[usize::from(merge.yes)], &before[usize::from(merge.no)]);
        merge_rows(ranks_of(merge.column), merge.limit, first(yes), first(no), &mut place[0]);
    }
}

fn first<const ROWS: usize>(lanes: &Lanes) -> &[u8; ROWS] {
    lanes.0.first_chunk().expect("there are at least as many lanes as rows")
}

/// Its own function, so that the compiler knows that nothing overlaps.
#[inline(never)]
fn merge_rows<const ROWS: usize>(ranks: &[u8; ROWS], limit: u8, yes: &[u8; ROWS], no: &[u8; ROWS], place: &mut Lanes) {
    let branches = yes.iter().zip(no);
    for ((place, rank), (yes, no)) in place.0.iter_mut().zip(ranks).zip(branches) {
        *place = no ^ ((yes ^ no) & passes(*rank, limit));
    }
}

/// The leaf number of a pair: where a rank passes, all bits are set, which is minus one.
#[inline(always)]
fn of_pair(rank: u8, limit: u8, leaf: u8) -> u8 {
    leaf.wrapping_sub(passes(rank, limit))
}

/// All bits if a rank is below the limit, else none.
#[inline(always)]
fn passes(rank: u8, limit: u8) -> u8 {
    0_u8.wrapping_sub(u8::from((rank as i8) < limit as i8))
}
