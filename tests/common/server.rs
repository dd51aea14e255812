//! A server in this process, its bystanders, and a model that can be held.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use disrust::config::Config;
use disrust::config::placement::Pin;
use disrust::server::{Report, RunError, Server, ServerHandle};
use disrust_model::{Model, PredictError, Rows, Sum};
use disrust_protocol::FEATURE_DIM;

use super::{Client, DeafCrowd, PATIENCE_FOR_END, Request, random_requests, seeded, wait_until};

/// A free port, and no pinning: tests run beside one another.
pub fn config() -> Config {
    Config { port: Some(0), pin: Pin::None, ..Config::default() }
}

/// A running server, which drains and must have kept its books when it goes out of scope.
pub struct TestServer {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    handle: ServerHandle,
    /// Until it has ended.
    ended: Option<Receiver<Result<Report, RunError>>>,
}

impl TestServer {
    /// Serves the sum model.
    pub fn start(config: Config) -> TestServer {
        let features = config.features.unwrap_or(FEATURE_DIM);
        TestServer::serve(config, Sum::new(features))
    }

    /// Serves the sum model behind a gate, which is closed.
    pub fn start_gated(config: Config) -> (TestServer, Gate) {
        let gate = Gate::default();
        (TestServer::serve(config, Gated { sum: Sum::new(FEATURE_DIM), gate: gate.clone() }), gate)
    }

    pub fn serve(config: Config, model: impl Model + 'static) -> TestServer {
        let server = Server::start(&config, Box::new(model)).expect("a server starts on a free port");
        let (address, admin_address, handle) =
            (server.address().expect("it has a port"), server.admin_address(), server.handle());
        let (sender, ended) = channel();
        std::thread::spawn(move || sender.send(server.wait()));
        TestServer { address, admin_address, handle, ended: Some(ended) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of its admin port, which it was configured to have.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address.expect("it has an admin port")
    }

    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    pub fn report(&self) -> Report {
        self.handle.report()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    pub fn connect_many(&self, count: usize) -> Vec<Client> {
        (0..count).map(|_| self.connect()).collect()
    }

    /// Waits until the model has been handed this many requests since the start.
    pub fn wait_for_requests(&self, requests: u64) {
        wait_until("the server takes the requests", || self.report().requests >= requests);
        assert_eq!(self.report().requests, requests, "not more requests than were sent");
    }

    /// Waits until the server seems to take no more requests, while its model is held.
    pub fn wait_until_still(&self) {
        self.wait_until_same(|| {}, |before, after| before.requests == after.requests);
    }

    /// Waits until the server takes no more requests although all that it took are answered: their answers are not
    /// read. `send` offers it more.
    pub fn wait_until_held_back(&self, send: impl FnMut()) {
        self.wait_until_same(send, |before, after| before == after && before.requests == before.answered);
    }

    fn wait_until_same(&self, mut between: impl FnMut(), same: impl Fn(&Report, &Report) -> bool) {
        let (begun_at, mut times) = (Instant::now(), 0);
        while times < 20 {
            assert!(
                begun_at.elapsed() < 2 * PATIENCE_FOR_END,
                "the server takes requests without end: {:?}",
                self.report()
            );
            let before = self.report();
            between();
            sleep(Duration::from_millis(10));
            times = if same(&before, &self.report()) { times + 1 } else { 0 };
        }
    }

    /// Clients that send this request over and over and read no answer, all held back by now.
    pub fn connect_deaf(&self, count: usize, request: &Request) -> DeafCrowd {
        let mut crowd = DeafCrowd::connect(self.address(), count, request);
        self.wait_until_held_back(|| crowd.send());
        crowd
    }

    /// Drains the server and gives its report.
    pub fn finish(mut self) -> Report {
        self.end()
    }

    fn end(&mut self) -> Report {
        self.handle.drain();
        let ended = self.ended.take().expect("it ends once");
        let ended = ended.recv_timeout(PATIENCE_FOR_END).expect("the drain comes to an end");
        let report = ended.expect("the drain ends in order");
        assert_eq!(report.requests, report.answered + report.discarded, "no request is lost: {report:?}");
        report
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.ended.is_some() && !std::thread::panicking() {
            self.end();
        } else {
            // It has ended, or the test has failed: the threads end by themselves, as far as they can.
            self.handle.cut();
        }
    }
}

/// Holds a model while it is closed, so that requests are certainly in flight.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        self.set(true);
    }

    pub fn close(&self) {
        self.set(false);
    }

    fn set(&self, open: bool) {
        *self.0.0.lock().expect("nobody panics while holding it") = open;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    pub fn pass(&self) {
        let open = self.0.0.lock().expect("nobody panics while holding it");
        drop(self.0.1.wait_while(open, |open| !*open).expect("nobody panics while holding it"));
    }
}

struct Gated {
    sum: Sum,
    gate: Gate,
}

impl Model for Gated {
    fn name(&self) -> &str {
        "gated sum"
    }

    fn feature_dim(&self) -> usize {
        self.sum.feature_dim()
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        self.gate.pass();
        self.sum.predict(rows, scores)
    }
}

/// A client that minds its own business on its own thread, and must get every answer while others misbehave.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    pub fn start(address: SocketAddr) -> Bystander {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut client, mut rng) = (Client::connect(address), seeded());
            while !stopped.load(Ordering::Relaxed) {
                let requests = random_requests(&mut rng, 4, 1..=8);
                client.send_all(&requests);
                client.expect(&requests);
                // It is a load on nobody.
                sleep(Duration::from_millis(1));
            }
        });
        Bystander { stop, thread: Some(thread) }
    }

    /// Ends it; it must have been right until now.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("the bystander gets its answers");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
