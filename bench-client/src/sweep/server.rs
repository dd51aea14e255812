//! A server in a process of its own: started on a port that the kernel chooses, and ended by its process id.
//!
//! It is told where it listens by the line that every server prints. It is killed, not drained: it holds nothing that
//! anybody wants, and a drain takes longer than a measurement.
//!
//! Invariants: the process ends with the value, however that goes; waiting for its line has a bound; it has a process
//! group of its own, so a Ctrl-C on the terminal reaches the sweep, which ends it then.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::SweepError;
use super::machine::Machine;
use super::plan::Server;
use crate::args::ServerKind;
use crate::processor_time::field;

/// How long a server may take to listen. Longer: a broken one is told later. Shorter: a busy machine breaks the sweep.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// What every server prints before its address.
const LISTENING: &str = "listening on ";

/// CPUs above cannot be put into the set that the library has.
const CPU_MAX: usize = CpuSet::MAX_CPU;

/// The programs, and what vectors they are to score.
pub struct Programs {
    /// The server.
    pub disrust: PathBuf,
    /// This program, which is the floors too.
    pub client: PathBuf,
    /// Features of a vector.
    pub features: u32,
}

/// A server that runs.
pub struct Running {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Running {
    /// Starts `server` on its CPUs of `machine`.
    pub fn start(server: &Server, programs: &Programs, machine: &Machine) -> Result<Running, SweepError> {
        let mut command = command(server, programs, machine);
        let child = match server.kind {
            // It pins its threads itself.
            ServerKind::Disrust => command.spawn(),
            _ => spawn_on(&mut command, &machine.server_cpu_set(server.io_threads)),
        };
        let program = PathBuf::from(command.get_program());
        let child = child.map_err(|source| SweepError::Start { program: program.clone(), source })?;
        // From here on the process ends with it.
        let mut running = Running { child, port: 0 };
        let lines = match server.kind {
            ServerKind::Disrust => running.child.stderr.take().map(lines_of),
            _ => running.child.stdout.take().map(lines_of),
        };
        running.port = lines.map_or_else(|| Err(String::new()), |lines| port(&lines)).map_err(|said| {
            let server = server.to_string();
            SweepError::Silent { server, said }
        })?;
        Ok(running)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it has in RAM now.
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process())).ok()?;
        field(&status, "VmRSS:").map(|kilobytes| kilobytes * 1024)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It is our child and not yet waited for, so the id is its own, even if it has ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn command(server: &Server, programs: &Programs, machine: &Machine) -> Command {
    let features = programs.features.to_string();
    let mut command = match server.kind {
        ServerKind::Disrust => {
            let mut command = Command::new(&programs.disrust);
            let cpus: Vec<String> = machine.server_cpus(server.io_threads).iter().map(usize::to_string).collect();
            let pin = if cpus.is_empty() { "none".to_owned() } else { cpus.join(",") };
            command.args(["--io-threads", &server.io_threads.to_string(), "--pin", &pin]);
            command.args(["--wait", &server.wait.to_string()]);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            command
        }
        kind => {
            let mut command = Command::new(&programs.client);
            command.args(["floor", "--kind", kind.name()]);
            if kind == ServerKind::Tokio {
                command.args(["--threads", &threads(server, machine).to_string()]);
            }
            command.stdout(Stdio::piped()).stderr(Stdio::inherit());
            command
        }
    };
    command.args(["--port", "0", "--host", "127.0.0.1", "--features", &features]);
    command.stdin(Stdio::null()).process_group(0);
    command
}

/// Threads of `server` that serve.
pub fn threads(server: &Server, machine: &Machine) -> u32 {
    match server.kind {
        ServerKind::Disrust => server.io_threads + 1,
        ServerKind::Epoll | ServerKind::Uring => 1,
        // One for each CPU that disrust has.
        ServerKind::Tokio => u32::try_from(machine.server_cpu_set(server.io_threads).len()).unwrap_or(u32::MAX).max(1),
    }
}

/// Starts a process that may run on `cpus` only: it inherits that from this thread, which has it back afterwards.
fn spawn_on(command: &mut Command, cpus: &BTreeSet<usize>) -> io::Result<Child> {
    let mut set = CpuSet::new();
    cpus.iter().filter(|cpu| **cpu < CPU_MAX).for_each(|cpu| set.set(*cpu));
    if set.count() == 0 {
        return command.spawn();
    }
    let before = sched_getaffinity(None)?;
    sched_setaffinity(None, &set)?;
    let child = command.spawn();
    sched_setaffinity(None, &before)?;
    child
}

/// The lines of `stream` as they come. The thread reads to the end, so that the server never waits for a reader.
fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines): (Sender<String>, _) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // Nobody listens any more once the port is known.
            let _unheard = sender.send(line);
        }
    });
    lines
}

/// The port in the line that tells it, or everything that was said instead.
fn port(lines: &Receiver<String>) -> Result<u16, String> {
    let deadline = Instant::now() + START_PATIENCE;
    let mut said = Vec::new();
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Some(port) = port_in(&line) {
            return Ok(port);
        }
        said.push(line);
    }
    Err(said.join("\n"))
}

fn port_in(line: &str) -> Option<u16> {
    let address = line.strip_prefix(LISTENING)?.split_whitespace().next()?;
    address.rsplit_once(':')?.1.parse().ok()
}

/// The version that the program tells of itself.
pub fn version_of(program: &Path) -> Result<String, SweepError> {
    let failed = |source| SweepError::Start { program: program.to_owned(), source };
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(failed)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: the port is found in the lines of all servers, and in no others.
    #[test]
    fn ports_are_found() {
        assert_eq!(port_in("listening on 127.0.0.1:4711 (epoll floor, sum model, 16 features)"), Some(4711));
        assert_eq!(port_in("listening on [::1]:80"), Some(80));
        assert_eq!((port_in("disrust 0.1.0 on Linux 6.1"), port_in("listening on nothing")), (None, None));
    }

    /// The promise: a server that ends without its line is told with what it said.
    #[test]
    fn a_silent_server_is_told_with_its_words() {
        let lines = lines_of("cannot listen\nport taken\n".as_bytes());
        assert_eq!(port(&lines), Err("cannot listen\nport taken".to_owned()));
    }
}
