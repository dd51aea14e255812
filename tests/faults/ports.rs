//! Rows G1, G4, G5 and R7: who may serve a port, and how one server hands it to another.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Listed;
use super::common::{Reply, ServerProcess, binary, free_port, random_requests, wait_until};
use super::connect_load::{ConnectLoad, Tally};
use super::site::{Gauges, Site, Stop, at_once, last_line, needs_program, needs_root, require};
use super::starts::{Nobody, REFUSAL_MAX, Start};

pub const ROWS: &[Listed] = &[
    (
        "G1",
        "two servers on one port, also at one instant; who shares beside who does not; overlapping addresses",
        claims,
    ),
    ("G4", "any of 1, 2, 3 servers on a port stops, with and without /proc, under a connect load", stops),
    ("G5", "a start beside a server that serves fails, at every step", failing_newcomers),
    ("R7", "descriptors used up, connections queued, and SIGTERM beside a new server", handover_without_descriptors),
];

/// Peers of a connect load.
const PEERS: u64 = 4;

// ---- Who may serve.

/// A server's address and whether it shares.
type Claim = (&'static str, bool);

const ALONE: Claim = ("127.0.0.1", false);
const SHARED: Claim = ("127.0.0.1", true);

fn claims(site: &mut Site) -> Result<(), Stop> {
    let mut both = 0;
    let mut why = String::new();
    let mut tried = |pair: [Claim; 2], at_one_instant: bool| -> Result<(), Stop> {
        if let Err(wrong) = exactly_one_serves(pair, at_one_instant)? {
            both += 1;
            why = format!("{}{pair:?}: {wrong}", if at_one_instant { "at one instant: " } else { "" });
        }
        Ok(())
    };
    let (races, mixed) = (site.size(100, 10), site.size(20, 2));
    let mut total = races;
    for _ in 0..races {
        tried([ALONE, ALONE], true)?;
    }
    let mut pairs = vec![
        [ALONE, SHARED],
        [SHARED, ALONE],
        [ALONE, ("0.0.0.0", false)],
        [("0.0.0.0", false), ALONE],
        [SHARED, ("0.0.0.0", false)],
        [("0.0.0.0", false), SHARED],
    ];
    if TcpListener::bind("[::1]:0").is_ok() {
        pairs.extend([[("::", false), ALONE], [ALONE, ("::", false)], [("0.0.0.0", false), ("::", true)]]);
        pairs.extend([[("::1", false), ("::", false)], [("::", true), ("::1", false)]]);
    } else {
        site.measured("no IPv6 here");
    }
    for pair in &pairs {
        tried(*pair, false)?;
        for _ in 0..mixed {
            tried(*pair, true)?;
        }
        total += 1 + mixed;
    }
    site.measured(format!("{both} of {total} pairs were not one that serves and one that is refused"));
    require(both == 0, format!("exactly one of two serves; {both} of {total}, the last: {why}"))?;
    let mut apart = vec![[ALONE, ("127.0.0.2", false)], [SHARED, ("127.0.0.2", false)], [SHARED, SHARED]];
    if TcpListener::bind("[::1]:0").is_ok() {
        apart.extend([[ALONE, ("::1", false)], [("0.0.0.0", false), ("::1", true)]]);
    }
    for pair in &apart {
        for at_one_instant in [false, true] {
            let (port, pair) = (unused_port(), *pair);
            // Both live until both have been looked at: a connection may be either's, if they share.
            let both = start_both(pair, port, at_one_instant)?;
            for start in &both {
                let Start::Serves(server) = start else {
                    return Err(Stop::Failed(format!("{pair:?} do not overlap, or share on purpose: both serve")));
                };
                server.connect().exchange(&random_requests(&mut site.rng, 10, 1..=8));
            }
        }
    }
    site.measured(format!("{} pairs that may both serve do", apart.len()));
    Ok(())
}

/// `Err` within, if not exactly one of them serves and the other says why it does not.
fn exactly_one_serves(pair: [Claim; 2], at_one_instant: bool) -> Result<Result<(), String>, Stop> {
    let port = unused_port();
    let [first, second] = start_both(pair, port, at_one_instant)?;
    let (server, status, log) = match (first, second) {
        (Start::Serves(server), Start::Ended { status, log, .. }) => (server, status, log),
        (Start::Ended { status, log, .. }, Start::Serves(server)) if at_one_instant => (server, status, log),
        (Start::Serves(_), Start::Serves(_)) => return Ok(Err("both serve".to_owned())),
        (Start::Ended { log: one, .. }, Start::Ended { log: other, .. }) => {
            return Ok(Err(format!("neither serves: {} {}", last_line(&one), last_line(&other))));
        }
        (Start::Ended { log, .. }, Start::Serves(_)) => {
            return Ok(Err(format!("the second serves, not the first: {}", last_line(&log))));
        }
    };
    let host = if server.address().is_ipv6() { "::1" } else { "127.0.0.1" };
    let Ok(_served) = TcpStream::connect((host, port)) else { return Ok(Err("nobody serves".to_owned())) };
    if status != Some(71) || !log.contains(&port.to_string()) {
        return Ok(Err(format!("status {status:?}: {}", log.trim().replace('\n', " / "))));
    }
    Ok(Ok(()))
}

/// Starts two servers on one port, in this order or at one instant.
fn start_both(pair: [Claim; 2], port: u16, at_one_instant: bool) -> Result<[Start; 2], Stop> {
    let command = |(host, shared): Claim| {
        let mut command = binary();
        command.args(["--pin", "none", "--io-threads", "1", "--host", host, "--port", &port.to_string()]);
        command.args(shared.then_some("--reuse-port"));
        command
    };
    let [mut first, mut second] = pair.map(command);
    if !at_one_instant {
        return Ok([Start::attempt(&mut first)?, Start::attempt(&mut second)?]);
    }
    let instant = Barrier::new(2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            instant.wait();
            Start::attempt(&mut second)
        });
        instant.wait();
        let first = Start::attempt(&mut first);
        Ok([first?, other.join().expect("a start does not panic")?])
    })
}

/// A port that nobody uses at any address, and that the kernel gives to nobody who does not ask for it: it is not among
/// those that it chooses for clients.
fn unused_port() -> u16 {
    loop {
        let port = fastrand::u16(20_000..32_000);
        let free = |host| TcpListener::bind((host, port)).is_ok();
        if free("0.0.0.0") && (free("::") || TcpListener::bind("[::1]:0").is_err()) {
            return port;
        }
    }
}

// ---- Who stops.

/// How the servers of a port are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Surroundings {
    Usual,
    /// An empty file system lies over /proc.
    WithoutProc,
}

impl Surroundings {
    fn server(self, port: u16, shared: bool) -> ServerProcess {
        let mut command = match self {
            Surroundings::Usual => binary(),
            Surroundings::WithoutProc => {
                let script = r#"mount -t tmpfs none /proc && exec "$0" "$@""#;
                let mut unshare = Command::new("unshare");
                unshare.args(["--mount", "sh", "-c", script]).arg(binary().get_program());
                unshare
            }
        };
        command.args(["--pin", "none", "--io-threads", "2", "--port", &port.to_string()]);
        command.args(shared.then_some("--reuse-port"));
        ServerProcess::launch(command.stdin(Stdio::null()).stdout(Stdio::null()))
    }
}

/// Which of the servers of a port stops; they stand in the order in which they came.
#[derive(Debug, Clone, Copy)]
enum Leaver {
    Oldest,
    Middle,
    Newest,
    Random,
}

impl Leaver {
    fn index(self, servers: usize, rng: &mut fastrand::Rng) -> usize {
        match self {
            Leaver::Oldest => 0,
            Leaver::Middle => servers / 2,
            Leaver::Newest => servers - 1,
            Leaver::Random => rng.usize(..servers),
        }
    }
}

fn stops(site: &mut Site) -> Result<(), Stop> {
    let mut failures = Vec::new();
    let mut surroundings = vec![Surroundings::Usual];
    if needs_root().is_ok() && needs_program("unshare").is_ok() {
        surroundings.push(Surroundings::WithoutProc);
    } else {
        site.measured("without /proc: skipped, needs root and unshare");
    }
    let crowds = [
        (2, Leaver::Oldest),
        (3, Leaver::Newest),
        (3, Leaver::Middle),
        (2, Leaver::Newest),
        (3, Leaver::Oldest),
        (2, Leaver::Random),
        (3, Leaver::Random),
    ];
    for around in surroundings {
        let stops = if around == Surroundings::Usual { site.size(50, 2) } else { site.size(10, 1) };
        // Some at a time: a stop is mostly waiting.
        for some in crowds.chunks(site.size(3, 7)) {
            let tasks = some.iter().map(|&(servers, leaver)| {
                let mut rng = site.rng.fork();
                move || one_of_many(&mut rng, around, servers, leaver, stops)
            });
            for (&(servers, leaver), tally) in some.iter().zip(at_once(tasks)) {
                let (what, tally) = (format!("{leaver:?} of {servers}, {around:?}"), tally?);
                site.measured(format!("{what}, {stops} stops: {tally}"));
                if tally.failed() > 0 {
                    failures.push(format!("{what}, {} in {stops} stops", tally.failed()));
                }
            }
        }
        let wanted = site.size(20, 3);
        let tasks = [false, true].map(|shared| {
            let mut rng = site.rng.fork();
            move || lone_stops(&mut rng, around, shared, wanted)
        });
        let tallies: Vec<_> = at_once(tasks).into_iter().collect::<Result<_, _>>()?;
        let (plain, shared) = (tallies[0].broken(), tallies[1].broken());
        site.measured(format!("alone, {around:?}, {wanted} stops: {shared} broken with --reuse-port, {plain} without"));
        // One in ten stops is chance.
        if shared > plain + u64::from(wanted) / 10 {
            failures.push(format!("alone, {around:?}: {shared} broken with --reuse-port, {plain} without"));
        }
    }
    require(failures.is_empty(), format!("nobody notices a stop: {}", failures.join("; ")))
}

/// So many servers share a port; time and again one stops, and a new one comes in its place.
fn one_of_many(
    rng: &mut fastrand::Rng,
    around: Surroundings,
    count: usize,
    leaver: Leaver,
    stops: u32,
) -> Result<Tally, Stop> {
    let port = free_port();
    let mut servers: Vec<_> = (0..count).map(|_| around.server(port, true)).collect();
    let load = ConnectLoad::start(servers[0].address(), PEERS, rng.u64(..));
    for _ in 0..stops {
        std::thread::sleep(Duration::from_millis(rng.u64(..100)));
        let leaving = servers.remove(leaver.index(count, rng));
        leaving.signal(Signal::SIGTERM);
        let (status, log) = leaving.wait();
        require(status == Some(0), format!("{leaver:?} of {count}: status {status:?}: {}", last_line(&log)))?;
        servers.push(around.server(port, true));
    }
    // What was under way when the last one stopped ends.
    std::thread::sleep(Duration::from_millis(200));
    let tally = load.finish();
    for server in &servers {
        server.signal(Signal::SIGTERM);
    }
    for server in servers {
        require(server.wait().0 == Some(0), "it drains")?;
    }
    Ok(tally)
}

/// A server that is alone on its port stops. That later connects are refused is as it must be.
fn lone_stops(rng: &mut fastrand::Rng, around: Surroundings, shared: bool, stops: u32) -> Result<Tally, Stop> {
    let mut total = Tally::default();
    for _ in 0..stops {
        let server = around.server(free_port(), shared);
        let load = ConnectLoad::start(server.address(), PEERS, rng.u64(..));
        std::thread::sleep(Duration::from_millis(100 + rng.u64(..100)));
        server.signal(Signal::SIGTERM);
        let (status, log) = server.wait();
        total += load.finish();
        require(status == Some(0), format!("alone: status {status:?}: {}", last_line(&log)))?;
    }
    Ok(total)
}

// ---- Who comes and fails.

/// A way for a start to fail: what comes before the server, its limits, its flags.
struct Failure {
    what: String,
    through: Vec<String>,
    limits: Vec<String>,
    flags: Vec<&'static str>,
}

impl Failure {
    fn new(what: impl Into<String>, limits: &[String], flags: &[&'static str]) -> Failure {
        Failure { what: what.into(), through: Vec::new(), limits: limits.to_vec(), flags: flags.to_vec() }
    }

    /// Every step of a start that can be made to fail from outside.
    fn all(threads_of_the_old: usize) -> Vec<Failure> {
        let mut failures = Vec::new();
        for kilobytes in [60, 150, 300, 500, 900] {
            let limit = [format!("--memlock={}", kilobytes * 1000)];
            failures.push(Failure::new(format!("{kilobytes} KB of locked memory"), &limit, &["--io-threads", "8"]));
        }
        for more in 1..=8 {
            let limit = [format!("--nproc={}", threads_of_the_old + more)];
            let flags = ["--io-threads", "4", "--metrics-interval", "1s"];
            failures.push(Failure::new(format!("{more} threads"), &limit, &flags));
        }
        for descriptors in [10, 20, 24, 30, 36, 44, 52] {
            let limit = [format!("--nofile={descriptors}")];
            failures.push(Failure::new(format!("{descriptors} descriptors"), &limit, &["--io-threads", "8"]));
        }
        for mebibytes in [24, 48, 96, 160] {
            let limit = [format!("--as={}", mebibytes << 20)];
            failures.push(Failure::new(format!("{mebibytes} MiB of address space"), &limit, &["--io-threads", "8"]));
        }
        failures.push(Failure::new("a model that is not there", &[], &["--model", "/nonexistent/model"]));
        let driver = std::env::current_exe().expect("the driver is a file");
        let filtered = [driver.to_str().expect("a path in UTF-8"), "filtered"];
        for (call, errno, flags) in [("seccomp", "22", &["--seccomp"][..]), ("io_uring_setup", "1", &[])] {
            let mut failure = Failure::new(format!("{call} is refused"), &[], flags);
            failure.through = filtered.into_iter().chain([call, errno]).map(str::to_owned).collect();
            failures.push(failure);
        }
        failures
    }

    fn command(&self, nobody: &Nobody, port: &str) -> Command {
        let through: Vec<&str> = self.through.iter().map(String::as_str).collect();
        let limits: Vec<&str> = self.limits.iter().map(String::as_str).collect();
        nobody.server(&through, &limits, &[&["--reuse-port", "--port", port], &self.flags[..]].concat())
    }
}

fn failing_newcomers(site: &mut Site) -> Result<(), Stop> {
    let nobody = Nobody::new()?;
    let port = free_port().to_string();
    let flags = ["--io-threads", "2", "--reuse-port", "--port", &port];
    let old = ServerProcess::launch(&mut nobody.server(&[], &[], &flags));
    let threads = std::fs::read_dir(format!("/proc/{}/task", old.pid())).expect("it runs").count();
    let load = ConnectLoad::start(old.address(), PEERS, site.rng.u64(..));
    let failures = Failure::all(threads);
    let (mut noticed, mut disorderly, mut ended, mut served) = (Tally::default(), Vec::new(), 0, 0);
    for _ in 0..site.size(2, 1) {
        for failure in failures.iter().step_by(site.size(1, 2)) {
            // The first exchanges find the peers at work.
            std::thread::sleep(Duration::from_millis(50));
            noticed += load.take();
            match Start::attempt(&mut failure.command(&nobody, &port)) {
                Ok(start) => {
                    let serves = matches!(start, Start::Serves(_));
                    *(if serves { &mut served } else { &mut ended }) += 1;
                    if let Err(Stop::Failed(why)) = end_beside(start, &failure.what) {
                        disorderly.push(why);
                    }
                }
                Err(Stop::Failed(why)) => disorderly.push(format!("{}: {why}", failure.what)),
                Err(skipped) => return Err(skipped),
            }
            std::thread::sleep(Duration::from_millis(50));
            let tally = load.take();
            noticed += tally;
            if tally.failed() > 0 {
                disorderly.push(format!("{}: noticed by the old one's clients: {tally}", failure.what));
            }
        }
    }
    noticed += load.finish();
    old.signal(Signal::SIGTERM);
    let (status, log) = old.wait();
    site.measured(format!("{ended} failed starts, {served} that served nevertheless: {noticed}"));
    require(status == Some(0), format!("the old one drains, not {status:?}: {}", last_line(&log)))?;
    require(disorderly.is_empty(), format!("{} starts in disorder: {}", disorderly.len(), disorderly.join("; ")))
}

/// A failed start has said why; one that serves after all stops, which nobody notices either.
fn end_beside(start: Start, what: &str) -> Result<(), Stop> {
    match start {
        Start::Serves(server) => {
            server.signal(Signal::SIGTERM);
            let (status, log) = server.wait();
            require(status == Some(0), format!("{what}: it drains, not {status:?}: {}", last_line(&log)))
        }
        Start::Ended { status, log, took } => {
            let said = format!("{what}: status {status:?} after {took:.1?}: {}", log.trim().replace('\n', " / "));
            let loader = log.contains("error while loading shared libraries");
            let in_order = matches!(status, Some(69..=71 | 78)) && log.contains("disrust: ") && took < REFUSAL_MAX;
            require(loader || in_order, said)
        }
    }
}

// ---- A handover with nothing to spare.

fn handover_without_descriptors(site: &mut Site) -> Result<(), Stop> {
    const QUEUED: usize = 16;
    let port = free_port().to_string();
    let flags = ["--reuse-port", "--io-threads", "2", "--port", &port];
    let old = ServerProcess::start_in_shell(r#"ulimit -n 64 && exec "$0" "$@""#, &flags);
    old.wait_for_banner();
    let mut first = old.connect();
    // It has its place before descriptors end.
    first.exchange(&random_requests(&mut site.rng, 10, 1..=4));
    let resting = Gauges::of(&old).descriptors;
    // An accept under way keeps the limit that it began with: it must fail once, and begin anew.
    old.stop();
    let crowd: Vec<_> = (0..120).map(|_| old.connect()).collect();
    old.limit_descriptors(resting as u64);
    old.carry_on();
    wait_until("accepting fails", || old.stderr().contains("accepting failed"));
    drop(crowd);
    wait_until("the crowd has left", || Gauges::of(&old).descriptors == resting);
    std::thread::sleep(Duration::from_millis(500));
    let requests = random_requests(&mut site.rng, QUEUED, 1..=4);
    let mut queued: Vec<_> = requests.iter().map(|_| old.connect()).collect();
    queued.iter().zip(&requests).for_each(|(client, request)| client.send(&request.bytes));
    std::thread::sleep(Duration::from_millis(300));
    let new = ServerProcess::launch(binary().args(["--pin", "none"]).args(flags).stdout(Stdio::null()));
    let begun_at = Instant::now();
    old.signal(Signal::SIGTERM);
    drop(first);
    let (mut answered, mut refused, mut lost) = (0, 0, 0);
    for (client, request) in queued.iter_mut().zip(&requests) {
        match client.receive_or_break() {
            Ok(Some(Reply::Error(disrust_protocol::ErrorCode::Closing))) => refused += 1,
            Ok(Some(reply)) => {
                require(reply == request.reply, "a right answer")?;
                answered += 1;
            }
            Ok(None) | Err(_) => lost += 1,
        }
    }
    drop(queued);
    let (status, log) = old.wait();
    site.measured(format!(
        "of {QUEUED} queued: {answered} answered, {refused} error 4, {lost} lost; ended after {:.1?}",
        begun_at.elapsed()
    ));
    new.connect().exchange(&random_requests(&mut site.rng, 10, 1..=4));
    new.signal(Signal::SIGTERM);
    require(new.wait().0 == Some(0), "the new one drains")?;
    require(lost == 0, format!("{lost} of {QUEUED} queued connections got nothing: {}", last_line(&log)))?;
    require(status == Some(0), format!("status {status:?}: {}", last_line(&log)))
}
