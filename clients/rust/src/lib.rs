//! A client of the disrust inference server.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod address;
pub mod blocking;
mod client;
mod connection;
mod error;
mod limits;
mod line;
mod model;
mod options;
mod servers;
mod stream;

pub use client::{Client, Scores, ServerCheck};
pub use error::Error;
pub use model::ModelInfo;
pub use options::Builder;
pub use servers::ServerState;
