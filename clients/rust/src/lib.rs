//! A client of disrust, a server that scores rows of numbers with a model.
//!
//! - [`Client`] is a handle to one server or several, on tokio. Clone it into as many tasks as there are: their calls share one
//!   connection to each server, many of them in one system call, and each gets its own answer. [`blocking::Client`] is the same
//!   for threads that wait.
//! - [`Client::predict`] takes rows as one slice, row-major: `rows[i * features + j]` is feature j of row i; any number of
//!   rows. [`Scores`] has `outputs` numbers for each row, in the same order. Both are `f32` and go over the wire as they
//!   are: the same rows always get the same bits from the same model.
//! - Servers are told apart by [hello](ModelInfo): rows of another width than the model's are an error before a byte is sent.
//! - A call takes at most its time ([`Builder::timeout`]), whatever the servers do. Dropped or too late, it costs others nothing: its
//!   answer is read and goes to nobody.
//! - A call goes by the connection of two random ones that has less in line, and avoids a server that has let a call wait in vain.
//!   Lost connections and closing servers are retried, elsewhere if there is an elsewhere ([`Error::is_retried`]);
//!   connections are made again in the background, and names resolved again.
//! - What is under way is bounded: callers wait, within their time, for a server that does not keep up.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), disrust_client::Error> {
//! let client = disrust_client::Client::connect(["127.0.0.1:9900"]).await?;
//!
//! let rows = [[0.0; 16], [0.5; 16]];
//! let scores = client.predict(rows.as_flattened(), 16).await?;
//! assert_eq!(scores.values.len(), rows.len() * scores.outputs);
//! # Ok(())
//! # }
//! ```
//!
//! # The journey of a call
//!
//! 1. [`Client::predict`] checks the shape, and chooses a connection that takes such rows.
//! 2. The call puts its requests in that connection's line, or waits there until there is room; what is
//!    more than one request can have is several.
//! 3. The connection's task writes what has gathered, of all callers, in one go; and when answers come, gives each to the
//!    oldest place in line, which it must fit.
//! 4. The caller is woken when all of its rows are scored, when one request of it has failed, or when its time is over.
//!
//! # Which file knows which
//!
//! `line` does no I/O and reads no clock: the whole order of requests (`asked`) and answers is in it, and is tested without a
//! socket.
//! `connection` drives a line with a socket (`stream`), `servers` keeps connections and chooses among them, `client` makes
//! attempts of calls. `limits` has every bound.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod address;
mod asked;
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

/// The examples of the crate's README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
