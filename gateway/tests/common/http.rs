//! A client that knows just enough HTTP to see what is answered.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The lines of its head, in lower case.
    pub head: Vec<String>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What an answer that is an error says.
    pub fn error(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "clients compare it");
        self.json()["error"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    /// The scores of an answer in JSON.
    pub fn scores(&self) -> Vec<f64> {
        assert_eq!(self.status, 200, "{}", self.text());
        let json = self.json();
        let data = json["outputs"][0]["data"].as_array().unwrap_or_else(|| panic!("{json}"));
        data.iter().map(|score| score.as_f64().unwrap_or(f64::NAN)).collect()
    }
}

/// A connection, over which requests can follow one another.
pub struct Connection {
    pub stream: TcpStream,
    heard: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Connection {
        Connection::try_open(address).expect("the gateway listens")
    }

    /// Nothing if nobody listens.
    pub fn try_open(address: SocketAddr) -> Option<Connection> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a time above 0");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time above 0");
        stream.set_nodelay(true).expect("a TCP socket");
        Some(Connection { stream, heard: Vec::new() })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the gateway takes what is sent");
    }

    /// Sends what the gateway may not take to its end.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ended = self.stream.write_all(bytes.as_ref());
    }

    /// The next answer; nothing if the connection ends before it begins.
    pub fn receive(&mut self) -> Option<Answer> {
        loop {
            if let Some((answer, length)) = answer_at(&self.heard) {
                self.heard.drain(..length);
                return Some(answer);
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    assert!(
                        self.heard.is_empty(),
                        "an answer that ends half-way: {}",
                        String::from_utf8_lossy(&self.heard)
                    );
                    return None;
                }
                Ok(bytes) => self.heard.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return None;
                }
                Err(error) => panic!("the gateway answers or closes: {error}"),
            }
        }
    }

    /// All that comes, also from a connection that breaks in the end.
    pub fn read_to_end(&mut self) -> String {
        let (mut heard, mut buffer) = (std::mem::take(&mut self.heard), [0; 16 * 1024]);
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => heard.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("the gateway ends the connection: {error}"),
            }
        }
        String::from_utf8_lossy(&heard).into_owned()
    }

    /// Whether the gateway closes it, without another answer.
    pub fn is_closed(&mut self) -> bool {
        self.receive().is_none()
    }

    /// Sends a request for scores and gives the answer.
    pub fn post(&mut self, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        self.try_send([head.as_bytes(), body].concat());
        self.receive().expect("an answer")
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.receive().expect("an answer")
    }
}

/// The answer at the front of what was heard, and its length, if it is whole.
fn answer_at(heard: &[u8]) -> Option<(Answer, usize)> {
    let end = heard.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = str::from_utf8(&heard[..end]).expect("a head is text");
    let status: u16 = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok()).expect("a status");
    let head: Vec<String> = head.lines().map(str::to_lowercase).collect();
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().expect("a length"));
    let body = heard.get(end + 4..end + 4 + length)?.to_vec();
    Some((Answer { status, head, body }, end + 4 + length))
}

/// Asks over a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Answer {
    Connection::open(address).get(path)
}

/// Asks for scores over a connection of its own.
pub fn post(address: SocketAddr, path: &str, body: impl AsRef<[u8]>) -> Answer {
    Connection::open(address).post(path, "", body)
}

/// Sends a request as it is, over a connection of its own.
pub fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Option<Answer> {
    let mut connection = Connection::open(address);
    connection.try_send(request);
    connection.receive()
}
