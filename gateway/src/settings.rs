//! What the operator asked for: flag, else environment (`DISRUST_GATEWAY_*`), else default.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::limits::{BODY_BYTES_MAX, CONNECTIONS_MAX, NAME_BYTES_MAX, SERVERS_MAX, THREADS_MAX, TIME_MAX};

/// The version, and the commit that it was built of.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("DISRUST_COMMIT"), ")");

/// KServe v2 (Open Inference Protocol) over HTTP in front of disrust servers.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "disrust-gateway", version = VERSION, about, max_term_width = 100, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Settings {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub action: Option<Action>,

    /// Address to listen on; port 0 lets the kernel choose a free one
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen, default_value_t = DEFAULT_LISTEN, global = true,
          help_heading = "Listening")]
    pub listen: SocketAddr,

    /// Connections at once; one more takes the place of the one that has been idle for longest, or is turned away with status 503
    #[arg(long, value_name = "N", value_parser = parse_max_connections, default_value_t = 1024, help_heading = "Listening")]
    pub max_connections: usize,

    /// Threads that serve, each with connections of its own to each server
    #[arg(long, value_name = "N", value_parser = parse_threads, default_value_t = 1, help_heading = "Listening")]
    pub threads: usize,

    /// Servers to score with, separated by commas: HOST:PORT, or unix:PATH; all of them serve one model
    #[arg(long, value_name = "ADDR[,ADDR...]", value_parser = parse_servers, default_value = "127.0.0.1:9900",
          help_heading = "Servers")]
    pub server: Servers,

    /// What the tensor of rows is called
    #[arg(long, value_name = "NAME", value_parser = parse_name, default_value = "input", help_heading = "Tensors")]
    pub input_name: String,

    /// What the tensor of scores is called
    #[arg(long, value_name = "NAME", value_parser = parse_name, default_value = "output", help_heading = "Tensors")]
    pub output_name: String,

    /// The largest body of a request, such as 16MiB or a number of bytes; a larger one is refused with status 413
    #[arg(long, value_name = "SIZE", value_parser = parse_max_body, default_value = "16MiB", help_heading = "Limits")]
    pub max_body: Size,

    /// What all bodies together may take; one more is refused with status 429
    #[arg(long, value_name = "SIZE", value_parser = parse_body_memory, default_value = "256MiB", help_heading = "Limits")]
    pub body_memory: Size,

    /// How long a request may take from its head to its answer: a body that is later is refused with status 408, an answer that is
    /// later is status 504
    #[arg(long, value_name = "TIME", value_parser = parse_timeout, default_value = "30s", help_heading = "Limits")]
    pub request_timeout: Time,

    /// Close connections that have been idle for this long
    #[arg(long, value_name = "TIME", value_parser = parse_timeout, default_value = "75s", help_heading = "Limits")]
    pub idle_timeout: Time,

    /// On SIGTERM or SIGINT, say that it is not ready, and serve on for so long before draining; a second signal drains at once
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "0s", help_heading = "Stopping")]
    pub shutdown_delay: Time,

    /// Cut connections that are still open after draining for this long
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "10s", help_heading = "Stopping")]
    pub drain_timeout: Time,

    /// How the log on stderr is written: lines for people, or an object a line
    #[arg(long, value_name = "text|json", value_parser = parse_log_format, default_value = "text", help_heading = "Log")]
    pub log_format: LogFormat,
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);

const AFTER_HELP: &str = "\
Each flag can be set in the environment as DISRUST_GATEWAY_<FLAG>, for example DISRUST_GATEWAY_LISTEN=0.0.0.0:8000; a variable \
that is empty counts as not set. A flag beats the environment. The longest time is 365 days.

There is no TLS and no authentication: whoever reaches the address can score.

Exit status: 0 drained after SIGTERM or SIGINT, 2 usage, 70 internal error, 71 cannot listen.";

/// What to do instead of serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Action {
    /// Ask the gateway that runs with the same --listen whether it is ready, and end with status 0 or 1
    Health,
}

/// A size in bytes, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub usize);

/// A time, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

/// Addresses of servers, each HOST:PORT or unix:PATH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers(pub Vec<String>);

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// Reads a command line, whose first word is the program, and what it leaves out from the environment.
    ///
    /// # Errors
    /// Usage is wrong, or help or the version was asked for.
    pub fn read(
        words: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Settings, clap::Error> {
        let mut words: Vec<OsString> = words.into_iter().collect();
        let command = Settings::command().mut_args(name_variable);
        let given = command.clone().try_get_matches_from(&words)?;
        // What a flag has set is not even looked at.
        let flags =
            command.get_arguments().filter(|argument| argument.get_long().is_some_and(|long| !is_built_in(long)));
        for argument in flags {
            let (id, variable) = (argument.get_id().as_str(), variable_of(argument));
            let is_given = given.value_source(id) == Some(ValueSource::CommandLine);
            let Some(value) = environment(&variable).filter(|value| !is_given && !value.is_empty()) else { continue };
            let mut word = OsString::from(format!("--{}=", argument.get_long().expect("only long flags are here")));
            word.push(&value);
            let alone = Settings::command().no_binary_name(true).try_get_matches_from([&word]);
            if let Err(error) = alone {
                let reason = std::error::Error::source(&error).map_or("not a value".to_owned(), ToString::to_string);
                let message = format!(
                    "{variable} in the environment is {value:?}: {reason}; unset it, or give --{}, which beats it",
                    argument.get_long().expect("as above")
                );
                return Err(Settings::command().error(clap::error::ErrorKind::ValueValidation, message));
            }
            // Before what may be an action, which takes few flags itself.
            words.insert(words.len().min(1), word);
        }
        Settings::from_arg_matches(&command.try_get_matches_from(words)?)
    }
}

fn is_built_in(long: &str) -> bool {
    matches!(long, "help" | "version")
}

/// The environment variable of a flag.
fn variable_of(argument: &Arg) -> String {
    let key = argument.get_long().expect("all arguments are long flags");
    format!("DISRUST_GATEWAY_{}", key.replace('-', "_").to_uppercase())
}

/// Adds its variable to what `--help` says of a flag.
fn name_variable(argument: Arg) -> Arg {
    let Some(help) = argument.get_help().filter(|_| argument.get_long().is_some_and(|long| !is_built_in(long))) else {
        return argument;
    };
    let help = format!("{help} [env: {}]", variable_of(&argument));
    argument.help(help)
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an address with a port, such as 127.0.0.1:8000 or [::1]:8000".to_owned())
}

fn parse_servers(text: &str) -> Result<Servers, String> {
    let servers: Vec<String> = text.split(',').map(|server| server.trim().to_owned()).collect();
    if servers.len() > SERVERS_MAX {
        return Err(format!("more than {SERVERS_MAX} servers"));
    }
    let is_server = |server: &str| match server.strip_prefix("unix:") {
        Some(path) => !path.is_empty(),
        None => server
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)),
    };
    match servers.iter().find(|server| !is_server(server)) {
        Some(wrong) => Err(format!("{wrong:?} is not HOST:PORT, such as 127.0.0.1:9900, or unix:PATH")),
        None => Ok(Servers(servers)),
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    match text.len() {
        1..=NAME_BYTES_MAX => Ok(text.to_owned()),
        bytes => Err(format!("not a name of 1 to {NAME_BYTES_MAX} bytes, but of {bytes}")),
    }
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("not text or json".to_owned()),
    }
}

fn parse_max_connections(text: &str) -> Result<usize, String> {
    parse_number(text, CONNECTIONS_MAX)
}

fn parse_threads(text: &str) -> Result<usize, String> {
    parse_number(text, THREADS_MAX)
}

fn parse_number(text: &str, max: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if 1 <= number && number <= max => Ok(number),
        _ => Err(format!("not a whole number in 1..={max}")),
    }
}

fn parse_time(text: &str) -> Result<Time, String> {
    // Humantime 2.4 panics where the sum is 2^64 seconds; a time of so many letters is none.
    const LETTERS_MAX: usize = 15;
    if text.len() > LETTERS_MAX {
        return Err("not a time such as 10s, 500ms or 2m: it is too long".to_owned());
    }
    match humantime::parse_duration(text) {
        Ok(time) if time <= TIME_MAX => Ok(Time(time)),
        Ok(_) => Err(format!("longer than {} days, the longest time", TIME_MAX.as_secs() / (24 * 60 * 60))),
        Err(error) => Err(format!("not a time such as 10s, 500ms or 2m: {error}")),
    }
}

fn parse_timeout(text: &str) -> Result<Time, String> {
    match parse_time(text)? {
        Time(Duration::ZERO) => Err("a timeout is longer than 0".to_owned()),
        timeout => Ok(timeout),
    }
}

fn parse_max_body(text: &str) -> Result<Size, String> {
    parse_size(text, BODY_BYTES_MAX)
}

fn parse_body_memory(text: &str) -> Result<Size, String> {
    parse_size(text, usize::MAX)
}

/// The units that a size may have, in bytes; a letter alone has none, as it means different sizes to different programs.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

fn parse_size(text: &str, max: usize) -> Result<Size, String> {
    const BYTES_MIN: usize = 1024;
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
    let unit = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim_start()));
    let bytes = unit.and_then(|(_, bytes)| digits.parse::<u64>().ok()?.checked_mul(*bytes));
    match bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
        Some(bytes) if (BYTES_MIN..=max).contains(&bytes) => Ok(Size(bytes)),
        Some(_) => Err(format!("not from {BYTES_MIN} bytes to {} bytes", max)),
        None => Err("not a size such as 64MiB, 64MB, 1GiB or a number of bytes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_in(environment: &[(&str, &str)], flags: &[&str]) -> Result<Settings, clap::Error> {
        let words = ["disrust-gateway"].iter().chain(flags).map(OsString::from);
        Settings::read(words, |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn refused(environment: &[(&str, &str)], flags: &[&str]) -> String {
        read_in(environment, flags).expect_err("it is wrong").to_string()
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let settings = read_in(&[], &[]).expect("defaults are right");
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8000");
        assert_eq!(settings.server.0, ["127.0.0.1:9900"]);
        assert_eq!((&*settings.input_name, &*settings.output_name), ("input", "output"));
        assert_eq!(settings.drain_timeout, Time(Duration::from_secs(10)));
    }

    /// The flag beats the environment, which beats the default; what is overridden does not count, and an empty variable is none.
    #[test]
    fn each_flag_has_its_variable() {
        for (key, low, high) in [
            ("listen", "127.0.0.1:1", "[::1]:2"),
            ("max-connections", "1", "2"),
            ("threads", "2", "3"),
            ("server", "a:1,unix:/b", "c:2"),
            ("input-name", "x", "y"),
            ("output-name", "x", "y"),
            ("max-body", "1MiB", "2097152"),
            ("body-memory", "1MiB", "2 MB"),
            ("request-timeout", "1s", "2s"),
            ("idle-timeout", "1s", "2s"),
            ("shutdown-delay", "1s", "2s"),
            ("drain-timeout", "1s", "2s"),
            ("log-format", "json", "text"),
        ] {
            let variable = format!("DISRUST_GATEWAY_{}", key.replace('-', "_").to_uppercase());
            let flag = |value: &str| format!("--{key}={value}");
            let [low_settings, high_settings] =
                [low, high].map(|value| read_in(&[], &[&flag(value)]).expect("a good flag"));
            assert_ne!(low_settings, high_settings, "{key}");
            let default = read_in(&[], &[]).expect("defaults");
            for (value, flags, expected) in [
                (low, &[][..], &low_settings),
                (high, &[], &high_settings),
                (low, &[flag(high)][..], &high_settings),
                ("\u{1}nonsense", &[flag(high)], &high_settings),
                ("", &[], &default),
            ] {
                let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
                assert_eq!(&read_in(&[(&variable, value)], &flags).expect("good settings"), expected, "{key}");
            }
            let help = refused(&[], &["--help"]);
            assert!(help.split_whitespace().collect::<String>().contains(&format!("[env:{variable}]")), "{help}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (flags, said) in [
            (&["--listen", "8000"][..], "--listen"),
            (&["--listen", "localhost:8000"], "127.0.0.1:8000"),
            (&["--server", "9900"], "is not HOST:PORT"),
            (&["--server", "a:1,,b:2"], "is not HOST:PORT"),
            (&["--server", "a:0"], "is not HOST:PORT"),
            (&["--server", "unix:"], "is not HOST:PORT"),
            (&["--threads", "0"], "1..=64"),
            (&["--max-connections", "x"], "--max-connections"),
            (&["--input-name", ""], "1 to 255"),
            (&["--max-body", "2GiB"], "--max-body"),
            (&["--max-body", "64M"], "not a size"),
            (&["--request-timeout", "0s"], "longer than 0"),
            (&["--idle-timeout", "soon"], "not a time"),
            (&["--drain-timeout", "366days"], "365 days"),
            (&["--drain-timeout", "18446744073709551615s"], "not a time"),
            (&["--log-format", "xml"], "text or json"),
            (&["--port", "1"], "--port"),
        ] {
            let message = refused(&[], flags);
            assert!(message.contains(said), "{flags:?}: {message}");
        }
        let message = refused(&[("DISRUST_GATEWAY_THREADS", "many")], &[]);
        assert!(message.contains("DISRUST_GATEWAY_THREADS in the environment is \"many\""), "{message}");
    }
}
