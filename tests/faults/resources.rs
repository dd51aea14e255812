//! Rows D: what the system refuses, and what it interrupts.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::Listed;
use super::common::{Client, Run, ServerProcess, binary, random_requests, wait_until};
use super::connections::counted;
use super::peer::Peer;
use super::site::{Site, Stop, cpu_time, last_line, require};
use super::starts::Nobody;

pub const ROWS: &[Listed] = &[
    ("D1", "io_uring_setup gives EPERM or ENOSYS", refused_ring),
    ("D2", "little locked memory, as non-root", little_memlock),
    ("D3", "descriptors exhausted", no_descriptors),
    ("D6", "a storm of interruptions", interruptions),
    ("D9", "wake-ups raced with going to sleep", wakes),
    ("R18", "nothing to do, with 2 and 64 I/O threads, without connections and with 1,000 quiet ones", idle_wakes),
];

/// The driver as a launcher: `filtered io_uring_setup|seccomp ERRNO PROGRAM…` runs PROGRAM, to which that system call gives
/// ERRNO.
pub fn run_filtered(call: &str, errno: &str, program: &[&str]) -> ExitCode {
    let errno = errno.parse().expect("a number");
    let call = if call == "seccomp" { libc::SYS_seccomp } else { libc::SYS_io_uring_setup };
    let rules = [(call, Vec::new())].into_iter().collect();
    let architecture = std::env::consts::ARCH.try_into().expect("an architecture that has filters");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture);
    let filter: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter of one call");
    seccompiler::apply_filter(&filter).expect("a process may filter itself");
    let error = Command::new(program[0]).args(&program[1..]).exec();
    panic!("{} does not start: {error}", program[0]);
}

fn refused_ring(site: &mut Site) -> Result<(), Stop> {
    let driver = std::env::current_exe().expect("the driver is a file");
    for (errno, said) in [(libc::EPERM, "seccomp"), (libc::ENOSYS, "seccomp")] {
        let begun_at = Instant::now();
        let mut command = Command::new(&driver);
        command
            .args(["filtered", "io_uring_setup", &errno.to_string()])
            .arg(binary().get_program())
            .args(["--port", "0"]);
        let run = Run::of(command.stdin(Stdio::null()));
        site.measured(format!("errno {errno}: status {:?} after {:.1?}", run.status, begun_at.elapsed()));
        require(run.status == Some(69), format!("status 69, not {:?}: {}", run.status, run.stderr))?;
        let tells = run.stderr.to_lowercase().contains(said);
        require(tells, format!("the message names the cause: {}", run.stderr))?;
    }
    Ok(())
}

fn little_memlock(site: &mut Site) -> Result<(), Stop> {
    let nobody = Nobody::new()?;
    [("65536", "64 KiB"), ("8388608", "8 MiB")].into_iter().try_for_each(|(bytes, words)| {
        let memlock = format!("--memlock={bytes}");
        let mut command = nobody.server(&[], &[&memlock], &["--port", "0", "--io-threads", "2"]);
        serve_or_say_how_much(site, &mut command, words)
    })
}

fn serve_or_say_how_much(site: &mut Site, command: &mut Command, limit: &str) -> Result<(), Stop> {
    let server = ServerProcess::launch_anyway(command);
    wait_until("it serves or ends", || server.stderr().contains("\ntimeouts: ") || server.has_ended());
    if !server.has_ended() {
        server.connect().exchange(&random_requests(&mut site.rng, 100, 1..=8));
        server.signal(Signal::SIGTERM);
        let (status, _) = server.wait();
        site.measured(format!("with {limit} of locked memory it serves"));
        return require(status == Some(0), "it drains");
    }
    let (status, log) = server.wait();
    site.measured(format!("with {limit}: status {status:?}: {}", last_line(&log)));
    require(status == Some(69) && log.contains("RLIMIT_MEMLOCK"), format!("an error that says what it needs: {log}"))
}

fn no_descriptors(site: &mut Site) -> Result<(), Stop> {
    let printed = std::env::temp_dir().join(format!("disrust-faults-{}.log", std::process::id()));
    let stdout = std::fs::File::create(&printed).expect("the temporary folder can be written to");
    let script = r#"ulimit -n 64 && exec "$0" "$@""#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(binary().get_program()).stdin(Stdio::null()).stdout(stdout);
    shell.args(["--port", "0", "--pin", "none", "--io-threads", "2", "--metrics-interval", "500ms"]);
    let server = ServerProcess::launch(&mut shell);
    let mut first = server.connect();
    // It has its place before the crowd comes.
    first.exchange(&random_requests(&mut site.rng, 10, 1..=4));
    // More than it has descriptors for, all at once; and fewer from its next accept on.
    server.stop();
    let crowd: Vec<_> = (0..120).map(|_| server.connect()).collect();
    server.limit_descriptors(32);
    server.carry_on();
    wait_until("descriptors run out", || server.stderr().contains("accepting failed"));
    let failures = || counted(&std::fs::read_to_string(&printed).unwrap_or_default(), "err_accept");
    std::thread::sleep(Duration::from_secs(1));
    let (before, cpu, begun_at) = (failures(), cpu_time(server.pid()), Instant::now());
    for _ in 0..50 {
        first.exchange(&random_requests(&mut site.rng, 10, 1..=4));
        std::thread::sleep(Duration::from_millis(80));
    }
    let seconds = begun_at.elapsed().as_secs_f64();
    let retries = (failures() - before) as f64 / seconds;
    let share = (cpu_time(server.pid()) - cpu).as_secs_f64() / seconds;
    site.measured(format!("{retries:.1} accept retries a second, {:.1} % of a CPU", 100.0 * share));
    drop(crowd);
    let begun_at = Instant::now();
    // As long as it counts the dead ones, it has no place for another, and closes it at once.
    let request = site.request(1);
    wait_until("a new client is served", || {
        let mut late = server.connect();
        late.stream().write_all(&request.bytes).is_ok() && !late.is_closed_at_once()
    });
    let recovery = begun_at.elapsed();
    site.measured(format!("a new client was served {recovery:.1?} after the others left"));
    let noted = server.stderr().matches("accepting failed").count();
    site.measured(format!("{noted} lines logged"));
    drop(first);
    server.signal(Signal::SIGTERM);
    require(server.wait().0 == Some(0), "it drains")?;
    // Nobody else reads it.
    let _gone = std::fs::remove_file(&printed);
    require(
        retries <= 10.0 && share < 0.1 && recovery < Duration::from_secs(2),
        "retries, CPU and recovery are bounded",
    )
}

fn interruptions(site: &mut Site) -> Result<(), Stop> {
    let server = ServerProcess::start(&[]);
    let mut peers: Vec<_> =
        (0..4).map(|_| Peer::start(server.address(), &["exchange", site.size("1500", "200")])).collect();
    let times = site.size(2000, 300);
    for _ in 0..times {
        // Each stop and go interrupts whatever the threads wait in.
        server.signal(Signal::SIGSTOP);
        server.signal(Signal::SIGCONT);
        std::thread::sleep(Duration::from_micros(site.rng.u64(..2000)));
    }
    for peer in &mut peers {
        require(peer.was_right(), "all is answered")?;
    }
    site.measured(format!("{times} interruptions"));
    server.signal(Signal::SIGTERM);
    require(server.wait().0 == Some(0), "it drains")
}

fn wakes(site: &mut Site) -> Result<(), Stop> {
    let server = ServerProcess::start(&["--wait", "park", "--io-threads", "2"]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    let (exchanges, mut slowest) = (site.size(200_000, 20_000), Duration::ZERO);
    for exchange in 0..exchanges {
        let client = &mut clients[exchange % 4];
        let request = site.request(1);
        let begun_at = Instant::now();
        client.send(&request.bytes);
        client.expect([&request]);
        slowest = slowest.max(begun_at.elapsed());
    }
    site.measured(format!("{exchanges} exchanges, each of which woke two threads; the slowest took {slowest:.1?}"));
    drop(clients);
    server.signal(Signal::SIGTERM);
    require(server.wait().0 == Some(0), "it drains")?;
    // A lost wake would be mended by the batch processor's next look, half a second later.
    require(slowest < Duration::from_millis(450), "no wake is lost")
}

fn idle_wakes(site: &mut Site) -> Result<(), Stop> {
    let seconds = Duration::from_secs(site.size(5, 2));
    let cases: &[(&str, usize)] =
        site.size(&[("2", 0), ("2", 1000), ("64", 0), ("64", 1000)], &[("2", 0), ("64", 200)]);
    let mut most: f64 = 0.0;
    for &(threads, connections) in cases {
        let server = ServerProcess::start(&["--io-threads", threads]);
        let quiet: Vec<_> = (0..connections).map(|_| server.connect()).collect();
        // What a start and an accept leave to do is done by then.
        std::thread::sleep(Duration::from_secs(2));
        let (before, begun_at) = (sleeps(server.pid()), Instant::now());
        std::thread::sleep(seconds);
        let rate = (sleeps(server.pid()) - before) as f64 / begun_at.elapsed().as_secs_f64();
        site.measured(format!("{threads} I/O threads, {connections} quiet connections: {rate:.1} wake-ups a second"));
        most = most.max(rate);
        drop(quiet);
        server.signal(Signal::SIGTERM);
        require(server.wait().0 == Some(0), "it drains")?;
    }
    require(most <= 10.0, format!("at most 10 wake-ups a second, not {most:.1}"))
}

/// How often the threads of a process have gone to sleep.
fn sleeps(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let counts = threads.flatten().filter_map(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse::<u64>().ok()
    });
    counts.sum()
}
