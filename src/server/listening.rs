//! Where a server listens: on a TCP port, at a Unix socket's path, or both.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::StartError;
use super::shutdown::Port;
use crate::config::Config;
use crate::kernel::{BoundPath, BoundPort, Listeners, ServedPath, ServedPort, bind_path, bind_port, resolve};

/// Everything that is bound and does not listen yet.
pub(super) struct Bound {
    port: Option<BoundPort>,
    path: Option<BoundPath>,
}

/// Everything that is served.
pub(super) struct Served {
    port: Option<ServedPort>,
    path: Option<ServedPath>,
}

impl Bound {
    /// As the configuration says, for so many I/O threads.
    pub fn new(config: &Config, io_threads: usize) -> Result<Bound, StartError> {
        let bind_port = |port| bind_port(resolve(&config.host, port)?, io_threads, config.reuse_port);
        let bind_path = |path: &PathBuf| bind_path(path, config.unix_mode, config.reuse_port);
        let port = config.port.map(bind_port).transpose()?;
        Ok(Bound { port, path: config.unix.as_ref().map(bind_path).transpose()? })
    }

    /// The port's address, if there is a port.
    pub fn address(&self) -> Option<SocketAddr> {
        self.port.as_ref().map(BoundPort::address)
    }

    /// The port's address and the path, as far as there are any, for people.
    pub fn addresses(&self) -> Vec<String> {
        let port = self.address().map(|address| address.to_string());
        let path = self.path.as_ref().map(|path| format!("unix:{}", path.path().display()));
        port.into_iter().chain(path).collect()
    }

    /// What each of so many I/O threads accepts from, once.
    pub fn take_listeners(&mut self, io_threads: usize) -> Vec<Listeners> {
        let tcp = self.port.as_mut().map(BoundPort::take_listeners).unwrap_or_default();
        let mut tcp = tcp.into_iter();
        let unix = || self.path.as_ref().map(BoundPath::listener);
        (0..io_threads).map(|_| Listeners { tcp: tcp.next(), unix: unix() }).collect()
    }

    /// Listens everywhere. The path comes last, as it may be taken over from a server that goes on if this one does not start.
    pub fn listen(self) -> Result<Served, StartError> {
        let port = self.port.map(BoundPort::listen).transpose()?;
        Ok(Served { port, path: self.path.map(BoundPath::listen).transpose()? })
    }
}

impl Port for Served {
    fn begin_handover(&mut self) -> Duration {
        self.path.iter_mut().for_each(ServedPath::begin_handover);
        self.port.as_mut().map_or(Duration::ZERO, ServedPort::begin_handover)
    }

    fn finish_handover(self) {
        self.port.into_iter().for_each(ServedPort::finish_handover);
    }
}
