//! The plots of a sweep: throughput and CPU a request against I/O threads, and latency against load.
//!
//! Invariants: a dot is a point's median and the bar through it reaches from its smallest to its largest; what the client
//! could not measure is a cross and not a dot.

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::figures::{Figure, PointFigures};
use super::plan::Pacing;
use super::tables::{Results, count_of};
use crate::args::{ServerKind, Wait};
use crate::summary::Spread;

const SIZE: (u32, u32) = (960, 540);

/// One server's line.
struct Series {
    name: String,
    color: RGBColor,
    dots: Vec<Dot>,
}

struct Dot {
    x: f64,
    y: Spread,
    is_valid: bool,
}

/// The axes of a plot.
struct Axes<'a> {
    title: String,
    x: &'a str,
    y: &'a str,
    /// Latencies differ by orders of magnitude; throughputs are compared by their height.
    is_log: bool,
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
    let (threads, offered) = ("I/O threads", "offered load, thousand requests/s");
    let axes = |title: String, x, y, is_log| Axes { title, x, y, is_log };
    let open = |quantile: &str| format!("Response time {quantile} against load, {connections} connections");
    let all = [
        (
            "throughput.svg",
            scaling(Figure::RequestsPerSecond, 1e-3),
            axes(load.clone(), threads, "thousand requests/s", false),
        ),
        ("cpu.svg", scaling(Figure::ServerCpuNs, 1e-3), axes(load, threads, "server CPU a request (us)", false)),
        ("latency_p50.svg", latency(Figure::P50), axes(open("p50"), offered, "us", true)),
        ("latency_p99.svg", latency(Figure::P99), axes(open("p99"), offered, "us", true)),
        ("latency_p999.svg", latency(Figure::P999), axes(open("p99.9"), offered, "us", true)),
    ];
    let measured = all.into_iter().filter(|(_, series, _)| !series.is_empty());
    measured.map(|(name, series, axes)| (name, text(&series, &axes))).collect()
}

fn dot(point: &PointFigures, x: f64, figure: Figure, factor: f64) -> Option<Dot> {
    let Spread { min, median, max } = point.get(figure)?;
    let y = Spread { min: min * factor, median: median * factor, max: max * factor };
    Some(Dot { x, y, is_valid: point.is_valid() })
}

fn by_server(points: &[PointFigures], dot: impl Fn(&PointFigures) -> Option<Dot>) -> Vec<Series> {
    let kinds = [
        (ServerKind::Disrust, "disrust", RED),
        (ServerKind::Epoll, "epoll floor (1 thread)", BLUE),
        (ServerKind::Uring, "io_uring floor (1 thread)", BLACK),
        (ServerKind::Tokio, "tokio, on as many CPUs as disrust", GREEN),
    ];
    let series = kinds.map(|(kind, name, color)| {
        let of_kind = points.iter().filter(|point| point.point.server.kind == kind);
        let mut dots: Vec<Dot> =
            of_kind.filter(|point| point.point.server.wait == Wait::Auto).filter_map(&dot).collect();
        dots.sort_by(|first, second| first.x.total_cmp(&second.x));
        Series { name: name.to_owned(), color, dots }
    });
    series.into_iter().filter(|series| !series.dots.is_empty()).collect()
}

fn text(series: &[Series], axes: &Axes<'_>) -> io::Result<String> {
    let mut text = String::new();
    let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    draw(series, axes, &root).map_err(|error| io::Error::other(error.to_string()))?;
    drop(root);
    Ok(text)
}

fn draw(
    series: &[Series],
    axes: &Axes<'_>,
    root: &DrawingArea<SVGBackend<'_>, Shift>,
) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    let dots = || series.iter().flat_map(|series| &series.dots);
    let x_max = dots().map(|dot| dot.x).fold(0.0, f64::max) * 1.05;
    // The legend lies above what is measured.
    let headroom = if axes.is_log { 4.0 } else { 1.35 };
    let y_max = dots().map(|dot| dot.y.max).fold(0.0, f64::max).max(f64::MIN_POSITIVE) * headroom;
    let y_min = dots().map(|dot| dot.y.min).fold(y_max, f64::min) * 0.8;
    let mut builder = ChartBuilder::on(root);
    builder.caption(&axes.title, ("sans-serif", 18)).margin(12).x_label_area_size(40).y_label_area_size(80);
    // The two kinds of axis are two types, so what is drawn on them is said once, here.
    macro_rules! draw_on {
        ($chart:expr) => {{
            let mut chart = $chart;
            chart.configure_mesh().x_desc(axes.x).y_desc(axes.y).draw()?;
            for Series { name, color, dots } in series {
                let (color, line) = (*color, dots.iter().map(|dot| (dot.x, dot.y.median)));
                chart
                    .draw_series(LineSeries::new(line, color.stroke_width(2)))?
                    .label(name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
                let bars = dots.iter().map(|dot| PathElement::new([(dot.x, dot.y.min), (dot.x, dot.y.max)], color));
                chart.draw_series(bars)?;
                let valid = dots.iter().filter(|dot| dot.is_valid);
                chart.draw_series(valid.map(|dot| Circle::new((dot.x, dot.y.median), 4, color.filled())))?;
                let invalid = dots.iter().filter(|dot| !dot.is_valid);
                chart.draw_series(invalid.map(|dot| Cross::new((dot.x, dot.y.median), 6, color)))?;
            }
            let position = SeriesLabelPosition::UpperLeft;
            chart
                .configure_series_labels()
                .position(position)
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK)
                .draw()?;
        }};
    }
    if axes.is_log {
        draw_on!(builder.build_cartesian_2d(0.0..x_max, (y_min..y_max).log_scale())?);
    } else {
        draw_on!(builder.build_cartesian_2d(0.0..x_max, 0.0..y_max)?);
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{point, visit};
    use super::super::machine::Machine;
    use super::*;

    fn figures(pacing: Pacing) -> PointFigures {
        let point = point(ServerKind::Disrust, pacing);
        PointFigures::of(point, &[&visit(point, 0, 1e6)], &Machine::here(Some(1)))
    }

    /// The promise: a dot is a dot only if the client kept its schedule, and other servers' lines are left out.
    #[test]
    fn what_is_not_valid_is_a_cross() {
        let open = Pacing::Open { fraction: 0.5, rate_per_second: 5e4 };
        let (good, mut bad) = (figures(open), figures(open));
        bad.invalid_visits = 1;
        let series = by_server(&[good, bad], |point| dot(point, 1.0, Figure::P99, 1e-3));
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].dots.iter().map(|dot| dot.is_valid).collect::<Vec<_>>(), [true, false]);
        let axes = Axes { title: "a".to_owned(), x: "x", y: "y", is_log: true };
        let svg = text(&series, &axes).expect("a plot");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    }
}
