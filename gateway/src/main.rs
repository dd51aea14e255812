//! From the command line to an exit status. Everything in between is the library's.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use disrust_gateway::gateway::{Gateway, StartError};
use disrust_gateway::logging::Logging;
use disrust_gateway::probe;
use disrust_gateway::settings::{Action, LogFormat, Settings, VERSION};

/// Exit statuses, those of the server where it has one for the same.
mod exit {
    pub const DRAINED: u8 = 0;
    pub const NOT_READY: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const INTERNAL: u8 = 70;
    pub const CANNOT_LISTEN: u8 = 71;
}

fn main() -> ExitCode {
    let settings = match Settings::read(std::env::args_os(), |variable| std::env::var_os(variable)) {
        Ok(settings) => settings,
        Err(error) => {
            // Help and the version go to stdout and are no failure; and nobody may be reading either.
            let _unheard = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::DRAINED });
        }
    };
    if settings.action == Some(Action::Health) {
        return match probe::ask(settings.listen) {
            Ok(()) => ExitCode::from(exit::DRAINED),
            Err(error) => {
                eprintln!("disrust-gateway: {error}");
                ExitCode::from(exit::NOT_READY)
            }
        };
    }
    let logging = match Logging::start(settings.log_format) {
        Ok(logging) => logging,
        Err(error) => {
            eprintln!("disrust-gateway: cannot start the thread log: {error}. Try: a higher ulimit -u");
            return ExitCode::from(exit::INTERNAL);
        }
    };
    let status = serve(settings);
    logging.flush();
    ExitCode::from(status)
}

/// Serves until the drain.
fn serve(settings: Settings) -> u8 {
    let format = settings.log_format;
    let servers = settings.server.0.join(", ");
    let started = Gateway::start(settings).and_then(|gateway| {
        let address = gateway.address();
        address
            .map(|address| (gateway, address))
            .map_err(|source| StartError::System { what: "tell its address", source })
    });
    let (gateway, address) = match started {
        Ok(started) => started,
        Err(error) => {
            match format {
                LogFormat::Text => eprintln!("disrust-gateway: {error}"),
                LogFormat::Json => tracing::error!("{error}"),
            }
            return match error {
                StartError::Server(_) => exit::USAGE,
                StartError::Bind { .. } => exit::CANNOT_LISTEN,
                StartError::System { .. } => exit::INTERNAL,
            };
        }
    };
    tracing::info!("disrust-gateway {VERSION}, listening on http://{address}, servers: {servers}");
    let drained = gateway.run();
    tracing::info!("drained: {} connections were cut", drained.cut);
    exit::DRAINED
}
