//! Rows F: starting, stopping, restarting, and what a process may find closed.

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use disrust_protocol::ErrorCode;
use nix::sys::signal::Signal;

use super::Listed;
use super::common::{Client, DeafCrowd, Reply, Run, ServerProcess, binary, free_port, random_requests, seeded};
use super::peer::Peer;
use super::site::{Site, Stop, last_line, require};

pub const ROWS: &[Listed] = &[
    ("F1", "SIGTERM or SIGINT under load", stop_under_load),
    ("F2", "SIGTERM, and clients that never close or never read", stop_with_stubborn_clients),
    ("F3", "rolling restart under load", rolling_restart),
    ("F4", "kill −9 of the server", killed),
    ("F5", "stdout and stderr closed, full, or read by nobody", no_output),
    ("F7", "bad flag, file, model, port, CPU", bad_starts),
    ("F8", "allocation on a request's path", allocations),
    ("F9", "a soak with a random mix of all this", soak),
];

/// Clients that ask until they are refused or the stream ends, and check what they get.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(server: &ServerProcess, clients: usize) -> Load {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..clients).map(|_| {
            let (stop, answers, client) = (Arc::clone(&stop), Arc::clone(&answers), server.connect());
            std::thread::spawn(move || ask_until_refused(client, &stop, &answers))
        });
        let threads = threads.collect();
        Load { stop, answers, threads }
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("answers, then refusals, then the end"));
        self.answers.load(Ordering::Relaxed)
    }
}

fn ask_until_refused(mut client: Client, stop: &AtomicBool, answers: &AtomicU64) {
    let mut rng = seeded();
    while !stop.load(Ordering::Relaxed) {
        let requests = random_requests(&mut rng, 20, 1..=4);
        client.send_all(&requests);
        let mut refused = false;
        for request in &requests {
            let reply = client.receive().expect("every request is answered or refused");
            if reply == Reply::Error(ErrorCode::Closing) {
                refused = true;
            } else {
                assert!(!refused && reply == request.reply, "the right answer, and none after a refusal");
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }
        if refused {
            client.expect_end();
            return;
        }
    }
}

fn stop_under_load(site: &mut Site) -> Result<(), Stop> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for _ in 0..site.size(10, 2) {
            let server = ServerProcess::start(&["--io-threads", "2"]);
            let load = Load::start(&server, 16);
            std::thread::sleep(Duration::from_millis(300));
            let begun_at = Instant::now();
            server.signal(signal);
            let (status, log) = server.wait();
            let took = begun_at.elapsed();
            let answers = load.finish();
            site.figures.clear();
            site.measured(format!("{signal}: drained in {took:.1?} with {answers} answers: {}", last_line(&log)));
            require(status == Some(0) && took < Duration::from_secs(10), format!("status {status:?} after {took:?}"))?;
        }
    }
    Ok(())
}

fn stop_with_stubborn_clients(site: &mut Site) -> Result<(), Stop> {
    // As many bytes in an answer as in its request, so that answers soon have nowhere to go.
    site.features = 1;
    let server = ServerProcess::start(&["--drain-timeout", "3s", "--features", "1"]);
    let idle: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let request = site.request(64);
    let mut deaf = DeafCrowd::connect(server.address(), 10, &request);
    deaf.send_until_held_back();
    let begun_at = Instant::now();
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    let took = begun_at.elapsed();
    site.measured(format!("ended after {took:.1?}: {}", last_line(&log)));
    drop((idle, deaf));
    require(status == Some(0), format!("exit status {status:?}"))?;
    require(log.contains("cut at the end") && !log.contains(" 0 cut at the end"), "it says how many were cut")?;
    require(took < Duration::from_secs(6), "it ends at the grace time")
}

fn rolling_restart(site: &mut Site) -> Result<(), Stop> {
    let port = free_port().to_string();
    let start = || {
        let flags = ["--pin", "none", "--reuse-port", "--port", &port, "--io-threads", "2"];
        ServerProcess::launch(binary().args(flags).stdout(Stdio::null()))
    };
    let mut server = start();
    let restarts = site.size(100, 5);
    let mut peers: Vec<_> = (0..4).map(|_| Peer::start(server.address(), &["until-eof"])).collect();
    for restart in 0..restarts {
        let next = start();
        let old = std::mem::replace(&mut server, next);
        old.signal(Signal::SIGTERM);
        let (status, log) = old.wait();
        require(status == Some(0), format!("restart {restart}: status {status:?}: {}", last_line(&log)))?;
        for peer in &mut peers {
            let ended = peer.0.try_wait().expect("our child");
            require(
                ended.is_none_or(|status| status.success()),
                format!("restart {restart}: a client lost something"),
            )?;
        }
    }
    let mut slowest = Duration::ZERO;
    for peer in &mut peers {
        require(peer.was_right(), "a client lost something")?;
        slowest = slowest.max(Duration::from_micros(peer.last_word().parse().expect("microseconds")));
    }
    site.measured(format!(
        "{restarts} restarts under 4 clients that connect anew for each exchange; the slowest exchange took {slowest:.1?}"
    ));
    server.signal(Signal::SIGTERM);
    require(server.wait().0 == Some(0), "it drains")
}

fn killed(site: &mut Site) -> Result<(), Stop> {
    let mut slowest = Duration::ZERO;
    for _ in 0..site.size(20, 3) {
        let port = free_port().to_string();
        let start = || ServerProcess::launch(binary().args(["--pin", "none", "--port", &port]));
        let server = start();
        let clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
        let requests = random_requests(&mut site.rng, 50, 1..=4);
        clients.iter().for_each(|client| client.send_all(&requests));
        server.signal(Signal::SIGKILL);
        let begun_at = Instant::now();
        let _killed = server.wait();
        let next = start();
        next.connect().exchange(&requests);
        slowest = slowest.max(begun_at.elapsed());
    }
    site.measured(format!("the next one served at the latest after {slowest:.1?}"));
    require(slowest < Duration::from_secs(3), "the next start binds soon")
}

fn no_output(site: &mut Site) -> Result<(), Stop> {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("it is there"));
    for kind in ["closed", "full", "unread"] {
        let port = free_port();
        let mut command = match kind {
            "closed" => {
                let mut shell = Command::new("sh");
                shell.args(["-c", r#"exec "$0" "$@" >&- 2>&-"#]).arg(binary().get_program());
                shell
            }
            _ => binary(),
        };
        if kind == "full" {
            command.stdout(full()).stderr(full());
        } else if kind == "unread" {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        command.args(["--pin", "none", "--metrics-interval", "100ms", "--port", &port.to_string()]);
        let mut child = command.stdin(Stdio::null()).spawn().expect("it starts");
        let served = serve_unseen(site, port);
        // Whatever came of it, the process ends.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, Signal::SIGTERM).expect("our child");
        let status = child.wait().expect("our child").code();
        served?;
        require(status == Some(0), format!("with output {kind}: status {status:?}"))?;
        site.measured(format!("output {kind}: served and drained"));
    }
    Ok(())
}

fn serve_unseen(site: &mut Site, port: u16) -> Result<(), Stop> {
    let begun_at = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        require(begun_at.elapsed() < Duration::from_secs(10), "it listens")?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    // Lines are logged meanwhile, for peers that send nonsense.
    for _ in 0..20 {
        let bad = Client::connect(([127, 0, 0, 1], port).into());
        bad.send(&[0; 4]);
        client.exchange(&random_requests(&mut site.rng, 10, 1..=4));
    }
    Ok(())
}

fn bad_starts(site: &mut Site) -> Result<(), Stop> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    for (flags, status, said) in [
        (&["--no-such-flag"][..], 2, "--no-such-flag"),
        (&["--io-threads", "4", "--pin", "0-3"], 2, "needs 5"),
        (&["--config", "missing.toml"], 78, "missing.toml"),
        (&["--model", "missing.model"], 78, "missing.model"),
        (&["--port", &port], 71, &port),
        (&["--port", "0", "--pin", "9999,9999", "--pin-policy", "strict"], 71, "9999"),
    ] {
        let run = Run::of(binary().args(flags));
        let right = run.status == Some(status) && run.stderr.contains(said);
        require(right, format!("{flags:?}: status {:?}: {}", run.status, run.stderr))?;
    }
    site.measured("6 kinds, each with its status and a message that names it");
    Ok(())
}

fn allocations(site: &mut Site) -> Result<(), Stop> {
    if site.quick {
        return Err(Stop::Skipped("is part of cargo test --workspace; not in a quick run".to_owned()));
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--quiet", "--locked", "--test", "allocations"]).stdin(Stdio::null());
    let output = cargo.output().map_err(|error| Stop::Skipped(format!("cargo does not start: {error}")))?;
    site.measured("cargo test --test allocations");
    require(output.status.success(), String::from_utf8_lossy(&output.stdout))
}

fn soak(_site: &mut Site) -> Result<(), Stop> {
    Err(Stop::Skipped("takes as long as one likes: scripts/soak.sh MINUTES".to_owned()))
}
