//! A server for the client's tests: threads and blocking sockets, right or wrong as a test wants it.
//!
//! It is no model of the real server: it bounds nothing and trusts its client.
//!
//! Invariants: it listens on loopback only, on a port that the kernel chose; a connection's thread ends with the
//! connection, and all of them with the test process.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use disrust_protocol::{
    ErrorCode, F32_BYTES, HELLO_MAGIC, HELLO_REQUEST_BYTES, HelloRequest, MAX_VECTORS_PER_REQUEST,
    REQUEST_HEADER_BYTES, RequestLayout, ServerHello, answer_bytes, read_vector_count, write_answer,
};
use socket2::{Domain, Socket, Type};

const RECEIVE_BYTES: usize = 64 * 1024;

/// How the stub answers. A number is the request at which it goes wrong, counted from 0 on each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Keeps the contract.
    Right,
    /// Keeps the contract, one byte a segment.
    RightByteByByte,
    /// Keeps the contract with hello, which it answers one byte a segment, and demands one at the front of each connection.
    DemandsHello,
    /// Flips the lowest bit of the request's last score.
    WrongBit(u64),
    /// Adds the features from right to left.
    WrongOrderOfAdding,
    /// Swaps the request's answer with the next one.
    OutOfOrder(u64),
    /// Sends half of the request's answer and closes.
    CutMidFrame(u64),
    /// Closes in place of the request's answer.
    Closes(u64),
    /// Sends an error answer in place of the request's answer.
    ErrorAnswer(u64),
    /// Sends an error answer in place of every fourth answer, of which the first is the fourth, one byte a segment.
    EveryFourth(ErrorCode),
    /// Sends an answer that no protocol knows.
    Nonsense(u64),
    /// Sends the request's answer with one score more.
    ExtraScore(u64),
    /// Sends the request's answer twice.
    Twice(u64),
    /// Answers nothing from the request on, and keeps the connection open.
    Silent(u64),
    /// Does not close after a bad request or after the client has shut down its sending side.
    NeverCloses,
    /// Closes after a bad request without an error answer.
    NoErrorAnswer,
    /// Takes a bad request for one that the model failed on.
    OtherErrorAnswer,
    /// Says from the request on that it is closing, in two pieces, and keeps the connection open.
    Refuses(u64),
    /// Takes 20 ms for each answer, and sends it alone.
    TricklesOut,
    /// Answers nothing on any connection for `stall_ms`, from `after_ms` after the first request of all.
    StallsOnce {
        /// From the first request.
        after_ms: u64,
        /// Until all are answered.
        stall_ms: u64,
    },
    /// Answers at once while requests come at such a rate, over all connections, and half a second later otherwise.
    Valley {
        /// Requests a second.
        from: usize,
        /// Requests a second.
        to: usize,
    },
}

/// How late an answer outside of [`Behaviour::Valley`] is.
pub const OUTSIDE_THE_VALLEY: Duration = Duration::from_millis(500);

/// The time over which a rate of requests is counted.
const RATE_WINDOW: Duration = Duration::from_millis(250);

/// Starts a stub server and returns its port.
pub fn start(layout: RequestLayout, behaviour: Behaviour) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    let (first_request_at, rate) = (Arc::new(OnceLock::new()), Arc::default());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("accepting on loopback");
            let (first_request_at, rate) = (Arc::clone(&first_request_at), Arc::clone(&rate));
            // The client may hang up whenever it has seen enough, so errors are not the stub's to judge.
            thread::spawn(move || Connection::new(stream, layout, behaviour, first_request_at, rate).serve());
        }
    });
    port
}

/// A thread that writes answers to `stream` when they are due; it ends with the connection.
fn late_sender(stream: &TcpStream) -> Sender<(Instant, Vec<u8>)> {
    let (sender, answers) = channel::<(Instant, Vec<u8>)>();
    let mut stream = stream.try_clone().expect("a second handle of a socket");
    thread::spawn(move || {
        for (due, answer) in answers {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // If the client has hung up, nobody is left to judge.
            let _ = stream.write_all(&answer);
        }
    });
    sender
}

/// Starts a stub server that is away for a while and returns its port: it takes `connections` connections, closes each
/// at its request `at` and has closed its port meanwhile. When all of them have ended and `away` is over, if there is such
/// a time, it is there again, and right.
pub fn start_with_absence(layout: RequestLayout, connections: usize, at: u64, away: Option<Duration>) -> u16 {
    // It never listens, and keeps the port from others.
    let held = bind(0);
    let port = held.local_addr().expect("a bound socket has an address").as_socket_ipv4().expect("IPv4").port();
    let listener = listen(port);
    thread::spawn(move || {
        let streams = (0..connections).map(|_| listener.accept().expect("accepting on loopback").0);
        let streams: Vec<TcpStream> = streams.collect();
        drop(listener);
        let serve =
            move |stream, behaviour| Connection::new(stream, layout, behaviour, Arc::default(), Arc::default()).serve();
        let first_life = streams.into_iter().map(|stream| thread::spawn(move || serve(stream, Behaviour::Closes(at))));
        for connection in first_life.collect::<Vec<_>>() {
            // The client may hang up whenever it has seen enough.
            let _ended = connection.join().expect("a stub does not panic");
        }
        let Some(away) = away else {
            return drop(held);
        };
        thread::sleep(away);
        for stream in listen(port).incoming() {
            let stream = stream.expect("accepting on loopback");
            thread::spawn(move || serve(stream, Behaviour::Right));
        }
    });
    port
}

fn listen(port: u16) -> TcpListener {
    let socket = bind(port);
    socket.listen(128).expect("listening on loopback");
    socket.into()
}

fn bind(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // Sockets that do not listen leave the port to the one that does.
    socket.set_reuse_address(true).expect("a socket option");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("a port on loopback that is ours");
    socket
}

struct Connection {
    stream: TcpStream,
    layout: RequestLayout,
    behaviour: Behaviour,
    request: u64,
    /// Somebody has said hello.
    has_greeted: bool,
    /// Answers that go out together.
    out: Vec<u8>,
    /// The answer that waits for the next one to overtake it.
    held_back: Vec<u8>,
    /// Of all connections of this stub.
    first_request_at: Arc<OnceLock<Instant>>,
    /// Of all connections of this stub: when the requests of the last [`RATE_WINDOW`] came.
    rate: Arc<Mutex<VecDeque<Instant>>>,
    /// Answers that are sent when they are due, in the order of requests.
    late: Option<Sender<(Instant, Vec<u8>)>>,
}

/// What follows an answer.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    Close,
}

impl Connection {
    fn new(
        stream: TcpStream,
        layout: RequestLayout,
        behaviour: Behaviour,
        first_request_at: Arc<OnceLock<Instant>>,
        rate: Arc<Mutex<VecDeque<Instant>>>,
    ) -> Connection {
        let late = matches!(behaviour, Behaviour::Valley { .. }).then(|| late_sender(&stream));
        let (out, held_back) = (Vec::new(), Vec::new());
        Connection {
            stream,
            layout,
            behaviour,
            request: 0,
            has_greeted: false,
            out,
            held_back,
            first_request_at,
            rate,
            late,
        }
    }

    fn serve(mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut filled = 0;
        loop {
            let received = self.stream.read(&mut buffer[filled..])?;
            if received == 0 {
                return self.close();
            }
            filled += received;
            self.stall();
            let (taken, next) = self.answer_all(&buffer[..filled]);
            self.send()?;
            if next == Next::Close {
                return self.close();
            }
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
        }
    }

    fn stall(&self) {
        let since_first = self.first_request_at.get_or_init(Instant::now).elapsed();
        let Behaviour::StallsOnce { after_ms, stall_ms } = self.behaviour else { return };
        if since_first >= Duration::from_millis(after_ms) {
            thread::sleep(Duration::from_millis(after_ms + stall_ms).saturating_sub(since_first));
        }
    }

    /// When the answer to a request that has just come is due.
    fn due(&self, from: usize, to: usize) -> Instant {
        let now = Instant::now();
        let mut came_at = self.rate.lock().expect("nobody panics with it");
        came_at.push_back(now);
        while came_at.front().is_some_and(|first| now.duration_since(*first) > RATE_WINDOW) {
            came_at.pop_front();
        }
        let a_second = (came_at.len() as f64 / RATE_WINDOW.as_secs_f64()) as usize;
        if (from..=to).contains(&a_second) { now } else { now + OUTSIDE_THE_VALLEY }
    }

    /// Ends our side, then waits for the client to end its own, so that no answer is lost to a reset.
    fn close(mut self) -> io::Result<()> {
        if !matches!(self.behaviour, Behaviour::NeverCloses | Behaviour::Silent(_)) {
            self.stream.shutdown(Shutdown::Write)?;
            return io::copy(&mut self.stream, &mut io::sink()).map(drop);
        }
        loop {
            thread::park();
        }
    }

    /// Answers the whole requests in `bytes`; returns the bytes that they took.
    fn answer_all(&mut self, bytes: &[u8]) -> (usize, Next) {
        let mut taken = 0;
        while let Some(header) = bytes[taken..].first_chunk::<REQUEST_HEADER_BYTES>() {
            let says_hello = u32::from_le_bytes(*header) == HELLO_MAGIC;
            if self.behaviour == Behaviour::DemandsHello && (says_hello || !self.has_greeted) {
                let Some(hello) = bytes[taken..].first_chunk().filter(|_| says_hello) else {
                    return (taken, if says_hello { Next::GoOn } else { Next::Close });
                };
                taken += hello.len();
                if self.greet(*hello) == Next::Close {
                    return (taken, Next::Close);
                }
                continue;
            }
            let Ok(vectors) = read_vector_count(*header) else {
                match self.behaviour {
                    Behaviour::NoErrorAnswer => {}
                    Behaviour::OtherErrorAnswer => self.out.extend_from_slice(&ErrorCode::ModelFailed.answer()),
                    _ => self.out.extend_from_slice(&ErrorCode::BadVectorCount.answer()),
                }
                return (taken, Next::Close);
            };
            let Some(request) = bytes[taken..].get(..self.layout.request_bytes(vectors)) else { break };
            taken += request.len();
            if self.answer(&request[REQUEST_HEADER_BYTES..]) == Next::Close {
                return (taken, Next::Close);
            }
            self.request += 1;
        }
        (taken, Next::GoOn)
    }

    fn greet(&mut self, hello: [u8; HELLO_REQUEST_BYTES]) -> Next {
        let hello = HelloRequest::from_bytes(hello).expect("it begins as one does");
        self.has_greeted = true;
        if !hello.agrees_with(self.layout.feature_dim()) {
            self.out.extend_from_slice(&ErrorCode::WrongFeatureDim.answer());
            return Next::Close;
        }
        let told = ServerHello {
            feature_dim: self.layout.feature_dim() as u32,
            outputs: 1,
            max_vectors: MAX_VECTORS_PER_REQUEST,
            model_version: 0,
            model_name: "sum",
        };
        told.write(&mut self.out);
        Next::GoOn
    }

    fn answer(&mut self, rows: &[u8]) -> Next {
        let mut answer = vec![0; answer_bytes(MAX_VECTORS_PER_REQUEST)];
        let bytes = write_answer(&self.scores(rows), &mut answer);
        answer.truncate(bytes);
        match self.behaviour {
            Behaviour::WrongBit(at) if at == self.request => {
                let last_score = answer.len() - F32_BYTES;
                answer[last_score] ^= 1;
            }
            Behaviour::OutOfOrder(at) if at == self.request => {
                self.held_back = answer;
                return Next::GoOn;
            }
            Behaviour::CutMidFrame(at) if at == self.request => {
                self.out.extend_from_slice(&answer[..answer.len() / 2]);
                return Next::Close;
            }
            Behaviour::Closes(at) if at == self.request => return Next::Close,
            Behaviour::ErrorAnswer(at) if at == self.request => answer = ErrorCode::Shed.answer().to_vec(),
            Behaviour::EveryFourth(code) if self.request % 4 == 3 => answer = code.answer().to_vec(),
            Behaviour::Nonsense(at) if at == self.request => answer = vec![99; 10],
            Behaviour::ExtraScore(at) if at == self.request => {
                answer[0] += 1;
                answer.extend_from_slice(&[0; F32_BYTES]);
            }
            Behaviour::Twice(at) if at == self.request => self.out.extend_from_slice(&answer),
            Behaviour::Silent(at) if at <= self.request => return Next::GoOn,
            Behaviour::Refuses(at) if at <= self.request => {
                let [first, second] = ErrorCode::Closing.answer();
                self.out.push(first);
                // If the client has hung up, the next read tells.
                let _ = self.send();
                thread::sleep(Duration::from_millis(1));
                answer = vec![second];
            }
            Behaviour::TricklesOut => {
                thread::sleep(Duration::from_millis(20));
                // If the client has hung up, the next read tells.
                let _ = self.stream.write_all(&answer);
                return Next::GoOn;
            }
            Behaviour::Valley { from, to } => {
                let due = self.due(from, to);
                let late = self.late.as_ref().expect("a valley has it");
                // If the client has hung up, the next read tells.
                let _ = late.send((due, answer));
                return Next::GoOn;
            }
            _ => {}
        }
        self.out.extend_from_slice(&answer);
        self.out.append(&mut self.held_back);
        Next::GoOn
    }

    fn scores(&self, rows: &[u8]) -> Vec<f32> {
        let score = |row: &[u8]| {
            let features = row.as_chunks::<F32_BYTES>().0.iter().map(|feature| f32::from_le_bytes(*feature));
            match self.behaviour {
                Behaviour::WrongOrderOfAdding => features.rev().fold(0.0, |sum, feature| sum + feature),
                _ => features.fold(0.0, |sum, feature| sum + feature),
            }
        };
        rows.chunks_exact(self.layout.row_bytes()).map(score).collect()
    }

    fn send(&mut self) -> io::Result<()> {
        let is_cut =
            matches!(self.behaviour, Behaviour::RightByteByByte | Behaviour::DemandsHello | Behaviour::EveryFourth(_));
        let segment_bytes = if is_cut { 1 } else { self.out.len().max(1) };
        for segment in self.out.chunks(segment_bytes) {
            self.stream.write_all(segment)?;
        }
        self.out.clear();
        Ok(())
    }
}
