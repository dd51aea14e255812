//! A client of the admin port that knows just enough HTTP to see what a server answers.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The lines of its head, in lower case.
    pub head: Vec<String>,
    pub body: String,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Connects to an admin port. Reads and writes give up after a while.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the admin port listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time above 0");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time above 0");
    stream
}

/// Asks for a path.
pub fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: disrust\r\nConnection: close\r\n\r\n"))
}

/// The status that asking for a path has.
pub fn status(address: SocketAddr, path: &str) -> u16 {
    get(address, path).status
}

/// Sends a request as it is; it asks for its connection to be closed, or is refused.
pub fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("the server takes what is sent");
    answer_of(&read_to_end(&mut stream)).expect("an answer")
}

/// All that comes, also from a stream that breaks in the end.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return heard,
            Ok(bytes) => heard.extend_from_slice(&buffer[..bytes]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return heard,
            Err(error) => panic!("the server ends every connection: {error}"),
        }
    }
}

/// What was heard, if it is an answer.
pub fn answer_of(heard: &[u8]) -> Option<Answer> {
    let heard = str::from_utf8(heard).ok()?;
    let (head, body) = heard.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    Some(Answer { status, head: head.lines().map(str::to_lowercase).collect(), body: body.to_owned() })
}

/// A scrape: each sample's value by its name with its labels.
pub fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let answer = get(address, "/metrics");
    assert_eq!(answer.status, 200);
    samples(&answer.body)
}

/// The samples of a text, each of which must have been declared.
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut family) = (BTreeMap::new(), None);
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            family = declared.split(' ').next();
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            assert!(family.is_some_and(|family| name.starts_with(family)), "{line}");
            let before = samples.insert(name.to_owned(), value.parse().expect("a number"));
            assert_eq!(before, None, "{name} is there once");
        }
    }
    samples
}

/// A sample's value.
pub fn value(samples: &BTreeMap<String, f64>, name: &str) -> u64 {
    *samples.get(name).unwrap_or_else(|| panic!("there is {name}")) as u64
}

/// What nobody should send, mostly of words that mean something here.
pub fn garbage(rng: &mut fastrand::Rng) -> Vec<u8> {
    const PIECES: [&str; 24] = [
        "GET ",
        "HEAD ",
        "POST ",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "/",
        "/metrics",
        "/status.json",
        "/%00",
        "?verbose",
        " HTTP/1.1",
        " HTTP/9.9",
        "\r\n",
        "\n",
        "\r\n\r\n",
        "Host: ",
        "Content-Length: ",
        "18446744073709551616",
        "-1",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue\r\n",
        "Connection: keep-alive\r\n",
        "Upgrade: h2c\r\n",
        ": ",
        "\u{0}",
    ];
    let mut garbage = Vec::new();
    for _ in 0..rng.usize(1..40) {
        match rng.u8(..) {
            0..200 => garbage.extend_from_slice(PIECES[rng.usize(..PIECES.len())].as_bytes()),
            200..240 => garbage.extend((0..rng.usize(..64)).map(|_| rng.u8(..))),
            _ => garbage.extend(std::iter::repeat_n(rng.alphanumeric() as u8, rng.usize(..20_000))),
        }
    }
    garbage
}
