//! Rows J: the admin port under those who mean no good, and under those who mean well and are slow.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Listed;
use super::common::ServerProcess;
use super::common::admin::{Answer, answer_of, read_to_end};
use super::site::{Site, Stop, cpu_time, require};

pub const ROWS: &[Listed] = &[
    ("J1", "the admin port is flooded: requests, slow heads, heads of a megabyte, wrong methods", flooded),
    ("J2", "hostile HTTP at the admin port, of a seeded fuzzer", hostile),
    ("J3", "scrapers that read their answers slowly, or never", slow_scrapers),
    ("J4", "a scrape every 10 ms", often_scraped),
];

const FLAGS: [&str; 2] = ["--admin", "127.0.0.1:0"];

/// What any of this may make the process grow by.
const MEMORY_MAX: u64 = 16 * 1024 * 1024;

/// No health check takes longer beside a flood.
const CHECK_MAX: Duration = Duration::from_secs(5);

/// A connection to the admin port, which may be closed at any time. A flood can use the backlog up for a moment.
fn connect(admin: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&admin, CHECK_MAX).ok()?;
    stream.set_read_timeout(Some(CHECK_MAX)).ok()?;
    stream.set_write_timeout(Some(CHECK_MAX)).ok()?;
    Some(stream)
}

fn ask(admin: SocketAddr, request: &[u8]) -> Option<Answer> {
    let mut stream = connect(admin)?;
    stream.write_all(request).ok()?;
    answer_of(&read_to_end(&mut stream))
}

fn is_alive(admin: SocketAddr) -> bool {
    ask(admin, b"GET /livez HTTP/1.1\r\nHost: disrust\r\nConnection: close\r\n\r\n")
        .is_some_and(|answer| answer.status == 200)
}

/// Asks for its health all along. A check that was ended for others is asked again, as orchestrators do; returns the longest time
/// that it took to be answered.
fn checked_all_along(admin: SocketAddr, length: Duration) -> Result<Duration, Stop> {
    let (begun_at, mut slowest) = (Instant::now(), Duration::ZERO);
    while begun_at.elapsed() < length {
        let asked_at = Instant::now();
        while !is_alive(admin) {
            require(asked_at.elapsed() < CHECK_MAX, "a health check is answered beside the flood")?;
        }
        slowest = slowest.max(asked_at.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(slowest)
}

/// Lets attackers act, many at a time, while health is asked for; and sees what it costs.
fn attacked(site: &mut Site, attack: impl Fn(SocketAddr, &mut fastrand::Rng) + Sync) -> Result<(), Stop> {
    const ATTACKERS: usize = 4;
    let length = Duration::from_secs(site.size(10, 2));
    site.beside(&FLAGS, |site, server| {
        let admin = server.admin_address();
        let (before, used) = (server.resident_bytes(), cpu_time(server.pid()));
        let (stop, attacks, peak) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let slowest = std::thread::scope(|scope| {
            for _ in 0..ATTACKERS {
                let mut rng = site.rng.fork();
                let (attack, stop, attacks) = (&attack, &stop, &attacks);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        attack(admin, &mut rng);
                        attacks.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    peak.fetch_max(server.resident_bytes(), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let slowest = checked_all_along(admin, length);
            stop.store(true, Ordering::Relaxed);
            slowest
        })?;
        let grown = peak.into_inner().saturating_sub(before);
        let share = (cpu_time(server.pid()) - used).as_secs_f64() / length.as_secs_f64();
        site.measured(format!(
            "{} attacks in {length:?}; the slowest health check {slowest:.1?}; {} KiB more; the whole server took {:.0} % of a CPU",
            attacks.into_inner(),
            grown / 1024,
            100.0 * share,
        ));
        require(grown < MEMORY_MAX, "memory is bounded")
    })
}

fn flooded(site: &mut Site) -> Result<(), Stop> {
    attacked(site, |admin, rng| {
        let Some(mut stream) = connect(admin) else { return };
        // It may be closed at any time.
        let _ended = match rng.u8(..5) {
            0 => stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                .map(|()| drop(read_to_end(&mut stream))),
            1 => stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"),
            2 => stream.write_all(b"GET / HTTP/1.1\r\n").and_then(|()| stream.write_all(&b"a: b\r\n".repeat(200_000))),
            3 => {
                let slow: Vec<_> = (0..50).filter_map(|_| connect(admin)).collect();
                slow.iter().try_for_each(|mut stream| stream.write_all(b"GET / HT"))
            }
            _ => stream.write_all(&b"GET /status.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000)),
        };
    })
}

fn hostile(site: &mut Site) -> Result<(), Stop> {
    attacked(site, |admin, rng| {
        let Some(mut stream) = connect(admin) else { return };
        // It may be closed at any time.
        let _ended = stream.write_all(&super::common::admin::garbage(rng));
        if rng.bool() {
            let _broken = stream.shutdown(std::net::Shutdown::Write);
            let _heard = read_to_end(&mut stream);
        }
    })
}

fn slow_scrapers(site: &mut Site) -> Result<(), Stop> {
    attacked(site, |admin, rng| {
        let streams: Vec<_> = (0..40).filter_map(|_| connect(admin)).collect();
        for mut stream in &streams {
            let _ended = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        }
        std::thread::sleep(Duration::from_millis(rng.u64(..300)));
    })
}

fn often_scraped(site: &mut Site) -> Result<(), Stop> {
    let length = Duration::from_secs(site.size(10, 2));
    site.beside(&FLAGS, |site, server: &ServerProcess| {
        let (admin, begun_at) = (server.admin_address(), Instant::now());
        let (before, used) = (server.resident_bytes(), cpu_time(server.pid()));
        let mut scrapes = 0;
        while begun_at.elapsed() < length {
            let answer = ask(admin, b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            require(answer.is_some_and(|answer| answer.status == 200), "each scrape is answered")?;
            scrapes += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        let grown = server.resident_bytes().saturating_sub(before);
        let share = (cpu_time(server.pid()) - used).as_secs_f64() / length.as_secs_f64();
        site.measured(format!(
            "{scrapes} scrapes, {} KiB more, {:.0} % of a CPU with a bystander",
            grown / 1024,
            100.0 * share
        ));
        require(grown < MEMORY_MAX, "memory is bounded")
    })
}
