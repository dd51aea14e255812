//! What a server says of itself when it begins to serve.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use disrust_model::Model;
use disrust_protocol::RequestLayout;

use crate::config::Config;
use crate::config::placement::{BATCH_THREAD_NAME, Placement, io_thread_name};
use crate::connections::Connection;
use crate::kernel::{RingSocket, kernel_release};
use crate::limits::{PoolGeometry, beyond_budget_bytes, request_ring_slots, thread_budget_bytes};

/// Its lines. `address` is where it listens, and so many connections it serves at most.
pub(super) fn banner(
    config: &Config,
    model: &dyn Model,
    placement: &Placement,
    address: SocketAddr,
    connections_max: usize,
) -> String {
    let layout = RequestLayout::new(model.feature_dim());
    let geometry = PoolGeometry::for_layout(layout);
    let io_count = placement.io_cpus.len();
    let cpu = |cpu: Option<usize>| cpu.map_or("not pinned".to_owned(), |cpu| format!("CPU {cpu}"));
    let io_threads = placement.io_cpus.iter().enumerate();
    let threads: Vec<String> = io_threads
        .map(|(index, io_cpu)| format!("{} → {}", io_thread_name(index), cpu(*io_cpu)))
        .chain([format!("{BATCH_THREAD_NAME} → {}", cpu(placement.batch_cpu))])
        .collect();
    let time = |timeout: Option<Duration>| {
        timeout.map_or("off".to_owned(), |timeout| humantime::format_duration(timeout).to_string())
    };
    format!(
        "disrust {version} on Linux {kernel}\n\
         listening on {address}{shared}\n\
         model: {model}, {features} features\n\
         threads: {threads}\n\
         wait: {wait}\n\
         sizes: {buffers} buffers of {receive} KiB for each I/O thread, request ring of {ring} events, \
         at most {connections_max} connections\n\
         memory: at most {budget} MiB for what peers do not read or finish, {beyond} MiB for what is under way then, and \
         {state} bytes a connection\n\
         timeouts: request {request}, idle {idle}, drain {drain}\n",
        version = env!("CARGO_PKG_VERSION"),
        kernel = kernel_release(),
        shared = if config.reuse_port { " (shared)" } else { "" },
        model = model.name(),
        features = model.feature_dim(),
        threads = threads.join(", "),
        wait = placement.wait,
        buffers = geometry.buffers,
        receive = geometry.receive_bytes / 1024,
        ring = request_ring_slots(io_count, geometry.buffers),
        budget = (io_count * thread_budget_bytes(config.buffer_memory, io_count, layout)).div_ceil(1 << 20),
        beyond = (io_count * beyond_budget_bytes(geometry)).div_ceil(1 << 20),
        state = size_of::<Connection<RingSocket>>(),
        request = time(config.request_timeout),
        idle = time(config.idle_timeout),
        drain = time(Some(config.drain_timeout)),
    )
}
