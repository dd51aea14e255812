//! What `run` leaves behind: a table on a terminal or in a log, and files for scripts and for the HdrHistogram tools.
//!
//! Invariants: nothing here is called while a run is measured, but [`progress`], which is only there on a terminal; a
//! file is written whole or the command fails.
#![forbid(unsafe_code)]

pub mod plot;
pub mod progress;
pub mod text;

mod csv;
mod hgrm;
mod hlog;
mod svg;

use std::fs;
use std::io;
use std::path::Path;

use crate::args::OutputPlan;
use crate::failure::Failure;
use crate::load::Measurement;
use crate::load::recorder::times_ns;
use crate::summary::Report;

/// Writes the files that `plan` asks for.
pub fn write_files(plan: &OutputPlan, report: &Report, measurements: &[Measurement]) -> Result<(), Failure> {
    if let Some(path) = &plan.json {
        write(
            path,
            serde_json::to_string_pretty(report).map(|text| (text + "\n").into_bytes()).map_err(io::Error::from),
        )?;
    }
    if let Some(path) = &plan.csv {
        write(path, Ok(csv::lines(report).into_bytes()))?;
    }
    if let Some(path) = &plan.hlog {
        write(path, hlog::log(report, measurements, plan.interval))?;
    }
    if plan.hgrm.is_none() && plan.svg.is_none() {
        return Ok(());
    }
    let (mut response_ns, mut service_ns) = (times_ns(), times_ns());
    for measurement in measurements {
        let expected = "histograms of one kind have the same bounds";
        response_ns.add(&measurement.response_ns).expect(expected);
        service_ns.add(&measurement.service_ns).expect(expected);
    }
    if let Some(path) = &plan.hgrm {
        let is_open = !response_ns.is_empty();
        write(path, Ok(hgrm::percentiles(if is_open { &response_ns } else { &service_ns }).into_bytes()))?;
    }
    if let Some(path) = &plan.svg {
        write(path, svg::spectrum(report, &response_ns, &service_ns).map(String::into_bytes))?;
    }
    Ok(())
}

fn write(path: &Path, bytes: io::Result<Vec<u8>>) -> Result<(), Failure> {
    let written = bytes.and_then(|bytes| fs::write(path, bytes));
    written.map_err(|source| Failure::Output { path: path.to_owned(), source })
}
