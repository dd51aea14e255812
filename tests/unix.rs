//! The Unix socket, as its users and whoever starts servers on one path have it: the program, its files and its exit status.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{
    Client, PATIENCE_FOR_END, Reply, Run, ServerProcess, binary, random_requests, seeded, wait_patiently_until,
    wait_until,
};
use disrust::exchange::buffer_pool::BufferPool;
use disrust::exchange::clock::Clock;
use disrust::exchange::wake::Alarm;
use disrust::kernel::{
    Completion, Entrance, EventFd, Kernel, Listeners, PathListener, RingSizes, UringKernel, bind_path,
};
use disrust::limits::{PoolGeometry, UNIX_SEND_BUFFER_BYTES};
use disrust_protocol::ErrorCode;
use nix::sys::signal::Signal;

/// A folder of one test, of a short path, since that of a socket must be short. It goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        // Relaxed: only its being another one each time matters.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("disrust-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("the folder for temporary files can be written");
        Folder(path)
    }

    fn socket(&self) -> String {
        self.0.join("s").to_str().expect("a path in UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind, it harms nobody.
        let _gone_before = fs::remove_dir_all(&self.0);
    }
}

fn only_at<'a>(path: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    [&["--port", "off", "--unix", path], flags].concat()
}

fn start_only_at(path: &str, flags: &[&str]) -> ServerProcess {
    let mut command = binary();
    command.args(only_at(path, flags)).args(["--pin", "none"]).stdout(Stdio::null());
    ServerProcess::launch(&mut command)
}

fn drain(server: ServerProcess) -> String {
    server.signal(Signal::SIGTERM);
    let (status, said) = server.wait();
    assert_eq!(status, Some(0), "{said}");
    said
}

/// Promise: what is answered, and how a connection ends, does not depend on how one comes.
#[test]
fn scores_are_the_same_by_tcp_and_by_the_path() {
    let (mut rng, folder) = (seeded(), Folder::new());
    let path = folder.socket();
    let server = ServerProcess::start(&["--io-threads", "2", "--unix", &path]);
    assert!(server.stderr().contains(&format!("\nlistening at {path}, mode 0660\n")), "{}", server.stderr());
    let requests = random_requests(&mut rng, 200, 1..=64);
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect_at(&path).expect("it listens")).collect();
    clients.extend((0..4).map(|_| server.connect()));
    for client in &mut clients {
        client.exchange(&requests);
        client.send_all(&requests[..3]);
        client.half_close();
        client.expect(&requests[..3]);
        client.expect_end();
    }
    let mut client = Client::connect_at(&path).expect("it listens");
    client.send(&[&requests[0].bytes, &[0; 4][..]].concat());
    client.expect([&requests[0]]);
    assert_eq!(client.receive(), Some(Reply::Error(ErrorCode::BadVectorCount)));
    client.expect_end();
    let said = drain(server);
    assert!(said.contains(&format!("peer=unix: pid {} of user", std::process::id())), "{said}");
    assert!(said.contains("9 connections served, 0 cut"), "{said}");
    assert!(!PathBuf::from(&path).exists());
}

/// Promise: the file's mode is what was asked for; and a server without a port has none.
#[test]
fn a_file_has_the_mode_that_was_asked_for() {
    let folder = Folder::new();
    let path = folder.socket();
    for (flags, mode) in [(&[][..], 0o660), (&["--unix-mode", "0600"], 0o600), (&["--unix-mode", "666"], 0o666)] {
        let server = start_only_at(&path, flags);
        let file = fs::metadata(&path).expect("it is there");
        assert!(file.file_type().is_socket() && file.permissions().mode() & 0o777 == mode, "{file:?}");
        assert!(!server.stderr().contains("listening on"), "{}", server.stderr());
        drain(server);
    }
}

/// Promise: what a server leaves that was killed is replaced; a live server's file is not, unless that is meant.
#[test]
fn a_stale_file_is_replaced_and_a_live_one_refused() {
    let (mut rng, folder) = (seeded(), Folder::new());
    let path = folder.socket();
    let killed = start_only_at(&path, &[]);
    killed.signal(Signal::SIGKILL);
    killed.wait();
    assert!(PathBuf::from(&path).exists(), "it had no time to take it away");
    let server = start_only_at(&path, &[]);
    let requests = random_requests(&mut rng, 10, 1..=8);
    let refused = Run::of(binary().args(only_at(&path, &[])));
    assert_eq!(refused.status, Some(71), "{refused:?}");
    for told in [&path, &format!("pid {}", server.pid()), "--reuse-port", "another --unix"] {
        assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
    }
    Client::connect_at(&path).expect("it listens").exchange(&requests);
    drain(server);
}

/// Promise: what is no socket stays as it is, and each other refusal says what to try.
#[test]
fn what_cannot_be_is_refused_in_words() {
    let folder = Folder::new();
    let path = folder.socket();
    let refused = |path: &str, told: &[&str]| {
        let run = Run::of(binary().args(only_at(path, &["--reuse-port"])));
        assert_eq!(run.status, Some(71), "{run:?}");
        assert!(told.iter().all(|told| run.stderr.contains(told)), "{told:?}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    };
    fs::write(&path, "precious").expect("the folder can be written");
    refused(&path, &[&path, "a file is there", "another path"]);
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
    refused(&format!("{path}/s"), &["must be a folder"]);
    refused(&folder.0.join("none/s").to_string_lossy(), &["No such file", "mkdir"]);
    refused(&format!("{path}{}", "a".repeat(108)), &["103 at most", "/run/disrust.sock"]);
    let run = Run::of(binary().args(["--port", "off"]));
    assert!(run.status == Some(2) && run.stderr.contains("--unix PATH"), "{run:?}");
}

/// Promise: a server is replaced on its path without anybody's noticing, over and over; and the old one, which ends later, does
/// not take the new one's file away.
#[test]
fn a_path_is_handed_over_under_load() {
    let (mut rng, folder) = (seeded(), Folder::new());
    let path = folder.socket();
    let requests = random_requests(&mut rng, 20, 1..=8);
    let (stop, exchanges) = (AtomicBool::new(false), AtomicUsize::new(0));
    let exchange_without_end = || {
        for request in requests.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let mut client = Client::connect_at(&path).expect("somebody listens at each moment");
            client.send(&request.bytes);
            let reply = client.receive().expect("an answer, not the end");
            // A machine that is busy otherwise may let one wait for longer than the drain's last call.
            assert!(reply == request.reply || reply == Reply::Error(ErrorCode::Closing), "{reply:?}");
            exchanges.fetch_add(1, Ordering::Relaxed);
        }
    };
    let flags = &["--reuse-port", "--io-threads", "2"];
    let wait_for_exchanges = |more: usize| {
        let count = exchanges.load(Ordering::Relaxed) + more;
        wait_patiently_until(PATIENCE_FOR_END, "exchanges", || exchanges.load(Ordering::Relaxed) >= count);
    };
    let mut server = start_only_at(&path, flags);
    std::thread::scope(|scope| {
        let _stops = StopOnDrop(&stop);
        let loads: Vec<_> = (0..3).map(|_| scope.spawn(exchange_without_end)).collect();
        for _ in 0..4 {
            let new = start_only_at(&path, flags);
            let file = fs::metadata(&path).expect("it is there").ino();
            // Both serve: who has connected before is served by the old one to the end.
            wait_for_exchanges(50);
            let said = drain(std::mem::replace(&mut server, new));
            assert!(said.contains(" 0 cut at the end"), "{said}");
            assert_eq!(fs::metadata(&path).expect("it is there").ino(), file, "the new server's file is there");
            wait_for_exchanges(50);
        }
        assert!(loads.iter().all(|load| !load.is_finished()), "nobody has failed");
    });
    drain(server);
    assert_eq!(fs::read_dir(&folder.0).expect("it is there").count(), 0, "nothing is left behind");
}

/// Ends the load, also of a test that fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Promise: whoever has connected before the drain is answered, whether a thread had accepted the connection or not.
#[test]
fn who_waits_in_the_queue_when_a_drain_begins_is_answered() {
    let (mut rng, folder) = (seeded(), Folder::new());
    let path = folder.socket();
    let server = start_only_at(&path, &["--io-threads", "3"]);
    let requests = random_requests(&mut rng, 5, 1..=8);
    let connect = || Client::connect_at(&path).expect("it listens");
    let mut clients: Vec<_> = (0..10).map(|_| connect()).collect();
    clients.iter_mut().for_each(|client| client.exchange(&requests));
    server.stop();
    clients.extend((0..50).map(|_| connect()));
    clients.iter().for_each(|client| client.send_all(&requests));
    server.signal(Signal::SIGTERM);
    server.carry_on();
    for client in &mut clients {
        client.expect(&requests);
        client.expect_end();
    }
    let (status, said) = server.wait();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("60 connections served, 0 cut"), "{said}");
}

/// Promise: a peer that never reads holds little of the kernel's memory, and keeps nobody waiting; when it reads after all, it has
/// all of its answers.
#[test]
fn a_peer_that_does_not_read_holds_little() {
    /// What the socket's memory is bounded to, which holds fewer bytes than that; also with the last send, which may go beyond.
    const UNREAD_BYTES_MAX: usize = 2 * UNIX_SEND_BUFFER_BYTES;
    let (mut rng, folder) = (seeded(), Folder::new());
    let path = folder.socket();
    let server = start_only_at(&path, &["--io-threads", "1"]);
    let request = &random_requests(&mut rng, 1, 64..=64)[0];
    let mut deaf = Client::connect_at(&path).expect("it listens");
    deaf.stream().set_nonblocking(true).expect("a socket");
    let (mut sent_bytes, mut quiet) = (0, 0);
    wait_patiently_until(PATIENCE_FOR_END, "the peer is held back", || {
        let before = sent_bytes;
        for _ in 0..100 {
            let rest = &request.bytes[sent_bytes % request.bytes.len()..];
            let Ok(bytes) = (&mut deaf.stream()).write(rest) else { break };
            sent_bytes += bytes;
        }
        quiet = if before == sent_bytes { quiet + 1 } else { 0 };
        // Longer than a peer has that may read only when it has written all.
        quiet > 500
    });
    let unread_bytes = unread_bytes(&deaf);
    assert!(unread_bytes > 0 && unread_bytes <= UNREAD_BYTES_MAX, "{unread_bytes} bytes");
    let requests = random_requests(&mut rng, 100, 1..=64);
    Client::connect_at(&path).expect("it listens").exchange(&requests);
    let whole = sent_bytes / request.bytes.len();
    deaf.stream().set_nonblocking(false).expect("a socket");
    deaf.expect(std::iter::repeat_n(request, whole));
    drop(deaf);
    drain(server);
}

/// Bytes that have come and are not read.
fn unread_bytes(client: &Client) -> usize {
    usize::try_from(rustix::io::ioctl_fionread(client.stream()).expect("a socket")).expect("a size")
}

/// Promise: a process without privileges serves at a path in a folder of its own.
#[test]
fn a_server_without_privileges_serves() {
    let (mut rng, folder) = (seeded(), Folder::new());
    let path = folder.socket();
    let mut command = binary();
    if rustix::process::geteuid().is_root() {
        command = Command::new(copied_for_anybody(&folder));
        command.stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
        chown(&folder.0, Some(NOBODY), Some(NOBODY)).expect("root may do that");
    }
    command.args(only_at(&path, &["--pin", "none"])).stdout(Stdio::null());
    let server = ServerProcess::launch(&mut command);
    Client::connect_at(&path).expect("it listens").exchange(&random_requests(&mut rng, 10, 1..=8));
    drain(server);
    assert!(!PathBuf::from(&path).exists());
}

/// A user without privileges.
const NOBODY: u32 = 65534;

/// The program, where anybody may run it.
fn copied_for_anybody(folder: &Folder) -> PathBuf {
    let copy = folder.0.join("disrust");
    fs::copy(binary().get_program(), &copy).expect("the folder can be written");
    // A process that another test starts at this moment has it open for writing until it runs its own program.
    wait_until("the copy can be run", || Command::new(&copy).arg("--version").output().is_ok());
    copy
}

/// Promise: of connections that come to a shared listener, every thread gets some. A multishot accept gives nearly all to one.
#[test]
fn every_thread_accepts() {
    const THREADS: usize = 4;
    const EACH: usize = 5;
    let folder = Folder::new();
    let path = folder.socket();
    let bound = bind_path(path.as_ref(), 0o600, false).expect("a free path");
    let listeners: Vec<_> = (0..THREADS).map(|_| bound.listener()).collect();
    let served = bound.listen().expect("it is bound");
    let (counts, ended): (Vec<_>, Arc<AtomicBool>) =
        ((0..THREADS).map(|_| Arc::new(AtomicUsize::new(0))).collect(), Arc::default());
    let all = || counts.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let alarms: Vec<_> = (0..THREADS).map(|_| EventFd::new().expect("a descriptor")).collect();
    std::thread::scope(|scope| {
        for ((listener, alarm), count) in listeners.into_iter().zip(&alarms).zip(&counts) {
            let ended = Arc::clone(&ended);
            scope.spawn(move || accept_until(listener, alarm.clone(), count, &ended));
        }
        let ends = EndOnDrop(&ended, &alarms);
        // One after the other, so that it does not matter when a thread comes to run.
        let mut connections = 0;
        wait_patiently_until(PATIENCE_FOR_END, "every thread has accepted some", || {
            let _stream = UnixStream::connect(&path).expect("it listens");
            connections += 1;
            wait_patiently_until(PATIENCE_FOR_END, "it is accepted", || all().iter().sum::<usize>() == connections);
            all().iter().all(|count| *count >= EACH)
        });
        drop(ends);
    });
    drop(served);
    println!("accepted by each thread: {:?}", all());
}

/// Ends the threads that accept, also of a test that fails.
struct EndOnDrop<'a>(&'a AtomicBool, &'a [EventFd]);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.iter().for_each(Alarm::ring);
    }
}

/// One I/O thread's accepting, and nothing else.
fn accept_until(listener: PathListener, alarm: EventFd, count: &AtomicUsize, ended: &AtomicBool) {
    let pool = Arc::new(BufferPool::new(PoolGeometry { buffers: 1, headroom_bytes: 0, receive_bytes: 4096 }));
    let sizes = RingSizes { submissions: 4, completions: 16 };
    let listeners = Listeners { tcp: None, unix: Some(listener) };
    let mut kernel = UringKernel::new(sizes, pool, listeners, alarm, Clock::starting()).expect("io_uring is available");
    assert!(!kernel.listens(Entrance::Tcp) && kernel.listens(Entrance::Unix));
    kernel.accept(Entrance::Unix);
    kernel.await_alarm();
    while !ended.load(Ordering::Relaxed) {
        kernel.enter(true);
        while let Some(completion) = kernel.next_completion() {
            if let Completion::Accepted { from, result, more } = completion {
                assert!(from == Entrance::Unix && !more);
                kernel.close(result.expect("there are descriptors"));
                count.fetch_add(1, Ordering::Relaxed);
                kernel.accept(Entrance::Unix);
            }
        }
    }
}
