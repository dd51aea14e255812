//! What all threads of a server know of its state: whether it is leaving or to drain, and how many connections are open.
//!
//! | atomic | writers | readers | guards | ordering |
//! |---|---|---|---|---|
//! | `leaving` | whoever stops the server | whoever tells others of it | nothing | Relaxed: it decides nothing here, and who sees it late tells late |
//! | `drain`, `cut` | whoever stops the server | I/O threads, once a turn | nothing | Relaxed: a thread that sees it late drains late, and is woken through its eventfd anyway |
//! | `listeners_closed` | I/O threads, once each | whoever hands the port over | that the thread has accepted what waited | Release and Acquire: who sees the count sees what came before |
//! | `open_connections` | I/O threads | I/O threads | nothing | Relaxed read-modify-write: the sum is exact, its order with anything else does not matter |
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The shared state of a server.
#[derive(Debug)]
pub struct Control {
    leaving: AtomicBool,
    drain: AtomicBool,
    cut: AtomicBool,
    listeners_closed: AtomicUsize,
    open_connections: AtomicUsize,
    connections_max: usize,
}

impl Control {
    /// A server that serves at most `connections_max` connections.
    pub fn new(connections_max: usize) -> Control {
        Control {
            leaving: AtomicBool::new(false),
            drain: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            listeners_closed: AtomicUsize::new(0),
            open_connections: AtomicUsize::new(0),
            connections_max,
        }
    }

    /// Says that the server is going to stop, though it may serve as ever for a while.
    pub fn announce_leaving(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether the server is going to stop, or stops: nobody should send anybody here any more.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Asks for the drain. The threads must be woken after this.
    pub fn request_drain(&self) {
        self.drain.store(true, Ordering::Relaxed);
    }

    /// Asks for the drain to end now, whatever is still open.
    pub fn request_cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        self.request_drain();
    }

    /// Whether the server is to drain.
    pub fn drain_requested(&self) -> bool {
        self.drain.load(Ordering::Relaxed)
    }

    /// Whether the drain is to end now.
    pub fn cut_requested(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Counts an I/O thread that accepts no more.
    pub fn listener_closed(&self) {
        self.listeners_closed.fetch_add(1, Ordering::Release);
    }

    /// I/O threads that accept no more.
    pub fn listeners_closed(&self) -> usize {
        self.listeners_closed.load(Ordering::Acquire)
    }

    /// Counts a connection in, unless there are too many.
    pub fn open_connection(&self) -> bool {
        let room = self.open_connections.fetch_add(1, Ordering::Relaxed) < self.connections_max;
        if !room {
            self.close_connection();
        }
        room
    }

    /// Counts a connection out.
    pub fn close_connection(&self) {
        let before = self.open_connections.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a connection is closed once");
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.open_connections.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_up_to_the_limit_and_places_are_freed() {
        let control = Control::new(2);
        assert!(control.open_connection() && control.open_connection());
        assert!(!control.open_connection());
        control.close_connection();
        assert!(control.open_connection());
        assert_eq!(control.open_connections(), 2);
    }
}
