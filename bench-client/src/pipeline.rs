//! `pipeline`: 1000 requests of mixed sizes on one connection, sent by one thread while another reads the answers.
//!
//! It measures nothing. It is where a server shows whether answers stay in order, and complete, when requests arrive in
//! bursts that end anywhere, and whether a client that shuts down its sending side still gets all of them.
//!
//! Invariants: it ends well only if all answers came, in order, to the last bit, and then the end of the stream.
#![forbid(unsafe_code)]

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use disrust_protocol::{MAX_VECTORS_PER_REQUEST, RequestLayout, write_request};
use fastrand::Rng;
use socket2::Socket;

use crate::answers::AnswerReader;
use crate::connect::{Target, connect};
use crate::failure::{Failure, Fault};
use crate::rows;

/// Requests on the connection: about 2 MB of them. Larger: slower, and more memory. Smaller: the
/// sockets' buffers might hold them all, and nothing would be sent while answers are read.
const REQUEST_COUNT: usize = 1000;

/// All requests, encoded one after the other, and what they should be answered.
struct Requests {
    bytes: Vec<u8>,
    /// Where each request ends in `bytes`.
    ends: Vec<usize>,
    /// The scores of each request.
    expected: Vec<Vec<f32>>,
}

/// Runs the pipeline check against `target`.
pub fn run(target: &Target, out: &mut impl Write) -> Result<(), Failure> {
    let requests = random_requests(RequestLayout::new(target.features as usize), target.seed);
    let stream = connect(target)?;
    exchange(&stream, &requests, target.timeout)?;
    let vectors: usize = requests.expected.iter().map(Vec::len).sum();
    writeln!(
        out,
        "pipeline: sent {REQUEST_COUNT} requests ({vectors} vectors, {} bytes, seed {}); \
         received all answers in order, every bit right, then the end of the stream",
        requests.bytes.len(),
        target.seed,
    )
    .map_err(Failure::local("print"))
}

fn random_requests(layout: RequestLayout, seed: u64) -> Requests {
    let mut random = Rng::with_seed(seed);
    let mut requests = Requests { bytes: Vec::new(), ends: Vec::new(), expected: Vec::new() };
    for _ in 0..REQUEST_COUNT {
        let vectors = random.u32(1..=MAX_VECTORS_PER_REQUEST);
        let rows = rows::random_rows(layout, vectors as usize, &mut random);
        write_request(layout, &rows, &mut requests.bytes);
        requests.ends.push(requests.bytes.len());
        requests.expected.push(rows::scores(layout, &rows));
    }
    requests
}

/// Sends and reads at the same time. If both fail, the reader knows better why.
fn exchange(stream: &Socket, requests: &Requests, timeout: Duration) -> Result<(), Failure> {
    thread::scope(|scope| {
        let sender = scope.spawn(|| send_all(stream, requests, timeout));
        let read = read_all(stream, requests, timeout);
        if read.is_err() {
            // The sender may still be waiting for room that nobody will make. If this fails, the stream is
            // down already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let sent = sender.join().unwrap_or_else(|panic| resume_unwind(panic));
        read.and(sent)
    })
}

fn send_all(mut stream: &Socket, requests: &Requests, timeout: Duration) -> Result<(), Failure> {
    let mut sent_bytes = 0;
    while sent_bytes < requests.bytes.len() {
        let fault = match stream.write(&requests.bytes[sent_bytes..]) {
            Ok(bytes) => {
                sent_bytes += bytes;
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Fault::Stalled(timeout),
            Err(error) => Fault::Send(error),
        };
        let request = requests.ends.partition_point(|&end| end <= sent_bytes);
        return Err(Failure::At { connection: 0, request: request as u64, fault });
    }
    stream.shutdown(Shutdown::Write).map_err(Failure::local("shut down the sending side"))
}

fn read_all(stream: &Socket, requests: &Requests, timeout: Duration) -> Result<(), Failure> {
    let mut answers = AnswerReader::new(stream, timeout);
    for (expected, request) in requests.expected.iter().zip(0..) {
        answers.read_scores(expected).map_err(Failure::at(0, request))?;
    }
    answers.read_end().map_err(Failure::at(0, REQUEST_COUNT as u64))
}
