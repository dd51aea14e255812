//! Lines, and the `key=value` fields of one section, as slices of the file.
//!
//! Invariant: nothing here allocates more than the file's own length asks for, whatever counts the file claims.
#![forbid(unsafe_code)]

use std::str::FromStr;

use super::FORMAT;
use crate::read::ReadError;

/// The lines of a file that are not empty, without their ends (`\n` or `\r\n`).
pub(super) struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    pub fn new(bytes: &'a [u8]) -> Lines<'a> {
        Lines { rest: bytes }
    }

    /// The next line, without going past it.
    pub fn peek(&self) -> Option<&'a [u8]> {
        Lines { rest: self.rest }.next()
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = memchr::memchr(b'\n', self.rest);
            let (line, rest) = match end {
                Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    }
}

/// The fields of the header or of a tree.
pub(super) struct Fields<'a> {
    /// What errors call the section.
    section: String,
    /// Few: each is of a known key, and no key is there twice.
    fields: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Fields<'a> {
    /// Reads the section up to the next tree or the end of the trees, which are left where they are. A line without `=` is a
    /// field without a value.
    ///
    /// # Errors
    /// If a key is not one of `keys`, or is there twice.
    pub fn read(lines: &mut Lines<'a>, section: String, keys: &[&str]) -> Result<Fields<'a>, ReadError> {
        let mut fields = Fields { section, fields: Vec::new() };
        while let Some(line) = lines.peek() {
            if line.starts_with(b"Tree=") || super::AFTER_TREES.contains(&line) {
                break;
            }
            lines.next();
            fields.add(line, keys)?;
        }
        Ok(fields)
    }

    fn add(&mut self, line: &'a [u8], keys: &[&str]) -> Result<(), ReadError> {
        let end = memchr::memchr(b'=', line);
        let (key, value) = end.map_or((line, &[][..]), |end| (&line[..end], &line[end + 1..]));
        let Some(key) = std::str::from_utf8(key).ok().filter(|key| keys.contains(key)) else {
            let what = format!("{}: the key {:?}", self.section, shortened(&String::from_utf8_lossy(key)));
            let instead = "models saved by LightGBM 2.0.12 to 4.x are";
            return Err(unsupported(what, instead));
        };
        if self.fields.iter().any(|(other, _)| *other == key) {
            return Err(self.malformed(key, "it is there twice"));
        }
        self.fields.push((key, value));
        Ok(())
    }

    /// An error about a field.
    pub fn malformed(&self, key: &str, what: impl std::fmt::Display) -> ReadError {
        malformed(format!("{}: {key}: {what}", self.section))
    }

    /// The value of a field that may be absent.
    ///
    /// # Errors
    /// If it is no UTF-8.
    pub fn optional(&self, key: &str) -> Result<Option<&'a str>, ReadError> {
        let field = self.fields.iter().find(|(other, _)| *other == key);
        let value = field.map(|(_, value)| std::str::from_utf8(value)).transpose();
        value.map_err(|_| self.malformed(key, "it is no valid UTF-8"))
    }

    /// The value of a field that has to be there.
    ///
    /// # Errors
    /// If it is not, or is no UTF-8.
    pub fn required(&self, key: &str) -> Result<&'a str, ReadError> {
        self.optional(key)?.ok_or_else(|| self.malformed(key, "it is missing; is the file cut?"))
    }

    /// A field's one number.
    ///
    /// # Errors
    /// If the field is missing or is none.
    pub fn number<T: FromStr>(&self, key: &str) -> Result<T, ReadError> {
        self.parsed(key, self.required(key)?.trim_matches(' '))
    }

    /// A field's list of `count` numbers, one space or more apart.
    ///
    /// # Errors
    /// If the field is missing, one of them is none, or there are not as many.
    pub fn numbers<T: FromStr>(&self, key: &str, count: usize) -> Result<Vec<T>, ReadError> {
        let text = self.required(key)?;
        // A number and its space take two bytes at least, so what a lying count reserves is bounded by the file.
        let mut numbers = Vec::with_capacity(count.min(text.len() / 2 + 1));
        for token in tokens(text) {
            if numbers.len() == count {
                return Err(self.malformed(key, format!("it has more than the {count} numbers that it should have")));
            }
            numbers.push(self.parsed(key, token)?);
        }
        if numbers.len() < count {
            return Err(self.malformed(key, format!("it has {} numbers instead of {count}", numbers.len())));
        }
        Ok(numbers)
    }

    fn parsed<T: FromStr>(&self, key: &str, token: &str) -> Result<T, ReadError> {
        token.parse().map_err(|_| self.malformed(key, format!("{:?} is no number that fits there", shortened(token))))
    }
}

/// What stands between spaces; linear trees have several in a row.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|token| !token.is_empty())
}

/// An error about what the file says.
pub(super) fn malformed(what: impl Into<String>) -> ReadError {
    ReadError::Malformed { format: FORMAT, what: what.into() }
}

/// An error about what disrust does not do.
pub(super) fn unsupported(what: impl Into<String>, instead: impl Into<String>) -> ReadError {
    ReadError::Unsupported { format: FORMAT, what: what.into(), instead: instead.into() }
}

/// The beginning of what a file has, for an error that people can read.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
