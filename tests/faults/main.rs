//! The fault matrix: each row that sockets, processes and namespaces can show, as a test of the binary.
//!
//! Run by `scripts/faults.sh [ROW…] [--quick] [--json FILE]`; no part of `cargo test`, since it takes minutes and wants a
//! machine that is not busy. Rows that need a misbehaving kernel are in the simulation, orderings in the model tests.
//! What a machine cannot do is skipped with the reason, never passed. Each row prints what it measured.

mod admin;
#[path = "../soak/bystanders.rs"]
mod bystanders;
#[path = "../common/mod.rs"]
mod common;
mod connect_load;
mod connections;
mod crowds;
mod framing;
mod freezing;
mod lifecycle;
mod limits;
mod models;
mod namespaces;
mod overload;
mod paths;
mod peer;
mod ports;
mod reloads;
mod resources;
mod signals;
mod site;
mod slow_readers;
mod socket_memory;
mod starts;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

use common::truth;
use site::{Site, Stop};

/// Rows that are run a second time, as "A4 trees": their servers serve trees of a model file, and every answer is held
/// to what their engine says in this process. Where bystanders are beside, the file is read again all along, as other
/// versions of the model, and as what cannot be taken. The other rows start their servers in ways of their own, or are
/// about what comes before and after the model.
const TREES: [&str; 14] = ["A1", "A3", "A4", "A5", "A6", "B1", "B2", "B3", "B7", "B8", "B10", "C3", "F1", "G2"];

/// A row of the matrix.
struct Row {
    id: String,
    fault: &'static str,
    run: fn(&mut Site) -> Result<(), Stop>,
    /// Whether it is run with trees, not with the sum.
    trees: bool,
}

/// All rows that are run here, in the order of the matrix; those of trees at the end.
fn rows() -> Vec<Row> {
    let listed: Vec<Listed> = [
        framing::ROWS,
        connections::ROWS,
        overload::ROWS,
        resources::ROWS,
        models::ROWS,
        lifecycle::ROWS,
        ports::ROWS,
        paths::ROWS,
        slow_readers::ROWS,
        crowds::ROWS,
        limits::ROWS,
        freezing::ROWS,
        signals::ROWS,
        reloads::ROWS,
        admin::ROWS,
    ]
    .concat();
    let of_sum = listed.iter().map(|&(id, fault, run)| Row { id: id.to_owned(), fault, run, trees: false });
    let of_trees = listed.iter().filter(|(id, ..)| TREES.contains(id));
    let of_trees = of_trees.map(|&(id, fault, run)| Row { id: format!("{id} trees"), fault, run, trees: true });
    of_sum.chain(of_trees).collect()
}

/// What a module lists: row, fault, test.
type Listed = (&'static str, &'static str, fn(&mut Site) -> Result<(), Stop>);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["peer", rest @ ..] => return peer::main(rest),
        ["serve", kind] => return models::serve(kind),
        ["filtered", call, errno, program @ ..] => return resources::run_filtered(call, errno, program),
        _ => {}
    }
    let (mut quick, mut json_path, mut table_path, mut wanted) = (false, None, None, Vec::new());
    let mut words = arguments.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => quick = true,
            "--json" => json_path = words.next(),
            "--write" => table_path = words.next(),
            "--list" => {
                rows().iter().for_each(|row| println!("{:9} {}", row.id, row.fault));
                return ExitCode::SUCCESS;
            }
            id if rows().iter().any(|row| row.id == id) => wanted.push(word),
            other => {
                eprintln!("faults: no row and no option {other}; --list lists the rows");
                return ExitCode::from(2);
            }
        }
    }
    let rows = rows().into_iter().filter(|row| wanted.is_empty() || wanted.contains(&row.id));
    let results: Vec<Finished> = rows.map(|row| finish(row, quick)).collect();
    let count = |wanted: &str| results.iter().filter(|result| result.verdict == wanted).count();
    println!("\n{}", table(&results));
    println!("faults: {} pass, {} skipped, {} FAIL", count("pass"), count("skipped"), count("FAIL"));
    let json = json_path.map(|path| std::fs::write(path, format!("{:#}\n", report(&results, quick))));
    let written = table_path.map(|path| write_table(&path, &table(&results)));
    if let Some(failure) = [json, written].into_iter().flatten().find_map(Result::err) {
        eprintln!("faults: cannot write: {failure}");
        return ExitCode::FAILURE;
    }
    if results.iter().any(|result| result.verdict == "FAIL") { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A row that has run.
struct Finished {
    row: Row,
    verdict: &'static str,
    /// Why it failed or was skipped.
    reason: String,
    figures: Vec<String>,
    seconds: f64,
}

fn finish(row: Row, quick: bool) -> Finished {
    let begun_at = Instant::now();
    println!("{}: {}", row.id, row.fault);
    let mut site = Site::new(quick);
    truth::serve_trees(row.trees);
    let outcome = catch_unwind(AssertUnwindSafe(|| (row.run)(&mut site)));
    let (verdict, reason) = match outcome {
        Ok(Ok(())) => ("pass", String::new()),
        Ok(Err(Stop::Skipped(reason))) => ("skipped", reason),
        Ok(Err(Stop::Failed(reason))) => ("FAIL", reason),
        Err(panic) => ("FAIL", site::message_of(&*panic)),
    };
    let seconds = begun_at.elapsed().as_secs_f64();
    println!("{}: {verdict} in {seconds:.1} s {reason} {}", row.id, site.figures.join("; "));
    Finished { row, verdict, reason, figures: site.figures, seconds }
}

fn table(results: &[Finished]) -> String {
    let mut table = "| row | fault | verdict | seconds | what was measured |\n|---|---|---|---|---|\n".to_owned();
    for Finished { row, verdict, reason, figures, seconds } in results {
        let separator = if reason.is_empty() { "" } else { ": " };
        let figures = figures.join("; ");
        let line = format!("| {} | {} | {verdict}{separator}{reason} | {seconds:.1} | {figures} |", row.id, row.fault);
        table += line.replace('\n', " ").trim();
        table.push('\n');
    }
    table
}

/// Puts the table between the marks of a document, in place of the last one.
fn write_table(path: &str, table: &str) -> std::io::Result<()> {
    const MARKS: [&str; 2] = ["<!-- faults -->\n", "<!-- /faults -->"];
    let text = std::fs::read_to_string(path)?;
    let [Some(begin), Some(end)] = MARKS.map(|mark| text.find(mark)) else {
        return Err(std::io::Error::other(format!("{path} has no marks for the table")));
    };
    let run = format!(
        "\nRun of {} on Linux {}, {} CPUs.\n",
        humantime::format_rfc3339_seconds(std::time::SystemTime::now()),
        rustix::system::uname().release().to_string_lossy(),
        std::thread::available_parallelism()?
    );
    std::fs::write(path, format!("{}{table}{run}{}", &text[..begin + MARKS[0].len()], &text[end..]))
}

fn report(results: &[Finished], quick: bool) -> Value {
    let rows: Vec<Value> = results
        .iter()
        .map(|Finished { row, verdict, reason, figures, seconds }| {
            json!({ "id": row.id, "fault": row.fault, "verdict": verdict, "reason": reason, "figures": figures,
                    "seconds": seconds })
        })
        .collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    json!({
        "schema": "disrust-faults", "schema_version": 1, "quick": quick,
        "kernel": disrust::kernel::kernel_release(),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "version": env!("CARGO_PKG_VERSION"),
        "at_unix_seconds": now.map_or(0, |since| since.as_secs()),
        "rows": rows,
    })
}
