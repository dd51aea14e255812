//! The plots of a sweep: throughput and CPU a request against I/O threads, and latency against load.
//!
//! Invariants: a mark is a point's median and the bar through it reaches from its smallest to its largest; what the client
//! could not measure is a cross; servers differ by colour and by mark; points of one load stand side by side.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::figures::{Figure, PointFigures};
use super::plan::Pacing;
use super::tables::{Results, count_of, days};
use crate::args::{ServerKind, Wait};
use crate::output::plot::{self, Axis, LINE, SIZE, TEXT, TITLE, log_ticks, text_lines, ticks};
use crate::summary::Spread;

/// From the centre of a mark to its edge, in pixels.
const MARK: i32 = 5;

/// How far apart points of one load stand, as a share of the axis. Larger: a point seems to be at another load. Smaller:
/// bars lie on each other.
const APART_SHARE: f64 = 0.015;

/// Entries of the legend beside each other, and the pixels between them.
const LEGEND_COLUMNS: usize = 2;
const LEGEND_COLUMN: i32 = 460;

/// Of the sign in front of a legend's text, in pixels.
const SIGN: i32 = 36;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// One server's line.
struct Series {
    name: &'static str,
    color: RGBColor,
    shape: Shape,
    dots: Vec<Dot>,
}

struct Dot {
    x: f64,
    y: Spread,
    is_valid: bool,
    runs: u32,
}

/// The mark of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Circle,
    Triangle,
    Square,
    Diamond,
}

/// What is along the bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Across {
    /// Whole numbers.
    IoThreads,
    /// Thousand requests a second.
    Load,
}

/// What is along the side. Latencies differ by orders of magnitude; throughputs are compared by their height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Logarithmic,
}

/// What is said around a plot.
struct Frame {
    title: String,
    across: Across,
    up: &'static str,
    scale: Scale,
    /// Below it.
    machine: String,
}

/// Every plot by the name of its file; those that nothing was measured for are left out.
pub fn plots(results: &Results<'_>) -> Vec<(&'static str, io::Result<String>)> {
    let (connections, window, vectors) = results.base;
    let load = format!("{connections} connections, window {window}, {} a request", count_of(vectors, "vector"));
    let scaling = |figure: Figure, factor: f64| {
        by_server(results.points, |point| {
            let is_shown = point.point.pacing == Pacing::Closed { window }
                && (point.point.connections, point.point.vectors) == (connections, vectors);
            is_shown.then(|| dot(point, f64::from(point.point.server.io_threads), figure, factor)).flatten()
        })
    };
    let latency = |figure: Figure| {
        by_server(results.points, |point| match point.point.pacing {
            Pacing::Open { rate_per_second, .. } => dot(point, rate_per_second / 1e3, figure, 1e-3),
            Pacing::Closed { .. } => None,
        })
    };
    let machine = format!("{}, {}; client on the same machine", results.environment.machine(), days(results.points));
    let frame = |title: String, across, up, scale| Frame { title, across, up, scale, machine: machine.clone() };
    let closed = |what: &str, up| frame(format!("{what}: {load}, closed loop"), Across::IoThreads, up, Scale::Linear);
    let open = |quantile: &str| {
        let title = format!("Response time {quantile} against load: {connections} connections, open loop");
        frame(title, Across::Load, "response time, µs (logarithmic)", Scale::Logarithmic)
    };
    let all = [
        ("throughput.svg", scaling(Figure::RequestsPerSecond, 1e-3), closed("Throughput", "thousand requests/s")),
        ("cpu.svg", scaling(Figure::ServerCpuNs, 1e-3), closed("CPU", "server CPU a request, µs")),
        ("latency_p50.svg", latency(Figure::P50), open("p50")),
        ("latency_p99.svg", latency(Figure::P99), open("p99")),
        ("latency_p999.svg", latency(Figure::P999), open("p99.9")),
    ];
    let measured = all.into_iter().filter(|(_, series, _)| !series.is_empty());
    measured.map(|(name, series, frame)| (name, text(&series, &frame))).collect()
}

fn dot(point: &PointFigures, x: f64, figure: Figure, factor: f64) -> Option<Dot> {
    let Spread { min, median, max } = point.get(figure)?;
    let y = Spread { min: min * factor, median: median * factor, max: max * factor };
    Some(Dot { x, y, is_valid: point.is_valid(), runs: point.visits })
}

fn by_server(points: &[PointFigures], dot: impl Fn(&PointFigures) -> Option<Dot>) -> Vec<Series> {
    let kinds = [
        (ServerKind::Disrust, "disrust", plot::VERMILLION, Shape::Circle),
        (ServerKind::Epoll, "epoll floor (1 thread)", plot::BLUE, Shape::Triangle),
        (ServerKind::Uring, "io_uring floor (1 thread)", plot::BLACK, Shape::Square),
        (ServerKind::Tokio, "tokio, on as many CPUs as disrust", plot::GREEN, Shape::Diamond),
    ];
    let series = kinds.map(|(kind, name, color, shape)| {
        let of_kind = points.iter().filter(|point| point.point.server.kind == kind);
        let mut dots: Vec<Dot> =
            of_kind.filter(|point| point.point.server.wait == Wait::Auto).filter_map(&dot).collect();
        dots.sort_by(|first, second| first.x.total_cmp(&second.x));
        Series { name, color, shape, dots }
    });
    series.into_iter().filter(|series| !series.dots.is_empty()).collect()
}

fn text(series: &[Series], frame: &Frame) -> io::Result<String> {
    let mut text = String::new();
    let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    draw(series, frame, &root).map_err(|error| io::Error::other(error.to_string()))?;
    drop(root);
    Ok(text)
}

fn draw(series: &[Series], frame: &Frame, root: &Area<'_>) -> Drawn {
    root.fill(&WHITE)?;
    let (legend, footer) = (legend(series), footer(series, frame));
    let legend_lines = legend.len().div_ceil(LEGEND_COLUMNS) as u32;
    let chart_height = SIZE.1 - LINE * (legend_lines + footer.len() as u32 + 1);
    draw_chart(series, frame, chart_height, root)?;
    for (index, (sign, name)) in legend.into_iter().enumerate() {
        let (row, column) = ((index / LEGEND_COLUMNS) as i32, (index % LEGEND_COLUMNS) as i32);
        let place = (100 + column * LEGEND_COLUMN, chart_height as i32 + row * LINE as i32 + LINE as i32 / 2);
        draw_sign(&sign, place, root)?;
        let text_at = (place.0 + SIGN, place.1 - TEXT.1 as i32 / 2 + 2);
        root.draw(&Text::new(name, text_at, TEXT.into_font().color(&plot::BLACK)))?;
    }
    text_lines(&footer, (LINE * legend_lines + chart_height + LINE / 2) as i32, root)?;
    root.present()?;
    Ok(())
}

/// The axes with everything that was measured on them, in the upper part of `root`.
fn draw_chart(series: &[Series], frame: &Frame, height: u32, root: &Area<'_>) -> Drawn {
    let dots = || series.iter().flat_map(|series| &series.dots);
    let x_axis = across(frame.across, dots().map(|dot| dot.x));
    let (least, most) =
        dots().fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), dot| (least.min(dot.y.min), most.max(dot.y.max)));
    let y_axis = match frame.scale {
        Scale::Linear => linear_to(most),
        Scale::Logarithmic => Axis::logarithmic(log_ticks(least.max(f64::MIN_POSITIVE), most)),
    };
    let apart = x_axis.length() * APART_SHARE;
    let (upper, _) = root.split_vertically(height);
    let mut chart = ChartBuilder::on(&upper)
        .caption(&frame.title, TITLE)
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(84)
        .build_cartesian_2d(x_axis, y_axis)?;
    let x_name = match frame.across {
        Across::IoThreads => "I/O threads of disrust",
        Across::Load => "offered load, thousand requests/s",
    };
    chart
        .configure_mesh()
        .bold_line_style(plot::GRID)
        .axis_desc_style(TEXT)
        .label_style(TEXT)
        .x_desc(x_name)
        .y_desc(frame.up)
        .draw()?;
    for (index, Series { color, shape, dots, .. }) in series.iter().enumerate() {
        let aside = (index as f64 - (series.len() - 1) as f64 / 2.0) * apart;
        let at = |dot: &Dot, y: f64| (dot.x + aside, y);
        chart.draw_series(LineSeries::new(dots.iter().map(|dot| at(dot, dot.y.median)), color))?;
        let bars = dots.iter().map(|dot| vec![at(dot, dot.y.min), at(dot, dot.y.max)]);
        chart.draw_series(bars.map(|bar| PathElement::new(bar, color.stroke_width(2))))?;
        for dot in dots {
            let mark = if dot.is_valid { Sign::Mark(*shape, *color) } else { Sign::Cross(*color) };
            draw_sign(&mark, chart.backend_coord(&at(dot, dot.y.median)), root)?;
        }
    }
    Ok(())
}

/// The axis along the bottom. Threads come in whole numbers: those that were measured.
fn across(across: Across, places: impl Iterator<Item = f64>) -> Axis {
    let places: Vec<f64> = places.collect();
    let most = places.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    match across {
        Across::IoThreads => {
            let counts: BTreeSet<u32> = places.iter().map(|place| *place as u32).collect();
            Axis::linear(0.5..most + 0.5, counts.into_iter().map(f64::from).collect())
        }
        // The last points stand beside their load, and inside.
        Across::Load => linear_to(most * 1.03),
    }
}

/// From 0 to a tick at or above `most`.
fn linear_to(most: f64) -> Axis {
    let ticks = ticks(most);
    Axis::linear(0.0..ticks.iter().copied().fold(most, f64::max), ticks)
}

/// What is drawn, in a plot or in its legend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// A server's mark.
    Mark(Shape, RGBColor),
    /// The same with its line.
    Line(Shape, RGBColor),
    /// A point that is not valid.
    Cross(RGBColor),
    /// From the smallest to the largest.
    Bar,
}

/// Every sign of a plot, and what it means.
fn legend(series: &[Series]) -> Vec<(Sign, &'static str)> {
    let servers = series.iter().map(|series| (Sign::Line(series.shape, series.color), series.name));
    let bar = (Sign::Bar, "median, with a bar from the smallest to the largest run");
    let cross = (Sign::Cross(plot::BLACK), "not valid: the client was late, or answers are missing");
    let has_cross = series.iter().flat_map(|series| &series.dots).any(|dot| !dot.is_valid);
    servers.chain([bar]).chain(has_cross.then_some(cross)).collect()
}

/// Where it was measured, and how often.
fn footer(series: &[Series], frame: &Frame) -> Vec<String> {
    let runs = || series.iter().flat_map(|series| &series.dots).map(|dot| dot.runs);
    let runs = match (runs().min().unwrap_or(0), runs().max().unwrap_or(0)) {
        (least, most) if least == most => format!("n = {most} runs a point"),
        (least, most) => format!("n = {least} to {most} runs a point"),
    };
    vec![frame.machine.clone(), format!("{runs}, interleaved; points of one place on the axis stand side by side")]
}

fn draw_sign(sign: &Sign, (x, y): (i32, i32), root: &Area<'_>) -> Drawn {
    match *sign {
        Sign::Mark(Shape::Circle, color) => root.draw(&Circle::new((x, y), MARK, color.filled()))?,
        Sign::Mark(Shape::Square, color) => {
            root.draw(&Rectangle::new([(x - MARK, y - MARK), (x + MARK, y + MARK)], color.filled()))?;
        }
        Sign::Mark(Shape::Triangle, color) => {
            let corners = vec![(x, y - MARK - 2), (x + MARK + 1, y + MARK), (x - MARK - 1, y + MARK)];
            root.draw(&Polygon::new(corners, color.filled()))?;
        }
        Sign::Mark(Shape::Diamond, color) => {
            let half = MARK + 2;
            let corners = vec![(x, y - half), (x + half, y), (x, y + half), (x - half, y)];
            root.draw(&Polygon::new(corners, color.filled()))?;
        }
        Sign::Line(shape, color) => {
            root.draw(&PathElement::new([(x - SIGN / 2, y), (x + SIGN / 2, y)], color))?;
            draw_sign(&Sign::Mark(shape, color), (x, y), root)?;
        }
        Sign::Cross(color) => root.draw(&Cross::new((x, y), MARK + 1, color.stroke_width(3)))?,
        Sign::Bar => {
            let half = LINE as i32 / 2 - 2;
            root.draw(&PathElement::new([(x, y - half), (x, y + half)], plot::BLACK.stroke_width(2)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{point, visit};
    use super::super::machine::Machine;
    use super::*;

    fn figures(kind: ServerKind, pacing: Pacing) -> PointFigures {
        let point = point(kind, pacing);
        PointFigures::of(point, &[&visit(point, 0, 1e6)], &Machine::here(Some(1)))
    }

    fn frame(across: Across, scale: Scale) -> Frame {
        Frame { title: "a title".to_owned(), across, up: "up", scale, machine: "a machine, 2026-11-24".to_owned() }
    }

    /// The promise: a mark is a mark only if the client kept its schedule, and what marks, bars and crosses mean stands
    /// below, with the machine and the number of runs.
    #[test]
    fn what_is_not_valid_is_a_cross() {
        let open = Pacing::Open { fraction: 0.5, rate_per_second: 5e4 };
        let (good, mut bad) = (figures(ServerKind::Disrust, open), figures(ServerKind::Disrust, open));
        let drawn = |points: &[PointFigures]| {
            let series = by_server(points, |point| dot(point, 1.0, Figure::P99, 1e-3));
            assert_eq!(series.len(), 1);
            text(&series, &frame(Across::Load, Scale::Logarithmic)).expect("a plot")
        };
        let valid = drawn(std::slice::from_ref(&good));
        assert!(valid.starts_with("<svg") && valid.trim_end().ends_with("</svg>"), "{valid}");
        for words in ["a bar from the smallest", "a machine, 2026-11-24", "n = 1 runs a point"] {
            assert!(valid.contains(words), "{words:?} is not in {valid}");
        }
        assert!(!valid.contains("not valid"), "there is no cross to explain");
        bad.invalid_visits = 1;
        assert!(drawn(&[good, bad]).contains("not valid: the client was late"), "the cross is explained");
    }

    /// The promise: servers differ in colour and in mark, so that one of the two is enough.
    #[test]
    fn servers_are_told_apart_twice() {
        let closed = Pacing::Closed { window: 16 };
        let kinds = [ServerKind::Disrust, ServerKind::Epoll, ServerKind::Uring, ServerKind::Tokio];
        let points = kinds.map(|kind| figures(kind, closed));
        let series = by_server(&points, |point| dot(point, 1.0, Figure::RequestsPerSecond, 1e-3));
        for (index, one) in series.iter().enumerate() {
            for other in &series[index + 1..] {
                assert!(one.color != other.color && one.shape != other.shape, "{} and {}", one.name, other.name);
            }
        }
        assert_eq!(series.len(), kinds.len());
    }

    /// The promise: only numbers of threads that there can be are on the axis.
    #[test]
    fn threads_are_whole() {
        let svg = by_server(&[figures(ServerKind::Disrust, Pacing::Closed { window: 16 })], |point| {
            dot(point, 3.0, Figure::RequestsPerSecond, 1e-3)
        });
        let svg = text(&svg, &frame(Across::IoThreads, Scale::Linear)).expect("a plot");
        assert!(svg.contains("\n3\n") && !svg.contains("\n2.5\n"), "{svg}");
    }
}
