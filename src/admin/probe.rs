//! Asks a server's admin port whether it is ready: for containers that have no shell.
//!
//! It is a process of its own, which asks once, waits for a bounded time, and ends.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use thiserror::Error;

/// How long each step may take: connecting, sending, each part of the answer. Larger: whoever waits for it waits for longer.
/// Smaller: a busy machine looks unhealthy.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of an answer, at most. Larger: something else that listens there is heard for longer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Why nothing is known of the server.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Nobody answers.
    #[error(
        "cannot ask {address}: {source}. The likely cause is that no server runs there, that it is still loading its model, or \
         that its --admin is another address"
    )]
    NoAnswer {
        /// Who was asked.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody answers who is no server of ours.
    #[error("what answers at {0} is no admin port of disrust")]
    Stranger(SocketAddr),
}

/// What the server said.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it is ready.
    pub is_ready: bool,
    /// Why, in lines.
    pub words: String,
}

/// Asks whether the server is ready whose admin port is at `address`.
///
/// # Errors
/// See [`ProbeError`].
pub fn ask(address: SocketAddr) -> Result<Answer, ProbeError> {
    let heard = exchange(address).map_err(|source| ProbeError::NoAnswer { address, source })?;
    understood(&heard).ok_or(ProbeError::Stranger(address))
}

fn exchange(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /readyz?verbose HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut heard = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut heard)?;
    Ok(heard)
}

/// The status and the body of an answer, if it is one of /readyz.
fn understood(heard: &[u8]) -> Option<Answer> {
    let heard = str::from_utf8(heard).ok()?;
    let (head, body) = heard.split_once("\r\n\r\n")?;
    let is_ready = match head.split(' ').nth(1)? {
        "200" => true,
        "503" => false,
        _ => return None,
    };
    (head.starts_with("HTTP/1.1 ") && body.starts_with('[')).then(|| Answer { is_ready, words: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_of_readyz_are_understood() {
        let answer = |is_ready, words: &str| Some(Answer { is_ready, words: words.to_owned() });
        for (heard, expected) in [
            ("HTTP/1.1 200 OK\r\na: b\r\n\r\n[+] model ok\nok\n", answer(true, "[+] model ok\nok\n")),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n[-] step: x\n", answer(false, "[-] step: x\n")),
            ("HTTP/1.1 404 Not Found\r\n\r\n[", None),
            ("HTTP/1.1 200 OK\r\n\r\n<html>", None),
            ("HTTP/1.1 200 OK\r\n", None),
            ("\u{0}\u{3}", None),
            ("", None),
        ] {
            assert_eq!(understood(heard.as_bytes()), expected, "{heard:?}");
        }
        assert_eq!(understood(b"HTTP/1.1 200 OK\r\n\r\n[\xff"), None);
    }
}
