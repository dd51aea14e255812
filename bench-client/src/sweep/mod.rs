//! `sweep`: the server beside the floors, over I/O threads x connections x window x vectors, in interleaved repeats.
//!
//! The journey of a point: [`plan`] lists it → [`visit`] starts its [`server`] on its CPUs of the [`machine`] and measures
//! it with the engine that `run` has → [`journal`] keeps the visit, so that a sweep that was stopped goes on from there →
//! [`figures`] sums its visits up → [`tables`], [`plots`] and [`files`] tell it, [`mod@conclusion`] in three lines, and
//! [`crate::markers`] puts the tables into a document.
//!
//! The closed loop comes first: throughput and CPU time. From it follow the rates of the open loop: latency against
//! load, at the same rates for every server.
//!
//! Invariants: no server outlives its visit, also when this fails or is interrupted; no load is generated here; figures
//! are never written without the marks that they deserve.
#![forbid(unsafe_code)]

mod conclusion;
mod figures;
mod files;
mod journal;
mod machine;
mod plan;
mod plots;
mod progress;
mod server;
mod tables;
mod visit;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use thiserror::Error;

use crate::args::{ServerKind, SweepPlan};
use crate::connect::{Target, raise_descriptor_limit};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::markers::{self, MarkerError};
use conclusion::conclusion;
use figures::{Figure, PointFigures};
use journal::{Circumstances, Journal, hash_of};
use machine::Machine;
use plan::{Grid, Point, rounds};
use progress::Progress;
use server::Programs;
use tables::Results;
use visit::Visitor;

/// Why a sweep cannot go on.
#[derive(Debug, Error)]
pub enum SweepError {
    /// A program does not start.
    #[error(
        "cannot start {}: {source}\nBuild it with `cargo build --release --workspace`, or name it with --server.",
        program.display()
    )]
    Start {
        /// The program.
        program: PathBuf,
        /// What starting it gave.
        source: io::Error,
    },
    /// A server did not tell where it listens.
    #[error("{server} did not say where it listens. What it said:\n{said}")]
    Silent {
        /// The server.
        server: String,
        /// Its output.
        said: String,
    },
    /// Somebody wants an end.
    #[error("interrupted; the same command goes on from here")]
    Interrupted,
    /// No such mix.
    #[error("not a number of vectors: {0}")]
    Vectors(String),
    /// The document cannot take the tables.
    #[error("{}: {source}", path.display())]
    Document {
        /// The document.
        path: PathBuf,
        /// What is wrong with it.
        source: MarkerError,
    },
}

impl From<SweepError> for Failure {
    fn from(error: SweepError) -> Failure {
        Failure::Command(Box::new(error))
    }
}

/// What the names of our tables begin with in a document.
const GROUP: &str = "sweep:";

/// Sweeps as `plan` says.
pub fn run(target: &Target, plan: &SweepPlan, out: &mut impl Write) -> Result<(), Failure> {
    raise_descriptor_limit()?;
    let machine = Machine::here(plan.threads);
    let grid = Grid::new(plan, machine.cpu_count());
    let programs = programs(plan, target)?;
    let has_disrust = plan.servers.contains(&ServerKind::Disrust);
    let server_version = if has_disrust { Some(server::version_of(&programs.disrust)?) } else { None };
    let environment = Environment::here(server_version.as_deref(), None);
    fs::create_dir_all(&plan.out).map_err(|source| Failure::Output { path: plan.out.clone(), source })?;
    let mut sweep = Sweep {
        circumstances: circumstances(&environment, &machine, &grid, target, &programs, has_disrust)?,
        journal: Journal::open(&plan.out.join("points.jsonl"))?,
        visitor: Visitor { target, grid: &grid, machine: &machine, programs: &programs },
        interrupted: interruption().map_err(Failure::local("catch signals"))?,
    };
    writeln!(out, "sweep: {}", environment.line()).map_err(Failure::local("print"))?;
    let command = command_again(std::env::args().skip(1));
    let results = |points| Results { points, base: grid.base(), environment: &environment, command: &command };
    if let Some(document) = &plan.write {
        // A document that cannot take the tables is told now, and not after half an hour.
        rewritten(document, &results(&[]))?;
    }
    if plan.fresh {
        sweep.journal.forget()?;
    }
    let (closed, open_count) = (grid.closed(), grid.open(None).len());
    sweep.visit_all("closed loop", &closed, grid.repeats)?;
    let mut points = sweep.figures(&closed);
    if open_count > 0 {
        let open = grid.open(capacity(&grid, &points));
        sweep.visit_all("open loop", &open, grid.repeats)?;
        points.extend(sweep.figures(&open));
    }
    let results = results(&points);
    files::write_all(&plan.out, &results)?;
    for (name, table) in results.tables() {
        if let Some(table) = table {
            writeln!(out, "\n## {name}\n\n{table}").map_err(Failure::local("print"))?;
        }
    }
    if let Some(document) = &plan.write {
        files::write(document, Ok(rewritten(document, &results)?))?;
    }
    let written = plan.out.display();
    writeln!(out, "\nsweep: tables, CSV, JSON and plots are in {written}").map_err(Failure::local("print"))?;
    conclusion(&results).iter().try_for_each(|line| writeln!(out, "{line}")).map_err(Failure::local("print"))
}

/// What goes on while points are visited.
struct Sweep<'a> {
    circumstances: Circumstances,
    journal: Journal,
    visitor: Visitor<'a>,
    interrupted: Arc<AtomicBool>,
}

impl Sweep<'_> {
    /// Visits all `points`, round after round, except for what the journal has.
    fn visit_all(&mut self, part: &str, points: &[Point], repeats: u32) -> Result<(), Failure> {
        let planned: Duration = points.iter().map(|point| self.visitor.planned(point)).sum::<Duration>() * repeats;
        let mut progress = Progress::new(points.len() * repeats as usize, planned);
        for (round, point) in rounds(points, repeats) {
            let (planned, key) = (self.visitor.planned(&point), self.circumstances.key(&point, round));
            if self.journal.find(&key).is_some() {
                progress.skipped(planned);
                continue;
            }
            progress.begin(&format!("{part}, round {} of {repeats}: {point}", round + 1));
            let started = Instant::now();
            let visited = self.visitor.visit(&point, round, key);
            // Relaxed: it carries nothing but itself.
            if self.interrupted.load(Ordering::Relaxed) {
                progress.clear();
                return Err(SweepError::Interrupted.into());
            }
            self.journal.add(visited?)?;
            progress.done(planned, started.elapsed());
        }
        progress.clear();
        Ok(())
    }

    /// What the journal has of `points`.
    fn figures(&self, points: &[Point]) -> Vec<PointFigures> {
        let repeats = self.visitor.grid.repeats;
        let of = |point: &Point| {
            let visits: Vec<_> =
                (0..repeats).filter_map(|round| self.journal.find(&self.circumstances.key(point, round))).collect();
            PointFigures::of(*point, &visits, self.visitor.machine)
        };
        points.iter().map(of).collect()
    }
}

/// What any server answered at the most with one request at a time on each connection.
fn capacity(grid: &Grid, points: &[PointFigures]) -> Option<f64> {
    let shown = points.iter().filter(|point| grid.shows_capacity(&point.point));
    shown.filter_map(|point| point.get(Figure::RequestsPerSecond)).map(|spread| spread.median).reduce(f64::max)
}

fn programs(plan: &SweepPlan, target: &Target) -> Result<Programs, Failure> {
    let client = std::env::current_exe().map_err(Failure::local("find this program"))?;
    let disrust = plan.server.clone().unwrap_or_else(|| client.with_file_name("disrust"));
    Ok(Programs { disrust, client, features: target.features })
}

fn circumstances(
    environment: &Environment,
    machine: &Machine,
    grid: &Grid,
    target: &Target,
    programs: &Programs,
    has_disrust: bool,
) -> Result<Circumstances, Failure> {
    let Environment { kernel, cpu_model, .. } = environment;
    let time = |time: Duration| humantime::format_duration(time).to_string();
    Ok(Circumstances {
        machine: format!(
            "{}, {}, {} CPUs",
            kernel.as_deref().unwrap_or("?"),
            cpu_model.as_deref().unwrap_or("?"),
            machine.cpu_count()
        ),
        client_hash: hash_of(&programs.client)?,
        server_hash: if has_disrust { Some(hash_of(&programs.disrust)?) } else { None },
        settings: format!(
            "duration={} warmup={} threads={} features={} seed={}",
            time(grid.duration),
            time(grid.warmup),
            machine.client_threads,
            target.features,
            target.seed
        ),
    })
}

/// Set once somebody wants an end. The visit that is under way is finished, and not kept.
fn interruption() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// The script's command line, without what only says where programs and files are, and whether older ones count.
fn command_again(arguments: impl Iterator<Item = String>) -> String {
    const PLACES: [&str; 3] = ["--server", "--out", "--write"];
    let mut words = vec!["scripts/sweep.sh".to_owned()];
    let mut arguments = arguments.filter(|word| word != "sweep" && word != "--fresh");
    while let Some(word) = arguments.next() {
        if PLACES.contains(&word.as_str()) {
            arguments.next();
        } else if !PLACES.iter().any(|place| word.starts_with(&format!("{place}="))) {
            words.push(word);
        }
    }
    words.join(" ")
}

/// The text of `document` with the tables of `results` in it.
fn rewritten(document: &Path, results: &Results<'_>) -> Result<String, Failure> {
    let read = |source: io::Error| Failure::Input { path: document.to_owned(), problem: source.to_string() };
    let text = fs::read_to_string(document).map_err(read)?;
    let wrong = |source| SweepError::Document { path: document.to_owned(), source };
    Ok(markers::write_group(&text, GROUP, &results.tables()).map_err(wrong)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: the command below a table is the one that a stranger types, without anybody's paths.
    #[test]
    fn the_command_has_no_paths() {
        let again = |line: &str| command_again(line.split_whitespace().map(str::to_owned));
        assert_eq!(again("sweep --server /a/b --out=/c --write D.md"), "scripts/sweep.sh");
        assert_eq!(again("sweep --out /c --fresh --quick --window 1,2"), "scripts/sweep.sh --quick --window 1,2");
    }
}
