//! Why the kernel refuses io_uring or a thread, told apart from what the system says about itself.
//!
//! Pure but for reading /proc; it does not try to get around a refusal.

use std::fs;
use std::io;

/// What the system says about itself.
#[derive(Debug, Clone, Default)]
struct Facts {
    /// Seccomp of /proc/self/status: 0 off, 1 strict, 2 filter.
    seccomp: Option<u32>,
    /// /proc/sys/kernel/io_uring_disabled: 0 for everyone, 1 for a group, 2 for nobody.
    disabled: Option<u32>,
    /// Release of the running kernel.
    kernel: String,
    /// RLIMIT_MEMLOCK, soft, as /proc/self/limits prints it.
    memlock: String,
    /// RLIMIT_NPROC, likewise.
    processes: String,
    /// RLIMIT_AS, likewise.
    address_space: String,
}

const UNLIMITED: &str = "unlimited";

/// One message for a refusal: what, the likely cause, what to try.
pub fn explain_refusal(error: &io::Error) -> String {
    explain(error, &Facts::read())
}

/// Why a thread can't be had: what the system said, the likely cause, what to try.
pub fn explain_thread_refusal(error: &io::Error) -> String {
    explain_thread(error, &Facts::read())
}

impl Facts {
    fn read() -> Facts {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let number = |text: &str| text.trim().parse().ok();
        let limit = |name| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()).unwrap_or("unknown").to_owned()
        };
        Facts {
            seccomp: status.lines().find_map(|line| line.strip_prefix("Seccomp:")).and_then(number),
            disabled: fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok().as_deref().and_then(number),
            kernel: crate::kernel::kernel_release(),
            memlock: limit("Max locked memory"),
            processes: limit("Max processes"),
            address_space: limit("Max address space"),
        }
    }
}

fn explain_thread(error: &io::Error, facts: &Facts) -> String {
    let Facts { processes, address_space, .. } = facts;
    if address_space == UNLIMITED {
        format!(
            "{error}. The likely cause is the limit on this user's processes and threads ({processes}), or on a \
             container's pids. Try: a higher ulimit -u or pids limit, or fewer --io-threads"
        )
    } else {
        format!(
            "{error}. The likely cause is the limit on this user's processes and threads ({processes}), on a container's \
             pids, or on the address space ({address_space} bytes). Try: a higher ulimit -u, pids limit or ulimit -v, or \
             fewer --io-threads"
        )
    }
}

fn explain(error: &io::Error, facts: &Facts) -> String {
    let filtered = facts.seccomp == Some(2);
    let cause = match error.raw_os_error() {
        Some(libc::EPERM) if facts.disabled == Some(2) => {
            "io_uring is switched off on this machine (kernel.io_uring_disabled = 2). Try: sysctl \
             kernel.io_uring_disabled=0"
                .to_owned()
        }
        Some(libc::EPERM) if facts.disabled == Some(1) => {
            "io_uring is reserved for a group (kernel.io_uring_disabled = 1). Try: run as a member of the group in \
             kernel.io_uring_group, or sysctl kernel.io_uring_disabled=0"
                .to_owned()
        }
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) if filtered => {
            "a seccomp filter refuses it (Seccomp: 2 in /proc/self/status), as Docker's and containerd's default \
             profiles do. Try: a profile that allows io_uring_setup, io_uring_enter and io_uring_register, such as \
             deploy/seccomp/disrust.json of this project (docker run --security-opt seccomp=FILE)"
                .to_owned()
        }
        Some(libc::ENOSYS | libc::EINVAL) => {
            format!("this kernel ({}) lacks what the server needs. Try: Linux 6.1 or newer", facts.kernel)
        }
        Some(libc::ENOMEM) => format!(
            "the limit on locked memory is too small for a ring (RLIMIT_MEMLOCK is {} bytes; one I/O thread needs \
             about 100 KiB). Try: ulimit -l 8192, or fewer --io-threads",
            facts.memlock
        ),
        Some(libc::EMFILE | libc::ENFILE) => {
            "no descriptors are left. Try: a higher ulimit -n, or fewer --io-threads".to_owned()
        }
        Some(libc::EPERM | libc::EACCES) => {
            "a security policy (AppArmor, SELinux, a sandbox) refuses it. Try: the system's audit log".to_owned()
        }
        _ => format!("the cause is not known (kernel {})", facts.kernel),
    };
    format!("io_uring is unavailable ({error}): {cause}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(errno: i32, facts: Facts) -> String {
        explain(&io::Error::from_raw_os_error(errno), &facts)
    }

    #[test]
    fn each_cause_is_told_apart() {
        let facts = Facts { kernel: "5.4.0".to_owned(), memlock: "65536".to_owned(), ..Facts::default() };
        let filtered = Facts { seccomp: Some(2), ..facts.clone() };
        assert!(explained(libc::EPERM, filtered.clone()).contains("seccomp filter"));
        assert!(explained(libc::ENOSYS, filtered.clone()).contains("seccomp filter"));
        let disabled = Facts { disabled: Some(2), ..filtered };
        assert!(explained(libc::EPERM, disabled.clone()).contains("io_uring_disabled = 2"));
        assert!(explained(libc::EPERM, Facts { disabled: Some(1), ..disabled }).contains("io_uring_group"));
        assert!(explained(libc::ENOSYS, facts.clone()).contains("5.4.0"));
        assert!(explained(libc::EINVAL, facts.clone()).contains("Linux 6.1"));
        assert!(explained(libc::ENOMEM, facts.clone()).contains("65536"));
        assert!(explained(libc::EMFILE, facts.clone()).contains("ulimit -n"));
        assert!(explained(libc::EPERM, facts.clone()).contains("security policy"));
        assert!(explained(libc::EIO, facts).contains("not known"));
    }

    #[test]
    fn a_refused_thread_is_explained_by_the_limits_that_there_are() {
        let refused = io::Error::from_raw_os_error(libc::EAGAIN);
        let facts = Facts { processes: "12".to_owned(), address_space: UNLIMITED.to_owned(), ..Facts::default() };
        let words = explain_thread(&refused, &facts);
        assert!(words.contains("threads (12)") && words.contains("ulimit -u") && !words.contains("address"), "{words}");
        let words = explain_thread(&refused, &Facts { address_space: "4096".to_owned(), ..facts });
        assert!(words.contains("address space (4096 bytes)") && words.contains("ulimit -v"), "{words}");
    }

    #[test]
    fn the_facts_of_this_machine_can_be_read() {
        let facts = Facts::read();
        assert!(facts.seccomp.is_some() && !facts.kernel.is_empty() && facts.memlock != "unknown", "{facts:?}");
        assert!(facts.processes != "unknown" && facts.address_space != "unknown", "{facts:?}");
    }
}
