//! Rows R13, R17 and R19: signals at awkward times, and signals that mean nothing.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::SockRef;

use super::Listed;
use super::common::{DeafCrowd, ServerProcess, binary, free_port, wait_until};
use super::site::{Site, Stop, last_line, needs_program, needs_root, require};

pub const ROWS: &[Listed] = &[
    ("R13", "SIGTERM while --host is being resolved", resolving),
    ("R17", "SIGTERM under a flood of connects", flood),
    ("R19", "SIGHUP, SIGUSR1, SIGUSR2 while serving and while draining", meaningless_signals),
];

fn resolving(site: &mut Site) -> Result<(), Stop> {
    needs_root()?;
    needs_program("unshare")?;
    // A name server that hears and says nothing.
    let own = std::process::id().to_le_bytes();
    let server = format!("127.{}.{}.1", 100 + own[1] % 100, own[0]);
    let refused = |error| Stop::Skipped(format!("no socket on port 53 of {server}: {error}"));
    let silent = UdpSocket::bind((server.as_str(), 53)).map_err(refused)?;
    silent.set_read_timeout(Some(Duration::from_secs(10))).expect("a time above 0");
    let path = std::env::temp_dir().join(format!("disrust-faults-resolv-{}", std::process::id()));
    std::fs::write(&path, format!("nameserver {server}\noptions timeout:10\n")).expect("a temporary folder");
    let outcome = [Signal::SIGTERM, Signal::SIGINT].into_iter().try_for_each(|signal| {
        let script = r#"mount --bind "$1" /etc/resolv.conf && shift && exec "$0" "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(binary().get_program()).arg(&path);
        command.args(["--pin", "none", "--port", "0", "--host", "nobody.invalid.test"]);
        let process = ServerProcess::launch_anyway(command.stdin(Stdio::null()).stdout(Stdio::null()));
        let mut question = [0; 512];
        let asked = silent.recv_from(&mut question);
        require(asked.is_ok(), format!("it asks the name server: {}", process.stderr()))?;
        process.signal(signal);
        let begun_at = Instant::now();
        let (status, log) = process.wait();
        let took = begun_at.elapsed();
        site.measured(format!("{signal}: status {status:?} after {took:.1?}"));
        let in_order = status == Some(0) && took < Duration::from_millis(500);
        require(in_order, format!("{signal}: status 0 at once, not {status:?} after {took:.1?}: {}", last_line(&log)))?;
        // A second question may wait, to another kind of address.
        silent.set_nonblocking(true).expect("a socket");
        while silent.recv_from(&mut question).is_ok() {}
        silent.set_nonblocking(false).expect("a socket");
        Ok(())
    });
    // Nobody else reads it.
    let _gone = std::fs::remove_file(&path);
    outcome
}

fn flood(site: &mut Site) -> Result<(), Stop> {
    for shared in [false, true] {
        for _ in 0..site.size(5, 1) {
            let port = free_port().to_string();
            let start = || {
                let mut command = binary();
                command.args(["--pin", "none", "--io-threads", "2", "--drain-timeout", "3s", "--port", &port]);
                ServerProcess::launch(command.args(shared.then_some("--reuse-port")).stdout(Stdio::null()))
            };
            let server = start();
            let other = shared.then(start);
            let (stop, connects) = (AtomicBool::new(false), AtomicU64::new(0));
            let (ended, log, took) = std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| connect_without_end(server.address(), &stop, &connects));
                }
                std::thread::sleep(Duration::from_millis(300));
                server.signal(Signal::SIGTERM);
                let begun_at = Instant::now();
                while !server.has_ended() && begun_at.elapsed() < Duration::from_secs(20) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let took = begun_at.elapsed();
                // Relaxed: the flag guards nothing.
                stop.store(true, Ordering::Relaxed);
                (server.has_ended(), server.stderr(), took)
            });
            let rate = connects.load(Ordering::Relaxed) as f64 / (took + Duration::from_millis(300)).as_secs_f64();
            site.measured(format!("shared {shared}: {rate:.0} connects/s, ended after {took:.1?}"));
            require(
                ended && took < Duration::from_secs(6),
                format!("ends, not after {took:.1?}: {}", last_line(&log)),
            )?;
            require(server.wait().0 == Some(0), format!("status 0: {}", last_line(&log)))?;
            drop(other);
        }
    }
    Ok(())
}

/// Connects and breaks off at once. That nobody listens any more is as it should be.
fn connect_without_end(address: SocketAddr, stop: &AtomicBool, connects: &AtomicU64) {
    // Relaxed: the flag and the count guard nothing.
    while !stop.load(Ordering::Relaxed) {
        match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            Ok(stream) => {
                connects.fetch_add(1, Ordering::Relaxed);
                // It may have been reset meanwhile.
                let _broken = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
            Err(_refused) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn meaningless_signals(site: &mut Site) -> Result<(), Stop> {
    const SIGNALS: [Signal; 3] = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
    const DRAIN: Duration = Duration::from_secs(3);
    site.features = 1;
    for signal in SIGNALS {
        let server = ServerProcess::start(&["--features", "1", "--drain-timeout", "3s"]);
        let requests: Vec<_> = (0..50).map(|_| site.request(4)).collect();
        let mut client = server.connect();
        client.exchange(&requests);
        for _ in 0..3 {
            server.signal(signal);
            std::thread::sleep(Duration::from_millis(50));
            require(
                !server.has_ended(),
                format!("{signal} while serving ends it: {:?}", server.stderr().lines().last()),
            )?;
            client.exchange(&requests);
        }
        wait_until("it says what came", || server.stderr().contains(signal.as_str()));
        // A drain that takes as long as it may, for one that never reads.
        let mut deaf = DeafCrowd::connect(server.address(), 1, &site.request(64));
        deaf.send_until_held_back();
        server.signal(Signal::SIGTERM);
        let begun_at = Instant::now();
        while begun_at.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(500));
            server.signal(signal);
            require(!server.has_ended(), format!("{signal} cuts the drain short after {:.1?}", begun_at.elapsed()))?;
        }
        drop(client);
        let (status, log) = server.wait();
        let took = begun_at.elapsed();
        drop(deaf);
        require(status == Some(0), format!("{signal} in a drain: status {status:?}: {}", last_line(&log)))?;
        let as_ever = took > DRAIN - Duration::from_millis(500);
        require(as_ever, format!("{signal} changes nothing: the drain took {took:.1?}"))?;
    }
    site.measured("each is said in the log and changes nothing");
    Ok(())
}
