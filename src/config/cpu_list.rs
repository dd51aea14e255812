//! Lists of CPUs as `--pin` takes them: `0-3,6,0-7:2`.
//!
//! Comma-separated numbers and ranges, a range with an optional stride. Unlike in cpuset(7), the order is kept and a
//! CPU may be named twice: the list says which thread goes where. Whether the CPUs exist is [`crate::config::placement`]'s.
#![forbid(unsafe_code)]

use thiserror::Error;

use crate::limits::IO_THREADS_MAX;

/// CPUs that a list can name: one for each I/O thread and one for the batch processor.
pub const CPUS_NAMED_MAX: usize = IO_THREADS_MAX + 1;

/// What is wrong with a list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CpuListError {
    /// An item is no number and no range.
    #[error("'{0}' is not a CPU, a range such as 0-3, or a range with a stride such as 0-7:2")]
    Item(String),
    /// A range goes down.
    #[error("the range '{0}' ends before it starts")]
    Descending(String),
    /// More CPUs than there can be threads.
    #[error("the list names more than {CPUS_NAMED_MAX} CPUs")]
    TooLong,
}

/// Reads a list; the CPUs come in the order in which they are named.
///
/// # Errors
/// See [`CpuListError`].
pub fn parse_cpu_list(list: &str) -> Result<Vec<usize>, CpuListError> {
    let mut cpus = Vec::new();
    for item in list.split(',') {
        let wrong = || CpuListError::Item(item.to_owned());
        let (range, stride) = match item.split_once(':') {
            Some((range, stride)) if range.contains('-') => (range, number(stride).filter(|stride| *stride > 0)),
            Some(_) => (item, None),
            None => (item, Some(1)),
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
        let stride = stride.ok_or_else(wrong)?;
        if last < first {
            return Err(CpuListError::Descending(item.to_owned()));
        }
        for cpu in (first..=last).step_by(stride) {
            if cpus.len() == CPUS_NAMED_MAX {
                return Err(CpuListError::TooLong);
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

/// Digits and nothing else, of a size that no machine reaches.
fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse::<u32>().ok()).flatten().map(|number| number as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_repetition_are_kept() {
        assert_eq!(parse_cpu_list("0-3,6,0-7:2"), Ok(vec![0, 1, 2, 3, 6, 0, 2, 4, 6]));
        assert_eq!(parse_cpu_list("5,1,5"), Ok(vec![5, 1, 5]));
        assert_eq!(parse_cpu_list("3-3"), Ok(vec![3]));
        assert_eq!(parse_cpu_list("0-4:3"), Ok(vec![0, 3]));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for item in ["", "a", "1-", "-1", "1--2", "0-3:0", "0-3:", "3:2", " 1", "+1", "0x1", "4294967296"] {
            assert_eq!(parse_cpu_list(item), Err(CpuListError::Item(item.to_owned())), "{item:?}");
        }
        assert_eq!(parse_cpu_list("0,,1"), Err(CpuListError::Item(String::new())));
        assert_eq!(parse_cpu_list("3-0"), Err(CpuListError::Descending("3-0".to_owned())));
    }

    #[test]
    fn a_huge_range_is_refused_before_it_takes_memory() {
        assert_eq!(parse_cpu_list("0-4294967295"), Err(CpuListError::TooLong));
        assert_eq!(parse_cpu_list("0-64").map(|cpus| cpus.len()), Ok(65));
    }
}
