//! The limit on open descriptors (RLIMIT_NOFILE), and what it leaves for connections.

use std::io;

/// The soft limit on descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorLimit(pub usize);

/// Raises the soft limit to the hard one, as far as the system lets us, and returns the soft limit that holds.
///
/// # Errors
/// The limit can't be read.
pub fn raise_descriptor_limit() -> io::Result<DescriptorLimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one rlimit, which this is.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        // SAFETY: setrlimit(2) reads one rlimit, which this is.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
            limit = raised;
        }
    }
    Ok(DescriptorLimit(usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)))
}
