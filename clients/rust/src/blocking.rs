//! The same client for threads that wait.
//!
//! A [`Client`] has a runtime of its own and no thread: whoever waits for an answer drives the connections meanwhile, so a call
//! costs no switch between threads. Several threads may call at once by clones; their calls share the connections. Between
//! calls nothing happens: that a server has gone is found by the next call, which tries again as any other.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::client::{Scores, ServerCheck};
use crate::error::Error;
use crate::model::ModelInfo;
use crate::options::Builder;

/// As [`crate::Client`], for threads that wait. Not for use inside an asynchronous task: every call there panics.
///
/// ```no_run
/// let client = disrust_client::blocking::Client::connect(["127.0.0.1:9900"])?;
/// let scores = client.predict(&[0.5; 2 * 16], 16)?; // two rows of 16 features
/// assert_eq!(scores.values.len(), 2 * scores.outputs);
/// # Ok::<(), disrust_client::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    // Before the runtime, so that it goes first.
    client: crate::Client,
    runtime: Arc<OwnRuntime>,
}

#[derive(Debug)]
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn new() -> Result<OwnRuntime, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        runtime.map(|runtime| OwnRuntime(Some(runtime))).map_err(|_| Error::NoRuntime)
    }

    fn get(&self) -> &Runtime {
        self.0.as_ref().expect("it is taken when it is dropped, and not before")
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        // Dropped as it is, it would panic where a client is dropped inside a task.
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Client {
    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    /// As there; [`Error::NoRuntime`] if the system has no more descriptors.
    ///
    /// # Panics
    /// Inside an asynchronous task, as all calls.
    pub fn connect(addresses: impl IntoIterator<Item = impl Into<String>>) -> Result<Client, Error> {
        Client::connect_with(crate::Client::builder(addresses))
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_with(builder: Builder) -> Result<Client, Error> {
        let runtime = OwnRuntime::new()?;
        let client = runtime.get().block_on(builder.connect())?;
        Ok(Client { client, runtime: Arc::new(runtime) })
    }

    /// As [`crate::Client::predict`].
    ///
    /// # Errors
    /// As there.
    pub fn predict(&self, rows: &[f32], features: usize) -> Result<Scores, Error> {
        self.runtime.get().block_on(self.client.predict(rows, features))
    }

    /// As [`crate::Client::predict_within`].
    ///
    /// # Errors
    /// As there.
    pub fn predict_within(&self, rows: &[f32], features: usize, timeout: Duration) -> Result<Scores, Error> {
        self.runtime.get().block_on(self.client.predict_within(rows, features, timeout))
    }

    /// As [`crate::Client::check`].
    pub fn check(&self, timeout: Duration) -> Vec<ServerCheck> {
        self.runtime.get().block_on(self.client.check(timeout))
    }

    /// As [`crate::Client::model`].
    pub fn model(&self) -> Option<ModelInfo> {
        self.client.model()
    }
}
