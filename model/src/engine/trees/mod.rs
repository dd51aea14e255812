//! Scores an ensemble of trees, with the engine that suits its shape, the CPU and the number of rows.
//!
//! - [`blend`]: from some rows on, trees of up to 256 leaves. All splits are decided for all rows, leaf numbers blended upwards.
//! - [`jumps`]: fewer rows and trees of up to 64 leaves, with AVX-512. All splits are decided at once, whatever a tree's shape.
//! - [`blocks`]: fewer rows, with AVX2. All splits of six levels are decided at once.
//! - [`descent`]: what those do not take. It walks without branches, on any CPU.
//! - [`walk`] does what the form says, split by split, for what is too large for all of them.
//!
//! Engines find the leaves that rows end at; [`sums`] adds them up, in one order.
#![deny(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blend;
mod blocks;
mod columns;
mod descent;
mod jumps;
mod kernel;
mod order;
mod portable;
mod ranks;
mod sets;
mod sums;
mod walk;

use self::blend::Blend;
use self::blocks::Blocks;
use self::columns::Survey;
use self::descent::Descent;
use self::jumps::Jumps;
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
        let kernel = Kernel::new(simd);
        let is_padded = kernel.jumps() && order::pad_leaves(&mut ensemble);
        let kind = match Engines::new(&ensemble, is_padded, kernel) {
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

/// Rows from which deciding for all of them at once is faster than what scores them one by one.
const BLEND_ROWS_AFTER_JUMPS: usize = 24;
const BLEND_ROWS_AFTER_BLOCKS: usize = 16;
const BLEND_ROWS_AFTER_WALK: usize = 8;

/// The engines that an ensemble has.
struct Engines {
    /// For `blend_rows` rows and more.
    blend: Option<Blend>,
    blend_rows: usize,
    /// For fewer, or without blends for all.
    few: Few,
    kernel: Kernel,
}

/// What scores rows one by one.
enum Few {
    Jumps(Box<Jumps>),
    Blocks(Box<Blocks>),
    Descent(Descent),
}

impl Engines {
    /// None if the ensemble is too large for all of them.
    fn new(ensemble: &Ensemble, is_padded: bool, kernel: Kernel) -> Option<Engines> {
        let leaves: usize = ensemble.trees.iter().map(|tree| tree.leaves.count).sum();
        if leaves > LEAVES_MAX {
            return None;
        }
        let survey = Survey::new(ensemble);
        let blend = Blend::new(ensemble, &survey, kernel);
        // Where blends do not do, trees are large, and what takes a few levels at once does not pay.
        let jumps = || {
            blend.as_ref().and_then(|_| Jumps::new(ensemble, is_padded, &survey, kernel)).map(Box::new).map(Few::Jumps)
        };
        let blocks =
            || blend.as_ref().and_then(|_| Blocks::new(ensemble, &survey, kernel)).map(Box::new).map(Few::Blocks);
        let descent = || Descent::new(ensemble, &survey).map(Few::Descent);
        let few = jumps().or_else(blocks).or_else(descent)?;
        let blend_rows = match few {
            Few::Jumps(_) => BLEND_ROWS_AFTER_JUMPS,
            Few::Blocks(_) => BLEND_ROWS_AFTER_BLOCKS,
            Few::Descent(_) => BLEND_ROWS_AFTER_WALK,
        };
        Some(Engines { blend, blend_rows, few, kernel })
    }

    fn name(&self) -> String {
        let (simd, last) = (self.kernel.name(), self.blend_rows - 1);
        let few = match &self.few {
            Few::Jumps(_) => format!("{simd} pointer jumps"),
            Few::Blocks(_) => format!("{simd} blocks"),
            Few::Descent(_) => "branchless walk".to_owned(),
        };
        match &self.blend {
            Some(_) => format!("ranks, {few} (1-{last} rows), {simd} blends ({} rows and more)", self.blend_rows),
            None => few,
        }
    }

    fn bytes(&self) -> usize {
        let few = match &self.few {
            Few::Jumps(jumps) => jumps.bytes(),
            Few::Blocks(blocks) => blocks.bytes(),
            Few::Descent(descent) => descent.bytes(),
        };
        few + self.blend.as_ref().map_or(0, Blend::bytes)
    }

    fn rows_max(&self) -> usize {
        match (&self.blend, &self.few) {
            (None, Few::Descent(descent)) if descent.is_large() => descent::ROWS_MAX,
            _ => ROWS_MAX,
        }
    }

    fn score<T: Real>(&mut self, rows: Matrix<'_>, leaves: &Leaves<T>, sums: &mut [T]) {
        match (&mut self.blend, &mut self.few) {
            (Some(blend), _) if rows.rows() >= self.blend_rows => blend.score(rows, leaves, sums),
            (_, Few::Jumps(jumps)) => jumps.score(rows, leaves, sums),
            (_, Few::Blocks(blocks)) => blocks.score(rows, leaves, sums),
            (_, Few::Descent(descent)) => descent.score(rows, leaves, sums),
        }
    }
}
