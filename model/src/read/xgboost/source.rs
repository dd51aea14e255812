//! What JSON and UBJSON have in common: values that are read as they come, without a tree of them in memory.
//!
//! A reader asks for what it expects; anything else is a [`Fault`] that says where. What it does not want it skips, which
//! allocates nothing, or copies the [`Source`] (a position in the file) and comes back later.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::super::ReadError;

/// Objects and arrays inside each other, at most. XGBoost writes 9; a reader's stack holds one frame for each.
pub(super) const DEPTH_MAX: usize = 32;

/// A place in a file from which one value can be read.
pub(super) trait Source<'a>: Clone {
    /// Reads an object, key by key. `visit` reads or skips each value.
    ///
    /// # Errors
    /// If it is none, or `visit` fails.
    fn object(&mut self, visit: impl FnMut(&str, &mut Self) -> Result<(), Fault>) -> Result<(), Fault>;

    /// Reads an array, element by element. `visit` reads or skips each.
    ///
    /// # Errors
    /// If it is none, or `visit` fails.
    fn array(&mut self, visit: impl FnMut(usize, &mut Self) -> Result<(), Fault>) -> Result<(), Fault>;

    /// Reads an array of nothing but scalars, typed or not.
    ///
    /// # Errors
    /// If it is none, or `convert` fails.
    fn elements<T>(&mut self, convert: impl Fn(Scalar) -> Result<T, Fault>) -> Result<Vec<T>, Fault>;

    /// Reads a number or a truth value.
    ///
    /// # Errors
    /// If it is none.
    fn scalar(&mut self) -> Result<Scalar, Fault>;

    /// Reads a string.
    ///
    /// # Errors
    /// If it is none, or is not UTF-8.
    fn text(&mut self) -> Result<Cow<'a, str>, Fault>;

    /// Passes over whatever comes.
    ///
    /// # Errors
    /// If it is no value.
    fn skip(&mut self) -> Result<(), Fault>;

    /// Demands that nothing follows.
    ///
    /// # Errors
    /// If something does.
    fn end(&mut self) -> Result<(), Fault>;

    /// Reads an integer.
    ///
    /// # Errors
    /// If it is none of 32 bits.
    fn integer(&mut self) -> Result<i32, Fault> {
        self.scalar()?.integer()
    }

    /// Reads an array of integers.
    ///
    /// # Errors
    /// If it is none, or some do not fit into 32 bits.
    fn integers(&mut self) -> Result<Vec<i32>, Fault> {
        self.elements(Scalar::integer)
    }

    /// Reads an array of numbers.
    ///
    /// # Errors
    /// If it is none.
    fn numbers(&mut self) -> Result<Vec<f32>, Fault> {
        self.elements(Scalar::number)
    }

    /// Reads an array of truth values, which newer versions of XGBoost write as 0 and 1.
    ///
    /// # Errors
    /// If it is none.
    fn flags(&mut self) -> Result<Vec<bool>, Fault> {
        self.elements(Scalar::flag)
    }

    /// Reads a count, which XGBoost writes as a string.
    ///
    /// # Errors
    /// If it is none.
    fn count(&mut self) -> Result<usize, Fault> {
        let text = self.text()?;
        text.parse().map_err(|_| Fault::malformed(format!("{} is no count", shown(&text))))
    }
}

/// A number or a truth value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scalar {
    Integer(i64),
    Number(f32),
    Flag(bool),
}

impl Scalar {
    fn integer(self) -> Result<i32, Fault> {
        match self {
            Scalar::Integer(integer) => {
                i32::try_from(integer).map_err(|_| Fault::malformed(format!("{integer} is too large")))
            }
            other => Err(Fault::malformed(format!("an integer was expected, not {other:?}"))),
        }
    }

    fn number(self) -> Result<f32, Fault> {
        match self {
            Scalar::Integer(integer) => Ok(integer as f32),
            Scalar::Number(number) => Ok(number),
            Scalar::Flag(flag) => Err(Fault::malformed(format!("a number was expected, not {flag}"))),
        }
    }

    fn flag(self) -> Result<bool, Fault> {
        match self {
            Scalar::Integer(integer @ 0..=1) => Ok(integer == 1),
            Scalar::Flag(flag) => Ok(flag),
            other => Err(Fault::malformed(format!("0 or 1 was expected, not {other:?}"))),
        }
    }
}

/// What is wrong with a file, and where.
#[derive(Debug)]
pub(super) struct Fault {
    /// Keys and indices from the outermost value inwards: `learner.gradient_booster.model.trees[3]`.
    place: String,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Malformed(String),
    Unsupported { what: String, instead: String },
}

impl Fault {
    pub fn malformed(what: impl Into<String>) -> Fault {
        Fault { place: String::new(), problem: Problem::Malformed(what.into()) }
    }

    /// It is well-formed, but `instead` is what would work.
    pub fn unsupported(what: impl Into<String>, instead: impl Into<String>) -> Fault {
        let problem = Problem::Unsupported { what: what.into(), instead: instead.into() };
        Fault { place: String::new(), problem }
    }

    /// It is in the value of this key.
    pub fn at(mut self, key: &str) -> Fault {
        let dot = if self.place.is_empty() || self.place.starts_with('[') { "" } else { "." };
        self.place = format!("{}{dot}{}", short(key), self.place);
        self
    }

    /// It is in the element of this index.
    pub fn at_index(self, index: usize) -> Fault {
        self.at(&format!("[{index}]"))
    }
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> ReadError {
        let place = fault.place;
        match fault.problem {
            Problem::Malformed(what) => {
                let colon = if place.is_empty() { "" } else { ": " };
                ReadError::Malformed { format: super::FORMAT, what: format!("{place}{colon}{what}") }
            }
            Problem::Unsupported { what, instead } => {
                let what = if place.is_empty() { what } else { format!("{what} ({place})") };
                ReadError::Unsupported { format: super::FORMAT, what, instead }
            }
        }
    }
}

/// As much of a file's text as fits into an error.
fn short(text: &str) -> &str {
    const CHARACTERS_MAX: usize = 80;
    let end = text.char_indices().nth(CHARACTERS_MAX).map_or(text.len(), |(end, _)| end);
    &text[..end]
}

/// A file's text, quoted, for an error.
pub(super) fn shown(text: &str) -> String {
    format!("{:?}", short(text))
}

/// Puts a key's value where it belongs; the same key twice would leave open which one counts.
///
/// # Errors
/// If it is there already.
pub(super) fn fill<T>(slot: &mut Option<T>, value: T) -> Result<(), Fault> {
    match slot.replace(value) {
        Some(_) => Err(Fault::malformed("it is there twice")),
        None => Ok(()),
    }
}

/// What must have been there.
///
/// # Errors
/// If it has not.
pub(super) fn required<T>(slot: Option<T>, key: &str) -> Result<T, Fault> {
    slot.ok_or_else(|| Fault::malformed(format!("there is no {key}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stranger finds the place that is meant.
    #[test]
    fn a_fault_names_its_place() {
        let fault = Fault::malformed("it is bad").at_index(3).at("left_children").at_index(12).at("trees").at("model");
        let error = ReadError::from(fault).to_string();
        assert_eq!(error, "the XGBoost file is malformed: model.trees[12].left_children[3]: it is bad");
        let error = ReadError::from(Fault::unsupported("x", "use y").at("objective")).to_string();
        assert_eq!(error, "the XGBoost file has x (objective), which is not supported: use y");
    }

    /// A file's text does not become an error as long as the file.
    #[test]
    fn faults_are_short() {
        let long = "é".repeat(1000);
        assert_eq!(shown(&long).chars().count(), 82);
        assert!(ReadError::from(Fault::malformed(shown(&long)).at(&long)).to_string().len() < 400);
        assert_eq!(shown("a\"b"), r#""a\"b""#);
    }

    /// No scalar is taken for another.
    #[test]
    fn scalars_are_what_they_are() {
        assert_eq!(Scalar::Integer(7).integer().ok(), Some(7));
        assert_eq!(Scalar::Integer(1 << 31).integer().ok(), None);
        assert_eq!(Scalar::Number(7.0).integer().ok(), None);
        assert_eq!(Scalar::Integer(7).number().ok(), Some(7.0));
        assert_eq!(Scalar::Flag(true).number().ok(), None);
        assert_eq!(Scalar::Integer(1).flag().ok(), Some(true));
        assert_eq!(Scalar::Flag(false).flag().ok(), Some(false));
        assert_eq!(Scalar::Integer(2).flag().ok(), None);
    }
}
