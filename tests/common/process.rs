//! The binary, in a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use disrust_protocol::FEATURE_DIM;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::param::page_size;
use rustix::process::{Resource, Rlimit, prlimit};

use super::models::TemporaryFile;
use super::{Client, PATIENCE_FOR_END, truth, wait_until};

/// The path of the binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_disrust");

/// The binary, with an environment that sets nothing.
pub fn binary() -> Command {
    without_settings(Command::new(BINARY))
}

fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DISRUST_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket has an address").port()
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
        let status = wait_for_end(&mut child.0).code();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        child.0.stdout.take().expect("a pipe").read_to_string(&mut stdout).expect("text");
        child.0.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
        Run { status, stdout, stderr }
    }
}

fn wait_for_end(child: &mut Child) -> ExitStatus {
    let begun_at = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status;
        }
        assert!(begun_at.elapsed() < PATIENCE_FOR_END, "the process does not end");
        std::thread::sleep(Duration::from_millis(5));
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

/// A server in a process of its own, killed when it goes out of scope.
pub struct ServerProcess {
    child: KilledOnDrop,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    /// What it serves, if that is the trees of [`truth`].
    model_file: Option<TemporaryFile>,
}

impl ServerProcess {
    /// Starts a server of the model that [`truth`] has, on a free port, unpinned, with these flags besides.
    pub fn start(flags: &[&str]) -> ServerProcess {
        let mut command = binary();
        command.args(["--port", "0", "--pin", "none"]).args(flags).stdout(Stdio::null());
        let model_file = truth::are_trees_served().then(|| trees_file(flags));
        model_file.iter().for_each(|file| _ = command.args(["--model", file.path()]));
        ServerProcess { model_file, ..ServerProcess::launch(&mut command) }
    }

    /// Starts a server through a shell command, in which `"$0" "$@"` is the server.
    pub fn start_in_shell(script: &str, flags: &[&str]) -> ServerProcess {
        let mut shell = without_settings(Command::new("sh"));
        ServerProcess::spawn(shell.args(["-c", script, BINARY, "--pin", "none"]).args(flags))
    }

    /// Starts a server and waits for its banner.
    pub fn launch(command: &mut Command) -> ServerProcess {
        let process = ServerProcess::spawn(command);
        process.wait_for_banner();
        process
    }

    /// Starts a server that may refuse to serve.
    pub fn launch_anyway(command: &mut Command) -> ServerProcess {
        ServerProcess::spawn(command)
    }

    fn spawn(command: &mut Command) -> ServerProcess {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
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
        ServerProcess { child: KilledOnDrop(child), stderr, reader: Some(reader), model_file: None }
    }

    /// Waits until the whole banner has come; its last line tells the timeouts.
    pub fn wait_for_banner(&self) {
        wait_until("the banner", || self.stderr().contains("\ntimeouts: ") || self.has_ended());
        assert!(self.stderr().contains("\ntimeouts: "), "no banner: {}", self.stderr());
    }

    /// Whether it has ended, or closed its stderr.
    pub fn has_ended(&self) -> bool {
        self.reader.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// What it has written to stderr until now.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("nobody panics while holding it").clone()
    }

    /// The address that the banner names.
    pub fn address(&self) -> SocketAddr {
        let banner = self.stderr();
        let line = banner.lines().find_map(|line| line.strip_prefix("listening on ")).expect("the banner says where");
        line.split(' ').next().and_then(|address| address.parse().ok()).expect("an address")
    }

    /// The address of the admin port that the banner names.
    pub fn admin_address(&self) -> SocketAddr {
        let banner = self.stderr();
        let line =
            banner.lines().find_map(|line| line.strip_prefix("admin on http://")).expect("the banner says where");
        line.trim_end_matches('/').parse().expect("an address")
    }

    /// The file that it serves, if that is the trees of [`truth`].
    pub fn model_file(&self) -> Option<&TemporaryFile> {
        self.model_file.as_ref()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("our child, not yet waited for");
    }

    /// Stops it, and returns when all of its threads stand still.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        wait_until("it stands still", || {
            let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
            threads.flatten().all(|thread| {
                let status = std::fs::read_to_string(thread.path().join("status")).expect("a stopped thread stays");
                status.contains("State:\tT")
            })
        });
    }

    /// Lets it go on after a stop.
    pub fn carry_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Lowers what the running process may open to `descriptors`.
    pub fn limit_descriptors(&self, descriptors: u64) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        let limit = Rlimit { current: Some(descriptors), maximum: Some(descriptors) };
        prlimit(pid, Resource::Nofile, limit).expect("a limit may be lowered");
    }

    /// Bytes of memory that are resident.
    pub fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("it runs");
        let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("proc(5)");
        pages * page_size() as u64
    }

    /// Waits for its end: the exit status, if it was not killed, and all that it wrote to stderr.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let status = wait_for_end(&mut self.child.0);
        self.reader.take().expect("joined once").join().expect("the reader does not panic");
        (status.code(), self.stderr())
    }
}

/// A file of trees for rows as these flags have them.
fn trees_file(flags: &[&str]) -> TemporaryFile {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: only its being another one each time matters.
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let features = flags.iter().skip_while(|flag| **flag != "--features").nth(1);
    let features = features.map_or(FEATURE_DIM, |features| features.parse().expect("a number"));
    TemporaryFile::new(&format!("trees-{number}.txt"), truth::trees(features))
}
