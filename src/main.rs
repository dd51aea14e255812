//! From the command line to an exit status. Everything in between is the library's.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use disrust::admin::probe;
use disrust::config::health::HealthFlags;
use disrust::config::verify::VerifyOptions;
use disrust::config::{CommandLine, Config, ConfigError, Flags, LogFormat, ModelChoice};
use disrust::kernel::{SpeakingAllocator, check_address_space, spare_address_space, write_to_stderr};
use disrust::limits::THREAD_BYTES;
use disrust::server::logging::{Logging, refusal};
use disrust::server::signals::{CaughtSignals, Signals};
use disrust::server::{ServedModel, Server, StartError, service_manager};
use disrust::verify;
use disrust_model::{LoadError, Model, Sum, load};
use disrust_protocol::FEATURE_DIM;

/// Exit statuses of the contract, those of sysexits.h where it has one.
mod exit {
    pub const DRAINED: u8 = 0;
    pub const DISAGREE: u8 = 1;
    pub const NOT_READY: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const BAD_TABLE: u8 = 65;
    pub const RING_UNAVAILABLE: u8 = 69;
    pub const INTERNAL: u8 = 70;
    pub const BIND_OR_PIN: u8 = 71;
    pub const NOT_WRITTEN: u8 = 74;
    pub const CONFIG: u8 = 78;
}

/// How long the last words may take, if nobody reads stderr. Larger: the end waits for longer. Smaller: a slow reader misses
/// them.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

#[global_allocator]
static ALLOCATOR: SpeakingAllocator = SpeakingAllocator;

fn main() -> ExitCode {
    #[cfg(feature = "onnxruntime")]
    disrust::kernel::refuse_telemetry();
    let words: Vec<OsString> = std::env::args_os().collect();
    let log_format = LogFormat::of_words(&words, |variable| std::env::var_os(variable));
    match CommandLine::read(words) {
        // Nobody is served: a signal ends it as it ends any program.
        Ok(CommandLine::Verify(options)) => verify_model(&options),
        Ok(CommandLine::Health(flags)) => ask_health(flags),
        Ok(CommandLine::Print(text)) => print(&text),
        Ok(CommandLine::Serve(flags)) => serve(Ok(flags), log_format),
        Err(error) => serve(Err(error), log_format),
    }
}

fn print(text: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(text) {
        Ok(()) => ExitCode::from(exit::DRAINED),
        Err(error) => {
            write_to_stderr(failure(&format!("cannot write to stdout: {error}")).as_bytes(), LAST_WORDS_MAX);
            ExitCode::from(exit::NOT_WRITTEN)
        }
    }
}

/// Looks at a model file.
fn verify_model(options: &VerifyOptions) -> ExitCode {
    use verify::VerifyError::{Failed, Model, Table, Write};
    match verify::run(options) {
        Ok(true) => ExitCode::from(exit::DRAINED),
        Ok(false) => ExitCode::from(exit::DISAGREE),
        Err(error) => {
            write_to_stderr(failure(&error).as_bytes(), LAST_WORDS_MAX);
            ExitCode::from(match error {
                Model(_) => exit::CONFIG,
                Table(_) => exit::BAD_TABLE,
                Failed(_) => exit::INTERNAL,
                Write { .. } => exit::NOT_WRITTEN,
            })
        }
    }
}

/// Asks a running server whether it is ready.
fn ask_health(flags: HealthFlags) -> ExitCode {
    let answer = match flags.address() {
        Ok(Some(address)) => probe::ask(address).map_err(|error| (exit::NOT_READY, failure(&error))),
        Ok(None) => Err((
            exit::NOT_READY,
            failure(
                &"no --admin is known of, in the flags, the environment or the config file. Try: --admin ADDR:PORT, as \
                      the server has it",
            ),
        )),
        // Who runs it is a person or a health check; its words are no log.
        Err(error) => Err(config_failure(&error, LogFormat::Text)),
    };
    let (status, words) = match answer {
        Ok(answer) if answer.is_ready => {
            // Who only wants the status reads nothing.
            let _unheard = std::io::stdout().write_all(answer.words.as_bytes());
            return ExitCode::from(exit::DRAINED);
        }
        Ok(answer) => (exit::NOT_READY, answer.words),
        Err(failed) => failed,
    };
    write_to_stderr(words.as_bytes(), LAST_WORDS_MAX);
    ExitCode::from(status)
}

/// Serves, if the command line says how, until the drain.
fn serve(flags: Result<Flags, ConfigError>, log_format: LogFormat) -> ExitCode {
    let (logging, signals) = match begin(log_format) {
        Ok(begun) => begun,
        Err(error) => {
            write_to_stderr(refusal(log_format, &failure(&error)).as_bytes(), LAST_WORDS_MAX);
            return ExitCode::from(exit::INTERNAL);
        }
    };
    let status = match run(flags, &logging, &signals) {
        Ok(()) => exit::DRAINED,
        Err((status, message)) => {
            logging.refuse(&message);
            status
        }
    };
    logging.flush(LAST_WORDS_MAX);
    ExitCode::from(status)
}

/// Before anything that can take long or has much to say: signals, and somebody who writes.
fn begin(log_format: LogFormat) -> Result<(Logging, Signals), String> {
    /// The threads that are begun here, and what is small.
    const BYTES: usize = 2 * THREAD_BYTES + 4 * 1024 * 1024;
    let caught = CaughtSignals::catch().map_err(|error| {
        format!("cannot handle signals: {error}. The likely cause is the limit on descriptors. Try: a higher ulimit -n")
    })?;
    spare_address_space();
    check_address_space(BYTES).map_err(|error| {
        format!("cannot reserve {} MiB of address space: {error}. Try: a higher ulimit -v", BYTES / 1024 / 1024)
    })?;
    let logging = Logging::start(log_format).map_err(|error| error.to_string())?;
    let signals = caught.hear(&logging).map_err(|error| error.to_string())?;
    Ok((logging, signals))
}

/// Serves until the drain; a failure comes as its exit status and what to print.
fn run(flags: Result<Flags, ConfigError>, logging: &Logging, signals: &Signals) -> Result<(), (u8, String)> {
    let config = match flags.and_then(Flags::config) {
        Ok(config) => config,
        Err(ConfigError::Usage(error)) if !error.use_stderr() => {
            // Help and the version go to stdout and are no failure.
            let _unheard = error.print();
            return Ok(());
        }
        Err(error) => return Err(config_failure(&error, logging.format())),
    };
    logging.set_format(config.log_format);
    let model = load_model(&config).map_err(|message| (exit::CONFIG, failure(&message)))?;
    let failed = |error: StartError| (start_failure_status(&error), failure(&error));
    let ready = Server::prepare(&config, model).map_err(failed)?;
    signals.pass_to(ready.handle());
    let server = ready.serve().map_err(failed)?;
    logging.print(server.banner());
    service_manager::serves(&format!("serving at {}", addresses(&server, &config)));
    let report = server.wait().map_err(|error| (exit::INTERNAL, failure(&error)))?;
    tracing::info!("drained: {report}");
    Ok(())
}

/// Where it serves, for people.
fn addresses(server: &Server, config: &Config) -> String {
    let port = server.address().map(|address| address.to_string());
    let path = config.unix.as_ref().map(|path| format!("unix:{}", path.display()));
    port.into_iter().chain(path).collect::<Vec<_>>().join(" and ")
}

fn config_failure(error: &ConfigError, log_format: LogFormat) -> (u8, String) {
    match error {
        ConfigError::Usage(error) => {
            let text = error.render();
            let colored = log_format == LogFormat::Text && std::io::stderr().is_terminal();
            let text = if colored { text.ansi().to_string() } else { text.to_string() };
            (exit::USAGE, text)
        }
        ConfigError::File { .. } => (exit::CONFIG, failure(error)),
    }
}

fn load_model(config: &Config) -> Result<ServedModel, LoadError> {
    match &config.model {
        ModelChoice::Sum => {
            let sum = Sum::new(config.features.unwrap_or(FEATURE_DIM));
            let sum = config.model_name.iter().fold(sum, |sum, name| sum.named(name));
            let model: Box<dyn Model> = Box::new(sum);
            Ok(model.into())
        }
        ModelChoice::File(path) => {
            let options = config.load_options();
            Ok(ServedModel::of_file(load(path, &options)?, path.clone(), options))
        }
    }
}

fn start_failure_status(error: &StartError) -> u8 {
    match error {
        StartError::Shape(_) => exit::CONFIG,
        StartError::RingUnavailable(_) => exit::RING_UNAVAILABLE,
        StartError::Bind(_) | StartError::BindPath(_) | StartError::AdminBind(_) | StartError::Pin(_) => {
            exit::BIND_OR_PIN
        }
        StartError::Descriptors { .. }
        | StartError::Thread(_)
        | StartError::Admin(_)
        | StartError::AddressSpace { .. }
        | StartError::System { .. } => exit::INTERNAL,
    }
}

fn failure(error: &impl Display) -> String {
    format!("disrust: {error}\n")
}
