//! What the process gives up that it does not need: a smaller target for whoever takes it over.
//!
//! Each ring takes only the operations that a server submits ([`restrict`], always), and with `--seccomp` the process can
//! make no second ring, start no program and change no kernel once it serves ([`give_up_system_calls`]). It is no sandbox
//! for the model, which runs in the same process.

use std::io;

use io_uring::register::Restriction;
use io_uring::{Submitter, opcode, squeue};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

/// Every operation that [`crate::kernel::UringKernel`] submits.
const OPERATIONS: [u8; 6] = [
    opcode::AcceptMulti::CODE,
    opcode::Recv::CODE,
    opcode::Send::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Timeout::CODE,
    opcode::Read::CODE,
];

/// System calls that nothing needs once every ring is there.
const CALLS_GIVEN_UP: [libc::c_long; 32] = [
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
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
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
    libc::SYS_kexec_file_load,
    // What attacks on the kernel are made of.
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// Namespaces that clone(2) makes as unshare(2) does.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Allows a disabled ring nothing but a server's operations, and enables it. It can register nothing from then on, so
/// everything that is to be registered is before this. (IORING_REGISTER_RESTRICTIONS, Linux 5.10.)
///
/// # Errors
/// The kernel refuses.
pub fn restrict(submitter: &Submitter<'_>) -> io::Result<()> {
    let flags = Restriction::sqe_flags_allowed(squeue::Flags::BUFFER_SELECT.bits());
    let mut allowed: Vec<Restriction> = OPERATIONS.into_iter().map(Restriction::sqe_op).chain([flags]).collect();
    submitter.register_restrictions(&mut allowed)?;
    submitter.register_enable_rings()
}

/// Takes system calls from all threads of the process, for good; they fail with EPERM. Needs no privilege
/// (no_new_privs is set, seccomp(2)).
///
/// # Errors
/// The kernel has no seccomp filters, or the process may not use them; some calls may be given up then.
pub fn give_up_system_calls() -> io::Result<()> {
    for filter in filters()? {
        seccompiler::apply_filter_all_threads(&filter).map_err(io::Error::other)?;
    }
    Ok(())
}

/// A call fails if any of them refuses it. A call of another architecture ends the process, which a filter of
/// seccompiler's sees to.
fn filters() -> io::Result<[BpfProgram; 3]> {
    let given_up = CALLS_GIVEN_UP.into_iter().map(|call| (call, Vec::new()));
    let namespaces = NAMESPACES.into_iter().map(has_flag).collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let refused = given_up.chain([(libc::SYS_clone, namespaces)]);
    // The flags of clone3 lie in memory, where no filter sees them. Whoever starts a thread goes on with clone.
    let unknown = [(libc::SYS_clone3, Vec::new())];
    Ok([no_second_table(), filter(refused, libc::EPERM)?, filter(unknown, libc::ENOSYS)?])
}

fn filter(calls: impl IntoIterator<Item = (i64, Vec<SeccompRule>)>, errno: i32) -> io::Result<BpfProgram> {
    let architecture = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let refusal = SeccompAction::Errno(errno as u32);
    let filter = SeccompFilter::new(calls.into_iter().collect(), SeccompAction::Allow, refusal, architecture);
    filter.and_then(BpfProgram::try_from).map_err(io::Error::other)
}

/// The first argument has this flag.
fn has_flag(flag: libc::c_int) -> Result<SeccompRule, seccompiler::BackendError> {
    let flag = flag as u64;
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
    SeccompRule::new(vec![condition])
}

/// x86-64 kernels may have the calls a second time, under numbers with this bit (x32), where a list of numbers does not
/// reach. None of them is needed.
fn no_second_table() -> BpfProgram {
    const X32_SYSCALL_BIT: u32 = 0x4000_0000;
    let instruction = |code: u32, jf: u8, k: u32| sock_filter { code: code as u16, jt: 0, jf, k };
    vec![
        // The call's number is the first field of seccomp_data.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, X32_SYSCALL_BIT),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a call with these first arguments, and zeros behind them, fails with.
    fn refusal(call: libc::c_long, first: libc::c_int, second: libc::c_int) -> Option<i32> {
        // SAFETY: the callers choose calls and arguments that name no memory and that the kernel refuses, filtered or not.
        let result = unsafe { libc::syscall(call, i64::from(first), i64::from(second), 0_i64, 0_i64, 0_i64, 0_i64) };
        (result < 0).then(|| io::Error::last_os_error().raw_os_error()).flatten()
    }

    /// The filters bind one thread here, not the process: the other tests go on.
    #[test]
    fn a_confined_thread_is_refused_what_it_gave_up_and_works_as_ever() {
        let confined = std::thread::spawn(|| {
            for filter in filters().expect("this architecture is known") {
                seccompiler::apply_filter(&filter).expect("this kernel has filters");
            }
            for call in CALLS_GIVEN_UP {
                assert_eq!(refusal(call, -1, -1), Some(libc::EPERM), "call {call}");
            }
            for namespace in NAMESPACES {
                // With CLONE_THREAD alone it is an EINVAL anywhere.
                let flags = namespace | libc::CLONE_THREAD;
                assert_eq!(refusal(libc::SYS_clone, flags, 0), Some(libc::EPERM), "flags {flags:#x}");
            }
            assert_eq!(refusal(libc::SYS_clone, libc::CLONE_THREAD, 0), Some(libc::EINVAL));
            assert_eq!(refusal(libc::SYS_clone3, 0, 0), Some(libc::ENOSYS));
            assert_eq!(refusal(libc::SYS_getpid | 0x4000_0000, 0, 0), Some(libc::ENOSYS));
            assert_eq!(refusal(libc::SYS_getpid, 0, 0), None);
            let thread = std::thread::spawn(|| refusal(libc::SYS_io_uring_setup, -1, -1)).join();
            assert_eq!(thread.ok(), Some(Some(libc::EPERM)), "threads start, and are confined too");
        });
        assert!(confined.join().is_ok());
        assert_ne!(refusal(libc::SYS_io_uring_setup, -1, -1), Some(libc::EPERM), "this thread has given nothing up");
    }
}
