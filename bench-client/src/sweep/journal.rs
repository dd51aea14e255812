//! What was measured, one line of JSON a visit, in `points.jsonl`: what a sweep that was stopped goes on from.
//!
//! A visit's key holds everything that its figures depend on: the point and its round, times, the client's threads, the
//! programs (a hash of their bytes) and the machine. A key that is there is not measured again.
//!
//! Invariants: a line is written whole, at once, after its measurement; a line that cannot be read, such as the last one
//! of a machine that lost power, counts as not there and stays where it is.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plan::Point;
use crate::failure::Failure;
use crate::summary::Repeat;

/// One measurement of a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    /// What the figures depend on.
    pub key: String,
    /// What was measured.
    pub point: Point,
    /// From 0.
    pub round: u32,
    /// Seconds since 1970 at its end.
    pub measured_at_unix_seconds: u64,
    /// What the instrument has to say.
    pub repeat: Repeat,
    /// Memory of the server right after it.
    pub resident_bytes: Option<u64>,
    /// Of all threads of the server, an answer.
    pub context_switches_per_request: Option<f64>,
}

/// The file, and what was in it.
pub struct Journal {
    path: PathBuf,
    file: File,
    visits: HashMap<String, Visit>,
}

impl Journal {
    /// Opens the file, or begins it.
    pub fn open(path: &Path) -> Result<Journal, Failure> {
        let failed = |source| Failure::Output { path: path.to_owned(), source };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").map_err(failed)?;
        }
        Ok(Journal { path: path.to_owned(), file, visits: read(&text) })
    }

    /// Begins it anew.
    pub fn forget(&mut self) -> Result<(), Failure> {
        self.visits.clear();
        self.file.set_len(0).map_err(|source| Failure::Output { path: self.path.clone(), source })
    }

    /// The visit with this key.
    pub fn find(&self, key: &str) -> Option<&Visit> {
        self.visits.get(key)
    }

    /// Keeps `visit`.
    pub fn add(&mut self, visit: Visit) -> Result<(), Failure> {
        let line = serde_json::to_string(&visit).map(|line| line + "\n").map_err(io::Error::from);
        let written = line.and_then(|line| self.file.write_all(line.as_bytes()));
        written.map_err(|source| Failure::Output { path: self.path.clone(), source })?;
        self.visits.insert(visit.key.clone(), visit);
        Ok(())
    }
}

fn read(text: &str) -> HashMap<String, Visit> {
    let visits = text.lines().filter_map(|line| serde_json::from_str::<Visit>(line).ok());
    visits.map(|visit| (visit.key.clone(), visit)).collect()
}

/// What figures depend on besides the point and its round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circumstances {
    /// Kernel, CPU and CPUs.
    pub machine: String,
    /// Of this program's bytes.
    pub client_hash: u64,
    /// Of the server's bytes, if it is measured.
    pub server_hash: Option<u64>,
    /// Threads, times, features and seed, as words.
    pub settings: String,
}

impl Circumstances {
    /// The key of visit `round` of `point`.
    pub fn key(&self, point: &Point, round: u32) -> String {
        let Circumstances { machine, client_hash, server_hash, settings } = self;
        let server = match point.server.kind {
            crate::args::ServerKind::Disrust => {
                server_hash.map_or_else(String::new, |hash| format!(" server={hash:016x}"))
            }
            _ => String::new(),
        };
        format!("{point} round={round} {settings} client={client_hash:016x}{server} on {machine}")
    }
}

/// The hash of a program.
pub fn hash_of(program: &Path) -> Result<u64, Failure> {
    let bytes = fs::read(program);
    bytes.map(|bytes| fnv_1a(&bytes)).map_err(|source| Failure::Input {
        path: program.to_owned(),
        problem: format!("{source}\nBuild it with `cargo build --release --workspace`, or name it with --server."),
    })
}

/// FNV-1a of 64 bits (Fowler, Noll, Vo): it tells two builds apart, and is the same with every version of Rust, which the
/// standard library's hasher does not promise.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Pacing, Server};
    use super::*;
    use crate::args::{ServerKind, Wait};

    fn point(kind: ServerKind, io_threads: u32, connections: u32) -> Point {
        let server = Server { kind, io_threads, wait: Wait::Auto };
        Point { server, pacing: Pacing::Closed { window: 16 }, connections, vectors: 1 }
    }

    fn circumstances() -> Circumstances {
        Circumstances {
            machine: "Linux 6.1, 2 CPUs".to_owned(),
            client_hash: 1,
            server_hash: Some(2),
            settings: "threads=1".to_owned(),
        }
    }

    /// The promise: whatever changes the figures changes the key, and nothing else does.
    #[test]
    fn keys_hold_what_figures_depend_on() {
        let disrust = point(ServerKind::Disrust, 1, 64);
        let key = circumstances().key(&disrust, 0);
        assert_eq!(key, circumstances().key(&disrust, 0));
        let mut others = vec![circumstances().key(&disrust, 1)];
        others.push(circumstances().key(&point(ServerKind::Disrust, 2, 64), 0));
        others.push(circumstances().key(&point(ServerKind::Disrust, 1, 65), 0));
        others.push(circumstances().key(&point(ServerKind::Tokio, 1, 64), 0));
        others.push(Circumstances { client_hash: 3, ..circumstances() }.key(&disrust, 0));
        others.push(Circumstances { server_hash: Some(3), ..circumstances() }.key(&disrust, 0));
        others.push(Circumstances { machine: String::new(), ..circumstances() }.key(&disrust, 0));
        others.push(Circumstances { settings: String::new(), ..circumstances() }.key(&disrust, 0));
        assert!(others.iter().all(|other| *other != key), "{key}");
    }

    /// The promise: a new build of the server does not measure the floors again.
    #[test]
    fn floors_do_not_depend_on_the_server() {
        let epoll = point(ServerKind::Epoll, 1, 64);
        let rebuilt = Circumstances { server_hash: Some(3), ..circumstances() };
        assert_eq!(circumstances().key(&epoll, 0), rebuilt.key(&epoll, 0));
    }

    /// The promise: a torn line is not a visit, and does not hide the others.
    #[test]
    fn a_torn_line_is_not_there() {
        assert!(read("{\"key\": \"torn").is_empty());
        assert!(read("\n\n{}\n").is_empty());
    }

    /// The promise: it is the hash that everybody else calls FNV-1a.
    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!((fnv_1a(b""), fnv_1a(b"a")), (0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c));
    }
}
