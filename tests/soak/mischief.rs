//! What peers, and the world, do to the server: one thing after the other, chosen by a seed.
//!
//! Each is short, checks what the protocol promises to whoever does such a thing, and leaves nothing behind. The letters
//! are the rows of the fault matrix in RELIABILITY.md. Those that everybody would notice (the server stands still, its
//! places are all taken) are alone while they last.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use disrust_protocol::FEATURE_DIM;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::common::{Client, DeafCrowd, Request, ServerProcess, bytes_of, random_requests};
use super::wait_until;

/// Whoever disturbs everybody takes it to write, all others to read.
static CALM: RwLock<()> = RwLock::new(());

/// A way to misbehave.
type Deed = fn(&mut Peer);

/// All of them, each as likely as the others.
const DEEDS: [(&str, Deed); 14] = [
    ("A1 a bad count after good requests", bad_count),
    ("A2 random bytes", random_bytes),
    ("A3 byte by byte", byte_by_byte),
    ("A4 a deep pipeline", deep_pipeline),
    ("A5 a truncated request", truncated_request),
    ("B1 a reset with requests in flight", reset_in_flight),
    ("B2 a half-close after requests", half_close),
    ("B3 peers that never read", never_readers),
    ("B4 a request that trickles in and never ends", slow_request),
    ("B7 a client that stands still", paused_client),
    ("B8 churn", churn),
    ("B9 idle connections", idle_crowd),
    ("C1 more connections than there are places", too_many),
    ("C6 the server stands still", stopped_server),
];

/// A thread that misbehaves.
pub struct Mischief {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<&'static str, u64>>,
}

/// Who misbehaves.
struct Peer {
    address: SocketAddr,
    server: Pid,
    rng: fastrand::Rng,
}

impl Mischief {
    pub fn start(server: &ServerProcess, seed: u64) -> Mischief {
        let server_pid = Pid::from_raw(i32::try_from(server.pid()).expect("a pid"));
        let mut peer = Peer { address: server.address(), server: server_pid, rng: fastrand::Rng::with_seed(seed) };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut done = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                let (name, deed) = DEEDS[peer.rng.usize(..DEEDS.len())];
                deed(&mut peer);
                *done.entry(name).or_default() += 1;
            }
            done
        });
        Mischief { stop, thread }
    }

    /// Whether it has ended before its time: something did not hold.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it; returns how often it did what.
    pub fn finish(self) -> BTreeMap<&'static str, u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("what the protocol promises holds")
    }
}

/// Prints how often what was done.
pub fn print_counts(done: &[BTreeMap<&'static str, u64>]) {
    for (name, _) in DEEDS {
        let times: u64 = done.iter().filter_map(|counts| counts.get(name)).sum();
        println!("soak: {times:6} × {name}");
    }
}

impl Peer {
    fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    fn requests(&mut self, count_max: usize) -> Vec<Request> {
        let count = self.rng.usize(..=count_max);
        random_requests(&mut self.rng, count, 1..=64)
    }
}

fn calm() -> impl Drop {
    CALM.read().expect("nobody panics while holding it alone")
}

fn alone() -> impl Drop {
    CALM.write().expect("nobody panics while holding it alone")
}

fn bad_count(peer: &mut Peer) {
    let _calm = calm();
    let mut requests = peer.requests(200);
    requests.push(Request::bad(&[0, 65, u32::MAX][peer.rng.usize(..3)].to_le_bytes()));
    let mut client = peer.connect();
    client.send_all(&requests);
    client.expect(&requests);
    client.expect_end();
}

fn random_bytes(peer: &mut Peer) {
    let _calm = calm();
    let bytes: Vec<u8> = (0..peer.rng.usize(..5000)).map(|_| peer.rng.u8(..)).collect();
    let mut client = peer.connect();
    // It may be closed on before all is sent.
    let _cut_short = client.stream().write_all(&bytes);
    let _closed_before = client.stream().shutdown(std::net::Shutdown::Write);
    client.is_closed_by_server();
}

fn byte_by_byte(peer: &mut Peer) {
    let _calm = calm();
    let request = Request::random(&mut peer.rng, FEATURE_DIM, 2);
    let mut client = peer.connect();
    request.bytes.chunks(1).for_each(|byte| client.send(byte));
    client.expect([&request]);
}

fn deep_pipeline(peer: &mut Peer) {
    let _calm = calm();
    let requests = random_requests(&mut peer.rng, 2000, 1..=8);
    peer.connect().exchange(&requests);
}

fn truncated_request(peer: &mut Peer) {
    let _calm = calm();
    let requests = peer.requests(5);
    let last = Request::random(&mut peer.rng, FEATURE_DIM, 3);
    let mut client = peer.connect();
    client.send_all(&requests);
    client.send(&last.bytes[..peer.rng.usize(1..last.bytes.len())]);
    client.half_close();
    client.expect(&requests);
    client.expect_end();
}

fn reset_in_flight(peer: &mut Peer) {
    let _calm = calm();
    let client = peer.connect();
    client.send_all(&peer.requests(300));
    client.reset();
}

fn half_close(peer: &mut Peer) {
    let _calm = calm();
    let requests = peer.requests(100);
    let mut client = peer.connect();
    client.send_all(&requests);
    client.half_close();
    client.expect(&requests);
    client.expect_end();
}

fn never_readers(peer: &mut Peer) {
    let _calm = calm();
    let request = Request::random(&mut peer.rng, FEATURE_DIM, 64);
    let mut crowd = DeafCrowd::connect(peer.address, 10, &request);
    for _ in 0..peer.rng.usize(..30) {
        crowd.send();
        sleep(Duration::from_millis(10));
    }
}

fn slow_request(peer: &mut Peer) {
    let _calm = calm();
    let request = Request::random(&mut peer.rng, FEATURE_DIM, 1);
    let mut client = peer.connect();
    for byte in request.bytes[..request.bytes.len() - 1].chunks(1) {
        // Its time is over at some point.
        if client.stream().write_all(byte).is_err() {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    wait_until("it is closed on", || client.is_closed_by_server());
}

fn paused_client(peer: &mut Peer) {
    let _calm = calm();
    let requests = peer.requests(200);
    let mut client = peer.connect();
    let bytes = bytes_of(&requests);
    client.send(&bytes);
    sleep(Duration::from_millis(peer.rng.u64(..1000)));
    client.expect(&requests);
}

fn churn(peer: &mut Peer) {
    let _calm = calm();
    for _ in 0..200 {
        let client = peer.connect();
        if peer.rng.bool() {
            client.send(&Request::random(&mut peer.rng, FEATURE_DIM, 1).bytes);
        }
    }
}

fn idle_crowd(peer: &mut Peer) {
    let _calm = calm();
    let clients: Vec<_> = (0..100).map(|_| peer.connect()).collect();
    sleep(Duration::from_millis(300));
    drop(clients);
}

fn too_many(peer: &mut Peer) {
    let _alone = alone();
    let mut clients: Vec<_> = (0..700).map(|_| peer.connect()).collect();
    let last = clients.last_mut().expect("seven hundred");
    wait_until("the last one is closed at once", || last.is_closed_by_server());
    drop(clients);
    // The others need places again.
    wait_until("there are places again", || {
        let request = Request::random(&mut peer.rng, FEATURE_DIM, 1);
        let client = peer.connect();
        client.stream().write_all(&request.bytes).is_ok() && is_answered(&client)
    });
}

fn is_answered(client: &Client) -> bool {
    std::io::Read::read(&mut client.stream(), &mut [0; 5]).is_ok_and(|bytes| bytes == 5)
}

fn stopped_server(peer: &mut Peer) {
    let _alone = alone();
    kill(peer.server, Signal::SIGSTOP).expect("it runs");
    sleep(Duration::from_millis(peer.rng.u64(..1500)));
    kill(peer.server, Signal::SIGCONT).expect("it is stopped");
}
