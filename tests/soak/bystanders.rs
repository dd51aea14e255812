//! Clients that mind their own business: every answer of theirs must be right, in order, and soon.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::common::{Client, Request};

/// How many there are.
const BYSTANDERS: u64 = 4;

/// A pause between two requests; they are a load on nobody.
const PAUSE: Duration = Duration::from_millis(2);

/// Running bystanders.
pub struct Bystanders {
    stop: Arc<AtomicBool>,
    latencies_ns: Arc<Mutex<Vec<u64>>>,
    threads: Vec<JoinHandle<u64>>,
}

impl Bystanders {
    pub fn start(address: SocketAddr, features: usize, seed: u64) -> Bystanders {
        let (stop, latencies_ns) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let threads = (0..BYSTANDERS).map(|index| {
            let (stop, latencies_ns) = (Arc::clone(&stop), Arc::clone(&latencies_ns));
            let rng = fastrand::Rng::with_seed(seed ^ index << 32);
            std::thread::spawn(move || serve_time(address, features, rng, &stop, &latencies_ns))
        });
        let threads = threads.collect();
        Bystanders { stop, latencies_ns, threads }
    }

    /// What they waited since the last call, for each exchange.
    pub fn take_latencies(&self) -> Vec<u64> {
        std::mem::take(&mut *self.latencies_ns.lock().expect("nobody panics while holding it"))
    }

    /// Ends them; returns how many answers they got.
    pub fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let answers = self.threads.into_iter().map(|thread| thread.join().expect("a bystander gets its answers"));
        answers.sum()
    }
}

fn serve_time(
    address: SocketAddr,
    features: usize,
    mut rng: fastrand::Rng,
    stop: &AtomicBool,
    latencies_ns: &Mutex<Vec<u64>>,
) -> u64 {
    let (mut client, mut answers) = (Client::connect(address), 0);
    loop {
        let requests: Vec<Request> = (0..4)
            .map(|_| {
                let vectors = rng.usize(1..=16);
                Request::random(&mut rng, features, vectors)
            })
            .collect();
        let sent_at = Instant::now();
        client.send_all(&requests);
        client.expect(&requests);
        let latency_ns = u64::try_from(sent_at.elapsed().as_nanos()).expect("less than centuries");
        latencies_ns.lock().expect("nobody panics while holding it").push(latency_ns);
        answers += requests.len() as u64;
        // Asked after the first exchange, so that even the shortest life is one.
        if stop.load(Ordering::Relaxed) {
            return answers;
        }
        std::thread::sleep(PAUSE);
    }
}
