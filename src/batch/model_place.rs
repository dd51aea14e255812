//! The model that scores, and the place where another thread gives a new one for it.
//!
//! A model is swapped between two steps of the batch processor, so that no answer is a mixture of two; the one before goes
//! back to who gave the new one, because letting go of a large model takes long. Where models come from is nobody's
//! business here.
//!
//! Invariant: all models of one place have one shape. Buffers, framing and answers are made for it.
#![forbid(unsafe_code)]

use std::sync::Arc;

use disrust_model::Model;
use thiserror::Error;

use crate::exchange::model_version::ModelVersion;
use crate::exchange::swap_place::{NotSwapped, SwapPlace};
use crate::exchange::wake::Wake;
use crate::limits::MODEL_SWAP_MAX;

/// Why a new model does not serve; the one before goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplaceError {
    /// It takes other rows.
    #[error(
        "the new model takes {new} features, and the one that serves takes {old}, for which its clients frame their \
         requests. Try: a model of {old} features, or a server of its own"
    )]
    Features {
        /// Those of the model that serves.
        old: usize,
        /// Those of the other.
        new: usize,
    },
    /// It gives other answers.
    #[error(
        "the new model gives {new} outputs, and the one that serves gives {old}, for which its clients read their answers. \
         Try: a model of {old} outputs, or a server of its own"
    )]
    Outputs {
        /// Those of the model that serves.
        old: usize,
        /// Those of the other.
        new: usize,
    },
    /// Another one is on its way.
    #[error("another new model is being put in place. Try: again, when that is done")]
    Busy,
    /// The one that serves is at work.
    #[error("the model that serves has not come back from one batch for {MODEL_SWAP_MAX:?}")]
    Late,
    /// There is nothing to serve any more.
    #[error("the server has ended")]
    Ended,
}

/// Where the model of one batch processor is replaced, from any thread.
pub struct ModelPlace {
    place: SwapPlace<Box<dyn Model>>,
    feature_dim: usize,
    outputs: usize,
}

impl ModelPlace {
    /// Puts `model` in the place of the one that serves, waits until it serves, and returns the other one. `wake` is the
    /// batch processor's.
    ///
    /// # Errors
    /// See [`ReplaceError`]; then `model` is dropped here.
    pub fn replace(&self, model: Box<dyn Model>, wake: &Wake) -> Result<Box<dyn Model>, ReplaceError> {
        self.offer(model, wake)?;
        self.place.wait(MODEL_SWAP_MAX).map_err(ReplaceError::from)
    }

    /// The first half of [`ModelPlace::replace`]: what does not wait.
    ///
    /// # Errors
    /// As there.
    pub fn offer(&self, model: Box<dyn Model>, wake: &Wake) -> Result<(), ReplaceError> {
        let (old, new) = (self.feature_dim, model.feature_dim());
        if new != old {
            return Err(ReplaceError::Features { old, new });
        }
        let (old, new) = (self.outputs, model.outputs());
        if new != old {
            return Err(ReplaceError::Outputs { old, new });
        }
        self.place.offer(model)?;
        wake.wake_sleeper();
        Ok(())
    }

    /// The second half, if it has come to that: the other model. For who cannot wait.
    ///
    /// # Errors
    /// As there.
    pub fn outcome(&self) -> Option<Result<Box<dyn Model>, ReplaceError>> {
        Some(self.place.outcome()?.map_err(ReplaceError::from))
    }
}

impl From<NotSwapped> for ReplaceError {
    fn from(not_swapped: NotSwapped) -> ReplaceError {
        match not_swapped {
            NotSwapped::Busy => ReplaceError::Busy,
            NotSwapped::Late => ReplaceError::Late,
            NotSwapped::Ended => ReplaceError::Ended,
        }
    }
}

/// The batch processor's side: the model that scores. Dropped, it lets nobody wait at its place.
pub(super) struct PlacedModel {
    model: Box<dyn Model>,
    place: Arc<ModelPlace>,
    version: Arc<ModelVersion>,
}

impl PlacedModel {
    pub fn new(model: Box<dyn Model>) -> PlacedModel {
        let (feature_dim, outputs) = (model.feature_dim(), model.outputs());
        let place = Arc::new(ModelPlace { place: SwapPlace::new(), feature_dim, outputs });
        let version = Arc::new(ModelVersion::new(model.version()));
        PlacedModel { model, place, version }
    }

    pub fn place(&self) -> &Arc<ModelPlace> {
        &self.place
    }

    /// The version of the model that scores, for whoever asks on another thread.
    pub fn version(&self) -> &Arc<ModelVersion> {
        &self.version
    }

    /// Whether a new model is there to be taken.
    pub fn is_offered(&self) -> bool {
        self.place.place.is_offered()
    }

    /// Takes a new model, if there is one. Returns whether it did.
    pub fn take_offered(&mut self) -> bool {
        self.is_offered() && self.place.place.swap(&mut self.model, |model| self.version.set(model.version()))
    }

    pub fn model(&mut self) -> &mut dyn Model {
        &mut *self.model
    }
}

impl Drop for PlacedModel {
    fn drop(&mut self) {
        self.place.place.close();
    }
}

#[cfg(test)]
mod tests {
    use disrust_model::{PredictError, Rows, Sum};

    use super::*;
    use crate::exchange::wake::Alarm;

    struct Nobody;

    impl Alarm for Nobody {
        fn ring(&self) {}
    }

    struct TwoOutputs;

    impl Model for TwoOutputs {
        fn name(&self) -> &str {
            "two outputs"
        }
        fn feature_dim(&self) -> usize {
            3
        }
        fn outputs(&self) -> usize {
            2
        }
        fn predict(&mut self, _rows: &Rows<'_>, _scores: &mut [f32]) -> Result<(), PredictError> {
            Ok(())
        }
    }

    /// A model of another shape never comes as far as the batch processor.
    #[test]
    fn only_a_model_of_the_same_shape_is_offered() {
        let wake = Wake::new(Nobody);
        let mut placed = PlacedModel::new(Box::new(Sum::new(3)));
        let place = Arc::clone(placed.place());
        let refused = place.replace(Box::new(Sum::new(4)), &wake).map(drop);
        assert_eq!(refused, Err(ReplaceError::Features { old: 3, new: 4 }));
        let refused = place.replace(Box::new(TwoOutputs), &wake).map(drop);
        assert_eq!(refused, Err(ReplaceError::Outputs { old: 1, new: 2 }));
        assert!(!placed.take_offered());
        assert_eq!(place.offer(Box::new(Sum::new(3)), &wake), Ok(()));
        assert_eq!(place.replace(Box::new(Sum::new(3)), &wake).map(drop), Err(ReplaceError::Busy));
        assert!(placed.take_offered() && !placed.take_offered());
        assert!(matches!(place.outcome(), Some(Ok(_))));
        drop(placed);
        assert_eq!(place.replace(Box::new(Sum::new(3)), &wake).map(drop), Err(ReplaceError::Ended));
    }
}
