//! `table`: puts a table from standard input between the marks of a document, with where and when it was made below it.
//! Scripts that measure or check end with it.
//!
//! Invariants: a document is written whole or not at all; an empty table is refused.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Read, Write, stdin};
use std::path::PathBuf;

use crate::args::TablePlan;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::markers;

/// Reads a table and writes it where `plan` says.
pub fn run(plan: &TablePlan, out: &mut impl Write) -> Result<(), Failure> {
    let input = |path: PathBuf| move |problem: String| Failure::Input { path: path.clone(), problem };
    let mut table = String::new();
    stdin().read_to_string(&mut table).map_err(Failure::local("read standard input"))?;
    if rows(&table) == 0 {
        return Err(input(PathBuf::from("standard input"))("it has no table with a row".to_owned()));
    }
    let text = format!("{}\n\n{}\n", table.trim_end(), source(&Environment::here(None, None), plan.note.as_deref()));
    let wrong = input(plan.file.clone());
    let document = fs::read_to_string(&plan.file).map_err(|error| wrong(error.to_string()))?;
    let document = markers::write(&document, &plan.mark, &text).map_err(|error| wrong(error.to_string()))?;
    let failed = |source: io::Error| Failure::Output { path: plan.file.clone(), source };
    fs::write(&plan.file, document).map_err(failed)?;
    writeln!(out, "table: {} of {} is written", plan.mark, plan.file.display()).map_err(Failure::local("print"))
}

/// Rows of the table of Markdown in `text`, below its head.
fn rows(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with('|')).count().saturating_sub(2)
}

/// The line below a table: the machine and the day, and what is to be said besides.
fn source(environment: &Environment, note: Option<&str>) -> String {
    let note = note.map_or_else(String::new, |note| format!("; {note}"));
    format!("{}, {}{note}.", environment.machine(), environment.date())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: a head without a row is no table.
    #[test]
    fn a_head_is_no_table() {
        assert_eq!((rows(""), rows("| a |\n|---|\n"), rows("| a |\n|---|\n| 1 |\ntext\n")), (0, 0, 1));
    }
}
