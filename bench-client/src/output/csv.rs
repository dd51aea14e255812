//! One line a run, under a line of names: for spreadsheets, and for scripts that put many runs below each other.
//!
//! Invariants: the columns are always the same and in the same order; what was not measured is an empty field.

use crate::summary::{Repeat, Report, TimesNs};

/// The statistics of each distribution of times.
const STATISTICS: [&str; 7] = ["p50", "p90", "p99", "p99_9", "p99_99", "max", "mean"];

/// The whole file.
pub fn lines(report: &Report) -> String {
    let mut text = head().join(",") + "\n";
    for (index, repeat) in report.repeats.iter().enumerate() {
        text += &(fields(report, index, repeat).join(",") + "\n");
    }
    text
}

fn head() -> Vec<String> {
    let plain = [
        "pacing",
        "rate_per_second",
        "arrival",
        "window",
        "connections",
        "vectors",
        "threads",
        "seed",
        "repeat",
        "valid",
        "offered_per_second",
        "achieved_per_second",
        "vectors_per_second",
        "answered",
        "lost",
        "unsent",
        "held_back",
        "shed",
        "model_failed",
    ];
    let mut names: Vec<String> = plain.iter().map(|name| (*name).to_owned()).collect();
    for distribution in ["response", "service", "schedule_lag"] {
        names.extend(STATISTICS.iter().map(|statistic| format!("{distribution}_ns_{statistic}")));
    }
    let costs = ["client_cpu_ns_per_request", "client_cpu_share", "client_busy_share"];
    names.extend(costs.iter().chain(&["server_cpu_ns_per_request", "server_cpu_share"]).map(|name| (*name).to_owned()));
    names
}

fn fields(report: &Report, index: usize, repeat: &Repeat) -> Vec<String> {
    let plan = &report.plan;
    let mut fields = vec![
        plan.pacing.clone(),
        optional(plan.rate_per_second),
        plan.arrival.clone().unwrap_or_default(),
        optional(plan.window),
        plan.connections.to_string(),
        quoted(&plan.vectors),
        plan.threads.to_string(),
        plan.seed.to_string(),
        index.to_string(),
        repeat.valid.to_string(),
        optional(repeat.offered_per_second),
        repeat.achieved_per_second.to_string(),
        repeat.vectors_per_second.to_string(),
        repeat.answered.to_string(),
        repeat.lost.to_string(),
        repeat.unsent.to_string(),
        repeat.held_back.to_string(),
        repeat.errors.shed.to_string(),
        repeat.errors.model_failed.to_string(),
    ];
    for times in [&repeat.response_ns, &repeat.service_ns, &repeat.schedule_lag_ns] {
        fields.extend(statistics(times.as_ref()));
    }
    fields.extend([
        repeat.client_cpu_ns_per_request.to_string(),
        repeat.client_cpu_share.to_string(),
        repeat.client_busy_share.to_string(),
        optional(repeat.server_cpu_ns_per_request),
        optional(repeat.server_cpu_share),
    ]);
    fields
}

fn statistics(times: Option<&TimesNs>) -> [String; STATISTICS.len()] {
    times.map_or_else(Default::default, |times| {
        [
            times.p50.to_string(),
            times.p90.to_string(),
            times.p99.to_string(),
            times.p99_9.to_string(),
            times.p99_99.to_string(),
            times.max.to_string(),
            times.mean.to_string(),
        ]
    })
}

fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// A mix of vectors has commas.
fn quoted(text: &str) -> String {
    if text.contains(',') { format!("\"{text}\"") } else { text.to_owned() }
}
