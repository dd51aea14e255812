//! How far a sweep is and how long it takes yet: a line that lives on a terminal, plain lines elsewhere.
//!
//! Invariants: what it says goes to standard error; the time left is what was planned for the visits that are left,
//! corrected by how long the visits so far took beside their plan.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Plain lines come at most this often. Shorter: a log of hundreds of lines. Longer: it looks as if it hangs.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress over a number of visits.
pub struct Progress {
    bar: Option<ProgressBar>,
    estimate: Estimate,
    done: usize,
    all: usize,
    last_line: Option<Instant>,
}

/// Planned and real time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Estimate {
    planned_left: Duration,
    planned_done: Duration,
    spent: Duration,
}

impl Estimate {
    fn done(&mut self, planned: Duration, spent: Duration) {
        self.planned_left = self.planned_left.saturating_sub(planned);
        self.planned_done += planned;
        self.spent += spent;
    }

    fn left(&self) -> Duration {
        if self.planned_done.is_zero() {
            return self.planned_left;
        }
        self.planned_left.mul_f64(self.spent.as_secs_f64() / self.planned_done.as_secs_f64())
    }
}

impl Progress {
    /// Of `visits` visits that are planned to take `planned` together.
    pub fn new(visits: usize, planned: Duration) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(visits as u64), ProgressDrawTarget::stderr());
            // The template is ours, and right; a bar without it is a bar still.
            if let Ok(style) = ProgressStyle::with_template("[{bar:20}] {pos}/{len}, {prefix} left: {msg}") {
                bar.set_style(style);
            }
            bar
        });
        let estimate = Estimate { planned_left: planned, planned_done: Duration::ZERO, spent: Duration::ZERO };
        Progress { bar, estimate, done: 0, all: visits, last_line: None }
    }

    /// Says what is measured next.
    pub fn begin(&mut self, what: &str) {
        let left = humantime::format_duration(Duration::from_secs(self.estimate.left().as_secs())).to_string();
        if let Some(bar) = &self.bar {
            bar.set_prefix(left);
            bar.set_message(what.to_owned());
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            eprintln!("sweep: {}/{}, {left} left: {what}", self.done, self.all);
            self.last_line = Some(Instant::now());
        }
    }

    /// A visit is done that was planned to take `planned`, and took `spent`.
    pub fn done(&mut self, planned: Duration, spent: Duration) {
        self.estimate.done(planned, spent);
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// A visit need not be made.
    pub fn skipped(&mut self, planned: Duration) {
        self.estimate.planned_left = self.estimate.planned_left.saturating_sub(planned);
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Leaves the line to what is printed next.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: the time left follows from how slow it was so far.
    #[test]
    fn the_time_left_learns() {
        let seconds = Duration::from_secs;
        let mut estimate = Estimate { planned_left: seconds(10), planned_done: seconds(0), spent: seconds(0) };
        assert_eq!(estimate.left(), seconds(10));
        estimate.done(seconds(2), seconds(3));
        assert_eq!(estimate.left(), seconds(12));
        estimate.done(seconds(8), seconds(12));
        assert_eq!(estimate.left(), seconds(0));
    }
}
