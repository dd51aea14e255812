//! The latency spectrum: response and service time against the percentile, on an axis that gives every nine the same room.
//!
//! Invariants: both axes are logarithmic: time, and 1/(1 - percentile); the plot of a run that is not valid says so, and
//! every plot says where and how often it was measured.

use std::error::Error;
use std::io;

use hdrhistogram::Histogram;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::plot::{self, Axis, BLUE, LINE, SIZE, TEXT, TITLE, VERMILLION, log_ticks, text_lines};
use crate::summary::Report;

/// Points for each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 10;

/// Of the dashes of the second curve and the gaps between them, in pixels: whoever sees no colour sees these.
const DASH: (u32, u32) = (8, 5);

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
) -> Result<(), Box<dyn Error>> {
    let (response, service) = (points(response_ns), points(service_ns));
    let all = || response.iter().chain(&service).copied();
    let most_nines = all().map(|(nines, _)| nines).fold(10.0, f64::max);
    let (least_us, most_us) =
        all().map(|(_, us)| us).fold((f64::MAX, 1.0), |(least, most): (f64, f64), us| (least.min(us), most.max(us)));
    let nines: Vec<f64> = (0..=most_nines.log10().ceil() as i32).map(|nines| 10_f64.powi(nines)).collect();

    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let footer = footer(report, response_ns.len().max(service_ns.len()));
    let chart_height = SIZE.1 - LINE * (footer.len() as u32 + 1);
    let (upper, _) = root.split_vertically(chart_height);
    let mut chart = ChartBuilder::on(&upper)
        .caption(caption(report), TITLE)
        .margin(14)
        .margin_right(40)
        .x_label_area_size(46)
        .y_label_area_size(84)
        .build_cartesian_2d(Axis::logarithmic(nines), Axis::logarithmic(log_ticks(least_us.min(most_us), most_us)))?;
    chart
        .configure_mesh()
        .bold_line_style(plot::GRID)
        .axis_desc_style(TEXT)
        .label_style(TEXT)
        .x_desc("percentile")
        .y_desc("time, µs (logarithmic)")
        .x_label_formatter(&|nines| percentile(*nines))
        .draw()?;
    if !response.is_empty() {
        chart
            .draw_series(LineSeries::new(response, VERMILLION.stroke_width(2)))?
            .label("response time (from the intended send time)")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 24, y)], VERMILLION.stroke_width(2)));
    }
    if !service.is_empty() {
        let (dash, gap) = DASH;
        chart
            .draw_series(DashedLineSeries::new(service, dash, gap, BLUE.stroke_width(2)))?
            .label("service time (from the write), dashed")
            .legend(|(x, y)| DashedPathElement::new(vec![(x, y), (x + 24, y)], DASH.0, DASH.1, BLUE.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(TEXT)
        .background_style(WHITE)
        .border_style(plot::BLACK)
        .draw()?;
    text_lines(&footer, (chart_height + LINE / 2) as i32, &root)?;
    root.present()?;
    Ok(())
}

fn caption(report: &Report) -> String {
    let plan = &report.plan;
    let pace = match (plan.rate_per_second, plan.window) {
        (Some(rate), _) => format!("{rate:.0} requests/s"),
        (None, window) => format!("window {}", window.unwrap_or(0)),
    };
    let valid = report.repeats.iter().all(|repeat| repeat.valid);
    format!("{}Latency: {pace}, {} connections", if valid { "" } else { "INVALID. " }, plan.connections)
}

/// Where it was measured, what is in it, and what may be made of it.
fn footer(report: &Report, times: u64) -> Vec<String> {
    let (environment, runs) = (&report.environment, report.repeats.len());
    let cause = report.repeats.iter().find_map(|repeat| repeat.invalid_cause);
    let verdict = cause.map_or_else(String::new, |cause| format!("INVALID: {cause}; "));
    let runs = format!("{runs} run{}", if runs == 1 { "" } else { "s" });
    vec![
        format!("{verdict}{}", report.claim),
        format!("n = {times} requests in {runs}; the last point is the longest time"),
        format!("{}, {}", environment.machine(), environment.date()),
    ]
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
