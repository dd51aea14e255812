//! A client that believes nothing: every answer is compared with what it must be.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use disrust_protocol::{
    Answer, ErrorCode, HELLO_ANSWER_BYTES_MAX, HelloAnswer, HelloRequest, MAX_VECTORS_PER_REQUEST, answer_bytes,
    read_answer, read_hello_answer,
};
use socket2::{Domain, SockRef, Socket, Type};

use super::{PATIENCE, Reply, Request, bytes_of};

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub feature_dim: u32,
    pub outputs: u32,
    pub max_vectors: u32,
    pub model_version: u64,
    pub model_name: String,
}

/// One connection. Reads and writes give up after a while.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).expect("the server listens"))
    }

    /// A client whose side of the connection holds little that it does not read or the server does not take.
    pub fn with_small_buffers(address: SocketAddr) -> Client {
        Client::over(connected(address, Some(4 * 1024), Some(32 * 1024)))
    }

    /// A client that comes by a Unix socket. It is a TCP stream by its type alone: of what a test does with one, only a reset is
    /// TCP's.
    pub fn connect_at(path: &str) -> std::io::Result<Client> {
        Ok(Client::over_any(OwnedFd::from(UnixStream::connect(path)?).into()))
    }

    fn over(stream: TcpStream) -> Client {
        stream.set_nodelay(true).expect("a TCP socket");
        Client::over_any(stream)
    }

    fn over_any(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time above 0");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time above 0");
        Client(BufReader::new(stream))
    }

    pub fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    pub fn send(&self, bytes: &[u8]) {
        self.stream().write_all(bytes).expect("the server takes what is sent");
    }

    pub fn send_all(&self, requests: &[Request]) {
        self.send(&bytes_of(requests));
    }

    /// The next answer, or `None` at the end of the stream. A stream that breaks, also within an answer, is a failure.
    pub fn receive(&mut self) -> Option<Reply> {
        self.receive_or_break().expect("an answer or the end, not a reset")
    }

    /// The same; `Err` if the stream breaks before an answer.
    pub fn receive_or_break(&mut self) -> std::io::Result<Option<Reply>> {
        let mut bytes = [0; answer_bytes(MAX_VECTORS_PER_REQUEST)];
        let (header, body) = bytes.split_at_mut(1);
        if self.read_or_end(header)? == 0 {
            return Ok(None);
        }
        let body_bytes = if header[0] == 0 { 1 } else { 4 * usize::from(header[0]) };
        assert!(body_bytes <= body.len(), "a stray byte: no answer has {} scores", header[0]);
        self.0.read_exact(&mut body[..body_bytes]).expect("the rest of an answer");
        let answer =
            read_answer(&bytes[..1 + body_bytes]).expect("an answer of the protocol").expect("a whole answer").0;
        Ok(Some(match answer {
            Answer::Scores(scores) => Reply::Scores(scores.iter().collect()),
            Answer::Error(error) => Reply::Error(error),
        }))
    }

    /// Says hello for vectors of so many features, or only asks.
    pub fn send_hello(&self, feature_dim: usize) {
        let feature_dim = u32::try_from(feature_dim).expect("a number of features");
        self.send(&HelloRequest { feature_dim }.to_bytes());
    }

    /// The next answer, which is one to a hello or an error; or `None` at the end of the stream.
    pub fn receive_hello(&mut self) -> Option<Result<Told, ErrorCode>> {
        let mut bytes = [0; HELLO_ANSWER_BYTES_MAX];
        let mut length = 0;
        loop {
            match read_hello_answer(&bytes[..length]).expect("an answer to a hello") {
                Some((HelloAnswer::Error(error), _)) => return Some(Err(error)),
                Some((HelloAnswer::Server(hello), _)) => {
                    return Some(Ok(Told {
                        feature_dim: hello.feature_dim,
                        outputs: hello.outputs,
                        max_vectors: hello.max_vectors,
                        model_version: hello.model_version,
                        model_name: hello.model_name.to_owned(),
                    }));
                }
                None if length == 0 => match self.read_or_end(&mut bytes[..1]).expect("an answer or the end") {
                    0 => return None,
                    read => length += read,
                },
                None => {
                    self.0.read_exact(&mut bytes[length..=length]).expect("the rest of an answer");
                    length += 1;
                }
            }
        }
    }

    /// Says hello, and is answered.
    pub fn hello(&mut self, feature_dim: usize) -> Result<Told, ErrorCode> {
        self.send_hello(feature_dim);
        self.receive_hello().expect("an answer")
    }

    /// Reads something, or 0 bytes at the end. A socket with a timeout is interrupted by a stop of the process.
    fn read_or_end(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.0.read(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    /// Receives the answers to these requests, in this order.
    pub fn expect<'a>(&mut self, requests: impl IntoIterator<Item = &'a Request>) {
        for (index, request) in requests.into_iter().enumerate() {
            assert_eq!(self.receive().as_ref(), Some(&request.reply), "answer {index}");
        }
    }

    /// The server has closed in order, and not a byte is left.
    pub fn expect_end(&mut self) {
        assert_eq!(self.receive(), None, "the end of the stream");
    }

    /// Sends requests and receives their answers at the same time, however many there are.
    pub fn exchange(&mut self, requests: &[Request]) {
        let mut writer = self.stream().try_clone().expect("a descriptor");
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(&bytes_of(requests)).expect("the server takes what is sent"));
            self.expect(requests);
        });
    }

    /// Sends no more (FIN).
    pub fn half_close(&self) {
        self.stream().shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Breaks the connection off (RST).
    pub fn reset(self) {
        SockRef::from(self.stream()).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    }

    /// Whether the server has closed the connection without answering anything.
    pub fn is_closed_at_once(&mut self) -> bool {
        self.0.read(&mut [0; 1]).map_or(true, |bytes| bytes == 0)
    }

    /// Whether the server has ended or broken the connection; reads away what came before.
    pub fn is_closed_by_server(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}

/// A connection whose buffers on this side are of these sizes, or as usual.
pub fn connected(address: SocketAddr, receive_bytes: Option<usize>, send_bytes: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a descriptor");
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes).expect("a TCP socket");
    }
    if let Some(bytes) = send_bytes {
        socket.set_send_buffer_size(bytes).expect("a TCP socket");
    }
    socket.connect(&address.into()).expect("the server listens");
    socket.into()
}

/// Clients that send one request over and over, as much as the server takes, and read no answer.
pub struct DeafCrowd {
    clients: Vec<Client>,
    bytes: Vec<u8>,
    /// Of each, where in `bytes` its stream stopped: a write may end within a request.
    sent: Vec<usize>,
}

impl DeafCrowd {
    pub fn connect(address: SocketAddr, count: usize, request: &Request) -> DeafCrowd {
        let clients: Vec<_> = (0..count).map(|_| Client::with_small_buffers(address)).collect();
        clients.iter().for_each(|client| client.stream().set_nonblocking(true).expect("a TCP socket"));
        DeafCrowd { clients, bytes: request.bytes.repeat(256), sent: vec![0; count] }
    }

    /// Sends until nobody can send any more: the server is held back by answers that are not read.
    pub fn send_until_held_back(&mut self) {
        let mut quiet = 0;
        super::wait_patiently_until(super::PATIENCE_FOR_END, "the peers are held back", || {
            let before = self.sent.clone();
            self.send();
            quiet = if before == self.sent { quiet + 1 } else { 0 };
            quiet > 50
        });
    }

    /// Sends what is taken now.
    pub fn send(&mut self) {
        for (client, sent) in self.clients.iter().zip(&mut self.sent) {
            // Bounded, since a server that takes without end never lets a write fail.
            for _ in 0..100 {
                let Ok(written) = client.stream().write(&self.bytes[*sent..]) else { break };
                *sent = (*sent + written) % self.bytes.len();
            }
        }
    }
}
