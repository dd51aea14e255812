//! The gateway, in a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{PATIENCE, Stub, get, wait_until};

/// The binary, with an environment that sets nothing.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_disrust-gateway"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DISRUST_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A run of the binary that ended by itself.
#[derive(Debug)]
pub struct Run {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Runs to the end a command that should not serve.
    pub fn of(command: &mut Command) -> Run {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut child = KilledOnDrop(child);
        let status = wait_for_end(&mut child.0);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        child.0.stdout.take().expect("a pipe").read_to_string(&mut stdout).expect("text");
        child.0.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
        Run { status, stdout, stderr }
    }
}

fn wait_for_end(child: &mut Child) -> Option<i32> {
    let begun_at = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status.code();
        }
        assert!(begun_at.elapsed() < 3 * PATIENCE, "the process does not end");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended_before = self.0.kill();
        let _reaped_before = self.0.wait();
    }
}

/// See the module. It is killed when it goes out of scope.
pub struct GatewayProcess {
    child: KilledOnDrop,
    address: SocketAddr,
    stderr: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl GatewayProcess {
    /// Starts a gateway in front of these servers and waits until it listens.
    pub fn start(servers: &[SocketAddr], flags: &[&str]) -> GatewayProcess {
        let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
        let mut command = binary();
        command.args(["--listen", "127.0.0.1:0", "--server", &servers.join(",")]).args(flags);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program starts");
        let pipe = child.stderr.take().expect("a pipe");
        let stderr = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&stderr);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut written = written.lock().expect("nobody panics while holding it");
                written.push_str(&line);
                written.push('\n');
            }
        });
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut process = GatewayProcess { child: KilledOnDrop(child), address: unknown, stderr, reader };
        wait_until("the gateway listens", || process.find_address().is_some() || process.reader.is_finished());
        process.address = process.find_address().unwrap_or_else(|| panic!("it does not listen: {}", process.stderr()));
        process
    }

    /// The same in front of one server, once it is ready.
    pub fn before(server: &Stub, flags: &[&str]) -> GatewayProcess {
        let gateway = GatewayProcess::start(&[server.address()], flags);
        gateway.wait_until_ready();
        gateway
    }

    pub fn wait_until_ready(&self) {
        wait_until("it is ready", || get(self.address, "/v2/health/ready").status == 200);
    }

    fn find_address(&self) -> Option<SocketAddr> {
        let stderr = self.stderr();
        let address = stderr.split("listening on http://").nth(1)?;
        address.split(',').next()?.parse().ok()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("nobody panics while holding it").clone()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.0.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("our child, not yet waited for");
    }

    /// Bytes of memory that are resident.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.0.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("proc(5)");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("proc(5)");
        kibibytes * 1024
    }

    /// A sample of what it tells Prometheus.
    pub fn sample(&self, name: &str) -> f64 {
        let text = get(self.address, "/metrics");
        let value = text.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Waits for its end: the exit status, and all that it wrote to stderr.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let status = wait_for_end(&mut self.child.0);
        self.reader.join().expect("the reader does not panic");
        let stderr = self.stderr.lock().expect("nobody panics while holding it").clone();
        (status, stderr)
    }
}
