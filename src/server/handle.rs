//! What others have of a running server: a handle that stops it, and the report of what it has done.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use disrust_model::Model;

use super::crew::ThreadEnd;
use super::reload::Reloader;
use crate::batch::{ModelPlace, ReplaceError};
use crate::exchange::control::Control;
use crate::exchange::wake::Wake;
use crate::metrics::{CloseReason, Counter, IoMetrics};

/// Stops a server or gives it a new model, from any thread, and tells what it does.
#[derive(Clone)]
pub struct ServerHandle {
    pub(super) requests: Sender<Notice>,
    pub(super) control: Arc<Control>,
    pub(super) io_metrics: Arc<[Arc<IoMetrics>]>,
    pub(super) model_place: Arc<ModelPlace>,
    pub(super) batch_wake: Arc<Wake>,
    pub(super) shutdown_delay: Duration,
    /// If a file is served.
    pub(super) reloader: Option<Reloader>,
}

impl ServerHandle {
    /// Asks for the drain: no new connections, every request received is answered, then the connections are closed.
    ///
    /// It begins as soon as somebody is in [`super::Server::wait`], which this does not wait for, and after the delay that was
    /// configured. If the port is shared with
    /// another process, new connections are that one's from then on, and the connections here are drained a moment later.
    pub fn drain(&self) {
        self.ask(Notice::Drain);
    }

    /// Asks again: a server that serves on before it drains (`--shutdown-delay`) drains at once, and one that drains is cut.
    pub fn hurry(&self) {
        self.ask(Notice::Hurry);
    }

    /// How long the server serves on when it is asked to drain.
    pub fn shutdown_delay(&self) -> Duration {
        self.shutdown_delay
    }

    /// Whether the server has been asked to stop, though it may serve as ever for a while.
    pub fn is_leaving(&self) -> bool {
        self.control.is_leaving()
    }

    /// Whether the server drains.
    pub fn is_draining(&self) -> bool {
        self.control.drain_requested()
    }

    /// Asks for the drain to end (and to begin, if need be) by cutting the connections that are still open.
    pub fn cut(&self) {
        self.ask(Notice::Cut);
    }

    /// Puts `model` in the place of the one that serves: between two batches, so that no request is lost and none is answered
    /// by both. Returns when it serves and the other one has been dropped, which it is on this thread, as a large model
    /// takes long to drop. Waits for what the model is at.
    ///
    /// # Errors
    /// See [`ReplaceError`]; then the model that serves goes on.
    pub fn replace_model(&self, model: Box<dyn Model>) -> Result<(), ReplaceError> {
        self.model_place.replace(model, &self.batch_wake).map(drop)
    }

    /// Asks for the model file to be read again, and does not wait for that. Returns whether there is one. What comes of it is
    /// in the log.
    pub fn reload(&self) -> bool {
        self.reloader.iter().for_each(Reloader::ask);
        self.reloader.is_some()
    }

    fn ask(&self, request: Notice) {
        // A server that has ended needs no more to be asked.
        let _unheard = self.requests.send(request);
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.control.open_connections()
    }

    /// What the server has done until now.
    pub fn report(&self) -> Report {
        let sum =
            |counter: fn(&IoMetrics) -> &Counter| self.io_metrics.iter().map(|metrics| counter(metrics).get()).sum();
        Report {
            connections: sum(|metrics| &metrics.accepted),
            rejected: sum(|metrics| metrics.closed.by(CloseReason::Rejected)),
            requests: sum(|metrics| &metrics.requests),
            answered: self.io_metrics.iter().map(|metrics| metrics.answered()).sum(),
            failed: sum(|metrics| &metrics.model_errors),
            shed: sum(|metrics| &metrics.shed),
            bad: sum(|metrics| &metrics.bad),
            discarded: sum(|metrics| &metrics.discarded),
            refused: sum(|metrics| &metrics.refused),
            cut: sum(|metrics| metrics.closed.by(CloseReason::Cut)),
        }
    }
}

/// What a server did in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Connections served.
    pub connections: u64,
    /// Connections closed at once, over the limit.
    pub rejected: u64,
    /// Requests handed to the model.
    pub requests: u64,
    /// Requests answered to their peer, be it with scores or with an error.
    pub answered: u64,
    /// Of these, with error 2: the model failed.
    pub failed: u64,
    /// And with error 3: they had waited for too long.
    pub shed: u64,
    /// Requests that lost their connection's framing, answered with error 1.
    pub bad: u64,
    /// Requests whose peer was gone before the answer.
    pub discarded: u64,
    /// Requests refused with error 4.
    pub refused: u64,
    /// Connections cut at the end of the drain.
    pub cut: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} connections served, {} cut at the end; {} requests answered, {} of them failed and {} shed, {} discarded \
             because their peer had gone, {} refused while draining, {} bad",
            self.connections, self.cut, self.answered, self.failed, self.shed, self.discarded, self.refused, self.bad
        )
    }
}

/// What [`super::Server::wait`] waits for.
pub(super) enum Notice {
    /// A thread has ended.
    Ended(ThreadEnd),
    /// The drain is asked for.
    Drain,
    /// It is asked for again.
    Hurry,
    /// The end of the drain is asked for.
    Cut,
}

impl From<ThreadEnd> for Notice {
    fn from(end: ThreadEnd) -> Notice {
        Notice::Ended(end)
    }
}
