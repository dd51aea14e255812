//! What the status page says to who runs no script: how the server was when the page was asked for.
//!
//! A pure function of what `/status.json` tells; whatever that lacks is a dash. Names come from files and from peers, so no
//! letter of theirs means anything to a browser.
#![forbid(unsafe_code)]

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

/// Where the page has room for it.
pub(super) const PLACE: &str = "<!--snapshot-->";

/// The state, the model and the totals, as HTML.
pub(super) fn snapshot(status: &Value) -> String {
    let model = &status["model"];
    let shedding = if status["shedding"] == true { ", shedding" } else { "" };
    let at = time(&status["now_unix_seconds"]);
    let facts = [
        ("State", words(&status["state"]) + shedding),
        ("Up for", duration(&status["uptime_seconds"])),
        ("Listens on", words(&status["listen"])),
        ("Model", words(&model["name"])),
        ("Model version", words(&model["version"])),
        ("Model loaded", time(&model["loaded_unix_seconds"])),
        ("Open connections", words(&status["connections"]["open"])),
        ("Requests in the last second", last(&status["history"]["requests_per_s"], "")),
        ("Response time in the last second, p99", last(&status["history"]["p99_us"], " µs")),
        ("Version", words(&status["version"])),
    ];
    let facts: String = facts.iter().map(|(name, value)| row(name, value)).collect();
    let totals = status["totals"].as_object().into_iter().flatten();
    let totals: String = totals.map(|(name, value)| row(name, &words(value))).collect();
    format!(
        "<section><h2>How it was at {at}</h2><table><tbody>{facts}</tbody></table></section>\n\
         <section><h2>Counters since the start</h2><div class=\"scroll\" tabindex=\"0\"><table>\
         <thead><tr><th scope=\"col\">Counter</th><th scope=\"col\">Value</th></tr></thead>\
         <tbody>{totals}</tbody></table></div></section>",
        at = escaped(&at),
    )
}

fn row(name: &str, value: &str) -> String {
    format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escaped(name), escaped(value))
}

/// A value as words; several are separated by commas.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(values) if !values.is_empty() => values.iter().map(words).collect::<Vec<_>>().join(", "),
        _ => "–".to_owned(),
    }
}

/// The last of a column.
fn last(column: &Value, unit: &str) -> String {
    let last = column.as_array().and_then(|column| column.last()).and_then(Value::as_f64);
    last.map_or("–".to_owned(), |last| format!("{last:.0}{unit}"))
}

fn seconds(value: &Value) -> Option<Duration> {
    value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds.floor()).ok())
}

fn duration(value: &Value) -> String {
    seconds(value).map_or("–".to_owned(), |seconds| humantime::format_duration(seconds).to_string())
}

fn time(value: &Value) -> String {
    /// The last second that has a four-digit year.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let time = seconds(value).filter(|seconds| *seconds <= LAST).map(|seconds| UNIX_EPOCH + seconds);
    time.map_or("–".to_owned(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

/// As HTML shows it letter by letter, in an element or in an attribute's quotes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_says_what_the_status_says() {
        let status = json!({
            "state": "draining", "shedding": true, "uptime_seconds": 3661.9, "now_unix_seconds": 1_800_000_000.5,
            "version": "0.1.0", "listen": ["127.0.0.1:9900", "/run/disrust.sock"],
            "model": {"name": "credit", "version": "00000000000000ff", "loaded_unix_seconds": 1_800_000_000},
            "connections": {"open": 17}, "history": {"requests_per_s": [1.0, 1234.4], "p99_us": [null, 87.6]},
            "totals": {"disrust_requests_total{result=\"ok\"}": 18_000_000_000_000_000_000_u64},
        });
        let html = snapshot(&status);
        for (name, value) in [
            ("State", "draining, shedding"),
            ("Up for", "1h 1m 1s"),
            ("Listens on", "127.0.0.1:9900, /run/disrust.sock"),
            ("Model", "credit"),
            ("Model version", "00000000000000ff"),
            ("Model loaded", "2027-01-15T08:00:00Z"),
            ("Open connections", "17"),
            ("Requests in the last second", "1234"),
            ("Response time in the last second, p99", "88 µs"),
            ("Version", "0.1.0"),
            ("disrust_requests_total{result=&quot;ok&quot;}", "18000000000000000000"),
        ] {
            let row = format!("<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
            assert!(html.contains(&row), "{row}: {html}");
        }
        assert!(html.contains("How it was at 2027-01-15T08:00:00Z"), "{html}");
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        for status in [
            json!({}),
            json!(null),
            json!({"state": 1, "listen": [], "history": {"p99_us": []}, "now_unix_seconds": 1e300, "uptime_seconds": -1}),
        ] {
            let html = snapshot(&status);
            assert!(html.contains("<th scope=\"row\">Up for</th><td>–</td>"), "{html}");
            assert!(html.contains("How it was at –") && !html.contains("null"), "{html}");
        }
    }

    #[test]
    fn names_are_no_html() {
        let evil = "<script>alert('1')</script>&\"";
        let html = snapshot(&json!({
            "state": evil, "version": evil, "listen": [evil], "model": {"name": evil, "version": evil},
            "totals": {evil: 1},
        }));
        assert!(!html.contains("<script") && !html.contains("'1'") && !html.contains("&\""), "{html}");
        assert_eq!(html.matches("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;").count(), 6, "{html}");
    }
}
