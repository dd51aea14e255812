//! What travels between the threads, and how: events and responses, the buffers and blocks that the bytes lie in, the queue of
//! responses, a place to swap what a thread uses, which model serves, a token for a role, the spread of connections, and what wakes a thread that sleeps; and the time that
//! all count by.
//!
//! No decision about a connection or a request is made here, and no system call.

pub mod blocks;
pub mod buffer_pool;
pub mod clock;
pub mod control;
pub mod event;
pub mod lived_time;
pub mod model_version;
pub mod response_queue;
pub mod spread;
pub mod swap_place;
pub mod sync;
pub mod token;
pub mod wait;
pub mod wake;
