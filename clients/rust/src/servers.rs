//! All servers of a client: resolved, connected, and connected again, in the background; and which connection a call goes by.
//!
//! An address has a task that resolves it, and each connection that there is to be has one ([`Servers::keep_connected`]) that
//! makes it, drives it, and makes it again. They end with the client.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::address::{Address, Endpoint};
use crate::connection::{Connection, LATE, REFUSES, drive, establish};
use crate::error::Error;
use crate::limits::{RECONNECT_PAUSE, RECONNECT_PAUSE_MAX, RESOLVE_PAUSE, WORKED_AFTER};
use crate::line::{Line, Shape};
use crate::model::ModelInfo;
use crate::options::Options;

/// What is known of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerState {
    /// The address that the client was given.
    pub address: String,
    /// What it resolved to; none if it has not.
    pub endpoint: Option<String>,
    /// Connections that are open and take calls.
    pub connections: usize,
    /// What it last said of its model, if it says that.
    pub model: Option<ModelInfo>,
    /// What last went wrong with it; it may be past.
    pub last_error: Option<Error>,
}

impl ServerState {
    /// Whether calls can go to it.
    pub fn is_connected(&self) -> bool {
        self.connections > 0
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Servers {
    pub options: Options,
    /// The connections that take calls.
    ready: RwLock<Vec<Arc<Connection>>>,
    states: watch::Sender<Vec<ServerState>>,
}

/// A server that an address resolved to.
#[derive(Debug)]
struct Server {
    address: Arc<str>,
    endpoint: Endpoint,
    name: Arc<str>,
    /// Tells that its address is to be resolved again.
    resolve: Arc<Notify>,
    tasks: Mutex<Tasks>,
}

/// The tasks of a server.
#[derive(Debug)]
struct Tasks {
    /// How many there are.
    alive: usize,
    /// Its address no longer resolves to it: each ends when its connection does.
    retired: bool,
}

/// What a choice came to.
pub(crate) enum Choice {
    Connection(Arc<Connection>),
    /// No connection takes calls.
    None,
    /// All that take calls want so many features.
    WrongFeatures(usize),
}

impl Servers {
    pub fn new(options: Options, addresses: &[Address]) -> Servers {
        let state = |address: &Address| ServerState {
            address: address.to_string(),
            endpoint: None,
            connections: 0,
            model: None,
            last_error: None,
        };
        let states = watch::Sender::new(addresses.iter().map(state).collect());
        Servers { options, ready: RwLock::default(), states }
    }

    pub fn watch(&self) -> watch::Receiver<Vec<ServerState>> {
        self.states.subscribe()
    }

    pub fn states(&self) -> Vec<ServerState> {
        self.states.borrow().clone()
    }

    /// How often a call is tried again: each server may be the wrong one once.
    pub fn retries(&self) -> usize {
        self.options.retries + self.states.borrow().len().saturating_sub(1)
    }

    /// The connections that take calls.
    pub fn ready(&self) -> Vec<Arc<Connection>> {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The better of two random connections, by what is in line; of all, if the better one is none to wish for.
    pub fn choose(&self, features: usize) -> Choice {
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        let takes = |connection: &Connection| connection.feature_dim.is_none_or(|expected| expected == features);
        let random = match ready.len() {
            0 => return Choice::None,
            1 => &ready[0],
            count => {
                let first = fastrand::usize(..count);
                let second = (first + fastrand::usize(1..count)) % count;
                if ready[first].load() <= ready[second].load() { &ready[first] } else { &ready[second] }
            }
        };
        if random.load() < LATE && takes(random) {
            return Choice::Connection(Arc::clone(random));
        }
        let all = ready.iter().filter(|connection| connection.load() < REFUSES);
        match all.clone().filter(|connection| takes(connection)).min_by_key(|connection| connection.load()) {
            Some(best) => Choice::Connection(Arc::clone(best)),
            None => {
                all.filter_map(|connection| connection.feature_dim).next().map_or(Choice::None, Choice::WrongFeatures)
            }
        }
    }

    /// Why no connection takes calls, for people.
    pub fn no_server(&self) -> Error {
        let states = self.states.borrow();
        // A server that was never reached because its model is another one is worth its own error.
        let mismatch = states.iter().filter_map(|state| state.last_error.clone());
        let mut mismatch =
            mismatch.filter(|error| matches!(error, Error::WrongFeatures { .. } | Error::WrongOutputs { .. }));
        if let Some(mismatch) = mismatch.next_back()
            && states.len() == 1
        {
            return mismatch;
        }
        let reasons: Vec<String> = states
            .iter()
            .map(|state| match &state.last_error {
                Some(error) => error.to_string(),
                None => format!("{} has not answered yet", state.address),
            })
            .collect();
        Error::NoServer { reasons: reasons.join("; ").into() }
    }

    /// Keeps the servers of an address connected, for ever.
    pub async fn keep(self: Arc<Self>, address: Address) {
        let given: Arc<str> = address.to_string().into();
        let resolve = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        let mut known: HashMap<Endpoint, Arc<Server>> = HashMap::new();
        let mut failures = 0;
        loop {
            match timeout(self.options.connect_timeout, address.resolve()).await {
                Ok(Ok(endpoints)) => {
                    failures = 0;
                    self.resolved(&given, &endpoints, &resolve, &mut known, &mut tasks);
                }
                outcome => {
                    failures += 1;
                    let reason = match outcome {
                        Ok(Err(error)) => error.to_string(),
                        _ => format!("no answer within {:?}", self.options.connect_timeout),
                    };
                    let reason = format!("its name does not resolve: {reason}").into();
                    self.note(&given, None, |state| {
                        state.last_error = Some(Error::Lost { server: Arc::clone(&given), reason: Arc::clone(&reason) })
                    });
                }
            }
            if address.fixed().is_some() {
                return pending().await;
            }
            while tasks.try_join_next().is_some() {}
            if failures == 0 {
                resolve.notified().await;
            }
            sleep(pause(RESOLVE_PAUSE, failures)).await;
        }
    }

    /// Begins to connect to servers that are new, and lets go of those that are gone.
    fn resolved(
        self: &Arc<Self>,
        address: &Arc<str>,
        endpoints: &[Endpoint],
        resolve: &Arc<Notify>,
        known: &mut HashMap<Endpoint, Arc<Server>>,
        tasks: &mut JoinSet<()>,
    ) {
        for endpoint in endpoints {
            let server = match known.entry(endpoint.clone()) {
                Entry::Occupied(known) => Arc::clone(known.get()),
                Entry::Vacant(place) => Arc::clone(place.insert(Arc::new(Server {
                    address: Arc::clone(address),
                    endpoint: endpoint.clone(),
                    name: endpoint.to_string().into(),
                    resolve: Arc::clone(resolve),
                    tasks: Mutex::new(Tasks { alive: 0, retired: false }),
                }))),
            };
            let mut alive = server.tasks();
            alive.retired = false;
            for _ in alive.alive..self.options.connections {
                alive.alive += 1;
                tasks.spawn(Arc::clone(self).keep_connected(Arc::clone(&server)));
            }
            drop(alive);
            self.note_server(&server, |_| {});
        }
        known.retain(|endpoint, server| {
            let is_there = endpoints.contains(endpoint);
            server.tasks().retired = !is_there;
            is_there
        });
    }

    /// Makes a connection, drives it, and makes it again, until its server is retired.
    async fn keep_connected(self: Arc<Self>, server: Arc<Server>) {
        let mut failures = 0;
        loop {
            let began_at = Instant::now();
            let reason = self.connect_and_drive(&server).await;
            failures = if began_at.elapsed() > WORKED_AFTER + self.options.connect_timeout { 0 } else { failures + 1 };
            self.note_server(&server, |state| state.last_error = Some(reason));
            server.resolve.notify_one();
            {
                let mut tasks = server.tasks();
                if tasks.retired {
                    tasks.alive -= 1;
                    if tasks.alive == 0 {
                        self.forget(&server);
                    }
                    return;
                }
            }
            sleep(pause(RECONNECT_PAUSE, failures)).await;
        }
    }

    /// One connection, from its beginning to its end; why it ended.
    async fn connect_and_drive(&self, server: &Server) -> Error {
        let options = &self.options;
        let (mut stream, model) = match establish(&server.endpoint, &server.name, options.connect_timeout).await {
            Ok(established) => established,
            Err(error) => return error,
        };
        if let Err(mismatch) = options.check(model.as_ref()) {
            self.note_server(server, |state| state.model = model);
            return mismatch;
        }
        let assumed = Shape::assumed(options.features, options.outputs.unwrap_or(1));
        let shape = model.as_ref().map_or(assumed, Shape::of);
        let line = Line::new(Arc::clone(&server.name), shape, options.silence_max);
        let connection = Arc::new(Connection::new(Arc::clone(&server.name), shape.features, model.is_some(), line));
        let guard = Published { servers: self, server, connection: &connection };
        self.ready_mut().push(Arc::clone(&connection));
        self.note_server(server, |state| {
            state.connections += 1;
            state.model = model;
        });
        let mut guard = Some(guard);
        drive(&connection, &mut stream, || guard = None).await
    }

    fn ready_mut(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Arc<Connection>>> {
        self.ready.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something of a server; its place in the list is that of its address until it has its own.
    fn note_server(&self, server: &Server, change: impl FnOnce(&mut ServerState)) {
        self.note(&server.address, Some(&server.name), change);
    }

    /// Notes something of what an address resolved to, or of the address.
    pub fn note(&self, address: &str, endpoint: Option<&str>, change: impl FnOnce(&mut ServerState)) {
        self.states.send_modify(|states| {
            let is_same = |state: &ServerState| state.address == address && state.endpoint.as_deref() == endpoint;
            let is_free = |state: &ServerState| state.address == address && state.endpoint.is_none();
            let of_address = |state: &ServerState| state.address == address;
            let at = states.iter().position(is_same).or_else(|| states.iter().position(is_free));
            let at = at.unwrap_or_else(|| match endpoint {
                Some(_) => {
                    let state = ServerState {
                        address: address.to_owned(),
                        endpoint: None,
                        connections: 0,
                        model: None,
                        last_error: None,
                    };
                    let behind = states.iter().rposition(of_address).map_or(states.len(), |last| last + 1);
                    states.insert(behind, state);
                    behind
                }
                // That its name does not resolve is told by all that it resolved to before.
                None => states.iter().position(of_address).unwrap_or(0),
            });
            states[at].endpoint = states[at].endpoint.take().or(endpoint.map(str::to_owned));
            change(&mut states[at]);
        });
    }

    /// Takes a retired server off the list.
    fn forget(&self, server: &Server) {
        let is_it =
            |state: &ServerState| *state.address == *server.address && state.endpoint.as_deref() == Some(&server.name);
        self.states.send_modify(|states| {
            let others = states.iter().filter(|state| *state.address == *server.address && !is_it(state)).count();
            if others > 0 {
                states.retain(|state| !is_it(state));
            } else {
                states.iter_mut().filter(|state| is_it(state)).for_each(|state| state.endpoint = None);
            }
        });
    }
}

impl Server {
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, calls may choose the connection.
struct Published<'a> {
    servers: &'a Servers,
    server: &'a Server,
    connection: &'a Arc<Connection>,
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        self.servers.ready_mut().retain(|connection| !Arc::ptr_eq(connection, self.connection));
        self.servers.note_server(self.server, |state| state.connections -= 1);
    }
}

/// A pause that doubles with each failure in a row, and is never the same for all.
pub(crate) fn pause(first: Duration, failures: usize) -> Duration {
    let whole = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RECONNECT_PAUSE_MAX.max(first));
    whole.mul_f64(0.5 + 0.5 * fastrand::f64())
}
