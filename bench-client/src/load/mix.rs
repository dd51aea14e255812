//! How many vectors the requests carry: one number, a range, or a weighted mix of both.
//!
//! `4` is always 4; `1..64` is 1 to 64, both included and equally likely; `1:90,64:10` is 1 in 90 and 64 in 10 of 100
//! requests. A weight may stand behind a range too.
//!
//! Invariants: every number drawn is 1 to [`MAX_VECTORS_PER_REQUEST`]; the weights' sum is not 0.

use std::fmt;
use std::str::FromStr;

use disrust_protocol::MAX_VECTORS_PER_REQUEST;
use fastrand::Rng;

/// The largest weight of one part. Larger: sums of weights might overflow. Smaller: rare sizes could not be told.
const WEIGHT_MAX: u32 = 1_000_000;

/// A distribution of vectors a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorMix {
    parts: Vec<Part>,
    weight_sum: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first: u32,
    last: u32,
    weight: u32,
}

impl VectorMix {
    /// The number of vectors of the next request.
    pub fn draw(&self, random: &mut Rng) -> u32 {
        let mut place = random.u64(0..self.weight_sum);
        for part in &self.parts {
            if place < u64::from(part.weight) {
                return random.u32(part.first..=part.last);
            }
            place -= u64::from(part.weight);
        }
        unreachable!("the place is below the sum of the weights")
    }

    /// The only number of vectors, if there is only one.
    pub fn fixed(&self) -> Option<u32> {
        let first = self.parts[0].first;
        self.parts.iter().all(|part| part.first == first && part.last == first).then_some(first)
    }
}

impl FromStr for VectorMix {
    type Err = String;

    fn from_str(text: &str) -> Result<VectorMix, String> {
        let parts = text.split(',').map(part).collect::<Result<Vec<Part>, String>>()?;
        let weight_sum = parts.iter().map(|part| u64::from(part.weight)).sum();
        if weight_sum == 0 { Err("all weights are 0".to_owned()) } else { Ok(VectorMix { parts, weight_sum }) }
    }
}

fn part(text: &str) -> Result<Part, String> {
    let (range, weight) = text.split_once(':').unwrap_or((text, "1"));
    let (first, last) = range.split_once("..").unwrap_or((range, range));
    let number = |digits: &str| digits.parse::<u32>().map_err(|_| format!("'{text}' is not N, A..B, N:W or A..B:W"));
    let part = Part { first: number(first)?, last: number(last)?, weight: number(weight)? };
    if part.first < 1 || part.first > part.last || part.last > MAX_VECTORS_PER_REQUEST {
        return Err(format!("'{range}' is not within 1..{MAX_VECTORS_PER_REQUEST}"));
    }
    if part.weight > WEIGHT_MAX { Err(format!("a weight is at most {WEIGHT_MAX}")) } else { Ok(part) }
}

impl fmt::Display for VectorMix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.parts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{}", part.first)?;
            if part.last != part.first {
                write!(formatter, "..{}", part.last)?;
            }
            if self.parts.len() > 1 {
                write!(formatter, ":{}", part.weight)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(text: &str) -> VectorMix {
        text.parse().expect("a valid mix")
    }

    /// The promise: what is written is what is drawn, in about the shares that were asked for.
    #[test]
    fn draws_follow_the_weights() {
        let mut random = Rng::with_seed(7);
        let draws: Vec<u32> = (0..10_000).map(|_| mix("1:90,60..64:10").draw(&mut random)).collect();
        let ones = draws.iter().filter(|vectors| **vectors == 1).count();
        assert!((8800..9200).contains(&ones), "{ones} of 10000");
        assert!(draws.iter().all(|vectors| *vectors == 1 || (60..=64).contains(vectors)));
        assert!((60..=64).all(|vectors| draws.contains(&vectors)));
    }

    /// The promise: a mix reads back from how it prints, and tells when it is only one number.
    #[test]
    fn mixes_print_as_they_read() {
        for text in ["1", "64", "1..64", "1:90,64:10", "2..3:1,5:0"] {
            assert_eq!(mix(text).to_string(), text);
        }
        assert_eq!((mix("7").fixed(), mix("7..7").fixed(), mix("1..2").fixed()), (Some(7), Some(7), None));
    }

    /// The promise: sizes that no request can have, and nonsense, are refused.
    #[test]
    fn nonsense_is_refused() {
        for text in ["", "0", "65", "2..1", "1..65", "a", "1:", "1:0", ":3", "1,,2", "-1", "1:9999999"] {
            assert!(text.parse::<VectorMix>().is_err(), "{text:?}");
        }
    }
}
