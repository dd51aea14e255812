//! What engines ask of the CPU's wide registers, and who does it.
#![forbid(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
use super::blend::{Group, Lanes};
use super::blocks::{Fork, Root, Row, TREES_TOGETHER};
use super::portable;
use super::ranks::Ranks;
use super::sums::Matrix;
use crate::engine::simd::Simd;

/// Who works on the columns.
#[derive(Clone, Copy)]
pub(super) enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
}

impl Kernel {
    /// The best one of a path.
    #[cfg(target_arch = "x86_64")]
    pub fn new(simd: Simd) -> Kernel {
        match simd {
            Simd::Portable => Kernel::Portable,
            Simd::Avx2 | Simd::Avx512 => Avx2::detect().map_or(Kernel::Portable, Kernel::Avx2),
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
        }
    }

    /// As which byte a rank lies in a column.
    pub fn coded(self, rank: u8) -> u8 {
        match self {
            Kernel::Portable => portable::coded(rank),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) => Avx2::coded(rank),
        }
    }

    /// The byte that a column is compared with, to know whether its rank is at most `rank`.
    pub fn limit(self, rank: u8) -> u8 {
        match self {
            Kernel::Portable => portable::limit(rank),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) => Avx2::limit(rank),
        }
    }

    /// Fills the columns of cuts with the coded ranks of at most 64 rows.
    pub fn rank_columns(self, ranks: &Ranks, rows: Matrix<'_>, columns: &mut [Lanes]) {
        match self {
            Kernel::Portable => portable::rank_columns(ranks, rows, columns),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(avx2) => avx2.rank_columns(ranks, rows, columns),
        }
    }

    /// Runs the programs of a group for at most 64 rows: fills the places of its results.
    pub fn blend(self, group: &Group, rows: usize, columns: &[Lanes], places: &mut [Lanes]) {
        match self {
            Kernel::Portable => portable::blend(group, rows, columns, places),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(avx2) => avx2.blend(group, rows, columns, places),
        }
    }

    /// Up to how many columns it finds leaves for one row; none if it does not.
    pub fn block_columns(self) -> Option<usize> {
        match self {
            Kernel::Portable => None,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) => Some(Avx2::BLOCK_COLUMNS),
        }
    }

    /// Fills the first columns of cuts with the coded ranks of one row.
    pub fn rank_row(self, ranks: &Ranks, row: &[f32], places: &mut Row) {
        match self {
            Kernel::Portable => unreachable!("it does no blocks"),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(avx2) => avx2.rank_row(ranks, row, places),
        }
    }

    /// The leaves of a row in some trees, at most [`TREES_TOGETHER`]; there are `columns` ranks.
    pub fn find(self, roots: &[Root], forks: &[Fork], row: &Row, columns: usize, found: &mut [u32; TREES_TOGETHER]) {
        match self {
            Kernel::Portable => unreachable!("it does no blocks"),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(avx2) => avx2.find(roots, forks, row, columns, found),
        }
    }
}
