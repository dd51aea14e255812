//! Features as ranks: only their order against the model's own thresholds matters, and that fits in a byte.
//!
//! A [`Cut`] is up to [`CUT_MAX`] thresholds of a feature, ascending. A value's rank is how many of them are below
//! it, so `x <= thresholds[n]` is `rank <= n`; a missing value has the smallest or the largest rank. A feature with more
//! thresholds has several cuts, in each of which values beyond it have the smallest or largest rank too. The answers of sets
//! are columns after those.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::ROWS_MAX;
use super::blend::Lanes;
use super::columns::{Question, Rule, Survey, ZERO_MAX};
use super::sets::{NO, Sets, YES};

/// Thresholds of a cut. One more, and the rank of a value above all would not fit in a byte.
const CUT_MAX: usize = u8::MAX as usize;

/// Thresholds in a line: what a CPU compares at once, or in two.
pub(super) const LINE: usize = 16;

/// Thresholds that lie in one line of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [f32; LINE]);

/// The columns of ranks.
pub(super) struct Ranks {
    pub cuts: Vec<Cut>,
    /// What takes the place of a rank that is not compared, for each column of the cuts.
    pub rules: Vec<Rule>,
    /// The thresholds of the cuts. A cut has a line of pivots, each the last threshold of a bucket, then lines of buckets: the
    /// bucket after the last pivot below a value has all thresholds near it. Infinity fills the lines: nothing is above it.
    lines: Vec<Line>,
    pub sets: Sets,
}

/// Up to [`CUT_MAX`] thresholds of a feature. What is looked up once serves all its rules, in a column each.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub feature: u32,
    pub columns: Range<usize>,
    /// The line of its pivots. As many buckets follow as a rank may choose.
    line: u32,
}

/// Columns of a row that lies in registers, at most: a byte names one.
pub(super) const ROW_COLUMNS: usize = 256;

/// The columns of one row.
pub(super) struct Row {
    pub ranks: Columns,
    /// All bits where the value is missing.
    missing: Columns,
    /// All bits where the value counts as zero; unused if no rule asks for that.
    zero: Columns,
    rules: RowRules,
}

/// A byte for each column.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Columns(pub [u8; ROW_COLUMNS]);

/// The rules of the columns, bit by bit: all of a column's bits are the same.
struct RowRules {
    /// Whether a missing value's answer is no.
    missing_no: Columns,
    /// Whether zero is not compared.
    has_zero: Columns,
    /// Whether zero's answer is no.
    zero_no: Columns,
    /// Whether any column has zero.
    any_zero: bool,
}

// The rules are followed bit by bit.
const _: () = assert!(YES == 0 && NO == u8::MAX);

impl Row {
    /// For ranks of at most [`ROW_COLUMNS`] columns.
    pub fn new(ranks: &Ranks) -> Row {
        let by_rule = |answer: fn(&Rule) -> bool| {
            let mut columns = Columns([0; ROW_COLUMNS]);
            for (rule, column) in ranks.rules.iter().zip(&mut columns.0) {
                *column = all_if(answer(rule));
            }
            columns
        };
        let rules = RowRules {
            missing_no: by_rule(|rule| !rule.missing),
            has_zero: by_rule(|rule| rule.zero.is_some()),
            zero_no: by_rule(|rule| rule.zero == Some(false)),
            any_zero: ranks.rules.iter().any(|rule| rule.zero.is_some()),
        };
        let none = Columns([0; ROW_COLUMNS]);
        Row { ranks: none.clone(), missing: none.clone(), zero: none, rules }
    }

    /// Puts a value into the columns of its cut, `below` of whose thresholds are below it; none is below NaN.
    #[inline(always)]
    pub fn put(&mut self, cut: &Cut, x: f32, below: u8) {
        let (missing, zero) = (all_if(x.is_nan()), all_if(x.abs() <= ZERO_MAX));
        for column in cut.columns.clone() {
            self.ranks.0[column] = below;
            self.missing.0[column] = missing;
            if self.rules.any_zero {
                self.zero.0[column] = zero;
            }
        }
    }

    /// Follows the rules where values are not compared, then flips the bits of `flip` in all ranks.
    #[inline(always)]
    pub fn finish(&mut self, flip: u8) {
        let columns = self.ranks.0.iter_mut().zip(&self.missing.0).zip(&self.rules.missing_no.0);
        for ((rank, missing), no) in columns {
            // So far it is a yes: nothing is below NaN.
            *rank = (*rank | (missing & no)) ^ flip;
        }
        if self.rules.any_zero {
            let rules = self.rules.has_zero.0.iter().zip(&self.rules.zero_no.0);
            for ((rank, zero), (has_zero, no)) in self.ranks.0.iter_mut().zip(&self.zero.0).zip(rules) {
                let zero = zero & has_zero;
                *rank = (*rank & !zero) | (zero & (no ^ flip));
            }
        }
    }
}

/// All bits, or none.
#[inline(always)]
fn all_if(is: bool) -> u8 {
    0_u8.wrapping_sub(u8::from(is))
}

/// What a split asks of ranks: whether the column's rank is at most `rank`, which is below the largest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Probe {
    pub column: u32,
    pub rank: u8,
}

/// Which probe answers a question.
pub(super) struct Probes {
    /// By rule: its thresholds' probes.
    rules: Vec<Vec<Probe>>,
    first_set: u32,
}

impl Probes {
    pub fn of(&self, question: Question) -> Probe {
        match question {
            Question::AtMost { rule, threshold } => self.rules[rule as usize][threshold as usize],
            Question::Within { set } => Probe { column: self.first_set + set, rank: YES },
        }
    }
}

impl Ranks {
    pub fn new(survey: &Survey) -> (Ranks, Probes) {
        let sets = survey.sets.clone();
        let mut ranks = Ranks { cuts: Vec::new(), rules: Vec::new(), lines: Vec::new(), sets };
        let mut probes = Probes { rules: vec![Vec::new(); survey.rules.len()], first_set: 0 };
        let mut order: Vec<usize> = (0..survey.rules.len()).collect();
        let feature = |rule: &usize| survey.rules[*rule].feature;
        order.sort_by_key(feature);
        for rules in order.chunk_by(|one, other| feature(one) == feature(other)) {
            let mut all: Vec<f32> = rules.iter().flat_map(|rule| &survey.thresholds[*rule]).copied().collect();
            all.sort_unstable_by(f32::total_cmp);
            all.dedup();
            if all.len() <= CUT_MAX {
                ranks.add_cuts(survey, rules, &all, &mut probes);
            } else {
                for rule in rules {
                    ranks.add_cuts(survey, &[*rule], &survey.thresholds[*rule], &mut probes);
                }
            }
        }
        probes.first_set = ranks.rules.len() as u32;
        (ranks, probes)
    }

    /// Cuts of `all` thresholds of some rules of a feature.
    fn add_cuts(&mut self, survey: &Survey, rules: &[usize], all: &[f32], probes: &mut Probes) {
        for cut in all.chunks(CUT_MAX) {
            for rule in rules {
                let column = self.rules.len() as u32;
                let (first, last) = (cut[0], cut[cut.len() - 1]);
                let here = survey.thresholds[*rule].iter().filter(|threshold| (first..=last).contains(threshold));
                let rank = |threshold: &f32| cut.partition_point(|other| other < threshold) as u8;
                probes.rules[*rule].extend(here.map(|threshold| Probe { column, rank: rank(threshold) }));
                self.rules.push(survey.rules[*rule]);
            }
            let columns = self.rules.len() - rules.len()..self.rules.len();
            self.add_cut(survey.rules[rules[0]].feature, columns, cut);
        }
    }

    fn add_cut(&mut self, feature: u32, columns: Range<usize>, thresholds: &[f32]) {
        let line = self.lines.len() as u32;
        self.cuts.push(Cut { feature, columns, line });
        let filled = |part: &[f32]| {
            let mut line = [f32::INFINITY; LINE];
            line[..part.len()].copy_from_slice(part);
            Line(line)
        };
        let pivots: Vec<f32> = thresholds.chunks_exact(LINE).map(|bucket| bucket[LINE - 1]).collect();
        self.lines.push(filled(&pivots));
        self.lines.extend(thresholds.chunks(LINE).map(filled));
        if thresholds.len().is_multiple_of(LINE) {
            self.lines.push(filled(&[]));
        }
    }

    /// The pivots of a cut, and its buckets with whatever follows.
    #[inline(always)]
    pub fn lines(&self, cut: &Cut) -> (&Line, &[Line]) {
        self.lines[cut.line as usize..].split_first().expect("a cut has pivots")
    }

    pub fn columns(&self) -> usize {
        self.first_set() + self.sets.count()
    }

    /// The column of the first set; those of cuts come before.
    pub fn first_set(&self) -> usize {
        self.rules.len()
    }

    pub fn bytes(&self) -> usize {
        let cuts = size_of_val(&self.cuts[..]) + size_of_val(&self.rules[..]);
        size_of_val(&self.lines[..]) + cuts + self.sets.bytes()
    }
}

/// What the bits of a rank are flipped by where bytes are compared as signed ones.
pub(super) const SIGNED: u8 = 0x80;

/// The ranks of some values in a column, from how many thresholds are below them, their bits flipped by `flip`.
#[inline(always)]
pub(super) fn by_rule(rule: Rule, values: &[f32; ROWS_MAX], below: &[u8; ROWS_MAX], flip: u8, ranks: &mut Lanes) {
    let answer = |yes: bool| if yes { YES ^ flip } else { NO ^ flip };
    let missing = answer(rule.missing);
    for ((rank, below), value) in ranks.0.iter_mut().zip(below).zip(values) {
        *rank = if value.is_nan() { missing } else { *below ^ flip };
    }
    if let Some(zero) = rule.zero {
        for (rank, value) in ranks.0.iter_mut().zip(values) {
            *rank = if value.abs() <= ZERO_MAX { answer(zero) } else { *rank };
        }
    }
}
