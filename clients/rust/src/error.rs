//! What can go wrong with a call.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

/// Why a call has no scores, or a client could not be made.
///
/// What the client retries by itself, it has retried by then: see [`Error::is_retried`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address cannot be understood.
    #[error("{address:?} is no address of a server: {reason}. Try: host:port, [IPv6]:port, or unix:/path")]
    Address {
        /// The address as it was given.
        address: Arc<str>,
        /// What is wrong with it.
        reason: Arc<str>,
    },

    /// The client was made outside a tokio runtime.
    #[error("there is no tokio runtime here; make the client inside one, or use disrust_client::blocking")]
    NoRuntime,

    /// The values are no whole rows. Nothing was sent.
    #[error("{values} values are no whole rows of {features} features")]
    Shape {
        /// Values that the call was given.
        values: usize,
        /// Features in a row, as the call says.
        features: usize,
    },

    /// The server's model takes rows of another width. Nothing was sent.
    #[error(
        "rows of {given} features for a model of {expected}; the model is another one, or a column is missing or too many"
    )]
    WrongFeatures {
        /// Features in a row, as the call or the client's options say.
        given: usize,
        /// Features in a row of the server's model.
        expected: usize,
    },

    /// The server's model gives another number of scores for each row than the client was told to expect.
    #[error("{given} outputs of each row are expected, and the server gives {actual}; see its option --output")]
    WrongOutputs {
        /// Outputs as the client's options say.
        given: usize,
        /// Outputs of the server's model.
        actual: usize,
    },

    /// The server is overloaded and shed this call (error 3). It is never retried at once: do less, or wait.
    #[error("the server is overloaded and shed this request; do less, or try again later")]
    Overloaded,

    /// The model failed on these rows (error 2). Other calls are not concerned.
    #[error("the model failed on these rows; the server's log says why")]
    ModelFailed,

    /// The server is closing (error 4), and no other one took the call in time.
    #[error("the server is closing and did not take this request, and no other server did")]
    Closing,

    /// The server could not read the request (error 1), which a server without hello says when its model has another number
    /// of features.
    #[error("{server} could not read a request: most likely its model has another number of features")]
    Unreadable {
        /// Its address.
        server: Arc<str>,
    },

    /// The connection was lost, and the retries were used up.
    #[error("the connection to {server} was lost: {reason}")]
    Lost {
        /// Its address.
        server: Arc<str>,
        /// How.
        reason: Arc<str>,
    },

    /// The call's time is over. It may have been scored.
    #[error("no answer within {timeout:?}; the server is slow, frozen, or cut off")]
    Deadline {
        /// The time that the call had.
        timeout: Duration,
    },

    /// What the server said is no answer to what it was asked. No number of it was used, and the connection was closed.
    #[error("{server} does not speak the protocol: {violation}. Is it a disrust server?")]
    Protocol {
        /// Its address.
        server: Arc<str>,
        /// What is wrong.
        violation: Arc<str>,
    },

    /// No server is connected, and none came while the call waited for one.
    #[error("no server can be reached: {reasons}")]
    NoServer {
        /// Each address with the last thing that went wrong with it.
        reasons: Arc<str>,
    },
}

impl Error {
    /// Whether the client tries again by itself, elsewhere if it can, before a call fails with this error: the connection
    /// was lost, or the server is closing. Scoring changes nothing, so nothing is done twice by that.
    pub fn is_retried(&self) -> bool {
        matches!(self, Error::Lost { .. } | Error::Closing)
    }
}
