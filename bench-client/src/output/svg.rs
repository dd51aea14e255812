//! The latency spectrum: response and service time against the percentile, on an axis that gives every nine the same room.
//!
//! Invariants: both axes are logarithmic: time, and 1/(1 - percentile); the plot of a run that is not valid says so.

use std::io;

use hdrhistogram::Histogram;
use plotters::prelude::*;

use crate::summary::Report;

const WIDTH: u32 = 960;
const HEIGHT: u32 = 540;

/// Points for each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 10;

/// The whole file.
pub fn spectrum(report: &Report, response_ns: &Histogram<u64>, service_ns: &Histogram<u64>) -> io::Result<String> {
    let mut text = String::new();
    draw(report, response_ns, service_ns, &mut text).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(text)
}

fn draw(
    report: &Report,
    response_ns: &Histogram<u64>,
    service_ns: &Histogram<u64>,
    text: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let curves = [
        ("response time (from the intended send time)", response_ns, RED),
        ("service time (from the write)", service_ns, BLUE),
    ];
    let curves = curves.map(|(name, times_ns, color)| (name, points(times_ns), color));
    let all = || curves.iter().flat_map(|(_, points, _)| points.iter().copied());
    let nines = all().map(|(nines, _)| nines).fold(1.0, f64::max);
    let (least_us, most_us) =
        all().map(|(_, us)| us).fold((f64::MAX, 1.0), |(least, most): (f64, f64), us| (least.min(us), most.max(us)));

    let root = SVGBackend::with_string(text, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(caption(report), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(
            (1.0..nines.max(10.0) * 1.1).log_scale(),
            (least_us.min(most_us) * 0.8..most_us * 1.25).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("time (us)")
        .x_label_formatter(&|nines| percentile(*nines))
        .y_label_formatter(&|us| format!("{us:.0}"))
        .draw()?;
    for (name, points, color) in curves {
        if !points.is_empty() {
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

fn caption(report: &Report) -> String {
    let plan = &report.plan;
    let pace = match (plan.rate_per_second, plan.window) {
        (Some(rate), _) => format!("{rate:.0} requests/s"),
        (None, window) => format!("window {}", window.unwrap_or(0)),
    };
    let cause = report.repeats.iter().find_map(|repeat| repeat.invalid_cause);
    let verdict = cause.map_or_else(String::new, |cause| format!("INVALID, {cause}: "));
    format!("{verdict}{}, {pace}, {} connections", report.claim, plan.connections)
}

/// `(1/(1 - percentile), microseconds)`.
fn points(times_ns: &Histogram<u64>) -> Vec<(f64, f64)> {
    if times_ns.is_empty() {
        return Vec::new();
    }
    let steps = times_ns.iter_quantiles(TICKS_PER_HALF_DISTANCE).filter(|step| step.quantile_iterated_to() < 1.0);
    let point = |nines, ns: u64| (nines, (ns as f64 / 1e3).max(0.001));
    let mut points: Vec<(f64, f64)> =
        steps.map(|step| point(1.0 / (1.0 - step.quantile_iterated_to()), step.value_iterated_to())).collect();
    points.push(point(times_ns.len() as f64, times_ns.max()));
    points
}

fn percentile(nines: f64) -> String {
    let decimals = (nines.log10().round() as usize).saturating_sub(2);
    format!("{:.decimals$}%", 100.0 - 100.0 / nines)
}
