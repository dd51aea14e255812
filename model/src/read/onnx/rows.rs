//! What a name of the graph stands for, and the arithmetic of shapes.
//!
//! A tensor that depends on the rows has one axis that is the batch; everything else is a row's own, and row by row is the
//! only way the form computes. So a shape is a row's own dimensions and the place of the batch among them, and whatever would
//! look along the batch's axis is refused.

use std::rc::Rc;

use super::node::Node;
use super::tensor::Tensor;
use crate::form::Value;
use crate::form::limits::COLUMNS_MAX;
use crate::read::ReadError;

/// A value of the graph.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// The same for every row.
    Constant(Tensor),
    /// One tensor for each row.
    Rows(Rows),
    /// Dimensions of a tensor of rows, which a `Reshape` takes: the batch's is nobody's number.
    Extents(Rc<[Extent]>),
    /// The labels that a classifier answers with.
    Labels,
}

/// A dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Batch,
    Known(i64),
}

/// A value of the form's program, seen as a tensor.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub value: Value,
    /// A row's own dimensions, without the batch: their product is the value's width.
    pub dims: Vec<usize>,
    /// How many of them are before the batch's axis: 0 but for tensors that a `Reshape` has made so.
    pub batch: usize,
    pub element: Element,
}

/// What a number stands for. All are f32 in the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Float,
    /// A double that is a float: an input, or parts of it.
    Double,
    /// An index.
    Integer,
    /// 0 or 1.
    Truth,
}

/// An axis of a tensor of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    Batch,
    /// Index of one of a row's own dimensions.
    Row(usize),
}

impl Rows {
    /// Of shape `[batch, width]`.
    pub fn flat(value: Value, width: usize, element: Element) -> Rows {
        Rows { value, dims: vec![width], batch: 0, element }
    }

    pub fn width(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn rank(&self) -> usize {
        self.dims.len() + 1
    }

    /// The same shape for another value of the same width.
    pub fn with(&self, value: Value, element: Element) -> Rows {
        Rows { value, element, ..self.clone() }
    }

    /// Whether the shape is `[batch, width]`.
    pub fn is_flat(&self) -> bool {
        self.batch == 0 && self.dims.len() == 1
    }

    /// For people: `[batch, 3]`.
    pub fn shape(&self) -> String {
        shape_of(&self.extents())
    }

    /// All dimensions, the batch's too.
    pub fn extents(&self) -> Vec<Extent> {
        // Dimensions are at most as many as columns.
        let known = |dim: &usize| Extent::Known(i64::try_from(*dim).expect("a width is small"));
        let mut extents: Vec<Extent> = self.dims.iter().map(known).collect();
        extents.insert(self.batch, Extent::Batch);
        extents
    }

    /// The axis that a number, which may count from the end, means.
    pub fn axis(&self, node: &Node, axis: i64) -> Result<Axis, ReadError> {
        let rank = self.rank();
        let index =
            axis_of(axis, rank).ok_or_else(|| node.malformed(format!("has axis {axis} for {rank} dimensions")))?;
        Ok(match index.cmp(&self.batch) {
            std::cmp::Ordering::Equal => Axis::Batch,
            std::cmp::Ordering::Less => Axis::Row(index),
            std::cmp::Ordering::Greater => Axis::Row(index - 1),
        })
    }

    /// One of the row's own axes.
    pub fn own_axis(&self, node: &Node, axis: i64) -> Result<usize, ReadError> {
        match self.axis(node, axis)? {
            Axis::Row(axis) => Ok(axis),
            Axis::Batch => Err(mixes(node, &format!("axis {axis} of {}, which is the batch", self.shape()))),
        }
    }
}

/// For people: `[batch, 3]`.
pub(super) fn shape_of(extents: &[Extent]) -> String {
    let name = |extent: &Extent| match extent {
        Extent::Batch => "batch".to_owned(),
        Extent::Known(size) => size.to_string(),
    };
    format!("[{}]", extents.iter().map(name).collect::<Vec<_>>().join(", "))
}

/// Refuses what would look at other rows.
pub(super) fn mixes(node: &Node, what: &str) -> ReadError {
    node.unsupported(what, "scores are computed row by row: each row must stay on its own")
}

/// The index of an axis that may count from the end.
pub(super) fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let rank_signed = i64::try_from(rank).ok()?;
    let index = if axis < 0 { axis.checked_add(rank_signed)? } else { axis };
    usize::try_from(index).ok().filter(|index| *index < rank)
}

/// The product of dimensions, if it is within the limits of a row.
pub(super) fn width_of(node: &Node, dims: &[usize]) -> Result<usize, ReadError> {
    let width = dims.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim));
    let within = width.filter(|width| (1..=COLUMNS_MAX).contains(width));
    within.ok_or_else(|| node.unsupported(format!("rows of {dims:?} numbers"), format!("1 to {COLUMNS_MAX} are")))
}

/// Where each element of a tensor of dimensions `to` is found in one of dimensions `from`, which is broadcast to it; both
/// have as many dimensions.
pub(super) fn broadcast(from: &[usize], to: &[usize]) -> Vec<usize> {
    let mut indices = vec![0];
    for (from, to) in from.iter().zip(to) {
        let step = |index: usize, at: usize| index * from + if *from == 1 { 0 } else { at };
        indices = indices.iter().flat_map(|index| (0..*to).map(move |at| step(*index, at))).collect();
    }
    indices
}

/// The dimensions that two tensors of as many dimensions have together.
pub(super) fn together(one: &[usize], other: &[usize]) -> Option<Vec<usize>> {
    let dim = |(one, other): (&usize, &usize)| match (*one, *other) {
        (one, other) if one == other || other == 1 => Some(one),
        (1, other) => Some(other),
        _ => None,
    };
    one.iter().zip(other).map(dim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_repeats_what_has_one() {
        assert_eq!(broadcast(&[1, 3], &[2, 3]), [0, 1, 2, 0, 1, 2]);
        assert_eq!(broadcast(&[2, 1], &[2, 3]), [0, 0, 0, 1, 1, 1]);
        assert_eq!(broadcast(&[], &[]), [0]);
        assert_eq!(together(&[1, 3], &[2, 1]), Some(vec![2, 3]));
        assert_eq!(together(&[2], &[3]), None);
    }

    #[test]
    fn an_axis_may_count_from_the_end() {
        assert_eq!([axis_of(-1, 2), axis_of(1, 2), axis_of(2, 2), axis_of(-3, 2)], [Some(1), Some(1), None, None]);
        assert_eq!(axis_of(i64::MIN, 2), None);
    }
}
