//! systemd, or whoever has set NOTIFY_SOCKET, is told when the server serves, reads its model again and stops; and is not needed for
//! any of it.

mod common;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;

use common::models::{TemporaryFile, constant};
use common::{Client, PATIENCE_FOR_END, Request, ServerProcess, binary, seeded, wait_patiently_until};

/// A service manager.
struct Manager {
    socket: UnixDatagram,
    /// What a process gets in NOTIFY_SOCKET.
    address: String,
    /// Of a socket that has a file.
    path: Option<PathBuf>,
}

impl Manager {
    fn at_a_path() -> Manager {
        let path = std::env::temp_dir().join(unique_name());
        let socket = UnixDatagram::bind(&path).expect("a free path");
        Manager::of(socket, path.to_str().expect("a name in ASCII").to_owned(), Some(path))
    }

    fn at_an_abstract_name() -> Manager {
        let name = unique_name();
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        Manager::of(UnixDatagram::bind_addr(&address).expect("a free name"), format!("@{name}"), None)
    }

    fn of(socket: UnixDatagram, address: String, path: Option<PathBuf>) -> Manager {
        socket.set_read_timeout(Some(PATIENCE_FOR_END)).expect("a socket takes a timeout");
        Manager { socket, address, path }
    }

    /// A server that tells it.
    fn start(&self, flags: &[&str]) -> ServerProcess {
        let mut command = binary();
        command.args(["--port", "0", "--pin", "none"]).args(flags).env("NOTIFY_SOCKET", &self.address);
        ServerProcess::launch(&mut command)
    }

    /// Leaves no room for messages.
    fn fill(&self) {
        let socket = UnixDatagram::unbound().expect("a socket");
        socket.set_nonblocking(true).expect("it need not block");
        let address = self.socket.local_addr().expect("a bound socket has an address");
        while socket.send_to_addr(b"nobody reads this", &address).is_ok() {}
    }

    /// The next message, line by line.
    fn hear(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let count = self.socket.recv(&mut bytes).expect("a message in time");
        let message = std::str::from_utf8(&bytes[..count]).expect("text");
        message.lines().map(str::to_owned).collect()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.path.iter().for_each(|path| _ = std::fs::remove_file(path));
    }
}

fn unique_name() -> String {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: only its being another one each time matters.
    format!("disrust-notify-{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed))
}

fn score(client: &mut Client, features: usize) {
    let request = Request::random(&mut seeded(), features, 3);
    client.send_all(std::slice::from_ref(&request));
    client.receive().expect("an answer");
}

/// READY=1 comes when requests are answered, and STOPPING=1 when the stop begins, while they still are.
#[test]
fn a_start_and_a_stop_are_told() {
    for manager in [Manager::at_a_path(), Manager::at_an_abstract_name()] {
        for flags in [&["--shutdown-delay", "1h"][..], &["--shutdown-delay", "1h", "--seccomp"]] {
            let server = manager.start(flags);
            let ready = manager.hear();
            assert_eq!(ready, ["READY=1".to_owned(), format!("STATUS=serving at {}", server.address())]);
            let mut client = server.connect();
            score(&mut client, 16);
            server.signal(Signal::SIGTERM);
            assert_eq!(manager.hear(), ["STOPPING=1", "STATUS=leaving, then draining"]);
            score(&mut client, 16);
            server.signal(Signal::SIGTERM);
            drop(client);
            assert_eq!(server.wait().0, Some(0));
        }
    }
}

/// A reload has a beginning, with the time that systemd asks for, and an end, whatever comes of it; also where there is nothing to read.
#[test]
fn a_reload_is_told() {
    let manager = Manager::at_a_path();
    let hear_reload = || {
        let begins = manager.hear();
        assert!(begins[0] == "RELOADING=1" && begins[1].starts_with("MONOTONIC_USEC="), "{begins:?}");
        let ends = manager.hear();
        assert_eq!(ends[0], "READY=1");
        ends[1].clone()
    };
    let file = TemporaryFile::new("told.txt", constant(1));
    let server = manager.start(&["--model", file.path()]);
    manager.hear();
    file.replace(constant(2));
    server.signal(Signal::SIGHUP);
    let said = hear_reload();
    assert!(said.starts_with("STATUS=serving the model ") && !said.contains("not taken"), "{said}");
    file.replace("STATUS\nMAINPID=1\n");
    server.signal(Signal::SIGHUP);
    let said = hear_reload();
    assert!(said.contains("; a new one is not taken: "), "{said}");
    server.signal(Signal::SIGTERM);
    assert_eq!(manager.hear()[0], "STOPPING=1");
    assert_eq!(server.wait().0, Some(0));

    let server = manager.start(&[]);
    manager.hear();
    server.signal(Signal::SIGHUP);
    assert_eq!(hear_reload(), "STATUS=serving; there is no model file to read again");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().0, Some(0));
}

/// A manager that reads nothing holds up neither reloads nor the drain, and one that is not there is a line in the log.
#[test]
fn nobody_has_to_listen() {
    let manager = Manager::at_an_abstract_name();
    manager.fill();
    let file = TemporaryFile::new("deaf.txt", constant(1));
    let server = manager.start(&["--model", file.path()]);
    file.replace(constant(2));
    server.signal(Signal::SIGHUP);
    let replaced = || server.stderr().contains("is replaced: version ");
    wait_patiently_until(PATIENCE_FOR_END, "the new model serves", replaced);
    score(&mut server.connect(), 2);
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    assert!(status == Some(0) && log.contains("drained: "), "{status:?}: {log}");
    let untold = log.matches("the service manager could not be told ").count();
    assert_eq!(untold, 4, "of the start, a reload's beginning and end, and the stop: {log}");

    let mut gone = Manager::at_an_abstract_name();
    gone.address = "/no/such/folder/notify".to_owned();
    let server = gone.start(&[]);
    score(&mut server.connect(), 16);
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    assert!(status == Some(0) && log.contains("the service manager could not be told READY=1: "), "{status:?}: {log}");
}
