// The frames that sender and receiver agree on: everything follows from a seed, so the receiver
// knows what was sent without being told.
//
// A frame is Ethernet (some with a VLAN tag), then IPv4/UDP, IPv6/UDP or nothing known, then a
// 14-byte record {flow:16, seq:32, hash:64} and random bytes. The hash is over the whole frame,
// first byte to last, with its own place zeroed: a frame that passes is the frame that was sent.

#ifndef FRAMES_H
#define FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLOWS_MAX 4096
#define RECORD_LEN 14
#define FRAME_MIN 60
#define FRAME_MAX 9018
// The first four bytes of every source address; the last two are the flow.
#define SOURCE_MARK "\x02\x53\x47\xfe"

enum flow_kind { KIND_UDP4, KIND_UDP6, KIND_VLAN, KIND_BROADCAST, KIND_UNKNOWN, KIND_URGENT };

// What both ends are told on the command line.
struct plan {
    uint64_t seed;
    uint32_t frames;
    uint32_t flows;
    uint32_t size_min;
    uint32_t size_max;
    // Rounds of one short frame per flow at the end, so that a hole can be told from the end.
    uint32_t closing_rounds;
};

// Where in the plan the sender is.
struct schedule {
    const struct plan *plan;
    uint64_t random;
    uint32_t sent;
    uint32_t next_seq[FLOWS_MAX];
};

uint64_t mix(uint64_t value);
uint64_t random_next(uint64_t *state);
enum flow_kind kind_of(uint32_t flow);
const char *kind_name(enum flow_kind kind);

void schedule_start(struct schedule *schedule, const struct plan *plan);
// True while there is another frame; then `flow`, `seq` and `size` are its.
bool schedule_next(struct schedule *schedule, uint32_t *flow, uint32_t *seq, uint32_t *size);
uint32_t plan_total(const struct plan *plan);

// Writes a frame of `size` bytes (at least what its headers need) and returns its length.
size_t frame_write(uint8_t *frame, uint64_t seed, uint32_t flow, uint32_t seq, uint32_t size);

// The first five bytes of the lab's own addresses: its hosts ask for each other now and then.
#define LAB_MARK "\x02\x53\x47\0\0"

enum verdict { FRAME_OURS, FRAME_WRONG, FRAME_FOREIGN, FRAME_OF_LAB };

// Judges a received frame; for FRAME_OURS, `flow` and `seq` are set.
enum verdict frame_judge(const uint8_t *frame, size_t len, uint64_t seed, uint32_t *flow,
                         uint32_t *seq);

#endif
