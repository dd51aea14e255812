//! Error answers that end no run: which they are, and how many there were.
//!
//! A request that the server sheds, or that its model fails on, has its answer in its place, and the connection goes on; so
//! does a run that counts them ([`Load::counts_errors`](crate::load::Load::counts_errors)). What the other codes mean ends a connection.
//!
//! Invariants: an error answer is in no histogram, and no goodput.

use clap::ValueEnum;
use disrust_protocol::ErrorCode;
use serde::{Deserialize, Serialize};

/// An answer without scores, behind which the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Unscored {
    /// Error 3: the server was overloaded.
    Shed,
    /// Error 2: the model failed on the request.
    ModelFailed,
}

impl Unscored {
    /// All of them, in the order of their declaration.
    pub const ALL: [Unscored; 2] = [Unscored::Shed, Unscored::ModelFailed];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Unscored::Shed => "shed",
            Unscored::ModelFailed => "model-failed",
        }
    }

    /// What `code` says, unless the connection ends with it.
    pub fn of(code: ErrorCode) -> Option<Unscored> {
        match code {
            ErrorCode::Shed => Some(Unscored::Shed),
            ErrorCode::ModelFailed => Some(Unscored::ModelFailed),
            ErrorCode::BadVectorCount | ErrorCode::Closing | ErrorCode::WrongFeatureDim => None,
        }
    }

    /// The code that says so.
    pub fn code(self) -> ErrorCode {
        match self {
            Unscored::Shed => ErrorCode::Shed,
            Unscored::ModelFailed => ErrorCode::ModelFailed,
        }
    }
}

/// Requests by the error that answered them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswers {
    /// Error 3: the server was overloaded.
    pub shed: u64,
    /// Error 2: the model failed on the request.
    pub model_failed: u64,
}

impl ErrorAnswers {
    /// Of both kinds.
    pub fn count(self) -> u64 {
        self.shed + self.model_failed
    }

    /// Requests that `kind` answered.
    pub fn of(self, kind: Unscored) -> u64 {
        match kind {
            Unscored::Shed => self.shed,
            Unscored::ModelFailed => self.model_failed,
        }
    }

    /// Counts `count` more.
    pub fn add(&mut self, kind: Unscored, count: u64) {
        match kind {
            Unscored::Shed => self.shed += count,
            Unscored::ModelFailed => self.model_failed += count,
        }
    }
}
