//! What can be set, where the server is what is asked for: the flags as clap knows them, and what becomes of the settings of
//! several sources. What is not set is `None`, so that one source completes another.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::{NonEmptyStringValueParser, PathBufValueParser, TypedValueParser};
use disrust_model::form::Output;

use super::log_format::{LogFormat, parse_log_format};
use super::placement::{HelpBatch, Pin, PinPolicy, Wait};
#[cfg(feature = "metrics")]
use super::values::parse_interval;
use super::values::{
    Admin, Port, Timeout, check_socket_path, parse_admin, parse_buffer_memory, parse_duration, parse_features,
    parse_help_batch, parse_io_threads, parse_max_connections, parse_mode, parse_model_name, parse_output, parse_pin,
    parse_pin_policy, parse_port, parse_timeout, parse_truth, parse_wait,
};
use super::{Config, ModelChoice, VERSION};

/// A TCP inference server that answers small feature vectors in tens of microseconds.
#[derive(Debug, Default, Parser)]
#[command(name = "disrust", version = VERSION, about, max_term_width = 100, after_help = AFTER_HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub settings: Settings,

    /// Read settings from a TOML file whose keys are the long flags without their dashes
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Each flag can be set in the environment as DISRUST_<FLAG>, for example DISRUST_IO_THREADS=4; a variable that is empty \
counts as not set. A flag beats the environment, which beats the config file. The longest time is 365 days.

The command verify looks at a model file and ends: disrust verify --help. The command health asks a running server \
whether it is ready: disrust health --help. completions and man print.

Exit status: 0 drained after SIGTERM or SIGINT, 2 usage, 69 io_uring unavailable, 70 internal error, 71 cannot listen \
(--admin included) or pin, 78 bad config file or model.";

/// Everything that can be set, from any source; what is not set is `None`.
#[derive(Debug, Default, Parser)]
pub(super) struct Settings {
    /// TCP port to listen on; 0 lets the kernel choose a free one, off has none [default: 9900]
    #[arg(short, long, value_name = "PORT|off", value_parser = parse_port, allow_negative_numbers = true)]
    pub port: Option<Port>,

    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub host: Option<String>,

    /// Path of a Unix socket to listen at too
    #[arg(long, value_name = "PATH", value_parser = PathBufValueParser::new().try_map(check_socket_path))]
    pub unix: Option<PathBuf>,

    /// Mode of the Unix socket's file, in octal: who may write to it may connect [default: 0660]
    #[arg(long, value_name = "MODE", value_parser = parse_mode, allow_negative_numbers = true)]
    pub unix_mode: Option<u32>,

    /// I/O threads, each with its own ring, listener and buffers [default: by the CPUs available]
    #[arg(long, value_name = "N", value_parser = parse_io_threads, allow_negative_numbers = true)]
    pub io_threads: Option<usize>,

    /// CPUs for the I/O threads in order, then one for the batch processor, such as 0-4 or 0,2,4-7 or 0-7:2;
    /// or auto, which leaves more I/O threads than CPUs to the scheduler; or none [default: auto]
    #[arg(long, value_name = "LIST|auto|none", value_parser = parse_pin, allow_hyphen_values = true)]
    pub pin: Option<Pin>,

    /// What to do about a CPU that is not there: best-effort runs the thread unpinned, strict does not start
    /// [default: best-effort]
    #[arg(long, value_name = "best-effort|strict", value_parser = parse_pin_policy)]
    pub pin_policy: Option<PinPolicy>,

    /// How idle threads wait: auto spins for a moment and then parks where each thread has a CPU of its own, else
    /// parks at once [default: auto]
    #[arg(long, value_name = "auto|spin|yield|park", value_parser = parse_wait)]
    pub wait: Option<Wait>,

    /// Whether an I/O thread that has published requests scores them itself, if that does not take long, instead of waking
    /// the batch processor: auto does where that has no CPU of its own [default: auto]
    #[arg(long, value_name = "auto|on|off", value_parser = parse_help_batch)]
    pub help_batch: Option<HelpBatch>,

    /// Model to serve: sum, which adds the features, or a model file [default: sum]
    #[arg(long, value_name = "sum|PATH")]
    pub model: Option<PathBuf>,

    /// What to call the model, in the log and to clients [default: the file's name without its extension]
    #[arg(long, value_name = "NAME", value_parser = parse_model_name)]
    pub model_name: Option<String>,

    /// Which output of a model that has several to serve, by index from 0 or by name, or all of them
    #[arg(long, value_name = "N|NAME|all", value_parser = parse_output, allow_negative_numbers = true)]
    pub output: Option<Output>,

    /// Serve the margin, which is what the model says before its last transform (log-odds, a logarithm, ...)
    #[arg(long, value_name = "true|false", value_parser = parse_truth, num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub raw: Option<bool>,

    /// Features in a vector; a model file must agree [default: as the model says; 16 for sum]
    #[arg(long, value_name = "N", value_parser = parse_features, allow_negative_numbers = true)]
    pub features: Option<usize>,

    /// Connections at once; one more is accepted and closed [default: what the descriptor limit allows]
    #[arg(long, value_name = "N", value_parser = parse_max_connections, allow_negative_numbers = true)]
    pub max_connections: Option<usize>,

    /// What all peers together can make the server hold, beyond its fixed buffers, in requests that are not complete and
    /// in answers that are not read, such as 64MB or 1GiB or a number of bytes [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_buffer_memory, allow_negative_numbers = true)]
    pub buffer_memory: Option<usize>,

    /// Close connections that are idle for this long, such as 90s or 5m, or off [default: off]
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub idle_timeout: Option<Timeout>,

    /// Close connections in order when they are about this old, a tenth more or less, such as 15m, so that clients come to the servers
    /// that there are by then; or off [default: off]
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub max_connection_age: Option<Timeout>,

    /// Close connections whose request takes longer than this from its first byte to its last, or that take none of
    /// their answers for a quarter longer, up to twice as long if they read in long steps; or off [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub request_timeout: Option<Timeout>,

    /// Shed requests that have waited for longer than this, such as 5ms, with error 3 while the model does not keep up, and ten times
    /// as late ones at any time; or off [default: off]
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub max_queue_delay: Option<Timeout>,

    /// On SIGTERM or SIGINT, serve and accept for this long as ever before draining, so that balancers can notice that the server
    /// leaves; a second signal drains at once [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub shutdown_delay: Option<Duration>,

    /// On SIGTERM or SIGINT, wait at most this long for connections to end before they are cut [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub drain_timeout: Option<Duration>,

    /// Print metrics on stdout this often, or off [default: 10s]
    #[cfg(feature = "metrics")]
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub metrics_interval: Option<Timeout>,

    /// Serve metrics, health checks and a status page over HTTP at this address, to whoever reaches it; or off [default: off]
    #[arg(long, value_name = "ADDR:PORT|off", value_parser = parse_admin)]
    pub admin: Option<Admin>,

    /// How the log is written, the banner and a refusal to start with it: text is for people, json is one object a line
    /// [default: text]
    #[arg(long, value_name = "text|json", value_parser = parse_log_format)]
    pub log_format: Option<LogFormat>,

    /// Share the port with a server that listens on it already, and take its Unix socket's path over (for a rolling restart)
    #[arg(long, value_name = "true|false", value_parser = parse_truth, num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub reuse_port: Option<bool>,

    /// Once the server runs, give up the system calls that it needs no more, such as io_uring_setup and execve
    #[arg(long, value_name = "true|false", value_parser = parse_truth, num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub seccomp: Option<bool>,
}

impl Settings {
    /// These settings, completed by others.
    pub fn or(self, other: Settings) -> Settings {
        Settings {
            port: self.port.or(other.port),
            unix: self.unix.or(other.unix),
            unix_mode: self.unix_mode.or(other.unix_mode),
            host: self.host.or(other.host),
            io_threads: self.io_threads.or(other.io_threads),
            pin: self.pin.or(other.pin),
            pin_policy: self.pin_policy.or(other.pin_policy),
            wait: self.wait.or(other.wait),
            help_batch: self.help_batch.or(other.help_batch),
            model: self.model.or(other.model),
            model_name: self.model_name.or(other.model_name),
            output: self.output.or(other.output),
            raw: self.raw.or(other.raw),
            features: self.features.or(other.features),
            max_connections: self.max_connections.or(other.max_connections),
            buffer_memory: self.buffer_memory.or(other.buffer_memory),
            idle_timeout: self.idle_timeout.or(other.idle_timeout),
            max_connection_age: self.max_connection_age.or(other.max_connection_age),
            request_timeout: self.request_timeout.or(other.request_timeout),
            max_queue_delay: self.max_queue_delay.or(other.max_queue_delay),
            shutdown_delay: self.shutdown_delay.or(other.shutdown_delay),
            drain_timeout: self.drain_timeout.or(other.drain_timeout),
            #[cfg(feature = "metrics")]
            metrics_interval: self.metrics_interval.or(other.metrics_interval),
            admin: self.admin.or(other.admin),
            log_format: self.log_format.or(other.log_format),
            reuse_port: self.reuse_port.or(other.reuse_port),
            seccomp: self.seccomp.or(other.seccomp),
        }
    }

    pub fn into_config(self) -> Config {
        let default = Config::default();
        let admin = self.admin.map_or(default.admin, |admin| admin.0);
        Config {
            host: self.host.unwrap_or(default.host),
            admin,
            port: self.port.map_or(default.port, |port| port.0),
            unix: self.unix,
            unix_mode: self.unix_mode.unwrap_or(default.unix_mode),
            reuse_port: self.reuse_port.unwrap_or(default.reuse_port),
            io_threads: self.io_threads,
            pin: self.pin.unwrap_or(default.pin),
            pin_policy: self.pin_policy.unwrap_or(default.pin_policy),
            wait: self.wait.unwrap_or(default.wait),
            help_batch: self.help_batch.unwrap_or(default.help_batch),
            model: match self.model {
                None => default.model,
                Some(path) if path.as_os_str() == "sum" => ModelChoice::Sum,
                Some(path) => ModelChoice::File(path),
            },
            model_name: self.model_name,
            output: self.output,
            raw: self.raw.unwrap_or(default.raw),
            features: self.features,
            max_connections: self.max_connections,
            buffer_memory: self.buffer_memory.unwrap_or(default.buffer_memory),
            idle_timeout: self.idle_timeout.map_or(default.idle_timeout, |timeout| timeout.0),
            max_connection_age: self.max_connection_age.map_or(default.max_connection_age, |timeout| timeout.0),
            request_timeout: self.request_timeout.map_or(default.request_timeout, |timeout| timeout.0),
            max_queue_delay: self.max_queue_delay.map_or(default.max_queue_delay, |timeout| timeout.0),
            shutdown_delay: self.shutdown_delay.unwrap_or(default.shutdown_delay),
            drain_timeout: self.drain_timeout.unwrap_or(default.drain_timeout),
            seccomp: self.seccomp.unwrap_or(default.seccomp),
            // For those who ask there.
            stage_times: default.stage_times || admin.is_some(),
            #[cfg(feature = "metrics")]
            metrics_interval: self.metrics_interval.map_or(default.metrics_interval, |timeout| timeout.0),
            #[cfg(not(feature = "metrics"))]
            metrics_interval: default.metrics_interval,
            log_format: self.log_format.unwrap_or(default.log_format),
            file: None,
        }
    }
}

impl Arguments {
    /// These arguments, completed by others.
    pub fn or(self, other: Arguments) -> Arguments {
        Arguments { settings: self.settings.or(other.settings), config: self.config.or(other.config) }
    }
}
