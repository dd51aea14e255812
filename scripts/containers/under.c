// Runs a program under a list of system calls, with the same process number: so a test that starts servers itself can have them confined as
// an engine would. Put in the server's place, it runs /real/disrust under the filter of /real/filter (BPF, as libseccomp exports it).
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int count, char **words) {
    static struct sock_filter instructions[4096];
    (void)count;
    FILE *file = fopen("/real/filter", "rb");
    size_t length = file ? fread(instructions, sizeof *instructions, 4096, file) : 0;
    struct sock_fprog program = {(unsigned short)length, instructions};
    if (length == 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("under: no filter");
        return 99;
    }
    execv("/real/disrust", words);
    perror("under: /real/disrust");
    return 99;
}
