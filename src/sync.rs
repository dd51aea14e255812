//! The primitives that threads share memory through, named once.
//!
//! The lock-free modules ([`crate::wake`], [`crate::response_queue`]) import them from here, so that their model test
//! (`tests/models.rs`) can compile the same source against loom's instead.

pub use std::sync::atomic;
