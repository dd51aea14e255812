//! How a model is called that may panic.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::rows::Rows;
use crate::{Model, PredictError};

/// Calls the model; a panic is an error like any other.
///
/// # Errors
/// As [`Model::predict`], or the model panicked.
pub fn guarded_predict(model: &mut dyn Model, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
    // A model that panics may leave itself in any state, and scores half written: neither is used as an answer.
    MODEL_RUNS.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| model.predict(rows, scores)));
    MODEL_RUNS.set(false);
    outcome.unwrap_or_else(|panic| Err(PredictError(format!("the model panicked: {}", panic_message(&*panic)))))
}

/// Whether this thread is inside the model. A panic there is an error of the model, reported as such and not too often;
/// a panic hook need not print it.
pub fn model_runs() -> bool {
    MODEL_RUNS.get()
}

thread_local! {
    static MODEL_RUNS: Cell<bool> = const { Cell::new(false) };
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RowSource;

    struct NoRows;

    impl RowSource for NoRows {
        fn visit(&self, _visitor: &mut dyn FnMut(&[&[u8]])) {}
    }

    struct Panicking;

    impl Model for Panicking {
        fn name(&self) -> &str {
            "panicking"
        }
        fn feature_dim(&self) -> usize {
            1
        }
        fn predict(&mut self, _rows: &Rows<'_>, _scores: &mut [f32]) -> Result<(), PredictError> {
            panic!("as a test")
        }
    }

    #[test]
    fn a_models_panic_is_an_error() {
        let rows = Rows::new(&NoRows, 1, 1);
        let Err(error) = guarded_predict(&mut Panicking, &rows, &mut [0.0]) else { panic!("an error") };
        assert!(error.to_string().contains("the model panicked: as a test") && !model_runs(), "{error}");
    }
}
