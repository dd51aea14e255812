//! The gateway as a whole: it listens, gives connections to the threads that serve, and stops.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use disrust_client::Client;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::limits::{ACCEPT_RETRY, BACKLOG, CUT_TIME_MAX, DRAIN_LAST_CALL, DRAIN_QUIET, DRAIN_TICK};
use crate::metrics::Ended;
use crate::settings::Settings;
use crate::shared::{Phase, Shared};
use crate::worker::{Order, Worker};

/// Why a gateway does not serve. Each message says what, the likely cause, and what to try.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address of a server is none.
    #[error("cannot use --server: {0}")]
    Server(disrust_client::Error),
    /// The address can't be listened on.
    #[error("cannot listen on {address}: {source}. {}", advice(.source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else.
    #[error(
        "cannot {what}: {source}. The likely cause is a limit on threads or descriptors. Try: a higher ulimit -u or ulimit -n"
    )]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "The likely cause is another process that listens there, perhaps another gateway. Try: another --listen, or ss -ltnp to see \
             which process it is"
        }
        io::ErrorKind::PermissionDenied => {
            "The likely cause is a port below 1024, which takes a privilege. Try: a --listen with a higher port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "The likely cause is an address that no interface of this machine has. Try: 0.0.0.0 or [::] for all of them"
        }
        _ => "Try: another --listen",
    }
}

/// A gateway that listens and does not serve yet.
pub struct Gateway {
    shared: Arc<Shared>,
    runtime: Runtime,
    listener: TcpListener,
    signals: [Signal; 2],
    workers: Vec<Worker>,
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open and were cut.
    pub cut: usize,
}

/// What has happened while waiting.
enum Event {
    Accepted(io::Result<tokio::net::TcpStream>),
    Signal(&'static str),
    TimeOver,
}

impl Gateway {
    /// Listens and starts the threads; connections wait until it runs.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: Settings) -> Result<Gateway, StartError> {
        let system = |what| move |source| StartError::System { what, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(system("wait for connections"))?;
        let _registers_here = runtime.enter();
        // The threads make clients of their own, which cannot fail then.
        let looked_at = Client::builder(settings.server.0.iter().cloned()).build();
        drop(looked_at.map_err(StartError::Server)?);
        let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        let [terminate, interrupt] = signals.map(|signal| signal.map_err(system("handle signals")));
        let signals = [terminate?, interrupt?];
        let address = settings.listen;
        let listener = listen(address).map_err(|source| StartError::Bind { address, source })?;
        let shared = Shared::new(settings);
        let workers: io::Result<Vec<Worker>> =
            (0..shared.settings.threads).map(|index| Worker::start(&shared, index)).collect();
        let workers = workers.map_err(system("start a thread"))?;
        drop(_registers_here);
        Ok(Gateway { shared, runtime, listener, signals, workers })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is told to stop.
    pub fn run(self) -> Drained {
        let Gateway { shared, runtime, listener, signals, workers } = self;
        let open = runtime.block_on(Serving { shared, listener, signals, workers: &workers }.serve());
        for worker in workers {
            drop(worker.orders);
            // With nothing open there is nothing to wait for; what did not end when it was cut ends with the process.
            if open.is_ok() {
                let _failed = worker.thread.join();
            }
        }
        Drained { cut: open.unwrap_or_else(|cut| cut) }
    }
}

struct Serving<'a> {
    shared: Arc<Shared>,
    listener: TcpListener,
    signals: [Signal; 2],
    workers: &'a [Worker],
}

impl Serving<'_> {
    /// Serves, leaves, drains. Gives how many connections were cut; as an error, if they did not even end by that.
    async fn serve(mut self) -> Result<usize, usize> {
        let (shared, mut name) = (Arc::clone(&self.shared), "");
        while name.is_empty() {
            name = self.accept_until(None).await;
        }
        let (delay, drain) = (shared.settings.shutdown_delay.0, shared.settings.drain_timeout.0);
        if !delay.is_zero() {
            tracing::info!("{name}: serving on for {delay:?}, then draining; a second signal drains at once");
            shared.enter(Phase::Leaving);
            name = self.accept_until(Some(Instant::now() + delay)).await;
        }
        let why = if name.is_empty() { "the delay is over" } else { name };
        tracing::info!("{why}: draining {} connections; a second signal cuts them", shared.connections());
        shared.enter(Phase::Draining);
        let deadline = Instant::now() + drain;
        let last_call = deadline.min(Instant::now() + DRAIN_LAST_CALL);
        let mut is_hurried = !self.accept_until(Some(last_call)).await.is_empty();
        let Serving { listener, mut signals, workers, .. } = self;
        // From then on, who connects is refused, and goes elsewhere.
        close(listener, |socket| give(&shared, workers, socket));
        while !is_hurried && shared.connections() > 0 && Instant::now() < deadline {
            tell_all(workers, || Order::EndIdle(DRAIN_QUIET));
            is_hurried = timeout(DRAIN_TICK, next_signal(&mut signals)).await.is_ok();
        }
        let open = shared.connections();
        if open == 0 {
            return Ok(0);
        }
        tracing::warn!("cutting {open} connections that are still open");
        tell_all(workers, || Order::Cut);
        let until = Instant::now() + CUT_TIME_MAX;
        while shared.connections() > 0 && Instant::now() < until {
            sleep(DRAIN_TICK).await;
        }
        if shared.connections() == 0 { Ok(open) } else { Err(open) }
    }

    /// Accepts until a signal comes, which it gives the name of, or until then.
    async fn accept_until(&mut self, until: Option<Instant>) -> &'static str {
        loop {
            let time_over = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                biased;
                signal = next_signal(&mut self.signals) => Event::Signal(signal),
                () = time_over => Event::TimeOver,
                accepted = self.listener.accept() => Event::Accepted(accepted.map(|(socket, _)| socket)),
            };
            match event {
                Event::Signal(name) => return name,
                Event::TimeOver => return "",
                Event::Accepted(Ok(socket)) => {
                    if let Ok(socket) = socket.into_std() {
                        give(&self.shared, self.workers, socket);
                    }
                }
                // Descriptors have run out, or the peer has gone.
                Event::Accepted(Err(_)) => sleep(ACCEPT_RETRY).await,
            }
        }
    }
}

/// Gives a connection to the thread that has the fewest.
fn give(shared: &Shared, workers: &[Worker], socket: std::net::TcpStream) {
    shared.metrics.accepted.fetch_add(1, Relaxed);
    let count = |index: usize| shared.threads[index].connections.load(Relaxed);
    let is_full = shared.connections() >= shared.settings.max_connections;
    let all = 0..workers.len();
    // Of a full house, the thread that has most is the likeliest to have one that does nothing.
    let index = if is_full { all.max_by_key(|index| count(*index)) } else { all.min_by_key(|index| count(*index)) };
    let index = index.expect("there is a thread");
    shared.threads[index].connections.fetch_add(1, Relaxed);
    let order = if is_full { Order::Squeeze(socket) } else { Order::Serve(socket) };
    if workers[index].orders.send(order).is_err() {
        // The thread has panicked, which its log tells.
        shared.threads[index].connections.fetch_sub(1, Relaxed);
        shared.metrics.ended(Ended::Refused);
    }
}

/// Closes the listener once those are accepted whose connections are made, as closing it would reset them; as many as can have
/// waited for it.
fn close(listener: TcpListener, mut give: impl FnMut(std::net::TcpStream)) {
    let Ok(listener) = listener.into_std() else { return };
    let waiting = (0..=BACKLOG).map_while(|_| listener.accept().ok());
    waiting.for_each(|(socket, _)| give(socket));
}

fn tell_all(workers: &[Worker], order: impl Fn() -> Order) {
    for worker in workers {
        let _panicked = worker.orders.send(order());
    }
}

/// The name of the next signal to stop.
async fn next_signal([terminate, interrupt]: &mut [Signal; 2]) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // A gateway that has just ended leaves connections behind that the port would wait for.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
