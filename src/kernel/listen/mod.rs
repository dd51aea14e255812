//! The listeners: one a thread on one port, which is ours alone or shared on purpose, and is handed over when the server stops.
//!
//! Not what happens to a connection once it is accepted: that is [`super::uring`]'s.

mod admin;
mod claim;
mod handover;
mod port_owner;
mod socket_table;
mod steering;
mod tcp;

pub use admin::{AdminBindError, bind_admin};
pub use port_owner::Owner;
pub use tcp::{BindError, BoundPort, Listener, ServedPort, bind_port, resolve};
