//! What the process has used, as the kernel counts it.
//!
//! For people and scrapers; nothing is decided by it.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::metrics::families::ProcessUsage;

/// Asks the kernel for everything but when the process began, which does not change ([`process_started_unix_seconds`]): /proc/stat,
/// which tells that, counts each interrupt of the machine, and to read it takes longer than all the rest together.
pub fn process_usage() -> ProcessUsage {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = |field: usize| statm.split_whitespace().nth(field)?.parse::<u64>().ok();
    let page_bytes = system_setting(libc::_SC_PAGESIZE);
    let bytes = |field| Some(pages(field)? * page_bytes?);
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ProcessUsage {
        cpu_seconds: cpu_seconds(),
        virtual_bytes: bytes(0),
        resident_bytes: bytes(1),
        open_descriptors: open_descriptors(),
        descriptors_max: descriptors_max(),
        threads: stat_field(&stat, 20),
        started_unix_seconds: None,
    }
}

/// When the process began, in seconds since 1970, if the system says so.
pub fn process_started_unix_seconds() -> Option<f64> {
    started_unix_seconds(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// Seconds since 1970; 0 before.
pub fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A field of /proc/self/stat, counted from 1 as proc(5) does. The second is the program's name, which may hold anything.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    const FIRST_BEHIND_THE_NAME: usize = 3;
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(number - FIRST_BEHIND_THE_NAME)?.parse().ok()
}

/// The kernel's clock tells when the process began after it itself did.
fn started_unix_seconds(stat: &str) -> Option<f64> {
    let ticks = stat_field(stat, 22)? as f64 / system_setting(libc::_SC_CLK_TCK)? as f64;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let booted = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
    Some(booted + ticks)
}

/// Linux 6.2 says how many there are as the size of the folder; before, they are counted.
fn open_descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match fs::metadata(FOLDER).ok()?.len() {
        0 => fs::read_dir(FOLDER).ok().map(|folder| folder.count() as u64),
        count => Some(count),
    }
}

fn descriptors_max() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one rlimit, which this is.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    known.then_some(limit.rlim_cur)
}

fn cpu_seconds() -> Option<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one timespec, which this is.
    let known = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } == 0;
    known.then_some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

fn system_setting(name: libc::c_int) -> Option<u64> {
    // SAFETY: sysconf(3) takes a number and touches no memory of ours.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).ok().filter(|value| *value > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_behind_a_hostile_name_are_found() {
        let fields: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let stat = format!("1 (a) b (c)) S {}\n", fields.join(" "));
        assert_eq!((stat_field(&stat, 20), stat_field(&stat, 22)), (Some(20), Some(22)));
        assert_eq!((stat_field("", 20), stat_field("1 (a) S", 20)), (None, None));
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = process_usage();
        assert!(usage.cpu_seconds > Some(0.0) && usage.threads > Some(0), "{usage:?}");
        assert!(usage.resident_bytes > Some(0) && usage.virtual_bytes >= usage.resident_bytes, "{usage:?}");
        assert!(usage.open_descriptors > Some(2) && usage.descriptors_max >= usage.open_descriptors, "{usage:?}");
        let started = process_started_unix_seconds().expect("/proc is there");
        let now = unix_seconds();
        // The clock that counts from the boot may be set meanwhile; a day is far more than that.
        assert!((now - started).abs() < 86_400.0, "{started} and {now}");
    }
}
