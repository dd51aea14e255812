//! `probe`: the unloaded round trip. One connection, one request at a time, for a few sizes of request.
//!
//! It is the floor under every latency figure of this server and this machine: the sending and waking of two threads.
//! The client sleeps while it waits, as most callers do, so its own wake-up is part of the figure.
//!
//! Invariants: every answer is verified against the sum model.
#![forbid(unsafe_code)]

use std::io::Write;

use disrust_protocol::MAX_VECTORS_PER_REQUEST;

use crate::args::ProbePlan;
use crate::connect::Target;
use crate::failure::Failure;
use crate::load::measure;
use crate::output::text::time;
use crate::summary::TimesNs;

/// Vectors of the requests that are tried.
const VECTORS: [u32; 3] = [1, 16, MAX_VECTORS_PER_REQUEST];

/// Probes `target` as `plan` says.
pub fn run(target: &Target, plan: &ProbePlan, out: &mut impl Write) -> Result<(), Failure> {
    let print = Failure::local("print");
    writeln!(out, "probe: round trip of one request at a time on one connection, features {}", target.features)
        .map_err(&print)?;
    writeln!(
        out,
        "{:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "vectors", "min", "p50", "p90", "p99", "max", "requests"
    )
    .map_err(&print)?;
    for vectors in VECTORS {
        let mix = vectors.to_string().parse().expect("a number of vectors is a mix");
        let mut measurement = measure(target, &plan.load(mix), &mut |_| {})?;
        if let Some(first) = measurement.tally.first_lost.take() {
            return Err(Failure::Lost { lost: measurement.tally.lost, first: Box::new(first) });
        }
        let Some(times) = TimesNs::of(&measurement.service_ns) else { continue };
        write!(out, "{vectors:>7}").map_err(&print)?;
        for time_ns in [times.min, times.p50, times.p90, times.p99, times.max] {
            write!(out, " {:>9}", time(time_ns as f64)).map_err(&print)?;
        }
        writeln!(out, " {:>9}", times.count).map_err(&print)?;
    }
    Ok(())
}
