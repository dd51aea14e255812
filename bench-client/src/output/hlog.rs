//! The interval log of the HdrHistogram tools: a compressed histogram for each interval.
//!
//! Values are nanoseconds, and the tools' default divides the printed maximum by a million: milliseconds.
//!
//! Invariants: timestamps are seconds from the start of the measured time of the first repeat; a repeat is a tag if there
//! are several; the log of a run that is not valid says so.

use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::load::Measurement;
use crate::summary::Report;

/// The whole file.
pub fn log(report: &Report, measurements: &[Measurement], interval: Duration) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let begins_at =
        |measurement: &Measurement| measurement.started_at + Duration::from_secs_f64(report.plan.warmup_seconds);
    let first = measurements.first().map_or(SystemTime::UNIX_EPOCH, begins_at);
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!("[client {}; {}]", report.environment.client_version, report.claim))
        .with_start_time(first)
        .with_base_time(first)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut bytes, &mut serializer)?;
    for repeat in report.repeats.iter().filter(|repeat| !repeat.valid) {
        log.write_comment(&format!("[{}]", repeat.verdict()))?;
    }
    for (index, measurement) in measurements.iter().enumerate() {
        let since_first = begins_at(measurement).duration_since(first).unwrap_or_default();
        let name = format!("repeat-{index}");
        let tag = Tag::new(&name).filter(|_| measurements.len() > 1);
        for total in &measurement.intervals {
            let from = since_first + Duration::from_nanos(interval.as_nanos() as u64 * total.index);
            log.write_histogram(&total.times_ns, from, interval, tag)
                .map_err(|error| io::Error::other(format!("{error:?}")))?;
        }
    }
    Ok(bytes)
}
