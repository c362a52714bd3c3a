#define _GNU_SOURCE
#include "tool.h"

#include <arpa/inet.h>
#include <err.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <time.h>

volatile sig_atomic_t stopping;

static void stop(int number) {
    (void)number;
    stopping = 1;
}

void stop_on_signals(void) {
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

int raw_socket(int buffer_bytes) {
    // Protocol 0: nothing is heard before it is bound (packet(7)).
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    if (fd < 0) err(1, "raw socket");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer_bytes, sizeof buffer_bytes) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer_bytes, sizeof buffer_bytes) != 0)
        err(1, "socket buffers");
    return fd;
}

void bind_device(int fd, const char *device, int protocol) {
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons((uint16_t)protocol),
        .sll_ifindex = (int)if_nametoindex(device),
    };
    if (address.sll_ifindex == 0) errx(1, "no device %s", device);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) err(1, "%s", device);
}
