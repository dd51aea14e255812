//! The status page's numbers, as JSON. Whoever reads it knows it by these names.
#![forbid(unsafe_code)]

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use super::chronicle::{ModelFacts, Written};
use super::history::Sample;
use super::watch::Watch;
use crate::limits::ADMIN_NAMES_BYTES_MAX;
use crate::metrics::families::{Number, counters};
use crate::metrics::{ROSTER_MAX, RosterEntry};

/// Everything.
pub(super) fn status(watch: &Watch) -> Value {
    let subject = &watch.subject;
    let Written { model, model_loaded_unix_seconds, reloads_ok, reloads_failed, events } =
        subject.chronicle.read().clone();
    let totals: Map<String, Value> =
        watch.with_sources(counters).into_iter().map(|(name, value)| (name, of_number(value))).collect();
    let total = |name: &str| totals.get(name).cloned().unwrap_or(Value::from(0));
    let errors: Vec<Value> = ERRORS.iter().map(|(cause, name)| json!({"cause": cause, "total": total(name)})).collect();
    let events: Vec<Value> =
        events.iter().map(|event| json!({"unix_seconds": event.unix_seconds, "text": event.text})).collect();
    json!({
        "state": watch.health().state().name(),
        "shedding": watch.is_shedding(),
        "version": env!("CARGO_PKG_VERSION"),
        "git": env!("DISRUST_COMMIT"),
        "kernel": subject.kernel,
        "uptime_seconds": watch.uptime().as_secs_f64(),
        "now_unix_seconds": watch.begun_unix_seconds + watch.uptime().as_secs_f64(),
        "listen": subject.listen,
        "wait": subject.wait,
        "helping": subject.helping,
        "model": {
            "name": model.name,
            "version": model.version_text(),
            "format": model.format,
            "loaded_unix_seconds": model_loaded_unix_seconds,
            "reloads": {"ok": reloads_ok, "failed": reloads_failed},
            "features": model.features,
            "outputs": model.outputs,
            "feature_names": feature_names(&model),
        },
        "cpus": cpus(watch),
        "totals": totals,
        "history": history(watch),
        "threads": threads(watch),
        "connections": {"open": subject.control.open_connections(), "top": top_connections(watch)},
        "errors": errors,
        "events": events,
    })
}

/// What went wrong, in words, and the counter that counts it.
const ERRORS: [(&str, &str); 11] = [
    ("bad requests (error 1)", "disrust_requests_total{result=\"bad\"}"),
    ("the model failed (error 2)", "disrust_requests_total{result=\"model_error\"}"),
    ("shed (error 3)", "disrust_requests_total{result=\"shed\"}"),
    ("refused in a drain (error 4)", "disrust_requests_total{result=\"closing\"}"),
    ("clients gone before their answers", "disrust_requests_total{result=\"discarded\"}"),
    ("connections reset or vanished", "disrust_connections_closed_total{reason=\"broken\"}"),
    ("requests not completed in time", "disrust_connections_closed_total{reason=\"request_timeout\"}"),
    ("answers not taken in time", "disrust_connections_closed_total{reason=\"send_timeout\"}"),
    ("connections closed for their memory", "disrust_connections_closed_total{reason=\"evicted\"}"),
    ("connections over the limit", "disrust_connections_closed_total{reason=\"rejected\"}"),
    ("connections cut in a drain", "disrust_connections_closed_total{reason=\"cut\"}"),
];

fn of_number(number: Number) -> Value {
    match number {
        Number::Whole(value) => value.into(),
        Number::Real(value) => value.into(),
    }
}

/// Nothing if there are none, or too many for a page.
fn feature_names(model: &ModelFacts) -> Option<&[String]> {
    let bytes: usize = model.feature_names.iter().map(String::len).sum();
    (!model.feature_names.is_empty() && bytes <= ADMIN_NAMES_BYTES_MAX).then_some(&model.feature_names)
}

fn cpus(watch: &Watch) -> Vec<Value> {
    let batch = watch.subject.threads.len() - 1;
    let threads = watch.subject.threads.iter().enumerate();
    threads
        .map(|(index, (name, cpu))| {
            let (history, is_batch) = (&watch.history, index == batch);
            let busy_share = if is_batch { history.batch_busy_share() } else { history.thread(index).busy_share };
            json!({"thread": name, "cpu": cpu, "busy_share": rounded(busy_share)})
        })
        .collect()
}

fn threads(watch: &Watch) -> Vec<Value> {
    let subject = &watch.subject;
    let io = subject.threads.iter().zip(&subject.io_metrics).enumerate();
    io.map(|(index, ((name, _), io))| {
        let sample = watch.history.thread(index);
        json!({
            "thread": name,
            "connections": io.accepted.get().saturating_sub(io.closed.served()),
            "buffers_in_use": io.buffers_in_use.get(),
            "buffers": subject.buffers_each,
            "receive_bytes_per_s": sample.receive_bytes_per_s.round(),
            "send_bytes_per_s": sample.send_bytes_per_s.round(),
            "busy_share": rounded(sample.busy_share),
        })
    })
    .collect()
}

/// Those of all threads that have most under way, as of a moment ago; none until the page has been asked for for a moment.
fn top_connections(watch: &Watch) -> Vec<Value> {
    let named = watch.subject.threads.iter().zip(&watch.subject.io_metrics);
    let mut entries: Vec<(&str, RosterEntry)> =
        named.flat_map(|((name, _), io)| io.roster.entries().into_iter().map(|entry| (name.as_str(), entry))).collect();
    entries.sort_by_key(|(_, entry)| Reverse((entry.in_flight, entry.out_of_credit, entry.age_seconds)));
    entries.truncate(ROSTER_MAX);
    entries
        .into_iter()
        .map(|(thread, RosterEntry { peer, in_flight, out_of_credit, age_seconds })| {
            json!({
                "thread": thread,
                "peer": peer,
                "in_flight": in_flight,
                "out_of_credit": out_of_credit,
                "age_seconds": age_seconds,
            })
        })
        .collect()
}

fn history(watch: &Watch) -> Value {
    let column = |value: fn(&Sample) -> f64| -> Vec<f64> {
        watch.history.samples().map(|sample| rounded(value(sample))).collect()
    };
    json!({
        "seconds": watch.history.samples().map(|sample| sample.unix_seconds as u64).collect::<Vec<_>>(),
        "requests_per_s": column(|sample| sample.requests_per_s),
        "p50_us": column(|sample| sample.p50_us),
        "p99_us": column(|sample| sample.p99_us),
        "p999_us": column(|sample| sample.p999_us),
        "batch_vectors": column(|sample| sample.batch_vectors),
        "busy_share": column(|sample| sample.busy_share),
        "shed_per_s": column(|sample| sample.shed_per_s),
        "connections": watch.history.samples().map(|sample| sample.connections).collect::<Vec<_>>(),
    })
}

/// As many digits as a page shows.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
