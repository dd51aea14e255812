//! What a server says of itself: in a line for `--version`, and in more when it begins to serve.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use disrust_protocol::RequestLayout;

use crate::config::placement::{BATCH_THREAD_NAME, Placement, io_thread_name};
use crate::config::{Config, VERSION};
use crate::connections::Connection;
use crate::kernel::{RingSocket, kernel_release};
use crate::limits::{PoolGeometry, beyond_budget_bytes, request_ring_slots, thread_budget_bytes};

/// A banner, but for what only the threads find out.
pub(super) struct Banner {
    before_threads: String,
    /// Each thread's name, and its CPU if it is to have one.
    threads: Vec<(String, Option<usize>)>,
    after_threads: String,
}

impl Banner {
    /// For a server on a port with this address, if it has one, with an admin port or without, that serves what `model` says, in lines, and at most so many connections.
    pub fn new(
        config: &Config,
        model: &str,
        layout: RequestLayout,
        placement: &Placement,
        address: Option<SocketAddr>,
        admin: Option<SocketAddr>,
        connections_max: usize,
    ) -> Banner {
        let shared = if config.reuse_port { " (shared)" } else { "" };
        let port = address.map(|address| format!("listening on {address}{shared}\n")).unwrap_or_default();
        let (mode, path) = (config.unix_mode, config.unix.as_deref().map(Path::display));
        let path = path.map(|path| format!("listening at {path}, mode {mode:04o}\n")).unwrap_or_default();
        let before_threads = format!(
            "disrust {VERSION} on Linux {kernel}\n\
             process {process}, {seccomp}, configuration: {source}\n\
             {port}{path}{admin}{model}",
            admin = admin.map_or(String::new(), |address| format!("admin on http://{address}/\n")),
            kernel = kernel_release(),
            process = std::process::id(),
            seccomp = if config.seccomp { "confined by --seccomp" } else { "no --seccomp" },
            source = config.file.as_deref().map_or("no file".into(), Path::to_string_lossy),
        );
        let io_threads = placement.io_cpus.iter().enumerate().map(|(index, cpu)| (io_thread_name(index), *cpu));
        let threads = io_threads.chain([(BATCH_THREAD_NAME.to_owned(), placement.batch_cpu)]).collect();
        let helps = if placement.helps { "I/O threads score what is short themselves" } else { "by its own thread" };
        let wait = format!("wait: {}; batches: {helps}\n", placement.wait);
        let after_threads = wait + &sizes(config, layout, placement.io_cpus.len(), connections_max);
        Banner { before_threads, threads, after_threads }
    }

    /// Each thread's name, and the CPU that it runs on, if it is pinned.
    pub fn threads(&self, refused: impl Fn(usize) -> bool) -> Vec<(String, Option<usize>)> {
        let threads = self.threads.iter().enumerate();
        threads.map(|(place, (name, cpu))| (name.clone(), cpu.filter(|_| !refused(place)))).collect()
    }

    /// Its lines. `refused` tells which threads the system did not let have their CPU, by their place.
    pub fn lines(&self, refused: impl Fn(usize) -> bool) -> String {
        let of_thread = |(place, (name, cpu)): (usize, &(String, Option<usize>))| match cpu {
            Some(cpu) if refused(place) => format!("{name} → not pinned (CPU {cpu} was refused)"),
            Some(cpu) => format!("{name} → CPU {cpu}"),
            None => format!("{name} → not pinned"),
        };
        let threads: Vec<_> = self.threads.iter().enumerate().map(of_thread).collect();
        format!("{}threads: {}\n{}", self.before_threads, threads.join(", "), self.after_threads)
    }
}

fn sizes(config: &Config, layout: RequestLayout, io_threads: usize, connections_max: usize) -> String {
    let geometry = PoolGeometry::for_layout(layout);
    let time = |timeout: Option<Duration>| {
        timeout.map_or("off".to_owned(), |timeout| humantime::format_duration(timeout).to_string())
    };
    format!(
        "sizes: {buffers} buffers of {receive} KiB for each I/O thread, request ring of {ring} events, \
         at most {connections_max} connections\n\
         memory: at most {budget} MiB for what peers do not read or finish, {beyond} MiB for what is under way then, and \
         {state} bytes a connection\n\
         timeouts: request {request}, idle {idle}, age {age}, shutdown delay {shutdown}, drain {drain}; queue delay {delay}\n",
        buffers = geometry.buffers,
        receive = geometry.receive_bytes / 1024,
        ring = request_ring_slots(io_threads, geometry.buffers),
        budget = (io_threads * thread_budget_bytes(config.buffer_memory, io_threads, layout)).div_ceil(1 << 20),
        beyond = (io_threads * beyond_budget_bytes(geometry, layout)).div_ceil(1 << 20),
        state = size_of::<Connection<RingSocket>>(),
        request = time(config.request_timeout),
        idle = time(config.idle_timeout),
        age = time(config.max_connection_age),
        delay = time(config.max_queue_delay),
        shutdown = time(Some(config.shutdown_delay).filter(|delay| !delay.is_zero())),
        drain = time(Some(config.drain_timeout)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::wait::WaitStrategy;

    #[test]
    fn a_banner_says_what_runs_and_which_threads_are_pinned() {
        let unix = Some("/run/a.sock".into());
        let config = Config {
            file: Some("a.toml".into()),
            seccomp: true,
            unix,
            max_connection_age: Some(Duration::from_secs(900)),
            shutdown_delay: Duration::from_secs(5),
            max_queue_delay: Some(Duration::from_millis(20)),
            ..Config::default()
        };
        let placement = Placement {
            io_cpus: vec![Some(3), None],
            batch_cpu: Some(4),
            wait: WaitStrategy::Park,
            helps: false,
            warnings: Vec::new(),
        };
        let address = Some(SocketAddr::from(([127, 0, 0, 1], 9900)));
        let admin = SocketAddr::from(([127, 0, 0, 1], 9901));
        let lines = Banner::new(
            &config,
            "model: sum, 16 features\n",
            RequestLayout::new(16),
            &placement,
            address,
            Some(admin),
            100,
        )
        .lines(|place| place == 2);
        let process = format!("process {}, confined by --seccomp, configuration: a.toml", std::process::id());
        let threads = "threads: io-0 → CPU 3, io-1 → not pinned, batch-processor → not pinned (CPU 4 was refused)";
        for line in [
            &process,
            threads,
            "listening on 127.0.0.1:9900",
            "listening at /run/a.sock, mode 0660",
            "admin on http://127.0.0.1:9901/",
            "model: sum, 16 features",
            "timeouts: request 30s, idle off, age 15m, shutdown delay 5s, drain 10s; queue delay 20ms",
        ] {
            assert!(lines.lines().any(|is| is == line), "{line}: {lines}");
        }
        assert!(lines.starts_with(&format!("disrust {VERSION} on Linux ")), "{lines}");
    }
}
