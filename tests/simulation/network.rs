//! The simulated machine around the rings: its clock, its descriptors, its listeners, and TCP as far as it matters.
//!
//! A stream is two queues of bytes between a client and the server, and what each end has done to it. Of the bytes for the
//! client, its side has acknowledged those in front, as many as its window holds, at once or late; the others wait at
//! the server's side, and a reset loses them. Over a Unix socket the client's side has everything at once, and it waits there:
//! the server sees the memory of what was not read. Not modelled: segments, other delays (the order in which actors are
//! stepped does that), options. What the numbers are is Linux's:
//! queued bytes are read before a reset is seen, and a FIN that came before it hides it; a reset's error is reported
//! once, to whichever operation asks first, and after it a receive finds the end and a send EPIPE; closing with unread
//! bytes resets the peer, and so does data for a socket that is shut down both ways.
//! `tests/simulation/conformance.rs` compares this with a real kernel.

use std::collections::VecDeque;

use disrust::kernel::{Entrance, Unacknowledged};
use disrust::limits::UNIX_SEND_OVERHEAD_MIN;
use fastrand::Rng;

use super::trace::note;

/// Names an open socket of the server; the lowest free number is the next one given.
pub type Descriptor = usize;

/// Names a stream for good.
pub type StreamNumber = usize;

/// Error numbers of Linux on every architecture that Rust knows but the rarest.
pub mod errno {
    pub const ENOMEM: i32 = 12;
    pub const EINVAL: i32 = 22;
    pub const EMFILE: i32 = 24;
    pub const EPIPE: i32 = 32;
    pub const ECONNRESET: i32 = 104;
    pub const ETIMEDOUT: i32 = 110;
    pub const ECANCELED: i32 = 125;
}

/// A connection.
#[derive(Debug, Default)]
struct Stream {
    /// Over a Unix socket: bytes of each send that are not read, and the memory that it takes until all of them are.
    unread: Option<VecDeque<(usize, usize)>>,
    to_server: VecDeque<u8>,
    /// Of the bytes for the client, those in front that its side has.
    to_client: VecDeque<u8>,
    acknowledged: usize,
    /// Bytes that the server's thread has been given, and how many of those before it sent FIN.
    delivered_bytes: usize,
    delivered_before_end: Option<usize>,
    /// The client has sent FIN, behind `to_server`.
    client_finished: bool,
    /// The client's socket is gone; what is sent to it is answered with RST.
    client_closed: bool,
    /// Nobody answers any more at the client's address, and the server has not been told.
    client_vanished: bool,
    /// The server has sent FIN, behind `to_client`.
    server_finished: bool,
    /// The server does not receive any more.
    server_shut: bool,
    /// The server's descriptor is closed.
    server_closed: bool,
    /// Closing was asked for, and waits for the operations that hold the socket.
    server_closing: bool,
    /// Operations in the kernel.
    operations: usize,
    /// The connection is broken, as the server sees it, and this is not reported yet.
    server_error: Option<i32>,
    server_broken: bool,
    /// The client's side has been reset.
    client_reset: bool,
}

/// What a receive finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    Nothing,
    Bytes(usize),
    End,
    Error(i32),
}

/// What a send does.
#[derive(Debug, PartialEq, Eq)]
pub enum Outgoing {
    NoRoom,
    Taken(usize),
    Error(i32),
}

/// What a client's read finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Nothing,
    Bytes(usize),
    End,
    Reset,
}

#[derive(Debug)]
struct Listener {
    /// Threads that have not closed it.
    users: usize,
    /// Nobody can connect any more.
    shut: bool,
    queue: VecDeque<StreamNumber>,
}

/// The machine.
#[derive(Debug)]
pub struct Network {
    pub now_ns: u64,
    pub rng: Rng,
    streams: Vec<Stream>,
    descriptors: Vec<Option<StreamNumber>>,
    descriptors_open: usize,
    pub descriptors_max: usize,
    /// Each thread's, and behind them the one that they share, if there is one.
    listeners: Vec<Listener>,
    threads: usize,
    socket_in_bytes: usize,
    socket_out_bytes: usize,
    client_window_bytes: usize,
    /// A client's side may acknowledge late what it has room for.
    pub acknowledges_late: bool,
    /// Closing a socket with operations in the kernel is a failure, not something to model.
    pub strict: bool,
    /// When accepts failed, and when descriptors were closed.
    pub accept_failures_ns: Vec<u64>,
    pub closes_ns: Vec<u64>,
}

impl Network {
    pub fn new(
        rng: Rng,
        threads: usize,
        descriptors_max: usize,
        socket_in_bytes: usize,
        socket_out_bytes: usize,
        client_window_bytes: usize,
    ) -> Network {
        let listeners = (0..threads).map(|_| Listener::new(1)).collect();
        Network {
            now_ns: 0,
            rng,
            streams: Vec::new(),
            descriptors: Vec::new(),
            descriptors_open: 0,
            descriptors_max,
            listeners,
            threads,
            socket_in_bytes,
            socket_out_bytes,
            client_window_bytes,
            acknowledges_late: false,
            strict: true,
            accept_failures_ns: Vec::new(),
            closes_ns: Vec::new(),
        }
    }

    pub fn descriptors_open(&self) -> usize {
        self.descriptors_open
    }

    /// Completions with so many bytes of this stream have been taken by the server's thread.
    pub fn deliver(&mut self, stream: StreamNumber, bytes: usize) {
        self.streams[stream].delivered_bytes += bytes;
    }

    /// Bytes that the server's thread had been given when it ended the stream.
    pub fn delivered_before_end(&self, stream: StreamNumber) -> usize {
        let stream = &self.streams[stream];
        stream.delivered_before_end.unwrap_or(stream.delivered_bytes)
    }

    /// The stream behind an open descriptor.
    pub fn stream_of(&self, descriptor: Descriptor) -> StreamNumber {
        self.descriptors[descriptor].expect("an operation names an open descriptor")
    }

    // ---- Listeners and descriptors.

    /// All threads listen at a path, too; returns that listener.
    pub fn listen_at_path(&mut self) -> usize {
        self.listeners.push(Listener::new(self.threads));
        self.threads
    }

    /// A thread's listener, if there is one.
    pub fn listener(&self, thread: usize, from: Entrance) -> Option<usize> {
        match from {
            Entrance::Tcp => Some(thread),
            Entrance::Unix => (self.listeners.len() > self.threads).then_some(self.threads),
        }
    }

    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// Whether an accept can end: somebody waits, or nobody will.
    pub fn ends_accept(&self, listener: usize) -> bool {
        !self.listeners[listener].queue.is_empty() || self.listeners[listener].shut
    }

    pub fn is_shut(&self, listener: usize) -> bool {
        self.listeners[listener].shut
    }

    pub fn shut_listener(&mut self, listener: usize) {
        self.listeners[listener].shut = true;
    }

    pub fn descriptors_are_out(&self) -> bool {
        self.descriptors_open >= self.descriptors_max
    }

    /// Takes the next connection from a listener's queue.
    pub fn accept(&mut self, listener: usize) -> Option<Descriptor> {
        let stream = self.listeners[listener].queue.pop_front()?;
        let free = self.descriptors.iter().position(Option::is_none);
        let descriptor = free.unwrap_or_else(|| {
            self.descriptors.push(None);
            self.descriptors.len() - 1
        });
        self.descriptors[descriptor] = Some(stream);
        self.descriptors_open += 1;
        note(|| format!("listener {listener} gives stream {stream} as descriptor {descriptor}"));
        Some(descriptor)
    }

    pub fn close_listener(&mut self, listener: usize) {
        let users = &mut self.listeners[listener].users;
        *users = users.checked_sub(1).expect("a thread closes a listener once");
        if *users > 0 {
            return;
        }
        while let Some(stream) = self.listeners[listener].queue.pop_front() {
            self.reset_client(stream);
            self.streams[stream].server_closed = true;
        }
    }

    pub fn is_listening(&self, listener: usize) -> bool {
        self.listeners[listener].users > 0
    }

    pub fn close(&mut self, descriptor: Descriptor) {
        let number = self.descriptors[descriptor].take().expect("a socket is closed once");
        self.descriptors_open -= 1;
        self.closes_ns.push(self.now_ns);
        let operations = self.streams[number].operations;
        assert!(
            !self.strict || operations == 0,
            "descriptor {descriptor} is closed with {operations} operations on it"
        );
        self.streams[number].server_closing = true;
        self.close_if_idle(number);
    }

    /// A socket lives on while an operation holds it: no FIN until that has completed.
    fn close_if_idle(&mut self, number: StreamNumber) {
        let stream = &mut self.streams[number];
        if !stream.server_closing || stream.operations > 0 || stream.server_closed {
            return;
        }
        stream.server_closed = true;
        if stream.to_server.is_empty() {
            stream.server_finished = true;
        } else {
            self.reset_client(number);
        }
    }

    /// The client is sent RST: bytes that it has not acknowledged are lost.
    fn reset_client(&mut self, number: StreamNumber) {
        let stream = &mut self.streams[number];
        if !stream.client_closed {
            stream.client_reset = true;
            // A FIN is behind everything else.
            stream.server_finished &= stream.unacknowledged() == 0;
            stream.to_client.truncate(stream.acknowledged);
        }
    }

    /// The client's side acknowledges what its window has room for: at least a byte, or with `at_once` all of it.
    fn acknowledge(&mut self, number: StreamNumber, at_once: bool) {
        let stream = &mut self.streams[number];
        let window_bytes = if stream.unread.is_some() { usize::MAX } else { self.client_window_bytes };
        let room = window_bytes.saturating_sub(stream.acknowledged);
        let most = if stream.client_vanished { 0 } else { stream.unacknowledged().min(room) };
        let is_late = !at_once && self.acknowledges_late && most > 0 && stream.unread.is_none();
        stream.acknowledged += if is_late { 1 + self.rng.usize(..most) } else { most };
    }

    // ---- The server's end.

    pub fn operation_began(&mut self, number: StreamNumber) {
        self.streams[number].operations += 1;
    }

    pub fn operation_ended(&mut self, number: StreamNumber) {
        self.streams[number].operations -= 1;
        self.close_if_idle(number);
    }

    pub fn is_readable(&self, number: StreamNumber) -> bool {
        let stream = &self.streams[number];
        !stream.to_server.is_empty() || stream.client_finished || stream.server_shut || stream.server_broken
    }

    pub fn is_writable(&self, number: StreamNumber) -> bool {
        let stream = &self.streams[number];
        stream.held_bytes() < self.socket_out_bytes || stream.server_finished || stream.server_broken
    }

    /// Receives up to `place.len()` bytes.
    pub fn receive(&mut self, number: StreamNumber, place: &mut [u8]) -> Incoming {
        let stream = &mut self.streams[number];
        if !stream.to_server.is_empty() {
            Incoming::Bytes(take_front(&mut stream.to_server, place))
        } else if stream.client_finished {
            Incoming::End
        } else if let Some(error) = stream.server_error.take() {
            Incoming::Error(error)
        } else if stream.server_shut || stream.server_broken {
            Incoming::End
        } else {
            Incoming::Nothing
        }
    }

    /// Sends up to `most` bytes of `bytes`.
    pub fn send(&mut self, number: StreamNumber, bytes: &[u8], most: usize) -> Outgoing {
        let socket_out_bytes = self.socket_out_bytes;
        let stream = &mut self.streams[number];
        if stream.server_broken || stream.server_finished {
            return Outgoing::Error(stream.server_error.take().unwrap_or(errno::EPIPE));
        }
        let room = socket_out_bytes.saturating_sub(stream.held_bytes());
        let taken = bytes.len().min(most).min(room);
        if taken == 0 {
            return Outgoing::NoRoom;
        }
        if stream.client_vanished {
            stream.to_client.extend(&bytes[..taken]);
        } else if stream.client_closed {
            stream.break_server(errno::ECONNRESET);
        } else {
            stream.to_client.extend(&bytes[..taken]);
            if let Some(unread) = &mut stream.unread {
                unread.push_back((taken, taken.next_power_of_two() + UNIX_SEND_OVERHEAD_MIN));
            }
            self.acknowledge(number, false);
        }
        Outgoing::Taken(taken)
    }

    /// Bytes that wait to be received.
    pub fn unreceived(&self, descriptor: Descriptor) -> usize {
        self.streams[self.stream_of(descriptor)].to_server.len()
    }

    /// Bytes that the client's side has not acknowledged, a FIN behind them counts as one; or the memory of what it has not
    /// read.
    pub fn unacknowledged(&mut self, descriptor: Descriptor) -> Unacknowledged {
        let number = self.stream_of(descriptor);
        if self.streams[number].unacknowledged() > 0 {
            self.acknowledge(number, false);
        }
        let stream = &self.streams[number];
        if let Some(unread) = &stream.unread {
            let memory = unread.iter().map(|(_, memory)| memory).sum();
            return Unacknowledged::Memory(if stream.server_broken { 0 } else { memory });
        }
        let unacknowledged = if stream.server_broken { 0 } else { stream.unacknowledged() };
        Unacknowledged::Bytes(unacknowledged + usize::from(unacknowledged > 0 && stream.server_finished))
    }

    pub fn has_vanished(&self, descriptor: Descriptor) -> bool {
        self.streams[self.stream_of(descriptor)].client_vanished
    }

    /// `shutdown(SHUT_WR)`.
    pub fn half_close(&mut self, descriptor: Descriptor) {
        let number = self.stream_of(descriptor);
        let stream = &mut self.streams[number];
        stream.server_finished = true;
        stream.delivered_before_end.get_or_insert(stream.delivered_bytes);
    }

    /// `shutdown(SHUT_RDWR)`.
    pub fn abort(&mut self, descriptor: Descriptor) {
        let number = self.stream_of(descriptor);
        let stream = &mut self.streams[number];
        (stream.server_finished, stream.server_shut) = (true, true);
    }

    // ---- The client's end.

    pub fn connect(&mut self, listener: usize) -> Option<StreamNumber> {
        if !self.is_listening(listener) || self.is_shut(listener) {
            return None;
        }
        let number = self.streams.len();
        let unread = (listener == self.threads).then(VecDeque::new);
        self.streams.push(Stream { unread, ..Stream::default() });
        self.listeners[listener].queue.push_back(number);
        Some(number)
    }

    /// Bytes that the client can write at once; some if it would learn of a reset.
    pub fn client_room(&self, number: StreamNumber) -> usize {
        let stream = &self.streams[number];
        if stream.client_reset { 1 } else { self.socket_in_bytes.saturating_sub(stream.to_server.len()) }
    }

    /// Writes as much as there is room for. `None`: the connection is broken.
    pub fn client_write(&mut self, number: StreamNumber, bytes: &[u8]) -> Option<usize> {
        let room = self.client_room(number);
        let stream = &mut self.streams[number];
        assert!(!stream.client_finished && !stream.client_closed, "a client writes before its end");
        if stream.client_reset {
            return None;
        }
        let taken = bytes.len().min(room);
        if stream.server_shut && stream.server_finished && !stream.server_closed {
            // Data for a socket that is shut down both ways breaks the connection, at both ends.
            stream.client_reset = true;
            stream.break_server(errno::ECONNRESET);
        } else if stream.server_closed {
            // Nobody is there any more: the answer is RST, which leaves alone what has arrived.
            stream.client_reset = true;
        } else {
            stream.to_server.extend(&bytes[..taken]);
        }
        Some(taken)
    }

    /// Whether the server has closed its end.
    pub fn server_is_gone(&self, number: StreamNumber) -> bool {
        self.streams[number].server_closed
    }

    pub fn client_has_input(&self, number: StreamNumber) -> bool {
        let stream = &self.streams[number];
        !stream.to_client.is_empty() || stream.client_reset || stream.server_finished
    }

    pub fn client_read(&mut self, number: StreamNumber, place: &mut [u8]) -> Read {
        if self.streams[number].acknowledged == 0 {
            self.acknowledge(number, true);
        }
        let stream = &mut self.streams[number];
        if stream.acknowledged > 0 {
            let most = place.len().min(stream.acknowledged);
            let bytes = take_front(&mut stream.to_client, &mut place[..most]);
            stream.acknowledged -= bytes;
            stream.has_read(bytes);
            self.acknowledge(number, false);
            Read::Bytes(bytes)
        } else if stream.server_finished {
            Read::End
        } else if stream.client_reset {
            Read::Reset
        } else {
            Read::Nothing
        }
    }

    /// The client's FIN.
    pub fn client_finish(&mut self, number: StreamNumber) {
        self.streams[number].client_finished = true;
    }

    /// The client closes: FIN, or RST if it leaves something unread.
    pub fn client_close(&mut self, number: StreamNumber) {
        let stream = &mut self.streams[number];
        stream.client_closed = true;
        if stream.to_client.is_empty() {
            stream.client_finished = true;
        } else {
            stream.to_client.clear();
            stream.acknowledged = 0;
            stream.break_server(errno::ECONNRESET);
        }
    }

    /// The client breaks the connection off (RST), or has vanished and TCP has given it up.
    pub fn client_break(&mut self, number: StreamNumber, error: i32) {
        let stream = &mut self.streams[number];
        stream.client_closed = true;
        stream.to_client.clear();
        stream.acknowledged = 0;
        stream.break_server(error);
    }

    /// The client vanishes. As long as it is owed something, TCP asks for that for a quarter of an hour.
    pub fn client_vanish(&mut self, number: StreamNumber) {
        if self.streams[number].unacknowledged() == 0 {
            return self.client_break(number, errno::ETIMEDOUT);
        }
        let stream = &mut self.streams[number];
        (stream.client_closed, stream.client_vanished) = (true, true);
    }
}

impl Listener {
    fn new(users: usize) -> Listener {
        Listener { users, shut: false, queue: VecDeque::new() }
    }
}

impl Stream {
    /// The client has read so many bytes.
    fn has_read(&mut self, mut bytes: usize) {
        let Some(unread) = &mut self.unread else { return };
        while let Some((left, _)) = unread.front_mut()
            && bytes > 0
        {
            let taken = bytes.min(*left);
            (*left, bytes) = (*left - taken, bytes - taken);
            if *left == 0 {
                unread.pop_front();
            }
        }
    }

    /// Bytes for the client that take room in the server's socket.
    fn held_bytes(&self) -> usize {
        if self.unread.is_some() { self.to_client.len() } else { self.unacknowledged() }
    }

    /// Bytes for the client that the server's side still has.
    fn unacknowledged(&self) -> usize {
        self.to_client.len() - self.acknowledged
    }

    fn break_server(&mut self, error: i32) {
        if !self.server_broken && !self.server_closed {
            self.server_broken = true;
            // After FIN a receive finds the end whatever comes, and a reset is a broken pipe.
            let is_late = self.client_finished && error == errno::ECONNRESET;
            self.server_error = Some(if is_late { errno::EPIPE } else { error });
        }
    }
}

/// Moves bytes from the front of a queue; at least one must be there.
fn take_front(queue: &mut VecDeque<u8>, place: &mut [u8]) -> usize {
    let bytes = queue.len().min(place.len());
    let (front, back) = queue.as_slices();
    let from_front = front.len().min(bytes);
    place[..from_front].copy_from_slice(&front[..from_front]);
    place[from_front..bytes].copy_from_slice(&back[..bytes - from_front]);
    queue.drain(..bytes);
    bytes
}
