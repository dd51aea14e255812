//! disrust-gateway: KServe v2 (Open Inference Protocol) over HTTP/1.1 in front of disrust servers.
//!
//! This page is the map. It is a program of its own, which knows the servers only through the crate `disrust-client`; for whom it is, and
//! how it is run, is in `docs/GATEWAY.md`.
//!
//! # Threads
//!
//! ```text
//!   main ── accepts, hears signals, drains ──► serve-0 … serve-(N-1)  (one, unless --threads says more)
//!                                               │ HTTP (hyper), JSON, and a client of the servers: each its own
//!                                               └─► beside, where a body is large: reads and writes JSON
//! ```
//!
//! A connection stays with the thread that it was given to, and its requests cross no other: the client's connections to the servers
//! are that thread's, too. Threads share only what [`shared`] lists.
//!
//! # The journey of a request
//!
//! 1. The main thread accepts a connection and gives it to the thread with the fewest ([`gateway`]).
//! 2. hyper reads the head; [`connection`] says that the connection is busy ([`life`]), and hands it to [`service`].
//! 3. The path is what is asked for ([`route`]). Health and metadata are answered at once, from what the client's hellos have told
//!    ([`upstream`]).
//! 4. The body comes, bounded in size, time and memory ([`body`], [`memory`]), and is read ([`codec`]): JSON, or JSON with bytes behind it.
//! 5. The rows go to a server; the client splits, balances and retries them.
//! 6. The scores are written as the request asked, and the answer ([`answers`]) goes to hyper, with the memory that it holds.
//!
//! # What holds everywhere
//!
//! - A number is never another one: what cannot be read as FP32 exactly as it was meant is refused, and scores are written so that they
//!   are read back as they are.
//! - What peers can make it hold is bounded: connections, heads, bodies together, and the time of each of them.
//! - A request is answered once, or its connection ends.
//! - There is no TLS and no authentication.
#![forbid(unsafe_code)]

pub mod answers;
pub mod body;
pub mod codec;
pub mod connection;
pub mod gateway;
pub mod life;
pub mod limits;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod probe;
pub mod route;
pub mod service;
pub mod settings;
pub mod shared;
mod stream;
pub mod upstream;
mod worker;
