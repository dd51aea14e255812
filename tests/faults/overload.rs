//! Rows C: more than there is room for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use disrust_protocol::FEATURE_DIM;
use nix::sys::signal::Signal;

use super::Listed;
use super::common::{Client, DeafCrowd, Request, admin, random_requests, wait_until};
use super::models::server_with_model;
use super::peer::Peer;
use super::site::{Gauges, Site, Stop, require};

pub const ROWS: &[Listed] = &[
    ("C1", "connections over the limit", too_many),
    ("C2", "offered load 3 × capacity for a minute", overload),
    ("C3", "one greedy pipeliner, 50 polite clients", greedy),
    ("C4", "buffers exhausted by one connection", exhausted_buffers),
    ("C5", "a slow model", slow_model),
    ("C6", "the server is stopped 5 s under load", stopped_server),
];

fn too_many(site: &mut Site) -> Result<(), Stop> {
    site.beside(&["--max-connections", "100"], |site, server| {
        let mut clients: Vec<_> = (0..300).map(|_| server.connect()).collect();
        // A bystander each has a place already, so that fewer of these have one.
        let request = site.request(1);
        let served = clients.iter_mut().filter_map(|client| answered(client, &request)).count();
        site.measured(format!("{served} of {} were served, the others closed at once", clients.len()));
        require(served > 50 && served <= 100, "as many are served as there are places")
    })
}

/// `None` if the server has closed the connection.
fn answered(client: &mut Client, request: &Request) -> Option<()> {
    use std::io::Write;
    client.stream().write_all(&request.bytes).ok()?;
    if client.is_closed_at_once() { None } else { Some(()) }
}

/// Clients that keep deep pipelines going; counts the answers.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr, clients: usize, depth: usize) -> Load {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let requests = Arc::new(vec![Request::of(FEATURE_DIM, &[0.5; FEATURE_DIM]); depth]);
        let threads = (0..clients).map(|_| {
            let (stop, answers, requests) = (Arc::clone(&stop), Arc::clone(&answers), Arc::clone(&requests));
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(Ordering::Relaxed) {
                    client.send_all(&requests);
                    client.expect(requests.iter());
                    answers.fetch_add(requests.len() as u64, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Load { stop, answers, threads }
    }

    fn rate_over(&self, length: Duration) -> f64 {
        let (before, begun_at) = (self.answers.load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(length);
        (self.answers.load(Ordering::Relaxed) - before) as f64 / begun_at.elapsed().as_secs_f64()
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("every answer is right"));
    }
}

fn overload(site: &mut Site) -> Result<(), Stop> {
    let server = super::common::ServerProcess::start(&[]);
    let address = server.address();
    let usual = Load::start(address, 8, 64);
    usual.rate_over(Duration::from_secs(1));
    let peak = usual.rate_over(Duration::from_secs(site.size(10, 2)));
    let before = server.resident_bytes();
    // Three times as many that ask, and each has three times as much under way.
    let more = Load::start(address, 16, 192);
    more.rate_over(Duration::from_secs(1));
    let length = Duration::from_secs(site.size(60, 3));
    let (asked, begun_at) = (usual.answers.load(Ordering::Relaxed), Instant::now());
    let goodput = more.rate_over(length)
        + (usual.answers.load(Ordering::Relaxed) - asked) as f64 / begun_at.elapsed().as_secs_f64();
    let grown = server.resident_bytes().saturating_sub(before) / 1024;
    more.finish();
    usual.finish();
    site.measured(format!("goodput {:.2} × the peak of {peak:.0} requests/s, {grown} KiB more", goodput / peak));
    require(goodput >= 0.8 * peak && grown < 8 * 1024, "goodput and memory hold")?;
    server.signal(Signal::SIGTERM);
    require(server.wait().0 == Some(0), "it drains")
}

fn greedy(site: &mut Site) -> Result<(), Stop> {
    site.beside(&[], |site, server| {
        let address = server.address();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let requests = random_requests(&mut site.rng, 20_000, 1..=1);
        let greedy = std::thread::spawn(move || {
            let mut client = Client::connect(address);
            while !stopped.load(Ordering::Relaxed) {
                client.exchange(&requests);
            }
        });
        let mut polite: Vec<_> = (0..50).map(|_| server.connect()).collect();
        let begun_at = Instant::now();
        let mut exchanges = 0;
        while begun_at.elapsed() < Duration::from_secs(site.size(10, 2)) {
            for client in &mut polite {
                let request = site.request(1);
                client.send(&request.bytes);
                client.expect([&request]);
                exchanges += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        greedy.join().expect("the greedy one gets its answers too");
        site.measured(format!("{exchanges} polite exchanges"));
        Ok(())
    })
}

fn exhausted_buffers(site: &mut Site) -> Result<(), Stop> {
    // Requests so large that there are only a few buffers.
    let server = super::common::ServerProcess::start(&["--features", "4096", "--io-threads", "1"]);
    let large = Request::of(4096, &vec![0.5; 64 * 4096]);
    let small = Request::of(4096, &vec![0.25; 4096]);
    let mut greedy = DeafCrowd::connect(server.address(), 1, &small);
    let mut others: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for _ in 0..site.size(30, 5) {
        greedy.send();
        for client in &mut others {
            client.exchange(std::slice::from_ref(&large));
            client.exchange(std::slice::from_ref(&small));
        }
    }
    site.measured("others were served throughout");
    drop((greedy, others));
    server.signal(Signal::SIGTERM);
    require(server.wait().0 == Some(0), "it drains")
}

fn slow_model(site: &mut Site) -> Result<(), Stop> {
    let server = server_with_model("slow");
    let before = Gauges::of(&server);
    let request = site.request(64);
    let mut crowd = DeafCrowd::connect(server.address(), 20, &request);
    let (begun_at, admin, mut asked) = (Instant::now(), server.admin_address(), 0);
    let mut status = serde_json::Value::Null;
    while begun_at.elapsed() < Duration::from_secs(site.size(10, 3)) {
        crowd.send();
        std::thread::sleep(Duration::from_millis(10));
        let answers = [admin::status(admin, "/livez"), admin::status(admin, "/readyz")];
        require(answers == [200; 2], format!("it makes progress, and health says {answers:?}"))?;
        status = serde_json::from_str(&admin::get(admin, "/status.json").body).expect("it is JSON");
        asked += 1;
    }
    // It has nothing to do any more once all of them are held back.
    let shares = status["history"]["busy_share"].as_array().into_iter().flatten();
    let busy = shares.filter_map(serde_json::Value::as_f64).fold(0.0, f64::max);
    let grown = server.resident_bytes().saturating_sub(before.resident_bytes) / 1024;
    site.measured(format!(
        "{grown} KiB more with 20 peers that never stop sending; asked {asked} times, it was alive and ready, and its \
         model busy for {:.0} % of the fullest second",
        100.0 * busy
    ));
    require(busy > 0.5, "the status page says that it is full")?;
    drop(crowd);
    let mut polite = server.connect();
    polite.exchange(&[request]);
    drop(polite);
    server.signal(Signal::SIGTERM);
    require(server.wait().0 == Some(0), "it drains")?;
    require(grown < 16 * 1024, "memory is flat")
}

fn stopped_server(site: &mut Site) -> Result<(), Stop> {
    let server = super::common::ServerProcess::start(&["--request-timeout", "3s"]);
    let mut peers: Vec<_> =
        (0..8).map(|_| Peer::start(server.address(), &["exchange", site.size("2000", "300")])).collect();
    std::thread::sleep(Duration::from_millis(200));
    server.stop();
    // Longer than the deadline of a request, shorter than a client's patience.
    std::thread::sleep(Duration::from_secs(5));
    server.carry_on();
    for peer in &mut peers {
        require(peer.was_right(), "after the stop all is answered")?;
    }
    wait_until("it is alive", || Gauges::of(&server).descriptors > 0);
    server.signal(Signal::SIGTERM);
    require(server.wait().0 == Some(0), "it drains")
}
