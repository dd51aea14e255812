//! The reference servers as their users run them: the program serves, and the same program checks it.
//!
//! It is not a test of the real server, and measures nothing.
//!
//! Invariants: every server is a child of the test, on loopback, on a port that the kernel chose, and ends with the
//! test; every wait has a bound, so a test that goes wrong fails and does not hang.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use disrust_protocol::{ErrorCode, RequestLayout, answer_bytes, write_answer, write_request};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const KINDS: [&str; 3] = ["epoll", "uring", "tokio"];

/// Those of one thread.
const SINGLE_THREADED: [&str; 2] = ["epoll", "uring"];

const LAYOUT: RequestLayout = RequestLayout::new(16);

/// The longest that anything here may take.
const TIMEOUT: Duration = Duration::from_secs(20);

fn command(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.args(words.split_whitespace());
    command
}

/// Runs `client WORDS` to its end.
fn client(words: &str) -> Output {
    command(words).output().expect("the client starts")
}

fn assert_right(kind: &str, words: &str) {
    let Output { status, stdout, stderr } = client(words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(status.success(), "{kind}, {words}: {}{}", text(&stdout), text(&stderr));
}

/// A reference server in a process of its own.
struct Floor {
    child: Child,
    address: SocketAddr,
}

impl Floor {
    fn start(kind: &str, words: &str) -> Floor {
        let mut command = command(&format!("floor --kind {kind} --port 0 {words}"));
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the floor starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output is piped");
        BufReader::new(out).read_line(&mut line).expect("it says where it listens");
        let address = line.split_whitespace().nth(2).and_then(|word| word.parse().ok());
        Floor { child, address: address.unwrap_or_else(|| panic!("no address in {line:?}")) }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the floor listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout that is not zero");
        stream.set_write_timeout(Some(TIMEOUT)).expect("a timeout that is not zero");
        stream
    }

    fn process(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id is positive"))
    }

    fn stop(mut self, signal: Signal) -> ExitStatus {
        kill(self.process(), signal).expect("the floor runs");
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(start.elapsed() < TIMEOUT, "the floor stops when it is told to");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It has ended already if the test went well.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Requests of 1 to 64 vectors, and the answers to them. The features are small whole numbers, so that their sum is
/// exact in any order.
fn requests(layout: RequestLayout, count: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut requests, mut answers) = (Vec::new(), Vec::new());
    for request in 0..count {
        let vectors = 1 + request * 7 % 64;
        let rows: Vec<f32> =
            (0..vectors * layout.feature_dim()).map(|place| ((request + place) % 251) as f32).collect();
        write_request(layout, &rows, &mut requests);
        let scores: Vec<f32> = rows.chunks(layout.feature_dim()).map(|row| row.iter().sum()).collect();
        let mut answer = [0; answer_bytes(64)];
        let bytes = write_answer(&scores, &mut answer);
        answers.extend_from_slice(&answer[..bytes]);
    }
    (requests, answers)
}

/// Everything until the end of the stream.
fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("the stream ends in order, without a reset");
    received
}

/// The promise: each kind passes what the real server has to pass, and ends with 0 when told to.
#[test]
fn every_kind_keeps_the_contract_and_stops() {
    for (kind, signal) in [
        ("epoll", Signal::SIGTERM),
        ("uring", Signal::SIGTERM),
        ("tokio", Signal::SIGTERM),
        ("epoll", Signal::SIGINT),
        ("uring", Signal::SIGINT),
        ("tokio", Signal::SIGINT),
    ] {
        let floor = Floor::start(kind, "");
        let port = floor.port();
        for mode in ["smoke", "pipeline", "bench 20 20000 --window 64", "bench 3 3000 --window 256 --vectors 64"] {
            assert_right(kind, &format!("{port} {mode}"));
        }
        let open = floor.connect();
        assert_eq!(floor.stop(signal).code(), Some(0), "{kind}, {signal}");
        drop(open);
    }
}

/// The promise: the numbers of features that the server serves are served, up to its largest.
#[test]
fn other_numbers_of_features_are_served() {
    for kind in KINDS {
        for (features, modes) in
            [(1, &["smoke", "pipeline", "bench 2 500 --vectors 3"][..]), (100, &["pipeline"]), (4096, &["smoke"])]
        {
            let floor = Floor::start(kind, &format!("--features {features}"));
            for mode in modes {
                assert_right(kind, &format!("{} {mode} --features {features}", floor.port()));
            }
        }
    }
}

/// The promise: `--threads` and `--pin` are obeyed, and a CPU that is not there is an error.
#[test]
fn threads_and_cpus_are_as_asked() {
    let floor = Floor::start("tokio", "--threads 3");
    assert_right("tokio", &format!("{} bench 8 1000", floor.port()));
    let threads = std::fs::read_dir(format!("/proc/{}/task", floor.process())).expect("the floor runs").count();
    assert_eq!(threads, 3 + 1, "the main thread only waits");

    for kind in KINDS {
        let output = client(&format!("floor --kind {kind} --port 0 --pin 100000"));
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot run on CPU 100000"), "{kind}");
    }
    assert_eq!(client("floor --kind epoll --threads 2").status.code(), Some(2), "a usage error");
}

/// The promise: the single-threaded floors have one thread.
#[test]
fn one_thread_is_one_thread() {
    for kind in SINGLE_THREADED {
        let floor = Floor::start(kind, "");
        assert_right(kind, &format!("{} bench 8 1000", floor.port()));
        let threads = std::fs::read_dir(format!("/proc/{}/task", floor.process())).expect("the floor runs").count();
        assert_eq!(threads, 1, "{kind}");
    }
}

/// The promise: a port that another process serves is an error that names it.
#[test]
fn a_taken_port_is_told() {
    for kind in KINDS {
        let floor = Floor::start(kind, "");
        let output = client(&format!("floor --kind {kind} --port {}", floor.port()));
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(&floor.port().to_string()), "{kind}: {error}");
    }
}

/// The promise: a bad count costs no answer that is owed before it, nor does what the client sent behind it, and then
/// the stream ends.
#[test]
fn a_bad_count_is_answered_last() {
    let (good, mut expected) = requests(LAYOUT, 300);
    expected.extend(ErrorCode::BadVectorCount.answer());
    for kind in KINDS {
        let floor = Floor::start(kind, "");
        for count in [0_u32, 65, u32::MAX] {
            // More behind it than the sockets hold: it has to be taken, or sending fails.
            let bytes = [&good, &count.to_le_bytes()[..], &good.repeat(40)].concat();
            let stream = floor.connect();
            thread::scope(|scope| {
                let sending = scope.spawn(|| (&stream).write_all(&bytes));
                let received = read_all(&stream);
                assert!(received == expected, "{kind}, {count}: {} of {} bytes", received.len(), expected.len());
                assert!(sending.join().is_ok_and(|sent| sent.is_ok()), "{kind}: what is not read is still taken");
            });
        }
        assert_right(kind, &format!("{} smoke", floor.port()));
    }
}

/// The promise: a client that shuts down its sending side gets every answer, and nothing for a request that it left
/// unfinished.
#[test]
fn a_half_closed_client_gets_every_answer() {
    let (bytes, expected) = requests(LAYOUT, 200);
    for kind in KINDS {
        let floor = Floor::start(kind, "");
        for unfinished in [0, 3, 50] {
            let stream = floor.connect();
            thread::scope(|scope| {
                scope.spawn(|| {
                    (&stream).write_all(&[&bytes, &bytes[..unfinished]].concat()).expect("the floor receives");
                    stream.shutdown(Shutdown::Write).expect("the connection is open");
                });
                assert!(read_all(&stream) == expected, "{kind}, {unfinished}");
            });
        }
    }
}

/// The promise: requests are found however they are cut.
#[test]
fn cuts_anywhere_do_not_matter() {
    let layout = RequestLayout::new(2);
    let (bytes, expected) = requests(layout, 12);
    for kind in KINDS {
        let floor = Floor::start(kind, "--features 2");
        for piece in [1, 3, 5, 64, 1000] {
            let stream = floor.connect();
            stream.set_nodelay(true).expect("the connection is open");
            for part in bytes.chunks(piece) {
                (&stream).write_all(part).expect("the floor receives");
                thread::yield_now();
            }
            stream.shutdown(Shutdown::Write).expect("the connection is open");
            assert!(read_all(&stream) == expected, "{kind}, pieces of {piece}");
        }
    }
}

/// The promise: a client that does not read is held back rather than held in memory, costs the others
/// nothing, and gets every answer, right and in order, when it reads at last.
#[test]
fn a_slow_reader_is_held_back_and_loses_nothing() {
    // One feature: answers nearly as large as their requests, so that answers fill the sockets too.
    let layout = RequestLayout::new(1);
    let (bytes, answers) = requests(layout, 64);
    for kind in KINDS {
        let floor = Floor::start(kind, "--features 1");
        let stream = floor.connect();
        stream.set_nonblocking(true).expect("the connection is open");
        let sent = send_until_held_back(&stream, &bytes);
        assert_right(kind, &format!("{} pipeline --features 1", floor.port()));

        stream.set_nonblocking(false).expect("the connection is open");
        let whole = sent.next_multiple_of(bytes.len());
        thread::scope(|scope| {
            scope.spawn(|| {
                (&stream).write_all(&bytes[sent % bytes.len()..][..whole - sent]).expect("the floor receives again");
                stream.shutdown(Shutdown::Write).expect("the connection is open");
            });
            let received = read_all(&stream);
            assert_eq!(received.len(), whole / bytes.len() * answers.len(), "{kind}");
            assert!(received.chunks(answers.len()).all(|chunk| chunk == answers), "{kind}");
        });
    }
}

/// Sends `bytes` over and over until nothing is taken for a while; returns how many bytes were.
fn send_until_held_back(mut stream: &TcpStream, bytes: &[u8]) -> usize {
    /// More than the sockets of both directions hold, by far.
    const SENT_MAX: usize = 256 * 1024 * 1024;
    let (mut sent, mut refusals) = (0, 0);
    while refusals < 100 {
        match stream.write(&bytes[sent % bytes.len()..]) {
            Ok(taken) => (sent, refusals) = (sent + taken, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refusals += 1;
                thread::sleep(Duration::from_millis(3));
            }
            Err(error) => panic!("the connection is open: {error}"),
        }
        assert!(sent < SENT_MAX, "a floor that takes everything holds it in memory");
    }
    sent
}

/// The promise: a client that vanishes with answers owed to it harms nobody.
#[test]
fn a_vanished_client_harms_nobody() {
    let (bytes, _) = requests(LAYOUT, 100);
    for kind in KINDS {
        let floor = Floor::start(kind, "");
        for _ in 0..50 {
            let stream = floor.connect();
            (&stream).write_all(&bytes[..10_000]).expect("the floor receives");
            // Closing with unread input resets the connection.
            (&stream).read_exact(&mut [0; answer_bytes(1)]).expect("the floor answers");
        }
        assert_right(kind, &format!("{} smoke", floor.port()));
        assert_right(kind, &format!("{} pipeline", floor.port()));
        assert_eq!(floor.stop(Signal::SIGTERM).code(), Some(0), "{kind}");
    }
}
