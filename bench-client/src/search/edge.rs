//! The decisions of a search: at which rates of a range the limits hold, and how far up.
//!
//! Latency falls with the rate and then rises: between few requests a machine goes to sleep and wakes late, and many wait
//! for each other. So the rates at which limits hold lie between two edges, and the lowest rate may be outside. First the
//! range is scanned upwards in steps of [`STEP`]; if nothing holds, once more between the steps. Then the gap above the
//! highest rate that held is halved (by ratio) until it is as small as the precision.
//!
//! It measures and prints nothing: whoever calls it measures one rate at a time and says what came of it.
//!
//! Invariants: a rate that does not hold was measured twice, because one failure may be noise; a rate at which something
//! disturbed the client twice is skipped, and is taken for the upper edge only if there is nothing else; every search
//! ends, since each step of it raises the lower end of the gap or lowers the upper one.

/// From one rate of the scan to the next. Larger: a narrow range of rates that hold may lie between two of them, and the
/// first rate beyond the server's capacity takes long to drain. Smaller: more to measure.
const STEP: f64 = 2.0;

/// After so many rates that do not hold, above one that does, the scan ends.
const MISSES_MAX: u32 = 2;

/// What came of one rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every limit holds.
    Holds,
    /// A limit is broken, and another rate may be better.
    Breaks,
    /// The server does not keep up: every higher rate is worse.
    Overloaded,
    /// The client does not keep up: no higher rate can be measured.
    ClientSaturated,
    /// Something disturbed the client: this rate is not known.
    Disturbed,
}

/// Where a search looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The lowest rate.
    pub from: f64,
    /// The highest rate.
    pub to: f64,
    /// How near the highest rate that holds is to be found, as a share of it.
    pub precision: f64,
}

/// What a search has found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// The lowest rate that holds.
    pub lowest: f64,
    /// The highest rate that holds.
    pub highest: f64,
    /// The rate above it that does not, and why; none if all up to the end of the range hold.
    pub above: Option<(f64, Verdict)>,
}

/// Searches `range`; `measure` tells what comes of a rate. `None` if no rate holds.
pub fn find<E>(range: Range, measure: impl FnMut(f64) -> Result<Verdict, E>) -> Result<Option<Found>, E> {
    let mut search = Search { measure, tried: Vec::new() };
    search.scan(range)?;
    if search.highest().is_none() {
        search.scan_between()?;
    }
    search.close_in(range.precision)
}

struct Search<M> {
    measure: M,
    /// Every rate once, with what counts.
    tried: Vec<(f64, Verdict)>,
}

impl<E, M: FnMut(f64) -> Result<Verdict, E>> Search<M> {
    fn scan(&mut self, range: Range) -> Result<(), E> {
        let (mut rate, mut misses) = (range.from, 0);
        loop {
            match self.try_rate(rate)? {
                Verdict::Holds => misses = 0,
                Verdict::Overloaded | Verdict::ClientSaturated => return Ok(()),
                Verdict::Breaks | Verdict::Disturbed => misses += u32::from(self.highest().is_some()),
            }
            if rate >= range.to || misses == MISSES_MAX {
                return Ok(());
            }
            rate = (rate * STEP).min(range.to);
        }
    }

    fn scan_between(&mut self) -> Result<(), E> {
        let rates: Vec<f64> = self.tried.windows(2).map(|pair| (pair[0].0 * pair[1].0).sqrt()).collect();
        for rate in rates {
            self.try_rate(rate)?;
        }
        Ok(())
    }

    fn close_in(&mut self, precision: f64) -> Result<Option<Found>, E> {
        let (Some(mut highest), Some(lowest)) = (self.highest(), self.lowest()) else { return Ok(None) };
        let mut above = self.above(highest);
        while let Some((rate, _)) = above
            && rate / highest > 1.0 + precision
        {
            let middle = (highest * rate).sqrt();
            let (next, verdict) = match self.try_rate(middle)? {
                Verdict::Disturbed => {
                    let beside = (highest * middle).sqrt();
                    (beside, self.try_rate(beside)?)
                }
                verdict => (middle, verdict),
            };
            if verdict == Verdict::Holds {
                highest = next;
            } else {
                above = Some((next, verdict));
            }
        }
        Ok(Some(Found { lowest, highest, above }))
    }

    fn try_rate(&mut self, rate: f64) -> Result<Verdict, E> {
        let mut verdict = (self.measure)(rate)?;
        if verdict != Verdict::Holds {
            verdict = (self.measure)(rate)?;
        }
        self.tried.push((rate, verdict));
        Ok(verdict)
    }

    fn highest(&self) -> Option<f64> {
        self.holding().reduce(f64::max)
    }

    fn lowest(&self) -> Option<f64> {
        self.holding().reduce(f64::min)
    }

    fn holding(&self) -> impl Iterator<Item = f64> {
        self.tried.iter().filter(|(_, verdict)| *verdict == Verdict::Holds).map(|(rate, _)| *rate)
    }

    /// The lowest rate above `highest` that does not hold; one that is not known only if there is no other.
    fn above(&self, highest: f64) -> Option<(f64, Verdict)> {
        let higher = || self.tried.iter().copied().filter(|(rate, _)| *rate > highest);
        let known = higher().filter(|(_, verdict)| *verdict != Verdict::Disturbed);
        let lowest = |first: (f64, Verdict), second: (f64, Verdict)| if first.0 <= second.0 { first } else { second };
        known.reduce(lowest).or_else(|| higher().reduce(lowest))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use fastrand::Rng;

    use super::*;

    const RANGE: Range = Range { from: 1e3, to: 1e7, precision: 0.05 };

    /// A server whose limits hold from one rate to another, and whose capacity is three times that.
    fn valley(from: f64, to: f64) -> impl Fn(f64) -> Verdict {
        move |rate| match rate {
            rate if (from..=to).contains(&rate) => Verdict::Holds,
            rate if rate > 3.0 * to => Verdict::Overloaded,
            _ => Verdict::Breaks,
        }
    }

    /// What a search of `range` finds, and how much it measures for that.
    fn search(range: Range, mut verdict: impl FnMut(f64) -> Verdict) -> (Option<Found>, u32) {
        let mut measured = 0;
        let found = find(range, |rate| {
            assert!((range.from..=range.to).contains(&rate), "{rate}");
            measured += 1;
            Ok::<Verdict, Infallible>(verdict(rate))
        });
        let Ok(found) = found;
        (found, measured)
    }

    fn assert_edge(found: Option<Found>, edge: f64) {
        let Some(Found { highest, above: Some((above, _)), .. }) = found else { panic!("{found:?}") };
        assert!(highest <= edge && edge < above && above / highest <= 1.05, "{found:?} for {edge}");
    }

    /// The promise: what does not hold at the lowest rate is found all the same, from 1,000 requests/s on as the defaults
    /// have it, and without measuring for ever.
    #[test]
    fn a_valley_is_found() {
        let (found, measured) = search(RANGE, valley(9_000.0, 137_000.0));
        assert_edge(found, 137_000.0);
        assert_eq!(found.map(|found| found.lowest), Some(16_000.0));
        assert!(measured < 40, "{measured}");
    }

    /// The promise: wherever the valley lies, as long as it is as wide as the steps between the steps, its upper edge is
    /// found, and every search is short.
    #[test]
    fn every_valley_is_found() {
        let random = &mut Rng::with_seed(7);
        for _ in 0..1000 {
            let from = 10_f64.powf(2.5 + 3.0 * random.f64());
            let width = STEP.sqrt() * 1.001 + 10.0 * random.f64();
            let to = from * width;
            if to < RANGE.from * 1.5 {
                continue;
            }
            let (found, measured) = search(RANGE, valley(from, to));
            assert_edge(found, to);
            assert!(measured < 70, "{from} to {to}: {measured}");
        }
    }

    /// The promise: where all rates hold the end of the range is found, and where none does, that.
    #[test]
    fn ranges_without_an_edge_are_told() {
        let all = Some(Found { lowest: 1e3, highest: 1e7, above: None });
        assert_eq!(search(RANGE, valley(0.0, 1e9)).0, all);
        assert_eq!(search(RANGE, valley(5e7, 6e7)).0, None);
        let point = Range { from: 5e3, to: 5e3, precision: 0.05 };
        assert_eq!(search(point, valley(4e3, 6e3)).0.map(|found| found.highest), Some(5e3));
    }

    /// The promise: a failure that does not come again is noise, wherever it happens.
    #[test]
    fn a_single_failure_does_not_count() {
        for noise in [Verdict::Breaks, Verdict::Overloaded, Verdict::Disturbed, Verdict::ClientSaturated] {
            let server = valley(9_000.0, 137_000.0);
            let mut seen = Vec::new();
            let (found, _) = search(RANGE, |rate| {
                let is_first = !seen.contains(&rate.to_bits());
                seen.push(rate.to_bits());
                if is_first { noise } else { server(rate) }
            });
            assert_edge(found, 137_000.0);
        }
    }

    /// The promise: a rate that stays disturbed is skipped, in the scan and between a rate that holds and one that does
    /// not; only if nothing else is known above, the end is open.
    #[test]
    fn disturbed_rates_are_skipped() {
        let server = valley(9_000.0, 137_000.0);
        let disturbed = |from: f64, to: f64| {
            search(RANGE, |rate| if (from..to).contains(&rate) { Verdict::Disturbed } else { server(rate) }).0
        };
        assert_edge(disturbed(500.0, 3_000.0), 137_000.0);
        assert_edge(disturbed(60_000.0, 70_000.0), 137_000.0);
        let middle = (128_000.0_f64 * 256_000.0).sqrt();
        assert_edge(disturbed(middle - 1.0, middle + 1.0), 137_000.0);
        let Some(Found { highest, above: Some((_, Verdict::Disturbed)), .. }) = disturbed(100_000.0, 1e9) else {
            panic!("what is above is not known")
        };
        assert!((90_000.0..100_000.0).contains(&highest), "{highest}");
    }

    /// The promise: the client's limit ends the scan, and is told as the edge.
    #[test]
    fn the_clients_limit_is_an_edge() {
        let server = valley(2_000.0, 1e9);
        let (found, measured) =
            search(RANGE, |rate| if rate > 120_000.0 { Verdict::ClientSaturated } else { server(rate) });
        assert_edge(found, 120_000.0);
        assert_eq!(found.and_then(|found| found.above).map(|(_, verdict)| verdict), Some(Verdict::ClientSaturated));
        assert!(measured < 30, "{measured}");
    }
}
