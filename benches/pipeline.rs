//! What a request costs a client of the whole server: over loopback, from the first byte sent to the last one received.
//!
//! ```sh
//! cargo bench --bench pipeline
//! ```
//!
//! A server with one I/O thread runs in this process; a blocking client on one connection sends a window of 1, 16 or 64
//! requests with one write and reads all the answers before it sends the next: a closed loop. The time is that of one
//! request, which with a window of 1 is the round trip. Every answer is compared, bit by bit, with what it should be.
//!
//! On a machine of two CPUs the server's two threads share the first and the client has the other; on larger ones each
//! of the three has its own. The client's share of the time, its system calls and the kernel's TCP, is in the figures.
//!
//! Not here: many connections, open-loop latency and tail latency; `client` measures those.
//!
//! No branch predictor learns the input: features are random, and of a table of thousands of random requests each
//! window begins at one that a generator draws.

#[path = "parts/measure.rs"]
mod measure;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use criterion::Criterion;
use disrust::config::Config;
use disrust::kernel::{available_cpus, pin_current_thread};
use disrust::server::Server;
use disrust_model::Sum;
use disrust_protocol::{
    FEATURE_DIM, MAX_VECTORS_PER_REQUEST, RequestLayout, answer_bytes, write_answer, write_request,
};
use fastrand::Rng;

use measure::{criterion, group, iter_items};

const LAYOUT: RequestLayout = RequestLayout::new(FEATURE_DIM);

const WINDOW_MAX: usize = 64;

fn main() {
    // The scheduler has its part in these figures, so they scatter: more of them than elsewhere.
    let mut criterion = criterion(50, Duration::from_secs(2));
    let config = Config { port: Some(0), io_threads: Some(1), ..Config::default() };
    let server = Server::start(&config, Box::new(Sum::new(FEATURE_DIM))).expect("the server starts");
    // After the start: the server looks at the CPUs that its starter may use.
    let last_cpu = available_cpus().pop().expect("this thread runs somewhere");
    assert!(pin_current_thread(last_cpu), "the CPU was there");
    let mut connection = TcpStream::connect(server.address().expect("it has a port")).expect("the server accepts");
    connection.set_nodelay(true).expect("a socket takes the option");
    windows(&mut criterion, &mut connection);
    drop(connection);
    server.handle().drain();
    server.wait().expect("the server drains");
    criterion.final_summary();
}

fn windows(criterion: &mut Criterion, connection: &mut TcpStream) {
    let mut group = group(criterion, "pipeline");
    let mut random = Rng::with_seed(1);
    for (scenario, count, vectors) in [
        ("1_vector", 8192, 1..=1),
        ("1_to_64_vectors", 8192, 1..=MAX_VECTORS_PER_REQUEST),
        ("64_vectors", 1024, 64..=64),
    ] {
        let table = Table::new(count, &mut random, |random| random.u32(vectors.clone()));
        for window in [1, 16, WINDOW_MAX] {
            let mut received = vec![0; window * answer_bytes(MAX_VECTORS_PER_REQUEST)];
            group.bench_function(format!("{scenario}/window_of_{window}"), |bencher| {
                iter_items(bencher, |_| {
                    let (requests, answers) = table.window(window, &mut random);
                    let received = &mut received[..answers.len()];
                    let took = exchange(connection, requests, received);
                    assert!(received == answers, "every answer is right");
                    (window as u64, took)
                });
            });
        }
    }
    group.finish();
}

/// Sends the requests and reads their answers; returns how long that took.
fn exchange(connection: &mut TcpStream, requests: &[u8], answers: &mut [u8]) -> Duration {
    let start = Instant::now();
    connection.write_all(requests).expect("the server receives");
    connection.read_exact(answers).expect("the server answers");
    start.elapsed()
}

/// Requests one after the other, and their answers.
struct Table {
    requests: Vec<u8>,
    answers: Vec<u8>,
    /// Of each request, and of the end: where it starts, and where its answer does.
    starts: Vec<(usize, usize)>,
}

impl Table {
    fn new(count: usize, random: &mut Rng, mut vectors: impl FnMut(&mut Rng) -> u32) -> Table {
        let mut table = Table { requests: Vec::new(), answers: Vec::new(), starts: vec![(0, 0)] };
        for _ in 0..count {
            let vectors = vectors(random) as usize;
            let rows: Vec<f32> = (0..vectors * FEATURE_DIM).map(|_| random.f32() - 0.5).collect();
            let scores: Vec<f32> = rows.chunks_exact(FEATURE_DIM).map(|row| row.iter().sum()).collect();
            write_request(LAYOUT, &rows, &mut table.requests);
            let start = table.answers.len();
            table.answers.resize(start + answer_bytes(vectors as u32), 0);
            write_answer(&scores, &mut table.answers[start..]);
            table.starts.push((table.requests.len(), table.answers.len()));
        }
        table
    }

    /// `count` requests from a random one on, and their answers.
    fn window(&self, count: usize, random: &mut Rng) -> (&[u8], &[u8]) {
        let first = random.usize(..self.starts.len() - count);
        let (start, end) = (self.starts[first], self.starts[first + count]);
        (&self.requests[start.0..end.0], &self.answers[start.1..end.1])
    }
}
