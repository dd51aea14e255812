//! The simulated kernel says what a real one says: the same scripts, on both, with the same completions.
//!
//! Each script runs on `SimulatedKernel` without faults and on `UringKernel` over loopback, and what the two tell is
//! compared line by line. What may legitimately differ is not told:
//! - how a stream of bytes is cut into completions: bytes are added up until everything is quiet (so is `more`, of
//!   which the last one counts), and their content is checked;
//! - the order of completions of different operations: the lines of a quiet moment are sorted;
//! - how much a socket holds: a send that fills it is told as such, without the number;
//! - numbers of descriptors, and time: a timer completes within a quiet moment's wait, or it does not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use disrust::exchange::blocks::BlockPool;
use disrust::exchange::buffer_pool::{Buffer, BufferPool};
use disrust::exchange::clock::Clock;
use disrust::exchange::event::ConnectionId;
use disrust::exchange::wake::Alarm;
use disrust::kernel::{
    Completion, Entrance, EventFd, Kernel, Listeners, Queued, ReceiveOutcome, RingSizes, Shots, Unacknowledged,
    UringKernel, bind_path, bind_port,
};
use disrust::limits::{BlockSizes, PoolGeometry};
use fastrand::Rng;
use socket2::SockRef;

use super::kernel::SimulatedKernel;
use super::network::{Network, Read, errno};
use super::ring::{Bell, Ring};
use super::swarm::Faults;

mod scripts;

/// A pool of few and small buffers, so that they run out.
const GEOMETRY: PoolGeometry = PoolGeometry { buffers: 4, headroom_bytes: 0, receive_bytes: 256 };

const SEND_BLOCK_BYTES: usize = 16 * 1024;

/// How long nothing must happen for everything to count as quiet; timers are shorter or far longer.
const QUIET: Duration = Duration::from_millis(25);

/// One operation of a script; a number names a connection, in the order in which they were made.
#[derive(Debug, Clone, Copy)]
enum Do {
    Accept,
    CancelAccept,
    AcceptQueued,
    CloseListener,
    Receive(usize, Shots),
    CancelReceive(usize),
    /// Sends so many bytes.
    Send(usize, usize),
    /// Sends until no more fits, and leaves a send in the kernel.
    SendUntilFull(usize),
    /// Tells whether anything that was sent is unacknowledged.
    LookAt(usize),
    HalfClose(usize),
    Abort(usize),
    Close(usize),
    /// Received buffers are kept from here on, or given back, those kept before too.
    KeepBuffers(bool),
    StartTimer(Duration),
    AwaitAlarm,
    RingAlarm,
    PeerConnects,
    PeerWrites(usize, usize),
    PeerFinishes(usize),
    PeerCloses(usize),
    PeerResets(usize),
    /// Tells what the peer can read, to the end if there is one.
    PeerReads(usize),
    /// Waits until everything is quiet, and tells what has completed.
    Settle,
}

/// What a peer finds when it has read what there is.
#[derive(Debug)]
enum PeerEnd {
    Nothing,
    End,
    Reset,
}

/// The other side of the connections, and the time that passes.
trait Peers {
    /// Whether there is a listener to connect to.
    fn connect(&mut self) -> bool;
    fn write(&mut self, peer: usize, bytes: &[u8]);
    fn finish(&mut self, peer: usize);
    fn close(&mut self, peer: usize);
    fn reset(&mut self, peer: usize);
    fn read(&mut self, peer: usize, place: &mut [u8]) -> Result<usize, PeerEnd>;
    /// Lets a little time pass. Returns whether things may still happen without any more of it.
    fn pass_time(&mut self, since_last_completion: Instant) -> bool;
}

/// One kernel, its peers, and what it has told.
struct Side<K: Kernel, P> {
    kernel: K,
    /// The listener that scripts speak of.
    from: Entrance,
    peers: P,
    pool: Arc<BufferPool>,
    blocks: BlockPool,
    alarm: Box<dyn Alarm>,
    /// Accepted, in the order in which they were connected.
    sockets: Vec<K::Socket>,
    keeps_buffers: bool,
    kept: Vec<Buffer>,
    /// Bytes that each connection has written and received, either way: the content of byte n is n modulo 251.
    written: BTreeMap<usize, usize>,
    received: BTreeMap<usize, usize>,
    sent: BTreeMap<usize, usize>,
    read: BTreeMap<usize, usize>,
    /// Connections whose send fills the socket.
    filling: BTreeMap<usize, bool>,
    told: Vec<String>,
}

fn content(from: usize, bytes: usize) -> Vec<u8> {
    (from..from + bytes).map(|index| (index % 251) as u8).collect()
}

fn id(connection: usize) -> ConnectionId {
    ConnectionId { slot: connection as u32, generation: 1000 + connection as u32 }
}

impl<K: Kernel, P: Peers> Side<K, P> {
    fn new(kernel: K, from: Entrance, peers: P, pool: Arc<BufferPool>, alarm: impl Alarm + 'static) -> Side<K, P> {
        Side {
            kernel,
            from,
            peers,
            pool,
            blocks: BlockPool::new(BlockSizes {
                bytes_min: 64,
                answer_bytes_max: SEND_BLOCK_BYTES,
                request_bytes_max: 0,
                retained: 1,
                budget_bytes: 1 << 20,
            }),
            alarm: Box::new(alarm),
            sockets: Vec::new(),
            keeps_buffers: false,
            kept: Vec::new(),
            written: BTreeMap::new(),
            received: BTreeMap::new(),
            sent: BTreeMap::new(),
            read: BTreeMap::new(),
            filling: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    fn run(mut self, script: &[Do]) -> Vec<String> {
        for (index, operation) in script.iter().enumerate() {
            self.told.push(format!("{index}: {operation:?}"));
            self.carry_out(*operation);
        }
        self.told
    }

    fn carry_out(&mut self, operation: Do) {
        match operation {
            Do::Accept => self.kernel.accept(self.from),
            Do::CancelAccept => self.kernel.cancel_accept(self.from),
            Do::AcceptQueued => {
                let queued = self.kernel.accept_queued(self.from);
                let is_connection = matches!(queued, Queued::Connection(_));
                self.told.push(format!("a connection was queued: {is_connection}"));
                if let Queued::Connection(socket) = queued {
                    self.sockets.push(socket);
                }
            }
            Do::CloseListener => self.kernel.close_listener(self.from),
            Do::Receive(connection, shots) => self.kernel.receive(self.sockets[connection], id(connection), shots),
            Do::CancelReceive(connection) => self.kernel.cancel_receive(id(connection)),
            Do::Send(connection, bytes) => self.send(connection, bytes),
            Do::SendUntilFull(connection) => {
                self.filling.insert(connection, true);
                self.send(connection, SEND_BLOCK_BYTES);
            }
            Do::LookAt(connection) => {
                let unacknowledged = self.kernel.unacknowledged(self.sockets[connection]);
                let is_owed = !matches!(unacknowledged, Unacknowledged::Bytes(0) | Unacknowledged::Memory(0));
                self.told.push(format!("{connection} has something unacknowledged: {is_owed}"));
            }
            Do::HalfClose(connection) => self.kernel.half_close(self.sockets[connection]),
            Do::Abort(connection) => self.kernel.abort(self.sockets[connection]),
            Do::Close(connection) => self.kernel.close(self.sockets[connection]),
            Do::KeepBuffers(keep) => {
                self.keeps_buffers = keep;
                self.kept.drain(..).for_each(|buffer| self.kernel.provide(buffer));
            }
            Do::StartTimer(after) => self.kernel.start_timer(after),
            Do::AwaitAlarm => self.kernel.await_alarm(),
            Do::RingAlarm => self.alarm.ring(),
            Do::PeerConnects => {
                let connected = self.peers.connect();
                self.told.push(format!("connected: {connected}"));
            }
            Do::PeerWrites(peer, bytes) => {
                let from = self.written.entry(peer).or_default();
                self.peers.write(peer, &content(*from, bytes));
                *from += bytes;
            }
            Do::PeerFinishes(peer) => self.peers.finish(peer),
            Do::PeerCloses(peer) => self.peers.close(peer),
            Do::PeerResets(peer) => self.peers.reset(peer),
            Do::PeerReads(peer) => self.peer_reads(peer),
            Do::Settle => self.settle(),
        }
    }

    fn send(&mut self, connection: usize, bytes: usize) {
        let sent = self.sent.entry(connection).or_default();
        let mut block = self.blocks.take_for_answers(bytes);
        assert!(block.append(&content(*sent, bytes)) == bytes, "a script's sends fit a block");
        self.kernel.send(self.sockets[connection], id(connection), block);
    }

    fn peer_reads(&mut self, peer: usize) {
        let (mut place, mut bytes) = ([0; 4096], 0);
        let end = loop {
            match self.peers.read(peer, &mut place) {
                Ok(count) => {
                    let from = self.read.entry(peer).or_default();
                    assert!(place[..count] == content(*from, count)[..], "the peer reads what was sent");
                    *from += count;
                    bytes += count;
                }
                Err(end) => break end,
            }
        };
        let bytes = if self.filling.contains_key(&peer) { "many".to_owned() } else { bytes.to_string() };
        self.told.push(format!("the peer reads {bytes} bytes, then {end:?}"));
    }

    fn settle(&mut self) {
        let mut lines = Vec::new();
        let mut streams: BTreeMap<usize, (usize, bool)> = BTreeMap::new();
        let mut completed_at = Instant::now();
        loop {
            self.kernel.enter(false);
            while let Some(completion) = self.kernel.next_completion() {
                completed_at = Instant::now();
                self.completed(completion, &mut lines, &mut streams);
            }
            if !self.peers.pass_time(completed_at) {
                break;
            }
        }
        let streams = streams.into_iter();
        lines
            .extend(streams.map(|(connection, (bytes, more))| {
                format!("{connection} received: {bytes} bytes in all, more {more}")
            }));
        lines.sort();
        self.told.append(&mut lines);
    }

    fn completed(
        &mut self,
        completion: Completion<K::Socket>,
        lines: &mut Vec<String>,
        streams: &mut BTreeMap<usize, (usize, bool)>,
    ) {
        let number = |error: io::Error| error.raw_os_error();
        match completion {
            Completion::Accepted { from: _, result, more } => {
                lines
                    .push(format!("accepted: {:?}, more {more}", result.as_ref().map(|_| ()).map_err(io::Error::kind)));
                self.sockets.extend(result);
            }
            Completion::Received { id, outcome, more } => {
                let connection = id.slot as usize;
                match outcome {
                    ReceiveOutcome::Bytes { buffer, bytes } => {
                        let from = self.received.entry(connection).or_default();
                        let found = &self.pool.bytes(&buffer)[..bytes];
                        assert!(found == content(*from, bytes), "what is received is what was written");
                        *from += bytes;
                        let (sum, last) = streams.entry(connection).or_default();
                        (*sum, *last) = (*sum + bytes, more);
                        if self.keeps_buffers { self.kept.push(buffer) } else { self.kernel.provide(buffer) }
                    }
                    ReceiveOutcome::Failed(error) => {
                        lines.push(format!("{connection} received: error {:?}, more {more}", number(error)));
                    }
                    other => lines.push(format!("{connection} received: {other:?}, more {more}")),
                }
            }
            Completion::Sent { id, block, result } => self.send_completed(id.slot as usize, block, result, lines),
            Completion::Alarm => lines.push("the alarm".to_owned()),
            Completion::Timer => lines.push("the timer".to_owned()),
        }
    }

    fn send_completed(
        &mut self,
        connection: usize,
        block: Box<disrust::exchange::blocks::Block>,
        result: io::Result<usize>,
        lines: &mut Vec<String>,
    ) {
        let whole = block.content().len();
        self.blocks.give(block);
        let fills = self.filling.get(&connection).copied().unwrap_or(false);
        match result {
            Ok(bytes) => {
                *self.sent.entry(connection).or_default() += bytes;
                if fills {
                    self.send(connection, SEND_BLOCK_BYTES);
                } else {
                    lines.push(format!("{connection} sent: {bytes} of {whole} bytes"));
                }
            }
            Err(error) => lines.push(format!("{connection} sent: error {:?}", error.raw_os_error())),
        }
    }
}

/// Real sockets, which are all TCP's by their type.
struct RealPeers {
    connect: Box<dyn Fn() -> io::Result<TcpStream>>,
    streams: Vec<Option<TcpStream>>,
}

impl RealPeers {
    fn by_tcp(address: SocketAddr) -> RealPeers {
        let connect = move || {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        RealPeers { connect: Box::new(connect), streams: Vec::new() }
    }

    fn by_path(path: PathBuf) -> RealPeers {
        let connect = move || Ok(OwnedFd::from(UnixStream::connect(&path)?).into());
        RealPeers { connect: Box::new(connect), streams: Vec::new() }
    }

    fn stream(&mut self, peer: usize) -> &mut TcpStream {
        self.streams[peer].as_mut().expect("a script uses a peer until it closes")
    }
}

impl Peers for RealPeers {
    fn connect(&mut self) -> bool {
        let stream = (self.connect)().ok();
        if let Some(stream) = &stream {
            stream.set_nonblocking(true).expect("a socket");
        }
        let connected = stream.is_some();
        self.streams.push(stream);
        connected
    }

    fn write(&mut self, peer: usize, bytes: &[u8]) {
        // A write to a connection that is gone fails, or is answered with a reset; either shows when the peer reads.
        let _outcome = self.stream(peer).write_all(bytes);
    }

    fn finish(&mut self, peer: usize) {
        self.stream(peer).shutdown(Shutdown::Write).expect("the connection is open");
    }

    fn close(&mut self, peer: usize) {
        self.streams[peer] = None;
    }

    fn reset(&mut self, peer: usize) {
        SockRef::from(&*self.stream(peer)).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
        self.streams[peer] = None;
    }

    fn read(&mut self, peer: usize, place: &mut [u8]) -> Result<usize, PeerEnd> {
        match self.stream(peer).read(place) {
            Ok(0) => Err(PeerEnd::End),
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(PeerEnd::Nothing),
            Err(_) => Err(PeerEnd::Reset),
        }
    }

    fn pass_time(&mut self, since_last_completion: Instant) -> bool {
        std::thread::sleep(Duration::from_millis(1));
        since_last_completion.elapsed() < QUIET
    }
}

/// Simulated ones.
struct SimulatedPeers {
    listener: usize,
    network: Rc<RefCell<Network>>,
    streams: Vec<usize>,
    settled_until_ns: u64,
}

impl Peers for SimulatedPeers {
    fn connect(&mut self) -> bool {
        let stream = self.network.borrow_mut().connect(self.listener);
        self.streams.extend(stream);
        stream.is_some()
    }

    fn write(&mut self, peer: usize, bytes: &[u8]) {
        let _outcome = self.network.borrow_mut().client_write(self.streams[peer], bytes);
    }

    fn finish(&mut self, peer: usize) {
        self.network.borrow_mut().client_finish(self.streams[peer]);
    }

    fn close(&mut self, peer: usize) {
        self.network.borrow_mut().client_close(self.streams[peer]);
    }

    fn reset(&mut self, peer: usize) {
        self.network.borrow_mut().client_break(self.streams[peer], errno::ECONNRESET);
    }

    fn read(&mut self, peer: usize, place: &mut [u8]) -> Result<usize, PeerEnd> {
        match self.network.borrow_mut().client_read(self.streams[peer], place) {
            Read::Bytes(bytes) => Ok(bytes),
            Read::Nothing => Err(PeerEnd::Nothing),
            Read::End => Err(PeerEnd::End),
            Read::Reset => Err(PeerEnd::Reset),
        }
    }

    fn pass_time(&mut self, _since_last_completion: Instant) -> bool {
        let mut network = self.network.borrow_mut();
        network.now_ns += 1_000_000;
        let goes_on = network.now_ns < self.settled_until_ns;
        if !goes_on {
            self.settled_until_ns = network.now_ns + QUIET.as_nanos() as u64;
        }
        goes_on
    }
}

fn on_the_simulated_kernel(script: &[Do], from: Entrance) -> Vec<String> {
    let mut network = Network::new(Rng::with_seed(1), 1, 1000, 1 << 20, 1 << 18, 1 << 18);
    network.strict = false;
    let listener = if from == Entrance::Unix { network.listen_at_path() } else { 0 };
    let network = Rc::new(RefCell::new(network));
    let pool = Arc::new(BufferPool::new(GEOMETRY));
    let bell = Bell::default();
    let (machine, rng, buffers) = (Rc::clone(&network), Rng::with_seed(2), Arc::clone(&pool));
    let ring = Ring::new(0, machine, rng, Faults::default(), buffers, bell.clone(), 1024);
    let kernel = SimulatedKernel(Rc::new(RefCell::new(ring)));
    let peers = SimulatedPeers { listener, network, streams: Vec::new(), settled_until_ns: QUIET.as_nanos() as u64 };
    Side::new(kernel, from, peers, pool, bell).run(script)
}

fn on_the_real_kernel(script: &[Do], from: Entrance) -> Vec<String> {
    match from {
        Entrance::Tcp => {
            let mut bound = bind_port(SocketAddr::from(([127, 0, 0, 1], 0)), 1, false).expect("a free port");
            let (tcp, peers) = (bound.take_listeners().pop(), RealPeers::by_tcp(bound.address()));
            let _port = bound.listen().expect("nobody else is there");
            on_uring(script, from, Listeners { tcp, unix: None }, peers)
        }
        Entrance::Unix => {
            static NUMBER: AtomicUsize = AtomicUsize::new(0);
            let name = format!("disrust-{}-{}.sock", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            let bound = bind_path(&path, 0o600, false).expect("a free path");
            let unix = Some(bound.listener());
            let _path = bound.listen().expect("it is bound");
            on_uring(script, from, Listeners { tcp: None, unix }, RealPeers::by_path(path))
        }
    }
}

fn on_uring(script: &[Do], from: Entrance, listeners: Listeners, peers: RealPeers) -> Vec<String> {
    let pool = Arc::new(BufferPool::new(GEOMETRY));
    let alarm = EventFd::new().expect("a descriptor");
    let sizes = RingSizes { submissions: 2, completions: 256 };
    let kernel = UringKernel::new(sizes, Arc::clone(&pool), listeners, alarm.clone(), Clock::starting())
        .expect("io_uring is available");
    Side::new(kernel, from, peers, pool, alarm).run(script)
}

fn conforms(script: &[Do]) {
    conforms_by(Entrance::Tcp, script);
}

fn conforms_by(from: Entrance, script: &[Do]) {
    let (simulated, real) = (on_the_simulated_kernel(script, from), on_the_real_kernel(script, from));
    assert!(simulated == real, "simulated:\n  {}\nreal:\n  {}", simulated.join("\n  "), real.join("\n  "));
}
