//! Rows B: connections that break, stop, hesitate, vanish and crowd.

use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use disrust_protocol::HelloRequest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Listed;
use super::common::{Client, DeafCrowd, Request, ServerProcess, random_requests, wait_patiently_until, wait_until};
use super::crowds::promised_bytes;
use super::namespaces::TwoHosts;
use super::peer::Peer;
use super::site::{Gauges, Site, Stop, require};

pub const ROWS: &[Listed] = &[
    ("B1", "RST or kill −9 with requests in flight", broken_off),
    ("B2", "half-close after requests", half_closed),
    ("B3", "1,000 readers that never read", never_readers),
    ("B4", "one byte at a time; connect and never send", slow_senders),
    ("B5", "a peer that vanishes without FIN", vanished),
    ("B6", "tiny windows, MTU 576, partial sends", tiny_windows),
    ("B7", "a client that is stopped and goes on", stopped_client),
    ("B8", "churn", churn),
    ("B9", "10,000 connections, 1 % active", idle_crowd),
    ("B10", "a slot is reused while its request is in the ring", reused_slot),
    ("B11", "hellos without end, alone and between requests, from readers that never read", never_reading_greeters),
];

fn broken_off(site: &mut Site) -> Result<(), Stop> {
    site.beside(&[], |site, server| {
        for _ in 0..site.size(500, 50) {
            let requests = random_requests(&mut site.rng, 200, 1..=16);
            let client = server.connect();
            client.send_all(&requests);
            client.reset();
        }
        for _ in 0..site.size(50, 5) {
            let peer = Peer::start(server.address(), &["flood"]);
            std::thread::sleep(Duration::from_millis(100));
            // Killed, with requests on their way and answers that nobody reads.
            drop(peer);
        }
        Ok(())
    })
}

fn half_closed(site: &mut Site) -> Result<(), Stop> {
    site.beside(&[], |site, server| {
        for _ in 0..site.size(500, 50) {
            let requests = random_requests(&mut site.rng, 50, 1..=16);
            let mut client = server.connect();
            client.send_all(&requests);
            client.half_close();
            client.expect(&requests);
            client.expect_end();
        }
        Ok(())
    })
}

fn never_readers(site: &mut Site) -> Result<(), Stop> {
    // As many bytes in an answer as in its request, so that answers soon have nowhere to go.
    site.features = 1;
    site.beside(&["--features", "1", "--request-timeout", "3s"], |site, server| {
        let readers = site.size(1000, 100);
        let before = Gauges::of(server);
        let request = site.request(64);
        let mut crowd = DeafCrowd::connect(server.address(), readers, &request);
        let (mut peak, begun_at) = (0, Instant::now());
        while begun_at.elapsed() < Duration::from_secs(site.size(20, 6)) {
            crowd.send();
            peak = peak.max(server.resident_bytes());
        }
        let each = peak.saturating_sub(before.resident_bytes) / readers as u64 / 1024;
        site.measured(format!("{readers} readers, {each} KiB each at the peak"));
        wait_patiently_until(Duration::from_secs(60), "they are closed by policy", || {
            Gauges::of(server).descriptors <= before.descriptors + 8
        });
        // 64 KiB of answers owed stop the receiving, or 4 MiB for all of a thread's; what one multishot brings in a turn
        // comes on top, at most 32 buffers of 32 KiB, and rarely more than a few.
        require(each <= 512, format!("{each} KiB for each connection"))
    })
}

/// An answer to a hello may be 35 times as long as the hello. What is held for peers that read none is what the budget says all the
/// same, and what the buffers that were lent by then bring.
fn never_reading_greeters(site: &mut Site) -> Result<(), Stop> {
    site.features = 1;
    let name = "n".repeat(255);
    let flags = ["--features", "1", "--request-timeout", "3s", "--buffer-memory", "16MiB", "--model-name", &name];
    site.beside(&flags, |site, server| {
        let readers = site.size(500, 50);
        let before = Gauges::of(server);
        let hello = HelloRequest { feature_dim: 0 }.to_bytes();
        let alone = Request { bytes: hello.repeat(64), ..site.request(1) };
        let between = site.request(1);
        let between = Request { bytes: [&between.bytes[..], &hello].concat().repeat(32), ..between };
        let mut crowds = [alone, between].map(|bytes| DeafCrowd::connect(server.address(), readers, &bytes));
        let (mut peak, begun_at) = (0, Instant::now());
        while begun_at.elapsed() < Duration::from_secs(site.size(20, 6)) {
            crowds.iter_mut().for_each(DeafCrowd::send);
            peak = peak.max(server.resident_bytes());
        }
        let more = peak.saturating_sub(before.resident_bytes) / 1024;
        let promised = promised_bytes(&server.stderr()) / 1024;
        site.measured(format!("{} readers, {more} KiB more at the peak, {promised} are promised", 2 * readers));
        wait_patiently_until(Duration::from_secs(60), "they are closed by policy", || {
            Gauges::of(server).descriptors <= before.descriptors + 8
        });
        // Beside what is promised, what connections and the allocator take.
        require(promised >= 16 * 1024 && more <= promised + 16 * 1024, format!("{more} KiB, {promised} are promised"))
    })
}

fn slow_senders(site: &mut Site) -> Result<(), Stop> {
    site.beside(&["--request-timeout", "2s", "--idle-timeout", "4s"], |site, server| {
        let request = site.request(4);
        let begun_at = Instant::now();
        let mut slow: Vec<_> = (0..site.size(200, 20)).map(|_| server.connect()).collect();
        let mut silent: Vec<_> = (0..site.size(5000, 200)).map(|_| server.connect()).collect();
        for byte in request.bytes[..40].chunks(1) {
            // Their time ends at some point.
            slow.iter().for_each(|client| drop(client.stream().write_all(byte)));
            std::thread::sleep(Duration::from_millis(100));
        }
        for client in &mut slow {
            require(client.is_closed_by_server(), "a request that trickles in is given up")?;
        }
        for client in &mut silent {
            require(client.is_closed_by_server(), "a silent connection is closed")?;
        }
        site.measured(format!("{} closed after {:.1} s", slow.len() + silent.len(), begun_at.elapsed().as_secs_f64()));
        Ok(())
    })
}

fn vanished(site: &mut Site) -> Result<(), Stop> {
    if site.quick {
        return Err(Stop::Skipped("takes two minutes; not in a quick run".to_owned()));
    }
    let hosts = TwoHosts::new()?;
    let server = hosts.server(&[])?;
    let before = Gauges::of(&server);
    let mut peer = Peer::through(&hosts.in_client(), server.address(), &["idle"]);
    let stdout = peer.0.stdout.take().expect("a pipe");
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    require(lines.any(|line| line == "idle"), "the peer is served before it vanishes")?;
    require(Gauges::of(&server).descriptors > before.descriptors, "its connection is open")?;
    hosts.cut_link()?;
    let begun_at = Instant::now();
    wait_patiently_until(Duration::from_secs(240), "the vanished peer is given up", || {
        Gauges::of(&server).descriptors <= before.descriptors
    });
    site.measured(format!("given up after {:.0} s", begun_at.elapsed().as_secs_f64()));
    Ok(())
}

fn tiny_windows(site: &mut Site) -> Result<(), Stop> {
    let hosts = TwoHosts::new()?;
    hosts.set_mtu(576)?;
    let printed = std::env::temp_dir().join(format!("disrust-faults-{}.log", std::process::id()));
    let stdout = std::fs::File::create(&printed).expect("the temporary folder can be written to");
    let server = hosts.server_with(&["--features", "1", "--metrics-interval", "200ms"], Some(stdout))?;
    let mut peers: Vec<_> =
        (0..4).map(|_| Peer::through(&hosts.in_client(), server.address(), &["small", site.size("20", "3")])).collect();
    for peer in &mut peers {
        require(peer.was_right(), "every byte is right")?;
    }
    server.signal(Signal::SIGTERM);
    let (status, _log) = server.wait();
    require(status == Some(0), "it drains")?;
    let text = std::fs::read_to_string(&printed).expect("it was written");
    // Nobody else reads it.
    let _gone = std::fs::remove_file(&printed);
    let partial = counted(&text, "partial_sends");
    site.measured(format!("{partial} partial sends"));
    require(partial > 0, "the path of partial sends is taken")
}

/// The sum of a count over all lines of metrics.
pub fn counted(metrics: &str, name: &str) -> u64 {
    let pairs = metrics.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.filter(|(is, _)| *is == name).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

fn stopped_client(site: &mut Site) -> Result<(), Stop> {
    site.beside(&["--request-timeout", "30s"], |site, server| {
        let mut peer = Peer::start(server.address(), &["exchange", "300"]);
        std::thread::sleep(Duration::from_millis(100));
        let pid = Pid::from_raw(i32::try_from(peer.0.id()).expect("a pid"));
        kill(pid, Signal::SIGSTOP).expect("our child");
        std::thread::sleep(Duration::from_secs(site.size(10, 2)));
        kill(pid, Signal::SIGCONT).expect("our child");
        require(peer.was_right(), "it resumes, with the right bytes")
    })
}

fn churn(site: &mut Site) -> Result<(), Stop> {
    site.beside(&[], |site, server| {
        let (address, begun_at) = (server.address(), Instant::now());
        let length = Duration::from_secs(site.size(20, 2));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let mut rng = site.rng.fork();
                std::thread::spawn(move || {
                    let mut connections = 0_u64;
                    while begun_at.elapsed() < length {
                        let mut client = Client::connect(address);
                        // Every eighth asks something, and must get its own answer.
                        if connections.is_multiple_of(8) {
                            let requests = random_requests(&mut rng, 1, 1..=4);
                            client.send_all(&requests);
                            client.expect(&requests);
                        }
                        connections += 1;
                    }
                    connections
                })
            })
            .collect();
        let connections: u64 =
            threads.into_iter().map(|thread| thread.join().expect("each gets its own answers")).sum();
        let rate = connections as f64 / begun_at.elapsed().as_secs_f64();
        site.measured(format!("{rate:.0} connections a second"));
        Ok(())
    })
}

fn idle_crowd(site: &mut Site) -> Result<(), Stop> {
    let wanted = site.size(10_000, 1_000);
    site.beside(&[], |site, server| {
        let before = Gauges::of(server);
        let mut clients: Vec<_> = (0..wanted).map(|_| server.connect()).collect();
        wait_until("all are accepted", || Gauges::of(server).descriptors >= before.descriptors + clients.len());
        let grown = Gauges::of(server).resident_bytes.saturating_sub(before.resident_bytes);
        let each = grown / clients.len() as u64;
        site.measured(format!("{wanted} connections, {each} bytes each"));
        for _ in 0..20 {
            for index in 0..clients.len() / 100 {
                let request = site.request(1);
                let client = &mut clients[index * 100];
                client.send(&request.bytes);
                client.expect([&request]);
            }
        }
        require(each <= 1024, "an idle connection takes more than 1 KiB")
    })
}

fn reused_slot(site: &mut Site) -> Result<(), Stop> {
    site.beside(&["--io-threads", "1"], |site, server| {
        for _ in 0..site.size(5000, 300) {
            let gone = server.connect();
            let requests = random_requests(&mut site.rng, 20, 1..=4);
            gone.send_all(&requests);
            gone.reset();
            next_tenant(site, server);
        }
        Ok(())
    })
}

/// Whoever comes next must get answers of his own, and nothing else.
fn next_tenant(site: &mut Site, server: &ServerProcess) {
    let request = site.request(1);
    let mut client = server.connect();
    client.send(&request.bytes);
    client.half_close();
    client.expect([&request]);
    client.expect_end();
}
