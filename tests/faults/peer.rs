//! Peers in processes of their own, for what one cannot do to a thread: being killed, being stopped, being elsewhere.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::common::{Client, Request, random_requests, seeded, truth};

/// Set for peers of a server of trees.
const TREES: &str = "DISRUST_TEST_TREES";

/// The driver as a peer: `peer ADDRESS exchange COUNT | flood | until-eof | small COUNT | idle |
/// crowd DEED COUNT`.
pub fn main(words: &[&str]) -> ExitCode {
    let [address, deed @ ..] = words else { return ExitCode::from(2) };
    truth::serve_trees(std::env::var_os(TREES).is_some());
    let address: SocketAddr = address.parse().expect("an address");
    let mut rng = seeded();
    match deed {
        // Exchanges requests, a hundred at a time, and checks every answer.
        ["exchange", count] => {
            let mut client = Client::connect(address);
            for _ in 0..count.parse().expect("a count") {
                client.exchange(&random_requests(&mut rng, 100, 1..=16));
            }
        }
        // The same through a small window, with a single feature: answers as long as their requests, so that the server's
        // sends are partial.
        ["small", count] => {
            let mut client = Client::with_small_buffers(address);
            for _ in 0..count.parse().expect("a count") {
                let requests: Vec<_> = (0..1000).map(|_| Request::random(&mut rng, 1, 64)).collect();
                client.exchange(&requests);
            }
        }
        // Sends without end, and reads nothing.
        ["flood"] => {
            let requests = random_requests(&mut rng, 100, 1..=16);
            let client = Client::connect(address);
            loop {
                client.send_all(&requests);
            }
        }
        // A new connection for each exchange, until its input ends. Says how long the slowest took.
        ["until-eof"] => {
            let input = std::thread::spawn(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
            let mut slowest = Duration::ZERO;
            while !input.is_finished() {
                let begun_at = Instant::now();
                Client::connect(address).exchange(&random_requests(&mut rng, 20, 1..=4));
                slowest = slowest.max(begun_at.elapsed());
            }
            println!("{}", slowest.as_micros());
        }
        // One exchange, then silence.
        ["idle"] => {
            let mut client = Client::connect(address);
            client.exchange(&random_requests(&mut rng, 2, 1..=4));
            println!("idle");
            std::thread::sleep(Duration::from_secs(600));
        }
        ["crowd", deed, count] => super::crowds::main(address, deed, count.parse().expect("a count")),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// A peer's process, ended with the value.
pub struct Peer(pub Child);

impl Peer {
    pub fn start(address: SocketAddr, deed: &[&str]) -> Peer {
        Peer::through(&[], address, deed)
    }

    /// Through some other program.
    pub fn through(program: &[&str], address: SocketAddr, deed: &[&str]) -> Peer {
        let driver = std::env::current_exe().expect("the driver is a file");
        let mut command = match program {
            [] => Command::new(driver),
            [name, words @ ..] => {
                let mut command = Command::new(name);
                command.args(words).arg(driver);
                command
            }
        };
        command.args(["peer", &address.to_string()]).args(deed).stdin(Stdio::piped()).stdout(Stdio::piped());
        if truth::are_trees_served() {
            command.env(TREES, "1");
        }
        // What it has to complain about stands in the driver's log.
        Peer(command.spawn().expect("the driver starts"))
    }

    /// Ends its input, and waits for it. Whether it ended in order: every answer was right.
    pub fn was_right(&mut self) -> bool {
        self.0.wait().is_ok_and(|status| status.success())
    }

    /// The last line of what it has said. It has ended.
    pub fn last_word(&mut self) -> String {
        let mut said = String::new();
        self.0.stdout.take().expect("it is read once").read_to_string(&mut said).expect("text");
        said.lines().last().unwrap_or_default().to_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended_before = self.0.kill();
        let _reaped_before = self.0.wait();
    }
}
