#include "frames.h"

#include <string.h>

#define ETHERNET_LEN 14
#define VLAN_LEN 4
#define IPV4_LEN 20
#define IPV6_LEN 40
#define UDP_LEN 8

uint64_t mix(uint64_t value) {
    // The finalizer of splitmix64.
    value ^= value >> 30;
    value *= 0xbf58476d1ce4e5b9u;
    value ^= value >> 27;
    value *= 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

uint64_t random_next(uint64_t *state) {
    *state += 0x9e3779b97f4a7c15u;
    return mix(*state);
}

enum flow_kind kind_of(uint32_t flow) {
    static const enum flow_kind kinds[16] = {
        [1] = KIND_UDP6, [2] = KIND_VLAN, [3] = KIND_BROADCAST,
        [4] = KIND_UNKNOWN, [5] = KIND_URGENT, [9] = KIND_UDP6,
    };
    return kinds[flow % 16];
}

const char *kind_name(enum flow_kind kind) {
    static const char *const names[] = {"udp4", "udp6", "vlan", "broadcast", "unknown", "urgent"};
    return names[kind];
}

void schedule_start(struct schedule *schedule, const struct plan *plan) {
    memset(schedule, 0, sizeof *schedule);
    schedule->plan = plan;
    schedule->random = mix(plan->seed ^ 0x7363686564756c65u);
}

uint32_t plan_total(const struct plan *plan) {
    return plan->frames + plan->closing_rounds * plan->flows;
}

bool schedule_next(struct schedule *schedule, uint32_t *flow, uint32_t *seq, uint32_t *size) {
    const struct plan *plan = schedule->plan;
    if (schedule->sent >= plan_total(plan)) return false;
    if (schedule->sent < plan->frames) {
        uint64_t random = random_next(&schedule->random);
        *flow = (uint32_t)(random >> 32) % plan->flows;
        *size = plan->size_min + (uint32_t)random % (plan->size_max - plan->size_min + 1);
    } else {
        *flow = (schedule->sent - plan->frames) % plan->flows;
        *size = plan->size_min;
    }
    *seq = schedule->next_seq[*flow]++;
    schedule->sent++;
    return true;
}

static uint8_t *put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
    return at + 2;
}

static uint32_t get16(const uint8_t *at) { return (uint32_t)at[0] << 8 | at[1]; }

static uint16_t checksum(const uint8_t *data, size_t len, uint32_t sum) {
    for (size_t i = 0; i + 1 < len; i += 2) sum += get16(data + i);
    if (len & 1) sum += (uint32_t)data[len - 1] << 8;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static uint8_t *write_ethernet(uint8_t *at, uint32_t flow) {
    // The far host's network card would drop these: nobody answers them.
    static const uint8_t far_host[6] = {0x02, 0x53, 0x47, 0xfd, 0, 1};
    enum flow_kind kind = kind_of(flow);
    if (kind == KIND_BROADCAST) {
        memset(at, 0xff, 6);
    } else {
        memcpy(at, far_host, 6);
    }
    memcpy(at + 6, SOURCE_MARK, 4);
    at = put16(at + 10, flow);
    if (kind == KIND_VLAN) at = put16(put16(at, 0x8100), 100 + flow % 50);
    return put16(at, kind == KIND_UNKNOWN ? 0x88b5 : kind == KIND_UDP6 ? 0x86dd : 0x0800);
}

static uint8_t *write_ip(uint8_t *at, uint32_t flow, size_t len) {
    memset(at, 0, IPV6_LEN);
    if (kind_of(flow) == KIND_UDP6) {
        at[0] = 0x60;
        put16(at + 4, (uint32_t)(len - IPV6_LEN));
        at[6] = 17;
        at[7] = 64;
        memcpy(at + 8, "\xfd\x53\x47\0\0\0\0\0\0\0\0\0\0\1", 14);
        put16(at + 22, flow);
        memcpy(at + 24, "\xfd\x53\x47\0\0\0\0\0\0\0\0\0\0\2\0\1", 16);
        return at + IPV6_LEN;
    }
    at[0] = 0x45;
    if (kind_of(flow) == KIND_URGENT) at[1] = 46 << 2;
    put16(at + 2, (uint32_t)len);
    at[6] = 0x40;
    at[8] = 64;
    at[9] = 17;
    memcpy(at + 12, "\x0a\x5a", 2);
    put16(at + 14, flow);
    memcpy(at + 16, "\x0a\x5b\0\1", 4);
    put16(at + 10, checksum(at, IPV4_LEN, 0));
    return at + IPV4_LEN;
}

static size_t headers_len(uint32_t flow) {
    switch (kind_of(flow)) {
    case KIND_UNKNOWN: return ETHERNET_LEN;
    case KIND_UDP6: return ETHERNET_LEN + IPV6_LEN + UDP_LEN;
    case KIND_VLAN: return ETHERNET_LEN + VLAN_LEN + IPV4_LEN + UDP_LEN;
    default: return ETHERNET_LEN + IPV4_LEN + UDP_LEN;
    }
}

static uint64_t hash(const uint8_t *data, size_t len, uint64_t state) {
    state = mix(state ^ len);
    for (; len >= 8; data += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        state = (state ^ word) * 0x9fb21c651e98df25u;
        state ^= state >> 29;
    }
    uint64_t rest = 0;
    memcpy(&rest, data, len);
    return mix(state ^ rest ^ 0x656e64u);
}

// The hash of a frame whose hash field stands at `field`; it leaves that out, and the UDP checksum
// of IPv6, which covers the hash in turn.
static uint64_t frame_hash(const uint8_t *frame, size_t len, size_t field, uint32_t flow,
                           uint64_t seed) {
    size_t at = 0;
    uint64_t state = seed;
    if (kind_of(flow) == KIND_UDP6) {
        at = headers_len(flow);
        state = hash(frame, at - 2, state);
    }
    state = hash(frame + at, field - at, state);
    return hash(frame + field + 8, len - field - 8, state);
}

// The sum over an IPv6/UDP datagram and its pseudo header.
static uint16_t udp6_checksum(const uint8_t *ip, const uint8_t *udp, size_t len) {
    uint32_t sum = 17 + (uint32_t)len;
    for (size_t i = 8; i < IPV6_LEN; i += 2) sum += get16(ip + i);
    return checksum(udp, len, sum);
}

size_t frame_write(uint8_t *frame, uint64_t seed, uint32_t flow, uint32_t seq, uint32_t size) {
    size_t headers = headers_len(flow);
    size_t len = size < headers + RECORD_LEN ? headers + RECORD_LEN : size;
    enum flow_kind kind = kind_of(flow);
    uint8_t *at = write_ethernet(frame, flow);
    uint8_t *udp = NULL, *ip = at;
    if (kind != KIND_UNKNOWN) {
        udp = write_ip(at, flow, len - (size_t)(at - frame));
        put16(udp, 1024 + flow * 7);
        put16(udp + 2, 20000 + flow);
        put16(udp + 4, (uint32_t)(frame + len - udp));
        put16(udp + 6, 0);
        at = udp + UDP_LEN;
    }
    at = put16(at, flow);
    at = put16(put16(at, seq >> 16), seq);
    uint8_t *field = at;
    uint64_t random = mix(seed ^ (uint64_t)flow << 32 ^ seq);
    for (at += 8; at < frame + len; at += 8) {
        uint64_t word = random_next(&random);
        size_t left = (size_t)(frame + len - at);
        memcpy(at, &word, left < 8 ? left : 8);
    }
    uint64_t value = frame_hash(frame, len, (size_t)(field - frame), flow, seed);
    memcpy(field, &value, 8);
    if (kind == KIND_UDP6) {
        uint16_t sum = udp6_checksum(ip, udp, (size_t)(frame + len - udp));
        put16(udp + 6, sum ? sum : 0xffff);
    }
    return len;
}

enum verdict frame_judge(const uint8_t *frame, size_t len, uint64_t seed, uint32_t *flow,
                         uint32_t *seq) {
    if (len >= ETHERNET_LEN && memcmp(frame + 6, LAB_MARK, 5) == 0) return FRAME_OF_LAB;
    if (len < FRAME_MIN || memcmp(frame + 6, SOURCE_MARK, 4) != 0) return FRAME_FOREIGN;
    *flow = get16(frame + 10);
    size_t record = headers_len(*flow);
    if (len < record + RECORD_LEN) return FRAME_WRONG;
    const uint8_t *at = frame + record;
    *seq = get16(at + 2) << 16 | get16(at + 4);
    uint64_t stated;
    memcpy(&stated, at + 6, 8);
    bool right =
        get16(at) == *flow && stated == frame_hash(frame, len, record + 6, *flow, seed);
    if (right && kind_of(*flow) == KIND_UDP6) {
        const uint8_t *udp = at - UDP_LEN;
        uint16_t sum = udp6_checksum(frame + ETHERNET_LEN, udp, (size_t)(frame + len - udp));
        right = sum == 0 || sum == 0xffff;
    }
    return right ? FRAME_OURS : FRAME_WRONG;
}
