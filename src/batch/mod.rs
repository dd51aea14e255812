//! The batch processor's side: everything that all I/O threads have published, through the model, and back.
#![forbid(unsafe_code)]

mod answers;
mod model_place;
mod processor;
mod requests;
mod role;
mod scoring;
mod shedding;

pub use model_place::{ModelPlace, ReplaceError};
pub use processor::{BatchProcessor, EventConsumer, Found, IoThreadPort};
pub use role::{BatchRole, Help};
