//! What is sampled of the server, once a second, and the server's own counts, which its metrics print.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use rustix::param::page_size;

/// In flight at most, if nothing is lost: more than all buffers of both threads can hold.
const IN_FLIGHT_MAX: u64 = 2 * 128 * 600;

/// The server's counts since its start, as far as it has printed them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub published: u64,
    pub sent: u64,
    pub discarded: u64,
    pub expired: u64,
    pub connections: u64,
    /// What cannot happen.
    pub impossible: u64,
}

impl Counts {
    fn add(&mut self, line: &str) {
        for (name, value) in line.split_whitespace().filter_map(|pair| pair.split_once('=')) {
            let Ok(value) = value.parse::<u64>() else { continue };
            match name {
                "published" => self.published += value,
                "sent" => self.sent += value,
                "discarded" => self.discarded += value,
                "err_expired" => self.expired += value,
                "connections" => self.connections = value,
                "req_ring_full" | "resp_ring_full" | "pool_too_large" => self.impossible += value,
                _ => {}
            }
        }
    }

    /// What does not hold, in mid-run: counters are read one after the other, so what is between them is only bounded.
    pub fn problem(&self) -> Option<String> {
        let in_flight = self.published.abs_diff(self.sent + self.discarded);
        (in_flight > IN_FLIGHT_MAX || self.impossible > 0).then(|| format!("the books do not balance: {self}"))
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { published, sent, discarded, expired, .. } = self;
        write!(
            formatter,
            "{published} requests parsed = {sent} answered + {discarded} discarded; {expired} deadlines passed"
        )
    }
}

/// One second.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub resident_bytes: u64,
    pub descriptors: usize,
    pub latency_ns_p50: u64,
    pub latency_ns_p99: u64,
    pub counts: Counts,
}

impl Sample {
    /// The names of [`Sample::line`]'s columns.
    pub const HEADER: &str =
        "seconds,resident_kib,descriptors,connections,bystander_p50_us,bystander_p99_us,published,sent,discarded";

    pub fn line(&self, at: Duration) -> String {
        let Counts { published, sent, discarded, connections, .. } = self.counts;
        format!(
            "{:.1},{},{},{connections},{},{},{published},{sent},{discarded}",
            at.as_secs_f64(),
            self.resident_bytes / 1024,
            self.descriptors,
            self.latency_ns_p50 / 1000,
            self.latency_ns_p99 / 1000
        )
    }
}

/// Reads what /proc and the server's metrics say.
pub struct Sampler {
    pid: u32,
    printed: PathBuf,
    read_bytes: u64,
    counts: Counts,
}

impl Sampler {
    pub fn new(pid: u32, printed: PathBuf) -> Sampler {
        Sampler { pid, printed, read_bytes: 0, counts: Counts::default() }
    }

    /// The server as it is now; `latencies_ns` are the bystanders' since the last sample.
    pub fn sample(&mut self, latencies_ns: &[u64]) -> Sample {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid)).expect("it runs");
        let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("proc(5)");
        let mut sorted = latencies_ns.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().max(1) - 1)).copied();
        Sample {
            resident_bytes: pages * page_size() as u64,
            descriptors: std::fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("it runs").count(),
            latency_ns_p50: at(50).unwrap_or(0),
            latency_ns_p99: at(99).unwrap_or(0),
            counts: self.counts(),
        }
    }

    /// The server's counts, as far as it has printed whole lines.
    pub fn counts(&mut self) -> Counts {
        let mut added = String::new();
        let mut file = File::open(&self.printed).expect("the server's stdout goes there");
        file.seek(SeekFrom::Start(self.read_bytes)).expect("a file");
        file.read_to_string(&mut added).expect("text");
        let whole = added.rfind('\n').map_or(0, |end| end + 1);
        added[..whole].lines().for_each(|line| self.counts.add(line));
        self.read_bytes += whole as u64;
        self.counts
    }
}
