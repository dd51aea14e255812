//! Lists of CPUs as `--pin` takes them: `0-3,6,0-7:2`; a part of [`super`].
//!
//! Numbers and ranges, a range with an optional stride. The order is kept, and a CPU may be named twice: the list says
//! which thread goes where. Whether the CPUs are there is told when a thread is pinned.
//!
//! Invariants: no CPU is above [`CPU_MAX`], so a list is no longer than its text allows.

use std::sync::Arc;

/// The kernel's own sets end here. Larger: cannot be told to it. Smaller: a large machine cannot be used.
const CPU_MAX: usize = 1023;

/// CPUs in the order in which they were named.
pub type CpuList = Arc<[usize]>;

/// Reads a list.
pub fn cpu_list(text: &str) -> Result<CpuList, String> {
    let items = text.split(',').map(cpus_of).collect::<Result<Vec<_>, String>>()?;
    Ok(items.concat().into())
}

fn cpus_of(item: &str) -> Result<Vec<usize>, String> {
    let wrong = || format!("'{item}' is not a CPU, a range such as 0-3, or a range with a stride such as 0-7:2");
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Err(wrong());
        }
        let in_bounds = digits.parse().ok().filter(|number| *number <= CPU_MAX);
        in_bounds.ok_or_else(|| format!("{digits} is above {CPU_MAX}"))
    };
    let Some((first, behind)) = item.split_once('-') else { return Ok(vec![number(item)?]) };
    let (last, stride) = behind.split_once(':').unwrap_or((behind, "1"));
    let (first, last, stride) = (number(first)?, number(last)?, number(stride)?);
    if stride == 0 {
        return Err(wrong());
    }
    if last < first {
        return Err(format!("the range '{item}' ends before it starts"));
    }
    Ok((first..=last).step_by(stride).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: order and repetition are kept.
    #[test]
    fn order_and_repetition_are_kept() {
        for (text, cpus) in [
            ("0-3,6,0-7:2", &[0, 1, 2, 3, 6, 0, 2, 4, 6][..]),
            ("5,1,5", &[5, 1, 5]),
            ("3-3", &[3]),
            ("0-4:3", &[0, 3]),
        ] {
            assert_eq!(cpu_list(text).as_deref(), Ok(cpus), "{text}");
        }
    }

    /// The promise: nonsense is refused by its name, and a huge range before it takes memory.
    #[test]
    fn nonsense_is_refused() {
        for text in ["", "a", "1-", "-1", "1--2", "0-3:0", "0-3:", "3:2", " 1", "+1", "0x1", "0,,1"] {
            assert!(cpu_list(text).is_err_and(|told| told.contains("is not a CPU")), "{text:?}");
        }
        assert!(cpu_list("3-0").is_err_and(|told| told.contains("'3-0' ends")));
        for text in ["1024", "0-4294967295", "99999999999999999999999"] {
            assert!(cpu_list(text).is_err_and(|told| told.contains("above 1023")), "{text}");
        }
    }
}
