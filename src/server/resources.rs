//! What the machine gives a server: CPUs, descriptors, address space; and what it therefore promises.
#![forbid(unsafe_code)]

use disrust_protocol::RequestLayout;

use super::StartError;
use crate::config::Config;
use crate::config::placement::Topology;
use crate::exchange::event::{InferenceEvent, Response};
use crate::kernel::{available_cpus, raise_descriptor_limit};
use crate::limits::{
    CONNECTIONS_DEFAULT_MAX, CONNECTIONS_FEW, CONNECTIONS_MAX, DESCRIPTORS_ADMIN, DESCRIPTORS_PER_IO_THREAD,
    DESCRIPTORS_RESERVED, PoolGeometry, THREAD_BYTES, beyond_budget_bytes, request_ring_slots, ring_bytes,
    thread_budget_bytes,
};

/// Address space that a server reserves when it starts, and that its peers can then make it use, at most.
pub(super) fn address_space_bytes(config: &Config, layout: RequestLayout, io_threads: usize) -> usize {
    /// For what is small.
    const REST_BYTES: usize = 8 * 1024 * 1024;
    let geometry = PoolGeometry::for_layout(layout);
    let (buffers, events) = (usize::from(geometry.buffers), request_ring_slots(io_threads, geometry.buffers));
    let blocks = thread_budget_bytes(config.buffer_memory, io_threads, layout) + beyond_budget_bytes(geometry, layout);
    let each = buffers * (geometry.buffer_bytes() + size_of::<Response>()) + blocks + ring_bytes(io_threads);
    let batch = events * size_of::<InferenceEvent>() + geometry.scores_max(layout, events) * size_of::<f32>();
    // The batch processor's thread, the reporter's and the reloader's are three more.
    let threads = io_threads + 3 + usize::from(config.admin.is_some());
    io_threads * each + batch + threads * THREAD_BYTES + REST_BYTES
}

/// What the machine gives this process; to be read on the main thread, before any pinning.
pub(super) fn topology() -> Topology {
    let cpus = available_cpus();
    let parallelism = std::thread::available_parallelism().map_or(cpus.len(), usize::from);
    Topology { cpus, parallelism }
}

/// How many connections there can be: as asked, as far as descriptors last.
pub(super) fn connections_max(config: &Config, io_threads: usize) -> Result<usize, StartError> {
    let limit = raise_descriptor_limit()
        .map_err(|source| StartError::System { what: "read the limit on descriptors", source })?
        .0;
    connections_within(limit, config, io_threads)
}

fn connections_within(limit: usize, config: &Config, io_threads: usize) -> Result<usize, StartError> {
    let asked = config.max_connections;
    let admin = if config.admin.is_some() { DESCRIPTORS_ADMIN } else { 0 };
    let reserved = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_IO_THREAD * io_threads + admin;
    let available = limit.saturating_sub(reserved).min(CONNECTIONS_MAX);
    if available == 0 {
        return Err(StartError::Descriptors { limit });
    }
    match asked {
        Some(asked) if asked > available => tracing::warn!(
            "--max-connections {asked} is lowered to {available}: the limit is {limit} open descriptors. Try: ulimit -n {}",
            asked.saturating_add(reserved)
        ),
        None if available < CONNECTIONS_FEW => tracing::warn!(
            "{available} connections are the most that the limit of {limit} open descriptors leaves room for. Try: ulimit \
             -n 1024 or more"
        ),
        Some(_) | None => {}
    }
    Ok(asked.unwrap_or(CONNECTIONS_DEFAULT_MAX).min(available))
}
#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody who says nothing reserves for as many connections as a container without limits has descriptors; who says how
    /// many has them, as far as descriptors last.
    #[test]
    fn connections_are_bounded_by_what_is_asked_and_by_descriptors() {
        const BOUNDLESS: usize = 1 << 30;
        let reserved = DESCRIPTORS_RESERVED + 2 * DESCRIPTORS_PER_IO_THREAD;
        for (limit, asked, expected) in [
            (BOUNDLESS, None, Some(CONNECTIONS_DEFAULT_MAX)),
            (BOUNDLESS, Some(10_000_000), Some(10_000_000)),
            (BOUNDLESS, Some(usize::MAX), Some(CONNECTIONS_MAX)),
            (1024, None, Some(1024 - reserved)),
            (1024, Some(5), Some(5)),
            (1024, Some(5000), Some(1024 - reserved)),
            (reserved + 1, None, Some(1)),
            (reserved, None, None),
            (0, Some(7), None),
        ] {
            let config = Config { max_connections: asked, ..Config::default() };
            assert_eq!(connections_within(limit, &config, 2).ok(), expected, "{asked:?} of {limit}");
        }
        let config = Config { admin: Some(([127, 0, 0, 1], 0).into()), ..Config::default() };
        assert_eq!(connections_within(1024, &config, 2).ok(), Some(1024 - reserved - DESCRIPTORS_ADMIN));
    }
}
