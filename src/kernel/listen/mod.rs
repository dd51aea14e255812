//! The listeners: one a thread on one port, and one for all threads at a path; each is ours alone or shared on purpose, and is
//! handed over when the server stops.
//!
//! Not what happens to a connection once it is accepted: that is [`super::uring`]'s.

use std::os::fd::{AsRawFd, RawFd};

use super::Entrance;

mod admin;
mod claim;
mod handover;
mod port_owner;
mod socket_table;
mod steering;
mod tcp;
mod unix;

pub use admin::{AdminBindError, bind_admin};
pub use port_owner::Owner;
pub use tcp::{BindError, BoundPort, Listener, ServedPort, bind_port, resolve};
pub use unix::{BindPathError, BoundPath, PathListener, ServedPath, bind_path};

/// What one I/O thread accepts from.
#[derive(Debug, Default)]
pub struct Listeners {
    /// On the TCP port, if there is one.
    pub tcp: Option<Listener>,
    /// At the path, if there is one.
    pub unix: Option<PathListener>,
}

impl Listeners {
    /// The descriptor of one of them, while it is open.
    pub(super) fn descriptor(&self, from: Entrance) -> Option<RawFd> {
        match from {
            Entrance::Tcp => self.tcp.as_ref().map(|listener| listener.0.as_raw_fd()),
            Entrance::Unix => self.unix.as_ref().map(|listener| listener.0.as_raw_fd()),
        }
    }

    pub(super) fn close(&mut self, from: Entrance) {
        match from {
            Entrance::Tcp => self.tcp = None,
            Entrance::Unix => self.unix = None,
        }
    }
}
