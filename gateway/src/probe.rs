//! Asks a running gateway whether it is ready: for containers that have no shell. It is a process of its own, which asks once, waits for a
//! bounded time, and ends.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use thiserror::Error;

/// How long each step may take: connecting, sending, each part of the answer. Larger: whoever waits for it waits for longer.
/// Smaller: a busy machine looks unhealthy.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of an answer, at most. Larger: something else that listens there is heard for longer.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Why nothing is known of the gateway.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Nobody answers.
    #[error(
        "cannot ask {address}: {source}. The likely cause is that no gateway runs there, or that its --listen is another address"
    )]
    NoAnswer {
        /// Who was asked.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It is not ready, or no gateway; with what it said.
    #[error("{address} is not ready: {said}")]
    NotReady {
        /// Who was asked.
        address: SocketAddr,
        /// The answer's first line and its body.
        said: String,
    },
}

/// Asks the gateway that listens there.
///
/// # Errors
/// It is not ready, or does not answer.
pub fn ask(listen: SocketAddr) -> Result<(), ProbeError> {
    let address = reachable(listen);
    let heard = exchange(address).map_err(|source| ProbeError::NoAnswer { address, source })?;
    let heard = String::from_utf8_lossy(&heard);
    let (head, body) = heard.split_once("\r\n\r\n").unwrap_or((&heard, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.starts_with("HTTP/1.1 200 ") && body == "{\"ready\":true}" {
        return Ok(());
    }
    Err(ProbeError::NotReady { address, said: format!("{status} {}", body.lines().next().unwrap_or_default()) })
}

/// Who listens on all addresses is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let host = match listen.ip() {
        IpAddr::V4(host) if host.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(host) if host.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    };
    SocketAddr::new(host, listen.port())
}

fn exchange(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /v2/health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut heard = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut heard)?;
    Ok(heard)
}
