//! From the command line to an exit status. Everything in between is the library's.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use disrust::config::verify::VerifyOptions;
use disrust::config::{CommandLine, Config, ConfigError, Flags, ModelChoice};
use disrust::kernel::{SpeakingAllocator, check_address_space, spare_address_space, write_to_stderr};
use disrust::limits::THREAD_BYTES;
use disrust::server::logging::Logging;
use disrust::server::signals::{CaughtSignals, Signals};
use disrust::server::{ServedModel, Server, StartError};
use disrust::verify;
use disrust_model::{LoadError, Model, Sum, load};
use disrust_protocol::FEATURE_DIM;

/// Exit statuses of the contract, those of sysexits.h where it has one.
mod exit {
    pub const DRAINED: u8 = 0;
    pub const DISAGREE: u8 = 1;
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
    match CommandLine::read(std::env::args_os()) {
        // Nobody is served: a signal ends it as it ends any program.
        Ok(CommandLine::Verify(options)) => verify_model(&options),
        Ok(CommandLine::Serve(flags)) => serve(Ok(flags)),
        Err(error) => serve(Err(error)),
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

/// Serves, if the command line says how, until the drain.
fn serve(flags: Result<Flags, ConfigError>) -> ExitCode {
    let (logging, signals) = match begin() {
        Ok(begun) => begun,
        Err(error) => {
            write_to_stderr(failure(&error).as_bytes(), LAST_WORDS_MAX);
            return ExitCode::from(exit::INTERNAL);
        }
    };
    let status = match run(flags, &logging, &signals) {
        Ok(()) => exit::DRAINED,
        Err((status, message)) => {
            logging.print(&message);
            status
        }
    };
    logging.flush(LAST_WORDS_MAX);
    ExitCode::from(status)
}

/// Before anything that can take long or has much to say: signals, and somebody who writes.
fn begin() -> Result<(Logging, Signals), String> {
    /// The threads that are begun here, and what is small.
    const BYTES: usize = 2 * THREAD_BYTES + 4 * 1024 * 1024;
    let caught = CaughtSignals::catch().map_err(|error| {
        format!("cannot handle signals: {error}. The likely cause is the limit on descriptors. Try: a higher ulimit -n")
    })?;
    spare_address_space();
    check_address_space(BYTES).map_err(|error| {
        format!("cannot reserve {} MiB of address space: {error}. Try: a higher ulimit -v", BYTES / 1024 / 1024)
    })?;
    let logging = Logging::start().map_err(|error| error.to_string())?;
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
        Err(ConfigError::Usage(error)) => {
            let text = error.render();
            let text = if std::io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
            return Err((exit::USAGE, text));
        }
        Err(error @ ConfigError::File { .. }) => return Err((exit::CONFIG, failure(&error))),
    };
    let model = load_model(&config).map_err(|message| (exit::CONFIG, failure(&message)))?;
    let failed = |error: StartError| (start_failure_status(&error), failure(&error));
    let ready = Server::prepare(&config, model).map_err(failed)?;
    signals.pass_to(ready.handle());
    let server = ready.serve().map_err(failed)?;
    logging.print(server.banner());
    let report = server.wait().map_err(|error| (exit::INTERNAL, failure(&error)))?;
    tracing::info!("drained: {report}");
    Ok(())
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
        StartError::Bind(_) | StartError::BindPath(_) | StartError::Pin(_) => exit::BIND_OR_PIN,
        StartError::Descriptors { .. }
        | StartError::Thread(_)
        | StartError::AddressSpace { .. }
        | StartError::System { .. } => exit::INTERNAL,
    }
}

fn failure(error: &impl Display) -> String {
    format!("disrust: {error}\n")
}
