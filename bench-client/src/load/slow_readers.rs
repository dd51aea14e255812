//! Slow readers: connections that ask as much as they can and read next to nothing.
//!
//! They are not measured. They are there to see whether a server lets them cost the measured connections anything: one
//! that queues their answers without a bound grows, one that blocks on them stalls.
//!
//! Invariants: what they do read is verified; a server that hangs up on them is within its rights, and that is no
//! failure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::Socket;

use crate::connect::Target;
use crate::failure::{Failure, Fault};
use crate::load::connect_nonblocking;
use crate::load::connection::Connection;
use crate::load::request_stream::RequestStream;

/// Pause between two reads of all slow readers. Longer: slower. Shorter: they cost CPU that the measured ones need.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes that each of them reads at once.
const READ_BYTES: usize = 64;

/// Requests that each of them has due: more than any socket takes.
const DUE: u64 = 1 << 24;

/// Connects all of them.
pub fn connect_all(target: &Target, count: u32) -> Result<Vec<Socket>, Failure> {
    (0..count).map(|_| connect_nonblocking(target)).collect()
}

/// Asks and reads until `stop`; returns the answers that were read, of which some are errors if `counts_errors`.
pub fn run(
    sockets: Vec<Socket>,
    stream: &RequestStream,
    counts_errors: bool,
    stop: &AtomicBool,
) -> Result<u64, Failure> {
    let sockets = sockets.into_iter().enumerate();
    let mut connections: Vec<Connection<'_>> =
        sockets.map(|(index, socket)| Connection::new(socket, index, stream, counts_errors)).collect();
    for connection in &mut connections {
        connection.claim(DUE);
    }
    let mut answers = 0;
    // Relaxed: it carries nothing but itself.
    while !stop.load(Ordering::Relaxed) && !connections.is_empty() {
        let mut served = Vec::with_capacity(connections.len());
        for mut connection in connections {
            match turn(&mut connection) {
                Ok(count) => {
                    answers += count;
                    served.push(connection);
                }
                Err(Failure::At { fault: Fault::Send(_) | Fault::Receive(_) | Fault::ClosedEarly(_), .. }) => {}
                Err(failure) => return Err(failure),
            }
        }
        connections = served;
        thread::sleep(PAUSE);
    }
    Ok(answers)
}

fn turn(connection: &mut Connection<'_>) -> Result<u64, Failure> {
    connection.writable()?;
    connection.send(0)?;
    connection.receive_once(&mut [0; READ_BYTES])?;
    let mut answers = 0;
    connection.take_answers(0, |taken| answers += taken.count);
    Ok(answers)
}
