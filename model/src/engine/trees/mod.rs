//! Scores an ensemble of trees, with the engine that suits its shape, the CPU and the number of rows.
//!
//! [`walk`] does what the form says, split by split: the other engines are tested against it. [`descent`] walks without
//! branches, on any CPU and with trees of any size.
//!
//! Engines find the leaves that rows end at; [`sums`] adds them up, in one order.
#![deny(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
mod blend;
#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(target_arch = "x86_64")]
mod blocks_avx2;
mod columns;
mod descent;
mod kernel;
mod order;
mod portable;
mod ranks;
mod sets;
mod sums;
mod walk;

use self::blend::Blend;
#[cfg(target_arch = "x86_64")]
use self::blocks::Blocks;
use self::columns::Survey;
use self::descent::Descent;
use self::kernel::Kernel;
use self::sums::{Leaves, Matrix, Real};
use self::walk::Walk;
use super::simd::Simd;
use crate::form::{Ensemble, Rounding};

/// Rows for which an engine decides at once, at most.
const ROWS_MAX: usize = 64;

/// Leaves of all trees that can be told apart. No file has more: it would have a hundred gigabytes.
const LEAVES_MAX: usize = (1 << 31) - 1;

/// A compiled ensemble.
pub(super) struct Trees {
    inputs: usize,
    kind: Kind,
}

enum Kind {
    Walk(Walk),
    F32(Scorer<f32>),
    F64(Scorer<f64>),
}

impl Trees {
    /// Compiles an ensemble over rows of `inputs` columns.
    pub fn new(mut ensemble: Ensemble, inputs: usize, simd: Simd) -> Trees {
        let targets = ensemble.targets;
        ensemble.trees.iter_mut().for_each(|tree| order::number_leaves(tree, targets));
        let kind = match Engines::new(&ensemble, simd) {
            None => Kind::Walk(Walk::new(ensemble, inputs)),
            Some(engines) => match ensemble.rounding {
                Rounding::F32 => Kind::F32(Scorer::new(&ensemble, engines)),
                Rounding::F64 => Kind::F64(Scorer::new(&ensemble, engines)),
            },
        };
        Trees { inputs, kind }
    }

    /// What it is, for people.
    pub fn engine(&self) -> String {
        match &self.kind {
            Kind::Walk(_) => "walk".to_owned(),
            Kind::F32(scorer) => scorer.engines.name(),
            Kind::F64(scorer) => scorer.engines.name(),
        }
    }

    pub fn bytes(&self) -> usize {
        match &self.kind {
            Kind::Walk(walk) => walk.bytes(),
            Kind::F32(scorer) => scorer.bytes(),
            Kind::F64(scorer) => scorer.bytes(),
        }
    }

    /// How many rows should come together if there are many.
    pub fn rows_max(&self) -> usize {
        match &self.kind {
            Kind::Walk(_) => ROWS_MAX,
            Kind::F32(scorer) => scorer.engines.rows_max(),
            Kind::F64(scorer) => scorer.engines.rows_max(),
        }
    }

    /// Scores rows (shape `[rows, inputs]`) into `results` (shape `[rows, targets]`).
    pub fn score(&mut self, rows: &[f32], results: &mut [f32]) {
        let rows = Matrix { numbers: rows, columns: self.inputs };
        match &mut self.kind {
            Kind::Walk(walk) => walk.score(rows.numbers, results),
            Kind::F32(scorer) => scorer.score(rows, results),
            Kind::F64(scorer) => scorer.score(rows, results),
        }
    }
}

/// Engines, and what they find leaves for.
struct Scorer<T> {
    engines: Engines,
    leaves: Leaves<T>,
    /// Of the rows at hand, shape `[rows, targets]`.
    sums: Vec<T>,
}

impl<T: Real> Scorer<T> {
    fn new(ensemble: &Ensemble, engines: Engines) -> Scorer<T> {
        Scorer { leaves: Leaves::new(ensemble), sums: Vec::new(), engines }
    }

    fn bytes(&self) -> usize {
        self.engines.bytes() + self.leaves.bytes() + size_of_val(&self.sums[..])
    }

    fn score(&mut self, rows: Matrix<'_>, results: &mut [f32]) {
        let targets = self.leaves.targets();
        let together = self.engines.rows_max();
        self.sums.resize(rows.rows().min(together) * targets, T::default());
        for first in (0..rows.rows()).step_by(together) {
            let part = first..rows.rows().min(first + together);
            let sums = &mut self.sums[..part.len() * targets];
            self.leaves.begin(sums);
            self.engines.score(rows.part(part.clone()), &self.leaves, sums);
            self.leaves.finish(sums, &mut results[part.start * targets..part.end * targets]);
        }
    }
}

/// Rows from which deciding for all of them at once is faster than walking.
const BLEND_ROWS: usize = 8;

/// The engines that an ensemble has.
struct Engines {
    descent: Descent,
    /// For [`BLEND_ROWS`] rows and more.
    blend: Option<Blend>,
    /// For fewer.
    #[cfg(target_arch = "x86_64")]
    blocks: Option<Blocks>,
    simd: Simd,
}

impl Engines {
    /// None if the ensemble is too large for all of them.
    fn new(ensemble: &Ensemble, simd: Simd) -> Option<Engines> {
        let leaves: usize = ensemble.trees.iter().map(|tree| tree.leaves.count).sum();
        if leaves > LEAVES_MAX {
            return None;
        }
        let survey = Survey::new(ensemble);
        let blend = Blend::new(ensemble, &survey, Kernel::new(simd));
        let descent = Descent::new(ensemble, &survey)?;
        Some(Engines {
            descent,
            blend,
            #[cfg(target_arch = "x86_64")]
            blocks: Blocks::new(ensemble, &survey, simd),
            simd,
        })
    }

    fn name(&self) -> String {
        let few = if self.blocks().is_some() { "blocks of splits" } else { "branchless walk" };
        match &self.blend {
            Some(_) => format!(
                "{few} (1-{} rows), ranks and {} blends ({BLEND_ROWS} rows and more)",
                BLEND_ROWS - 1,
                self.simd.min(Simd::Avx2).name()
            ),
            None => few.to_owned(),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn blocks(&self) -> Option<&Blocks> {
        self.blocks.as_ref()
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn blocks(&self) -> Option<&Descent> {
        None
    }

    fn bytes(&self) -> usize {
        let blocks = self.blocks().map_or(0, |blocks| blocks.bytes());
        self.descent.bytes() + blocks + self.blend.as_ref().map_or(0, Blend::bytes)
    }

    fn rows_max(&self) -> usize {
        if self.blend.is_none() && self.descent.is_large() { descent::ROWS_MAX } else { ROWS_MAX }
    }

    fn score<T: Real>(&mut self, rows: Matrix<'_>, leaves: &Leaves<T>, sums: &mut [T]) {
        match &mut self.blend {
            Some(blend) if rows.rows() >= BLEND_ROWS => return blend.score(rows, leaves, sums),
            _ => {}
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(blocks) = &mut self.blocks {
            return blocks.score(rows, leaves, sums);
        }
        self.descent.score(rows, leaves, sums);
    }
}
