//! Where a figure was measured: without it, no figure means anything to anybody else.
//!
//! Invariants: what cannot be found out is absent, and never fails a run.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The name of the server's program, which may be asked for its version; any other program might just start.
const SERVER_PROGRAM: &str = "disrust";

/// The machine, the programs and the command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// `uname -sr`, about.
    pub kernel: Option<String>,
    /// As /proc/cpuinfo has it.
    pub cpu_model: Option<String>,
    /// CPUs of the machine.
    pub cpus: Option<usize>,
    /// CPUs that this process may use.
    pub cpus_usable: Option<usize>,
    /// Of this program.
    pub client_version: String,
    /// Of the server, if it was told or its process is known.
    pub server_version: Option<String>,
    /// The arguments of this program.
    pub command_line: Vec<String>,
    /// Seconds since 1970.
    pub started_at_unix_seconds: u64,
}

impl Environment {
    /// What is to be found out here and now.
    pub fn here(server_version: Option<&str>, server_pid: Option<u32>) -> Environment {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH);
        let asked = || server_pid.and_then(ask_server_version);
        Environment {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| format!("Linux {}", text.trim())),
            cpu_model: model.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned()),
            cpus: (cpus > 0).then_some(cpus),
            cpus_usable: available_parallelism().ok().map(usize::from),
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            server_version: server_version.map(str::to_owned).or_else(asked),
            command_line: std::env::args().collect(),
            started_at_unix_seconds: started_at.map_or(0, |since| since.as_secs()),
        }
    }

    /// One line of it.
    pub fn line(&self) -> String {
        let server = self.server_version.as_deref().unwrap_or("unknown");
        format!("{}, client {}, server {server}", self.machine(), self.client_version)
    }

    /// The machine in words.
    pub fn machine(&self) -> String {
        let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let count = |count: Option<usize>| count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
        let (cpus, usable) = (count(self.cpus), count(self.cpus_usable));
        format!("{}, {}, {cpus} CPUs ({usable} usable)", word(&self.kernel), word(&self.cpu_model))
    }

    /// The day, UTC.
    pub fn date(&self) -> String {
        date(self.started_at_unix_seconds)
    }
}

/// The day of an instant, UTC: `2026-11-24`.
pub fn date(unix_seconds: u64) -> String {
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix_seconds)).to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}

fn ask_server_version(process: u32) -> Option<String> {
    let program = format!("/proc/{process}/exe");
    let target = fs::read_link(&program).ok()?;
    // The kernel marks a program whose file was replaced since: what is there now is not what runs.
    if Path::new(target.file_name()?) != Path::new(SERVER_PROGRAM) {
        return None;
    }
    let output = Command::new(&program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|version| !version.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: a day is told as everybody reads it.
    #[test]
    fn days_are_told() {
        assert_eq!((date(0), date(1_795_478_400)), ("1970-01-01".to_owned(), "2026-11-24".to_owned()));
    }
}
