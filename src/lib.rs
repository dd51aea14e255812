//! disrust.
pub mod protocol;
