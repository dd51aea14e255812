//! What a sweep measures, and in which order: pure, from the command line and the CPUs to points and visits.
//!
//! A point is a server under a load; a visit is one measurement of it. All points are visited once before any is visited
//! again, so that a machine that changes with time changes all of them alike; the servers of one load stand next to each
//! other, so that what is compared was measured within seconds.
//!
//! Invariants: every point is there once; the same command on the same CPUs gives the same points in the same order.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::args::{IO_THREADS_MAX, ServerKind, SweepPlan, Wait};

/// The load at which I/O threads and wait strategies are compared: many connections, several requests a turn, and the
/// smallest answer, so that input and output are all there is.
const CONNECTIONS: u32 = 64;
const WINDOW: u32 = 16;
const VECTORS: u32 = 1;

/// I/O thread counts of a quick sweep. More: over two minutes on a large machine.
const QUICK_THREAD_COUNTS_MAX: usize = 3;

/// A server as it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Server {
    /// Which.
    pub kind: ServerKind,
    /// I/O threads of disrust; for another server, of the disrust that it has the same CPUs as.
    pub io_threads: u32,
    /// How the threads of disrust wait.
    pub wait: Wait,
}

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pacing {
    /// At most `window` requests of a connection under way.
    Closed {
        /// The window.
        window: u32,
    },
    /// On a Poisson schedule.
    Open {
        /// Of the capacity that was measured.
        fraction: f64,
        /// What that comes to.
        rate_per_second: f64,
    },
}

/// A server under a load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The server.
    pub server: Server,
    /// How requests are sent.
    pub pacing: Pacing,
    /// Over so many connections.
    pub connections: u32,
    /// Vectors of each request.
    pub vectors: u32,
}

/// Everything that is measured, before the capacity is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    kinds: Vec<ServerKind>,
    io_threads: Vec<u32>,
    connections: Vec<u32>,
    windows: Vec<u32>,
    vectors: Vec<u32>,
    waits: Vec<Wait>,
    fractions: Vec<f64>,
    /// Visits of each point.
    pub repeats: u32,
    /// The measured time in the closed loop.
    pub duration: Duration,
    /// Before the measured time.
    pub warmup: Duration,
}

impl Grid {
    /// What `plan` asks for; what it leaves out follows from the `cpus`.
    pub fn new(plan: &SweepPlan, cpus: usize) -> Grid {
        let or = |asked: &[u32], quick: &[u32], full: &[u32]| match asked {
            [] if plan.quick => quick.to_vec(),
            [] => full.to_vec(),
            asked => without_repeats(asked),
        };
        let counts = thread_counts(cpus);
        let fractions: &[f64] = match plan.fractions.as_slice() {
            _ if plan.closed_only => &[],
            [] if plan.quick => &[0.2, 0.5, 0.8],
            [] => &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1],
            asked => asked,
        };
        let waits: &[Wait] = match plan.wait.as_slice() {
            [] if plan.quick => &[],
            [] => &[Wait::Auto, Wait::Park, Wait::Yield, Wait::Spin],
            asked => asked,
        };
        let milliseconds = |asked: Option<Duration>, quick, full| {
            asked.unwrap_or(Duration::from_millis(if plan.quick { quick } else { full }))
        };
        Grid {
            kinds: without_repeats(&plan.servers),
            io_threads: or(&plan.io_threads, &fewer(&counts), &counts),
            connections: or(&plan.connections, &[CONNECTIONS], &[1, 16, CONNECTIONS, 256]),
            windows: or(&plan.window, &[1, WINDOW], &[1, WINDOW, 64]),
            vectors: or(&plan.vectors, &[VECTORS, 64], &[VECTORS, 8, 64]),
            waits: without_repeats(waits),
            fractions: without_repeats(fractions),
            repeats: plan.repeats.unwrap_or(if plan.quick { 2 } else { 5 }),
            duration: milliseconds(plan.duration, 400, 1000),
            warmup: milliseconds(plan.warmup, 100, 300),
        }
    }

    /// The load at which servers of different sizes are compared.
    pub fn base(&self) -> (u32, u32, u32) {
        (pick(&self.connections, CONNECTIONS), pick(&self.windows, WINDOW), pick(&self.vectors, VECTORS))
    }

    /// All points of the closed loop: servers next to each other, loads one after the other, wait strategies at the end.
    pub fn closed(&self) -> Vec<Point> {
        let servers = self.servers();
        let mut points = Vec::new();
        for &vectors in &self.vectors {
            for &connections in &self.connections {
                for &window in &self.windows {
                    let pacing = Pacing::Closed { window };
                    points.extend(servers.iter().map(|&server| Point { server, pacing, connections, vectors }));
                }
            }
        }
        let (connections, window, vectors) = self.base();
        for &wait in self.waits.iter().filter(|_| self.kinds.contains(&ServerKind::Disrust)) {
            for &io_threads in &self.io_threads {
                let server = Server { kind: ServerKind::Disrust, io_threads, wait };
                let point = Point { server, pacing: Pacing::Closed { window }, connections, vectors };
                if !points.contains(&point) {
                    points.push(point);
                }
            }
        }
        points
    }

    /// All points of the open loop, by what the closed loop has shown to be the capacity; `None` only counts.
    pub fn open(&self, capacity_per_second: Option<f64>) -> Vec<Point> {
        let capacity = round_to_two_digits(capacity_per_second.unwrap_or(1.0));
        let (connections, _, vectors) = self.base();
        let smallest = self.io_threads.first().copied().unwrap_or(1);
        let servers = self.servers().into_iter().filter(|server| server.io_threads == smallest);
        let servers: Vec<Server> = servers.collect();
        let at = |&fraction: &f64| Pacing::Open { fraction, rate_per_second: capacity * fraction };
        let pacings = self.fractions.iter().map(at);
        pacings
            .flat_map(|pacing| servers.iter().map(move |&server| Point { server, pacing, connections, vectors }))
            .collect()
    }

    /// Whether the capacity for the open loop is that of `point`: the load of the open loop, one request at a time.
    pub fn shows_capacity(&self, point: &Point) -> bool {
        let (connections, _, vectors) = self.base();
        let window = self.windows.iter().copied().min().unwrap_or(1);
        let smallest = self.io_threads.first().copied().unwrap_or(1);
        point.pacing == Pacing::Closed { window }
            && (point.connections, point.vectors) == (connections, vectors)
            && point.server.io_threads == smallest
            && point.server.wait == Wait::Auto
    }

    /// Every server that is compared. Those of one thread are the same whatever disrust has.
    fn servers(&self) -> Vec<Server> {
        let wait = Wait::Auto;
        let mut servers = Vec::new();
        for (index, &io_threads) in self.io_threads.iter().enumerate() {
            for &kind in &self.kinds {
                let grows = matches!(kind, ServerKind::Disrust | ServerKind::Tokio);
                if grows || index == 0 {
                    servers.push(Server { kind, io_threads, wait });
                }
            }
        }
        servers
    }
}

/// The order of visits: round after round, each over all points.
pub fn rounds(points: &[Point], repeats: u32) -> impl Iterator<Item = (u32, Point)> {
    (0..repeats).flat_map(|round| points.iter().map(move |&point| (round, point)))
}

/// 1, 2, 4, … up to one less than the CPUs, which is there too; on two CPUs 1 and 2.
fn thread_counts(cpus: usize) -> Vec<u32> {
    let most = match cpus {
        0 | 1 => 1,
        2 => 2,
        more => u32::try_from(more - 1).map_or(IO_THREADS_MAX, |most| most.min(IO_THREADS_MAX)),
    };
    let mut counts: Vec<u32> =
        std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|&c| c < most).collect();
    counts.push(most);
    counts
}

/// The first and the last of `counts`.
fn fewer(counts: &[u32]) -> Vec<u32> {
    match counts {
        [first, .., last] if counts.len() > QUICK_THREAD_COUNTS_MAX => vec![*first, counts[1], *last],
        few => few.to_vec(),
    }
}

/// `wanted` if it is there, else the last of `from`.
fn pick(from: &[u32], wanted: u32) -> u32 {
    if from.contains(&wanted) { wanted } else { from.last().copied().unwrap_or(wanted) }
}

fn without_repeats<T: Copy + PartialEq>(list: &[T]) -> Vec<T> {
    list.iter().enumerate().filter(|(index, item)| !list[..*index].contains(item)).map(|(_, item)| *item).collect()
}

/// Rates that people can read, and that are the same again when a capacity is measured again and is nearly the same.
fn round_to_two_digits(rate: f64) -> f64 {
    let unit = 10_f64.powf(rate.max(1.0).log10().floor() - 1.0);
    (rate / unit).round() * unit
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Server { kind, io_threads, wait } = self;
        match kind {
            ServerKind::Disrust => write!(formatter, "disrust io-threads={io_threads} wait={wait}"),
            kind => write!(formatter, "{} beside io-threads={io_threads}", kind.name()),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Point { server, pacing, connections, vectors } = self;
        write!(formatter, "{server}, connections={connections} vectors={vectors} ")?;
        match pacing {
            Pacing::Closed { window } => write!(formatter, "window={window}"),
            Pacing::Open { rate_per_second, .. } => write!(formatter, "rate={rate_per_second:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Mode};

    fn grid(words: &str, cpus: usize) -> Grid {
        let arguments = Arguments::read(format!("client sweep {words}").split_whitespace());
        let Some(Mode::Sweep(plan)) = arguments.expect("a valid command line").mode else { panic!("no sweep") };
        Grid::new(&plan, cpus)
    }

    /// The promise: the same command gives the scaling curve of the machine that it runs on.
    #[test]
    fn thread_counts_follow_from_the_cpus() {
        for (cpus, counts) in
            [(1, vec![1]), (2, vec![1, 2]), (3, vec![1, 2]), (4, vec![1, 2, 3]), (16, vec![1, 2, 4, 8, 15])]
        {
            assert_eq!(thread_counts(cpus), counts, "{cpus}");
        }
        assert_eq!(thread_counts(512).last(), Some(&IO_THREADS_MAX));
        assert_eq!(grid("--quick", 64).io_threads, [1, 2, 63]);
        assert_eq!(grid("--io-threads 3,3,5", 64).io_threads, [3, 5]);
    }

    /// The promise: no point is visited again before all were visited, and what is compared stands together.
    #[test]
    fn visits_are_interleaved() {
        let points = grid("--quick", 2).closed();
        let visits: Vec<(u32, Point)> = rounds(&points, 3).collect();
        assert_eq!(visits.len(), 3 * points.len());
        for (round, visited) in visits.chunks(points.len()).enumerate() {
            assert!(visited.iter().all(|(number, _)| *number as usize == round));
            assert!(visited.iter().map(|(_, point)| *point).eq(points.iter().copied()));
        }
        let servers = ["disrust io-threads=1", "epoll", "uring", "tokio", "disrust io-threads=2", "tokio"];
        for (point, server) in points.iter().zip(servers) {
            assert!(point.to_string().starts_with(server), "{point}");
            assert_eq!((point.pacing, point.connections), (points[0].pacing, points[0].connections));
        }
    }

    /// The promise: every point is there once, with wait strategies at one load only.
    #[test]
    fn points_are_there_once() {
        for words in ["", "--quick", "--wait auto,spin", "--window 4 --connections 2 --vectors 3"] {
            let grid = grid(words, 4);
            let points: Vec<Point> = grid.closed().into_iter().chain(grid.open(Some(123_456.0))).collect();
            for (index, point) in points.iter().enumerate() {
                assert!(!points[..index].contains(point), "{words}: {point}");
            }
            assert!(points.iter().any(|point| grid.shows_capacity(point)), "{words}");
        }
        assert_eq!(grid("--wait spin --servers epoll", 2).closed(), grid("--servers epoll", 2).closed());
        assert!(grid("--closed-only", 2).open(Some(1e5)).is_empty());
    }

    /// The promise: rates are round shares of the capacity, the same for every server.
    #[test]
    fn rates_are_shares_of_the_capacity() {
        let points = grid("--fractions 0.5,1", 2).open(Some(123_456.0));
        assert_eq!(points.len(), 2 * 4);
        let rates: Vec<f64> = points
            .iter()
            .filter_map(|point| match point.pacing {
                Pacing::Open { rate_per_second, .. } => Some(rate_per_second),
                Pacing::Closed { .. } => None,
            })
            .collect();
        assert_eq!(rates, [60_000.0, 60_000.0, 60_000.0, 60_000.0, 120_000.0, 120_000.0, 120_000.0, 120_000.0]);
        assert_eq!((round_to_two_digits(12.4), round_to_two_digits(98_765.0)), (12.0, 99_000.0));
    }
}
