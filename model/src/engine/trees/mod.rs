//! Scores an ensemble of trees.
#![forbid(unsafe_code)]

mod walk;

use self::walk::Walk;
use crate::form::Ensemble;

/// A compiled ensemble.
pub(super) struct Trees {
    walk: Walk,
}

impl Trees {
    /// Compiles an ensemble over rows of `inputs` columns.
    pub fn new(ensemble: Ensemble, inputs: usize) -> Trees {
        Trees { walk: Walk::new(ensemble, inputs) }
    }

    /// What it is, for people.
    pub fn engine(&self) -> String {
        "walk".to_owned()
    }

    pub fn bytes(&self) -> usize {
        self.walk.bytes()
    }

    /// Scores rows (shape `[rows, inputs]`) into `sums` (shape `[rows, targets]`).
    pub fn score(&mut self, rows: &[f32], sums: &mut [f32]) {
        self.walk.score(rows, sums);
    }
}
