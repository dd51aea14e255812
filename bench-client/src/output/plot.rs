//! What all plots have in common: colours, ticks, and the lines below that say where it was measured.
//!
//! The axes are ours: the library's own put a grid line at every tenth of a decade, which is a grey band, and a tick at two
//! and a half threads.
//!
//! Invariants: colours can be told apart without seeing red, green or blue (Okabe and Ito, Color Universal Design, 2008);
//! every tick is a round number; a tick has the same value in its label as on the axis.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;

/// The whole picture, in pixels.
pub const SIZE: (u32, u32) = (960, 620);

/// Of text, in pixels.
pub const TEXT: (&str, u32) = ("sans-serif", 14);

/// Of the title.
pub const TITLE: (&str, u32) = ("sans-serif", 18);

/// One line of text below a plot, in pixels.
pub const LINE: u32 = 22;

/// "Blue" of Okabe and Ito.
pub const BLUE: RGBColor = RGBColor(0, 114, 178);

/// "Vermillion".
pub const VERMILLION: RGBColor = RGBColor(213, 94, 0);

/// "Bluish green".
pub const GREEN: RGBColor = RGBColor(0, 158, 115);

/// Black is one of theirs too.
pub const BLACK: RGBColor = RGBColor(0, 0, 0);

/// Of grid lines.
pub const GRID: RGBColor = RGBColor(221, 221, 221);

/// Round numbers from 0 to at least `most`: not more than eight.
pub fn ticks(most: f64) -> Vec<f64> {
    const COUNT_MAX: f64 = 7.0;
    let decade = 10_f64.powf((most / COUNT_MAX).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade).into_iter().find(|step| most <= step * COUNT_MAX);
    let step = step.unwrap_or(10.0 * decade);
    let count = (most / step).ceil() as u32;
    (0..=count).map(|index| f64::from(index) * step).collect()
}

/// 1, 2 and 5 of every decade, from the last one at or below `least` to the first one at or above `most`; only the 1 where
/// there are many decades. Both are positive.
pub fn log_ticks(least: f64, most: f64) -> Vec<f64> {
    const DECADES_WITH_STEPS_MAX: i32 = 4;
    let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    let factors: &[f64] = if last - first > DECADES_WITH_STEPS_MAX { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = (first..=last).flat_map(|decade| factors.iter().map(move |factor| factor * 10_f64.powi(decade)));
    let all: Vec<f64> = all.collect();
    // A tick that was computed may miss the number that it is by a bit.
    let (least, most) = (least * (1.0 + 1e-9), most * (1.0 - 1e-9));
    let from = all.iter().rposition(|tick| *tick <= least).unwrap_or(0);
    let to = all.iter().position(|tick| *tick >= most).unwrap_or(all.len() - 1);
    all[from..=to.max(from)].to_vec()
}

/// A number as a tick has it: no more digits than it needs.
pub fn label(value: f64) -> String {
    let rounded = format!("{value:.3}");
    if rounded.contains('.') { rounded.trim_end_matches('0').trim_end_matches('.').to_owned() } else { rounded }
}

/// An axis with ticks where they are said to be, and labels that [`label`] gives them.
#[derive(Debug, Clone)]
pub struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
    is_log: bool,
}

impl Axis {
    /// A value is as far from 0 as it is large.
    pub fn linear(range: Range<f64>, ticks: Vec<f64>) -> Axis {
        Axis { range, ticks, is_log: false }
    }

    /// Values are as far apart as one is a multiple of the other, from the first of `ticks` to the last; there is at least
    /// one, and all are positive.
    pub fn logarithmic(ticks: Vec<f64>) -> Axis {
        let (first, last) = (ticks[0], ticks[ticks.len() - 1]);
        // A range of one tick has no height.
        let range = if last > first { first..last } else { first / 2.0..last * 2.0 };
        Axis { range, ticks, is_log: true }
    }

    /// From the start of the axis to its end.
    pub fn length(&self) -> f64 {
        self.range.end - self.range.start
    }

    fn place(&self, value: f64) -> f64 {
        if self.is_log { value.log10() } else { value }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let (start, end) = (self.place(self.range.start), self.place(self.range.end));
        from + (f64::from(to - from) * (self.place(*value) - start) / (end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        label(*value)
    }
}

/// Puts `lines` below each other, the first one's upper edge at `top`.
pub fn text_lines(
    lines: &[String],
    top: i32,
    root: &DrawingArea<SVGBackend<'_>, Shift>,
) -> Result<(), Box<dyn std::error::Error>> {
    for (line, row) in lines.iter().zip(0_i32..) {
        let place = (16, top + row * LINE as i32);
        root.draw(&Text::new(line.clone(), place, TEXT.into_font().color(&BLACK)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: ticks are round, few, and reach as far as what is drawn.
    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(7.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(ticks(812.0), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        assert_eq!(
            ticks(0.9).iter().map(|tick| label(*tick)).collect::<Vec<_>>(),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        for most in [0.001, 0.3, 1.0, 9.9, 1234.0, 1e6] {
            let ticks = ticks(most);
            assert!(ticks.len() <= 8 && ticks.last() >= Some(&most), "{most}: {ticks:?}");
        }
    }

    /// The promise: a logarithmic axis has ticks inside of its decades, and ends on ticks.
    #[test]
    fn log_ticks_are_round() {
        assert_eq!(log_ticks(30.0, 800.0), [20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(log_ticks(100.0, 100.0), [100.0]);
        assert_eq!(log_ticks(20.0, 50.0), [20.0, 50.0]);
        assert_eq!(
            log_ticks(0.2, 90_000.0).iter().map(|tick| label(*tick)).collect::<Vec<_>>(),
            ["0.1", "1", "10", "100", "1000", "10000", "100000"]
        );
    }
}
