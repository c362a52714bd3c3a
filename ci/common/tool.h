// What the packet tools of ci/ share: a clock, an end by signal, a raw socket.

#ifndef TOOL_H
#define TOOL_H

#include <signal.h>
#include <stdint.h>

#define SECOND_NS 1000000000u

// Set by SIGTERM and SIGINT.
extern volatile sig_atomic_t stopping;

// From here on these signals end no call and no program: they interrupt it, and set `stopping`.
void stop_on_signals(void);

// Nanoseconds of CLOCK_MONOTONIC.
uint64_t now_ns(void);

// A raw packet socket with so many bytes of room each way. It hears nothing before `bind_device`,
// so that options set in between hold for all that it hears. Both end the program on failure.
int raw_socket(int buffer_bytes);
void bind_device(int fd, const char *device, int protocol);

#endif
