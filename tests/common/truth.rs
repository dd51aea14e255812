//! Whose scores are right: the sum's; or those of trees of a model file, while this process says that all its servers
//! serve them.
//!
//! The fault matrix runs some of its rows once more with trees: the same row then starts servers of the file, and holds
//! every answer to what the file's engine says in this process.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use disrust_model::engine::Compiled;

use super::models::{compiled, grown, scores as scores_of};

/// Of the trees.
const SEED: u64 = 16;

// Relaxed, wherever it is touched: it changes between two rows, while nobody is served.
static TREES: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// By the features of a row.
    static ENGINES: RefCell<HashMap<usize, Compiled>> = RefCell::default();
}

/// From now on, servers that this process starts serve trees, or the sum.
pub fn serve_trees(trees: bool) {
    TREES.store(trees, Ordering::Relaxed);
}

pub fn are_trees_served() -> bool {
    TREES.load(Ordering::Relaxed)
}

/// The model file that servers of this process serve.
pub fn trees(features: usize) -> String {
    grown(features, SEED)
}

/// What these rows must be answered with.
pub fn scores(features: usize, rows: &[f32]) -> Vec<f32> {
    if !are_trees_served() {
        let sum = |row: &[f32]| row.iter().copied().reduce(|sum, feature| sum + feature).expect("a feature");
        return rows.chunks(features).map(sum).collect();
    }
    ENGINES.with_borrow_mut(|engines| {
        let engine = engines.entry(features).or_insert_with(|| compiled(&trees(features)));
        scores_of(engine, rows)
    })
}
