//! The tables of a sweep, as Markdown: each says what the machine was and which command gives it again.
//!
//! Invariants: a figure is `median (smallest..largest)` of its repeats; a point that deserves a mark has it in every
//! table, and every mark that a table has is explained below it; what was not measured has no table.

use std::fmt::Write as _;

use super::figures::{Figure, PointFigures};
use super::plan::{Pacing, Point, Server};
use crate::args::{ServerKind, Wait};
use crate::environment::{Environment, date};
use crate::summary::{Spread, others_in_words};

/// Everything that there is to tell.
pub struct Results<'a> {
    /// All points, in the order of the plan.
    pub points: &'a [PointFigures],
    /// Connections, window and vectors at which servers of different sizes are compared.
    pub base: (u32, u32, u32),
    /// Where it was measured.
    pub environment: &'a Environment,
    /// The command that gives it again.
    pub command: &'a str,
}

const OUTNUMBER: &str = "†";
const CLIENT_BOUND: &str = "‡";
const INVALID: &str = "✗";

/// What the marks say.
const MARKS: [(&str, &str); 3] = [
    (OUTNUMBER, "the threads of server and client outnumber the CPUs, so they take turns"),
    (CLIENT_BOUND, "the client was busy all the time: the server may do more"),
    (INVALID, "not valid: the client could not keep its schedule, or answers are missing"),
];

impl Results<'_> {
    /// Every table by the name of its marker; `None` where nothing was measured.
    pub fn tables(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("scaling", self.scaling()),
            ("throughput", self.by_load("requests/s", |point| thousands(point.get(Figure::RequestsPerSecond)))),
            ("cpu", self.by_load("server CPU a request in µs", |point| micros(point.get(Figure::ServerCpuNs), 3))),
            ("wait", self.wait()),
            ("latency", self.latency()),
        ]
    }

    fn scaling(&self) -> Option<String> {
        let at_base = |point: &&PointFigures| self.is_base(&point.point) && point.point.server.wait == Wait::Auto;
        let rows = self.points.iter().filter(at_base).map(|point| (point, closed_cells(point, &name(point))));
        self.table(&self.base_title(), &closed_head("server"), rows.collect())
    }

    fn wait(&self) -> Option<String> {
        let of_disrust =
            |point: &&PointFigures| self.is_base(&point.point) && point.point.server.kind == ServerKind::Disrust;
        let points: Vec<&PointFigures> = self.points.iter().filter(of_disrust).collect();
        let compared = points.iter().any(|point| point.point.server.wait != Wait::Auto);
        let row = |point: &&PointFigures| format!("{}, `--wait {}`", name(point), point.point.server.wait);
        let mut rows: Vec<_> = points.iter().map(|point| (*point, closed_cells(point, &row(point)))).collect();
        rows.sort_by_key(|(point, _)| (point.point.server.io_threads, point.point.server.wait));
        self.table(&self.base_title(), &closed_head("server"), if compared { rows } else { Vec::new() })
    }

    /// A line for each load of the closed loop, a column for each server at its smallest.
    fn by_load(&self, what: &str, cell: impl Fn(&PointFigures) -> String) -> Option<String> {
        let smallest = self.points.iter().map(|point| point.point.server.io_threads).min();
        let is_shown = |point: &&PointFigures| {
            Some(point.point.server.io_threads) == smallest
                && point.point.server.wait == Wait::Auto
                && matches!(point.point.pacing, Pacing::Closed { .. })
        };
        let shown: Vec<&PointFigures> = self.points.iter().filter(is_shown).collect();
        let mut servers: Vec<Server> = shown.iter().map(|point| point.point.server).collect();
        servers.sort_unstable();
        servers.dedup();
        let name_of = |server: &Server| {
            shown.iter().find(|point| point.point.server == *server).map_or_else(String::new, |point| name(point))
        };
        let head = ["vectors", "connections", "window"].map(str::to_owned).into_iter();
        let head: Vec<String> = head.chain(servers.iter().map(name_of)).collect();
        let mut rows: Vec<(&PointFigures, Vec<String>)> = Vec::new();
        for load in shown.chunk_by(|first, second| load(&first.point) == load(&second.point)) {
            let mut cells: Vec<String> = load_cells(&load[0].point).into();
            for server in &servers {
                let point = load.iter().find(|point| point.point.server == *server);
                cells.push(point.map_or_else(String::new, |point| format!("{}{}", cell(point), marks(point))));
            }
            rows.push((load[0], cells));
        }
        self.table(&format!("{what}, closed loop"), &head, rows)
    }

    fn latency(&self) -> Option<String> {
        let head = ["of capacity", "offered/s", "server", "achieved/s", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs"];
        let head = head.iter().chain(&["server CPU a request, µs", "switches a request", "verdict"]);
        let mut rows = Vec::new();
        for point in self.points {
            let Pacing::Open { fraction, rate_per_second } = point.point.pacing else { continue };
            let time = |figure| micros(point.get(figure), 1);
            let cells = vec![
                format!("{:.0} %", fraction * 100.0),
                format!("{:.1}k", rate_per_second / 1e3),
                format!("{}{}", name(point), marks(point)),
                thousands(point.get(Figure::RequestsPerSecond)),
                time(Figure::P50),
                time(Figure::P90),
                time(Figure::P99),
                time(Figure::P999),
                micros(point.get(Figure::ServerCpuNs), 2),
                plain(point.get(Figure::ContextSwitches), 1.0, 3),
                verdict(point),
            ];
            rows.push((point, cells));
        }
        let (connections, _, vectors) = self.base;
        let vectors = count_of(vectors, "vector");
        self.table(
            &format!(
                "{connections} connections, {vectors} a request, open loop: response time from the intended \
                 send time, Poisson arrivals"
            ),
            &head.map(|name| (*name).to_owned()).collect::<Vec<_>>(),
            rows,
        )
    }

    fn base_title(&self) -> String {
        let (connections, window, vectors) = self.base;
        format!("{connections} connections, window {window}, {} a request, closed loop", count_of(vectors, "vector"))
    }

    /// Whether `point` is at the load at which servers of different sizes are compared.
    pub fn is_base(&self, point: &Point) -> bool {
        let (connections, window, vectors) = self.base;
        (point.connections, point.vectors) == (connections, vectors) && point.pacing == Pacing::Closed { window }
    }

    /// The lines of one table, with what was measured, how and where, and the marks that are in it.
    fn table(&self, title: &str, head: &[String], rows: Vec<(&PointFigures, Vec<String>)>) -> Option<String> {
        if rows.is_empty() {
            return None;
        }
        let mut text = format!("{title}.\n\n{}{}", line(head), line(&vec!["---".to_owned(); head.len()]));
        rows.iter().for_each(|(_, cells)| text += &line(cells));
        let repeats = rows.iter().map(|(point, _)| point.visits).min().unwrap_or(0);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n{}, {}, client on the same machine; median (smallest..largest) of {repeats} interleaved runs; {}. \
             Again: `{}`.\n",
            self.environment.machine(),
            days(rows.iter().map(|(point, _)| *point)),
            self.others(),
            self.command
        );
        for (mark, meaning) in MARKS.iter().filter(|(mark, _)| text.contains(mark)).collect::<Vec<_>>() {
            let _ = writeln!(text, "{mark} {meaning}.");
        }
        Some(text)
    }

    /// How quiet the machine was.
    fn others(&self) -> String {
        let spreads = self.points.iter().filter_map(|point| point.get(Figure::OthersShare));
        others_in_words(spreads.map(|spread| spread.median))
    }
}

/// When `points` were measured.
pub fn days<'a>(points: impl IntoIterator<Item = &'a PointFigures>) -> String {
    let at: Vec<(u64, u64)> = points.into_iter().filter_map(|point| point.measured_at_unix_seconds).collect();
    let first = at.iter().map(|(first, _)| *first).min().map(date);
    let last = at.iter().map(|(_, last)| *last).max().map(date);
    match (first, last) {
        (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
        (first, _) => first.unwrap_or_else(|| "at an unknown time".to_owned()),
    }
}

fn closed_head(first: &str) -> Vec<String> {
    let names = [first, "requests/s", "server CPU a request, µs", "a connection turn, µs", "requests a turn"];
    let times = ["p50 µs", "p90 µs", "p99 µs", "p99.9 µs", "switches a request", "RSS, MiB"];
    names.iter().chain(&times).map(|name| (*name).to_owned()).collect()
}

fn closed_cells(point: &PointFigures, name: &str) -> Vec<String> {
    let time = |figure| micros(point.get(figure), 0);
    vec![
        format!("{name}{}", marks(point)),
        thousands(point.get(Figure::RequestsPerSecond)),
        micros(point.get(Figure::ServerCpuNs), 3),
        micros(point.get(Figure::ServerTurnNs), 2),
        plain(point.get(Figure::RequestsPerTurn), 1.0, 1),
        time(Figure::P50),
        time(Figure::P90),
        time(Figure::P99),
        time(Figure::P999),
        plain(point.get(Figure::ContextSwitches), 1.0, 3),
        plain(point.get(Figure::ResidentBytes), 1.0 / f64::from(1 << 20), 1),
    ]
}

/// What a server is called: by its threads where it may have several.
pub fn name(point: &PointFigures) -> String {
    let server = point.point.server;
    match server.kind {
        ServerKind::Disrust => format!("disrust, {}", count_of(server.io_threads, "I/O thread")),
        ServerKind::Epoll => "epoll floor".to_owned(),
        ServerKind::Uring => "io_uring floor".to_owned(),
        ServerKind::Tokio => format!("tokio, {}", count_of(point.server_threads, "thread")),
    }
}

/// `1 thread`, `2 threads`.
pub fn count_of(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn marks(point: &PointFigures) -> String {
    let marks =
        [(point.threads_outnumber_cpus, OUTNUMBER), (point.client_bound, CLIENT_BOUND), (!point.is_valid(), INVALID)];
    let marks: String = marks.iter().filter(|(applies, _)| *applies).map(|(_, mark)| *mark).collect();
    if marks.is_empty() { marks } else { format!(" {marks}") }
}

fn verdict(point: &PointFigures) -> String {
    match (point.invalid_visits, point.lost) {
        (0, 0) => "valid".to_owned(),
        (0, lost) => format!("{lost} requests got no answer"),
        (invalid, _) => format!("INVALID in {invalid} of {} runs", point.visits),
    }
}

fn load(point: &Point) -> (u32, u32, Pacing) {
    (point.vectors, point.connections, point.pacing)
}

fn load_cells(point: &Point) -> [String; 3] {
    let window = match point.pacing {
        Pacing::Closed { window } => window.to_string(),
        Pacing::Open { .. } => String::new(),
    };
    [point.vectors.to_string(), point.connections.to_string(), window]
}

fn thousands(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |Spread { min, median, max }| {
        format!("{:.1}k ({:.1}..{:.1})", median / 1e3, min / 1e3, max / 1e3)
    })
}

fn micros(spread: Option<Spread>, decimals: usize) -> String {
    plain(spread, 1e-3, decimals)
}

fn plain(spread: Option<Spread>, factor: f64, decimals: usize) -> String {
    spread.map_or_else(String::new, |spread| {
        let [min, median, max] = [spread.min, spread.median, spread.max].map(|value| value * factor);
        format!("{median:.decimals$} ({min:.decimals$}..{max:.decimals$})")
    })
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

#[cfg(test)]
pub mod tests {
    use super::super::figures::tests::{point, visit};
    use super::super::machine::Machine;
    use super::*;

    /// A machine as others' tests need it.
    pub fn environment() -> Environment {
        Environment {
            kernel: Some("Linux 6.1".to_owned()),
            cpu_model: Some("A CPU".to_owned()),
            cpus: Some(4),
            cpus_usable: Some(2),
            client_version: "1".to_owned(),
            server_version: None,
            command_line: Vec::new(),
            started_at_unix_seconds: 0,
        }
    }

    fn tables_of(points: &[PointFigures]) -> Vec<(&'static str, Option<String>)> {
        let environment = environment();
        Results { points, base: (64, 16, 1), environment: &environment, command: "scripts/sweep.sh" }.tables()
    }

    fn figures(kind: ServerKind, pacing: Pacing, rates: &[f64]) -> PointFigures {
        let point = point(kind, pacing);
        let visits: Vec<_> = rates.iter().zip(0..).map(|(rate, round)| visit(point, round, *rate)).collect();
        PointFigures::of(point, &visits.iter().collect::<Vec<_>>(), &Machine::here(Some(1)))
    }

    /// The promise: every table says where it was measured, how often and by which command, and explains its marks.
    #[test]
    fn tables_say_what_the_machine_was() {
        let mut disrust = figures(ServerKind::Disrust, Pacing::Closed { window: 16 }, &[9e5, 1e6, 1.2e6]);
        disrust.threads_outnumber_cpus = true;
        let mut epoll = figures(ServerKind::Epoll, Pacing::Closed { window: 16 }, &[5e5; 3]);
        epoll.threads_outnumber_cpus = false;
        let tables = tables_of(&[disrust, epoll]);
        let table = |index: usize| tables[index].1.as_deref().unwrap_or_default();
        for (name, table) in [0, 1, 2].map(|index| (tables[index].0, table(index))) {
            for words in [
                "Linux 6.1, A CPU, 4 CPUs (2 usable), 1970-01-01 to 1970-01-03,",
                "of 3 interleaved",
                "`scripts/sweep.sh`",
                "nothing else ran",
            ] {
                assert!(table.contains(words), "{name}: {words:?} is not in {table}");
            }
            assert!(table.contains("† the threads") && !table.contains(CLIENT_BOUND), "{table}");
        }
        assert!(table(0).contains("| disrust, 1 I/O thread † | 1000.0k (900.0..1200.0) | 1.000 (0.833..1.111) |"));
        assert!(table(1).contains("| 1 | 64 | 16 | 1000.0k (900.0..1200.0) † | 500.0k (500.0..500.0) |"));
        assert_eq!((&tables[3].1, &tables[4].1), (&None, &None), "nothing was measured");
    }

    /// The promise: a point that the client could not measure is never shown without saying so.
    #[test]
    fn invalid_points_are_marked() {
        let pacing = Pacing::Open { fraction: 0.5, rate_per_second: 50_000.0 };
        let (good, mut bad) =
            (figures(ServerKind::Disrust, pacing, &[5e4; 2]), figures(ServerKind::Epoll, pacing, &[5e4; 2]));
        bad.invalid_visits = 1;
        let tables = tables_of(&[good, bad]);
        let latency = tables[4].1.as_deref().expect("it was measured");
        assert!(latency.contains("| 50 % | 50.0k | disrust") && latency.contains("| valid |"), "{latency}");
        assert!(latency.contains("✗") && latency.contains("| INVALID in 1 of 2 runs |"), "{latency}");
    }
}
