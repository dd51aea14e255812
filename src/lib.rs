//! disrust.
pub mod blocks;
pub mod buffer_pool;
pub mod connections;
pub mod event;
pub mod limits;
pub mod model;
pub mod protocol;
pub mod response_queue;
pub mod sync;
pub mod wake;
