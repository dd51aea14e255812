//! From the command line to an exit status. Everything in between is the library's.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use disrust::config::{Config, ConfigError, ModelChoice};
use disrust::logging::Logging;
use disrust::model::{Model, Sum};
use disrust::protocol::FEATURE_DIM;
use disrust::server::{Server, ServerHandle, StartError};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Exit statuses of the contract, those of sysexits.h where it has one.
mod exit {
    pub const DRAINED: u8 = 0;
    pub const USAGE: u8 = 2;
    pub const RING_UNAVAILABLE: u8 = 69;
    pub const INTERNAL: u8 = 70;
    pub const BIND_OR_PIN: u8 = 71;
    pub const CONFIG: u8 = 78;
}

fn main() -> ExitCode {
    let config = match Config::read(std::env::args_os()) {
        Ok(config) => config,
        Err(ConfigError::Usage(error)) => {
            // Help and the version go to stdout and are no failure.
            let _unheard = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::DRAINED });
        }
        Err(error @ ConfigError::File { .. }) => return fail(exit::CONFIG, error),
    };
    let model = match load_model(&config) {
        Ok(model) => model,
        Err(message) => return fail(exit::CONFIG, message),
    };
    let logging = Logging::start();
    match serve(&config, model, &logging) {
        Ok(()) => ExitCode::from(exit::DRAINED),
        Err((status, message)) => {
            logging.print(&failure(&message));
            ExitCode::from(status)
        }
    }
}

/// Serves until the drain; a failure comes with its exit status.
fn serve(config: &Config, model: Box<dyn Model>, logging: &Logging) -> Result<(), (u8, String)> {
    // Before the start, so that a signal that comes early drains too.
    let signals =
        Signals::new([SIGTERM, SIGINT]).map_err(|error| (exit::INTERNAL, format!("cannot handle signals: {error}")))?;
    let server = Server::start(config, model).map_err(|error| (start_failure_status(&error), error.to_string()))?;
    logging.print(server.banner());
    let handle = server.handle();
    // Detached: it waits for signals until the process ends.
    std::thread::spawn(move || stop_on_signals(signals, &handle));
    let report = server.wait().map_err(|error| (exit::INTERNAL, error.to_string()))?;
    tracing::info!("drained: {report}");
    Ok(())
}

fn load_model(config: &Config) -> Result<Box<dyn Model>, String> {
    match &config.model {
        ModelChoice::Sum => Ok(Box::new(Sum::new(config.features.unwrap_or(FEATURE_DIM)))),
        ModelChoice::File(path) => Err(match std::fs::metadata(path) {
            Err(error) => format!("cannot read the model {}: {error}. Give --model a file, or sum", path.display()),
            Ok(_) => format!(
                "cannot serve the model {}: this version serves no model files yet, only --model sum",
                path.display()
            ),
        }),
    }
}

fn stop_on_signals(mut signals: Signals, handle: &ServerHandle) {
    let mut draining = false;
    for signal in signals.forever() {
        let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
        if draining {
            tracing::warn!("{name} again: cutting the connections that are still open");
            handle.cut();
        } else {
            let connections = handle.open_connections();
            tracing::info!(connections, "{name}: draining; a second signal cuts it short");
            handle.drain();
            draining = true;
        }
    }
}

fn start_failure_status(error: &StartError) -> u8 {
    match error {
        StartError::RingUnavailable(_) => exit::RING_UNAVAILABLE,
        StartError::Bind(_) | StartError::Pin(_) => exit::BIND_OR_PIN,
        StartError::Descriptors { .. } | StartError::System { .. } => exit::INTERNAL,
    }
}

/// Before there is logging: says why, and gives the exit status.
fn fail(status: u8, error: impl Display) -> ExitCode {
    // stderr may be closed; the status still tells.
    let _unheard = std::io::stderr().write_all(failure(&error).as_bytes());
    ExitCode::from(status)
}

fn failure(error: &impl Display) -> String {
    format!("disrust: {error}\n")
}
