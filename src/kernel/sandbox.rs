//! What the process gives up that it does not need: a smaller target for whoever takes it over.
//!
//! Each ring takes only the operations that a server submits ([`restrict`], always), and with `--seccomp` the process can
//! make no second ring, start no program and change no kernel once it serves ([`give_up_system_calls`]). It is no sandbox
//! for the model, which runs in the same process.

use std::io;

use io_uring::register::Restriction;
use io_uring::{Submitter, opcode, squeue};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Every operation that [`super::UringKernel`] submits.
const OPERATIONS: [u8; 6] = [
    opcode::AcceptMulti::CODE,
    opcode::Recv::CODE,
    opcode::Send::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Timeout::CODE,
    opcode::Read::CODE,
];

/// System calls that nothing needs once every thread and ring is there.
const CALLS_GIVEN_UP: [libc::c_long; 19] = [
    // Another ring, which would have no restrictions.
    libc::SYS_io_uring_setup,
    // Another program.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    // Files by a way around their paths, and other file systems.
    libc::SYS_open_by_handle_at,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    // Other namespaces.
    libc::SYS_setns,
    libc::SYS_unshare,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
];

/// Allows a disabled ring nothing but a server's operations, and enables it. It can register nothing from then on, so
/// everything that is to be registered is before this. (IORING_REGISTER_RESTRICTIONS, Linux 5.10.)
///
/// # Errors
/// The kernel refuses.
pub(super) fn restrict(submitter: &Submitter<'_>) -> io::Result<()> {
    let flags = Restriction::sqe_flags_allowed(squeue::Flags::BUFFER_SELECT.bits());
    let mut allowed: Vec<Restriction> = OPERATIONS.into_iter().map(Restriction::sqe_op).chain([flags]).collect();
    submitter.register_restrictions(&mut allowed)?;
    submitter.register_enable_rings()
}

/// Takes system calls from all threads of the process, for good; they fail with EPERM. Needs no privilege
/// (no_new_privs is set, seccomp(2)).
///
/// # Errors
/// The kernel has no seccomp filters, or the process may not use them; then nothing is given up.
pub fn give_up_system_calls() -> io::Result<()> {
    seccompiler::apply_filter_all_threads(&filter()?).map_err(io::Error::other)
}

fn filter() -> io::Result<BpfProgram> {
    let rules = CALLS_GIVEN_UP.into_iter().map(|call| (call, Vec::new())).collect();
    let architecture = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let refusal = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, architecture).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::probe_ring;

    #[test]
    fn a_confined_thread_makes_no_second_ring_and_starts_no_program() {
        // On a thread of its own, since it is for good.
        let confined = std::thread::spawn(|| {
            let filter = filter().expect("an architecture that has filters");
            seccompiler::apply_filter(&filter).expect("a thread may confine itself");
            let second_ring = probe_ring(4, 8).map_err(|error| error.raw_os_error());
            // Between fork and exec the child cannot tell; the parent is told by the standard library.
            let program = std::process::Command::new("true").spawn().map(drop).map_err(|error| error.raw_os_error());
            (second_ring, program)
        });
        let outcome = confined.join().expect("it does not panic");
        assert_eq!(outcome, (Err(Some(libc::EPERM)), Err(Some(libc::EPERM))));
    }
}
