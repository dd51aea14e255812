//! What the operator asked for: flag, else environment (`DISRUST_*`), else config file, else default.
//!
//! The only room that names clap, which reads the command line and checks single values. The environment and the file are
//! read here, so that what is overridden does not count, and what is wrong is said of the source that it came from. It
//! checks what can be checked without the machine; what the machine makes of it is [`placement`]'s and [`crate::server`]'s.
#![forbid(unsafe_code)]

pub mod cpu_list;
pub mod health;
mod log_format;
pub mod placement;
mod printed;
mod settings;
mod sources;
mod values;
pub mod verify;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};
use disrust_model::LoadOptions;
use disrust_model::form::{Choice, Output};
use thiserror::Error;

use crate::config::placement::{HelpBatch, Pin, PinPolicy, Wait};
use crate::limits::BUFFER_MEMORY_BYTES;
use health::HealthFlags;
pub use log_format::LogFormat;
use settings::{Arguments, Settings};
use sources::{name_variable, read_environment, read_file};
use verify::VerifyOptions;

/// A server's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address or name to listen on.
    pub host: String,
    /// Where the admin port is, if there is one.
    pub admin: Option<SocketAddr>,
    /// TCP port, if there is to be one; 0 lets the kernel choose.
    pub port: Option<u16>,
    /// Path of a Unix socket, if there is to be one.
    pub unix: Option<PathBuf>,
    /// Mode of its file.
    pub unix_mode: u32,
    /// Other processes may listen on the same port, and the path may be another process's until this one listens.
    pub reuse_port: bool,
    /// I/O threads, or as many as suit the machine.
    pub io_threads: Option<usize>,
    /// Where the threads run.
    pub pin: Pin,
    /// What to do about a CPU that is not there.
    pub pin_policy: PinPolicy,
    /// How the threads wait.
    pub wait: Wait,
    /// Whether I/O threads help the batch processor.
    pub help_batch: HelpBatch,
    /// What to serve.
    pub model: ModelChoice,
    /// What to call it, if not as it calls itself.
    pub model_name: Option<String>,
    /// Which of the model's outputs, if it has several.
    pub output: Option<Output>,
    /// Its margin instead of its score.
    pub raw: bool,
    /// Features in a vector, or what the model says.
    pub features: Option<usize>,
    /// Connections at once, or as many as the descriptor limit allows.
    pub max_connections: Option<usize>,
    /// Bytes that all peers together can make the server hold beyond its fixed buffers.
    pub buffer_memory: usize,
    /// How long a connection may be idle.
    pub idle_timeout: Option<Duration>,
    /// How old a connection may become, about.
    pub max_connection_age: Option<Duration>,
    /// How long a request may take from its first byte to its last, and answers may wait for the peer to read.
    pub request_timeout: Option<Duration>,
    /// How long a request may wait to be scored before it is shed, if that is bounded.
    pub max_queue_delay: Option<Duration>,
    /// How long the server serves on, and says that it leaves, before it drains.
    pub shutdown_delay: Duration,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Whether system calls are given up once the server runs.
    pub seccomp: bool,
    /// Whether stage times are taken.
    pub stage_times: bool,
    /// How often metrics are printed, if they are.
    pub metrics_interval: Option<Duration>,
    /// How the log is written.
    pub log_format: LogFormat,
    /// The file that some of this came from.
    pub file: Option<PathBuf>,
}

/// Whether it was built to print metrics: `cargo build --features metrics`.
const WITH_METRICS: bool = cfg!(feature = "metrics");

/// The version, the commit that it was built of, and what was built in.
pub const VERSION: &str = if WITH_METRICS {
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("DISRUST_COMMIT"), ", with metrics)")
} else {
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("DISRUST_COMMIT"), ")")
};

impl Default for Config {
    fn default() -> Config {
        Config {
            host: "127.0.0.1".to_owned(),
            admin: None,
            port: Some(9900),
            unix: None,
            unix_mode: 0o660,
            reuse_port: false,
            io_threads: None,
            pin: Pin::Auto,
            pin_policy: PinPolicy::BestEffort,
            wait: Wait::Auto,
            help_batch: HelpBatch::Auto,
            model: ModelChoice::Sum,
            model_name: None,
            output: None,
            raw: false,
            features: None,
            max_connections: None,
            buffer_memory: BUFFER_MEMORY_BYTES,
            idle_timeout: None,
            max_connection_age: None,
            request_timeout: Some(Duration::from_secs(30)),
            max_queue_delay: None,
            shutdown_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
            seccomp: false,
            stage_times: WITH_METRICS,
            metrics_interval: WITH_METRICS.then_some(Duration::from_secs(10)),
            log_format: LogFormat::Text,
            file: None,
        }
    }
}

/// Which model to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelChoice {
    /// The sum of the features.
    Sum,
    /// A model file.
    File(PathBuf),
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The command line or the environment is wrong, or help or the version was asked for.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The config file is wrong.
    #[error("config file {path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

/// What a command line asks for.
#[derive(Debug)]
pub enum CommandLine {
    /// To serve; what it leaves out is in the environment and in a file.
    Serve(Flags),
    /// To look at a model file, and to end.
    Verify(VerifyOptions),
    /// To ask a running server whether it is ready, and to end.
    Health(HealthFlags),
    /// To print this, and to end.
    Print(Vec<u8>),
}

/// The flags of a server.
#[derive(Debug)]
pub struct Flags(ArgMatches);

impl CommandLine {
    /// Reads what a process was started with (the first word is the program's name), and nothing else.
    ///
    /// # Errors
    /// See [`ConfigError::Usage`]; a request for help or the version is one of clap's errors too.
    pub fn read<I, T>(arguments: I) -> Result<CommandLine, ConfigError>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let matches = command().try_get_matches_from(arguments)?;
        match matches.subcommand() {
            None => Ok(CommandLine::Serve(Flags(matches))),
            Some((verify::NAME, matches)) => Ok(CommandLine::Verify(VerifyOptions::from_arg_matches(matches)?)),
            Some((health::NAME, matches)) => Ok(CommandLine::Health(HealthFlags::from_arg_matches(matches)?)),
            Some((name, matches)) => Ok(CommandLine::Print(printed::print(command(), name, matches))),
        }
    }
}

fn command() -> Command {
    let verify = VerifyOptions::command().name(verify::NAME);
    let health = HealthFlags::command().name(health::NAME);
    let commands = [verify, health].into_iter().chain(printed::commands());
    Arguments::command().mut_args(name_variable).subcommands(commands).args_conflicts_with_subcommands(true)
}

impl Flags {
    /// Completes the flags by the process's environment and by the config file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn config(self) -> Result<Config, ConfigError> {
        self.config_in(|variable| std::env::var_os(variable))
    }

    fn config_in(self, environment: impl Fn(&str) -> Option<OsString>) -> Result<Config, ConfigError> {
        let Flags(flags) = self;
        let not_set = |argument: &Arg| !flags.contains_id(argument.get_id().as_str());
        let environment = read_environment(not_set, environment).map_err(usage)?;
        let asked = Arguments::from_arg_matches(&flags)?.or(environment);
        let file = match &asked.config {
            Some(path) => read_file(path)?,
            None => Settings::default(),
        };
        let config = Config { file: asked.config, ..asked.settings.or(file).into_config() };
        config.check_listeners().map_err(usage)?;
        config.check_threads().map_err(usage)?;
        config.check_model().map_err(usage)?;
        Ok(config)
    }
}

impl HealthFlags {
    /// The admin port of the server whose flags, environment and config file these are; nothing if it has none.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn address(self) -> Result<Option<SocketAddr>, ConfigError> {
        self.address_in(|variable| std::env::var_os(variable))
    }

    fn address_in(self, environment: impl Fn(&str) -> Option<OsString>) -> Result<Option<SocketAddr>, ConfigError> {
        let HealthFlags { admin, config } = self;
        let settings = Settings { admin, ..Settings::default() };
        let is_known = |argument: &Arg| match argument.get_id().as_str() {
            "admin" => admin.is_none(),
            "config" => config.is_none(),
            _ => false,
        };
        let environment = read_environment(is_known, environment).map_err(usage)?;
        let asked = Arguments { settings, config: config.clone() }.or(environment);
        let file = match &asked.config {
            // What else is in it is the server's affair, but for its being right.
            Some(path) if asked.settings.admin.is_none() => read_file(path)?,
            Some(_) | None => Settings::default(),
        };
        Ok(asked.settings.or(file).into_config().admin)
    }
}

impl Config {
    /// How a model file is to be loaded.
    pub fn load_options(&self) -> LoadOptions {
        let choice = Choice { output: self.output.clone(), raw: self.raw };
        LoadOptions { name: self.model_name.clone(), choice, features: self.features }
    }

    /// I/O threads, if the flags say how many: a list of CPUs does, too.
    pub fn io_threads_asked(&self) -> Option<usize> {
        match (&self.pin, self.io_threads) {
            (_, Some(threads)) => Some(threads),
            (Pin::List(cpus), None) => Some(cpus.len() - 1),
            (Pin::Auto | Pin::None, None) => None,
        }
    }

    fn check_listeners(&self) -> Result<(), String> {
        match (self.port, &self.unix) {
            (None, None) => Err("--port off leaves nothing to listen on: give --unix PATH, or a port".to_owned()),
            _ => Ok(()),
        }
    }

    fn check_threads(&self) -> Result<(), String> {
        match (&self.pin, self.io_threads) {
            (Pin::List(cpus), Some(threads)) if cpus.len() != threads + 1 => Err(format!(
                "--pin names {} CPUs, but --io-threads {threads} needs {}: one for each I/O thread and one for the \
                 batch processor",
                cpus.len(),
                threads + 1
            )),
            (Pin::List(cpus), None) if cpus.len() < 2 => {
                Err("--pin names 1 CPU, but at least 2 are needed: one for each I/O thread and one for the batch \
                     processor; to run both on one CPU, name it twice"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The sum has one output, and nothing behind it.
    fn check_model(&self) -> Result<(), String> {
        match (&self.model, &self.output) {
            (ModelChoice::Sum, Some(output @ (Output::Index(1..) | Output::Name(_)))) => Err(format!(
                "--output {output}: the sum has one output, which is number 0; to choose one of a model file's, name the \
                 file with --model PATH"
            )),
            (ModelChoice::Sum, _) if self.raw => {
                Err("--raw: the sum has no margin behind its score; to serve that of a \
                 model file, name the file with --model PATH"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn usage(message: String) -> clap::Error {
    Arguments::command().error(ErrorKind::ValueValidation, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;
    use std::path::Path;

    use super::sources::{key_of, parse_file, parse_setting};
    use super::*;
    use crate::exchange::wait::WaitStrategy;

    fn read(arguments: &[&str]) -> Result<Config, ConfigError> {
        read_in(&[], arguments)
    }

    fn config_of(arguments: &[&str], environment: impl Fn(&str) -> Option<OsString>) -> Result<Config, ConfigError> {
        match CommandLine::read(["disrust"].iter().chain(arguments))? {
            CommandLine::Serve(flags) => flags.config_in(environment),
            other => panic!("{arguments:?} does not serve: {other:?}"),
        }
    }

    /// What a process with this environment reads.
    fn read_in(environment: &[(&str, &str)], arguments: &[&str]) -> Result<Config, ConfigError> {
        config_of(arguments, |variable| {
            environment.iter().find(|(name, _)| *name == variable).map(|(_, value)| value.into())
        })
        // What is set counts here, not where.
        .map(|config| Config { file: None, ..config })
    }

    fn usage_error(arguments: &[&str]) -> String {
        usage_error_in(&[], arguments)
    }

    fn usage_error_in(environment: &[(&str, &str)], arguments: &[&str]) -> String {
        match read_in(environment, arguments) {
            Err(ConfigError::Usage(error)) => {
                assert_eq!(error.exit_code(), 2, "{environment:?} {arguments:?}");
                error.to_string()
            }
            other => panic!("{environment:?} {arguments:?} is no usage error: {other:?}"),
        }
    }

    /// A config file of one test; it goes when it is dropped.
    struct TemporaryFile(PathBuf);

    impl TemporaryFile {
        fn new(name: &str, content: &str) -> TemporaryFile {
            let path = std::env::temp_dir().join(format!("disrust-{}-{name}.toml", std::process::id()));
            std::fs::write(&path, content).expect("the folder for temporary files can be written");
            TemporaryFile(path)
        }

        fn path(&self) -> &str {
            self.0.to_str().expect("a path in UTF-8")
        }
    }

    impl Drop for TemporaryFile {
        fn drop(&mut self) {
            // Left behind, it harms nobody.
            let _gone_before = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_flags_give_the_defaults() {
        assert_eq!(read(&[]).ok(), Some(Config::default()));
    }

    /// Every flag: two values that differ, and a bad one.
    const VALUES: &[(&str, [&str; 2], &str)] = &[
        ("port", ["1", "2"], "abc"),
        ("unix", ["a.sock", "/run/b.sock"], ""),
        ("unix-mode", ["0600", "0666"], "0999"),
        ("host", ["::1", "localhost"], ""),
        ("io-threads", ["2", "3"], "0"),
        ("pin", ["0-2", "none"], "0-"),
        ("pin-policy", ["strict", "best-effort"], "maybe"),
        ("wait", ["spin", "park"], "sleep"),
        ("help-batch", ["on", "off"], "yes"),
        ("model", ["a.onnx", "sum"], ""),
        ("model-name", ["credit", "all"], ""),
        ("output", ["1", "all"], ""),
        ("raw", ["true", "false"], "maybe"),
        ("features", ["3", "4"], "4097"),
        ("max-connections", ["8", "9"], "-1"),
        ("buffer-memory", ["1MiB", "2 GiB"], "64M"),
        ("idle-timeout", ["5s", "off"], "5"),
        ("max-connection-age", ["15m", "off"], "15"),
        ("request-timeout", ["off", "7m"], "0s"),
        ("max-queue-delay", ["5ms", "off"], "5"),
        ("shutdown-delay", ["5s", "1m"], "off"),
        ("drain-timeout", ["1s", "1h 1s"], "off"),
        #[cfg(feature = "metrics")]
        ("metrics-interval", ["1s", "off"], "often"),
        ("admin", ["127.0.0.1:9901", "off"], "9901"),
        ("log-format", ["json", "text"], "yaml"),
        ("reuse-port", ["true", "false"], "maybe"),
        ("seccomp", ["true", "false"], "1"),
    ];

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file() {
        let known = Settings::command();
        let known: Vec<_> = known.get_arguments().map(key_of).collect();
        assert!(known.iter().all(|key| VALUES.iter().any(|(tested, ..)| tested == key)), "{known:?}");
        for (key, values, bad) in VALUES {
            let variable = format!("DISRUST_{}", key.replace('-', "_").to_uppercase());
            let flag = |value: &str| format!("--{key}={value}");
            // Some make sense for model files only.
            let others: &[(&str, &str)] = if *key == "model" { &[] } else { &[("DISRUST_MODEL", "a.onnx")] };
            let default = read_in(others, &[]).expect("good settings");
            for (low, high) in [(values[0], values[1]), (values[1], values[0])] {
                let file = TemporaryFile::new(&format!("low-{key}"), &format!("{key} = \"{low}\""));
                let file = ["--config", file.path()];
                let [low_config, high_config] =
                    [low, high].map(|value| read_in(others, &[&flag(value)]).expect("a good flag"));
                assert_ne!(low_config, high_config, "{key}");
                for (environment, arguments, expected) in [
                    (None, &[][..], None),
                    (Some(low), &[], Some(&low_config)),
                    (None, &file, Some(&low_config)),
                    (Some(high), &file, Some(&high_config)),
                    // An empty variable is one that is not set.
                    (Some(""), &file, Some(&low_config)),
                    (Some(""), &[], None),
                    (Some(low), &[&*flag(high)], Some(&high_config)),
                    (None, &[&*flag(high), file[0], file[1]], Some(&high_config)),
                    (Some(low), &[&*flag(high), file[0], file[1]], Some(&high_config)),
                    // What is overridden does not count, however wrong it is.
                    (Some("\u{1}nonsense"), &[&*flag(high), file[0], file[1]], Some(&high_config)),
                ] {
                    let environment = environment.map(|value| (&*variable, value)).into_iter();
                    let environment: Vec<_> = environment.chain(others.iter().copied()).collect();
                    let read = read_in(&environment, arguments).expect("good settings");
                    assert_eq!(&read, expected.unwrap_or(&default), "{environment:?} {arguments:?}");
                }
            }
            let good_file = TemporaryFile::new(&format!("good-{key}"), &format!("{key} = \"{}\"", values[0]));
            let message = usage_error(&[&flag(bad), "--config", good_file.path()]);
            assert!(message.contains(&format!("--{key}")) && !message.contains("DISRUST_"), "{message}");
            if !bad.is_empty() {
                let message = usage_error_in(&[(&variable, bad)], &["--config", good_file.path()]);
                assert!(message.contains(&format!("{variable} in the environment is {bad:?}: ")), "{message}");
            }
            let bad_file = TemporaryFile::new(&format!("bad-{key}"), &format!("{key} = \"{bad}\""));
            for overridden in [&[][..], &[&*flag(values[0])]] {
                let arguments = [&["--config", bad_file.path()], overridden].concat();
                let outcome = read_in(&[(&variable, values[1])], &arguments);
                let Err(error @ ConfigError::File { .. }) = outcome else { panic!("{key}: {outcome:?}") };
                let message = error.to_string();
                assert!(message.starts_with(&format!("config file {}: ", bad_file.path())), "{message}");
                assert!(message.contains(&format!("the value of '{key}' is {bad:?}: ")), "{message}");
                assert!(!message.contains("--") && !message.contains("DISRUST_"), "{message}");
            }
        }
    }

    #[test]
    fn a_named_file_beats_that_of_the_environment() {
        let file = TemporaryFile::new("named", "port = 3");
        let config = read_in(&[("DISRUST_CONFIG", "missing.toml")], &["--config", file.path()]).expect("a good file");
        assert_eq!(config.port, Some(3));
        assert_eq!(read_in(&[("DISRUST_CONFIG", file.path())], &[]).ok().map(|config| config.port), Some(Some(3)));
        assert_eq!(read_in(&[("DISRUST_CONFIG", "")], &[]).ok(), Some(Config::default()));
        let missing = read_in(&[("DISRUST_CONFIG", "missing.toml")], &["--port", "3"]);
        assert!(matches!(missing, Err(ConfigError::File { path, .. }) if path == Path::new("missing.toml")));
    }

    #[test]
    fn values_that_are_no_text_are_refused_where_they_count() {
        let not_text = || OsString::from_vec(b"\xff0".to_vec());
        let read = |variable: &str, arguments: &[&str]| config_of(arguments, |name| (name == variable).then(not_text));
        for (key, ..) in VALUES {
            let variable = format!("DISRUST_{}", key.replace('-', "_").to_uppercase());
            match read(&variable, &[]) {
                Ok(config) if *key == "unix" => assert_eq!(config.unix, Some(not_text().into())),
                Ok(config) => assert_eq!(config.model, ModelChoice::File(not_text().into()), "{key}"),
                Err(error) => {
                    let message = error.to_string();
                    assert!(
                        message.contains(&format!(r#"{variable} in the environment is "\xFF0": not text"#)),
                        "{message}"
                    );
                }
            }
        }
        assert_eq!(read("DISRUST_PORT", &["--port", "7"]).ok().map(|config| config.port), Some(Some(7)));
        let outcome = read("DISRUST_CONFIG", &[]);
        assert!(
            matches!(&outcome, Err(ConfigError::File { path, .. }) if path.as_os_str() == not_text()),
            "{outcome:?}"
        );
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_is_known() {
        let message = usage_error_in(&[("DISRUST_PORT", "tcp://10.0.0.1:9900")], &[]);
        assert!(message.contains("enableServiceLinks"), "{message}");
    }

    #[test]
    fn help_names_every_flags_variable() {
        let Err(ConfigError::Usage(help)) = read_in(&[("DISRUST_PORT", "abc")], &["--help"]) else { panic!("help") };
        assert_eq!(help.exit_code(), 0);
        let help = help.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        for (key, ..) in VALUES.iter().chain(&[("config", ["", ""], "")]) {
            let variable = format!("[env: DISRUST_{}]", key.replace('-', "_").to_uppercase());
            assert!(help.contains(&variable), "{variable}: {help}");
        }
    }

    #[test]
    fn times_have_a_largest_value() {
        for flag in [
            "--idle-timeout",
            "--max-connection-age",
            "--request-timeout",
            "--max-queue-delay",
            "--shutdown-delay",
            "--drain-timeout",
        ] {
            for time in [
                "365days 1ns",
                "18446744073709551615s",
                "18446744073709551615s 1000ms",
                "18446744073709551616s",
                "9999years",
            ] {
                let message = usage_error(&[flag, time]);
                assert!(message.contains("longer than 365 days") && message.contains(flag), "{message}");
            }
            assert!(read(&[flag, "365days"]).is_ok());
        }
        let error = parse_file("drain-timeout = \"18446744073709551615s\"").expect_err("too long");
        assert!(error.contains("drain-timeout") && error.contains("longer than 365 days"), "{error}");
    }

    #[test]
    fn a_list_must_name_a_cpu_for_each_thread() {
        let error = usage_error(&["--io-threads", "4", "--pin", "0-3"]);
        assert!(error.contains("names 4 CPUs") && error.contains("needs 5"), "{error}");
        assert!(usage_error(&["--pin", "0"]).contains("at least 2"));
        assert!(read(&["--io-threads", "4", "--pin", "0-4"]).is_ok());
        assert_eq!(read(&["--pin", "0-4"]).ok().and_then(|config| config.io_threads_asked()), Some(4));
    }

    #[test]
    fn bad_values_are_refused() {
        for arguments in [
            ["--port", "65536"],
            ["--io-threads", "0"],
            ["--io-threads", "65"],
            ["--features", "0"],
            ["--features", "4097"],
            ["--max-connections", "0"],
            ["--buffer-memory", "lots"],
            ["--wait", "sleep"],
            ["--pin", "0-"],
            ["--pin", "-1"],
            ["--port", "-1"],
            ["--pin-policy", "maybe"],
            ["--idle-timeout", "10"],
            ["--idle-timeout", "0s"],
            ["--drain-timeout", "off"],
            ["--unknown", "1"],
        ] {
            let message = usage_error(&arguments);
            assert!(message.contains(arguments[0]), "{message}");
        }
        // Where there are no metrics, the flag itself is refused.
        assert!(usage_error(&["--metrics-interval", "1ns"]).contains("--metrics-interval"));
    }

    #[test]
    fn a_server_listens_somewhere() {
        assert!(usage_error(&["--port", "off"]).contains("--unix PATH"));
        let config = read(&["--port", "off", "--unix", "a.sock"]).expect("good flags");
        assert_eq!((config.port, config.unix, config.unix_mode), (None, Some("a.sock".into()), 0o660));
        let config = read_in(&[("DISRUST_PORT", "off")], &["--port", "0"]).expect("good flags");
        assert_eq!((config.port, config.unix), (Some(0), None));
        for path in ["", "/", "run/", "..", "a\0b", "\0b"] {
            assert!(usage_error(&[&format!("--unix={path}")]).contains("--unix"), "{path:?}");
        }
        for mode in ["0o660", "rw", "1777", "-1", "", "0778"] {
            assert!(usage_error(&[&format!("--unix-mode={mode}")]).contains("--unix-mode"), "{mode:?}");
        }
    }

    #[test]
    fn timeouts_can_be_switched_off() {
        let config = read(&["--request-timeout", "off", "--idle-timeout", "1m 30s"]).expect("good flags");
        assert_eq!((config.request_timeout, config.idle_timeout), (None, Some(Duration::from_secs(90))));
    }

    #[test]
    fn a_file_fills_in_what_the_flags_leave_out() {
        let file = "port = 1\nunix = \"a.sock\"\nunix-mode = \"0600\"\nhost = \"::1\"\nio-threads = 2\npin = \"1,0,0\"\nwait = \"yield\"\nhelp-batch = \"off\"\nidle-timeout = \"5s\"\n\
            drain-timeout = \"1s\"\npin-policy = \"strict\"\nfeatures = 3\nmax-connections = 9\nbuffer-memory = 1048576\nreuse-port = true\nadmin = \"[::1]:1\"\n\
            model = \"m.onnx\"\nmodel-name = \"m\"\noutput = 2\nraw = true\nrequest-timeout = \"off\"\nmax-queue-delay = \"20ms\"\nmax-connection-age = \"15m\"\nshutdown-delay = \"3s\"\nseccomp = true\n\
            log-format = \"json\"";
        let file = parse_file(file).expect("a good file");
        let flags = parse_setting("port", "7".as_ref()).expect("a good flag").settings;
        let config = flags.or(file).into_config();
        let expected = Config {
            host: "::1".to_owned(),
            admin: Some(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 1))),
            port: Some(7),
            unix: Some("a.sock".into()),
            unix_mode: 0o600,
            reuse_port: true,
            io_threads: Some(2),
            pin: Pin::List(vec![1, 0, 0]),
            pin_policy: PinPolicy::Strict,
            wait: Wait::As(WaitStrategy::Yield),
            help_batch: HelpBatch::Off,
            model: ModelChoice::File("m.onnx".into()),
            model_name: Some("m".to_owned()),
            output: Some(Output::Index(2)),
            raw: true,
            features: Some(3),
            max_connections: Some(9),
            buffer_memory: 1_048_576,
            idle_timeout: Some(Duration::from_secs(5)),
            max_connection_age: Some(Duration::from_secs(900)),
            request_timeout: None,
            max_queue_delay: Some(Duration::from_millis(20)),
            shutdown_delay: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(1),
            seccomp: true,
            stage_times: true,
            metrics_interval: Config::default().metrics_interval,
            log_format: LogFormat::Json,
            file: None,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_file_with_a_mistake_says_where() {
        for (file, said) in [
            ("ports = 1", "unknown key 'ports'"),
            ("config = \"x\"", "unknown key"),
            ("pin = [1]", "is of type array"),
            ("port = 70000", "port"),
            ("io-threads = 0", "1..=64"),
            ("pin = \"x\"", "'x'"),
            ("idle-timeout = \"5\"", "10s"),
            ("port =", "line 1"),
        ] {
            let error = parse_file(file).expect_err(file);
            assert!(error.contains(said), "{file}: {error}");
        }
    }
}
