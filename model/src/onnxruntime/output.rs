//! Which output of a session is served, as the reader of ONNX would choose it, and its numbers.
#![forbid(unsafe_code)]

use ort::value::{DynMapValueType, DynValue, Outlet, TensorElementType, ValueType};

use super::{OnnxruntimeError, refused, shape_error};
use crate::PredictError;
use crate::form::limits::COLUMNS_MAX;
use crate::form::{Choice, ChoiceError};
use crate::read::quoted;

/// The output that is served.
pub struct Output {
    pub name: String,
    /// What the columns that are served are called.
    pub names: Vec<String>,
    kind: Kind,
    /// Of two classes, the second one is served.
    is_classifier: bool,
    /// Columns that onnxruntime gives.
    columns: usize,
    /// The one of them that is served; all if none.
    column: Option<usize>,
}

/// What onnxruntime gives.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Floats,
    Doubles,
    /// As f32, exactly up to 2²⁴.
    Integers,
    /// A map for each row, as a `ZipMap` gives it, of these keys in this order.
    MapsOfIntegers(Vec<i64>),
    MapsOfText(Vec<String>),
}

impl Output {
    /// Of a session's outputs: the scores, or a number without a score beside it.
    pub fn of(outputs: &[Outlet]) -> Result<Output, OnnxruntimeError> {
        let (labels, scores): (Vec<&Outlet>, Vec<&Outlet>) = outputs.iter().partition(|output| is_label(output));
        let served = match (scores.as_slice(), labels.as_slice()) {
            ([score], _) => *score,
            ([], [only]) => *only,
            _ => {
                let names: Vec<String> = outputs.iter().take(8).map(|output| quoted(output.name())).collect();
                let what = format!("it has {} outputs ({})", outputs.len(), names.join(", "));
                return Err(shape_error(what, "one output is, or a label and scores"));
            }
        };
        let Some(kind) = Kind::of(served.dtype()) else {
            let what = format!("its output {} is {}", quoted(served.name()), quoted(&served.dtype().to_string()));
            return Err(shape_error(what, "a tensor of numbers is, of shape [rows] or [rows, columns]"));
        };
        let is_maps = matches!(kind, Kind::MapsOfIntegers(_) | Kind::MapsOfText(_));
        let is_classifier = !scores.is_empty() && !labels.is_empty() || is_maps;
        let (name, names) = (served.name().to_owned(), Vec::new());
        Ok(Output { name, names, kind, is_classifier, columns: 0, column: None })
    }

    /// Takes the width and the names from what one row gave.
    pub fn learn(&mut self, value: &DynValue) -> Result<(), OnnxruntimeError> {
        match &mut self.kind {
            Kind::MapsOfIntegers(keys) => {
                *keys =
                    first_map(value)?.try_extract_key_values().map_err(refused)?.into_iter().map(key::<i64>).collect();
                self.names = keys.iter().map(i64::to_string).collect();
            }
            Kind::MapsOfText(keys) => {
                *keys = first_map(value)?
                    .try_extract_key_values()
                    .map_err(refused)?
                    .into_iter()
                    .map(key::<String>)
                    .collect();
                self.names = keys.clone();
            }
            Kind::Floats | Kind::Doubles | Kind::Integers => {
                let shape = value.dtype().tensor_shape().map_or(&[][..], |shape| shape);
                let columns = match shape {
                    [1, columns @ ..] => columns.iter().try_fold(1_i64, |product, dim| product.checked_mul(*dim)),
                    _ => None,
                };
                let columns = columns.and_then(|columns| usize::try_from(columns).ok());
                let Some(columns) = columns.filter(|columns| *columns <= COLUMNS_MAX) else {
                    let what = format!("its output {} has shape {shape:?} for one row", quoted(&self.name));
                    return Err(shape_error(what, format!("[1] or [1, columns] is, of at most {COLUMNS_MAX}")));
                };
                self.names = (0..columns).map(|index| index.to_string()).collect();
            }
        }
        self.columns = self.names.len();
        match self.columns {
            0 => Err(shape_error(format!("its output {} is empty", quoted(&self.name)), "one of numbers is")),
            1..=COLUMNS_MAX => Ok(()),
            _ => Err(shape_error(format!("it has {} classes", self.columns), format!("{COLUMNS_MAX} are"))),
        }
    }

    /// Serves what is chosen, of all columns until then.
    pub fn choose(&mut self, choice: &Choice) -> Result<(), ChoiceError> {
        if self.is_classifier && self.columns == 2 {
            self.column = Some(1);
            self.names.remove(0);
        }
        if let Some(column) = choice.column(&self.names)? {
            self.column = Some(column);
            self.names = vec![self.names.swap_remove(column)];
        }
        Ok(())
    }

    /// Columns that are served.
    pub fn width(&self) -> usize {
        self.names.len()
    }

    /// Copies the scores of `rows` rows.
    pub fn copy(&self, value: &DynValue, rows: usize, scores: &mut [f32]) -> Result<(), PredictError> {
        match &self.kind {
            Kind::Floats => self.copy_tensor(value, rows, scores, |score: f32| score),
            Kind::Doubles => self.copy_tensor(value, rows, scores, |score: f64| score as f32),
            Kind::Integers if value.dtype().tensor_type() == Some(TensorElementType::Int32) => {
                self.copy_tensor(value, rows, scores, |score: i32| score as f32)
            }
            Kind::Integers => self.copy_tensor(value, rows, scores, |score: i64| score as f32),
            Kind::MapsOfIntegers(keys) => self.copy_maps(value, rows, scores, keys),
            Kind::MapsOfText(keys) => self.copy_maps(value, rows, scores, keys),
        }
    }

    fn copy_tensor<T: ort::value::PrimitiveTensorElementType + Copy>(
        &self,
        value: &DynValue,
        rows: usize,
        scores: &mut [f32],
        as_score: impl Fn(T) -> f32,
    ) -> Result<(), PredictError> {
        let (shape, values) = value.try_extract_tensor::<T>().map_err(failed)?;
        if shape.first().is_none_or(|count| *count != rows as i64) || values.len() != rows * self.columns {
            return Err(PredictError(format!("onnxruntime gives {shape:?} for {rows} rows")));
        }
        match self.column {
            None => scores.iter_mut().zip(values).for_each(|(score, value)| *score = as_score(*value)),
            Some(column) => {
                let values = values.iter().skip(column).step_by(self.columns);
                scores.iter_mut().zip(values).for_each(|(score, value)| *score = as_score(*value));
            }
        }
        Ok(())
    }

    fn copy_maps<K: ort::value::IntoTensorElementType + Clone + std::hash::Hash + Eq>(
        &self,
        value: &DynValue,
        rows: usize,
        scores: &mut [f32],
        keys: &[K],
    ) -> Result<(), PredictError> {
        let maps = value.try_extract_sequence::<DynMapValueType>().map_err(failed)?;
        if maps.len() != rows {
            return Err(PredictError(format!("onnxruntime gives {} maps for {rows} rows", maps.len())));
        }
        for (map, scores) in maps.iter().zip(scores.chunks_mut(self.width())) {
            let pairs: Vec<(K, f32)> = map.try_extract_key_values().map_err(failed)?;
            if !pairs.iter().map(|(key, _)| key).eq(keys) {
                return Err(PredictError("onnxruntime gives other classes than for other rows".to_owned()));
            }
            match self.column {
                None => scores.iter_mut().zip(&pairs).for_each(|(score, pair)| *score = pair.1),
                Some(column) => scores[0] = pairs[column].1,
            }
        }
        Ok(())
    }
}

impl Kind {
    fn of(value: &ValueType) -> Option<Kind> {
        match value {
            ValueType::Tensor { ty, .. } => match ty {
                TensorElementType::Float32 => Some(Kind::Floats),
                TensorElementType::Float64 => Some(Kind::Doubles),
                TensorElementType::Int64 | TensorElementType::Int32 => Some(Kind::Integers),
                _ => None,
            },
            ValueType::Sequence(element) => match **element {
                ValueType::Map { key: TensorElementType::Int64, value: TensorElementType::Float32 } => {
                    Some(Kind::MapsOfIntegers(Vec::new()))
                }
                ValueType::Map { key: TensorElementType::String, value: TensorElementType::Float32 } => {
                    Some(Kind::MapsOfText(Vec::new()))
                }
                _ => None,
            },
            ValueType::Map { .. } | ValueType::Optional(_) => None,
        }
    }
}

/// Integers, text or truths, which stand beside scores.
fn is_label(output: &Outlet) -> bool {
    use TensorElementType::{Bool, Int32, Int64, String};
    matches!(output.dtype().tensor_type(), Some(Bool | Int32 | Int64 | String))
}

fn first_map(value: &DynValue) -> Result<ort::value::DynMap, OnnxruntimeError> {
    let maps = value.try_extract_sequence::<DynMapValueType>().map_err(refused)?;
    maps.into_iter().next().ok_or_else(|| shape_error("it has no map for a row", "one is"))
}

fn key<K>(pair: (K, f32)) -> K {
    pair.0
}

fn failed(error: ort::Error) -> PredictError {
    PredictError(format!("onnxruntime: {}", quoted(&error.to_string())))
}
