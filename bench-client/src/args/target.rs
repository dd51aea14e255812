//! The flags that say what the server is like; a part of [`super`].
//!
//! They may stand before the command or behind it, but a command offers only those that it uses: another one is a usage
//! error, and is in no help.
//!
//! Invariants: as there; every command has a line in [`OFFERS`].

use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, CommandFactory, value_parser};
use disrust_protocol::FEATURE_DIM;

use super::heading;
use crate::connect::Target;

/// The largest `--features`.
///
/// Larger: the load engine holds its largest requests encoded, 64 MiB of them at this bound.
/// Smaller: a server with such a model could not be tried.
const FEATURES_MAX: i64 = 4096;

/// The longest `--timeout`. Larger: a stalled run looks like one that will not end. Smaller: only limits patience.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// What a command takes of the target.
struct Offer {
    command: &'static str,
    has_port: bool,
    flags: &'static [&'static str],
}

const ALL: &[&str] = &["host", "features", "timeout", "hello", "seed"];

const OFFERS: [Offer; 11] = [
    Offer { command: "smoke", has_port: true, flags: ALL },
    Offer { command: "pipeline", has_port: true, flags: ALL },
    Offer { command: "bench", has_port: true, flags: ALL },
    Offer { command: "floor", has_port: true, flags: &["host", "features"] },
    Offer { command: "run", has_port: true, flags: ALL },
    Offer { command: "search", has_port: true, flags: ALL },
    Offer { command: "compare", has_port: false, flags: &[] },
    Offer { command: "probe", has_port: true, flags: ALL },
    Offer { command: "sweep", has_port: false, flags: &["features", "timeout", "seed"] },
    Offer { command: "pairs", has_port: false, flags: &[] },
    Offer { command: "table", has_port: false, flags: &[] },
];

/// Where the server is to be found: a port, or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    port: u16,
    path: Option<PathBuf>,
}

/// Reads an [`Address`].
pub fn address(text: &str) -> Result<Address, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("a path stands behind unix:".to_owned()),
        Some(path) => Ok(Address { port: 0, path: Some(path.into()) }),
        None => match text.parse() {
            Ok(port @ 1..) => Ok(Address { port, path: None }),
            Ok(0) | Err(_) => Err("not a port in 1..=65535, or unix:PATH".to_owned()),
        },
    }
}

/// Of the [`Target`] all but the port.
#[derive(Args)]
pub struct TargetFlags {
    /// The name or address of the server.
    #[arg(long, default_value = "127.0.0.1", help_heading = heading::SERVER)]
    host: String,
    /// Features in a vector, as the server has them.
    #[arg(long, default_value_t = FEATURE_DIM as u32, help_heading = heading::REQUESTS)]
    #[arg(value_parser = value_parser!(u32).range(1..=FEATURES_MAX))]
    features: u32,
    /// Gives up when the server lets us wait for so long (`500ms`, `10s`).
    #[arg(long, default_value = "10s", value_parser = timeout, help_heading = heading::SERVER)]
    timeout: Duration,
    /// Says hello first on each connection, for vectors of --features, and checks what the server says of itself.
    #[arg(long, help_heading = heading::SERVER)]
    hello: bool,
    /// Seed of the random vectors; the same seed sends the same bytes.
    #[arg(long, default_value_t = 1, help_heading = heading::REQUESTS)]
    seed: u64,
}

impl TargetFlags {
    /// The target that `matches` of the whole line means, with these flags before its command.
    pub fn target(self, address: Address, matches: &ArgMatches) -> Result<Target, clap::Error> {
        let TargetFlags { host, features, timeout, hello: says_hello, seed } = self;
        let Address { port, path } = address;
        let before = Target { port, path, host, features, timeout, says_hello, seed };
        let Some((name, behind)) = matches.subcommand() else { return Ok(before) };
        let offered = OFFERS.iter().find(|offer| offer.command == name).map_or(ALL, |offer| offer.flags);
        if let Some(flag) = ALL.iter().find(|flag| is_given(matches, flag) && !offered.contains(flag)) {
            let message = format!("`{name}` has no use for --{flag}");
            return Err(offer_flags(super::CommandLine::command()).error(ErrorKind::ArgumentConflict, message));
        }
        Ok(Target {
            port,
            path: before.path,
            host: given(behind, "host").unwrap_or(before.host),
            features: given(behind, "features").unwrap_or(before.features),
            timeout: given(behind, "timeout").unwrap_or(before.timeout),
            says_hello: given(behind, "hello").unwrap_or(before.says_hello),
            seed: given(behind, "seed").unwrap_or(before.seed),
        })
    }
}

fn given<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, flag: &str) -> Option<T> {
    if is_given(matches, flag) { matches.get_one(flag).cloned() } else { None }
}

/// Whether a flag that the command may not even have was given to it.
fn is_given(matches: &ArgMatches, flag: &str) -> bool {
    matches.try_contains_id(flag).is_ok() && matches.value_source(flag) == Some(ValueSource::CommandLine)
}

/// Gives each command of `line` its flags, and those with a port a usage that shows where it goes.
pub fn offer_flags(line: Command) -> Command {
    let flags: Vec<Arg> = TargetFlags::augment_args(Command::new("flags")).get_arguments().cloned().collect();
    OFFERS.iter().fold(line, |line, offer| {
        let offered = flags.iter().filter(|flag| offer.flags.contains(&flag.get_id().as_str())).cloned();
        line.mut_subcommand(offer.command, |command| {
            let command = command.args(offered);
            if !offer.has_port {
                return command;
            }
            let usage = command.clone().render_usage().to_string();
            let words = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
            command.override_usage(format!("client [PORT] {words}"))
        })
    })
}

/// Adds to an error about a number behind a command that a port may be meant, and where it goes.
pub fn tell_where_the_port_goes(mut error: clap::Error, words: &[String]) -> clap::Error {
    let is_number = |value: &ContextValue| matches!(value, ContextValue::String(word) if word.parse::<u16>().is_ok());
    let command = words.iter().find_map(|word| OFFERS.iter().find(|offer| offer.command == word && offer.has_port));
    if let (Some(offer), ErrorKind::UnknownArgument) = (command, error.kind())
        && error.get(ContextKind::InvalidArg).is_some_and(is_number)
    {
        let tip = format!("the PORT stands before the command: client PORT {}", offer.command);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// A duration that a socket takes as its timeout, which 0 is not.
fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if timeout < Duration::from_millis(1) || timeout > TIMEOUT_MAX {
        return Err("not between 1ms and 1h".to_owned());
    }
    Ok(timeout)
}

#[cfg(test)]
mod tests {
    use super::super::{Arguments, CommandLine};
    use super::*;

    fn error(line: &str) -> String {
        Arguments::read(line.split_whitespace()).expect_err(line).to_string()
    }

    fn help(command: &str) -> String {
        error(&format!("client {command} --help"))
    }

    /// The promise: no command is forgotten.
    #[test]
    fn every_command_has_its_offer() {
        let commands = CommandLine::command();
        let mut names: Vec<&str> = commands.get_subcommands().map(Command::get_name).collect();
        let mut offered: Vec<&str> = OFFERS.iter().map(|offer| offer.command).collect();
        names.sort_unstable();
        offered.sort_unstable();
        assert_eq!(names, offered);
    }

    /// The promise: a flag that a command does not use is in no help of it, and refused on either side of it.
    #[test]
    fn a_command_offers_what_it_uses() {
        for (command, unused) in [
            ("floor --kind epoll", &["--timeout 1s", "--seed 2"][..]),
            ("sweep", &["--host ::1"]),
            ("compare a b", &["--host ::1", "--features 4", "--timeout 1s", "--seed 2"]),
            ("search --slo p99<1ms", &["--server-version 1"]),
        ] {
            let name = command.split(' ').next().expect("a command");
            for flag in unused {
                let word = flag.split(' ').next().expect("a flag");
                assert!(!help(name).contains(word), "{name} {word}");
                assert!(error(&format!("client {command} {flag}")).contains(word), "{command} {flag}");
                assert!(error(&format!("client {flag} {command}")).contains(word), "{flag} {command}");
            }
        }
        assert!(help("run").contains("--timeout") && help("sweep").contains("--seed"));
    }

    /// The promise: the usage shows where the port goes, of commands that have one.
    #[test]
    fn the_usage_shows_the_port() {
        for offer in OFFERS {
            let shown = help(offer.command).contains(&format!("Usage: client [PORT] {}", offer.command));
            assert_eq!(shown, offer.has_port, "{}", offer.command);
        }
        assert!(help("bench").contains("client [PORT] bench [OPTIONS] <CONNS> <REQUESTS>"), "{}", help("bench"));
    }

    /// The promise: a port behind the command is told where it goes, and nothing else is taken for a port.
    #[test]
    fn a_port_at_the_wrong_place_is_told() {
        for (line, tip) in [
            ("client run 30100", "client PORT run"),
            ("client smoke 30100", "client PORT smoke"),
            ("client bench 30100 64 1000", "client PORT bench"),
            ("client run --closed 30100 --window 3", "client PORT run"),
        ] {
            assert!(error(line).contains(&format!("the PORT stands before the command: {tip}")), "{}", error(line));
        }
        for line in ["client run nonsense", "client run 70000", "client sweep 30100", "client run --rate"] {
            assert!(!error(line).contains("the PORT stands"), "{line}");
        }
    }

    /// The promise: the many options of `run` stand in groups, and none beside them.
    #[test]
    fn the_options_of_run_are_grouped() {
        use heading::{CLIENT, CONNECTIONS, FILES, LOAD, REQUESTS, SERVER, VERDICT};
        let help = help("run");
        for heading in [LOAD, CONNECTIONS, REQUESTS, SERVER, CLIENT, VERDICT, FILES] {
            assert!(help.contains(&format!("\n{heading}:\n")), "{heading} is not in {help}");
        }
        let (_, behind) = help.split_once("\nOptions:\n").expect("options without a group");
        let (plain, _) = behind.split_once(":\n").expect("a group");
        assert_eq!(plain.matches("--").count(), 1, "only --help: {plain}");
    }
}
