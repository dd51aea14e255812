//! What engines ask of the CPU's wide registers, and who does it.
#![forbid(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
use super::blend::{Group, Lanes};
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
}
