//! Row G6: crowds that make the server hold as much as they can; and the crowd itself, in a process of its own, whose
//! descriptors are not the driver's.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use socket2::{Domain, SockRef, Socket, Type};

use super::Listed;
use super::common::{Request, ServerProcess};
use super::peer::Peer;
use super::site::{Site, Stop, require};
use super::slow_readers::SEND_BYTES_MAX;
use super::socket_memory;

pub const ROWS: &[Listed] = &[("G6", "crowds that never read, or that begin the largest request", crowds)];

const IO_THREADS: usize = 2;

/// What a connection may cost beside what the budget counts.
const CONNECTION_BYTES: u64 = 1024;

/// What a warm server may grow by without any crowd.
const NOISE_BYTES: u64 = 3 << 20;

/// What the peers of a crowd do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Pipelines of small requests, and no answer is read.
    Deaf,
    /// Five bytes of the largest request.
    Begin,
}

struct Case {
    deed: Deed,
    peers: usize,
    budget: (&'static str, u64),
}

fn crowds(site: &mut Site) -> Result<(), Stop> {
    const SMALL: (&str, u64) = ("16MiB", 16 << 20);
    const USUAL: (&str, u64) = ("256MiB", 256 << 20);
    let case = |deed, peers, budget| Case { deed, peers, budget };
    let cases = if site.quick {
        vec![case(Deed::Deaf, 1000, SMALL), case(Deed::Begin, 400, SMALL)]
    } else {
        vec![
            // The fewer there are, the more each can send before the kernel's memory for all of TCP is used up.
            case(Deed::Deaf, 4000, SMALL),
            case(Deed::Deaf, 4000, USUAL),
            case(Deed::Deaf, 15_000, SMALL),
            case(Deed::Begin, 15_000, SMALL),
            case(Deed::Begin, 15_000, USUAL),
        ]
    };
    let mut failures = Vec::new();
    for case in cases {
        let what = format!("{:?}, {} peers, budget {}", case.deed, case.peers, case.budget.0);
        match crowd(site, &case) {
            Ok(()) => {}
            Err(Stop::Failed(why)) => failures.push(format!("{what}: {why}")),
            Err(skipped) => return Err(skipped),
        }
    }
    require(failures.is_empty(), failures.join("; "))
}

fn crowd(site: &mut Site, case: &Case) -> Result<(), Stop> {
    site.features = if case.deed == Deed::Deaf { 1 } else { 4096 };
    let (features, threads) = (site.features.to_string(), IO_THREADS.to_string());
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let peers = case.peers.min(usize::try_from(descriptors).unwrap_or(usize::MAX).saturating_sub(500));
    let flags = ["--features", &features, "--io-threads", &threads, "--buffer-memory", case.budget.0];
    site.beside(&flags, |site, server| {
        let base = server.resident_bytes();
        let mut crowd = Crowd::start(server, case.deed, peers);
        let (mut peak, mut kernel_max, mut kernel_sum, mut counted) = (0, 0, 0, 0);
        // They come, and are closed on or leave, and come again: what one round leaves behind, the next one adds to.
        for round in 0..3 {
            if round > 0 {
                crowd.come_again();
            }
            crowd.wait_until_there(|| peak = peak.max(server.resident_bytes()))?;
            let begun_at = Instant::now();
            while begun_at.elapsed() < Duration::from_secs(site.size(4, 1)) {
                peak = peak.max(server.resident_bytes());
                std::thread::sleep(Duration::from_millis(20));
            }
            let sockets = socket_memory::of_port(server.address().port())?;
            kernel_max = sockets.iter().map(|socket| socket.send_bytes).chain([kernel_max]).max().unwrap_or(0);
            kernel_sum += sockets.iter().map(|socket| socket.send_bytes).sum::<u64>();
            counted += sockets.len() as u64;
        }
        drop(crowd);
        let grown = peak.saturating_sub(base);
        site.measured(format!(
            "{:?}, {peers} peers, budget {}: resident {} MiB more than {} MiB, kernel {} KiB a peer, at most {} KiB",
            case.deed,
            case.budget.0,
            grown >> 20,
            base >> 20,
            kernel_sum / counted.max(1) / 1024,
            kernel_max / 1024
        ));
        let promised = promised_bytes(&server.stderr());
        require(promised >= case.budget.1, format!("the banner tells the memory: {promised} bytes"))?;
        let allowed = promised + peers as u64 * CONNECTION_BYTES + NOISE_BYTES;
        require(grown <= allowed, format!("{} MiB more, {} MiB are allowed", grown >> 20, allowed >> 20))?;
        require(kernel_max <= SEND_BYTES_MAX, format!("{} KiB in the kernel for one peer", kernel_max / 1024))
    })
}

/// The memory that the banner says peers can make the server hold: the budget, and what is under way when it is used up.
pub fn promised_bytes(banner: &str) -> u64 {
    let line = banner.lines().find(|line| line.starts_with("memory: ")).unwrap_or_default();
    let words: Vec<_> = line.split(' ').collect();
    words.windows(2).filter(|pair| pair[1] == "MiB").filter_map(|pair| pair[0].parse::<u64>().ok()).sum::<u64>() << 20
}

/// The crowd's process, from the driver's side.
struct Crowd {
    /// Ended with the value.
    _peer: Peer,
    orders: ChildStdin,
    reports: Receiver<String>,
}

impl Crowd {
    fn start(server: &ServerProcess, deed: Deed, peers: usize) -> Crowd {
        let deed = if deed == Deed::Deaf { "deaf" } else { "begin" };
        let mut peer = Peer::start(server.address(), &["crowd", deed, &peers.to_string()]);
        let orders = peer.0.stdin.take().expect("a pipe");
        let stdout = peer.0.stdout.take().expect("a pipe");
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            // Nobody listens once the row has ended.
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Crowd { _peer: peer, orders, reports }
    }

    /// Waits until all have sent what they can, and does something meanwhile, over and over.
    fn wait_until_there(&self, mut meanwhile: impl FnMut()) -> Result<(), Stop> {
        let begun_at = Instant::now();
        loop {
            match self.reports.recv_timeout(Duration::from_millis(20)) {
                Ok(line) if line == "there" => return Ok(()),
                Ok(_) | Err(RecvTimeoutError::Timeout) => meanwhile(),
                Err(RecvTimeoutError::Disconnected) => return Err(Stop::Failed("the crowd has ended".to_owned())),
            }
            require(begun_at.elapsed() < Duration::from_secs(60), "the crowd does not come")?;
        }
    }

    fn come_again(&mut self) {
        self.orders.write_all(b"again\n").expect("the crowd listens");
    }
}

/// The driver as a crowd: `crowd deaf|begin COUNT`. Says "there" when all have sent what they can; each line of its input
/// sends all of them away and lets as many come anew a little later, and its end ends it.
pub fn main(address: SocketAddr, deed: &str, count: usize) {
    let mut orders = std::io::stdin().lines().map_while(Result::ok);
    loop {
        let crowd: Vec<TcpStream> = (0..count).map(|index| come(address, index)).collect();
        match deed {
            "deaf" => send_unread(&crowd),
            _ => crowd.iter().for_each(|mut peer| {
                // The largest count, and the first byte of its vectors. It may be closed on already.
                let _closed = peer.write_all(&[64, 0, 0, 0, 1]);
            }),
        }
        println!("there");
        if orders.next().is_none() {
            return;
        }
        for (index, peer) in crowd.into_iter().enumerate() {
            // Half of them break off, half of them leave; also those who are closed on already.
            let _closed = match index % 2 {
                0 => SockRef::from(&peer).set_linger(Some(Duration::ZERO)),
                _ => peer.shutdown(Shutdown::Write),
            };
        }
        // Until the server has given back what these held: memory that is asked for anew may be of another kind.
        std::thread::sleep(Duration::from_millis(1500));
    }
}

/// A peer with little room, from an address of its own for each few thousand, since each has only so many ports.
fn come(address: SocketAddr, index: usize) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a descriptor");
    socket.set_recv_buffer_size(4096).expect("a TCP socket");
    socket.set_send_buffer_size(4096).expect("a TCP socket");
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1 + u8::try_from(index / 2000).expect("not that many")));
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("all of 127.0.0.0/8 is this machine's");
    socket.connect(&address.into()).expect("the server listens");
    socket.set_nonblocking(true).expect("a TCP socket");
    socket.into()
}

/// Small requests, until nobody can send any more, or three quarters of the machine's memory for TCP, which is
/// everybody's, are used.
fn send_unread(crowd: &[TcpStream]) {
    let pipeline = Request::of(1, &[0.5; 8]).bytes.repeat(200);
    let mut at = vec![0; crowd.len()];
    let mut last_sent_at = Instant::now();
    while last_sent_at.elapsed() < Duration::from_millis(500) {
        for (index, mut peer) in crowd.iter().enumerate() {
            if index % 200 == 0
                && socket_memory::machine_pages().is_some_and(|(used, pressure)| 4 * used > 3 * pressure)
            {
                return;
            }
            match peer.write(&pipeline[at[index]..]) {
                Ok(count) => {
                    at[index] = (at[index] + count) % pipeline.len();
                    last_sent_at = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Closed on: its time, or its share of the memory, is used up.
                Err(_closed) => {}
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
