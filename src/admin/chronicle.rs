//! What has happened that nobody counts: which model serves since when, and the last events.
//!
//! Threads that are no part of serving write it, seldom; the admin thread reads it.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::kernel::unix_seconds;
use crate::limits::ADMIN_EVENTS_MAX;

/// What there is to say about a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// What it is called.
    pub name: String,
    /// The first 8 bytes of its file's SHA-256; 0 without a file.
    pub version: u64,
    /// What its file is.
    pub format: String,
    /// Features in a vector.
    pub features: usize,
    /// Scores of a vector.
    pub outputs: usize,
    /// What the features are called; none if the file does not say.
    pub feature_names: Vec<String>,
}

/// What has happened.
#[derive(Debug)]
pub struct Chronicle(Mutex<Written>);

/// What is written in a chronicle.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub model: ModelFacts,
    pub model_loaded_unix_seconds: f64,
    pub reloads_ok: u64,
    pub reloads_failed: u64,
    /// The last ones, the oldest first.
    pub events: VecDeque<Event>,
}

/// Something that happened once.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub unix_seconds: f64,
    pub text: String,
}

impl Chronicle {
    /// Of a server that starts with this model.
    pub fn beginning(model: ModelFacts) -> Chronicle {
        let started = Event { unix_seconds: unix_seconds(), text: format!("started with {}", said(&model)) };
        Chronicle(Mutex::new(Written {
            model,
            model_loaded_unix_seconds: started.unix_seconds,
            reloads_ok: 0,
            reloads_failed: 0,
            events: VecDeque::from([started]),
        }))
    }

    /// Another model serves.
    pub fn model_replaced(&self, model: ModelFacts) {
        let mut written = self.read();
        written.reloads_ok += 1;
        written.note(format!("reloaded: {}", said(&model)));
        (written.model, written.model_loaded_unix_seconds) = (model, unix_seconds());
    }

    /// A new model is not taken, for this reason.
    pub fn model_not_taken(&self, reason: &str) {
        let mut written = self.read();
        written.reloads_failed += 1;
        written.note(format!("the new model is not taken: {reason}"));
    }

    /// Something else.
    pub(super) fn note(&self, text: &str) {
        self.read().note(text.to_owned());
    }

    pub(super) fn read(&self) -> MutexGuard<'_, Written> {
        // Nothing that is done while it is locked can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModelFacts {
    /// The version as it is written everywhere.
    pub fn version_text(&self) -> String {
        format!("{:016x}", self.version)
    }
}

impl Written {
    fn note(&mut self, text: String) {
        /// Letters of one event: a reason may quote a file.
        const LETTERS_MAX: usize = 300;
        if self.events.len() == ADMIN_EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Event { unix_seconds: unix_seconds(), text: text.chars().take(LETTERS_MAX).collect() });
    }
}

fn said(model: &ModelFacts) -> String {
    format!("the model {} of version {}", model.name, model.version_text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chronicle_keeps_the_last_events_and_counts_all() {
        let chronicle = Chronicle::beginning(ModelFacts { name: "a".to_owned(), ..ModelFacts::default() });
        for version in 1..=100 {
            chronicle.model_replaced(ModelFacts { name: "b".to_owned(), version, ..ModelFacts::default() });
            chronicle.model_not_taken(&"x".repeat(100_000));
        }
        let written = chronicle.read();
        assert_eq!((written.reloads_ok, written.reloads_failed, written.model.version), (100, 100, 100));
        assert_eq!(written.events.len(), ADMIN_EVENTS_MAX);
        let bytes: usize = written.events.iter().map(|event| event.text.len()).sum();
        assert!(bytes < 400 * ADMIN_EVENTS_MAX && written.events[48].text.contains("0000000000000064"), "{bytes}");
    }
}
