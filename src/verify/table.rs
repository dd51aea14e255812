//! A table of numbers, from a file that somebody has named.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{csv, npy};
use crate::kernel::read_regular_file;
use crate::limits::TABLE_BYTES_MAX;

/// Why a table can't be used.
#[derive(Debug, Error)]
#[error("cannot use {path}: {what}")]
pub struct TableError {
    path: PathBuf,
    what: String,
}

/// What a file's bytes say.
#[derive(Debug, PartialEq)]
pub(super) struct Content {
    /// The first line, if that has names.
    pub header: Option<Vec<String>>,
    /// At least 1.
    pub columns: usize,
    /// Shape `[rows, columns]`, at least one row.
    pub values: Vec<f64>,
}

/// A table, and where it comes from.
#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    header: Option<Vec<String>>,
    in_lines: bool,
    pub columns: usize,
    pub values: Vec<f64>,
}

/// Such as `1 row` or `2 rows`.
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl Table {
    /// Reads a file of numpy's, which begins as no other does, or of comma-separated lines.
    pub fn read(path: &Path) -> Result<Table, TableError> {
        let wrong = |what: String| TableError { path: path.to_owned(), what };
        let bytes = read_regular_file(path, TABLE_BYTES_MAX).map_err(|error| wrong(format!("it {error}")))?;
        let in_lines = !npy::is_npy(&bytes);
        let content = if in_lines { csv::parse(&bytes) } else { npy::parse(&bytes) };
        let Content { header, columns, values } = content.map_err(wrong)?;
        Ok(Table { path: path.to_owned(), header, in_lines, columns, values })
    }

    pub fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    /// What is wrong with this table.
    pub fn wrong(&self, what: String) -> TableError {
        TableError { path: self.path.clone(), what }
    }

    /// What to call the first row.
    pub fn first_row(&self) -> &'static str {
        match (self.in_lines, &self.header) {
            (false, _) => "it",
            (true, None) => "line 1",
            (true, Some(_)) => "line 2",
        }
    }

    /// A header that has the model's names in another order means that the columns are, too.
    pub fn check_header(&self, names: &[String]) -> Result<(), TableError> {
        let Some(header) = &self.header else { return Ok(()) };
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort_unstable();
            names
        };
        let first_other = header.iter().zip(names).position(|(ours, theirs)| ours != theirs);
        match first_other {
            Some(column) if sorted(header) == sorted(names) => Err(self.wrong(format!(
                "line 1, column {}: it is named {:?}, but the model's feature {column} is {:?}: the columns are in another \
                 order than the model's features",
                column + 1,
                header[column],
                names[column]
            ))),
            _ => Ok(()),
        }
    }
}
