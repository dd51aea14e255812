//! When each request is meant to be sent: fixed before the run begins, so that no stall of the server can move it.
//!
//! It knows no clock: times are nanoseconds from the start of the run. That latency is counted from these times, and
//! not from when a request could be sent, is what keeps a stall from hiding the requests it delayed ("coordinated
//! omission", Gil Tene). A long run repeats a cycle of [`CYCLE_ARRIVALS_MAX`] arrivals.
//!
//! Invariants: times never go down; the schedules of all workers together have the rate that was asked for; a seed gives
//! the same schedule again.

use std::fmt;
use std::str::FromStr;

use fastrand::Rng;

/// The most arrivals of one worker before they repeat (8 bytes each).
///
/// Larger: memory, and a longer start. Smaller: a Poisson run sees the same gaps again sooner.
const CYCLE_ARRIVALS_MAX: usize = 1 << 20;

/// How requests arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Independently of each other, as from many users: gaps are exponentially distributed.
    Poisson,
    /// One after the other, with equal gaps.
    Constant,
    /// Several at the same instant, with equal gaps between the bursts.
    Burst,
}

impl FromStr for Arrival {
    type Err = String;

    fn from_str(text: &str) -> Result<Arrival, String> {
        match text {
            "poisson" => Ok(Arrival::Poisson),
            "constant" => Ok(Arrival::Constant),
            "burst" => Ok(Arrival::Burst),
            _ => Err("not poisson, constant or burst".to_owned()),
        }
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Arrival::Poisson => "poisson",
            Arrival::Constant => "constant",
            Arrival::Burst => "burst",
        })
    }
}

/// What a schedule follows from.
#[derive(Debug, Clone, Copy)]
pub struct Arrivals {
    /// How they come.
    pub arrival: Arrival,
    /// Requests a second, of all workers together.
    pub rate_per_second: f64,
    /// Requests of one burst; 1 unless `arrival` is a burst.
    pub burst: u32,
    /// Of the random gaps.
    pub seed: u64,
}

/// One worker's arrivals.
pub struct Schedule {
    /// Of one cycle, from its beginning.
    offsets_ns: Vec<u64>,
    cycle_ns: u64,
}

/// A place in a schedule.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    index: usize,
    /// When the cycle of this place begins.
    cycle_start_ns: u64,
}

impl Schedule {
    /// The arrivals of worker `worker` of `workers`, for a run of `horizon_ns`.
    pub fn new(arrivals: &Arrivals, worker: usize, workers: usize, horizon_ns: u64) -> Schedule {
        let worker_rate = arrivals.rate_per_second / workers as f64;
        let wanted = (worker_rate * horizon_ns as f64 / 1e9).ceil() as usize + 1;
        let burst = arrivals.burst as usize;
        // A cycle is made of whole bursts.
        let bursts = wanted.min(CYCLE_ARRIVALS_MAX).div_ceil(burst);
        let arrival_ns =
            |global_burst: usize| global_burst as f64 * arrivals.burst as f64 / arrivals.rate_per_second * 1e9;
        let mut offsets_ns = Vec::with_capacity(bursts * burst);
        match arrivals.arrival {
            Arrival::Constant | Arrival::Burst => {
                for own_burst in 0..bursts {
                    let offset_ns = arrival_ns(own_burst * workers + worker) as u64;
                    offsets_ns.extend(std::iter::repeat_n(offset_ns, burst));
                }
                Schedule { offsets_ns, cycle_ns: arrival_ns(bursts * workers) as u64 }
            }
            Arrival::Poisson => {
                let mut random =
                    Rng::with_seed(arrivals.seed ^ (worker as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let mut time_ns = 0.0;
                for _ in 0..bursts * burst {
                    time_ns += -(1.0 - random.f64()).ln() / worker_rate * 1e9;
                    offsets_ns.push(time_ns as u64);
                }
                Schedule { offsets_ns, cycle_ns: time_ns as u64 }
            }
        }
    }

    /// The place of arrival `index`.
    pub fn place(&self, index: usize) -> Place {
        let mut place = Place { index: 0, cycle_start_ns: 0 };
        self.advance(&mut place, index);
        place
    }

    /// When the request at `place` is meant to be sent.
    pub fn intended_ns(&self, place: Place) -> u64 {
        place.cycle_start_ns + self.offsets_ns[place.index]
    }

    /// Moves `place` on by `arrivals`.
    pub fn advance(&self, place: &mut Place, arrivals: usize) {
        place.index += arrivals;
        while place.index >= self.offsets_ns.len() {
            place.index -= self.offsets_ns.len();
            place.cycle_start_ns += self.cycle_ns;
        }
    }

    /// Arrivals in `from_ns..to_ns`.
    pub fn count(&self, from_ns: u64, to_ns: u64) -> u64 {
        self.count_before(to_ns) - self.count_before(from_ns)
    }

    fn count_before(&self, time_ns: u64) -> u64 {
        let cycle_ns = self.cycle_ns.max(1);
        let within = self.offsets_ns.partition_point(|offset_ns| *offset_ns < time_ns % cycle_ns);
        time_ns / cycle_ns * self.offsets_ns.len() as u64 + within as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn arrivals(arrival: Arrival, rate_per_second: f64, burst: u32) -> Arrivals {
        Arrivals { arrival, rate_per_second, burst, seed: 1 }
    }

    fn first_times(schedule: &Schedule, count: usize) -> Vec<u64> {
        (0..count).map(|index| schedule.intended_ns(schedule.place(index))).collect()
    }

    /// The promise: equal gaps, and two workers take turns.
    #[test]
    fn constant_arrivals_have_equal_gaps() {
        let arrivals = arrivals(Arrival::Constant, 1000.0, 1);
        assert_eq!(first_times(&Schedule::new(&arrivals, 0, 1, SECOND_NS), 3), [0, 1_000_000, 2_000_000]);
        assert_eq!(first_times(&Schedule::new(&arrivals, 1, 2, SECOND_NS), 3), [1_000_000, 3_000_000, 5_000_000]);
        assert_eq!(Schedule::new(&arrivals, 0, 1, SECOND_NS).count(SECOND_NS / 2, SECOND_NS), 500);
    }

    /// The promise: a burst is one instant, and bursts have the rate of their requests.
    #[test]
    fn bursts_come_together() {
        let schedule = Schedule::new(&arrivals(Arrival::Burst, 1000.0, 4), 0, 1, SECOND_NS);
        assert_eq!(first_times(&schedule, 6), [0, 0, 0, 0, 4_000_000, 4_000_000]);
        assert_eq!(schedule.count(0, SECOND_NS), 1000);
    }

    /// The promise: Poisson arrivals have the rate and the spread of gaps that they should: mean 1, variance 1.
    #[test]
    fn poisson_gaps_are_exponential() {
        let schedule = Schedule::new(&arrivals(Arrival::Poisson, 100_000.0, 1), 1, 2, 2 * SECOND_NS);
        let times = first_times(&schedule, 100_000);
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 20_000.0).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.98..1.02).contains(&mean) && (0.95..1.05).contains(&variance), "{mean} {variance}");
    }

    /// The promise: a run longer than the cycle goes on at the same rate, without a step back in time.
    #[test]
    fn a_long_run_repeats_the_cycle() {
        for arrival in [Arrival::Poisson, Arrival::Constant] {
            let schedule = Schedule::new(&arrivals(arrival, 1e6, 1), 0, 1, 60 * SECOND_NS);
            assert_eq!(schedule.offsets_ns.len(), CYCLE_ARRIVALS_MAX);
            let mut place = schedule.place(CYCLE_ARRIVALS_MAX - 10);
            let mut before_ns = schedule.intended_ns(place);
            for _ in 0..20 {
                schedule.advance(&mut place, 1);
                assert!(schedule.intended_ns(place) >= before_ns);
                before_ns = schedule.intended_ns(place);
            }
            let minute = schedule.count(0, 60 * SECOND_NS);
            assert!((59_000_000..61_000_000).contains(&minute), "{minute}");
        }
    }
}
