//! Columns put together and taken apart, by constant indices.

use super::{Results, one};
use crate::form::limits::COLUMNS_MAX;
use crate::read::ReadError;
use crate::read::onnx::evaluate::Call;
use crate::read::onnx::rows::{Axis, Extent, Known, Rows, axis_of, mixes, width_of};

/// Some places along one of a row's own axes, in this order.
fn take(call: &mut Call<'_>, rows: &Rows, axis: usize, places: &[usize]) -> Result<Rows, ReadError> {
    let mut dims = rows.dims.clone();
    dims[axis] = places.len();
    width_of(&call.node, &dims)?;
    let (before, length): (usize, usize) = (rows.dims[..axis].iter().product(), rows.dims[axis]);
    let after: usize = rows.dims[axis + 1..].iter().product();
    let mut columns = Vec::with_capacity(before * places.len() * after);
    for block in 0..before {
        for place in places {
            let first = (block * length + place) * after;
            columns.extend(first..first + after);
        }
    }
    let value = call.program.select(&call.node, rows.value, columns)?;
    Ok(Rows { value, dims, ..rows.clone() })
}

/// Indices that may count from the end, as places of an axis.
fn places_of(call: &Call<'_>, indices: &[i64], length: usize) -> Result<Vec<usize>, ReadError> {
    if indices.len() > COLUMNS_MAX {
        return Err(call.node.unsupported(format!("{} indices", indices.len()), format!("{COLUMNS_MAX} are")));
    }
    let place = |index: &i64| {
        let outside = || call.node.malformed(format!("takes index {index} of {length}"));
        axis_of(*index, length).ok_or_else(outside)
    };
    indices.iter().map(place).collect()
}

pub(super) fn concat(call: &mut Call<'_>) -> Results {
    let axis = call.node.integer("axis")?.ok_or_else(|| call.node.malformed("has no axis"))?;
    if call.inputs.iter().flatten().any(|input| matches!(input, Known::Extents(_))) {
        return concat_extents(call);
    }
    let all = (0..call.inputs.len()).map(|index| call.rows(index)).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = all.first().cloned() else { return Err(call.node.malformed("has no input")) };
    let own = first.own_axis(&call.node, axis)?;
    let mut dims = first.dims.clone();
    dims[own] = 0;
    for rows in &all {
        let mut like_first = rows.dims.clone();
        if rows.dims.len() == dims.len() {
            like_first[own] = first.dims[own];
        }
        if like_first != first.dims || rows.batch != first.batch || rows.element != first.element {
            let what = format!("the shapes {} and {}, or different types", first.shape(), rows.shape());
            return Err(call.node.unsupported(what, "shapes that differ along the axis alone are"));
        }
        dims[own] = dims[own].saturating_add(rows.dims[own]);
    }
    width_of(&call.node, &dims)?;
    let value = call.program.concat(&call.node, all.iter().map(|rows| rows.value).collect())?;
    let order = order_of(&all, own);
    let value = call.program.select(&call.node, value, order)?;
    one(Rows { value, dims, ..first })
}

/// Where the elements of a concatenation along an inner axis are, when the inputs lie one after the other.
fn order_of(all: &[Rows], axis: usize) -> Vec<usize> {
    let blocks: usize = all[0].dims[..axis].iter().product();
    let mut order = Vec::new();
    for block in 0..blocks {
        let mut start = 0;
        for rows in all {
            let (width, length) = (rows.width(), rows.width() / blocks);
            order.extend(start + block * length..start + (block + 1) * length);
            start += width;
        }
    }
    order
}

fn concat_extents(call: &Call<'_>) -> Results {
    let mut all = Vec::new();
    for (index, input) in call.inputs.iter().enumerate() {
        match input {
            Some(Known::Extents(extents)) => all.extend_from_slice(extents),
            _ => all.extend(call.integers(index)?.unwrap_or_default().into_iter().map(Extent::Known)),
        }
    }
    extents_of(call, all)
}

fn extents_of(call: &Call<'_>, extents: Vec<Extent>) -> Results {
    match extents.len() {
        0..=EXTENTS_MAX => Ok(vec![Known::Extents(extents.into())]),
        count => Err(call.node.unsupported(format!("a shape of {count} dimensions"), format!("{EXTENTS_MAX} are"))),
    }
}

/// Dimensions of a shape that is put together. Real ones have 2 or 3.
const EXTENTS_MAX: usize = 64;

pub(super) fn gather(call: &mut Call<'_>) -> Results {
    call.inputs_max(2)?;
    let axis = call.node.integer("axis")?.unwrap_or_default();
    let indices = call.constant(1)?.clone();
    let list = call.integers(1)?.unwrap_or_default();
    if let Some(Known::Extents(extents)) = call.optional(0) {
        let places = places_of(call, &list, extents.len())?;
        return extents_of(call, places.iter().map(|place| extents[*place]).collect());
    }
    let rows = call.rows(0)?;
    let own = rows.own_axis(&call.node, axis)?;
    let places = places_of(call, &list, rows.dims[own])?;
    let mut taken = take(call, &rows, own, &places)?;
    match indices.dims.len() {
        0 => {
            taken.dims.remove(own);
            taken.batch -= usize::from(own < taken.batch);
        }
        1 => {}
        rank => return Err(call.node.unsupported(format!("indices of {rank} dimensions"), "a list of indices is")),
    }
    one(taken)
}

pub(super) fn array_feature_extractor(call: &mut Call<'_>) -> Results {
    call.inputs_max(2)?;
    let rows = call.flat(0)?;
    let list = call.integers(1)?.unwrap_or_default();
    let places = places_of(call, &list, rows.width())?;
    one(take(call, &rows, 0, &places)?)
}

/// The inputs one after the other, each cut to a width that is said.
pub(super) fn feature_vectorizer(call: &mut Call<'_>) -> Results {
    let dims = call.node.integers("inputdimensions")?.unwrap_or_default();
    let all = (0..call.inputs.len()).map(|index| call.flat_floats(index)).collect::<Result<Vec<_>, _>>()?;
    let widths = all.iter().map(|rows| i64::try_from(rows.width()).ok());
    if !widths.eq(dims.iter().copied().map(Some)) {
        return Err(call.node.unsupported(format!("inputdimensions {dims:?}"), "the widths of the inputs are"));
    }
    let value = call.program.concat(&call.node, all.iter().map(|rows| rows.value).collect())?;
    let (width, element) = (call.program.widths[value], all[0].element);
    one(Rows::flat(value, width, element))
}

/// From version 10 on, what to cut is in inputs.
pub(super) fn slice(call: &mut Call<'_>) -> Results {
    call.inputs_max(5)?;
    let rows = call.rows(0)?;
    let needed = |list: Option<Vec<i64>>, what: &str| list.ok_or_else(|| call_malformed(call, what));
    let (starts, ends) = if call.version >= 10 {
        (needed(call.integers(1)?, "starts")?, needed(call.integers(2)?, "ends")?)
    } else {
        let (starts, ends) = (call.node.integers("starts")?, call.node.integers("ends")?);
        let missing = || call_malformed(call, "starts or ends");
        (starts.ok_or_else(missing)?, ends.ok_or_else(missing)?)
    };
    let axes = call.attribute_or_input("axes", 3)?;
    let count = i64::try_from(starts.len()).unwrap_or(i64::MAX);
    let axes = axes.unwrap_or_else(|| (0..count).collect());
    let steps = call.integers(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || starts.len() > rows.rank() {
        return Err(call.node.malformed("has lists of different lengths, or too long ones"));
    }
    let mut sliced = rows;
    for (index, axis) in axes.iter().enumerate() {
        let (start, end, step) = (starts[index], ends[index], steps[index]);
        match sliced.axis(&call.node, *axis)? {
            Axis::Batch if start == 0 && end >= i64::from(i32::MAX) && step == 1 => {}
            Axis::Batch => return Err(mixes(&call.node, "a slice of the batch")),
            Axis::Row(own) => {
                let places = places_of_slice(call, start, end, step, sliced.dims[own])?;
                sliced = take(call, &sliced, own, &places)?;
            }
        }
    }
    one(sliced)
}

fn call_malformed(call: &Call<'_>, what: &str) -> ReadError {
    call.node.malformed(format!("has no {what}"))
}

fn places_of_slice(call: &Call<'_>, start: i64, end: i64, step: i64, length: usize) -> Result<Vec<usize>, ReadError> {
    if step == 0 {
        return Err(call.node.malformed("has a step of 0"));
    }
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_start = |place: i64| if place < 0 { place.saturating_add(length) } else { place };
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let first = from_start(start).clamp(low.max(0), high);
    let end = from_start(end).clamp(low, high);
    let mut places = Vec::new();
    let mut place = first;
    while if step > 0 { place < end } else { place > end } {
        places.push(usize::try_from(place).map_err(|_| call.node.malformed("slices outside of the row"))?);
        place = place.saturating_add(step);
    }
    Ok(places)
}

/// Parts along an axis: sizes are an attribute, or an input from version 13 on, or equal.
pub(super) fn split(call: &mut Call<'_>) -> Results {
    call.inputs_max(2)?;
    let rows = call.rows(0)?;
    let axis = call.node.integer("axis")?.unwrap_or_default();
    let own = rows.own_axis(&call.node, axis)?;
    let (length, parts) = (rows.dims[own], call.node.outputs.len());
    call.node.ignore("num_outputs");
    let sizes = match call.attribute_or_input("split", 1)? {
        Some(sizes) => sizes.iter().map(|size| usize::try_from(*size).unwrap_or(usize::MAX)).collect(),
        // The last part may be smaller.
        None => {
            let each = length.div_ceil(parts.max(1));
            (0..parts).map(|part| each.min(length.saturating_sub(part * each))).collect::<Vec<_>>()
        }
    };
    let whole = sizes.iter().try_fold(0_usize, |sum, size| sum.checked_add(*size));
    if sizes.len() != parts || whole != Some(length) {
        return Err(call.node.malformed(format!("splits {length} columns into {sizes:?} for {parts} outputs")));
    }
    let mut results = Vec::new();
    let mut first = 0;
    for size in sizes {
        let places: Vec<usize> = (first..first + size).collect();
        results.push(Known::Rows(take(call, &rows, own, &places)?));
        first += size;
    }
    Ok(results)
}
