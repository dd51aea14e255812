//! One parser for each kind of value, whatever source it comes from.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use disrust_model::NAME_BYTES_MAX;
use disrust_model::form::Output;
use humantime::DurationError;

use super::cpu_list::parse_cpu_list;
use super::placement::{HelpBatch, Pin, PinPolicy, Wait};
use super::verify::RowCounts;
use crate::exchange::wait::WaitStrategy;
#[cfg(feature = "metrics")]
use crate::limits::METRICS_INTERVAL_MIN;
use crate::limits::{
    BUFFER_MEMORY_BYTES_MAX, BUFFER_MEMORY_BYTES_MIN, CONNECTIONS_MAX, FEATURE_DIM_MAX, IO_THREADS_MAX, TIME_MAX,
    VERIFY_ROW_COUNTS_MAX, VERIFY_ROWS_MAX,
};

/// Where the admin port is, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admin(pub Option<SocketAddr>);

pub(super) fn parse_admin(text: &str) -> Result<Admin, String> {
    match text {
        "off" => Ok(Admin(None)),
        _ => text
            .parse()
            .map(|address| Admin(Some(address)))
            .map_err(|_| "not off or an address with a port, such as 127.0.0.1:9901 or [::1]:9901".to_owned()),
    }
}

/// A timeout that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeout(pub Option<Duration>);

/// A port that there need not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port(pub Option<u16>);

pub(super) fn parse_pin(text: &str) -> Result<Pin, String> {
    match text {
        "auto" => Ok(Pin::Auto),
        "none" => Ok(Pin::None),
        list => parse_cpu_list(list).map(Pin::List).map_err(|error| error.to_string()),
    }
}

pub(super) fn parse_pin_policy(text: &str) -> Result<PinPolicy, String> {
    match text {
        "best-effort" => Ok(PinPolicy::BestEffort),
        "strict" => Ok(PinPolicy::Strict),
        _ => Err("not best-effort or strict".to_owned()),
    }
}

pub(super) fn parse_wait(text: &str) -> Result<Wait, String> {
    match text {
        "auto" => Ok(Wait::Auto),
        "spin" => Ok(Wait::As(WaitStrategy::Spin)),
        "yield" => Ok(Wait::As(WaitStrategy::Yield)),
        "park" => Ok(Wait::As(WaitStrategy::Park)),
        _ => Err("not auto, spin, yield or park".to_owned()),
    }
}

pub(super) fn parse_help_batch(text: &str) -> Result<HelpBatch, String> {
    match text {
        "auto" => Ok(HelpBatch::Auto),
        "on" => Ok(HelpBatch::On),
        "off" => Ok(HelpBatch::Off),
        _ => Err("not auto, on or off".to_owned()),
    }
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    match parse_time(text) {
        Ok(time) if time <= TIME_MAX => Ok(time),
        Ok(_) | Err(DurationError::NumberOverflow) => Err(format!(
            "longer than {} days, the longest time, or finer than 1ns",
            TIME_MAX.as_secs() / (24 * 60 * 60)
        )),
        Err(error) => Err(format!("not a time such as 10s, 500ms or 2m: {error}")),
    }
}

/// Adds the parts of a time such as `1m 30s`. Humantime could, but 2.4 panics where the sum is 2⁶⁴ seconds.
pub(super) fn parse_time(text: &str) -> Result<Duration, DurationError> {
    let (mut sum, mut begin, mut in_unit) = (Duration::ZERO, 0, false);
    let mut add = |part: &str| -> Result<(), DurationError> {
        sum = sum.checked_add(humantime::parse_duration(part)?).ok_or(DurationError::NumberOverflow)?;
        Ok(())
    };
    for (index, character) in text.char_indices() {
        if in_unit && character.is_ascii_digit() {
            add(&text[begin..index])?;
            (begin, in_unit) = (index, false);
        }
        in_unit |= character.is_alphabetic();
    }
    add(&text[begin..])?;
    Ok(sum)
}

pub(super) fn parse_timeout(text: &str) -> Result<Timeout, String> {
    match text {
        "off" => Ok(Timeout(None)),
        _ => match parse_duration(text)? {
            Duration::ZERO => Err("a timeout is longer than 0; to have none, say off".to_owned()),
            timeout => Ok(Timeout(Some(timeout))),
        },
    }
}

/// How often metrics are printed.
#[cfg(feature = "metrics")]
pub(super) fn parse_interval(text: &str) -> Result<Timeout, String> {
    match parse_timeout(text)? {
        Timeout(Some(interval)) if interval < METRICS_INTERVAL_MIN => {
            Err(format!("shorter than {}, the shortest interval", humantime::format_duration(METRICS_INTERVAL_MIN)))
        }
        interval => Ok(interval),
    }
}

pub(super) fn parse_port(text: &str) -> Result<Port, String> {
    if text == "off" {
        return Ok(Port(None));
    }
    text.parse().map(|port| Port(Some(port))).map_err(|_| {
        if text.starts_with("tcp://") {
            // https://kubernetes.io/docs/concepts/containers/container-environment/#cluster-information
            "an address that Kubernetes sets for a service named disrust, not a port: say enableServiceLinks: false in \
             the pod"
                .to_owned()
        } else {
            format!("not a whole number in 0..={}, or off", u16::MAX)
        }
    })
}

/// A path that a file can have. One that begins with zero would be no file's.
pub(super) fn check_socket_path(path: PathBuf) -> Result<PathBuf, String> {
    let bytes = path.as_os_str().as_bytes();
    if path.file_name().is_none() || bytes.ends_with(b"/") || bytes.contains(&0) {
        return Err("not a path of a file, such as /run/disrust.sock".to_owned());
    }
    Ok(path)
}

pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let is_octal = (1..=4).contains(&text.len()) && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
    mode.ok_or_else(|| "not a mode in octal, such as 0660 or 0600".to_owned())
}

pub(super) fn parse_truth(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "not true or false".to_owned())
}

pub(super) fn parse_io_threads(text: &str) -> Result<usize, String> {
    parse_number(text, IO_THREADS_MAX)
}

pub(super) fn parse_features(text: &str) -> Result<usize, String> {
    parse_number(text, FEATURE_DIM_MAX)
}

/// Anything is an index, `all` or a name; a name is not empty.
pub(super) fn parse_output(text: &str) -> Result<Output, String> {
    match text.parse() {
        Ok(Output::Name(name)) if name.is_empty() => Err("not an index from 0, a name, or all".to_owned()),
        Ok(output) => Ok(output),
        Err(never) => match never {},
    }
}

pub(super) fn parse_model_name(text: &str) -> Result<String, String> {
    match text.len() {
        1..=NAME_BYTES_MAX => Ok(text.to_owned()),
        bytes => Err(format!("not a name of 1 to {NAME_BYTES_MAX} bytes, but of {bytes}")),
    }
}

/// Such as `1,8,64`: each of them once, in any order.
pub(super) fn parse_row_counts(text: &str) -> Result<RowCounts, String> {
    let counts: Result<Vec<_>, _> = text.split(',').map(|count| parse_number(count.trim(), VERIFY_ROWS_MAX)).collect();
    match counts? {
        counts if counts.len() > VERIFY_ROW_COUNTS_MAX => Err(format!("more than {VERIFY_ROW_COUNTS_MAX} numbers")),
        mut counts => {
            counts.sort_unstable();
            counts.dedup();
            Ok(RowCounts(counts))
        }
    }
}

pub(super) fn parse_max_connections(text: &str) -> Result<usize, String> {
    parse_number(text, CONNECTIONS_MAX)
}

pub(super) fn parse_number(text: &str, max: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if 1 <= number && number <= max => Ok(number),
        _ => Err(format!("not a whole number in 1..={max}")),
    }
}

/// The units that a size may have, in bytes. A letter alone has none: to systemd and Docker `M` is 1024², to Kubernetes 1000².
const SIZE_UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("kB", 1000),
    ("MB", 1000_u64.pow(2)),
    ("GB", 1000_u64.pow(3)),
    ("TB", 1000_u64.pow(4)),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

pub(super) fn parse_buffer_memory(text: &str) -> Result<usize, String> {
    match parse_size(text).and_then(|bytes| usize::try_from(bytes).ok()) {
        Some(bytes) if (BUFFER_MEMORY_BYTES_MIN..=BUFFER_MEMORY_BYTES_MAX).contains(&bytes) => Ok(bytes),
        Some(_) => {
            Err(format!("a size from {}MiB to {}TiB", BUFFER_MEMORY_BYTES_MIN >> 20, BUFFER_MEMORY_BYTES_MAX >> 40))
        }
        None => Err("not a size such as 256MiB, 64MB, 1GiB or a number of bytes".to_owned()),
    }
}

/// A whole number of one of [`SIZE_UNITS`], in either case; nothing if it is not that, or more than 2⁶⁴ bytes.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()));
    let (_, unit_bytes) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim_start()))?;
    digits.parse::<u64>().ok()?.checked_mul(*unit_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_the_sum_of_their_parts() {
        for (text, milliseconds) in [
            ("10s", 10_000),
            ("1m 30s", 90_000),
            (" 1h1m1s1ms ", 3_661_001),
            ("1.5s", 1500),
            ("0s", 0),
            ("1 0 ms", 10),
            ("1000ms 1s", 2000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", " ", "s", "10", "1s1", "-1s", "1s -1s", "1e3s", "1sm", "1,5s", "soon", "１s"] {
            assert!(parse_duration(text).is_err_and(|error| error.contains("not a time such as")), "{text}");
        }
    }

    #[test]
    fn sizes_are_exact_or_refused() {
        for (text, bytes) in [
            ("256MiB", 256 << 20),
            ("64MB", 64_000_000),
            ("1GiB", 1 << 30),
            ("1048576", 1_048_576),
            ("1048577B", 1_048_577),
            (" 2 gib ", 2 << 30),
            ("1TiB", 1 << 40),
            ("1025kib", 1_049_600),
            ("1049 KB", 1_049_000),
        ] {
            assert_eq!(parse_buffer_memory(text), Ok(bytes), "{text}");
        }
        for (text, said) in [
            ("0", "from 1MiB to 1TiB"),
            ("1048575", "from 1MiB to 1TiB"),
            ("1MB", "from 1MiB to 1TiB"),
            ("1099511627777", "from 1MiB to 1TiB"),
            ("18446744073709551615", "from 1MiB to 1TiB"),
            ("2TiB", "from 1MiB to 1TiB"),
            ("18446744073709551616", "not a size"),
            ("18446744073709551615 KiB", "not a size"),
            ("16777216TiB", "not a size"),
            ("-1MiB", "not a size"),
            ("+1MiB", "not a size"),
            ("1.5GiB", "not a size"),
            ("2e9", "not a size"),
            ("0x100000", "not a size"),
            ("64M", "not a size"),
            ("64 Mi B", "not a size"),
            ("1GiB 1MiB", "not a size"),
            ("MiB", "not a size"),
            ("", "not a size"),
            ("٣MiB", "not a size"),
        ] {
            let error = parse_buffer_memory(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
