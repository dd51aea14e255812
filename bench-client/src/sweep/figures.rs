//! From visits to the figures of a point: each as median, smallest and largest of its rounds, and what to beware of.
//!
//! Invariants: a figure's unit is in its name; a figure that no visit has is absent, never 0; a point is marked if any of
//! its visits deserves the mark.

use super::journal::Visit;
use super::machine::Machine;
use super::plan::{Pacing, Point};
use super::server::threads;
use crate::summary::{Spread, TimesNs};

/// The share of its time that a client's thread may be busy in the closed loop. Above, the client may be what limits.
const CLIENT_BUSY_SHARE_MAX: f64 = 0.95;

/// What a point comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Answers a second.
    RequestsPerSecond,
    /// CPU time of the server, an answer.
    ServerCpuNs,
    /// CPU time of the server for each turn in which a connection brought answers.
    ServerTurnNs,
    /// Answers that arrived together.
    RequestsPerTurn,
    /// Response time (open loop) or service time (closed loop).
    P50,
    /// The same.
    P90,
    /// The same.
    P99,
    /// The same.
    P999,
    /// Memory of the server.
    ResidentBytes,
    /// Of the server, an answer.
    ContextSwitches,
    /// The part of the time in which the client's threads had something to do.
    ClientBusyShare,
    /// The share of the CPUs that others used.
    OthersShare,
}

/// All of them, with their names in files.
pub const FIGURES: [(Figure, &str); 12] = [
    (Figure::RequestsPerSecond, "requests_per_second"),
    (Figure::ServerCpuNs, "server_cpu_ns_per_request"),
    (Figure::ServerTurnNs, "server_cpu_ns_per_turn"),
    (Figure::RequestsPerTurn, "requests_per_turn"),
    (Figure::P50, "ns_p50"),
    (Figure::P90, "ns_p90"),
    (Figure::P99, "ns_p99"),
    (Figure::P999, "ns_p99_9"),
    (Figure::ResidentBytes, "server_resident_bytes"),
    (Figure::ContextSwitches, "server_context_switches_per_request"),
    (Figure::ClientBusyShare, "client_busy_share"),
    (Figure::OthersShare, "others_cpu_share"),
];

impl Figure {
    fn of(self, visit: &Visit) -> Option<f64> {
        let repeat = &visit.repeat;
        let time = |pick: fn(&TimesNs) -> u64| {
            let times = match visit.point.pacing {
                Pacing::Open { .. } => repeat.response_ns.as_ref(),
                Pacing::Closed { .. } => repeat.service_ns.as_ref(),
            };
            times.map(|times| pick(times) as f64)
        };
        match self {
            Figure::RequestsPerSecond => Some(repeat.achieved_per_second),
            Figure::ServerCpuNs => repeat.server_cpu_ns_per_request,
            Figure::ServerTurnNs => Some(repeat.server_cpu_ns_per_request? * repeat.requests_per_turn?),
            Figure::RequestsPerTurn => repeat.requests_per_turn,
            Figure::P50 => time(|times| times.p50),
            Figure::P90 => time(|times| times.p90),
            Figure::P99 => time(|times| times.p99),
            Figure::P999 => time(|times| times.p99_9),
            Figure::ResidentBytes => visit.resident_bytes.map(|bytes| bytes as f64),
            Figure::ContextSwitches => visit.context_switches_per_request,
            Figure::ClientBusyShare => Some(repeat.client_busy_share),
            Figure::OthersShare => repeat.others_cpu_share,
        }
    }
}

/// A point and everything that was measured there.
#[derive(Debug, Clone, PartialEq)]
pub struct PointFigures {
    /// The point.
    pub point: Point,
    /// Visits.
    pub visits: u32,
    /// Those in which the client was too slow to measure.
    pub invalid_visits: u32,
    /// When the first and the last of them were, in seconds since 1970.
    pub measured_at_unix_seconds: Option<(u64, u64)>,
    /// Requests without an answer, in all visits.
    pub lost: u64,
    /// Threads of the server that serve.
    pub server_threads: u32,
    /// Whether they and the client's are more than there are CPUs.
    pub threads_outnumber_cpus: bool,
    /// Whether the client's threads had hardly a moment's rest in the closed loop: the server may do more.
    pub client_bound: bool,
    spreads: [Option<Spread>; FIGURES.len()],
}

impl PointFigures {
    /// Of `visits`, which are all of `point`.
    pub fn of(point: Point, visits: &[&Visit], machine: &Machine) -> PointFigures {
        let server_threads = threads(&point.server, machine);
        let is_closed = matches!(point.pacing, Pacing::Closed { .. });
        let count = |condition: fn(&Visit) -> bool| {
            u32::try_from(visits.iter().filter(|visit| condition(visit)).count()).unwrap_or(u32::MAX)
        };
        let busy = |visit: &&Visit| visit.repeat.client_busy_share > CLIENT_BUSY_SHARE_MAX;
        let spread = |figure: Figure| Spread::of(visits.iter().filter_map(|visit| figure.of(visit)));
        PointFigures {
            point,
            visits: count(|_| true),
            invalid_visits: count(|visit| !visit.repeat.valid),
            measured_at_unix_seconds: first_and_last(visits),
            lost: visits.iter().map(|visit| visit.repeat.lost).sum(),
            server_threads,
            threads_outnumber_cpus: (server_threads + machine.client_threads) as usize > machine.cpu_count(),
            client_bound: is_closed && visits.iter().any(busy),
            spreads: FIGURES.map(|(figure, _)| spread(figure)),
        }
    }

    /// The spread of `figure`, if it was measured.
    pub fn get(&self, figure: Figure) -> Option<Spread> {
        FIGURES.iter().zip(&self.spreads).find(|((listed, _), _)| *listed == figure).and_then(|(_, spread)| *spread)
    }

    /// Every figure by its name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, Option<Spread>)> {
        FIGURES.iter().zip(&self.spreads).map(|((_, name), spread)| (*name, *spread))
    }

    /// Whether no visit was too slow to measure and no answer is missing.
    pub fn is_valid(&self) -> bool {
        self.invalid_visits == 0 && self.lost == 0
    }
}

fn first_and_last(visits: &[&Visit]) -> Option<(u64, u64)> {
    let at = || visits.iter().map(|visit| visit.measured_at_unix_seconds);
    at().min().zip(at().max())
}

#[cfg(test)]
pub mod tests {
    use super::super::plan::Server;
    use super::*;
    use crate::args::{ServerKind, Wait};
    use crate::load::error_answers::ErrorAnswers;
    use crate::summary::Repeat;

    /// A visit as others' tests need it: `rate` answers a second, and other figures that follow from it.
    pub fn visit(point: Point, round: u32, rate: f64) -> Visit {
        let times = |factor: u64| TimesNs {
            count: 100,
            min: factor,
            mean: 2.0,
            p50: 10 * factor,
            p90: 20 * factor,
            p99: 30 * factor,
            p99_9: 40 * factor,
            p99_99: 50 * factor,
            max: 60 * factor,
        };
        let repeat = Repeat {
            valid: true,
            invalid_reasons: Vec::new(),
            invalid_cause: None,
            offered_per_second: None,
            achieved_per_second: rate,
            vectors_per_second: rate,
            answered: 100,
            errors: ErrorAnswers::default(),
            error_share: 0.0,
            lost: 0,
            unsent: 0,
            held_back: 0,
            requests_per_turn: Some(4.0),
            response_ns: Some(times(1000)),
            service_ns: Some(times(2000)),
            schedule_lag_ns: None,
            connect_ns: None,
            client_cpu_ns_per_request: 1.0,
            client_cpu_share: 0.5,
            client_busy_share: 0.5,
            server_cpu_ns_per_request: Some(1e9 / rate),
            server_cpu_share: None,
            server_threads: Vec::new(),
            slow_answers: 0,
            server_figures: None,
            others_cpu_share: Some(0.0),
            reconnects: None,
            cut_off: None,
        };
        Visit {
            key: format!("{point} {round}"),
            point,
            round,
            measured_at_unix_seconds: 86_400 * u64::from(round),
            repeat,
            resident_bytes: Some(5 << 20),
            context_switches_per_request: Some(0.25),
        }
    }

    /// A point as others' tests need it.
    pub fn point(kind: ServerKind, pacing: Pacing) -> Point {
        Point { server: Server { kind, io_threads: 1, wait: Wait::Auto }, pacing, connections: 64, vectors: 1 }
    }

    /// The promise: a figure is the median of the visits with its extremes, and a turn costs what its requests cost.
    #[test]
    fn figures_are_spreads_of_visits() {
        let point = point(ServerKind::Disrust, Pacing::Closed { window: 16 });
        let visits = [5e5, 1e6, 2e6].map(|rate| visit(point, 0, rate));
        let machine = Machine::here(Some(1));
        let figures = PointFigures::of(point, &visits.iter().collect::<Vec<_>>(), &machine);
        assert_eq!(figures.get(Figure::RequestsPerSecond), Some(Spread { min: 5e5, median: 1e6, max: 2e6 }));
        assert_eq!(figures.get(Figure::ServerTurnNs), Some(Spread { min: 2000.0, median: 4000.0, max: 8000.0 }));
        assert_eq!(figures.get(Figure::P99).map(|spread| spread.median), Some(60_000.0), "of the service time");
        assert_eq!(figures.all().count(), FIGURES.len());
        assert!(figures.is_valid() && !figures.client_bound);
    }

    /// The promise: one bad visit marks its point.
    #[test]
    fn one_bad_visit_marks_its_point() {
        let machine = Machine::here(Some(1));
        let of = |point: Point, spoil: fn(&mut Visit)| {
            let (good, mut bad) = (visit(point, 0, 1e6), visit(point, 1, 1e6));
            spoil(&mut bad);
            PointFigures::of(point, &[&good, &bad], &machine)
        };
        let open = point(ServerKind::Epoll, Pacing::Open { fraction: 0.5, rate_per_second: 1e5 });
        let closed = point(ServerKind::Epoll, Pacing::Closed { window: 1 });
        assert_eq!(of(open, |visit| visit.repeat.valid = false).invalid_visits, 1);
        assert!(!of(open, |visit| visit.repeat.lost = 3).is_valid());
        assert!(of(closed, |visit| visit.repeat.client_busy_share = 0.99).client_bound);
        assert!(!of(open, |visit| visit.repeat.client_busy_share = 0.99).client_bound, "the verdict says it there");
        let figures = of(closed, |visit| visit.resident_bytes = None);
        assert_eq!(figures.get(Figure::ResidentBytes).map(|spread| spread.min), Some((5 << 20) as f64));
    }
}
