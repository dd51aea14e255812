//! A start that lacks something: it says what, has its exit status, and leaves nothing behind. And what a server that has
//! started keeps for itself.

mod common;

use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use disrust::limits::{ADMIN_CONNECTIONS_MAX, DESCRIPTORS_ADMIN, DESCRIPTORS_PER_IO_THREAD, DESCRIPTORS_RESERVED};
use nix::sys::signal::Signal;
use rustix::process::{Resource, getrlimit};

use common::admin;
use common::{Client, Request, Run, ServerProcess, binary, free_port, random_requests, seeded, wait_until};

const BINARY: &str = env!("CARGO_BIN_EXE_disrust");

/// The binary under limits, as prlimit(1) takes them.
fn limited(limits: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).stdin(Stdio::null());
    command.envs([("DISRUST_PORT", "0"), ("DISRUST_PIN", "none")]).args(limits).arg(BINARY);
    command
}

/// A user that has no process and no name, and to whom limits apply; or why there is none.
fn stranger() -> Result<u32, &'static str> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 1_000_000;
    let user = FIRST + std::process::id() * 100 + NEXT.fetch_add(1, Ordering::Relaxed);
    let mut known = binary();
    known.uid(user).gid(user).arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    match known.status() {
        Ok(status) if status.success() => Ok(user),
        Ok(_) | Err(_) => Err("another user can't be had, or can't reach the binary"),
    }
}

/// Says why a test does not test anything here.
macro_rules! had {
    ($what:expr) => {
        match $what {
            Ok(had) => had,
            Err(reason) => return eprintln!("skipped: {reason}"),
        }
    };
}

fn assert_serves(client: &mut Client) {
    client.exchange(&random_requests(&mut seeded(), 20, 1..=64));
}

fn assert_ends_with_words(run: &Run, status: i32, words: &[&str]) {
    assert!(run.status == Some(status) && words.iter().all(|words| run.stderr.contains(words)), "{words:?}: {run:?}");
    assert!(run.stderr.lines().count() == 1 && !run.stderr.contains("panicked"), "one message: {run:?}");
}

/// Whichever thread can't be had, the start ends with one message that says what to try, and with status 70.
#[test]
fn a_thread_that_cannot_be_had_is_named() {
    let user = had!(stranger());
    let reporter = cfg!(feature = "metrics").then_some("metrics");
    let threads = ["log", "signals", "batch-processor", "io-0", "io-1", "io-2", "io-3"].into_iter().chain(reporter);
    let threads = threads.chain(["admin"]);
    for (had, missing) in std::iter::once((0, "log")).chain((1..).zip(threads.clone())) {
        let limit = format!("--nproc={had}");
        let run = Run::of(limited(&[&limit]).uid(user).gid(user).args([
            "--io-threads",
            "4",
            "--reuse-port",
            "--admin",
            "127.0.0.1:0",
        ]));
        assert_ends_with_words(&run, 70, &[&format!("the thread {missing}"), "ulimit -u", "--io-threads"]);
    }
    let enough = format!("--nproc={}", 1 + threads.count());
    let server = ServerProcess::launch(limited(&[&enough]).uid(user).gid(user).args([
        "--io-threads",
        "4",
        "--admin",
        "127.0.0.1:0",
    ]));
    assert_serves(&mut server.connect());
}

/// While a new server fails to start, again and again and at whatever step, clients of the one that it shares its port with
/// notice nothing.
#[test]
fn a_failing_start_is_not_noticed_by_clients_of_another_server() {
    let user = had!(stranger());
    let old = ServerProcess::launch(limited(&[]).uid(user).gid(user).args(["--reuse-port", "--io-threads", "2"]));
    let port = old.address().port().to_string();
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| (0..300).for_each(|_| assert_serves(&mut old.connect())));
        while !clients.is_finished() {
            // Four threads of the old server count, and the new one's own first three.
            for (limit, status) in [
                ("--nproc=8", 70),
                ("--nproc=11", 70),
                ("--nproc=13", 70),
                ("--memlock=300000", 69),
                ("--nofile=60", 70),
            ] {
                let mut new = limited(&[limit]);
                new.args(["--reuse-port", "--io-threads", "16", "--port", &port]);
                let run = Run::of(new.uid(user).gid(user));
                assert_eq!(run.status, Some(status), "{limit}: {run:?}");
            }
        }
        clients.join().expect("nobody is reset");
    });
}

/// Two servers with as many threads as there can be fit what one user may lock by default.
#[test]
fn two_large_servers_fit_the_usual_limit_on_locked_memory() {
    let user = had!(stranger());
    let start = |port: &str| {
        let mut server = limited(&["--memlock=8388608"]);
        server.args(["--reuse-port", "--io-threads", "64", "--port", port]);
        ServerProcess::launch(server.uid(user).gid(user))
    };
    let first = start("0");
    let second = start(&first.address().port().to_string());
    assert_eq!(first.address(), second.address());
    for _ in 0..20 {
        assert_serves(&mut first.connect());
    }
}

/// A server keeps none of the locked memory that its start has tried out: with one thread it needs what a second thread needs
/// more, and hardly anything besides.
#[test]
fn a_probing_ring_is_let_go_of() {
    const STEP: usize = 8192;
    had!(stranger());
    let needed = |threads: &str| {
        let fits = |limit: &usize| {
            // The kernel lets go of a dead process' rings a moment later: nobody shares a user with one.
            let Ok(user) = stranger() else { return false };
            let mut server = limited(&[&format!("--memlock={limit}")]);
            let server = ServerProcess::launch_anyway(server.args(["--io-threads", threads]).uid(user).gid(user));
            wait_until("it serves or ends", || server.has_ended() || server.stderr().contains("\ntimeouts: "));
            server.stderr().contains("\ntimeouts: ")
        };
        (1..60).map(|steps| steps * STEP).find(fits).expect("two rings fit half a megabyte")
    };
    let (one, two) = (needed("1"), needed("2"));
    assert!(one <= two - one + 2 * STEP, "{one} bytes for one thread, {two} for two");
}

/// An address space that is too small is named, with what is needed, however small it is: from 13 MiB on, below which the
/// system's loader does not get a debug build with its libraries into memory.
#[test]
fn a_small_address_space_is_named() {
    for mebibytes in [24_u64, 32, 40, 64, 100, 200, 300] {
        let limit = format!("--as={}", mebibytes << 20);
        let run = Run::of(limited(&[&limit]).args(["--io-threads", "4"]));
        assert_ends_with_words(&run, 70, &["MiB of address space", "ulimit -v"]);
    }
    let server = ServerProcess::launch(limited(&["--as=1073741824"]).args(["--io-threads", "4"]));
    assert_serves(&mut server.connect());
}

/// A limit on descriptors as high as it may be here (in a container, there may be none to speak of) costs no memory.
#[test]
fn a_boundless_limit_on_descriptors_costs_no_memory() {
    const RESIDENT_MAX: u64 = 128 << 20;
    const BOUNDLESS: u64 = 1 << 30;
    let raised = |limit: &u64| {
        let mut known = limited(&[&format!("--nofile={limit}")]);
        known.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(BOUNDLESS);
    let limit = had!([BOUNDLESS, hard].into_iter().find(raised).ok_or("limits can't be set"));
    let limit = format!("--nofile={limit}");
    // What is asked for costs nothing either before it is used.
    for flags in [&[][..], &["--max-connections", "10000000"]] {
        let server = ServerProcess::launch(limited(&[&limit]).args(["--io-threads", "4"]).args(flags));
        assert_serves(&mut server.connect());
        assert!(server.resident_bytes() < RESIDENT_MAX, "{} bytes", server.resident_bytes());
    }
}

/// A server opens no more descriptors for itself than it takes off what connections may have.
#[test]
fn descriptors_are_counted() {
    /// What may be open for a moment.
    const MOMENTARY: usize = 4;
    for (threads, flags) in [(1, &[][..]), (4, &[]), (4, &["--reuse-port"]), (2, &["--reuse-port", "--host", "::"])] {
        let server = ServerProcess::start(&[&["--io-threads", &threads.to_string()], flags].concat());
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count();
        let most = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_IO_THREAD * threads - MOMENTARY;
        assert!(open <= most, "{open} of {most} with {threads} threads and {flags:?}");
    }
}

/// A limit that leaves room for few connections is said at the start, and they are served.
#[test]
fn few_descriptors_are_complained_about() {
    for room in [1, 2, 60] {
        let limit = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_IO_THREAD + room;
        let limit_flag = format!("--nofile={limit}");
        let server = ServerProcess::launch(limited(&[&limit_flag]).args(["--io-threads", "1", "--reuse-port"]));
        let said = server.stderr();
        let words = format!("{room} connections are the most that the limit of {limit} open descriptors");
        assert!(said.contains(&words) && said.contains("ulimit -n"), "{said}");
        let mut clients: Vec<_> = (0..room).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(assert_serves);
        server.signal(Signal::SIGTERM);
        drop(clients);
        assert_eq!(server.wait().0, Some(0));
    }
    // With all connections of clients taken, the admin port has its own.
    let limit = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_IO_THREAD + DESCRIPTORS_ADMIN + 3;
    let limit_flag = format!("--nofile={limit}");
    let mut command = limited(&[&limit_flag]);
    let server = ServerProcess::launch(command.args(["--io-threads", "1", "--reuse-port", "--admin", "127.0.0.1:0"]));
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(assert_serves);
    assert!(server.connect().is_closed_at_once());
    let slow: Vec<_> = (0..2 * ADMIN_CONNECTIONS_MAX).map(|_| admin::connect(server.admin_address())).collect();
    for path in ["/livez", "/metrics", "/status.json"] {
        assert_eq!(admin::status(server.admin_address(), path), 200);
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count();
    assert!(open <= limit - 4, "{open} of {limit}, and what is open for a moment");
    clients.iter_mut().for_each(assert_serves);
    drop(slow);
    let none = format!("--nofile={}", DESCRIPTORS_RESERVED + DESCRIPTORS_PER_IO_THREAD);
    let run = Run::of(limited(&[&none]).args(["--io-threads", "1"]));
    assert_ends_with_words(&run, 70, &["leaves none for connections", "ulimit -n"]);
}

/// Words that nobody reads do not keep a failed start from ending.
#[test]
fn a_blocked_stderr_keeps_no_failure_from_ending() {
    for (flags, status) in [
        (&["--config", "missing.toml"][..], 78),
        (&["--no-such-flag"], 2),
        (&["--host", "192.0.2.1", "--port", "0"], 71),
    ] {
        let (reader, mut writer) = std::io::pipe().expect("descriptors");
        let stderr = writer.try_clone().expect("descriptors");
        // It is stuck for as long as the pipe is there; a pipe holds less than this.
        std::thread::spawn(move || writer.write_all(&[b'.'; 1 << 21]));
        let begun_at = Instant::now();
        let mut child = binary().args(flags).stderr(stderr).spawn().expect("the program starts");
        let mut ended = None;
        wait_until("it ends", || {
            ended = child.try_wait().expect("it is our child");
            ended.is_some() || begun_at.elapsed() > Duration::from_secs(8)
        });
        if ended.is_none() {
            child.kill().expect("it is our child");
        }
        assert_eq!(ended.and_then(|ended| ended.code()), Some(status), "{flags:?}");
        drop(reader);
    }
}

/// SIGTERM and SIGINT are heard while a name server does not answer: the process ends, with status 0, and says so.
#[test]
fn a_signal_ends_a_start_that_waits_for_a_name_server() {
    let script = r#"mount --bind "$RESOLV" /etc/resolv.conf && exec "$0" "$@""#;
    // A name server for each: the questions of one must not be taken for those of the other.
    for (signal, name_server) in [(Signal::SIGTERM, "127.0.0.153"), (Signal::SIGINT, "127.0.0.154")] {
        let silent = had!(UdpSocket::bind((name_server, 53)).map_err(|_| "the port of name servers can't be had"));
        silent.set_read_timeout(Some(Duration::from_secs(5))).expect("a time above 0");
        let settings = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name_server}", std::process::id()));
        std::fs::write(&settings, format!("nameserver {name_server}\noptions timeout:30\n"))
            .expect("a folder for tests");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, BINARY, "--port", "0", "--host", "silent.invalid.example"]);
        let process = ServerProcess::launch_anyway(command.env("RESOLV", &settings).stdin(Stdio::null()));
        let asked = silent.recv_from(&mut [0; 512]);
        std::fs::remove_file(settings).expect("it was written");
        had!(asked.map_err(|_| "names are not asked for over the network, or mounts are not ours to make"));
        let asked_at = Instant::now();
        process.signal(signal);
        let (status, said) = process.wait();
        assert!(
            status == Some(0) && said.contains(signal.as_str()) && said.contains("broken off"),
            "{status:?}: {said}"
        );
        // Half a second is the promise; the resolver gives up after a minute.
        assert!(asked_at.elapsed() < Duration::from_secs(5), "{:?}", asked_at.elapsed());
    }
}

/// SIGHUP, SIGUSR1 and SIGUSR2 are logged and change nothing, while the server serves and while it drains.
#[test]
fn other_signals_change_nothing() {
    const OTHERS: [Signal; 3] = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
    let server = ServerProcess::start(&["--drain-timeout", "1h", "--features", "1"]);
    let mut client = server.connect();
    client.exchange(&[Request::of(1, &[1.0])]);
    let send_all = |times: usize| {
        for signal in OTHERS {
            server.signal(signal);
            wait_until("it is logged", || server.stderr().matches(signal.as_str()).count() == times);
        }
    };
    send_all(1);
    client.exchange(&[Request::of(1, &[2.0])]);
    // A client that does not read keeps the drain from its end.
    let deaf = Client::with_small_buffers(server.address());
    let bytes = Request::of(1, &[1.0; 64]).bytes.repeat(100);
    deaf.stream().set_write_timeout(Some(Duration::from_secs(1))).expect("a time above 0");
    while Write::write_all(&mut deaf.stream(), &bytes).is_ok() {}
    server.signal(Signal::SIGTERM);
    wait_until("it drains", || server.stderr().contains("SIGTERM: draining"));
    send_all(2);
    assert!(!server.has_ended(), "{}", server.stderr());
    server.signal(Signal::SIGINT);
    let (status, said) = server.wait();
    assert!(status == Some(0) && said.contains("SIGINT again"), "{status:?}: {said}");
    drop(deaf);
}

/// A port on which a start has failed is free at once.
#[test]
fn a_failed_start_leaves_its_port_free() {
    let user = had!(stranger());
    for limit in ["--nproc=4", "--nproc=7", "--memlock=100000"] {
        let port = free_port();
        let mut failing = limited(&[limit]);
        let run = Run::of(failing.uid(user).gid(user).args(["--io-threads", "4", "--port", &port.to_string()]));
        assert!(run.status.is_some_and(|status| [69, 70].contains(&status)), "{limit}: {run:?}");
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err() && TcpListener::bind(("127.0.0.1", port)).is_ok());
    }
}

/// A server that nobody asks anything of sleeps: ten times a second is the most that it wakes up, with all of its threads.
#[test]
fn an_idle_server_sleeps() {
    const SECONDS: u64 = 4;
    for threads in ["2", "64"] {
        let server = ServerProcess::start(&["--io-threads", threads]);
        assert_serves(&mut server.connect());
        let wakes = || -> u64 {
            let threads = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs").flatten();
            let counts = threads.map(|thread| {
                let status = std::fs::read_to_string(thread.path().join("status")).expect("it runs");
                let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
                count.and_then(|count| count.trim().parse::<u64>().ok()).expect("proc(5)")
            });
            counts.sum()
        };
        std::thread::sleep(Duration::from_secs(1));
        let before = wakes();
        std::thread::sleep(Duration::from_secs(SECONDS));
        let woken = wakes() - before;
        assert!(woken <= 10 * SECONDS, "{woken} times in {SECONDS} s with {threads} I/O threads");
    }
}
