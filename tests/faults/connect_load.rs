//! A load of connects: peers that connect anew for each exchange, and count whatever an operator would hear about.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use disrust_protocol::{ErrorCode, FEATURE_DIM};
use socket2::SockRef;

use super::common::Request;

/// How long a connect or an answer is waited for. Longer than a SYN that is dropped twice.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two exchanges of a peer: the machine's table of connections, if it keeps one, must not fill up.
const PAUSE: Duration = Duration::from_micros(500);

/// What came of exchanges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answered as they must be.
    pub answered: u64,
    /// Nobody listened.
    pub refused: u64,
    /// Reset, on the connect or after it.
    pub reset: u64,
    /// The connection ended in order, without an answer.
    pub unanswered: u64,
    /// Error answer 4.
    pub closing: u64,
    /// No connection or no answer within [`PATIENCE`].
    pub late: u64,
    /// The longest that an answered exchange took.
    pub slowest: Duration,
}

impl Tally {
    /// How many were lost without a word that the peer could act on.
    pub fn broken(&self) -> u64 {
        self.reset + self.unanswered + self.late
    }

    /// How many a service that is never down would not have.
    pub fn failed(&self) -> u64 {
        self.broken() + self.refused + self.closing
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.reset += other.reset;
        self.unanswered += other.unanswered;
        self.closing += other.closing;
        self.late += other.late;
        self.slowest = self.slowest.max(other.slowest);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { answered, refused, reset, unanswered, closing, late, slowest } = self;
        write!(
            formatter,
            "{answered} exchanges, {refused} refused, {reset} reset, {unanswered} ended unanswered, {closing} error 4, \
             {late} late, the slowest {slowest:.1?}"
        )
    }
}

/// Running peers.
pub struct ConnectLoad {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    threads: Vec<JoinHandle<()>>,
}

impl ConnectLoad {
    pub fn start(address: SocketAddr, peers: u64, seed: u64) -> ConnectLoad {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let threads = (0..peers).map(|index| {
            let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
            let mut rng = fastrand::Rng::with_seed(seed ^ index << 32);
            std::thread::spawn(move || {
                // Relaxed: the flag guards nothing.
                while !stop.load(Ordering::Relaxed) {
                    let outcome = exchange_anew(address, &mut rng);
                    *tally.lock().expect("nobody panics while holding it") += outcome;
                    std::thread::sleep(PAUSE);
                }
            })
        });
        let threads = threads.collect();
        ConnectLoad { stop, tally, threads }
    }

    /// What has come of them since the last call.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut *self.tally.lock().expect("nobody panics while holding it"))
    }

    /// Ends them; what has come of them since the last call.
    pub fn finish(self) -> Tally {
        // Relaxed: the flag guards nothing.
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("right answers, or none"));
        *self.tally.lock().expect("nobody holds it any more")
    }
}

/// One exchange over a connection of its own. A wrong answer is a panic.
fn exchange_anew(address: SocketAddr, rng: &mut fastrand::Rng) -> Tally {
    let vectors = rng.usize(1..=4);
    let request = Request::random(rng, FEATURE_DIM, vectors);
    let begun_at = Instant::now();
    let mut tally = Tally::default();
    match ask(address, &request) {
        Ok(Outcome::Answered) => (tally.answered, tally.slowest) = (1, begun_at.elapsed()),
        Ok(Outcome::Closing) => tally.closing = 1,
        Ok(Outcome::Ended) => tally.unanswered = 1,
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => tally.refused = 1,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => tally.late = 1,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => tally.reset = 1,
            // Our own ports are used up, by connections in TIME_WAIT. That is no fault of the server's.
            ErrorKind::AddrNotAvailable => {}
            _ => panic!("a peer cannot connect: {error}"),
        },
    }
    tally
}

enum Outcome {
    Answered,
    Closing,
    Ended,
}

fn ask(address: SocketAddr, request: &Request) -> io::Result<Outcome> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&request.bytes)?;
    let expected = request.reply.wire_bytes();
    let mut received = Vec::new();
    let mut bytes = [0; 64];
    while received.len() < expected.len() {
        match stream.read(&mut bytes)? {
            0 => return Ok(Outcome::Ended),
            count => received.extend_from_slice(&bytes[..count]),
        }
        if received == [0, ErrorCode::Closing as u8] {
            return Ok(Outcome::Closing);
        }
    }
    // No TIME_WAIT, whose number is limited for the whole machine.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    assert!(received == expected, "a wrong answer: {received:?}, not {expected:?}");
    Ok(Outcome::Answered)
}
