//! What changes a tensor's dimensions, and what of a row is where.

use super::{Results, one};
use crate::read::ReadError;
use crate::read::onnx::evaluate::Call;
use crate::read::onnx::rows::{Extent, Known, Rows, axis_of, mixes, shape_of};
use crate::read::onnx::tensor::{Numbers, Tensor};

pub(super) fn reshape(call: &mut Call<'_>) -> Results {
    call.inputs_max(2)?;
    let zero_is_zero = call.node.integer("allowzero")?.unwrap_or_default() != 0;
    let wanted = wanted(call)?;
    if let Some(Known::Constant(tensor)) = call.optional(0) {
        let dims = tensor.dims.iter().map(|dim| i64::try_from(*dim).map(Extent::Known));
        let dims: Vec<Extent> =
            dims.collect::<Result<_, _>>().map_err(|_| call.node.malformed("is of a huge tensor"))?;
        let own = resolve(call, &wanted, &dims, tensor.numbers.len(), zero_is_zero)?;
        return match own.iter().all(|extent| matches!(extent, Extent::Known(_))) {
            true => Ok(vec![Known::Constant(tensor.reshaped(sizes_of(&own)))]),
            false => Err(mixes(&call.node, "a constant that is cut into rows")),
        };
    }
    let rows = call.rows(0)?;
    let dims = resolve(call, &wanted, &rows.extents(), rows.width(), zero_is_zero)?;
    one(reshaped(call, &rows, &dims)?)
}

/// The dimensions that a reshape asks for, as they stand in the file.
fn wanted(call: &Call<'_>) -> Result<Vec<Extent>, ReadError> {
    if let Some(Known::Extents(extents)) = call.optional(1) {
        return Ok(extents.to_vec());
    }
    let integers = call.integers(1)?.ok_or_else(|| call.node.malformed("has no shape"))?;
    Ok(integers.into_iter().map(Extent::Known).collect())
}

/// Puts numbers and the batch in the place of 0 and −1. `width` is how many elements there are, for each row if there are rows.
fn resolve(
    call: &Call<'_>,
    wanted: &[Extent],
    from: &[Extent],
    width: usize,
    zero_is_zero: bool,
) -> Result<Vec<Extent>, ReadError> {
    let mut dims = wanted.to_vec();
    for (index, dim) in dims.iter_mut().enumerate() {
        if *dim == Extent::Known(0) && !zero_is_zero {
            let missing = || call.node.malformed(format!("copies dimension {index}, which is not there"));
            *dim = from.get(index).copied().ok_or_else(missing)?;
        }
    }
    let of_rows = from.contains(&Extent::Batch);
    let no_fit = || mixes(&call.node, &format!("the shape {} for {width} elements", shape_of(wanted)));
    let open = dims.iter().filter(|dim| **dim == Extent::Known(-1)).count();
    let product = |dims: &[Extent]| {
        let known = dims.iter().filter_map(|dim| match dim {
            Extent::Known(-1) | Extent::Batch => None,
            Extent::Known(size) => Some(usize::try_from(*size).ok()),
        });
        known.into_iter().try_fold(1_usize, |product, size| product.checked_mul(size?))
    };
    if of_rows && !dims.contains(&Extent::Batch) {
        // With as many elements as a row has, what is left open can only be the batch.
        let batch = if open == 1 && product(&dims) == Some(width) {
            dims.iter().position(|dim| *dim == Extent::Known(-1))
        } else {
            let fixed = call.batch.and_then(|batch| i64::try_from(batch).ok());
            fixed.filter(|fixed| dims.first() == Some(&Extent::Known(*fixed))).map(|_| 0)
        };
        dims[batch.ok_or_else(no_fit)?] = Extent::Batch;
    }
    let known = product(&dims).ok_or_else(no_fit)?;
    let open = dims.iter_mut().filter(|dim| **dim == Extent::Known(-1)).collect::<Vec<_>>();
    let fits = match open.len() {
        0 => known == width,
        1 => known > 0 && width.is_multiple_of(known),
        _ => false,
    };
    if !fits || dims_count(&dims, Extent::Batch) != usize::from(of_rows) {
        return Err(no_fit());
    }
    let rest = i64::try_from(width / known.max(1)).map_err(|_| no_fit())?;
    dims.iter_mut().filter(|dim| **dim == Extent::Known(-1)).for_each(|dim| *dim = Extent::Known(rest));
    Ok(dims)
}

fn dims_count(dims: &[Extent], wanted: Extent) -> usize {
    dims.iter().filter(|dim| **dim == wanted).count()
}

/// The sizes of a row's own dimensions; the caller has made sure that none is negative.
fn sizes_of(dims: &[Extent]) -> Vec<usize> {
    let size = |dim: &Extent| match dim {
        Extent::Known(size) => usize::try_from(*size).ok(),
        Extent::Batch => None,
    };
    dims.iter().filter_map(size).collect()
}

/// The same row under other dimensions: what lies before the batch must stay as much.
fn reshaped(call: &Call<'_>, rows: &Rows, dims: &[Extent]) -> Result<Rows, ReadError> {
    let batch = dims.iter().position(|dim| *dim == Extent::Batch).expect("the batch was put there");
    let own = sizes_of(dims);
    let (was, is): (usize, usize) = (rows.dims[..rows.batch].iter().product(), own[..batch].iter().product());
    match was == is {
        true => Ok(Rows { dims: own, batch, ..rows.clone() }),
        false => Err(mixes(&call.node, &format!("the shape {} that becomes {}", rows.shape(), shape_of(dims)))),
    }
}

/// `[batch, everything else]`.
pub(super) fn flatten(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    let rows = call.rows(0)?;
    let axis = call.node.integer("axis")?.unwrap_or(1);
    let index = if axis == rows.rank() as i64 { Some(rows.rank()) } else { axis_of(axis, rows.rank()) };
    let index = index.ok_or_else(|| call.node.malformed(format!("has axis {axis} for {} dimensions", rows.rank())))?;
    let alone = rows.batch == 0 && index > 0 && rows.dims[..index - 1].iter().all(|dim| *dim == 1);
    match alone {
        true => one(Rows { dims: vec![rows.width()], ..rows }),
        false => Err(mixes(&call.node, &format!("axis {axis} of the shape {}", rows.shape()))),
    }
}

/// The axes were an attribute before version 13; without any, all of size 1.
pub(super) fn squeeze(call: &mut Call<'_>) -> Results {
    call.inputs_max(2)?;
    let axes = call.attribute_or_input("axes", 1)?;
    if let Some(extents @ Known::Extents(_)) = call.optional(0) {
        return Ok(vec![extents.clone()]);
    }
    if let Some(Known::Constant(tensor)) = call.optional(0) {
        let rank = tensor.dims.len();
        let chosen =
            |index: usize| axes.as_ref().is_none_or(|axes| axes.iter().any(|axis| axis_of(*axis, rank) == Some(index)));
        let kept = |(index, dim): (usize, &usize)| (*dim != 1 || !chosen(index)).then_some(*dim);
        let dims = tensor.dims.iter().enumerate().filter_map(kept).collect();
        return Ok(vec![Known::Constant(tensor.reshaped(dims))]);
    }
    let mut rows = call.rows(0)?;
    let mut own = match axes {
        None => (0..rows.dims.len()).filter(|axis| rows.dims[*axis] == 1).collect(),
        Some(axes) => axes.iter().map(|axis| rows.own_axis(&call.node, *axis)).collect::<Result<Vec<_>, _>>()?,
    };
    own.sort_unstable();
    own.dedup();
    for axis in own.into_iter().rev() {
        if rows.dims[axis] != 1 {
            return Err(call.node.malformed(format!("takes away a dimension of {}", rows.dims[axis])));
        }
        rows.dims.remove(axis);
        rows.batch -= usize::from(axis < rows.batch);
    }
    one(rows)
}

pub(super) fn unsqueeze(call: &mut Call<'_>) -> Results {
    call.inputs_max(2)?;
    let axes = call.attribute_or_input("axes", 1)?.ok_or_else(|| call.node.malformed("has no axes"))?;
    if let Some(extents @ Known::Extents(_)) = call.optional(0) {
        return Ok(vec![extents.clone()]);
    }
    let constant = match call.optional(0) {
        Some(Known::Constant(tensor)) => Some(tensor.clone()),
        _ => None,
    };
    let rank = match &constant {
        Some(tensor) => tensor.dims.len(),
        None => call.rows(0)?.rank(),
    };
    let rank = rank + axes.len();
    let places = axes.iter().map(|axis| axis_of(*axis, rank)).collect::<Option<Vec<_>>>();
    let Some(mut places) = places.filter(|_| rank <= RANK_MAX) else {
        return Err(call.node.malformed(format!("has the axes {axes:?} for {rank} dimensions")));
    };
    places.sort_unstable();
    places.dedup();
    if let Some(tensor) = constant {
        let mut dims = tensor.dims.clone();
        places.iter().for_each(|place| dims.insert((*place).min(dims.len()), 1));
        return Ok(vec![Known::Constant(tensor.reshaped(dims))]);
    }
    let rows = call.rows(0)?;
    let mut extents = rows.extents();
    places.iter().for_each(|place| extents.insert((*place).min(extents.len()), Extent::Known(1)));
    one(reshaped(call, &rows, &extents)?)
}

/// Dimensions of a tensor at most.
const RANK_MAX: usize = 8;

pub(super) fn transpose(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    let constant = match call.optional(0) {
        Some(Known::Constant(tensor)) => Some(tensor.clone()),
        _ => None,
    };
    let rank = match &constant {
        Some(tensor) => tensor.dims.len(),
        None => call.rows(0)?.rank(),
    };
    let order = match call.node.integers("perm")? {
        None => (0..rank).rev().collect(),
        Some(order) => order.iter().filter_map(|axis| usize::try_from(*axis).ok()).collect::<Vec<_>>(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..rank) {
        return Err(call.node.malformed(format!("has an order of axes that is none: {order:?}")));
    }
    if let Some(tensor) = constant {
        call.program.spend(&call.node, tensor.numbers.len())?;
        let places = turned(&tensor.dims, &order);
        let dims = order.iter().map(|axis| tensor.dims[*axis]).collect();
        return Ok(vec![Known::Constant(Tensor::new(dims, pick(&tensor.numbers, &places)))]);
    }
    let rows = call.rows(0)?;
    let batch = order.iter().position(|axis| *axis == rows.batch).expect("each axis is there once");
    let own_axis = |axis: &usize| axis - usize::from(*axis > rows.batch);
    let own: Vec<usize> = order.iter().filter(|axis| **axis != rows.batch).map(own_axis).collect();
    let dims = own.iter().map(|axis| rows.dims[*axis]).collect();
    let value = call.program.select(&call.node, rows.value, turned(&rows.dims, &own))?;
    one(Rows { value, dims, batch, element: rows.element })
}

/// Where the elements of a tensor are whose axes are put into another order.
fn turned(dims: &[usize], order: &[usize]) -> Vec<usize> {
    let mut places = vec![0];
    for axis in order {
        let stride: usize = dims[axis + 1..].iter().product();
        places = places.iter().flat_map(|place| (0..dims[*axis]).map(move |at| place + at * stride)).collect();
    }
    places
}

fn pick(numbers: &Numbers, places: &[usize]) -> Numbers {
    match numbers {
        Numbers::F32(all) => Numbers::F32(places.iter().map(|place| all[*place]).collect()),
        Numbers::F64(all) => Numbers::F64(places.iter().map(|place| all[*place]).collect()),
        Numbers::Integers(all) => Numbers::Integers(places.iter().map(|place| all[*place]).collect()),
        Numbers::Text(all) => Numbers::Text(places.iter().map(|place| all[*place].clone()).collect()),
    }
}

/// The dimensions of rows, for a reshape.
pub(super) fn shape(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    let extents = call.rows(0)?.extents();
    let rank = i64::try_from(extents.len()).unwrap_or(i64::MAX);
    let place = |place: i64| if place < 0 { place.saturating_add(rank) } else { place }.clamp(0, rank) as usize;
    let (start, end) = (call.node.integer("start")?.unwrap_or(0), call.node.integer("end")?.unwrap_or(rank));
    let part = extents.get(place(start)..place(end)).unwrap_or_default();
    Ok(vec![Known::Extents(part.into())])
}
