//! The handle, and the journey of a call: checked, sent by the better connection, retried where that is of use.
#![forbid(unsafe_code)]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep_until, timeout_at};

use crate::address::Address;
use crate::asked::Asked;
use crate::connection::Connection;
use crate::error::Error;
use crate::limits::RETRY_PAUSE;
use crate::line::Failed;
use crate::model::ModelInfo;
use crate::options::{Builder, Options};
use crate::servers::{Choice, ServerState, Servers, pause};

/// A handle to one server or several, to be cloned freely: all clones share its connections, and all their calls go over them
/// together. The connections end with the last clone.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), disrust_client::Error> {
/// let client = disrust_client::Client::connect(["127.0.0.1:9900"]).await?;
/// let rows = [0.5_f32; 2 * 16]; // two rows of 16 features, one after the other
/// let scores = client.predict(&rows, 16).await?;
/// assert_eq!(scores.values.len(), 2 * scores.outputs);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    servers: Arc<Servers>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// The scores of a call's rows.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Scores {
    /// `outputs` scores for each row, row by row, in the order of the rows.
    pub values: Vec<f32>,
    /// Scores for each row: 1, unless the server was told to serve several outputs.
    pub outputs: usize,
}

/// What a server said when it was asked whether it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerCheck {
    /// The address that the client was given.
    pub address: String,
    /// What it resolved to; none if it has not.
    pub endpoint: Option<String>,
    /// Its model, or none if it is connected and knows no hello; or why it does not serve.
    pub model: Result<Option<ModelInfo>, Error>,
}

impl ServerCheck {
    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        self.model.is_ok()
    }
}

impl Client {
    /// Connects to all of these addresses and waits until one is there: `host:port`, `[IPv6]:port` or `unix:/path`. A name
    /// stands for all of its addresses.
    ///
    /// # Errors
    /// As [`Builder::connect`].
    pub async fn connect(addresses: impl IntoIterator<Item = impl Into<String>>) -> Result<Client, Error> {
        Client::builder(addresses).connect().await
    }

    /// The same with options.
    pub fn builder(addresses: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        Builder::new(addresses)
    }

    pub(crate) fn start(options: Options, addresses: Vec<Address>) -> Result<Client, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let servers = Arc::new(Servers::new(options, &addresses));
        let keep = |address| runtime.spawn(Arc::clone(&servers).keep(address)).abort_handle();
        let tasks = addresses.into_iter().map(keep).collect();
        Ok(Client(Arc::new(Shared { servers, tasks })))
    }

    /// Scores rows of `features` features that lie one after the other in `rows`, any number of them, also none. What is
    /// more than a request can have goes as several, which are under way together.
    ///
    /// A call can be dropped at any time; others are not concerned.
    ///
    /// # Errors
    /// Before anything is sent: [`Error::Shape`], [`Error::WrongFeatures`]. Of the server: [`Error::Overloaded`],
    /// [`Error::ModelFailed`], [`Error::Unreadable`], [`Error::Protocol`]. When retries were of no use: [`Error::Closing`],
    /// [`Error::Lost`], [`Error::NoServer`], [`Error::Deadline`]. A call that fails has no scores at all.
    pub async fn predict(&self, rows: &[f32], features: usize) -> Result<Scores, Error> {
        self.predict_within(rows, features, self.0.servers.options.timeout).await
    }

    /// The same, with a time of its own.
    ///
    /// # Errors
    /// As [`Client::predict`].
    pub async fn predict_within(&self, rows: &[f32], features: usize, timeout: Duration) -> Result<Scores, Error> {
        if features == 0 || !rows.len().is_multiple_of(features) {
            return Err(Error::Shape { values: rows.len(), features });
        }
        let mut call = Attempts { servers: &self.0.servers, timeout, deadline: None, failures: 0 };
        loop {
            let connection = match call.servers.choose(features) {
                Choice::Connection(connection) => connection,
                Choice::None => call.wait_for_server(features).await?,
                Choice::WrongFeatures(expected) => return Err(Error::WrongFeatures { given: features, expected }),
            };
            match connection.call(Asked::Scores { rows, features }, timeout, call.deadline).await {
                Ok(answered) => return Ok(Scores { values: answered.scores, outputs: answered.outputs }),
                Err(failed) => call.failed(failed).await?,
            }
        }
    }

    /// What the servers' model is, by the last hello of any of them; none if none has said so.
    pub fn model(&self) -> Option<ModelInfo> {
        let states = self.0.servers.states();
        let connected = states.iter().filter(|state| state.is_connected());
        connected.chain(&states).find_map(|state| state.model.clone())
    }

    /// What is known of each server now.
    pub fn servers(&self) -> Vec<ServerState> {
        self.0.servers.states()
    }

    /// The same, as it changes.
    pub fn watch(&self) -> watch::Receiver<Vec<ServerState>> {
        self.0.servers.watch()
    }

    /// Asks every server with a fresh hello whether it serves, all at once; each has answered, or failed, after `timeout` at
    /// the latest. For health checks.
    pub async fn check(&self, timeout: Duration) -> Vec<ServerCheck> {
        let ready = self.0.servers.ready();
        let (mut checks, mut asked) = (Vec::new(), Vec::new());
        for state in self.0.servers.states() {
            let is_its = |connection: &&Arc<Connection>| state.endpoint.as_deref() == Some(&connection.server);
            let model = match ready.iter().filter(is_its).min_by_key(|connection| connection.load()) {
                None => Err(state.last_error.unwrap_or_else(|| Error::Lost {
                    server: state.address.as_str().into(),
                    reason: "it has not answered yet".into(),
                })),
                Some(connection) => {
                    if connection.knows_hello {
                        asked.push((checks.len(), connection.call(Asked::Hello, timeout, None)));
                    }
                    Ok(None)
                }
            };
            checks.push(ServerCheck { address: state.address, endpoint: state.endpoint, model });
        }
        poll_fn(|context| {
            asked.retain_mut(|(index, hello)| match Pin::new(hello).poll(context) {
                Poll::Ready(outcome) => {
                    checks[*index].model =
                        outcome.map(|answered| answered.model.map(|model| *model)).map_err(|failed| failed.error);
                    false
                }
                Poll::Pending => true,
            });
            if asked.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        for check in &checks {
            if let (Ok(Some(model)), Some(endpoint)) = (&check.model, &check.endpoint) {
                self.0.servers.note(&check.address, Some(endpoint), |state| state.model = Some(model.clone()));
            }
        }
        checks
    }

    /// Waits until a server is connected.
    pub(crate) async fn wait_until_connected(&self) -> Result<(), Error> {
        let servers = &self.0.servers;
        let mut watch = servers.watch();
        let is_settled = |states: &Vec<ServerState>| {
            states.iter().any(ServerState::is_connected) || states.iter().all(|state| state.last_error.is_some())
        };
        let settled = tokio::time::timeout(servers.options.connect_timeout, watch.wait_for(is_settled)).await;
        let is_connected = matches!(settled, Ok(Ok(states)) if states.iter().any(ServerState::is_connected));
        if is_connected { Ok(()) } else { Err(servers.no_server()) }
    }
}

/// What the attempts of a call share.
struct Attempts<'a> {
    servers: &'a Servers,
    timeout: Duration,
    /// When its time is over; none as long as nobody has read the clock for it.
    deadline: Option<Instant>,
    failures: usize,
}

impl Attempts<'_> {
    fn deadline(&mut self, now: Instant) -> Instant {
        *self.deadline.get_or_insert(now + self.timeout)
    }

    /// The connection that comes first, if one comes in time.
    async fn wait_for_server(&mut self, features: usize) -> Result<Arc<Connection>, Error> {
        let mut watch = self.servers.watch();
        let now = Instant::now();
        let until = self.deadline(now).min(now + self.servers.options.connect_timeout);
        loop {
            match self.servers.choose(features) {
                Choice::Connection(connection) => return Ok(connection),
                Choice::WrongFeatures(expected) => return Err(Error::WrongFeatures { given: features, expected }),
                Choice::None => {}
            }
            if timeout_at(until.into(), watch.changed()).await.is_err() {
                return Err(self.servers.no_server());
            }
        }
    }

    /// Gives the servers a moment, after a lost connection, if the call may be tried again.
    async fn failed(&mut self, failed: Failed) -> Result<(), Error> {
        self.failures += 1;
        if !failed.error.is_retried() || self.failures > self.servers.retries() {
            return Err(failed.error);
        }
        self.deadline = self.deadline.or(failed.deadline);
        let now = Instant::now();
        let deadline = self.deadline(now);
        if matches!(failed.error, Error::Lost { .. }) {
            let until = now + pause(RETRY_PAUSE, self.failures);
            sleep_until(until.min(deadline).into()).await;
        }
        if Instant::now() < deadline { Ok(()) } else { Err(Error::Deadline { timeout: self.timeout }) }
    }
}
