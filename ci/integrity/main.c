// Sends, receives and judges frames between two hosts; see usage().

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "frames.h"
#include "tool.h"

#define BURST 32
#define SOCKET_BUFFER_BYTES (256 << 20)
#define VLAN_TAG_LEN 4

static void sleep_until(uint64_t when) {
    struct timespec until = {(time_t)(when / SECOND_NS), (long)(when % SECOND_NS)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR && !stopping) {
    }
}

// A raw socket on a device: everything that arrives there, nothing that leaves.
static int open_device(const char *device) {
    int fd = raw_socket(SOCKET_BUFFER_BYTES), on = 1;
    if (setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof on) != 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) != 0)
        err(1, "packet socket");
    bind_device(fd, device, ETH_P_ALL);
    return fd;
}

static void send_all(int fd, struct mmsghdr *messages, unsigned count) {
    unsigned done = 0;
    while (done < count) {
        int sent = sendmmsg(fd, messages + done, count - done, 0);
        if (sent > 0) {
            done += (unsigned)sent;
        } else if (errno == ENOBUFS || errno == EAGAIN) {
            // A queue below is full: it takes the rest a moment later.
            sleep_until(now_ns() + 50000);
        } else if (errno != EINTR) {
            err(1, "send");
        }
    }
}

struct burst {
    uint8_t frames[BURST][FRAME_MAX + 64];
    struct iovec parts[BURST];
    struct mmsghdr messages[BURST];
    uint8_t control[BURST][CMSG_SPACE(sizeof(struct tpacket_auxdata))];
};

static struct burst *burst_new(void) {
    struct burst *burst = calloc(1, sizeof *burst);
    if (!burst) err(1, "calloc");
    for (int i = 0; i < BURST; i++) {
        burst->parts[i].iov_base = burst->frames[i];
        burst->messages[i].msg_hdr.msg_iov = &burst->parts[i];
        burst->messages[i].msg_hdr.msg_iovlen = 1;
    }
    return burst;
}

static int run_send(int fd, const struct plan *plan, double rate) {
    static struct schedule schedule;
    schedule_start(&schedule, plan);
    struct burst *burst = burst_new();
    uint64_t start = now_ns(), sent = 0, bytes = 0;
    uint32_t flow, seq, size;
    bool more = true;
    while (more && !stopping) {
        if (sent == plan->frames && plan->closing_rounds) sleep_until(now_ns() + 300000000u);
        unsigned count = 0;
        // A burst ends where the closing rounds begin.
        while (count < BURST && (count == 0 || schedule.sent != plan->frames) &&
               (more = schedule_next(&schedule, &flow, &seq, &size))) {
            burst->parts[count].iov_len =
                frame_write(burst->frames[count], plan->seed, flow, seq, size);
            bytes += burst->parts[count].iov_len;
            count++;
        }
        send_all(fd, burst->messages, count);
        sent += count;
        // Small steps: a burst that no queue on the way can hold would test the queues.
        uint64_t due = start + (uint64_t)((double)sent * 1e9 / rate);
        if (due > now_ns()) sleep_until(due);
    }
    double seconds = (double)(now_ns() - start) / 1e9;
    printf("{\"sent\": %lu, \"bytes\": %lu, \"seconds\": %.3f}\n", (unsigned long)sent,
           (unsigned long)bytes, seconds);
    free(burst);
    return 0;
}

// What the receiver knows of one flow.
struct flow {
    uint8_t *seen;
    uint32_t expected;
    uint32_t received;
    uint32_t beyond_newest;
};

struct tally {
    uint64_t received, bytes, wrong, duplicates, out_of_order, foreign, impossible;
};

// Puts back the VLAN tag that the kernel takes out of a frame.
static size_t restore_tag(struct msghdr *message, uint8_t *frame, size_t len) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA) continue;
        struct tpacket_auxdata aux;
        memcpy(&aux, CMSG_DATA(c), sizeof aux);
        if (!(aux.tp_status & TP_STATUS_VLAN_VALID) || len < 12) continue;
        memmove(frame + 16, frame + 12, len - 12);
        frame[12] = (uint8_t)(aux.tp_vlan_tpid >> 8);
        frame[13] = (uint8_t)aux.tp_vlan_tpid;
        frame[14] = (uint8_t)(aux.tp_vlan_tci >> 8);
        frame[15] = (uint8_t)aux.tp_vlan_tci;
        return len + VLAN_TAG_LEN;
    }
    return len;
}

static void tell(struct tally *tally, struct flow *flows, const struct plan *plan,
                 const uint8_t *frame, size_t len) {
    uint32_t number, seq;
    enum verdict verdict = frame_judge(frame, len, plan->seed, &number, &seq);
    if (verdict != FRAME_OURS) {
        if (verdict == FRAME_WRONG) tally->wrong++;
        if (verdict == FRAME_FOREIGN) tally->foreign++;
        return;
    }
    if (number >= plan->flows || seq >= flows[number].expected) {
        tally->impossible++;
        return;
    }
    struct flow *flow = &flows[number];
    uint8_t bit = (uint8_t)(1u << (seq & 7));
    if (flow->seen[seq >> 3] & bit) {
        tally->duplicates++;
        return;
    }
    flow->seen[seq >> 3] |= bit;
    flow->received++;
    if (seq < flow->beyond_newest) tally->out_of_order++;
    else flow->beyond_newest = seq + 1;
    tally->received++;
    tally->bytes += len;
}

// Missing frames, per kind; those older than the newest received one of their flow apart.
static void print_missing(const struct flow *flows, const struct plan *plan) {
    uint64_t total = 0, below_newest = 0, of_kind[KIND_URGENT + 1] = {0};
    for (uint32_t i = 0; i < plan->flows; i++) {
        uint32_t missing = flows[i].expected - flows[i].received;
        total += missing;
        below_newest += flows[i].beyond_newest - flows[i].received;
        of_kind[kind_of(i)] += missing;
    }
    printf("\"missing\": %lu, \"missing_below_newest\": %lu, \"missing_by_kind\": {",
           (unsigned long)total, (unsigned long)below_newest);
    for (int kind = 0; kind <= KIND_URGENT; kind++)
        printf("%s\"%s\": %lu", kind ? ", " : "", kind_name(kind), (unsigned long)of_kind[kind]);
    printf("}");
}

static int run_receive(int fd, const struct plan *plan, double idle_s) {
    static struct schedule schedule;
    static struct flow flows[FLOWS_MAX];
    uint32_t number, seq, size;
    schedule_start(&schedule, plan);
    while (schedule_next(&schedule, &number, &seq, &size)) flows[number].expected++;
    for (uint32_t i = 0; i < plan->flows; i++)
        if (!(flows[i].seen = calloc(flows[i].expected / 8 + 1, 1))) err(1, "calloc");
    struct burst *burst = burst_new();
    struct timeval step = {.tv_usec = 100000};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &step, sizeof step) != 0)
        err(1, "socket timeout");
    fputs("ready\n", stderr);

    struct tally tally = {0};
    uint64_t newest = 0;
    // It waits for the first frame as long as it takes, and ends when the line falls silent.
    while (!stopping && tally.received < plan_total(plan) &&
           (newest == 0 || now_ns() - newest < (uint64_t)(idle_s * 1e9))) {
        for (int i = 0; i < BURST; i++) {
            burst->parts[i].iov_len = sizeof burst->frames[i] - VLAN_TAG_LEN;
            burst->messages[i].msg_hdr.msg_control = burst->control[i];
            burst->messages[i].msg_hdr.msg_controllen = sizeof burst->control[i];
        }
        int count = recvmmsg(fd, burst->messages, BURST, MSG_WAITFORONE, NULL);
        if (count < 0 && errno != EAGAIN && errno != EINTR) err(1, "receive");
        for (int i = 0; i < count; i++) {
            size_t len = restore_tag(&burst->messages[i].msg_hdr, burst->frames[i],
                                     burst->messages[i].msg_len);
            tell(&tally, flows, plan, burst->frames[i], len);
        }
        if (count > 0) newest = now_ns();
    }
    struct tpacket_stats stats = {0};
    socklen_t len = sizeof stats;
    getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len);
    printf("{\"expected\": %u, \"received\": %lu, \"bytes\": %lu, \"wrong\": %lu, "
           "\"duplicates\": %lu, \"out_of_order\": %lu, \"foreign\": %lu, \"impossible\": %lu, "
           "\"not_read\": %u, ",
           plan_total(plan), (unsigned long)tally.received, (unsigned long)tally.bytes,
           (unsigned long)tally.wrong, (unsigned long)tally.duplicates,
           (unsigned long)tally.out_of_order, (unsigned long)tally.foreign,
           (unsigned long)tally.impossible, stats.tp_drops);
    print_missing(flows, plan);
    puts("}");
    for (uint32_t i = 0; i < plan->flows; i++) free(flows[i].seen);
    free(burst);
    return 0;
}

// Forwards from one device to the other and does known harm on the way: what the receiver reports
// must be exactly this. It is how the judge itself is judged.
static int run_harm(int in, int out, uint32_t every) {
    struct burst *burst = burst_new();
    struct timeval step = {.tv_usec = 100000};
    if (setsockopt(in, SOL_SOCKET, SO_RCVTIMEO, &step, sizeof step) != 0)
        err(1, "socket timeout");
    fputs("ready\n", stderr);
    uint64_t seen = 0, lost = 0, doubled = 0, damaged = 0, delayed = 0;
    uint8_t held[FRAME_MAX + 64];
    size_t held_len = 0;
    uint32_t held_flow = 0;
    while (!stopping) {
        burst->parts[0].iov_len = sizeof burst->frames[0] - VLAN_TAG_LEN;
        burst->messages[0].msg_hdr.msg_control = burst->control[0];
        burst->messages[0].msg_hdr.msg_controllen = sizeof burst->control[0];
        if (recvmmsg(in, burst->messages, 1, 0, NULL) != 1) continue;
        uint8_t *frame = burst->frames[0];
        size_t len = restore_tag(&burst->messages[0].msg_hdr, frame, burst->messages[0].msg_len);
        if (len < FRAME_MIN || memcmp(frame + 6, SOURCE_MARK, 4) != 0) continue;
        uint32_t flow = (uint32_t)frame[10] << 8 | frame[11];
        switch (seen++ % (4 * (uint64_t)every)) {
        case 0: lost++; continue;
        case 1: frame[len - 1] ^= 0x10; damaged++; break;
        case 2: if (send(out, frame, len, 0) > 0) doubled++; break;
        case 3:
            if (held_len) break;
            memcpy(held, frame, held_len = len);
            held_flow = flow;
            continue;
        default: break;
        }
        if (send(out, frame, len, 0) < 0) err(1, "send");
        // A held frame leaves after the next one of its flow.
        if (held_len && flow == held_flow) {
            if (send(out, held, held_len, 0) < 0) err(1, "send");
            held_len = 0;
            delayed++;
        }
    }
    printf("{\"seen\": %lu, \"lost\": %lu, \"held_back\": %d, \"doubled\": %lu, "
           "\"damaged\": %lu, \"delayed\": %lu}\n",
           (unsigned long)seen, (unsigned long)lost, held_len != 0, (unsigned long)doubled,
           (unsigned long)damaged, (unsigned long)delayed);
    free(burst);
    return 0;
}

__attribute__((noreturn)) static void usage(void) {
    fputs("usage: integrity send    DEV --rate FRAMES_PER_S [plan]\n"
          "       integrity receive DEV [--idle SECONDS] [plan]\n"
          "       integrity harm    IN OUT --every N\n"
          "plan:  --frames N --flows N --size-min N --size-max N --closing-rounds N --seed N\n"
          "Both ends get the same plan. Each prints one JSON document.\n",
          stderr);
    exit(2);
}

static double argument(int argc, char **argv, const char *name, double otherwise) {
    for (int i = 2; i + 1 < argc; i++) {
        if (strcmp(argv[i], name) != 0) continue;
        char *end;
        double value = strtod(argv[i + 1], &end);
        if (*end || value < 0) usage();
        return value;
    }
    return otherwise;
}

int main(int argc, char **argv) {
    if (argc < 3) usage();
    struct plan plan = {
        .seed = (uint64_t)argument(argc, argv, "--seed", 1),
        .frames = (uint32_t)argument(argc, argv, "--frames", 100000),
        .flows = (uint32_t)argument(argc, argv, "--flows", 256),
        .size_min = (uint32_t)argument(argc, argv, "--size-min", 60),
        .size_max = (uint32_t)argument(argc, argv, "--size-max", 1514),
        .closing_rounds = (uint32_t)argument(argc, argv, "--closing-rounds", 3),
    };
    if (plan.flows == 0 || plan.flows > FLOWS_MAX || plan.size_min < FRAME_MIN ||
        plan.size_max < plan.size_min || plan.size_max > FRAME_MAX - VLAN_TAG_LEN)
        usage();
    stop_on_signals();
    int fd = open_device(argv[2]);
    if (strcmp(argv[1], "send") == 0)
        return run_send(fd, &plan, argument(argc, argv, "--rate", 10000));
    if (strcmp(argv[1], "receive") == 0)
        return run_receive(fd, &plan, argument(argc, argv, "--idle", 3));
    if (strcmp(argv[1], "harm") == 0 && argc > 4) {
        uint32_t every = (uint32_t)argument(argc, argv, "--every", 100);
        if (every > 0) return run_harm(fd, open_device(argv[3]), every);
    }
    usage();
}
