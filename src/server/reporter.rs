//! The thread that prints metrics.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::crew::CrewError;
use crate::metrics::report::Reporter;
use crate::metrics::{BatchMetrics, IoMetrics};

/// A thread that prints metrics until this is dropped.
pub(super) struct RunningReporter {
    /// The word to begin. Its end is the reporter's.
    stop: Option<Sender<()>>,
    /// Ends when the reporter has printed its last line.
    done: Receiver<()>,
}

impl RunningReporter {
    /// How long the last line may take: nobody may be reading it.
    const LAST_LINE_MAX: Duration = Duration::from_secs(1);

    /// Starts the thread, which prints nothing until it is told to begin.
    pub fn start(
        io: Vec<Arc<IoMetrics>>,
        batch: Arc<BatchMetrics>,
        interval: Duration,
    ) -> Result<RunningReporter, CrewError> {
        const NAME: &str = "metrics";
        let ((stop, stopped), (printed, done)) = (channel(), channel());
        let run = move || {
            if stopped.recv().is_ok() {
                Reporter::new(io, batch).run(interval, &stopped);
            }
            drop(printed);
        };
        let spawned = std::thread::Builder::new().name(NAME.to_owned()).spawn(run);
        spawned.map_err(|source| CrewError::Refused { name: NAME.to_owned(), source })?;
        Ok(RunningReporter { stop: Some(stop), done })
    }

    pub fn begin(&self) {
        if let Some(stop) = &self.stop {
            // It listens until it is told to stop.
            let _unheard = stop.send(());
        }
    }
}

impl Drop for RunningReporter {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Either it ends, or it is stuck in its write, and the process ends without it.
        let _ended = self.done.recv_timeout(Self::LAST_LINE_MAX);
    }
}
