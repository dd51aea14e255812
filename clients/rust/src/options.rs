//! How a client is made.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::Client;
use crate::address::Address;
use crate::error::Error;
use crate::model::ModelInfo;

/// What a caller sets, with its defaults.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub connections: usize,
    pub connect_timeout: Duration,
    pub timeout: Duration,
    pub retries: usize,
    pub features: Option<usize>,
    pub outputs: Option<usize>,
    pub silence_max: Duration,
}

impl Options {
    /// Whether a server is what the caller expects.
    pub fn check(&self, model: Option<&ModelInfo>) -> Result<(), Error> {
        let Some(model) = model else { return Ok(()) };
        if let Some(given) = self.features.filter(|given| *given != model.feature_dim) {
            return Err(Error::WrongFeatures { given, expected: model.feature_dim });
        }
        if let Some(given) = self.outputs.filter(|given| *given != model.outputs) {
            return Err(Error::WrongOutputs { given, actual: model.outputs });
        }
        Ok(())
    }
}

/// Makes a [`Client`] or a [`blocking::Client`](crate::blocking::Client).
///
/// ```no_run
/// # async fn example() -> Result<(), disrust_client::Error> {
/// use std::time::Duration;
///
/// let client = disrust_client::Client::builder(["10.0.0.1:9900", "10.0.0.2:9900"])
///     .timeout(Duration::from_millis(50))
///     .features(16)
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    addresses: Vec<String>,
    options: Options,
}

impl Builder {
    pub(crate) fn new(addresses: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        Builder {
            addresses: addresses.into_iter().map(Into::into).collect(),
            options: Options {
                connections: 1,
                connect_timeout: Duration::from_secs(2),
                timeout: Duration::from_secs(5),
                retries: 3,
                features: None,
                outputs: None,
                silence_max: Duration::from_secs(30),
            },
        }
    }

    /// Connections to each server, 1 unless it is said otherwise, at least 1. All calls share them; more help only where the
    /// server has several I/O threads.
    pub fn connections(mut self, connections: usize) -> Builder {
        self.options.connections = connections.max(1);
        self
    }

    /// How long connecting, hello included, may take, and how long a call waits for a server when none is connected: two
    /// seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Builder {
        self.options.connect_timeout = timeout;
        self
    }

    /// How long a call may take, retries included: five seconds. [`Client::predict_within`] is for one call.
    pub fn timeout(mut self, timeout: Duration) -> Builder {
        self.options.timeout = timeout;
        self
    }

    /// How often a call is tried again whose connection was lost or whose server is closing: three times, and once more for each
    /// server but one. 0 leaves those.
    pub fn retries(mut self, retries: usize) -> Builder {
        self.options.retries = retries;
        self
    }

    /// Features in a row that a server's model must have. A server of another model counts as not there, with
    /// [`Error::WrongFeatures`]. A server that knows no hello is believed to have so many.
    pub fn features(mut self, features: usize) -> Builder {
        self.options.features = Some(features);
        self
    }

    /// Scores for each row that a server's model must give, likewise. A server that knows no hello is believed to give so many,
    /// or 1.
    pub fn outputs(mut self, outputs: usize) -> Builder {
        self.options.outputs = Some(outputs);
        self
    }

    /// How long a server may owe answers and send nothing until its connection is given up and made again: half a minute.
    pub fn silence(mut self, silence: Duration) -> Builder {
        self.options.silence_max = silence;
        self
    }

    /// Begins to connect, in the background, and waits for nobody.
    ///
    /// # Errors
    /// [`Error::Address`], and [`Error::NoRuntime`] outside a tokio runtime.
    pub fn build(self) -> Result<Client, Error> {
        let addresses =
            self.addresses.iter().map(|address| address.parse()).collect::<Result<Vec<Address>, Error>>()?;
        if addresses.is_empty() {
            return Err(Error::Address { address: "".into(), reason: "there is none".into() });
        }
        Client::start(self.options, addresses)
    }

    /// Begins to connect, and waits until one server is.
    ///
    /// # Errors
    /// As [`Builder::build`]; [`Error::NoServer`] if none can be reached in the connect timeout, or at once if each has
    /// failed; [`Error::WrongFeatures`] and [`Error::WrongOutputs`] if the only one has another model than expected.
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.build()?;
        client.wait_until_connected().await?;
        Ok(client)
    }
}
