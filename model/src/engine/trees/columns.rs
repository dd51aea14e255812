//! What the splits of an ensemble ask of a row, put in order: each distinct way of looking at a feature is a column.
//!
//! Splits that compare a feature with a threshold, and agree on where a missing value and (LightGBM's missing type Zero) a
//! zero go, share a [`Rule`]. Splits that ask for the same set share an answer ([`Sets`]). Engines then compare numbers that
//! are never missing.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::sets::Sets;
use crate::form::{Ensemble, Interval, Split, Test};

/// How a feature is compared with thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub feature: u32,
    /// The answer for zero, if it is not compared.
    pub zero: Option<bool>,
    /// The answer for NaN.
    pub missing: bool,
}

/// `kZeroThreshold` of LightGBM: what is not farther from zero counts as zero.
pub(super) const ZERO_MAX: f32 = 1e-35;

impl Rule {
    /// The answer for a value that is not compared.
    #[inline(always)]
    pub fn answer(self, x: f32) -> Option<bool> {
        if x.is_nan() {
            return Some(self.missing);
        }
        self.zero.filter(|_| x.abs() <= ZERO_MAX)
    }
}

/// What a split asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether, by the rule of this index, the value is at most the rule's threshold of this index.
    AtMost { rule: u32, threshold: u32 },
    /// The answer of the set of this index.
    Within { set: u32 },
}

/// All questions of an ensemble.
pub(super) struct Survey {
    pub rules: Vec<Rule>,
    /// Of each rule, ascending, each once; never -0.
    pub thresholds: Vec<Vec<f32>>,
    pub sets: Sets,
    rule_index: HashMap<Rule, u32>,
    set_index: HashMap<SetKey, u32>,
}

#[derive(PartialEq, Eq, Hash)]
struct SetKey {
    feature: u32,
    missing: bool,
    interval_bits: Box<[(u32, u32)]>,
}

impl SetKey {
    fn new(split: &Split, intervals: &[Interval]) -> SetKey {
        let bits = |interval: &Interval| (interval.first.to_bits(), interval.last.to_bits());
        SetKey { feature: split.feature, missing: split.missing, interval_bits: intervals.iter().map(bits).collect() }
    }
}

impl Survey {
    pub fn new(ensemble: &Ensemble) -> Survey {
        let mut survey = Survey {
            rules: Vec::new(),
            thresholds: Vec::new(),
            sets: Sets::default(),
            rule_index: HashMap::new(),
            set_index: HashMap::new(),
        };
        let mut sets = Vec::new();
        for split in ensemble.trees.iter().flat_map(|tree| &tree.splits) {
            match &split.test {
                Test::AtMost { threshold, zero } => survey.see_threshold(rule_of(split, *zero), *threshold),
                Test::Within(intervals) => {
                    let next = sets.len() as u32;
                    survey.set_index.entry(SetKey::new(split, intervals)).or_insert_with(|| {
                        sets.push((split.feature, split.missing, intervals.clone()));
                        next
                    });
                }
            }
        }
        for thresholds in &mut survey.thresholds {
            thresholds.sort_unstable_by(f32::total_cmp);
            thresholds.dedup();
            thresholds.shrink_to_fit();
        }
        survey.sets = Sets::new(sets);
        survey
    }

    fn see_threshold(&mut self, rule: Rule, threshold: f32) {
        let index = *self.rule_index.entry(rule).or_insert_with(|| {
            self.rules.push(rule);
            self.thresholds.push(Vec::new());
            self.rules.len() as u32 - 1
        });
        self.thresholds[index as usize].push(positive_zero(threshold));
    }

    /// What a split of the ensemble asks.
    pub fn question(&self, split: &Split) -> Question {
        match &split.test {
            Test::AtMost { threshold, zero } => {
                let rule = self.rule_index[&rule_of(split, *zero)];
                let below = |other: &f32| *other < *threshold;
                let threshold = self.thresholds[rule as usize].partition_point(below) as u32;
                Question::AtMost { rule, threshold }
            }
            Test::Within(intervals) => Question::Within { set: self.set_index[&SetKey::new(split, intervals)] },
        }
    }
}

fn rule_of(split: &Split, zero: Option<bool>) -> Rule {
    Rule { feature: split.feature, zero, missing: split.missing }
}

/// The same number, but 0 for -0.
pub(super) fn positive_zero(number: f32) -> f32 {
    number + 0.0
}
