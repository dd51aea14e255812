//! Work that may only have what nobody else wants.

use std::io;

/// From now on the calling thread runs only where a CPU has nothing else to do (SCHED_IDLE, sched(7)): it takes next to
/// nothing from threads that serve, and on a machine without any idle CPU it takes long. It needs no privilege.
///
/// # Errors
/// The system refuses, as a container's seccomp profile may; the thread runs as before.
pub fn run_when_idle() -> io::Result<()> {
    const CALLING_THREAD: libc::pid_t = 0;
    // musl's own function refuses, as POSIX means processes where Linux means threads.
    let parameter = [0 as libc::c_int];
    // SAFETY: sched_setscheduler(2) reads one sched_param, which on Linux is one int: the priority, 0 for this policy.
    let set =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, CALLING_THREAD, libc::SCHED_IDLE, parameter.as_ptr()) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the thread that asks for it gives way.
    #[test]
    fn a_thread_gives_way_by_itself() {
        fn policy() -> libc::c_int {
            // SAFETY: sched_getscheduler(2) takes a number and touches no memory.
            unsafe { libc::sched_getscheduler(0) }
        }
        let before = policy();
        let idle = std::thread::spawn(|| run_when_idle().map(|()| policy())).join().expect("it does not panic");
        match idle {
            Ok(policy) => assert_eq!(policy, libc::SCHED_IDLE),
            Err(error) => assert!(matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)), "{error}"),
        }
        assert_eq!(policy(), before);
    }
}
