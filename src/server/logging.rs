//! Logs: to stderr, for people or one JSON object a line, and never in the way of a request.
//!
//! Lines go through a bounded queue to a thread of their own, and are dropped when a slow reader of stderr does not take
//! them; so a stuck terminal or a closed pipe cannot hold up serving. What a peer can cause is logged through a [`crate::log_gate::LogGate`].
//!
//! | atomic | written by | read by | orders |
//! |---|---|---|---|
//! | `is_json` | main, when the configuration is known | whoever logs | nothing: Relaxed, a line just before may have either format |
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, SystemTime};

use disrust_model::model_runs;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;
use crate::server::crew::CrewError;

/// Lines that wait to be written. Larger: a stuck terminal holds more memory. Smaller: a burst of lines loses some.
const LINES_WAITING_MAX: usize = 1024;

/// Whose words those are that come from no module in particular.
const TARGET: &str = "disrust";

/// The process's logs.
#[derive(Clone)]
pub struct Logging {
    queue: Arc<Queue>,
    is_json: Arc<AtomicBool>,
}

/// Lines on their way to stderr.
struct Queue {
    lines: Mutex<Lines>,
    /// Signalled when there is a line to write, and when all are written.
    changed: Condvar,
}

struct Lines {
    waiting: VecDeque<Vec<u8>>,
    /// Whether one is being written.
    writing: bool,
}

impl Logging {
    /// Sends the process's logs to stderr, and with them the panics of its threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(log_format: LogFormat) -> Result<Logging, CrewError> {
        const NAME: &str = "log";
        let lines = Lines { waiting: VecDeque::with_capacity(LINES_WAITING_MAX), writing: false };
        let queue = Arc::new(Queue { lines: Mutex::new(lines), changed: Condvar::new() });
        let is_json = Arc::new(AtomicBool::new(log_format == LogFormat::Json));
        let (written, writer) = (Arc::clone(&queue), Arc::clone(&queue));
        // Detached: it may be stuck in a write when the process ends.
        Builder::new()
            .name(NAME.to_owned())
            .spawn(move || written.write_without_end())
            .map_err(|source| CrewError::Refused { name: NAME.to_owned(), source })?;
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || QueueWriter(Arc::clone(&writer)))
            .with_ansi(false)
            // A failing stderr must not be reported to stderr.
            .log_internal_errors(false)
            .event_format(EitherFormat::new(&is_json))
            .finish();
        // Fails only if logging was started before, which is as good.
        let _started_before = tracing::subscriber::set_global_default(subscriber);
        log_panics();
        Ok(Logging { queue, is_json })
    }

    /// How lines are written from now on.
    pub fn set_format(&self, log_format: LogFormat) {
        self.is_json.store(log_format == LogFormat::Json, Ordering::Relaxed);
    }

    /// How lines are written.
    pub fn format(&self) -> LogFormat {
        if self.is_json.load(Ordering::Relaxed) { LogFormat::Json } else { LogFormat::Text }
    }

    /// Prints lines for the operator: as they are, or each as an object.
    pub fn print(&self, lines: &str) {
        match self.format() {
            LogFormat::Text => self.queue.push(lines.as_bytes()),
            LogFormat::Json => lines.lines().for_each(|line| tracing::info!(target: TARGET, "{line}")),
        }
    }

    /// Prints why the process ends, in one piece.
    pub fn refuse(&self, message: &str) {
        self.queue.push(refusal(self.format(), message).as_bytes());
    }

    /// Waits until all that was logged until now is written, as far as stderr takes it within `patience`.
    pub fn flush(&self, patience: Duration) {
        let unwritten = |lines: &mut Lines| lines.writing || !lines.waiting.is_empty();
        // Nobody may be reading: then the rest is lost.
        drop(self.queue.changed.wait_timeout_while(self.queue.lock(), patience, unwritten));
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Nothing that is done while it is locked can panic half-way.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, or drops it if too many wait.
    fn push(&self, line: &[u8]) {
        let line = line.to_vec();
        let mut lines = self.lock();
        if lines.waiting.len() < LINES_WAITING_MAX {
            lines.waiting.push_back(line);
            self.changed.notify_all();
        }
    }

    fn write_without_end(&self) {
        let mut lines = self.lock();
        loop {
            match lines.waiting.pop_front() {
                Some(line) => {
                    lines.writing = true;
                    drop(lines);
                    // What stderr does not take is lost, and the next line is tried all the same.
                    let _unheard = io::stderr().write_all(&line);
                    lines = self.lock();
                    lines.writing = false;
                }
                None => {
                    self.changed.notify_all();
                    lines = self.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// Why a process ends, where perhaps nothing is there yet that writes logs: text that ends in a newline.
pub fn refusal(log_format: LogFormat, message: &str) -> String {
    match log_format {
        LogFormat::Text => message.to_owned(),
        LogFormat::Json => {
            let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
            let line = serde_json::json!({
                "timestamp": time, "level": "ERROR", "message": message.trim_end(), "target": TARGET, "threadName": "main",
            });
            format!("{line}\n")
        }
    }
}

/// Both formats, of which one is in force.
struct EitherFormat {
    text: Format<Full>,
    json: Format<Json>,
    is_json: Arc<AtomicBool>,
}

impl EitherFormat {
    fn new(is_json: &Arc<AtomicBool>) -> EitherFormat {
        let text = format().with_target(false).with_thread_names(true);
        // There are no spans.
        let json =
            format().with_thread_names(true).json().flatten_event(true).with_current_span(false).with_span_list(false);
        EitherFormat { text, json, is_json: Arc::clone(is_json) }
    }
}

impl<S, N> FormatEvent<S, N> for EitherFormat
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'fields> FormatFields<'fields> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.is_json.load(Ordering::Relaxed) {
            self.json.format_event(context, to, event)
        } else {
            self.text.format_event(context, to, event)
        }
    }
}

/// A place for one line, as [`tracing_subscriber`] asks for it.
struct QueueWriter(Arc<Queue>);

impl Write for QueueWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs panics: the last words of a thread. A model may panic on every request, which whoever called it reports.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if !model_runs() {
            tracing::error!("{panic}");
        }
    }));
}
