//! What a form may be at most. A file beyond a limit is refused, with the limit's name.

/// Features in a row. Larger: a request of 64 rows no longer fits into a receive buffer of 1 MiB.
pub const FEATURES_MAX: usize = 4096;

/// Columns of a value that is not the row, scores included. Larger: an answer of 64 rows no longer fits where requests do.
pub const COLUMNS_MAX: usize = 4096;

/// Steps of a program. Real pipelines have fewer than 50; a step costs time even if it does nothing.
pub const STEPS_MAX: usize = 1024;

/// Splits and leaves of one tree: a child is addressed by 31 bits.
pub const TREE_PARTS_MAX: usize = (1 << 31) - 1;

/// Levels of one tree. Real ones have fewer than 100; a walk takes as many steps as its longest path.
pub const TREE_DEPTH_MAX: usize = 4096;
