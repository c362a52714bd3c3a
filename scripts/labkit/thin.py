"""A thin flow: a few numbered UDP datagrams a second, and how late each one is.

Run as a program it is one end of the flow inside a namespace; `Flow` runs both ends in a lab. Both
read the same CLOCK_MONOTONIC, so a difference is a one-way delay. The arrival is the kernel's time
stamp, so that a receiver that waits for a CPU measures the path and not itself.
"""

import argparse
import json
import os
import signal
import socket
import struct
import sys
import time

PORT = 5300
FRAMES_PER_SECOND = 50
PAYLOAD_BYTES = 160  # 20 ms of G.711 speech
# Number of the datagram and when it was due to be sent, nanoseconds.
LABEL = struct.Struct("!QQ")
SO_TIMESTAMPNS = 35
TIMESPEC = struct.Struct("@qq")
BUFFER_BYTES = 16 << 20
# Two clocks count as read together within this: three calls without an interruption take less.
CLOCK_READ_NS = 5_000
CLOCK_READS_MAX = 10
# Datagrams before the measured ones: they find neighbours and open lanes.
WARM_UP = 10


class Delays:
    """One-way delays of a flow, and what did not arrive as it was sent."""

    def __init__(self, sent, delays_ms, duplicates=0, reordered=0, sent_ns=()):
        self.sent = sent
        self.delays_ms = sorted(delays_ms)
        self.duplicates = duplicates
        self.reordered = reordered
        # When what arrived came, on CLOCK_MONOTONIC; of one flow only.
        pairs = zip(sent_ns, delays_ms, strict=True) if sent_ns else ()
        self.arrivals_ns = sorted(at + round(delay * 1e6) for at, delay in pairs)

    @classmethod
    def pooled(cls, flows):
        """Several flows as one."""
        return cls(
            sum(flow.sent for flow in flows),
            [delay for flow in flows for delay in flow.delays_ms],
            sum(flow.duplicates for flow in flows),
            sum(flow.reordered for flow in flows),
        )

    @property
    def lost(self):
        return self.sent - len(self.delays_ms)

    @property
    def lost_share(self):
        return self.lost / self.sent if self.sent else 0.0

    def quantile_ms(self, share):
        """The nearest rank; None of nothing."""
        if not self.delays_ms:
            return None
        return self.delays_ms[min(len(self.delays_ms) - 1, int(share * len(self.delays_ms)))]

    def as_json(self):
        return {
            "sent": self.sent,
            "received": len(self.delays_ms),
            "lost_percent": 100 * self.lost_share,
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "p50_ms": self.quantile_ms(0.5),
            "p99_ms": self.quantile_ms(0.99),
            "p99_9_ms": self.quantile_ms(0.999),
            "max_ms": self.delays_ms[-1] if self.delays_ms else None,
        }


class Flow:
    """A running flow from host-a to host-b, or between two other nodes."""

    def __init__(
        self,
        lab,
        target,
        *,
        seconds,
        rate=FRAMES_PER_SECOND,
        size=PAYLOAD_BYTES,
        port=PORT,
        nodes=("host-a", "host-b"),
    ):
        self.lab = lab
        self.seconds = seconds
        sender, receiver = nodes
        program = (sys.executable, "-B", __file__)
        self.receiver = lab.start(
            f"thin-receive-{receiver}", (*program, "receive", "--port", port), receiver
        )
        self.receiver.wait_until(lambda: "ready" in self.receiver.log.read_text(), "ready")
        plan = ("--to", target, "--seconds", seconds, "--rate", rate, "--size", size)
        plan = (*plan, "--port", port)
        self.sender = lab.start(f"thin-send-{sender}", (*program, "send", *plan), sender)

    def finish(self, *, linger=1.0):
        """Waits for the sender's end and `linger` seconds more; returns the `Delays`."""
        self.sender.child.wait(self.seconds + 30)
        sent = self._report(self.sender)["sent"]
        time.sleep(linger)
        return Delays(sent, **self._report(self.receiver))

    def stop(self):
        """Ends it before its time; returns the `Delays` of what arrived, with no word on losses."""
        self.lab.stop(self.sender)
        got = self._report(self.receiver)
        return Delays(len(got["delays_ms"]), **got)

    def _report(self, process):
        if self.lab.stop(process) != 0:
            raise self._error(process)
        return json.loads(process.output())

    @staticmethod
    def _error(process):
        # Here, as this file is also a program outside the package.
        from .process import LabError

        return LabError(f"{process.name} ended with {process.exit_code}:\n{process.tail()}")


def send(arguments):
    """Sends on time, and catches up if it was held up; prints how many."""
    flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flow.connect((arguments.to, arguments.port))
    filling = bytes(max(0, arguments.size - LABEL.size))
    interval = round(1e9 / arguments.rate)
    count = max(1, round(arguments.seconds * arguments.rate))
    start = time.monotonic_ns() + interval
    refused = 0
    for number in range(count + WARM_UP):
        due = start + number * interval
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        try:
            flow.send(LABEL.pack(number, time.monotonic_ns()) + filling)
        except OSError:
            # Nobody there yet, or no buffer: a datagram that was lost at once.
            refused += 1
    print(json.dumps({"sent": count, "refused": refused}))


def receive(arguments):
    """Receives until SIGTERM; prints the delay of each datagram's first copy."""
    flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    flow.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    flow.bind(("", arguments.port))
    flow.settimeout(0.1)
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    print("ready", file=sys.stderr, flush=True)
    times, newest, duplicates, reordered = {}, -1, 0, 0
    while not stopping:
        try:
            data, ancillary, _, _ = flow.recvmsg(65536, 64)
        except TimeoutError:
            continue
        if len(data) < LABEL.size:
            continue
        number, sent_ns = LABEL.unpack_from(data)
        if number < WARM_UP:
            continue
        if number in times:
            duplicates += 1
            continue
        times[number] = (sent_ns, round((arrival_ns(ancillary) - sent_ns) / 1e6, 4))
        reordered += number < newest
        newest = max(newest, number)
    sent_ns, delays_ms = zip(*times.values(), strict=True) if times else ((), ())
    report = {"sent_ns": sent_ns, "delays_ms": delays_ms}
    print(json.dumps({**report, "duplicates": duplicates, "reordered": reordered}))


def arrival_ns(ancillary, monotonic_ns=time.monotonic_ns, realtime_ns=time.time_ns):
    """When a datagram arrived, on CLOCK_MONOTONIC; now, if the kernel did not say."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = TIMESPEC.unpack_from(data)
            stamp = seconds * 1_000_000_000 + nanoseconds
            ahead, now = clocks_apart_ns(monotonic_ns, realtime_ns)
            return min(stamp + ahead, now)
    return monotonic_ns()


def clocks_apart_ns(monotonic_ns, realtime_ns):
    """How far the monotonic clock is ahead of the realtime one, and the monotonic clock now.

    Whoever reads two clocks may lose the CPU in between. So one is read before and after the other:
    they were read together to within half of what passed meanwhile, and the tightest of several
    tries counts.
    """
    tightest = ahead = None
    for _ in range(CLOCK_READS_MAX):
        before, real, after = monotonic_ns(), realtime_ns(), monotonic_ns()
        if tightest is None or after - before < tightest:
            tightest = after - before
            ahead = (before + after) // 2 - real
        if tightest <= CLOCK_READ_NS:
            break
    return ahead, after


def main():
    parser = argparse.ArgumentParser(prog="labkit/thin.py", description=__doc__)
    ends = parser.add_subparsers(required=True, metavar="send | receive")
    end = ends.add_parser("send", help=send.__doc__)
    end.add_argument("--to", required=True, metavar="ADDRESS")
    end.add_argument("--seconds", type=float, default=10)
    end.add_argument("--rate", type=float, default=FRAMES_PER_SECOND, help="datagrams a second")
    end.add_argument("--size", type=int, default=PAYLOAD_BYTES, help="bytes of UDP payload")
    end.set_defaults(run=send)
    end = ends.add_parser("receive", help=receive.__doc__)
    end.set_defaults(run=receive)
    for end in ends.choices.values():
        end.add_argument("--port", type=int, default=PORT)
    arguments = parser.parse_args()
    try:
        # A thin flow's own work is nothing; waiting behind a busy CPU is not what is measured.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError as error:
        print(f"ordinary priority: {error}", file=sys.stderr)
    arguments.run(arguments)


if __name__ == "__main__":
    main()
