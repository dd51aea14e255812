//! Promise: nothing allocates on a request's path.
//!
//! A counting allocator under a whole server, in this process. It is the only test here, because it counts for all
//! threads; its own client does not allocate either while it counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

use disrust::config::Config;
use disrust::config::placement::Pin;
use disrust::server::Server;
use disrust_model::Sum;
use disrust_protocol::{RequestLayout, write_request};

struct CountingAllocator;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Requests of all sizes, pipelined on many connections and cut at odd places, allocate nothing once connected.
#[test]
fn requests_are_answered_without_allocating() {
    const CONNECTIONS: usize = 40;
    const ROUNDS: usize = 200;
    /// A prime, so that requests are cut everywhere.
    const PIECE_BYTES: usize = 1361;
    let config = Config { port: Some(0), io_threads: Some(2), pin: Pin::None, ..Config::default() };
    let server = Server::start(&config, Box::new(Sum::new(16))).expect("the server starts");
    let mut connections: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(server.address().expect("it has a port")).expect("the server accepts"))
        .collect();
    let mut requests = Vec::new();
    let mut answer_bytes = 0;
    for vectors in [1, 64, 2, 33, 1, 7] {
        write_request(RequestLayout::new(16), &vec![1.0; vectors * 16], &mut requests);
        answer_bytes += 1 + 4 * vectors;
    }
    let mut answers = vec![0; answer_bytes];
    let mut round = || {
        for piece in requests.chunks(PIECE_BYTES) {
            for connection in &mut connections {
                connection.write_all(piece).expect("the server receives");
            }
        }
        for connection in &mut connections {
            connection.read_exact(&mut answers).expect("the server answers");
        }
    };
    round();

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..ROUNDS {
        round();
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(allocations, 0, "allocations in {ROUNDS} rounds of {CONNECTIONS} connections");

    drop(connections);
    server.handle().drain();
    let report = server.wait().expect("the server drains");
    assert_eq!(report.answered, (6 * CONNECTIONS * (ROUNDS + 1)) as u64);
}
