//! CPU time: ours, that of the server's threads, with their context switches, and that of all others together.
//!
//! The server's is read from `/proc/PID/task/*/schedstat` (nanoseconds on the CPU; Linux, proc(5)) and not from
//! `/proc/PID/stat`, whose ticks of 10 ms are too coarse for a short run. A thread that is on a CPU while it is read is
//! behind by up to a scheduler tick (1 to 4 ms). Context switches are those of `/proc/PID/task/*/status`.
//!
//! Invariants: only differences mean anything. A thread that ended between two readings is not counted.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

/// Ticks of /proc/stat in a second of one CPU: the kernel's USER_HZ, which is fixed by its interface (proc(5), time(7)).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnTime {
    /// In our own code.
    pub user: Duration,
    /// In the kernel, for us.
    pub system: Duration,
}

impl OwnTime {
    /// What this process has used so far.
    pub fn now() -> io::Result<OwnTime> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        Ok(OwnTime { user: duration(usage.user_time()), system: duration(usage.system_time()) })
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: OwnTime) -> OwnTime {
        OwnTime { user: self.user.saturating_sub(earlier.user), system: self.system.saturating_sub(earlier.system) }
    }
}

fn duration(time: TimeVal) -> Duration {
    Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0))
}

/// CPU time and context switches of one thread of another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadTime {
    /// The kernel's id of the thread.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// User and system time.
    pub time: Duration,
    /// How often it left a CPU, because it waited or because another thread was let on.
    pub context_switches: u64,
}

/// What each thread of `process` has used so far.
pub fn threads_of(process: u32) -> io::Result<Vec<ThreadTime>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match thread_time(&entry.path(), id) {
            Ok(thread) => threads.push(thread),
            // It ended between being listed and being read. ESRCH comes as Uncategorized, so the path is asked.
            Err(_) if !entry.path().exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(threads)
}

/// What each thread used from `before` to `after`.
pub fn spent(before: &[ThreadTime], after: Vec<ThreadTime>) -> Vec<ThreadTime> {
    let spent = |thread: ThreadTime| {
        let Some(earlier) = before.iter().find(|earlier| earlier.id == thread.id) else { return thread };
        ThreadTime {
            time: thread.time.saturating_sub(earlier.time),
            context_switches: thread.context_switches.saturating_sub(earlier.context_switches),
            ..thread
        }
    };
    after.into_iter().map(spent).collect()
}

fn thread_time(task: &Path, id: u32) -> io::Result<ThreadTime> {
    let name = fs::read_to_string(task.join("comm"))?.trim_end().to_owned();
    let schedstat = fs::read_to_string(task.join("schedstat"))?;
    let run_ns = schedstat.split_whitespace().next().and_then(|field| field.parse().ok());
    let time = run_ns.map(Duration::from_nanos).ok_or_else(|| io::Error::other("schedstat has no run time"))?;
    let status = fs::read_to_string(task.join("status"))?;
    let context_switches = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"]
        .iter()
        .filter_map(|name| field(&status, name))
        .sum();
    Ok(ThreadTime { id, name, time, context_switches })
}

/// The first number behind `name` in a file of lines such as /proc/PID/status.
pub fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How busy all others keep this machine, beside us and the server.
#[derive(Debug)]
pub struct OthersWatch {
    server: u32,
    before: Option<(BusyTime, Duration)>,
}

impl OthersWatch {
    /// Watches from now on; the server is process `server` of this machine.
    pub fn begin(server: u32) -> OthersWatch {
        OthersWatch { server, before: BusyTime::now().zip(time_of_ours(server)) }
    }

    /// The share of all CPUs that others have used since the beginning, or `None` if the system does not tell.
    pub fn share(&self) -> Option<f64> {
        let (busy_before, ours_before) = self.before?;
        let ours = time_of_ours(self.server)?.saturating_sub(ours_before);
        Some(BusyTime::now()?.others_since(busy_before, ours))
    }
}

/// What this process and `server` have used so far.
fn time_of_ours(server: u32) -> Option<Duration> {
    let own = OwnTime::now().ok()?;
    let server: Duration = threads_of(server).ok()?.iter().map(|thread| thread.time).sum();
    Some(own.user + own.system + server)
}

/// What all CPUs together did since the machine started.
#[derive(Debug, Clone, Copy)]
struct BusyTime {
    busy_ticks: u64,
    all_ticks: u64,
}

impl BusyTime {
    /// So far, or `None` if the system does not tell.
    fn now() -> Option<BusyTime> {
        BusyTime::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// Of the first line: user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in user.
    fn parse(stat: &str) -> Option<BusyTime> {
        let fields: Vec<u64> =
            stat.lines().next()?.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
        let all_ticks: u64 = fields.iter().sum();
        let idle_ticks = fields.get(3)? + fields.get(4)?;
        Some(BusyTime { busy_ticks: all_ticks - idle_ticks, all_ticks })
    }

    /// The share of all CPUs that was used since `earlier` and not by us: `ours` is the time of our own processes.
    fn others_since(self, earlier: BusyTime, ours: Duration) -> f64 {
        let all_ticks = self.all_ticks.saturating_sub(earlier.all_ticks).max(1) as f64;
        let busy_ticks = self.busy_ticks.saturating_sub(earlier.busy_ticks) as f64;
        ((busy_ticks - ours.as_secs_f64() * TICKS_PER_SECOND) / all_ticks).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: time that a thread burns is found at that thread.
    #[test]
    fn a_busy_thread_is_seen() {
        let process = std::process::id();
        let before = threads_of(process).expect("our own threads");
        let own_before = OwnTime::now().expect("getrusage");
        while OwnTime::now().expect("getrusage").since(own_before).user < Duration::from_millis(40) {}
        let spent = spent(&before, threads_of(process).expect("our own threads"));
        let total: Duration = spent.iter().map(|thread| thread.time).sum();
        assert!(total > Duration::from_millis(20), "{spent:?}");
    }

    /// The promise: threads are told apart by id, and one that is new counts from its start.
    #[test]
    fn spent_is_the_difference_by_thread() {
        let thread = |id, ns| ThreadTime {
            id,
            name: format!("t{id}"),
            time: Duration::from_nanos(ns),
            context_switches: 3 * ns,
        };
        let spent = spent(&[thread(1, 10), thread(2, 20)], vec![thread(2, 25), thread(3, 7)]);
        assert_eq!(spent, [thread(2, 5), thread(3, 7)]);
    }

    /// The promise: a field is found by its whole name.
    #[test]
    fn fields_have_whole_names() {
        let status = "nonvoluntary_ctxt_switches:\t5\nvoluntary_ctxt_switches:\t7\nVmRSS:\t  1234 kB\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(7));
        assert_eq!((field(status, "VmRSS:"), field(status, "VmHWM:")), (Some(1234), None));
    }

    /// The promise: a process that is not there is an error, not zero.
    #[test]
    fn no_such_process_is_an_error() {
        assert!(threads_of(u32::MAX).is_err());
    }

    /// The promise: others are watched where the server's process is known, and a share is one.
    #[test]
    fn others_are_watched_beside_a_process() {
        let share = OthersWatch::begin(std::process::id()).share().expect("Linux tells");
        assert!(share.is_finite() && share >= 0.0, "{share}");
        assert_eq!(OthersWatch::begin(u32::MAX).share(), None, "nobody's process");
    }

    /// The promise: what others used is what is left when ours is taken away.
    #[test]
    fn others_are_what_is_left() {
        let at = |user, idle| BusyTime::parse(&format!("cpu  {user} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1")).expect("a line");
        let others = at(150, 150).others_since(at(100, 100), Duration::from_millis(250));
        assert!((others - 0.25).abs() < 1e-9, "{others}");
        let none = at(110, 190).others_since(at(100, 100), Duration::from_secs(1));
        assert_eq!(none, 0.0);
        assert!(BusyTime::parse("").is_none());
    }
}
