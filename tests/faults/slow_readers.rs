//! Rows G2 and G3: peers that read slowly but all the time, and peers that do not read, while the server serves and while
//! it ends.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use disrust_protocol::ErrorCode;
use nix::sys::signal::Signal;

use super::Listed;
use super::common::{Request, ServerProcess, bytes_of, connected, wait_patiently_until};
use super::namespaces::TwoHosts;
use super::peer::Peer;
use super::site::{Gauges, Site, Stop, at_once, drained, last_line, require};
use super::socket_memory;

pub const ROWS: &[Listed] = &[
    ("G2", "deep pipeliners that read slowly without a pause; one beside them that reads nothing", slow_pipeliners),
    (
        "G2b",
        "no request timeout: a peer that pauses for 75 s; peers that vanish while they are owed answers",
        no_timeout,
    ),
    (
        "G3",
        "the server ends, or a connection is idle, while answers lie in the kernel",
        ends_with_answers_in_the_kernel,
    ),
];

/// Kernel memory that a peer's unread answers may take.
pub const SEND_BYTES_MAX: u64 = 128 * 1024;

/// A read of a slow reader comes each time this has passed.
const BEAT: Duration = Duration::from_millis(20);

/// Requests that are sent over and over, and the answers as they must come.
#[derive(Clone)]
struct Cycle {
    requests: Arc<Vec<Request>>,
    bytes: Arc<Vec<u8>>,
    answers: Arc<Vec<Vec<u8>>>,
}

impl Cycle {
    fn new(requests: Vec<Request>) -> Cycle {
        let answers = requests.iter().map(|request| request.reply.wire_bytes()).collect();
        Cycle { bytes: Arc::new(bytes_of(&requests)), answers: Arc::new(answers), requests: Arc::new(requests) }
    }
}

/// A peer that sends on one thread and reads on another, at its own pace, and checks every byte.
struct SlowReader {
    stream: TcpStream,
    cycle: Cycle,
    writer: Option<JoinHandle<()>>,
    writes: Arc<Writes>,
    /// Received, and not yet a whole answer.
    rest: Vec<u8>,
    scores: usize,
    refusals: usize,
    began_at: Instant,
    read_bytes: usize,
}

/// What the writing thread and its reader tell each other. All of it is Relaxed: it guards nothing.
#[derive(Default)]
struct Writes {
    stop: AtomicBool,
    failed: AtomicBool,
    whole_requests: AtomicUsize,
}

/// What a peer sends.
#[derive(Clone, Copy)]
struct Plan {
    /// So many requests as fast as they are taken.
    at_once: usize,
    /// Then, after this time, one with each of these.
    late: Option<(Duration, Duration)>,
}

/// Without end.
const ENDLESS: Plan = Plan { at_once: usize::MAX, late: None };

impl SlowReader {
    fn start(address: SocketAddr, receive_buffer: Option<usize>, cycle: &Cycle, plan: Plan) -> SlowReader {
        let stream = connected(address, receive_buffer, Some(32 * 1024));
        stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a time above 0");
        let (socket, cycle, writes) = (stream.try_clone().expect("a descriptor"), cycle.clone(), Arc::default());
        let writer = std::thread::spawn({
            let (cycle, writes) = (cycle.clone(), Arc::clone(&writes));
            move || write_by_plan(socket, &cycle, plan, &writes)
        });
        SlowReader {
            stream,
            cycle,
            writer: Some(writer),
            writes,
            rest: Vec::new(),
            scores: 0,
            refusals: 0,
            began_at: Instant::now(),
            read_bytes: 0,
        }
    }

    /// Reads what the pace allows until now. `Ok(false)` is the end of the stream, in order.
    fn read_on(&mut self, bytes_a_second: usize) -> Result<bool, Stop> {
        std::thread::sleep(BEAT);
        let allowed = (self.began_at.elapsed().as_secs_f64() * bytes_a_second as f64) as usize;
        // What it could not read earlier, it does not catch up with at once.
        let mut bytes = vec![0; allowed.saturating_sub(self.read_bytes).clamp(1, 2 * bytes_a_second / 50)];
        self.stream.set_read_timeout(Some(BEAT / 4)).expect("a time above 0");
        let count = match self.stream.read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(error) => return Err(Stop::Failed(format!("{error} after {}", self.so_far()))),
        };
        self.read_bytes += count;
        self.check(&bytes[..count])?;
        Ok(true)
    }

    fn so_far(&self) -> String {
        let seconds = self.began_at.elapsed().as_secs_f64();
        format!("{seconds:.1} s, {} bytes, {} answers and {} error 4 read", self.read_bytes, self.scores, self.refusals)
    }

    /// The right answers, in order; or error 4, and from then on nothing else.
    fn check(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.rest.extend_from_slice(bytes);
        let mut taken = 0;
        loop {
            let rest = &self.rest[taken..];
            let expected = &self.cycle.answers[self.scores % self.cycle.answers.len()];
            if rest.starts_with(&ErrorCode::Closing.answer()) {
                self.refusals += 1;
                taken += 2;
            } else if rest.len() >= expected.len() && self.refusals == 0 {
                require(rest.starts_with(expected), format!("a wrong answer after {}", self.so_far()))?;
                self.scores += 1;
                taken += expected.len();
            } else {
                let scores = self.refusals > 0 && rest.first().is_some_and(|first| *first != 0);
                require(!scores, format!("no scores after a refusal: {}", self.so_far()))?;
                break;
            }
        }
        self.rest.drain(..taken);
        Ok(())
    }
}

impl Drop for SlowReader {
    fn drop(&mut self) {
        self.writes.stop.store(true, Ordering::Relaxed);
        // It may be closed already.
        let _closed = self.stream.shutdown(Shutdown::Both);
        if let Some(writer) = self.writer.take() {
            // It has nothing to say.
            let _ended = writer.join();
        }
    }
}

fn write_by_plan(mut stream: TcpStream, cycle: &Cycle, plan: Plan, writes: &Writes) {
    let (mut at, mut sent) = (0, 0);
    let mut pause = plan.late.map(|(first, _)| first);
    while !writes.stop.load(Ordering::Relaxed) {
        let request = &cycle.requests[sent % cycle.requests.len()].bytes;
        if at == 0 && sent >= plan.at_once {
            let (Some(now), Some((_, each))) = (pause, plan.late) else { return };
            std::thread::sleep(now);
            pause = Some(each);
        }
        // Many at a time as long as they are sent at once.
        let many =
            at == 0 && sent % cycle.requests.len() == 0 && plan.at_once - sent.min(plan.at_once) > cycle.requests.len();
        let bytes = if many { &cycle.bytes[..] } else { &request[at..] };
        match stream.write(bytes) {
            Ok(count) => {
                at += count;
                while at > 0 {
                    let length = cycle.requests[sent % cycle.requests.len()].bytes.len();
                    if at < length {
                        break;
                    }
                    at -= length;
                    sent += 1;
                }
                writes.whole_requests.store(sent, Ordering::Relaxed);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_broken) => return writes.failed.store(true, Ordering::Relaxed),
        }
    }
}

// ---- While it serves.

fn slow_pipeliners(site: &mut Site) -> Result<(), Stop> {
    // As many bytes in an answer as in its request, so that answers soon have nowhere to go.
    site.features = 1;
    let timeout = Duration::from_secs(site.size(5, 2));
    let flags = ["--features", "1", "--request-timeout", site.size("5s", "2s")];
    site.beside(&flags, |site, server| {
        let address = server.address();
        let cycle = Cycle::new(
            (0..100)
                .map(|_| {
                    let vectors = site.rng.usize(1..=64);
                    site.request(vectors)
                })
                .collect(),
        );
        // The smallest buffer, whose reader tells of each byte soon; the usual one, whose reader tells of half of it at a time.
        let paces: &[(usize, Option<usize>)] = site.size(
            &[(25_000, Some(4096)), (50_000, Some(4096)), (25_000, None), (50_000, None), (100_000, None)],
            &[(25_000, Some(4096)), (100_000, None)],
        );
        let readers = paces.iter().map(|&(pace, buffer)| {
            let mut reader = SlowReader::start(address, buffer, &cycle, ENDLESS);
            move || {
                while reader.began_at.elapsed() < 3 * timeout {
                    let whose = format!("reads {pace} bytes/s, receive buffer {buffer:?}");
                    match reader.read_on(pace) {
                        Ok(true) => {}
                        Ok(false) => return Err(Stop::Failed(format!("{whose}: closed after {}", reader.so_far()))),
                        Err(Stop::Failed(why)) => return Err(Stop::Failed(format!("{whose}: {why}"))),
                        Err(skipped) => return Err(skipped),
                    }
                }
                Ok(format!(
                    "{} answers at {} KB/s",
                    reader.scores,
                    reader.read_bytes / 1000 / reader.began_at.elapsed().as_secs().max(1) as usize
                ))
            }
        });
        let deaf = {
            let cycle = cycle.clone();
            move || never_reader(address, &cycle, timeout)
        };
        let (readers, deaf) = std::thread::scope(|scope| {
            let deaf = scope.spawn(deaf);
            (at_once(readers), deaf.join().expect("it does not panic"))
        });
        let mut cut = Vec::new();
        for outcome in readers {
            match outcome {
                Ok(figure) => site.measured(figure),
                Err(Stop::Failed(why)) => cut.push(why),
                Err(skipped) => return Err(skipped),
            }
        }
        let (closed_after, kernel_bytes) = deaf?;
        site.measured(format!(
            "one that reads nothing: closed after {closed_after:.1?}, {} KiB in the kernel",
            kernel_bytes / 1024
        ));
        require(cut.is_empty(), format!("who reads all the time is served: {}", cut.join("; ")))?;
        require(kernel_bytes <= SEND_BYTES_MAX, format!("{kernel_bytes} bytes in the kernel for who reads nothing"))?;
        let slack = Duration::from_secs(2);
        require(
            closed_after < timeout * 9 / 8 + slack,
            format!("who reads nothing is closed in time, not after {closed_after:.1?}"),
        )
    })
}

/// Reads nothing until it is closed on. How long after its last sign of progress that was, and the most kernel memory that
/// the server's side took for it.
fn never_reader(address: SocketAddr, cycle: &Cycle, timeout: Duration) -> Result<(Duration, u64), Stop> {
    let peer = SlowReader::start(address, Some(4096), cycle, ENDLESS);
    let own_port = peer.stream.local_addr().expect("it is connected").port();
    let (mut sent, mut progress_at, mut kernel_bytes) = (0, Instant::now(), 0);
    while !peer.writes.failed.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
        let now = peer.writes.whole_requests.load(Ordering::Relaxed);
        if now != sent {
            (sent, progress_at) = (now, Instant::now());
        }
        let waited = progress_at.elapsed();
        require(
            waited < timeout * 3 + Duration::from_secs(10),
            format!("not closed {waited:.0?} after its last progress"),
        )?;
        let own = socket_memory::of_port(address.port())?.into_iter().find(|socket| socket.peer_port == own_port);
        kernel_bytes = kernel_bytes.max(own.map_or(0, |socket| socket.send_bytes));
    }
    Ok((progress_at.elapsed(), kernel_bytes))
}

/// The request timeout is off: whoever is there is not cut, whoever has vanished is.
fn no_timeout(site: &mut Site) -> Result<(), Stop> {
    if site.quick {
        return Err(Stop::Skipped("takes minutes; not in a quick run".to_owned()));
    }
    site.features = 1;
    let flags = ["--features", "1", "--request-timeout", "off"];
    let cycle = Cycle::new((0..100).map(|_| site.request(64)).collect());
    let pausing = std::thread::spawn(move || {
        let server = ServerProcess::start(&flags);
        let mut reader = SlowReader::start(server.address(), Some(4096), &cycle, ENDLESS);
        let pause = Duration::from_secs(75);
        std::thread::sleep(pause);
        reader.began_at = Instant::now();
        while reader.read_bytes < 4 << 20 {
            let goes_on = reader.read_on(8 << 20)?;
            require(
                goes_on && reader.began_at.elapsed() < Duration::from_secs(30),
                format!("cut: {}", reader.so_far()),
            )?;
        }
        Ok(format!("after a pause of {pause:?}: {} answers, all right", reader.scores))
    });
    let vanished = vanish(&flags);
    let paused = pausing.join().expect("it does not panic");
    match &vanished {
        Ok(after) => site.measured(format!("vanished peers given up after {:.0} s", after.as_secs_f64())),
        Err(Stop::Skipped(why)) => site.measured(format!("vanished peers: skipped: {why}")),
        Err(Stop::Failed(_)) => {}
    }
    site.measured(paused?);
    match vanished {
        Err(failed @ Stop::Failed(_)) => Err(failed),
        Ok(after) => require(after < Duration::from_secs(200), format!("noticed within 3 minutes, not {after:.0?}")),
        Err(Stop::Skipped(_)) => Ok(()),
    }
}

/// How long until the server has given up peers that are gone without a word: one that is owed answers for which it has no
/// room, one to which answers are on their way.
fn vanish(flags: &[&str]) -> Result<Duration, Stop> {
    let hosts = TwoHosts::new()?;
    let server = hosts.server(flags)?;
    let before = Gauges::of(&server);
    let mut busy = Peer::through(&hosts.in_client(), server.address(), &["small", "1000000"]);
    let _full = Peer::through(&hosts.in_client(), server.address(), &["flood"]);
    let stdout = busy.0.stdout.take().expect("a pipe");
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    require(lines.any(|line| line.contains("SEED")), "the peers are there")?;
    wait_patiently_until(Duration::from_secs(10), "both are connected", || {
        Gauges::of(&server).descriptors >= before.descriptors + 2
    });
    std::thread::sleep(Duration::from_secs(2));
    require(Gauges::of(&server).descriptors >= before.descriptors + 2, "both are served until they vanish")?;
    hosts.cut_link()?;
    let begun_at = Instant::now();
    while Gauges::of(&server).descriptors > before.descriptors {
        let waited = begun_at.elapsed();
        require(waited < Duration::from_secs(300), format!("not given up after {waited:.0?}"))?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(begun_at.elapsed())
}

// ---- While it ends.

/// What ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Sigterm,
    IdleTimeout,
}

fn ends_with_answers_in_the_kernel(site: &mut Site) -> Result<(), Stop> {
    site.features = 1;
    let cycle = Cycle::new((0..100).map(|_| site.request(64)).collect());
    let buffers: &[Option<usize>] = site.size(&[Some(4096), None, Some(1 << 20)], &[Some(4096), None]);
    let variants: Vec<_> =
        buffers.iter().flat_map(|&buffer| [(End::Sigterm, buffer), (End::IdleTimeout, buffer)]).collect();
    let readers = variants.iter().map(|&(end, buffer)| {
        let cycle = cycle.clone();
        move || keeps_reading(end, buffer, &cycle)
    });
    let (readers, cut) = std::thread::scope(|scope| {
        let cut = scope.spawn(|| {
            at_once([0, 20_000].map(|pace| {
                let cycle = &cycle;
                move || is_cut(pace, cycle)
            }))
        });
        (at_once(readers), cut.join().expect("its tasks do not panic"))
    });
    let mut failures = Vec::new();
    for outcome in readers.into_iter().chain(cut) {
        match outcome {
            Ok(figure) => site.measured(figure),
            Err(Stop::Failed(why)) => failures.push(why),
            Err(skipped) => return Err(skipped),
        }
    }
    require(failures.is_empty(), failures.join("; "))
}

/// Gets every answer that was given, though it reads slowly and goes on sending.
fn keeps_reading(end: End, buffer: Option<usize>, cycle: &Cycle) -> Result<String, Stop> {
    const REQUESTS: usize = 7000;
    const PACE: usize = 350_000;
    let what = format!("{end:?}, receive buffer {buffer:?}");
    let idle_timeout = if end == End::IdleTimeout { "1s" } else { "off" };
    let flags = ["--features", "1", "--idle-timeout", idle_timeout, "--drain-timeout", "20s"];
    let server = ServerProcess::start(&flags);
    // One that would be idle is silent for longer than it may be, and then goes on.
    let first = if end == End::IdleTimeout { Duration::from_secs(2) } else { Duration::from_millis(500) };
    let plan = Plan { at_once: REQUESTS, late: Some((first, Duration::from_millis(500))) };
    let mut reader = SlowReader::start(server.address(), buffer, cycle, plan);
    // All answered into the kernel, or as many as the server is willing to.
    while reader.writes.whole_requests.load(Ordering::Relaxed) < REQUESTS
        && reader.began_at.elapsed() < Duration::from_secs(2)
    {
        reader.read_on(PACE)?;
    }
    if end == End::Sigterm {
        server.signal(Signal::SIGTERM);
    }
    let mut outcome = Ok(true);
    while matches!(outcome, Ok(true)) && reader.began_at.elapsed() < Duration::from_secs(40) {
        outcome = reader.read_on(PACE);
        // It asks no more once it has what it came for, and is idle in earnest.
        if end == End::IdleTimeout && reader.scores >= REQUESTS {
            reader.writes.stop.store(true, Ordering::Relaxed);
        }
    }
    let so_far = reader.so_far();
    let (scores, refusals, whole) = (reader.scores, reader.refusals, reader.rest.is_empty());
    drop(reader);
    if end == End::IdleTimeout {
        server.signal(Signal::SIGTERM);
    }
    let (status, log) = server.wait();
    let report = drained(&log)?;
    let said = format!("{what}: {so_far}; {}", last_line(&log));
    match outcome {
        Err(Stop::Failed(why)) => return Err(Stop::Failed(format!("{what}: {why}; {}", last_line(&log)))),
        Err(skipped) => return Err(skipped),
        Ok(goes_on) => require(!goes_on, format!("no end: {said}"))?,
    }
    require(whole, format!("half an answer at the end: {said}"))?;
    require(scores == report.answered && refusals == report.refused, format!("every answer given arrives: {said}"))?;
    require(status == Some(0) && report.cut == 0, format!("status {status:?}: {said}"))?;
    Ok(format!("{what}: {so_far}"))
}

/// One that reads too slowly for the drain, or not at all, is cut at its end, and counted.
fn is_cut(pace: usize, cycle: &Cycle) -> Result<String, Stop> {
    const DRAIN: Duration = Duration::from_secs(3);
    let server = ServerProcess::start(&["--features", "1", "--drain-timeout", "3s"]);
    let mut reader = SlowReader::start(server.address(), Some(4096), cycle, ENDLESS);
    while reader.began_at.elapsed() < Duration::from_secs(1) {
        if pace > 0 {
            reader.read_on(pace)?;
        }
        std::thread::sleep(BEAT);
    }
    server.signal(Signal::SIGTERM);
    let begun_at = Instant::now();
    // Its end is a reset or not; what it has read is right.
    while pace > 0 && reader.read_on(pace).unwrap_or(false) && begun_at.elapsed() < 2 * DRAIN {}
    let (status, log) = server.wait();
    let took = begun_at.elapsed();
    let said = format!("reads {pace} bytes/s: ended after {took:.1?}: {}", last_line(&log));
    let report = drained(&log)?;
    require(status == Some(0) && report.cut == 1, format!("what is cut is counted as cut: {said}"))?;
    require(took < DRAIN + Duration::from_secs(3), format!("at the drain's timeout: {said}"))?;
    require(reader.scores <= report.answered, format!("no more than were given: {}", reader.so_far()))?;
    Ok(format!("reads {pace} bytes/s: cut after {took:.1?}"))
}
