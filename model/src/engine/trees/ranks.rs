//! Features as ranks: only their order against the model's own thresholds matters, and that fits in a byte.
//!
//! A [`Cut`] is a column: up to [`CUT_MAX`] thresholds of one rule, ascending. A value's rank is how many of them are below
//! it, so `x <= thresholds[n]` is `rank <= n`; a missing value has the smallest or the largest rank. A rule with more
//! thresholds has several cuts, in each of which values beyond it have the smallest or largest rank too. The answers of sets
//! are columns after those.
#![forbid(unsafe_code)]

use super::columns::{Question, Rule, Survey};
use super::sets::{NO, Sets, YES};

/// Thresholds of a cut. One more, and the rank of a value above all would not fit in a byte.
const CUT_MAX: usize = u8::MAX as usize;

/// Thresholds in a line: what a CPU compares at once, or in two.
pub(super) const LINE: usize = 16;

/// The columns of ranks.
pub(super) struct Ranks {
    pub cuts: Vec<Cut>,
    /// The thresholds of the cuts. A cut has a line of pivots, each the last threshold of a bucket, then lines of buckets: the
    /// bucket after the last pivot below a value has all thresholds near it. Infinity fills the lines: nothing is above it.
    pub lines: Vec<[f32; LINE]>,
    pub sets: Sets,
}

/// Up to [`CUT_MAX`] thresholds of a rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub rule: Rule,
    /// The line of its pivots. As many buckets follow as a rank may choose.
    pub line: u32,
    /// How many thresholds.
    count: u32,
}

/// What a split asks of ranks: whether the column's rank is at most `rank`, which is below the largest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Probe {
    pub column: u32,
    pub rank: u8,
}

/// Which probe answers a question.
pub(super) struct Probes {
    /// The first cut of each rule.
    first_cuts: Vec<u32>,
    cuts: u32,
}

impl Probes {
    pub fn of(&self, question: Question) -> Probe {
        match question {
            Question::AtMost { rule, threshold } => {
                let (cut, rank) = (threshold / CUT_MAX as u32, threshold % CUT_MAX as u32);
                Probe { column: self.first_cuts[rule as usize] + cut, rank: rank as u8 }
            }
            Question::Within { set } => Probe { column: self.cuts + set, rank: YES },
        }
    }
}

impl Ranks {
    pub fn new(survey: &Survey) -> (Ranks, Probes) {
        let mut ranks = Ranks { cuts: Vec::new(), lines: Vec::new(), sets: survey.sets.clone() };
        let mut first_cuts = Vec::with_capacity(survey.rules.len());
        for (rule, thresholds) in survey.rules.iter().zip(&survey.thresholds) {
            first_cuts.push(ranks.cuts.len() as u32);
            for thresholds in thresholds.chunks(CUT_MAX) {
                ranks.add_cut(*rule, thresholds);
            }
        }
        let probes = Probes { first_cuts, cuts: ranks.cuts.len() as u32 };
        (ranks, probes)
    }

    fn add_cut(&mut self, rule: Rule, thresholds: &[f32]) {
        let line = self.lines.len() as u32;
        self.cuts.push(Cut { rule, line, count: thresholds.len() as u32 });
        let filled = |part: &[f32]| {
            let mut line = [f32::INFINITY; LINE];
            line[..part.len()].copy_from_slice(part);
            line
        };
        let pivots: Vec<f32> = thresholds.chunks_exact(LINE).map(|bucket| bucket[LINE - 1]).collect();
        self.lines.push(filled(&pivots));
        self.lines.extend(thresholds.chunks(LINE).map(filled));
        if thresholds.len().is_multiple_of(LINE) {
            self.lines.push(filled(&[]));
        }
    }

    /// The thresholds of a cut, ascending.
    pub fn thresholds(&self, cut: &Cut) -> &[f32] {
        &self.lines[cut.line as usize + 1..].as_flattened()[..cut.count as usize]
    }

    pub fn columns(&self) -> usize {
        self.cuts.len() + self.sets.count()
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&self.lines[..]) + size_of_val(&self.cuts[..]) + self.sets.bytes()
    }
}

impl Cut {
    /// What takes the place of a value's rank, if it is not compared.
    #[inline(always)]
    pub fn fixed_rank(&self, x: f32) -> Option<u8> {
        self.rule.answer(x).map(|yes| if yes { YES } else { NO })
    }
}
