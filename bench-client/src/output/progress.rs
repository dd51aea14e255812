//! A line that lives while a run goes on: how far it is, answers a second, and the tail of the last interval.
//!
//! Invariants: it is only there if standard error is a terminal; otherwise nothing is printed and nothing is drawn.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::load::recorder::Interval;
use crate::load::{Load, Loop};

/// The live line of one repeat.
pub struct Progress {
    bar: ProgressBar,
    interval: Duration,
    is_open: bool,
}

impl Progress {
    /// A line for repeat `index` of `repeats` of `load`.
    pub fn new(load: &Load, index: u32, repeats: u32) -> Progress {
        let seconds = (load.warmup + load.duration).as_secs().max(1);
        let bar = if stderr().is_terminal() {
            ProgressBar::with_draw_target(Some(seconds), ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        let template = format!("{}/{repeats} [{{bar:20}}] {{elapsed}} of {seconds}s {{msg}}", index + 1);
        // The template is ours, and right; a bar without it is a bar still.
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        Progress { bar, interval: load.interval, is_open: matches!(load.pace, Loop::Open(_)) }
    }

    /// Shows what one thread did in an interval.
    pub fn show(&self, interval: &Interval) {
        if self.bar.is_hidden() {
            return;
        }
        let (times_ns, kind) =
            if self.is_open { (&interval.response_ns, "response") } else { (&interval.service_ns, "service") };
        self.bar.set_position(self.bar.elapsed().as_secs());
        self.bar.set_message(format!(
            "{:.0} answers/s a thread, {kind} p99 {:.1} us, max {:.1} us",
            interval.answers as f64 / self.interval.as_secs_f64(),
            times_ns.value_at_quantile(0.99) as f64 / 1e3,
            times_ns.max() as f64 / 1e3,
        ));
    }

    /// Leaves the line to what is printed next.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
