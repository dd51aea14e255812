//! A server that does what a test says, each connection on a thread of its own.
#![allow(dead_code, reason = "each test crate uses its part of this")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use disrust_protocol::{HELLO_MAGIC, HELLO_REQUEST_BYTES, ServerHello, write_answer_of};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Features of rows, unless a test says otherwise.
pub const FEATURES: usize = 3;

/// A source of randomness whose seed is printed; the variable of that name replays it.
pub fn seeded() -> fastrand::Rng {
    let replayed = std::env::var("DISRUST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = replayed.unwrap_or_else(|| fastrand::u64(..));
    println!("DISRUST_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Waits until something holds.
pub async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun_at = Instant::now();
    while !holds() {
        assert!(begun_at.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The sum of each row.
pub fn sums(rows: &[f32]) -> Vec<f32> {
    rows.chunks(FEATURES).map(|row| row.iter().sum()).collect()
}

/// Rows that no two calls of a test share.
pub fn rows_of(number: usize, count: usize) -> Vec<f32> {
    (0..count).flat_map(|row| [number as f32, row as f32 / 128.0, 0.5]).collect()
}

/// See the module.
pub struct Stub {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Stub {
    /// Listens, and plays this for each connection, with its number from 0.
    pub fn start(play: impl Fn(Peer, usize) + Send + Sync + 'static) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let (play, count) = (Arc::new(play), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (play, number) = (Arc::clone(&play), count.fetch_add(1, Ordering::SeqCst));
                stream.set_nodelay(true).expect("a TCP socket");
                stream.set_read_timeout(Some(PATIENCE)).expect("a time above 0");
                stream.set_write_timeout(Some(PATIENCE)).expect("a time above 0");
                std::thread::spawn(move || play(Peer { stream, outputs: 1 }, number));
            }
        });
        Stub { address, connections }
    }

    /// One that is a good server of the sum model.
    pub fn good() -> Stub {
        Stub::start(|mut peer, _| peer.serve())
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Connections until now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    Hello,
    /// The rows of a request.
    Rows(Vec<f32>),
}

/// The stub's end of a connection.
pub struct Peer {
    stream: TcpStream,
    outputs: u32,
}

impl Peer {
    /// The bytes of the next message, or none at the end; of rows of so many features.
    pub fn receive_bytes(&mut self, features: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 4];
        self.read(&mut bytes)?;
        let header = u32::from_le_bytes(bytes[..].try_into().expect("4 bytes"));
        let more = if header == HELLO_MAGIC { HELLO_REQUEST_BYTES - 4 } else { header as usize * features * 4 };
        bytes.resize(4 + more, 0);
        self.read(&mut bytes[4..])?;
        Some(bytes)
    }

    pub fn receive(&mut self) -> Option<Message> {
        let bytes = self.receive_bytes(FEATURES)?;
        if bytes[..4] == HELLO_MAGIC.to_le_bytes() {
            return Some(Message::Hello);
        }
        let (values, _) = bytes[4..].as_chunks::<4>();
        Some(Message::Rows(values.iter().map(|value| f32::from_le_bytes(*value)).collect()))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) => {
                assert!(error.kind() != ErrorKind::WouldBlock, "the client is to end its connections");
                None
            }
        }
    }

    /// Sends, if the client still listens.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends byte by byte, each in a segment of its own.
    pub fn send_slowly(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| self.send(&[*byte]))
    }

    pub fn send_hello(&mut self, features: usize, outputs: u32) -> bool {
        self.outputs = outputs;
        self.send(&hello_bytes(features, outputs))
    }

    /// Takes a hello and answers it.
    pub fn greet(&mut self) {
        assert_eq!(self.receive(), Some(Message::Hello));
        self.send_hello(FEATURES, 1);
    }

    /// The next request's rows; hellos are answered.
    pub fn rows(&mut self) -> Option<Vec<f32>> {
        loop {
            match self.receive()? {
                Message::Hello => _ = self.send_hello(FEATURES, self.outputs),
                Message::Rows(rows) => return Some(rows),
            }
        }
    }

    /// Serves as a good server does, to the end.
    pub fn serve(&mut self) {
        while let Some(rows) = self.rows() {
            self.send(&answer_bytes(&sums(&rows)));
        }
    }

    /// Ends its side, and waits for the client's end.
    pub fn end(mut self) {
        // The client may have ended first.
        let _gone_before = self.stream.shutdown(Shutdown::Write);
        let _ended = self.stream.read_to_end(&mut Vec::new());
    }
}

pub fn hello_bytes(features: usize, outputs: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let feature_dim = features as u32;
    ServerHello { feature_dim, outputs, max_vectors: 64, model_version: 7, model_name: "stub" }.write(&mut bytes);
    bytes
}

/// The answer of one score a row.
pub fn answer_bytes(scores: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; 1 + size_of_val(scores)];
    write_answer_of(1, scores, &mut bytes);
    bytes
}
