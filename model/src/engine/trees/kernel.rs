//! What engines ask of the CPU's wide registers, and who does it.
#![forbid(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
use super::blend::{Group, Lanes};
use super::blocks::{Fork, Root, TREES_TOGETHER};
use super::jumps::{Leaving, Page};
use super::portable;
use super::ranks::{Ranks, Row};
use super::sums::Matrix;
use crate::engine::simd::Simd;

/// Who works on the columns.
#[derive(Clone, Copy)]
pub(super) enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Kernel {
    /// The best one of a path.
    #[cfg(target_arch = "x86_64")]
    pub fn new(simd: Simd) -> Kernel {
        match simd {
            Simd::Portable => Kernel::Portable,
            Simd::Avx2 => Avx2::detect().map_or(Kernel::Portable, Kernel::Avx2),
            Simd::Avx512 => Avx512::detect().map_or_else(|| Kernel::new(Simd::Avx2), Kernel::Avx512),
        }
    }

    /// No other CPU has a path of its own.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn new(_simd: Simd) -> Kernel {
        Kernel::Portable
    }

    /// As `DISRUST_SIMD` names it.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Portable => Simd::Portable.name(),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) => Simd::Avx2.name(),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(_) => Simd::Avx512.name(),
        }
    }

    /// As which byte a rank lies in a column.
    pub fn coded(self, rank: u8) -> u8 {
        match self {
            Kernel::Portable => portable::coded(rank),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) | Kernel::Avx512(_) => Avx2::coded(rank),
        }
    }

    /// The byte that a column is compared with, to know whether its rank is at most `rank`.
    pub fn limit(self, rank: u8) -> u8 {
        match self {
            Kernel::Portable => portable::limit(rank),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) | Kernel::Avx512(_) => Avx2::limit(rank),
        }
    }

    /// Fills the columns of cuts with the coded ranks of at most 64 rows.
    pub fn rank_columns(self, ranks: &Ranks, rows: Matrix<'_>, columns: &mut [Lanes]) {
        match self {
            Kernel::Portable => portable::rank_columns(ranks, rows, columns),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(avx2) => avx2.rank_columns(ranks, rows, columns),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(avx512) => avx512.rank_columns(ranks, rows, columns),
        }
    }

    /// Runs the programs of a group for at most 64 rows: fills the places of its results.
    pub fn blend(self, group: &Group, rows: usize, columns: &[Lanes], places: &mut [Lanes]) {
        match self {
            Kernel::Portable => portable::blend(group, rows, columns, places),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(avx2) => avx2.blend(group, rows, columns, places),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(avx512) => avx512.blend(group, rows, columns, places),
        }
    }

    /// Up to how many columns it does blocks for; none if it does not.
    pub fn block_columns(self) -> Option<usize> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) | Kernel::Avx512(_) => Some(Avx2::BLOCK_COLUMNS),
            Kernel::Portable => None,
        }
    }

    /// Whether it does jumps.
    pub fn jumps(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(_) => true,
            _ => false,
        }
    }

    /// Fills the first columns of cuts with the coded ranks of one row.
    pub fn rank_row(self, ranks: &Ranks, row: &[f32], places: &mut Row) {
        match self {
            Kernel::Portable => unreachable!("it does neither blocks nor jumps"),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(avx2) => avx2.rank_row(ranks, row, places),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(avx512) => avx512.rank_row(ranks, row, places),
        }
    }

    /// The leaves of a row in some trees, at most [`TREES_TOGETHER`]; there are `columns` ranks.
    pub fn find(self, roots: &[Root], forks: &[Fork], row: &Row, columns: usize, found: &mut [u32; TREES_TOGETHER]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(avx2) => avx2.find(roots, forks, row, columns, found),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(avx512) => avx512.find(roots, forks, row, columns, found),
            Kernel::Portable => unreachable!("it does no blocks"),
        }
    }

    /// Tells, for each of some pages, by which exits rows leave its trees; there are `columns` ranks, and pointers jump `rounds`
    /// times.
    pub fn jump<'a, const ROWS: usize>(
        self,
        pages: impl Iterator<Item = Page<'a>>,
        rounds: u32,
        rows: &[Row; ROWS],
        columns: usize,
        leaving: &mut impl Leaving<ROWS>,
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(avx512) => avx512.jump(pages, rounds, rows, columns, leaving),
            _ => unreachable!("it does no jumps"),
        }
    }
}
