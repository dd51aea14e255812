//! Comma-separated lines of numbers, with or without a line of names before them.
//!
//! What is no number is an error that names the line and the column; nothing is skipped or guessed. An empty field is a missing
//! value.
#![forbid(unsafe_code)]

use super::table::{Content, counted};

/// Reads a table.
pub(super) fn parse(bytes: &[u8]) -> Result<Content, String> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not text in UTF-8, so this is neither comma-separated nor a file of numpy's")
    })?;
    // Empty lines at the end are none; in between, one is a missing value of the only column, or an error like any other.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\n', '\r']);
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).zip(1..).peekable();
    let header = lines.next_if(|(line, _)| is_header(line)).map(|(line, _)| names(line));
    let Some((first, _)) = lines.peek().filter(|_| !text.is_empty()) else {
        return Err("it has no rows".to_owned());
    };
    let columns = first.split(',').count();
    let mut values = Vec::new();
    for (line, number) in lines {
        let before = values.len();
        for (field, column) in line.split(',').zip(1..) {
            values.push(parse_field(field).ok_or_else(|| not_a_number(number, column, field))?);
        }
        let found = values.len() - before;
        if found != columns {
            let (is, was) = (counted(found, "column"), counted(columns, "column"));
            return Err(format!("line {number} has {is}, but the lines before it have {was}"));
        }
    }
    Ok(Content { header, columns, values })
}

/// Names, and no number among them.
fn is_header(line: &str) -> bool {
    let fields = || line.split(',').map(parse_field);
    fields().any(|field| field.is_none()) && !fields().any(|field| field.is_some_and(f64::is_finite))
}

fn names(line: &str) -> Vec<String> {
    line.split(',').map(|name| name.trim().trim_matches('"').to_owned()).collect()
}

fn parse_field(field: &str) -> Option<f64> {
    match field.trim() {
        "" => Some(f64::NAN),
        number => number.parse().ok(),
    }
}

fn not_a_number(line: usize, column: usize, field: &str) -> String {
    const SHOWN_MAX: usize = 40;
    let shown: String = field.chars().take(SHOWN_MAX).collect();
    let more = if field.chars().nth(SHOWN_MAX).is_some() { "…" } else { "" };
    format!("line {line}, column {column}: {shown:?}{more} is no number; a missing value is an empty field or nan")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> (Option<Vec<String>>, usize, Vec<f64>) {
        let Content { header, columns, values } = parse(text.as_bytes()).expect(text);
        (header, columns, values)
    }

    /// Numbers are read as they stand, with or without names, however the lines end.
    #[test]
    fn tables_are_read() {
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(table("1,2.5\n-3e2, 4 \n"), (None, 2, vec![1.0, 2.5, -300.0, 4.0]));
        assert_eq!(table("a,b\r\n1,2\r\n"), (names(&["a", "b"]), 2, vec![1.0, 2.0]));
        assert_eq!(table("\u{feff}\"a\"\n7"), (names(&["a"]), 1, vec![7.0]));
        let (_, _, values) = table("inf,-inf,nan,NaN,\n,,,,1\n\n\n");
        assert_eq!((values[0], values[1], values[9]), (f64::INFINITY, f64::NEG_INFINITY, 1.0));
        assert!(values[2..9].iter().all(|value| value.is_nan()));
        let (_, columns, values) = table("1\n\n3\n");
        assert!(columns == 1 && values.len() == 3 && values[1].is_nan(), "a missing value of the only column");
    }

    /// What is wrong is named by its line and column.
    #[test]
    fn mistakes_are_named() {
        for (text, said) in [
            ("", "no rows"),
            ("\n\n", "no rows"),
            ("a,b\n", "no rows"),
            ("1,2\n3,x\n", "line 2, column 2: \"x\" is no number"),
            ("1,x\n3,4\n", "line 1, column 2: \"x\" is no number"),
            ("a,b\n1,2\n3\n", "line 3 has 1 column, but the lines before it have 2 columns"),
            ("1,2\n\n3,4\n", "line 2 has 1 column"),
            ("1\n2,3\n", "line 2 has 2 columns"),
            ("1;2\n3;4\n", "line 2, column 1: \"3;4\" is no number"),
            ("1,0x10\n", "line 1, column 2"),
        ] {
            let error = parse(text.as_bytes()).expect_err(text);
            assert!(error.contains(said), "{text:?}: {error}");
        }
        assert!(parse(b"1\n\xff\n").is_err_and(|error| error.contains("line 2 is not text")));
        let long = format!("1\n{}\n", "x".repeat(1000));
        assert!(parse(long.as_bytes()).is_err_and(|error| error.len() < 200));
    }
}
