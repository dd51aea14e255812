//! What the process does on a signal.
//!
//! | signal | before it serves | while it serves | in its `--shutdown-delay` | while it drains |
//! |---|---|---|---|---|
//! | SIGTERM, SIGINT | ends, with status 0 | drains, after the delay | drains at once | cuts what is open |
//! | SIGHUP, if a model file is served | reads the file again once it serves | reads the file again | the same | logged, and nothing |
//! | SIGHUP otherwise, SIGUSR1, SIGUSR2 | logged, and nothing | the same | the same | the same |
//!
//! A thread of its own waits for them, from before anything that may take long (a name server, a port that somebody is about
//! to leave). It only passes them on, and so hears the next one at once.
#![forbid(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator;
use signal_hook::low_level::signal_name;

use crate::kernel::outlive_file_size_limit;
use crate::server::ServerHandle;
use crate::server::crew::CrewError;
use crate::server::logging::Logging;
use crate::server::service_manager;

/// How long the words before an early end may take, if nobody reads them. Larger: whoever stops a server that starts waits.
/// Smaller: a slow terminal misses them.
const LAST_WORDS_MAX: Duration = Duration::from_millis(250);

/// Signals that are caught and not lost, but not yet heard.
pub struct CaughtSignals(iterator::Signals);

/// Where the signals go.
#[derive(Clone)]
pub struct Signals {
    /// Locked while a signal is decided on, so that no server begins to serve in a process that is about to end.
    addressee: Arc<Mutex<Addressee>>,
}

#[derive(Default)]
struct Addressee {
    server: Option<ServerHandle>,
    /// There was a SIGHUP before there was a server: what it has read may be older.
    reload_asked: bool,
}

impl CaughtSignals {
    /// From now on, no signal ends the process by itself.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn catch() -> io::Result<CaughtSignals> {
        outlive_file_size_limit();
        iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2]).map(CaughtSignals)
    }

    /// Starts the thread that hears them.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn hear(self, logging: &Logging) -> Result<Signals, CrewError> {
        const NAME: &str = "signals";
        let signals = Signals { addressee: Arc::default() };
        let (heard, logging) = (signals.clone(), logging.clone());
        // Detached: it waits for signals until the process ends.
        let spawned = Builder::new().name(NAME.to_owned()).spawn(move || heard.pass_on(self.0, &logging));
        spawned.map(|_| signals).map_err(|source| CrewError::Refused { name: NAME.to_owned(), source })
    }
}

impl Signals {
    /// From now on they are for this server, which does not serve yet.
    pub fn pass_to(&self, server: ServerHandle) {
        let mut addressee = self.addressee.lock().unwrap_or_else(PoisonError::into_inner);
        if addressee.reload_asked {
            server.reload();
        }
        addressee.server = Some(server);
    }

    fn pass_on(&self, mut signals: iterator::Signals, logging: &Logging) {
        let mut asked = false;
        for signal in signals.forever() {
            let name = signal_name(signal).unwrap_or("a signal");
            let mut addressee = self.addressee.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(signal, SIGTERM | SIGINT) {
                let becomes = addressee.hear_other(signal);
                tracing::info!("{name}: {becomes}");
                continue;
            }
            match &addressee.server {
                None => {
                    tracing::info!("{name}: the start is broken off, nothing was served");
                    logging.flush(LAST_WORDS_MAX);
                    std::process::exit(0);
                }
                Some(server) if asked => {
                    if server.is_draining() {
                        tracing::warn!("{name} again: cutting the connections that are still open");
                    } else {
                        tracing::info!("{name} again: draining at once");
                    }
                    server.hurry();
                }
                Some(server) => {
                    let connections = server.open_connections();
                    let delay = server.shutdown_delay();
                    if delay.is_zero() {
                        tracing::info!(connections, "{name}: draining; a second signal cuts it short");
                    } else {
                        tracing::info!(
                            connections,
                            ?delay,
                            "{name}: serving on, then draining; a second signal drains at once"
                        );
                    }
                    server.drain();
                    service_manager::stops();
                    asked = true;
                }
            }
        }
    }
}

impl Addressee {
    /// Does what a signal asks for that ends nothing. Returns what that is.
    fn hear_other(&mut self, signal: c_int) -> &'static str {
        match &self.server {
            _ if signal != SIGHUP => "nothing changes, this signal has no meaning here. SIGTERM stops the server",
            Some(server) if server.is_draining() => "nothing changes, the server drains",
            Some(server) if server.reload() => "the model file is read again",
            Some(_) => {
                // Whoever has asked for it by `systemctl reload` waits for an end.
                service_manager::reloads();
                service_manager::has_reloaded("serving; there is no model file to read again");
                "nothing changes, this server has nothing to read again. SIGTERM stops it"
            }
            None => {
                self.reload_asked = true;
                "the server starts; a model file is read again then"
            }
        }
    }
}
