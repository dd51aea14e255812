//! disrust: a TCP inference server for small feature vectors, in tens of microseconds.
//!
//! This page is the map: which threads there are, the journey of one request through them, and which module may know
//! which. What the bytes on the wire mean is [`disrust_protocol`]'s page, the bounds are in [`limits`], what an operator can
//! set is in [`config`].
//!
//! # Threads
//!
//! ```text
//!             kernel: one SO_REUSEPORT listener a thread, one Unix socket for all
//!    accept, receive │ (multishot, buffers from the thread's BufferPool)
//!         ┌──────────▼──────────┐ claim/publish   ┌───────────────┐  poll   ┌──────────────────┐
//!         │ io-0 … io-(N-1)     ├────────────────►│ MPSC disruptor├────────►│ batch-processor  │
//!         │ IoThread<K: Kernel> │                 └───────────────┘         │ Model::predict   │
//!         │ Slab<Connection>    │◄── per-thread response queue (SPSC) ──────┤                  │
//!         └──────────┬──────────┘◄── eventfd, only if it sleeps ────────────┴──────────────────┘
//!               send │ (one in flight a connection)
//! ```
//!
//! Each I/O thread owns its ring, listener, buffers and connections, and shares nothing with the other I/O threads but
//! the count of open connections ([`exchange::control`]) and the Unix socket's listener, if there is one; a connection that would be one too many for the thread that has accepted it goes to
//! the one with the fewest, for good and before anything is received ([`exchange::spread`]). The batch processor owns the model, and takes a new one
//! between two steps ([`exchange::swap_place`]). Where it has no CPU of its own, an I/O thread plays its role for a step
//! rather than wake its thread ([`batch::BatchRole`]). The main thread starts them
//! ([`server::crew`]: all are ready before one begins), watches over them ([`server::watchdog`]) and carries a stop out
//! ([`server::shutdown`]); all that is [`server::Server`]. Two threads of the process serve no request: one hears signals
//! ([`server::signals`]), one writes the log ([`server::logging`]); where a model file is served, a third one reads it again when
//! it is asked to ([`server::ServerHandle::reload`]); and with `--admin` one more tells over HTTP what all of them do ([`admin`]). A service
//! manager is told without a thread ([`server::service_manager`]).
//!
//! # The journey of a request
//!
//! 1. A connection is accepted ([`io_thread`]), by the thread that serves it or for another one, gets a slot and a generation, and a multishot receive is armed for it.
//! 2. Bytes arrive in a buffer of the thread's [`exchange::buffer_pool::BufferPool`]. [`connections::Connection::received`]
//!    finds the whole requests in it; the beginning of one that is cut off waits and is put before its end later
//!    ([`connections::framing`]).
//! 3. All whole requests of that receive become one [`exchange::event::InferenceEvent`]. The events of a turn are published to
//!    the disruptor together, and the batch processor is woken if it sleeps ([`exchange::wake`]), unless the thread takes the
//!    next steps itself, as its role ([`batch::BatchRole`]).
//! 4. [`batch::BatchProcessor::step`] polls everything that is there, and the model scores all of its
//!    vectors where they lie, in parts if they are very many ([`disrust_model::Model::predict`]); if it fails, parts of them, until it is known for which
//!    requests. Where waiting is bounded, who has waited for too long is answered with error 3 before.
//! 5. The answers are written where the requests were, compacted at the front; where they are longer than the requests, from
//!    before them on (`batch::answers`). A [`exchange::event::Response`] goes to the queue of
//!    the thread that the event came from ([`exchange::response_queue`]), which is woken if it sleeps.
//! 6. The I/O thread copies the answers to the connection's blocks of unsent answers, lends the buffer to the kernel
//!    again, and sends. What is not sent at once goes with the next send.
//! 7. A connection ends when its peer has ended, everything owed is sent, no operation is in the kernel and no request
//!    in flight: then its descriptor is closed and its slot is free ([`connections::Connection::next_step`]).
//!
//! A hello comes the same way and goes no further than step 2: it is answered by the I/O thread, in its place among the answers, by what
//! the batch processor says of the model with these ([`connections::HelloAnswers`]).
//!
//! # Words
//!
//! A *vector* is what a request carries; where it is scored, among those of other requests, it is a *row*. A *burst* is the
//! requests of one receive, which travel as one *event*. A *step* is the batch processor's, a *turn* an I/O thread's. A *block*
//! holds what waits (unsent answers, beginnings of requests), a *buffer* what was received.
//!
//! # What holds everywhere
//!
//! - **Nothing is ever full.** An event in flight holds a buffer, and there are as many places in the request ring and
//!   in the response queues as there are buffers. When buffers run out, receiving waits and TCP holds the peers back.
//! - **An answer reaches only the connection that asked**: by thread, slot and generation, in the order of the
//!   requests; all three are asserted, and slots are not reused while anything refers to them.
//! - **Nothing allocates on a request's path**; `tests/allocations.rs` counts.
//! - **A peer's mistakes cost the peer**, in its own connection. The server's own mistakes end the process.
//!
//! # Which room knows which
//!
//! A room imports only from the rooms below it, and `tests/imports.rs` holds that:
//!
//! ```text
//! main → server, verify → admin → config → io_thread → batch → connections → kernel → log_gate, metrics → exchange → limits
//! ```
//!
//! [`kernel`] is the only one that names libc, io_uring, sockets or affinity, and [`config`] the only one that names
//! clap. [`connections`] does no I/O: it knows bytes, blocks and facts. [`io_thread`] and [`batch`] make no system call;
//! they run on anything that implements [`kernel::Kernel`].
//! Unsafe code is in [`kernel`] and [`exchange::buffer_pool`] only. The atomics that threads share are listed at the top of
//! [`exchange::wake`], [`exchange::response_queue`], [`exchange::buffer_pool`], [`exchange::spread`], [`exchange::swap_place`], [`exchange::token`],
//! [`exchange::control`], [`exchange::model_version`], [`batch::BatchRole`] and [`metrics`].

pub mod admin;
pub mod batch;
pub mod config;
pub mod connections;
pub mod exchange;
pub mod io_thread;
pub mod kernel;
pub mod limits;
pub mod log_gate;
pub mod metrics;
pub mod server;
pub mod verify;
