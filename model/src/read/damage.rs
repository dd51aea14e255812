//! Damaged model files, for the property tests of the readers.
//!
//! A reader promises for any bytes: an error with a message, or a form that [`crate::form::Form::check`] judges; what passes is
//! compiled and scores. Never a panic.
#![forbid(unsafe_code)]

use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::engine::Compiled;
use crate::form::{Choice, Form, Output};
use crate::read::ReadError;
use crate::{Model, RowSource, Rows};

/// One thing that is done to a file, and where.
#[derive(Debug, Clone)]
pub(super) enum Damage {
    Cut,
    Byte(u8),
    /// The next number is replaced by another text.
    Number(&'static str),
    /// So many bytes are left out.
    Leave(usize),
    /// So many bytes are there twice.
    Repeat(usize),
}

/// What may stand where a number is expected.
const INSTEAD: [&str; 20] = [
    "0",
    "1",
    "-1",
    "2",
    "-2",
    "3",
    "7",
    "255",
    "-128",
    "1000000000",
    "-2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "99999999999999999999",
    "1e300",
    "-1e-300",
    "nan",
    "inf",
    "",
];

/// A few things that are done to one file.
pub(super) fn damages() -> impl Strategy<Value = Vec<(Index, Damage)>> {
    let damage = prop_oneof![
        1 => Just(Damage::Cut),
        2 => any::<u8>().prop_map(Damage::Byte),
        6 => select(&INSTEAD[..]).prop_map(Damage::Number),
        2 => (1..200_usize).prop_map(Damage::Leave),
        1 => (1..2000_usize).prop_map(Damage::Repeat),
    ];
    proptest::collection::vec((any::<Index>(), damage), 1..5)
}

pub(super) fn damaged(file: &[u8], damages: &[(Index, Damage)]) -> Vec<u8> {
    let mut file = file.to_vec();
    for (place, damage) in damages {
        if file.is_empty() {
            break;
        }
        let start = place.index(file.len());
        match damage {
            Damage::Cut => file.truncate(start),
            Damage::Byte(byte) => file[start] = *byte,
            Damage::Number(text) => {
                let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.e".contains(byte);
                let from = file[start..].iter().position(is_part).map_or(start, |skipped| start + skipped);
                let length = file[from..].iter().take_while(|byte| is_part(byte)).count();
                file.splice(from..from + length, text.bytes());
            }
            Damage::Leave(length) => {
                let end = file.len().min(start + length);
                file.drain(start..end);
            }
            Damage::Repeat(length) => {
                let part = file[start..file.len().min(start + length)].to_vec();
                file.splice(start..start, part);
            }
        }
    }
    file
}

/// Whatever a reader gives is an error with a message, or what can be judged, compiled and scored.
pub(super) fn judge(read: Result<Form, ReadError>) -> Result<(), TestCaseError> {
    let mut form = match read {
        Err(error) => {
            prop_assert!(!error.to_string().is_empty());
            return Ok(());
        }
        Ok(form) if form.check().is_err() => return Ok(()),
        Ok(form) => form,
    };
    form.choose(&Choice { output: Some(Output::All), raw: false }).expect("all is always there");
    let mut model = Compiled::new(form, "damaged");
    let values = [0.0, -0.0, f32::NAN, 1.5, f32::INFINITY, -3.0, 1e-40];
    let features = values.iter().cycle().take(3 * model.feature_dim());
    let row = Bytes(features.flat_map(|value| value.to_le_bytes()).collect());
    let mut scores = vec![0.0; 3 * model.outputs()];
    prop_assert!(model.predict(&Rows::new(&row, 3, model.feature_dim()), &mut scores).is_ok());
    Ok(())
}

struct Bytes(Vec<u8>);

impl RowSource for Bytes {
    fn visit(&self, visitor: &mut dyn FnMut(&[&[u8]])) {
        visitor(&[&self.0]);
    }
}
