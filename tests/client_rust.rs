//! The Rust client against the real server: whatever happens to servers and callers, each call has its scores, bit by bit, or
//! an error that says what was wrong.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use disrust::config::Config;
use disrust_client::{Client, Error, blocking};
use disrust_model::{Model, PredictError, Rows};
use disrust_protocol::FEATURE_DIM;
use nix::sys::signal::Signal;

use common::models::{self, TemporaryFile};
use common::{
    PATIENCE, PATIENCE_FOR_END, Run, ServerProcess, TestServer, binary, config, free_port, random_rows, seeded, truth,
};

/// Threads and tasks beside one another.
const CALLERS: usize = 5;

async fn connect(address: &str) -> Client {
    Client::builder([address]).timeout(PATIENCE).connect().await.expect("the server listens")
}

/// Scores are those of these rows, bit by bit.
fn expect(rows: &[f32], scores: &[f32]) {
    assert_eq!(scores, truth::scores(FEATURE_DIM, rows));
}

/// Whoever calls, with any number of rows, gets the scores of these rows, and what is no whole row never leaves.
#[tokio::test]
async fn any_number_of_rows_is_scored() {
    let server = TestServer::start(config());
    let client = connect(&server.address().to_string()).await;
    let mut rng = seeded();
    for count in [0, 1, 2, 63, 64, 65, 10_000] {
        let rows = random_rows(&mut rng, FEATURE_DIM, count);
        let scores = client.predict(&rows, FEATURE_DIM).await.expect("the server answers");
        assert_eq!(scores.outputs, 1);
        expect(&rows, &scores.values);
    }
    let shape = client.predict(&[0.0; 17], FEATURE_DIM).await;
    assert_eq!(shape, Err(Error::Shape { values: 17, features: FEATURE_DIM }));
    assert!(client.check(PATIENCE).await.iter().all(|check| check.is_ready()));
}

/// A server says what its model is, and says so anew once it has read its file again; who wants another model is told.
#[tokio::test]
async fn a_server_tells_its_model() {
    const FEATURES: usize = 2;
    let (first, second) = (models::regression(), models::renamed(&models::regression(), 1));
    let file = TemporaryFile::new("told.txt", &first);
    let server = ServerProcess::start(&["--model", file.path(), "--model-name", "told"]);
    let client = connect(&server.address().to_string()).await;
    let model = client.model().expect("it has said hello");
    assert_eq!((&*model.name, model.feature_dim, model.outputs), ("told", FEATURES, 1));
    let wrong = client.predict(&[0.0; 3], 3).await;
    assert_eq!(wrong, Err(Error::WrongFeatures { given: 3, expected: FEATURES }));
    let wrong = Client::builder([server.address().to_string()]).features(3).connect().await;
    assert_eq!(wrong.err(), Some(Error::WrongFeatures { given: 3, expected: FEATURES }));
    assert_eq!(client.check(PATIENCE).await[0].model, Ok(Some(model.clone())));
    file.replace(second);
    server.signal(Signal::SIGHUP);
    let begun_at = Instant::now();
    while client.model().map(|model| model.version) == Some(model.version) {
        assert!(begun_at.elapsed() < PATIENCE_FOR_END, "the new model is not told of");
        assert!(client.check(PATIENCE).await[0].is_ready());
    }
    server.signal(Signal::SIGTERM);
    while client.check(PATIENCE).await[0].is_ready() {
        assert!(begun_at.elapsed() < PATIENCE_FOR_END, "a server that drains goes on to be ready");
    }
}

/// Several outputs of each row lie side by side.
#[tokio::test]
async fn several_outputs_are_told_apart() {
    /// A row's first feature, and its double.
    struct Two;

    impl Model for Two {
        fn name(&self) -> &str {
            "two"
        }

        fn feature_dim(&self) -> usize {
            FEATURE_DIM
        }

        fn outputs(&self) -> usize {
            2
        }

        fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
            let mut matrix = vec![0.0; rows.count() * FEATURE_DIM];
            rows.gather(&mut matrix);
            for (row, scores) in matrix.chunks(FEATURE_DIM).zip(scores.chunks_mut(2)) {
                if row[0].is_nan() {
                    return Err(PredictError("a row begins with NaN".to_owned()));
                }
                scores.copy_from_slice(&[row[0], 2.0 * row[0]]);
            }
            Ok(())
        }
    }

    let server = TestServer::serve(config(), Two);
    let client = Client::builder([server.address().to_string()]).outputs(2).timeout(PATIENCE).connect().await;
    let client = client.expect("the server listens");
    let mut rows = random_rows(&mut seeded(), FEATURE_DIM, 200);
    let scores = client.predict(&rows, FEATURE_DIM).await.expect("the server answers");
    assert_eq!((scores.values.len(), scores.outputs), (400, 2));
    for (row, scores) in rows.chunks(FEATURE_DIM).zip(scores.values.chunks(2)) {
        assert_eq!(scores, [row[0], 2.0 * row[0]]);
    }
    rows[150 * FEATURE_DIM] = f32::NAN;
    assert_eq!(client.predict(&rows, FEATURE_DIM).await, Err(Error::ModelFailed));
}

/// Many callers at once over one connection, each with rows of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_get_their_own_scores() {
    let server = TestServer::start(config());
    let client = connect(&server.address().to_string()).await;
    let mut rng = seeded();
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (client, mut rng) = (client.clone(), rng.fork());
            tokio::spawn(async move {
                for _ in 0..50 {
                    let count = [1, 1, 1, 2, 64, 65, 300][rng.usize(..7)];
                    let rows = random_rows(&mut rng, FEATURE_DIM, count);
                    expect(&rows, &client.predict(&rows, FEATURE_DIM).await.expect("the server answers").values);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("every caller is right");
    }
    assert_eq!(client.servers()[0].connections, 1);
}

/// Threads that wait are answered over a Unix socket, too.
#[test]
fn threads_that_wait_are_answered_over_a_unix_socket() {
    let folder = std::env::temp_dir().join(format!("disrust-client-{}", std::process::id()));
    fs::create_dir(&folder).expect("the folder for temporary files can be written");
    let path = folder.join("s");
    let server = TestServer::start(Config { unix: Some(path.clone()), ..config() });
    let address = format!("unix:{}", path.display());
    let client = blocking::Client::connect_with(Client::builder([address]).timeout(PATIENCE)).expect("it listens");
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut rng = seeded();
                for _ in 0..50 {
                    let count = rng.usize(1..200);
                    let rows = random_rows(&mut rng, FEATURE_DIM, count);
                    expect(&rows, &client.predict(&rows, FEATURE_DIM).expect("the server answers").values);
                }
            });
        }
    });
    drop(client);
    drop(server);
    // Left behind, it harms nobody.
    let _gone_before = fs::remove_dir_all(folder);
}

/// Callers of both kinds, who go on until they are stopped, and take an error for an answer, but no wrong score.
struct Crowd {
    stop: Arc<AtomicBool>,
    scored: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Crowd {
    /// Each caller has a client of its own, of all of these addresses.
    fn start(addresses: &[String]) -> Crowd {
        let mut crowd =
            Crowd { stop: Arc::default(), scored: Arc::default(), failed: Arc::default(), threads: Vec::new() };
        for caller in 0..2 * CALLERS {
            let (stop, scored, failed) =
                (Arc::clone(&crowd.stop), Arc::clone(&crowd.scored), Arc::clone(&crowd.failed));
            let builder = Client::builder(addresses.to_vec()).timeout(PATIENCE);
            let mut rng = seeded();
            let settle = move |rows: &[f32], outcome: Result<disrust_client::Scores, Error>| match outcome {
                Ok(scores) => {
                    expect(rows, &scores.values);
                    scored.fetch_add(1, Ordering::Relaxed);
                }
                Err(Error::Lost { .. } | Error::Closing | Error::NoServer { .. }) => {
                    _ = failed.fetch_add(1, Ordering::Relaxed)
                }
                Err(error) => panic!("{error}"),
            };
            let mut draw = move || {
                let count = rng.usize(1..130);
                random_rows(&mut rng, FEATURE_DIM, count)
            };
            crowd.threads.push(std::thread::spawn(move || {
                if caller < CALLERS {
                    let client = blocking::Client::connect_with(builder).expect("a server listens");
                    while !stop.load(Ordering::Relaxed) {
                        let rows = draw();
                        settle(&rows, client.predict(&rows, FEATURE_DIM));
                    }
                    return;
                }
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let client = builder.connect().await.expect("a server listens");
                    while !stop.load(Ordering::Relaxed) {
                        let rows = draw();
                        let call = tokio::time::timeout(PATIENCE_FOR_END, client.predict(&rows, FEATURE_DIM));
                        settle(&rows, call.await.expect("no call outlives its time"));
                    }
                });
            }));
        }
        crowd
    }

    /// Waits until so many more calls have been scored.
    fn wait_for_scores(&self, more: usize) {
        let goal = self.scored.load(Ordering::Relaxed) + more;
        common::wait_patiently_until(PATIENCE_FOR_END, "calls are scored", || {
            assert!(!self.threads.iter().any(|thread| thread.is_finished()), "a caller has ended: it was wrong");
            self.scored.load(Ordering::Relaxed) >= goal
        });
    }

    /// Ends it; how many calls failed.
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("every caller was right"));
        self.failed.load(Ordering::Relaxed)
    }
}

fn launch(port: u16) -> ServerProcess {
    let mut command = binary();
    command.args(["--port", &port.to_string(), "--reuse-port", "--pin", "none", "--drain-timeout", "20s"]);
    ServerProcess::launch(command.stdout(Stdio::null()))
}

/// Beside a rolling restart no call fails: each server takes over from the one that leaves in words.
#[test]
fn a_rolling_restart_fails_no_call() {
    let ports = [free_port(), free_port()];
    let mut servers = ports.map(launch);
    let crowd = Crowd::start(&ports.map(|port| format!("127.0.0.1:{port}")));
    crowd.wait_for_scores(100);
    for _ in 0..2 {
        for (server, port) in servers.iter_mut().zip(ports) {
            let old = std::mem::replace(server, launch(port));
            old.signal(Signal::SIGTERM);
            let (status, stderr) = old.wait();
            assert_eq!(status, Some(0), "{stderr}");
            crowd.wait_for_scores(100);
        }
    }
    assert_eq!(crowd.finish(), 0, "calls that failed");
}

/// A server that is killed costs those calls something that were under way, at most; the one that comes in its place is found.
#[test]
fn a_killed_server_is_found_again_when_it_is_back() {
    let port = free_port();
    let mut server = launch(port);
    let crowd = Crowd::start(&[format!("127.0.0.1:{port}")]);
    for _ in 0..3 {
        crowd.wait_for_scores(100);
        server.signal(Signal::SIGKILL);
        server.wait();
        std::thread::sleep(Duration::from_millis(50));
        server = launch(port);
    }
    crowd.wait_for_scores(100);
    crowd.finish();
}

/// A server that stands still costs a call its time, and no other server's calls anything.
#[tokio::test]
async fn a_frozen_server_is_avoided() {
    const SHORT: Duration = Duration::from_millis(500);
    let (frozen, good) = (ServerProcess::start(&[]), ServerProcess::start(&[]));
    let client = Client::builder([frozen.address().to_string(), good.address().to_string()]).timeout(SHORT);
    let client = client.build().expect("addresses");
    while !client.servers().iter().all(|server| server.is_connected()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    frozen.stop();
    let (mut rng, mut scored) = (seeded(), 0);
    for _ in 0..50 {
        let rows = random_rows(&mut rng, FEATURE_DIM, 3);
        match client.predict(&rows, FEATURE_DIM).await {
            Ok(scores) => {
                expect(&rows, &scores.values);
                scored += 1;
            }
            Err(error) => assert_eq!(error, Error::Deadline { timeout: SHORT }),
        }
    }
    assert!(scored > 0, "the server that answers is found");
    frozen.carry_on();
    let rows = random_rows(&mut rng, FEATURE_DIM, 3);
    expect(&rows, &client.predict_within(&rows, FEATURE_DIM, PATIENCE).await.expect("both answer").values);
}

/// The program in README.md prints what it says, as it stands, but for the port.
#[test]
fn the_program_in_the_readme_prints_its_scores() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the document");
    let program = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a program");
    let server = ServerProcess::start(&[]);
    assert!(program.contains("127.0.0.1:9900"));
    let program = program.replace("127.0.0.1:9900", &server.address().to_string());
    let file = TemporaryFile::new("score.rs", program);
    let built = TemporaryFile::named("score");
    let run = Run::of(
        Command::new("rustc")
            .args(["--edition", "2024", file.path(), "-o", built.path()])
            .arg(format!("--extern=disrust_client={}", newest_library().display()))
            .arg(format!("-Ldependency={}", libraries().display())),
    );
    assert_eq!(run.status, Some(0), "{run:?}");
    let run = Run::of(&mut Command::new(built.path()));
    assert_eq!((run.status, &*run.stdout), (Some(0), "[120.0, 8.0]\n"), "{run:?}");
}

/// Where cargo has put the libraries that this test is made of.
fn libraries() -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    own.parent().expect("a folder").to_owned()
}

/// The client, as it was built last.
fn newest_library() -> PathBuf {
    let files = fs::read_dir(libraries()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let is_client = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in ASCII");
        name.starts_with("libdisrust_client-") && name.ends_with(".rlib")
    };
    let built_at = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).expect("it is there");
    files.filter(is_client).max_by_key(built_at).expect("this test is linked with it")
}
