//! The server's own figures of a run, beside the client's: how long requests waited, how long the model took.
//!
//! disrust, built with its metrics, prints a line of `name=value` pairs on stdout every `--metrics-interval`; this reads
//! the lines that were added to the file which that goes to. It does not speak to the server.
//!
//! Invariants: only intervals that lie inside the measured time count, so neither the warm-up nor an idle server is in
//! the figures; what is summed are counts, what is compared are times.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Failure;
use crate::server_figures::{ServerFigures, StageTimes};
use crate::summary::Spread;

/// Names of the stages whose times the server prints, as it does (`…_p50`, `…_p99`).
const STAGES: [&str; 4] = ["queue_ns", "predict_ns", "respond_ns", "round_ns"];

/// Names that are not counts of events, beside those of times: they cannot be added up.
const GAUGES: [&str; 9] = [
    "interval_s",
    "requests_per_s",
    "stall_pct",
    "connections",
    "req_occ",
    "resp_occ",
    "req_max",
    "resp_max",
    "pool_max_in_use",
];

/// A file that grows with the server's lines, and where it ended before the run.
pub struct MetricsFile {
    path: PathBuf,
    read_bytes: u64,
}

impl MetricsFile {
    /// Remembers where the file ends now.
    ///
    /// # Errors
    /// It can't be read.
    pub fn open(path: &Path) -> Result<MetricsFile, Failure> {
        let metadata = std::fs::metadata(path);
        let read_bytes = metadata.map_err(|error| input(path, error.to_string()))?.len();
        Ok(MetricsFile { path: path.to_owned(), read_bytes })
    }

    /// The figures of what was added since the last call, without the intervals that reach into the `warmup`; `None` if
    /// there is no whole interval behind it.
    ///
    /// # Errors
    /// The file can't be read, or has no lines of the server's.
    pub fn read(&mut self, warmup: Duration) -> Result<Option<ServerFigures>, Failure> {
        let mut added = String::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read_bytes))?;
            file.read_to_string(&mut added)
        });
        read.map_err(|error| input(&self.path, error.to_string()))?;
        self.read_bytes += added.len() as u64;
        let whole = added.rfind('\n').map_or("", |end| &added[..end]);
        let lines: Vec<Line> = whole.lines().filter_map(Line::parse).collect();
        if lines.is_empty() {
            let problem = "no line of metrics was added in the run. Start the server so: cargo run --release \
                           --features metrics -- --metrics-interval 1s > FILE";
            return Err(input(&self.path, problem.to_owned()));
        }
        Ok(figures(after(&lines, warmup.as_secs_f64())))
    }
}

fn input(path: &Path, problem: String) -> Failure {
    Failure::Input { path: path.to_owned(), problem }
}

/// One interval.
struct Line<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Line<'a>> {
        let pairs = line.strip_prefix("metrics ")?.split_whitespace();
        pairs.map(|pair| pair.split_once('=')).collect::<Option<Vec<_>>>().map(Line)
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(is, _)| *is == name).and_then(|(_, value)| value.parse().ok())
    }

    fn seconds(&self) -> f64 {
        self.value("interval_s").unwrap_or(0.0)
    }
}

/// The lines whose interval certainly began after `warmup_seconds` of the run. The first line's began before the run, at
/// a time that nobody knows, and may have ended as it began.
fn after<'a, 'b>(lines: &'a [Line<'b>], warmup_seconds: f64) -> &'a [Line<'b>] {
    let mut begun_seconds = 0.0;
    for (index, line) in lines.iter().enumerate().skip(1) {
        if begun_seconds >= warmup_seconds {
            return &lines[index..];
        }
        begun_seconds += line.seconds();
    }
    &[]
}

fn figures(lines: &[Line<'_>]) -> Option<ServerFigures> {
    let first = lines.first()?;
    let is_count = |name: &str| !GAUGES.contains(&name) && !name.contains("_p50") && !name.contains("_p99");
    let sum = |name: &str| lines.iter().filter_map(|line| line.value(name)).sum::<f64>() as u64;
    let counts = first.0.iter().filter(|(name, _)| is_count(name)).map(|(name, _)| ((*name).to_owned(), sum(name)));
    // An interval without requests has no times.
    let busy = || lines.iter().filter(|line| line.value("published") > Some(0.0));
    let spread = |name: String| Spread::of(busy().filter_map(|line| line.value(&name)));
    let stage = |stage: &str| {
        let (p50, p99) = (spread(format!("{stage}_p50"))?, spread(format!("{stage}_p99"))?);
        Some(StageTimes { stage: stage.to_owned(), p50_ns: p50.median, p99_ns: p99.median, p99_ns_max: p99.max })
    };
    Some(ServerFigures {
        intervals: lines.len() as u32,
        seconds: lines.iter().map(Line::seconds).sum(),
        counts: counts.collect(),
        stages: STAGES.iter().filter_map(|name| stage(name)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_figures::SERVER_COUNTS;

    /// The names and kinds of the server's metrics, as its document lists them; a test of the server holds that to what it
    /// prints.
    fn documented() -> Vec<(&'static str, &'static str)> {
        let document = include_str!("../../PERFORMANCE.md");
        let table = document.split("<!-- metrics -->").nth(1).and_then(|rest| rest.split("<!-- /metrics -->").next());
        let rows = table.expect("the document lists them").lines().filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| Some((row.split('`').next()?, row.split(" | ").nth(1)?))).collect()
    }

    #[test]
    fn what_is_read_is_what_the_server_prints() {
        let of_kinds = |kinds: &[&str]| -> Vec<&str> {
            documented().into_iter().filter(|(_, kind)| kinds.contains(kind)).map(|(name, _)| name).collect()
        };
        // The interval's length is before the first metric.
        let mut gauges: Vec<_> = GAUGES.into_iter().filter(|name| *name != "interval_s").collect();
        let mut documented_gauges = of_kinds(&["gauge", "peak"]);
        gauges.sort_unstable();
        documented_gauges.sort_unstable();
        assert_eq!(gauges, documented_gauges);
        let histograms = of_kinds(&["histogram"]);
        assert!(STAGES.iter().all(|stage| histograms.contains(stage)), "{histograms:?}");
        let counts = of_kinds(&["count"]);
        assert!(SERVER_COUNTS.iter().all(|name| counts.contains(name)), "{counts:?}");
    }

    fn lines(text: &str) -> Vec<Line<'_>> {
        text.lines().filter_map(Line::parse).collect()
    }

    const TEXT: &str = "\
something else that was printed
metrics interval_s=1.000 published=900 connections=5 queue_ns_p50=9000 queue_ns_p99=90000
metrics interval_s=1.000 published=100 connections=5 queue_ns_p50=1000 queue_ns_p99=10000
metrics interval_s=1.000 published=200 connections=5 queue_ns_p50=2000 queue_ns_p99=50000
metrics interval_s=1.000 published=0 connections=5 queue_ns_p50=0 queue_ns_p99=0
metrics interval_s=1.000 published=300 connections=5 queue_ns_p50=3000 queue_ns_p99=20000";

    /// The promise: counts are those of the measured time, times are those of intervals that had any.
    #[test]
    fn intervals_of_the_measured_time_are_summed_up() {
        let lines = lines(TEXT);
        let Some(figures) = figures(after(&lines, 0.5)) else { panic!("three intervals") };
        assert_eq!((figures.intervals, figures.counts["published"]), (3, 500));
        assert!(!figures.counts.contains_key("connections"));
        let [queue] = &figures.stages[..] else { panic!("one stage") };
        assert_eq!((queue.p50_ns, queue.p99_ns, queue.p99_ns_max), (2500.0, 35_000.0, 50_000.0));
    }

    /// The promise: an interval that may reach into the warm-up is left out, and the first one always may.
    #[test]
    fn the_warm_up_is_left_out() {
        let lines = lines(TEXT);
        for (warmup, left) in [(0.0, 4), (0.1, 3), (1.0, 3), (1.5, 2), (3.0, 1), (3.5, 0), (9.0, 0)] {
            assert_eq!(after(&lines, warmup).len(), left, "{warmup}");
        }
        assert_eq!(figures(after(&lines, 9.0)), None);
    }
}
