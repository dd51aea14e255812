//! Starts that may fail: by whom, under which limits, what came of them, and what they left behind.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::common::{ServerProcess, binary, random_requests};
use super::site::{Site, Stop, at_once, last_line, needs_program, needs_root, require};

/// How long a start may take to serve or to end before it is taken for hung. On a busy machine; a second otherwise.
const START_MAX: Duration = Duration::from_secs(10);

/// A start that fails says so within this.
pub const REFUSAL_MAX: Duration = Duration::from_secs(1);

/// What came of a start.
pub enum Start {
    Serves(ServerProcess),
    Ended { status: Option<i32>, log: String, took: Duration },
}

impl Start {
    /// Runs a server until it serves or ends, and fails if it does neither.
    pub fn attempt(command: &mut Command) -> Result<Start, Stop> {
        let begun_at = Instant::now();
        let server = ServerProcess::launch_anyway(command.stdin(Stdio::null()).stdout(Stdio::null()));
        loop {
            if server.stderr().contains("\ntimeouts: ") {
                return Ok(Start::Serves(server));
            }
            if server.has_ended() {
                let (status, log) = server.wait();
                return Ok(Start::Ended { status, log, took: begun_at.elapsed() });
            }
            if begun_at.elapsed() > START_MAX {
                let log = server.stderr();
                return Err(Stop::Failed(format!("neither serves nor ends within {START_MAX:?}: {}", last_line(&log))));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// That it serves, and drains, with nothing left behind; or that it ended in order: soon, with a status that tells the
    /// kind of failure, and a message that tells the cause and what to try. Returns whether it served.
    pub fn require_order(self, site: &mut Site, what: &str) -> Result<bool, Stop> {
        match self {
            Start::Serves(server) => {
                serve_and_drain(site, server, what)?;
                Ok(true)
            }
            Start::Ended { status, log, took } => {
                let said = format!("{what}: status {status:?} after {took:.1?}: {}", log.trim().replace('\n', " / "));
                // There was no server yet.
                if log.contains("error while loading shared libraries") {
                    return Ok(false);
                }
                require(matches!(status, Some(69..=71 | 78)), format!("a status that tells the failure: {said}"))?;
                require(!log.contains("panicked"), format!("no panic: {said}"))?;
                require(tells_cause_and_cure(&log), format!("a message with cause and cure: {said}"))?;
                require(took < REFUSAL_MAX, format!("it ends soon: {said}"))?;
                Ok(false)
            }
        }
    }
}

/// Whether the message is one that an operator can act on.
fn tells_cause_and_cure(log: &str) -> bool {
    const CURES: [&str; 8] = ["try", "raise", "give", "choose", "ulimit", "--", "lower", "must be"];
    let message = log.lines().find_map(|line| line.strip_prefix("disrust: "));
    message.is_some_and(|message| {
        let message = message.to_lowercase();
        message.len() > 40 && CURES.iter().any(|cure| message.contains(cure))
    })
}

fn serve_and_drain(site: &mut Site, server: ServerProcess, what: &str) -> Result<(), Stop> {
    let address = server.address();
    let requests = random_requests(&mut site.rng, 100, 1..=8);
    let served = at_once([|| {
        server.connect().exchange(&requests);
        Ok(())
    }]);
    if let Some(Err(Stop::Failed(why))) = served.into_iter().next() {
        return Err(Stop::Failed(format!("{what}: it has a banner, and does not serve: {why}")));
    }
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    require(status == Some(0), format!("{what}: it drains, not {status:?}: {}", last_line(&log)))?;
    require_free(address, what)
}

/// Nobody listens there any more.
pub fn require_free(address: SocketAddr, what: &str) -> Result<(), Stop> {
    let begun_at = Instant::now();
    while let Err(error) = TcpListener::bind(address) {
        let gone = begun_at.elapsed() < Duration::from_secs(1);
        require(gone, format!("{what}: {address} is not free after the end: {error}"))?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A user without privileges, whom nobody else on the machine is: what is limited by user is limited for us alone.
pub struct Nobody {
    folder: PathBuf,
    user: String,
}

impl Nobody {
    pub fn new() -> Result<Nobody, Stop> {
        needs_root()?;
        needs_program("setpriv")?;
        needs_program("prlimit")?;
        let own = std::process::id();
        let folder = std::env::temp_dir().join(format!("disrust-faults-{own}"));
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written to");
        // Where anybody can run it.
        std::fs::copy(binary().get_program(), folder.join("disrust")).expect("it is copied");
        Ok(Nobody { folder, user: (1_000_000 + own % 1_000_000).to_string() })
    }

    /// The server as this user, with limits as prlimit(1) names them; `through` comes before all.
    pub fn server(&self, through: &[&str], limits: &[&str], flags: &[&str]) -> Command {
        let user = ["setpriv", "--reuid", &self.user, "--regid", &self.user, "--clear-groups", "prlimit"];
        let words = [through, &user, limits].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(self.folder.join("disrust")).args(flags);
        if !flags.contains(&"--pin") {
            command.args(["--pin", "none"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

impl Drop for Nobody {
    fn drop(&mut self) {
        // Nothing else uses it.
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}
