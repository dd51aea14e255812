//! What a sweep comes to, in three lines: throughput, CPU time and latency of disrust beside the best of the others.
//!
//! Invariants: there are always three lines; what was not measured, or is not valid, is said and never left out.

use super::figures::{Figure, PointFigures};
use super::plan::Pacing;
use super::tables::{Results, count_of, name};
use crate::args::{ServerKind, Wait};
use crate::output::text::time;

/// Which is better.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

/// The three lines.
pub fn conclusion(results: &Results<'_>) -> [String; 3] {
    let (connections, window, vectors) = results.base;
    let load = format!("{connections} connections, window {window}, {}", count_of(vectors, "vector"));
    let closed: Vec<&PointFigures> = results.points.iter().filter(|point| results.is_base(&point.point)).collect();
    let thousands = |rate: f64| format!("{:.1}k requests/s", rate / 1e3);
    let micros = |ns: f64| format!("{:.3} µs", ns / 1e3);
    [
        format!("throughput at {load}: {}", beside(&closed, Figure::RequestsPerSecond, Better::More, thousands)),
        format!("server CPU a request at {load}: {}", beside(&closed, Figure::ServerCpuNs, Better::Less, micros)),
        latency(results.points),
    ]
}

/// p99 at the load nearest to half of the capacity: where a server is that is neither idle nor full.
fn latency(points: &[PointFigures]) -> String {
    let loads = points.iter().filter_map(|point| match point.point.pacing {
        Pacing::Open { fraction, .. } => Some((fraction, point)),
        Pacing::Closed { .. } => None,
    });
    let loads: Vec<(f64, &PointFigures)> = loads.collect();
    let from_half = |fraction: f64| (fraction - 0.5).abs();
    let nearest = loads.iter().map(|(fraction, _)| *fraction);
    let Some(nearest) = nearest.min_by(|first, second| from_half(*first).total_cmp(&from_half(*second))) else {
        return "p99 in the open loop: not measured".to_owned();
    };
    let shown: Vec<&PointFigures> =
        loads.iter().filter(|(fraction, _)| *fraction == nearest).map(|(_, point)| *point).collect();
    format!("p99 at {:.0} % of capacity: {}", nearest * 100.0, beside(&shown, Figure::P99, Better::Less, time))
}

/// The best disrust and the best of the others by `figure`, with the ratio of the two.
fn beside(points: &[&PointFigures], figure: Figure, better: Better, show: impl Fn(f64) -> String) -> String {
    let best = |is_disrust: bool| {
        let candidates = points.iter().filter(|point| {
            point.is_valid()
                && point.point.server.wait == Wait::Auto
                && (point.point.server.kind == ServerKind::Disrust) == is_disrust
        });
        let figures = candidates.filter_map(|point| Some((point.get(figure)?.median, *point)));
        figures.reduce(|first, second| match better {
            Better::More if second.0 > first.0 => second,
            Better::Less if second.0 < first.0 => second,
            _ => first,
        })
    };
    let told = |(value, point): (f64, &PointFigures)| format!("{} {}", name(point), show(value));
    match (best(true), best(false)) {
        (Some(disrust), Some(other)) => {
            format!("{}, {} ({:.2} ×)", told(disrust), told(other), disrust.0 / other.0)
        }
        (Some(disrust), None) => format!("{}; no other server with a valid point", told(disrust)),
        (None, Some(other)) => format!("no valid point of disrust; {}", told(other)),
        (None, None) if points.is_empty() => "not measured".to_owned(),
        (None, None) => "no point is valid".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{point, visit};
    use super::super::machine::Machine;
    use super::super::tables::tests::environment;
    use super::*;

    fn figures(kind: ServerKind, pacing: Pacing, rate: f64) -> PointFigures {
        let point = point(kind, pacing);
        PointFigures::of(point, &[&visit(point, 0, rate)], &Machine::here(Some(1)))
    }

    fn lines(points: &[PointFigures]) -> [String; 3] {
        let environment = environment();
        conclusion(&Results { points, base: (64, 16, 1), environment: &environment, command: "scripts/sweep.sh" })
    }

    /// The promise: disrust stands beside the best of the others, by the right end of each figure, and a load that is
    /// nearest to half.
    #[test]
    fn the_best_stand_beside_each_other() {
        let closed = Pacing::Closed { window: 16 };
        let open = |fraction: f64| Pacing::Open { fraction, rate_per_second: 1e5 * fraction };
        let told = lines(&[
            figures(ServerKind::Disrust, closed, 9e5),
            figures(ServerKind::Epoll, closed, 5e5),
            figures(ServerKind::Uring, closed, 1e6),
            figures(ServerKind::Disrust, open(0.1), 1e4),
            figures(ServerKind::Disrust, open(0.6), 6e4),
            figures(ServerKind::Tokio, open(0.6), 6e4),
        ]);
        assert_eq!(
            told,
            [
                "throughput at 64 connections, window 16, 1 vector: disrust, 1 I/O thread 900.0k requests/s, io_uring floor \
             1000.0k requests/s (0.90 ×)",
                "server CPU a request at 64 connections, window 16, 1 vector: disrust, 1 I/O thread 1.111 µs, io_uring floor \
             1.000 µs (1.11 ×)",
                "p99 at 60 % of capacity: disrust, 1 I/O thread 30.0us, tokio, 1 thread 30.0us (1.00 ×)",
            ]
        );
    }

    /// The promise: nothing is concluded from what was not measured, or not by its client.
    #[test]
    fn nothing_is_concluded_from_nothing() {
        assert!(lines(&[]).iter().all(|line| line.ends_with(": not measured")));
        let closed = Pacing::Closed { window: 16 };
        let mut invalid = figures(ServerKind::Disrust, closed, 9e5);
        invalid.invalid_visits = 1;
        let [throughput, ..] = lines(&[invalid.clone()]);
        assert!(throughput.ends_with(": no point is valid"), "{throughput}");
        let [throughput, ..] = lines(&[invalid, figures(ServerKind::Epoll, closed, 5e5)]);
        assert!(throughput.ends_with(": no valid point of disrust; epoll floor 500.0k requests/s"), "{throughput}");
    }
}
