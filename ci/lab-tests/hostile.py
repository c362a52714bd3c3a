#!/usr/bin/env python3
"""Garbage, truncated, forged, replayed and damaged datagrams on the WAN.

Each kind is counted by a reason that fits, keeps no memory, moves no state: a stream of hashed
frames that runs all the while arrives whole, in order and once.
"""

import time

from attacks import ATTACKS, Tap, make
from support import LabTest, Stream, counters, judged, main, wan

PER_KIND = 2000
PER_SECOND = 4000
# The share that the overheard stream's own timing may cost: an exact copy can outrun a limit.
COUNTED_MIN = 0.99
COUNTED_WITHIN_S = 3
GROWTH_KIB_MAX = 4096


class Hostile(LabTest):
    path = wan.Path(delay_ms=2)

    def test_counted_by_reason_and_without_effect(self):
        # No frame may be missing, and queue control lets one go on purpose when the path's queue
        # stands: gateways that wait for a CPU of this machine make such a queue.
        self.in_each_placement(lambda tunnel, _: self.attack(tunnel.b), queue_control=False)

    @judged
    def attack(self, victim):
        tap = Tap(self.lab)
        self.addCleanup(tap.close)
        stragglers = counters.figure(victim.stats(), "frames_straggled")
        stream = Stream(self.lab, rate=1000, frames=10_000_000, flows=64, closing_rounds=0)
        try:
            self.attack_beside(victim, tap)
            time.sleep(1)
        finally:
            sent, got = stream.stop()
        stragglers = counters.figure(victim.stats(), "frames_straggled") - stragglers
        self.check_stream(sent, got, stragglers)

    def attack_beside(self, victim, tap):
        """Every kind of attack while a stream crosses."""
        overheard = tap.overhear(200)
        # Memory that is taken once (buffers, tables) is taken before the first look.
        self.inject(tap, make("garbage", overheard, PER_KIND, seed=0))
        resident, in_use = victim.resident_kib(), self.buffers_in_use(victim)
        for seed, name in enumerate(ATTACKS, 1):
            before = self.counted(victim, name)
            self.inject(tap, make(name, overheard, PER_KIND, seed))
            least = before + COUNTED_MIN * PER_KIND
            deadline = time.monotonic() + COUNTED_WITHIN_S
            while self.counted(victim, name) < least and time.monotonic() < deadline:
                time.sleep(0.05)
            died = counters.drops(victim.stats())
            self.assertGreaterEqual(self.counted(victim, name), least, f"{name}: {died}")
        self.assertLessEqual(victim.resident_kib() - resident, GROWTH_KIB_MAX)
        self.assertLessEqual(self.buffers_in_use(victim), in_use + 256)

    @staticmethod
    def counted(victim, name):
        document = victim.stats()
        reasons = counters.REASONS_OF_INJECTION[name]
        return sum(counters.injected(document, reason) for reason in reasons)

    def inject(self, tap, frames):
        due = time.monotonic()
        for frame in frames:
            tap.inject(frame)
            due += 1 / PER_SECOND
            time.sleep(max(0.0, due - time.monotonic()))

    @staticmethod
    def buffers_in_use(gateway):
        return sum(in_use for _, _, in_use in counters.pools(gateway.stats()))

    def check_stream(self, sent, got, stragglers):
        # The receiver was told of far more frames than were sent: what it calls missing at the
        # end is what was never sent.
        self.assertGreater(sent["sent"], 1000)
        self.assertEqual(got["received"], sent["sent"], got)
        for figure in ("wrong", "duplicates", "foreign", "missing_below_newest"):
            self.assertEqual(got[figure], 0, got)
        # Units that wait for a CPU deliver late; what that does to the order is counted.
        self.assertLessEqual(got["out_of_order"], stragglers, got)


if __name__ == "__main__":
    main()
