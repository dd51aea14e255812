//! The log: lines on stderr, through a thread of its own and a bounded queue, so that whoever reads it slowly loses lines and never
//! holds up a request.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crate::settings::LogFormat;

/// Lines that wait to be written. Larger: a stuck terminal holds more memory. Smaller: a burst of lines loses some.
const LINES_WAITING_MAX: usize = 256;

/// How long the last words may take, if nobody reads them. Larger: the end waits for longer. Smaller: a slow reader misses them.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// A line, or somebody who waits for all lines before to be written.
enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The log of the process.
pub struct Logging {
    queue: SyncSender<Item>,
}

impl Logging {
    /// Sends the log to stderr, and with it the panics of threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(format: LogFormat) -> io::Result<Logging> {
        let (queue, lines) = sync_channel(LINES_WAITING_MAX);
        // Detached: it may be stuck in a write when the process ends.
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_without_end(&lines))?;
        let writer = queue.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || QueueWriter(writer.clone()))
            .with_ansi(false)
            .log_internal_errors(false)
            .with_thread_names(true);
        // Fails only if logging was started before, which is as good.
        let _started_before = match format {
            LogFormat::Text => tracing::subscriber::set_global_default(subscriber.with_target(false).finish()),
            LogFormat::Json => {
                let subscriber = subscriber.json().flatten_event(true).with_current_span(false).with_span_list(false);
                tracing::subscriber::set_global_default(subscriber.finish())
            }
        };
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
        Ok(Logging { queue })
    }

    /// Waits until all that was logged is written, as far as stderr takes it in time.
    pub fn flush(&self) {
        let (written, waits) = sync_channel(1);
        if self.queue.try_send(Item::Flush(written)).is_ok() {
            let _late = waits.recv_timeout(LAST_WORDS_MAX);
        }
    }
}

fn write_without_end(lines: &Receiver<Item>) {
    for item in lines {
        match item {
            // What stderr does not take is lost, and the next line is tried all the same.
            Item::Line(line) => drop(io::stderr().write_all(&line)),
            Item::Flush(written) => drop(written.send(())),
        }
    }
}

/// A place for one line, as [`tracing_subscriber`] asks for it.
struct QueueWriter(SyncSender<Item>);

impl Write for QueueWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Too many wait: it is lost.
        let _lost = self.0.try_send(Item::Line(line.to_vec()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
