// Puts frames on a device at a rate: those of a file, over and over, or copies of what passes by.

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "tool.h"

#define BATCH 32
#define FRAME_LEN_MAX 2048
#define FRAMES_MAX 65536
#define TICK_NS 1000000u
#define SOCKET_BUFFER_BYTES (64 << 20)
#define UDP_PORT_OFFSET 36  // Ethernet, IPv4 without options, source port
#define UDP_PROTOCOL_OFFSET 23

__attribute__((noreturn)) static void usage(void) {
    fputs("usage: injector send DEVICE FILE RATE SECONDS\n"
          "       injector echo FROM DEVICE RATE SECONDS DELAY_MS PORT COPIES\n"
          "\n"
          "send: the frames of FILE (each behind its length, 16 bits, big-endian), over and over,\n"
          "      RATE a second.\n"
          "echo: every IPv4 UDP frame to PORT that arrives at FROM, COPIES times to DEVICE after\n"
          "      DELAY_MS, at most RATE a second.\n"
          "Prints what was sent as JSON, at the end or on SIGTERM.\n",
          stderr);
    exit(2);
}

static double number(const char *text, const char *what, double min, double max) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= min && value <= max))
        errx(1, "%s is '%s': must be %g to %g", what, text, min, max);
    return value;
}

static int open_device(const char *name, int protocol) {
    int fd = raw_socket(SOCKET_BUFFER_BYTES);
    bind_device(fd, name, protocol);
    return fd;
}

struct frame {
    uint64_t due;
    uint16_t len;
    uint8_t data[FRAME_LEN_MAX];
};

// A ring of frames; in `send` all of them are there for good.
static struct frame *frames;
static size_t begin, count;

static struct frame *frame_at(size_t index) {
    return &frames[(begin + index) % FRAMES_MAX];
}

static void load(const char *file) {
    FILE *in = fopen(file, "rb");
    if (!in) err(1, "%s", file);
    uint8_t head[2];
    while (fread(head, 1, sizeof head, in) == sizeof head) {
        uint16_t len = (uint16_t)(head[0] << 8 | head[1]);
        if (len == 0 || len > FRAME_LEN_MAX || count == FRAMES_MAX)
            errx(1, "%s: frame %zu: its length is %u, or it is one too many", file, count, len);
        struct frame *frame = frame_at(count);
        frame->len = len;
        if (fread(frame->data, 1, len, in) != len) errx(1, "%s: frame %zu is cut off", file, count);
        count++;
    }
    fclose(in);
    if (count == 0) errx(1, "%s: no frames", file);
}

static uint64_t sent, refused, overheard, overrun;

// Sends `many` frames, the first at `index`; what the device does not take is counted and gone.
static void send_burst(int fd, size_t index, size_t many) {
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    while (many > 0) {
        size_t batch = many < BATCH ? many : BATCH;
        memset(messages, 0, sizeof messages);
        for (size_t i = 0; i < batch; i++) {
            struct frame *frame = frame_at((index + i) % count);
            parts[i] = (struct iovec){frame->data, frame->len};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
        }
        int taken = sendmmsg(fd, messages, (unsigned)batch, 0);
        if (taken < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
            err(1, "send");
        size_t done = taken > 0 ? (size_t)taken : 0;
        sent += done;
        refused += batch - done;
        index += batch;
        many -= batch;
    }
}

static void sleep_ns(uint64_t ns) {
    struct timespec time = {(time_t)(ns / SECOND_NS), (long)(ns % SECOND_NS)};
    nanosleep(&time, NULL);
}

// A program that was held up does not make up for more than this: that would be a burst.
static const uint64_t ARREARS_NS = 20 * TICK_NS;

static void send_all(int fd, double rate, uint64_t until) {
    uint64_t last = now_ns(), now;
    double credit = 0;
    size_t next = 0;
    while (!stopping && (now = now_ns()) < until) {
        uint64_t passed = now - last < ARREARS_NS ? now - last : ARREARS_NS;
        last = now;
        credit += (double)passed * rate / SECOND_NS;
        size_t many = (size_t)credit;
        credit -= (double)many;
        send_burst(fd, next, many);
        next = (next + many) % count;
        sleep_ns(TICK_NS);
    }
}

// What is copied, and when the copies leave.
struct plan {
    uint64_t delay_ns;
    uint16_t port;
    size_t copies;
};

static void overhear(int from, struct plan plan) {
    struct sockaddr_ll address;
    for (;;) {
        struct frame *frame = frame_at(count);
        socklen_t size = sizeof address;
        uint8_t spare[FRAME_LEN_MAX];
        uint8_t *room = count < FRAMES_MAX ? frame->data : spare;
        ssize_t len = recvfrom(from, room, FRAME_LEN_MAX, MSG_DONTWAIT | MSG_TRUNC,
                               (struct sockaddr *)&address, &size);
        if (len < 0) return;
        if (address.sll_pkttype == PACKET_OUTGOING || len > FRAME_LEN_MAX ||
            len < UDP_PORT_OFFSET + 6 || room[12] != 8 || room[13] != 0 ||
            room[UDP_PROTOCOL_OFFSET] != 17 ||
            (room[UDP_PORT_OFFSET] << 8 | room[UDP_PORT_OFFSET + 1]) != plan.port)
            continue;
        overheard++;
        uint64_t due = now_ns() + plan.delay_ns;
        for (size_t copy = 0; copy < plan.copies; copy++) {
            if (count == FRAMES_MAX) {
                overrun++;
                continue;
            }
            struct frame *next = frame_at(count);
            if (copy > 0) memcpy(next->data, room, (size_t)len);
            next->len = (uint16_t)len;
            next->due = due;
            count++;
        }
    }
}

static void echo(int from, int to, double rate, uint64_t until, struct plan plan) {
    uint64_t last = now_ns(), now;
    double credit = 0;
    struct pollfd ready = {.fd = from, .events = POLLIN};
    while (!stopping && (now = now_ns()) < until) {
        poll(&ready, 1, 1);
        overhear(from, plan);
        uint64_t passed = now - last < ARREARS_NS ? now - last : ARREARS_NS;
        last = now;
        credit += (double)passed * rate / SECOND_NS;
        size_t many = 0;
        while (many < count && many + 1 <= (size_t)credit && frame_at(many)->due <= now) many++;
        // What was not needed is not saved up.
        double most = rate * ARREARS_NS / SECOND_NS + 1;
        credit = credit - (double)many < most ? credit - (double)many : most;
        for (size_t i = 0; i < many; i += BATCH)
            send_burst(to, i, many - i < BATCH ? many - i : BATCH);
        begin = (begin + many) % FRAMES_MAX;
        count -= many;
    }
}

int main(int argc, char **argv) {
    if (argc < 2) usage();
    int sends = strcmp(argv[1], "send") == 0 && argc == 6;
    int echoes = strcmp(argv[1], "echo") == 0 && argc == 9;
    if (!sends && !echoes) usage();
    double rate = number(argv[4], "RATE", 1, 1e7);
    double seconds = number(argv[5], "SECONDS", 0.001, 86400);
    frames = calloc(FRAMES_MAX, sizeof *frames);
    if (!frames) err(1, "calloc");
    stop_on_signals();
    int to = open_device(argv[sends ? 2 : 3], 0);
    if (sends) load(argv[3]);
    int from = echoes ? open_device(argv[2], ETH_P_ALL) : -1;
    fputs("ready\n", stderr);
    uint64_t started = now_ns(), until = started + (uint64_t)(seconds * SECOND_NS);
    if (sends) {
        send_all(to, rate, until);
    } else {
        struct plan plan = {
            .delay_ns = (uint64_t)(number(argv[6], "DELAY_MS", 0, 60000) * 1e6),
            .port = (uint16_t)number(argv[7], "PORT", 1, 65535),
            .copies = (size_t)number(argv[8], "COPIES", 1, 1000),
        };
        echo(from, to, rate, until, plan);
    }
    double took = (double)(now_ns() - started) / SECOND_NS;
    printf("{\"sent\": %llu, \"refused\": %llu, \"overheard\": %llu, \"overrun\": %llu,"
           " \"seconds\": %.3f}\n",
           (unsigned long long)sent, (unsigned long long)refused, (unsigned long long)overheard,
           (unsigned long long)overrun, took);
    return 0;
}
