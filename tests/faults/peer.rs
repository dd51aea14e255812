//! Peers in processes of their own, for what one cannot do to a thread: being killed, being stopped, being elsewhere.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::common::{Client, Request, random_requests, seeded};

/// The driver as a peer: `peer ADDRESS exchange COUNT | flood | forever SECONDS | small COUNT | idle`.
pub fn main(words: &[&str]) -> ExitCode {
    let [address, deed @ ..] = words else { return ExitCode::from(2) };
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
        // For so many seconds, a new connection for each exchange.
        ["forever", seconds] => {
            let until = Instant::now() + Duration::from_secs(seconds.parse().expect("seconds"));
            while Instant::now() < until {
                Client::connect(address).exchange(&random_requests(&mut rng, 20, 1..=4));
            }
        }
        // One exchange, then silence.
        ["idle"] => {
            let mut client = Client::connect(address);
            client.exchange(&random_requests(&mut rng, 2, 1..=4));
            println!("idle");
            std::thread::sleep(Duration::from_secs(600));
        }
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
        command.args(["peer", &address.to_string()]).args(deed).stdin(Stdio::null()).stdout(Stdio::piped());
        Peer(command.stderr(Stdio::null()).spawn().expect("the driver starts"))
    }

    /// Whether it ended in order: every answer was right.
    pub fn was_right(&mut self) -> bool {
        self.0.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended_before = self.0.kill();
        let _reaped_before = self.0.wait();
    }
}
