//! Comparisons: rows of 0 and 1.
//!
//! What is true of a number is what a tree of one split says of it, NaN included.

use super::{Results, one};
use crate::form::{Child, Ensemble, Leaves, Operand, Operation, Rounding, Split, Step, Targets, Tree};
use crate::read::onnx::evaluate::Call;
use crate::read::onnx::rows::{Element, Rows};
use crate::read::onnx::trees::{Mode, question};

/// A cast to bool: anything but 0 is true.
pub(super) fn not_zero(call: &mut Call<'_>, rows: &Rows) -> Results {
    ask(call, rows, Mode::NotEqual, 0.0)
}

pub(super) fn not(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    let rows = call.rows(0)?;
    if rows.element != Element::Truth {
        return Err(call.node.malformed("negates what is no bool"));
    }
    let (left, right) = (Operand::Constant(vec![1.0]), Operand::Value(rows.value));
    let value = call.push(Step::Arithmetic { operation: Operation::Subtract, left, right })?;
    one(rows.with(value, Element::Truth))
}

/// Rows with one number for all of them.
pub(super) fn compare(call: &mut Call<'_>, operator: &str) -> Results {
    call.inputs_max(2)?;
    let rows = call.floats(0)?;
    let mode = match operator {
        "Less" => Mode::Less,
        "LessOrEqual" => Mode::LessOrEqual,
        "Greater" => Mode::Greater,
        "GreaterOrEqual" => Mode::GreaterOrEqual,
        _ => Mode::Equal,
    };
    let numbers = super::arithmetic::floats_of(call, call.constant(1)?)?;
    match *numbers {
        [number] if !number.is_nan() => ask(call, &rows, mode, f64::from(number)),
        _ => Err(call.node.unsupported("something else than one number on the right", "one number is")),
    }
}

/// One tree for each column, which asks one question.
fn ask(call: &mut Call<'_>, rows: &Rows, mode: Mode, number: f64) -> Results {
    let width = rows.width();
    // A tree is a split, two leaves and what holds them.
    call.program.spend(&call.node, width * size_of::<(Tree, Split)>() / 4)?;
    let trees = (0..width).map(|column| tree(mode, number, column)).collect();
    let ensemble = Ensemble {
        targets: width,
        trees,
        rounding: Rounding::F32,
        start: vec![0.0; width],
        factor: 1.0,
        offset: vec![0.0; width],
    };
    let value = call.push(Step::Trees { input: rows.value, ensemble })?;
    one(rows.with(value, Element::Truth))
}

fn tree(mode: Mode, number: f64, column: usize) -> Tree {
    // A row has at most 4,096 columns.
    let column = u32::try_from(column).expect("few columns");
    let (test, swapped) = question(mode, number);
    let (yes, no) = if swapped { (Child::Leaf(1), Child::Leaf(0)) } else { (Child::Leaf(0), Child::Leaf(1)) };
    // NaN is not equal to anything, and no other comparison holds for it.
    let missing = swapped && mode != Mode::NotEqual;
    let leaves = Leaves { count: 2, targets: Targets::One(column), values: vec![1.0, 0.0], linear: Vec::new() };
    let split = Split { feature: column, test, missing, yes, no };
    Tree { root: Child::Split(0), splits: vec![split], leaves }
}
