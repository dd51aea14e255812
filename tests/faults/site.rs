//! Where a row happens: a server, a bystander beside it, and what must hold after every fault.
//!
//! B: the bystander gets every answer, right and in order, and soon. R: descriptors and memory come back to where they
//! were. C: the server drains with exit status 0, which it does only if every request was answered or discarded.

use std::any::Any;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use disrust_protocol::FEATURE_DIM;
use nix::sys::signal::Signal;

use super::bystanders::Bystanders;
use super::common::{Request, ServerProcess, binary, seeded};
use super::reloads::{StopOnDrop, reload_all_along};

/// A bystander's p99 below this is never too late, whatever it was before the fault: other processes share the CPUs.
const LATENCY_FLOOR: Duration = Duration::from_millis(50);

/// No exchange of a bystander takes longer.
const LATENCY_MAX: Duration = Duration::from_secs(5);

/// How long a fault may take to leave no trace.
const REST_PATIENCE: Duration = Duration::from_secs(10);

/// Memory that may be left after a fault, beside what a warm server has.
const MEMORY_KEPT_MAX: u64 = 3 * 1024 * 1024;

/// Why a row ends before its end.
pub enum Stop {
    /// This machine cannot do it.
    Skipped(String),
    /// Something did not hold.
    Failed(String),
}

/// The row that runs.
pub struct Site {
    /// Whether counts and times are reduced.
    pub quick: bool,
    pub rng: fastrand::Rng,
    /// Features of a vector, as the servers of this row have it.
    pub features: usize,
    /// What was measured, for the table.
    pub figures: Vec<String>,
}

impl Site {
    pub fn new(quick: bool) -> Site {
        Site { quick, rng: seeded(), features: FEATURE_DIM, figures: Vec::new() }
    }

    /// `full`, or `quick` in a quick run.
    pub fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    pub fn measured(&mut self, figure: impl Into<String>) {
        self.figures.push(figure.into());
    }

    /// A request of `vectors` random vectors.
    pub fn request(&mut self, vectors: usize) -> Request {
        Request::random(&mut self.rng, self.features, vectors)
    }

    /// Starts a server with these flags beside, lets `fault` happen to it, and sees whether B, R and C hold.
    pub fn beside(
        &mut self,
        flags: &[&str],
        fault: impl FnOnce(&mut Site, &ServerProcess) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let server = ServerProcess::start(flags);
        self.beside_server(server, fault)
    }

    /// The same with a server that runs already.
    pub fn beside_server(
        &mut self,
        server: ServerProcess,
        fault: impl FnOnce(&mut Site, &ServerProcess) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        warm_up(&server, self.features);
        let before = Gauges::of(&server);
        let bystanders = Bystanders::start(server.address(), self.features, self.rng.u64(..));
        std::thread::sleep(Duration::from_secs(1));
        let usual = p99(bystanders.take_latencies());
        self.reloaded(&server, fault)?;
        let latencies = bystanders.take_latencies();
        let slowest = Duration::from_nanos(latencies.iter().copied().max().unwrap_or(0));
        let during = p99(latencies);
        let answers = bystanders.finish();
        self.measured(format!(
            "bystander p99 {usual:.1?} before, {during:.1?} beside, the slowest {slowest:.1?}, {answers} answers right"
        ));
        require(slowest < LATENCY_MAX, format!("a bystander waited {slowest:?} for one exchange"))?;
        if during > (2 * usual).max(LATENCY_FLOOR) {
            return Err(Stop::Failed(format!("the bystander's p99 was {during:?}, {usual:?} before")));
        }
        self.rest(&server, before)?;
        drain(&server, self)?;
        let (status, log) = server.wait();
        if status != Some(0) {
            return Err(Stop::Failed(format!("exit status {status:?}: {}", last_line(&log))));
        }
        Ok(())
    }

    /// Lets `fault` happen; a server of a model file reads that again all along.
    fn reloaded(
        &mut self,
        server: &ServerProcess,
        fault: impl FnOnce(&mut Site, &ServerProcess) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let Some(file) = server.model_file() else { return fault(self, server) };
        let (stop, features) = (AtomicBool::new(false), self.features);
        let (taken, refused) = std::thread::scope(|scope| {
            let stopping = StopOnDrop(&stop);
            let reloads = scope.spawn(|| reload_all_along(server, file, features, &stop));
            fault(self, server)?;
            drop(stopping);
            reloads.join().expect("it does not panic")
        })?;
        self.measured(format!("{taken} reloads, {refused} files not taken"));
        Ok(())
    }

    fn rest(&mut self, server: &ServerProcess, before: Gauges) -> Result<(), Stop> {
        let begun_at = Instant::now();
        loop {
            let now = Gauges::of(server);
            let rested =
                now.descriptors <= before.descriptors && now.resident_bytes <= before.resident_bytes + MEMORY_KEPT_MAX;
            if rested {
                let kept = now.resident_bytes.saturating_sub(before.resident_bytes) / 1024;
                self.measured(format!("at rest after {:.1} s, {kept} KiB kept", begun_at.elapsed().as_secs_f64()));
                return Ok(());
            }
            if begun_at.elapsed() > REST_PATIENCE {
                return Err(Stop::Failed(format!("does not come to rest: {now:?}, before {before:?}")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Touches every buffer of every I/O thread, which become resident once and for all. So many clients that no thread is
/// left out: the kernel spreads them by a hash.
fn warm_up(server: &ServerProcess, features: usize) {
    let requests = vec![Request::of(features, &vec![0.5; 64 * features]); 24_000 / features];
    let clients = (0..16).map(|_| {
        let (mut client, requests) = (server.connect(), requests.clone());
        std::thread::spawn(move || client.exchange(&requests))
    });
    let clients: Vec<_> = clients.collect();
    clients.into_iter().for_each(|client| client.join().expect("the server serves"));
}

fn drain(server: &ServerProcess, site: &mut Site) -> Result<(), Stop> {
    server.signal(Signal::SIGTERM);
    let begun_at = Instant::now();
    while !server.stderr().contains("drained: ") {
        if begun_at.elapsed() > Duration::from_secs(20) {
            return Err(Stop::Failed(format!("does not drain: {}", last_line(&server.stderr()))));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = server.stderr();
    if let Some((_, report)) = log.rsplit_once("drained: ") {
        site.measured(report.trim());
    }
    Ok(())
}

/// What must come back to rest.
#[derive(Debug, Clone, Copy)]
pub struct Gauges {
    pub descriptors: usize,
    pub resident_bytes: u64,
}

impl Gauges {
    pub fn of(server: &ServerProcess) -> Gauges {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count();
        Gauges { descriptors, resident_bytes: server.resident_bytes() }
    }
}

/// CPU time that a process has used.
pub fn cpu_time(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let nanoseconds = threads.flatten().filter_map(|thread| {
        let schedstat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// The server through some other program, such as `setpriv` or `ip netns exec`.
pub fn through(program: &[&str], flags: &[&str]) -> Command {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(binary().get_program()).args(["--pin", "none"]).args(flags);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Runs tasks side by side, each on a thread of its own. What a task says when it panics is its failure.
pub fn at_once<T: Send>(
    tasks: impl IntoIterator<Item = impl FnOnce() -> Result<T, Stop> + Send>,
) -> Vec<Result<T, Stop>> {
    std::thread::scope(|scope| {
        let running: Vec<_> = tasks.into_iter().map(|task| scope.spawn(task)).collect();
        let join = |task: std::thread::ScopedJoinHandle<'_, Result<T, Stop>>| {
            task.join().unwrap_or_else(|panic| Err(Stop::Failed(message_of(&*panic))))
        };
        running.into_iter().map(join).collect()
    })
}

/// Fails the row unless it holds.
pub fn require(holds: bool, what: impl Into<String>) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(Stop::Failed(what.into())) }
}

/// Skips the row unless the program is there.
pub fn needs_program(name: &str) -> Result<PathBuf, Stop> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.exists());
    found.ok_or_else(|| Stop::Skipped(format!("there is no program {name}")))
}

/// Skips the row unless this is root.
pub fn needs_root() -> Result<(), Stop> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(Stop::Skipped("needs root".to_owned())) }
}

pub fn last_line(log: &str) -> &str {
    log.lines().last().unwrap_or_default()
}

/// The counts of a drain's last line.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    pub cut: usize,
    pub answered: usize,
    pub refused: usize,
}

/// What the log says about its drain.
pub fn drained(log: &str) -> Result<Drained, Stop> {
    let count = |what: &str| {
        let report = log.rsplit_once("drained: ")?.1;
        report.split_once(what)?.0.rsplit(' ').next()?.parse().ok()
    };
    let counts = (|| {
        let (cut, answered) = (count(" cut at the end")?, count(" requests answered")?);
        Some(Drained { cut, answered, refused: count(" refused while draining")? })
    })();
    counts.ok_or_else(|| Stop::Failed(format!("it does not say how it drained: {}", last_line(log))))
}

/// What a panic said.
pub fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn p99(mut latencies_ns: Vec<u64>) -> Duration {
    latencies_ns.sort_unstable();
    let index = latencies_ns.len() * 99 / 100;
    Duration::from_nanos(latencies_ns.get(index).copied().unwrap_or(0))
}
