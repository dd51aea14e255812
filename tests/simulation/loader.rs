//! Who replaces the server's model while it serves: one version after the other, whenever the seed says so.
//!
//! It offers and does not wait, as nothing here waits; what comes back it checks.

use std::sync::Arc;

use disrust::batch::{ModelPlace, ReplaceError};
use disrust::exchange::wake::Wake;
use fastrand::Rng;

use super::model::{Scorer, version_name};
use super::swarm::Swarm;
use super::trace::note;

/// The loader of a run.
pub struct Loader {
    place: Arc<ModelPlace>,
    scorer: Scorer,
    features: usize,
    /// Versions that there will be.
    versions: usize,
    /// Those that have been offered, with the first one, which was there from the beginning.
    offered: usize,
    /// Those that have come back.
    returned: usize,
    /// What the server said when it had ended.
    refused: bool,
}

impl Loader {
    pub fn new(place: Arc<ModelPlace>, swarm: &Swarm) -> Loader {
        Loader {
            place,
            scorer: swarm.scorer,
            features: swarm.layout.feature_dim(),
            versions: swarm.versions,
            offered: 1,
            returned: 0,
            refused: false,
        }
    }

    /// Takes back what the last offer was for, if it has been swapped; or makes the next one, if the seed says so.
    pub fn step(&mut self, swarm: &Swarm, wake: &Wake, rng: &mut Rng) {
        if self.is_waiting() {
            self.collect();
        } else if self.offered < self.versions && swarm.reloads.hits(rng) {
            self.offer(wake);
        }
    }

    fn offer(&mut self, wake: &Wake) {
        note(|| format!("version {} of the model is offered", self.offered));
        let model = self.scorer.model(self.features, self.offered);
        match self.place.offer(Box::new(model), wake) {
            Ok(()) => self.offered += 1,
            Err(error) => self.refused(error),
        }
    }

    fn collect(&mut self) {
        match self.place.outcome() {
            None => {}
            Some(Ok(model)) => {
                let is_the_one_before = self.scorer == Scorer::Sum || model.name() == version_name(self.returned);
                assert!(is_the_one_before, "{} comes back for version {}", model.name(), self.offered - 1);
                self.returned += 1;
            }
            Some(Err(error)) => self.refused(error),
        }
    }

    fn refused(&mut self, error: ReplaceError) {
        assert!(error == ReplaceError::Ended, "one loader, one shape: {error}");
        (self.refused, self.versions) = (true, self.offered);
    }

    /// Whether an offer is still to be swapped, or what it was for to be taken back.
    fn is_waiting(&self) -> bool {
        self.returned + 1 < self.offered && !self.refused
    }

    /// The batch processor sleeps after it has taken so many models.
    pub fn check_sleeper(&self, taken: u64) {
        assert!(taken + 1 == self.offered as u64, "the batch processor sleeps beside a new model");
    }

    /// The batch processor has ended: nothing is waited for any more, nor taken.
    pub fn check_end(&mut self, wake: &Wake) {
        if self.is_waiting() {
            self.collect();
        }
        assert!(!self.is_waiting(), "nobody waits for a batch processor that has ended");
        let model = Box::new(self.scorer.model(self.features, 0));
        assert_eq!(self.place.offer(model, wake), Err(ReplaceError::Ended));
    }
}
