// Tries what a server has no business with, by system call, and says of each what became of it; so that a list of system calls can be
// seen to refuse it. The arguments are such that nothing happens where it is allowed: the kernel finds them wrong, with another error
// than EPERM, for whoever has all privileges.
// Usage: refused allowed|refused; ends with 1 if one of them is not, or if what a server needs is not allowed.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
    const char *name;
    long number, arguments[3];
} CALLS[] = {
    {"ptrace", SYS_ptrace, {-1, 0, 0}},
    {"process_vm_readv", SYS_process_vm_readv, {0, 0, 0}},
    {"process_vm_writev", SYS_process_vm_writev, {0, 0, 0}},
    {"pidfd_open", SYS_pidfd_open, {-1, 0, 0}},
    {"pidfd_getfd", SYS_pidfd_getfd, {-1, -1, 0}},
    {"kill", SYS_kill, {0, 0, 0}},
    {"mount", SYS_mount, {0, 0, 0}},
    {"umount2", SYS_umount2, {0, 0, 0}},
    {"pivot_root", SYS_pivot_root, {0, 0, 0}},
    {"chroot", SYS_chroot, {0, 0, 0}},
    {"fsopen", SYS_fsopen, {0, 0, 0}},
    {"open_tree", SYS_open_tree, {-1, 0, 0}},
    {"move_mount", SYS_move_mount, {-1, 0, -1}},
    {"open_by_handle_at", SYS_open_by_handle_at, {-1, 0, 0}},
    {"mknodat", SYS_mknodat, {-1, 0, 0}},
    {"symlinkat", SYS_symlinkat, {0, -1, 0}},
    {"setns", SYS_setns, {-1, 0, 0}},
    {"unshare", SYS_unshare, {-1, 0, 0}},
    {"clone of a process", SYS_clone, {0, 0, 0}},
    {"clone of a user namespace", SYS_clone, {CLONE_NEWUSER | CLONE_THREAD, 0, 0}},
    {"bpf", SYS_bpf, {-1, 0, 0}},
    {"perf_event_open", SYS_perf_event_open, {0, 0, 0}},
    {"init_module", SYS_init_module, {0, 0, 0}},
    {"finit_module", SYS_finit_module, {-1, 0, 0}},
    {"delete_module", SYS_delete_module, {0, 0, 0}},
    {"kexec_load", SYS_kexec_load, {0, 1000, 0}},
    {"kexec_file_load", SYS_kexec_file_load, {-1, -1, 0}},
    {"reboot", SYS_reboot, {0, 0, 0}},
    {"swapon", SYS_swapon, {0, 0, 0}},
    {"settimeofday", SYS_settimeofday, {0, 0, 0}},
    {"userfaultfd", SYS_userfaultfd, {-1, 0, 0}},
    {"add_key", SYS_add_key, {0, 0, 0}},
    {"keyctl", SYS_keyctl, {-1, 0, 0}},
    {"setuid", SYS_setuid, {-1, 0, 0}},
    {"capset", SYS_capset, {0, 0, 0}},
    {"personality", SYS_personality, {0xffffffff, 0, 0}},
    {"execveat", SYS_execveat, {-1, 0, 0}},
    {"memfd_create", SYS_memfd_create, {0, 0, 0}},
    {"a netlink socket", SYS_socket, {AF_NETLINK, SOCK_RAW, 0}},
    {"a packet socket", SYS_socket, {AF_PACKET, SOCK_RAW, 0}},
    {"a vsock socket", SYS_socket, {AF_VSOCK, SOCK_STREAM, 0}},
    {"a crypto socket", SYS_socket, {AF_ALG, SOCK_SEQPACKET, 0}},
};

static int needed(const char *name, long result) {
    if (result < 0)
        printf("%s fails: %s\n", name, strerror(errno));
    return result < 0;
}

int main(int count, char **words) {
    int wrong = 0, refuses = count > 1 && strcmp(words[1], "refused") == 0;
    signal(SIGCHLD, SIG_IGN);
    for (unsigned index = 0; index < sizeof CALLS / sizeof *CALLS; index++) {
        const long *arguments = CALLS[index].arguments;
        pid_t self = getpid();
        errno = 0;
        long result = syscall(CALLS[index].number, arguments[0], arguments[1], arguments[2], 0, 0, 0);
        if (getpid() != self)
            _exit(0);
        // ENOSYS is the runtime's word for calls that are newer than all of the list's.
        int is_refused = result < 0 && (errno == EPERM || (refuses && errno == ENOSYS));
        if (is_refused != refuses) {
            printf("%s is %s: %s\n", CALLS[index].name, refuses ? "not refused" : "refused", result < 0 ? strerror(errno) : "it succeeds");
            wrong = 1;
        }
    }
    struct io_uring_params parameters = {0};
    wrong |= needed("io_uring_setup", syscall(SYS_io_uring_setup, 4, &parameters));
    wrong |= needed("an IPv4 socket", socket(AF_INET, SOCK_STREAM, 0));
    wrong |= needed("an IPv6 socket", socket(AF_INET6, SOCK_STREAM, 0));
    wrong |= needed("a Unix socket", socket(AF_UNIX, SOCK_STREAM, 0));
    if (!wrong)
        printf("%zu calls %s\n", sizeof CALLS / sizeof *CALLS, refuses ? "refused" : "allowed");
    return wrong;
}
