//! A model that is replaced while the server serves.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use disrust::config::Config;
use disrust::config::placement::Wait;
use disrust::exchange::wait::WaitStrategy;
use disrust::server::{ReplaceError, Server};
use disrust_model::{Model, PredictError, Rows};
use disrust_protocol::HelloRequest;

use common::{Client, Gate, PATIENCE, Reply, Request, TestServer, config, seeded, wait_until};

const FEATURES: usize = 2;

/// Scores each row with its version, and counts itself out when it is dropped.
struct Version {
    number: usize,
    features: usize,
    gate: Option<Gate>,
    /// Versions that exist.
    alive: Arc<AtomicUsize>,
}

impl Version {
    fn new(number: usize, alive: &Arc<AtomicUsize>) -> Version {
        Version::of(number, FEATURES, None, alive)
    }

    fn of(number: usize, features: usize, gate: Option<Gate>, alive: &Arc<AtomicUsize>) -> Version {
        alive.fetch_add(1, Ordering::Relaxed);
        Version { number, features, gate, alive: Arc::clone(alive) }
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Model for Version {
    fn name(&self) -> &str {
        "version"
    }

    fn version(&self) -> u64 {
        self.number as u64
    }

    fn feature_dim(&self) -> usize {
        self.features
    }

    fn predict(&mut self, _rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        self.gate.iter().for_each(Gate::pass);
        scores.fill(self.number as f32);
        Ok(())
    }
}

/// The version that answers a request; one for all of its rows.
fn version_of(reply: Option<Reply>, vectors: usize) -> usize {
    let Some(Reply::Scores(scores)) = reply else { panic!("scores: {reply:?}") };
    assert_eq!(scores.len(), vectors);
    assert!(scores.iter().all(|score| *score == scores[0]), "an answer of one version: {scores:?}");
    scores[0] as usize
}

fn ask(client: &mut Client, vectors: usize) -> usize {
    client.send(&Request::of(FEATURES, &vec![1.0; vectors * FEATURES]).bytes);
    version_of(client.receive(), vectors)
}

/// Under load no request is lost, each answer is of one version, versions never go back on a connection, and each answer
/// to what was asked after a replacement is of the new version.
#[test]
fn every_answer_is_of_a_version_in_force() {
    let alive = Arc::default();
    for wait in [WaitStrategy::Park, WaitStrategy::SpinThenPark] {
        let config = Config { wait: Wait::As(wait), io_threads: Some(2), ..config() };
        let server = TestServer::serve(config, Version::new(0, &alive));
        let (last, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (address, handle) = (server.address(), server.handle());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (mut client, mut rng, mut seen) = (Client::connect(address), seeded(), 0);
                    while !stop.load(Ordering::Relaxed) {
                        let in_force = last.load(Ordering::Acquire);
                        let sizes: Vec<_> = (0..rng.usize(1..40)).map(|_| rng.usize(1..=64)).collect();
                        let rows = |vectors: usize| Request::of(FEATURES, &vec![0.5; vectors * FEATURES]);
                        client.send_all(&sizes.iter().map(|vectors| rows(*vectors)).collect::<Vec<_>>());
                        for vectors in sizes {
                            let version = version_of(client.receive(), vectors);
                            assert!(version >= seen.max(in_force), "{version} after {seen}, {in_force} is in force");
                            seen = version;
                        }
                    }
                });
            }
            for number in 1..=200 {
                handle.replace_model(Box::new(Version::new(number, &alive))).expect("it is taken");
                last.store(number, Ordering::Release);
                assert_eq!(alive.load(Ordering::Relaxed), 1, "the one before is gone");
            }
            stop.store(true, Ordering::Relaxed);
        });
        server.finish();
        wait_until("the last version is gone", || alive.load(Ordering::Relaxed) == 0);
    }
}

/// Under load, a hello names a version that was in force when it was said, or later; none that is older than one which has scored
/// what comes before it, and none that is newer than the one which scores what comes next.
#[test]
fn a_hello_names_a_version_in_force() {
    let alive = Arc::default();
    for io_threads in [1, 2] {
        let server = TestServer::serve(Config { io_threads: Some(io_threads), ..config() }, Version::new(0, &alive));
        let (last, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (address, handle) = (server.address(), server.handle());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let (mut client, mut rng, mut seen) = (Client::connect(address), seeded(), 0);
                    while !stop.load(Ordering::Relaxed) {
                        let in_force = last.load(Ordering::Acquire);
                        let says: Vec<bool> = (0..rng.usize(1..60)).map(|_| rng.u8(..3) == 0).collect();
                        let (mut bytes, row) = (Vec::new(), Request::of(FEATURES, &[0.5; FEATURES]));
                        for says_hello in &says {
                            let hello = HelloRequest { feature_dim: FEATURES as u32 }.to_bytes();
                            bytes.extend_from_slice(if *says_hello { &hello } else { &row.bytes });
                        }
                        client.send(&bytes);
                        for says_hello in says {
                            let version = if says_hello {
                                client.receive_hello().expect("an answer").expect("no error").model_version as usize
                            } else {
                                version_of(client.receive(), 1)
                            };
                            assert!(version >= seen.max(in_force), "{version} after {seen}, {in_force} is in force");
                            seen = version;
                        }
                    }
                });
            }
            for number in 1..=200 {
                handle.replace_model(Box::new(Version::new(number, &alive))).expect("it is taken");
                last.store(number, Ordering::Release);
                let told = Client::connect(address).hello(0).expect("it is answered");
                assert_eq!(told.model_version, number as u64, "who says hello after the replacement");
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

/// A batch processor that sleeps takes a new model at once, without any traffic.
#[test]
fn a_server_that_sleeps_takes_a_new_model() {
    let alive = Arc::default();
    let server = TestServer::serve(Config { wait: Wait::As(WaitStrategy::Park), ..config() }, Version::new(0, &alive));
    let mut client = server.connect();
    assert_eq!(ask(&mut client, 3), 0);
    let begun_at = Instant::now();
    for number in 1..=40 {
        server.handle().replace_model(Box::new(Version::new(number, &alive))).expect("it is taken");
        assert_eq!(alive.load(Ordering::Relaxed), 1, "the one before is gone");
    }
    // A sleep that nobody ends takes half a second.
    assert!(begun_at.elapsed() < Duration::from_secs(10), "each was taken at once: {:?}", begun_at.elapsed());
    assert_eq!(ask(&mut client, 64), 40);
}

/// A model of another shape is refused, and the one that serves goes on.
#[test]
fn a_model_of_another_shape_is_refused() {
    let alive = Arc::default();
    let server = TestServer::serve(config(), Version::new(7, &alive));
    let other = Version::of(8, FEATURES + 1, None, &alive);
    let refused = server.handle().replace_model(Box::new(other));
    assert_eq!(refused, Err(ReplaceError::Features { old: FEATURES, new: FEATURES + 1 }));
    assert_eq!(alive.load(Ordering::Relaxed), 1, "it is gone");
    assert_eq!(ask(&mut server.connect(), 1), 7);
}

/// What is in the model's hands is answered by it; what waits is answered by the new one.
#[test]
fn a_batch_keeps_its_model_to_its_end() {
    let alive = Arc::default();
    let gate = Gate::default();
    let server = TestServer::serve(config(), Version::of(1, FEATURES, Some(gate.clone()), &alive));
    let (mut first, mut second) = (server.connect(), server.connect());
    first.send(&Request::of(FEATURES, &[1.0; 2 * FEATURES]).bytes);
    server.wait_for_requests(1);
    let handle = server.handle();
    let replacing = std::thread::spawn({
        let model = Version::new(2, &alive);
        move || handle.replace_model(Box::new(model))
    });
    second.send(&Request::of(FEATURES, &[1.0; FEATURES]).bytes);
    server.wait_for_requests(2);
    assert!(!replacing.is_finished(), "it waits for the batch");
    gate.open();
    assert_eq!(version_of(first.receive(), 2), 1);
    // The second request is in the first batch if the gate let it: then it is of version 1, too.
    assert!([1, 2].contains(&version_of(second.receive(), 1)));
    assert_eq!(replacing.join().expect("no panic"), Ok(()));
    assert_eq!(ask(&mut second, 1), 2);
}

/// Whoever replaces the model of a server that drains or has ended is told so, and does not hang; nor does the server.
#[test]
fn a_server_that_has_ended_takes_no_model() {
    let alive = Arc::default();
    for _ in 0..20 {
        let server = TestServer::serve(config(), Version::new(0, &alive));
        let handle = server.handle();
        let replacing = std::thread::spawn({
            let (handle, alive) = (handle.clone(), Arc::clone(&alive));
            move || {
                let begun_at = Instant::now();
                while begun_at.elapsed() < PATIENCE {
                    match handle.replace_model(Box::new(Version::new(1, &alive))) {
                        Ok(()) => {}
                        Err(error) => return error,
                    }
                }
                panic!("the server does not end")
            }
        });
        server.finish();
        assert_eq!(replacing.join().expect("no panic"), ReplaceError::Ended);
        assert_eq!(handle.replace_model(Box::new(Version::new(1, &alive))), Err(ReplaceError::Ended));
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }
}

/// A start that is given up lets nobody wait.
#[test]
fn a_server_that_never_serves_takes_no_model() {
    let alive = Arc::default();
    let ready = Server::prepare(&config(), Box::new(Version::new(0, &alive))).expect("a free port");
    let handle = ready.handle();
    let replacing = std::thread::spawn({
        let model = Version::new(1, &alive);
        move || handle.replace_model(Box::new(model))
    });
    drop(ready);
    assert_eq!(replacing.join().expect("no panic"), Err(ReplaceError::Ended));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}
