//! Row G8: a process that stands still for a while, at any stage of its start and its drain, goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use disrust_protocol::ErrorCode;
use nix::sys::signal::Signal;

use super::Listed;
use super::common::{Client, Reply, Request, ServerProcess, binary, random_requests, wait_until};
use super::site::{Site, Stop, at_once, drained, last_line, require};

pub const ROWS: &[Listed] = &[("G8", "frozen (SIGSTOP, cgroup freezer) at every stage of start and drain", frozen)];

/// What the drain may take; a freeze is longer.
const DRAIN_TIMEOUT: &str = "1s";

/// What makes a process stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    Sigstop,
    Freezer,
}

/// A process that stands still until this goes.
enum Freeze<'a> {
    Stopped(&'a ServerProcess),
    Frozen(ControlGroup),
}

impl<'a> Freeze<'a> {
    fn begin(means: Means, server: &'a ServerProcess) -> Result<Freeze<'a>, Stop> {
        match means {
            Means::Sigstop => {
                server.signal(Signal::SIGSTOP);
                Ok(Freeze::Stopped(server))
            }
            Means::Freezer => ControlGroup::frozen(server.pid()).map(Freeze::Frozen),
        }
    }

    fn end(self) {
        match self {
            Freeze::Stopped(server) => server.carry_on(),
            Freeze::Frozen(group) => drop(group),
        }
    }
}

/// A control group with one process in it, which is frozen.
struct ControlGroup {
    folder: PathBuf,
    /// Where the process was before.
    home: PathBuf,
    thaw: (&'static str, &'static str),
    pid: String,
}

impl ControlGroup {
    /// Where groups are, what freezes one of them, and what thaws it: version 2, where it is, and version 1.
    const HIERARCHIES: [(&str, &str, &str, &str); 3] = [
        ("/sys/fs/cgroup", "cgroup.freeze", "1", "0"),
        ("/sys/fs/cgroup/unified", "cgroup.freeze", "1", "0"),
        ("/sys/fs/cgroup/freezer", "freezer.state", "FROZEN", "THAWED"),
    ];

    fn frozen(pid: u32) -> Result<ControlGroup, Stop> {
        let mut why = "no control groups".to_owned();
        for (root, file, freeze, thaw) in Self::HIERARCHIES {
            let folder = Path::new(root).join(format!("disrust-faults-{}-{pid}", std::process::id()));
            if !Path::new(root).join("cgroup.procs").exists() || fs::create_dir(&folder).is_err() {
                continue;
            }
            let (home, pid) = (PathBuf::from(root), pid.to_string());
            let group = ControlGroup { folder, home, thaw: (file, thaw), pid };
            let written = fs::write(group.folder.join("cgroup.procs"), &group.pid)
                .and_then(|()| fs::write(group.folder.join(file), freeze));
            match written {
                Ok(()) => return Ok(group),
                Err(error) => why = format!("{}: {error}", group.folder.display()),
            }
        }
        Err(Stop::Skipped(format!("cannot freeze a control group: {why}")))
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // The process may have ended, and the folder is empty then.
        let _thawed = fs::write(self.folder.join(self.thaw.0), self.thaw.1);
        let _moved = fs::write(self.home.join("cgroup.procs"), &self.pid);
        let _removed = fs::remove_dir(&self.folder);
    }
}

fn frozen(site: &mut Site) -> Result<(), Stop> {
    let mut failures = Vec::new();
    for means in [Means::Sigstop, Means::Freezer] {
        let (drains, starts) = (site.size(24, 4), site.size(24, 4));
        let freezes = Duration::from_millis(site.size(4000, 3500));
        let mut lost = 0;
        // Many at a time: they stand still most of the time.
        for _ in 0..drains / 4 {
            let tasks: Vec<_> = (0..4)
                .map(|_| {
                    let mut rng = site.rng.fork();
                    move || frozen_in_drain(means, freezes, &mut rng)
                })
                .collect();
            for outcome in at_once(tasks) {
                match outcome {
                    Ok(()) => {}
                    Err(Stop::Skipped(why)) => {
                        site.measured(format!("{means:?}: skipped: {why}"));
                        return conclude(&failures);
                    }
                    Err(Stop::Failed(why)) => {
                        lost += 1;
                        failures.push(why);
                    }
                }
            }
        }
        site.measured(format!("{means:?}: {lost} of {drains} drains that stood still for {freezes:?} went wrong"));
        let tasks: Vec<_> = (0..starts)
            .map(|_| {
                let mut rng = site.rng.fork();
                move || frozen_in_start(means, &mut rng)
            })
            .collect();
        for outcome in at_once(tasks) {
            if let Err(Stop::Failed(why)) = outcome {
                failures.push(why);
            }
        }
        site.measured(format!("{means:?}: {starts} starts"));
    }
    conclude(&failures)
}

fn conclude(failures: &[String]) -> Result<(), Stop> {
    require(failures.is_empty(), format!("{} went wrong: {}", failures.len(), failures.join("; ")))
}

/// Stands still at some moment of a drain, or before it, so that it hears of it only afterwards.
fn frozen_in_drain(means: Means, length: Duration, rng: &mut fastrand::Rng) -> Result<(), Stop> {
    const CLIENTS: usize = 8;
    let server = ServerProcess::start(&["--io-threads", "2", "--drain-timeout", DRAIN_TIMEOUT]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    let early: Vec<_> = clients.iter().map(|_| random_requests(rng, 200, 1..=16)).collect();
    let frozen_before = rng.u8(..4) == 0;
    let moment = Duration::from_millis(rng.u64(0..700));
    let what = format!(
        "{means:?}, {}",
        if frozen_before { "before SIGTERM".to_owned() } else { format!("{moment:?} after SIGTERM") }
    );
    let freeze = if frozen_before { Some(Freeze::begin(means, &server)?) } else { None };
    clients.iter().zip(&early).for_each(|(client, requests)| client.send_all(requests));
    server.signal(Signal::SIGTERM);
    let freeze = match freeze {
        Some(freeze) => freeze,
        None => {
            std::thread::sleep(moment);
            Freeze::begin(means, &server)?
        }
    };
    // A little later than the last call by the clock, not by the time that the process has had.
    std::thread::sleep(length / 4);
    // Later than this, the process may have ended the connection before it stood still.
    let in_last_call = frozen_before || moment < Duration::from_millis(300);
    let late = random_requests(rng, 20, 1..=4);
    if in_last_call {
        clients.iter().for_each(|client| client.send_all(&late));
    }
    std::thread::sleep(length - length / 4);
    let frozen_for = Instant::now();
    freeze.end();
    let late = if in_last_call { &late[..] } else { &[] };
    let lost: Vec<String> = clients
        .iter_mut()
        .zip(&early)
        .enumerate()
        .filter_map(|(index, (client, early))| Some(format!("client {index}: {}", missing(client, early, late)?)))
        .collect();
    drop(clients);
    let (status, log) = server.wait();
    let said = format!("{what}: status {status:?}, {:.1?} after it went on: {}", frozen_for.elapsed(), last_line(&log));
    require(lost.is_empty(), format!("{said}; {}", lost.join(", ")))?;
    require(status == Some(0), &*said)?;
    require(drained(&log)?.cut == 0, format!("nobody is cut who reads: {said}"))
}

/// What a client has not got: an answer to each early request, an answer or error 4 to each late one, then the end.
fn missing(client: &mut Client, early: &[Request], late: &[Request]) -> Option<String> {
    for (index, request) in early.iter().enumerate() {
        match client.receive_or_break() {
            Ok(Some(reply)) if reply == request.reply => {}
            other => return Some(format!("to request {index} of {}, sent before SIGTERM: {other:?}", early.len())),
        }
    }
    let mut refused = false;
    for (index, request) in late.iter().enumerate() {
        match client.receive_or_break() {
            Ok(Some(Reply::Error(ErrorCode::Closing))) => refused = true,
            Ok(Some(reply)) if reply == request.reply && !refused => {}
            other => return Some(format!("to late request {index} of {}: {other:?}", late.len())),
        }
    }
    match client.receive_or_break() {
        Ok(None) => None,
        other => Some(format!("no end in order: {other:?}")),
    }
}

/// Stands still at some moment of a start, and serves all the same.
fn frozen_in_start(means: Means, rng: &mut fastrand::Rng) -> Result<(), Stop> {
    let mut command = binary();
    command.args(["--port", "0", "--pin", "none", "--io-threads", "4"]).stdout(Stdio::null());
    let server = ServerProcess::launch_anyway(&mut command);
    std::thread::sleep(Duration::from_micros(rng.u64(0..60_000)));
    let freeze = Freeze::begin(means, &server)?;
    std::thread::sleep(Duration::from_millis(1500));
    freeze.end();
    wait_until("it serves", || server.stderr().contains("\ntimeouts: ") || server.has_ended());
    server.wait_for_banner();
    server.connect().exchange(&random_requests(rng, 50, 1..=8));
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    require(status == Some(0), format!("{means:?} in the start: status {status:?}: {}", last_line(&log)))
}
