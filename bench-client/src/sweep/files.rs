//! What a sweep leaves behind in its directory: `sweep.csv`, `sweep.json`, `tables.md` and the plots.
//!
//! The shape of the JSON is `schema/sweep.v1.schema.json`; a field that changes its meaning gets a new version there.
//!
//! Invariants: a file is written whole or the command fails; what was not measured is an empty field or `null`.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::figures::{FIGURES, PointFigures};
use super::plan::{Pacing, Point};
use super::plots;
use super::tables::Results;
use crate::environment::Environment;
use crate::failure::Failure;

/// What the JSON is, for whoever finds it.
const SCHEMA: &str = "disrust-bench-client-sweep";

/// The version of its shape.
const SCHEMA_VERSION: u32 = 1;

/// Columns before the figures.
const COLUMNS: [&str; 14] = [
    "pacing",
    "server",
    "io_threads",
    "wait",
    "server_threads",
    "connections",
    "window",
    "vectors",
    "fraction",
    "rate_per_second",
    "visits",
    "invalid_visits",
    "lost",
    "threads_outnumber_cpus",
];

/// Writes everything that `results` has.
pub fn write_all(directory: &Path, results: &Results<'_>) -> Result<(), Failure> {
    write(&directory.join("sweep.csv"), Ok(csv(results.points)))?;
    let json = serde_json::to_string_pretty(&file(results)).map(|text| text + "\n");
    write(&directory.join("sweep.json"), json.map_err(io::Error::from))?;
    let measured = results.tables().into_iter().filter_map(|(name, table)| Some((name, table?)));
    let tables = measured.map(|(name, table)| format!("## {name}\n\n{table}"));
    write(&directory.join("tables.md"), Ok(tables.collect::<Vec<_>>().join("\n")))?;
    for (name, plot) in plots::plots(results) {
        write(&directory.join(name), plot)?;
    }
    Ok(())
}

/// Writes one file.
pub fn write(path: &Path, text: io::Result<String>) -> Result<(), Failure> {
    let written = text.and_then(|text| fs::write(path, text));
    written.map_err(|source| Failure::Output { path: path.to_owned(), source })
}

fn csv(points: &[PointFigures]) -> String {
    let figures = FIGURES.iter().flat_map(|(_, name)| ["median", "min", "max"].map(|of| format!("{name}_{of}")));
    let head: Vec<String> = COLUMNS.iter().map(|name| (*name).to_owned()).chain(figures).collect();
    let mut text = head.join(",") + "\n";
    for point in points {
        let mut fields = plain_fields(point).to_vec();
        for (_, spread) in point.all() {
            let values = spread.map(|spread| [spread.median, spread.min, spread.max].map(|value| value.to_string()));
            fields.extend(values.unwrap_or_default());
        }
        text += &(fields.join(",") + "\n");
    }
    text
}

fn plain_fields(point: &PointFigures) -> [String; COLUMNS.len()] {
    let Point { server, pacing, connections, vectors } = point.point;
    let (name, window, fraction, rate) = match pacing {
        Pacing::Closed { window } => ("closed", window.to_string(), String::new(), String::new()),
        Pacing::Open { fraction, rate_per_second } => {
            ("open", String::new(), fraction.to_string(), rate_per_second.to_string())
        }
    };
    [
        name.to_owned(),
        server.kind.name().to_owned(),
        server.io_threads.to_string(),
        server.wait.to_string(),
        point.server_threads.to_string(),
        connections.to_string(),
        window,
        vectors.to_string(),
        fraction,
        rate,
        point.visits.to_string(),
        point.invalid_visits.to_string(),
        point.lost.to_string(),
        point.threads_outnumber_cpus.to_string(),
    ]
}

/// The whole JSON.
#[derive(Serialize)]
struct File<'a> {
    schema: &'static str,
    schema_version: u32,
    environment: &'a Environment,
    points: Vec<Value>,
}

fn file<'a>(results: &Results<'a>) -> File<'a> {
    let points = results.points.iter().map(|point| {
        let figures: Map<String, Value> = point.all().map(|(name, spread)| (name.to_owned(), json!(spread))).collect();
        json!({
            "point": point.point,
            "server_threads": point.server_threads,
            "threads_outnumber_cpus": point.threads_outnumber_cpus,
            "client_bound": point.client_bound,
            "visits": point.visits,
            "invalid_visits": point.invalid_visits,
            "lost": point.lost,
            "figures": figures,
        })
    });
    File { schema: SCHEMA, schema_version: SCHEMA_VERSION, environment: results.environment, points: points.collect() }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{point, visit};
    use super::super::machine::Machine;
    use super::*;
    use crate::args::ServerKind;

    /// The promise: every line has all columns, and a figure that is absent is an empty field.
    #[test]
    fn lines_have_all_columns() {
        let points =
            [Pacing::Closed { window: 16 }, Pacing::Open { fraction: 0.5, rate_per_second: 1e4 }].map(|pacing| {
                let point = point(ServerKind::Tokio, pacing);
                let mut visit = visit(point, 0, 1e6);
                visit.resident_bytes = None;
                PointFigures::of(point, &[&visit], &Machine::here(Some(1)))
            });
        let text = csv(&points);
        let columns: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [COLUMNS.len() + 3 * FIGURES.len(); 3]);
        assert!(text.contains("closed,tokio,1,auto,") && text.contains(",,,,"), "{text}");
    }
}
