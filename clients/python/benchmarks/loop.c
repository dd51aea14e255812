/* The least that a client can do: sends a request of ROWS rows of 16 features, waits for its answer, CALLS times over one
   connection. Prints the CPU time and the time of a call in microseconds.
   Usage: loop PORT ROWS CALLS */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double cpu_us(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6 + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}

static double now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    unsigned rows = atoi(arguments[2]), calls = atoi(arguments[3]);
    if (rows < 1 || rows > 64) return 2;
    size_t request_bytes = 4 + rows * 64, answer_bytes = 1 + rows * 4;
    unsigned char request[4 + 64 * 64] = {rows}, answer[1 + 64 * 4];
    for (unsigned i = 0; i < rows * 16; i++) {
        float value = i;
        memcpy(request + 4 + 4 * i, &value, 4);
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int peer = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (connect(peer, (struct sockaddr *)&to, sizeof to)) return 1;
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    double cpu = 0, begun = 0;
    for (unsigned call = 0; call < calls + calls / 10; call++) {
        if (call == calls / 10) {
            /* Warm. */
            cpu = cpu_us();
            begun = now_us();
        }
        if (send(peer, request, request_bytes, MSG_NOSIGNAL) != (ssize_t)request_bytes) return 1;
        if (recv(peer, answer, answer_bytes, MSG_WAITALL) != (ssize_t)answer_bytes || answer[0] != rows) return 1;
    }
    printf("%.3f %.3f\n", (cpu_us() - cpu) / calls, (now_us() - begun) / calls);
    close(peer);
    return 0;
}
