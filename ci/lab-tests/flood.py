#!/usr/bin/env python3
"""20,000 forged, replayed or duplicated shards a second, behind the bottleneck.

The injector stands where no path slows it down: at the last link before gw-b. All the while a TCP
flow crosses the path, and its goodput is compared with that of the same flow undisturbed, before
and after. Every injected shard is counted by a reason that fits; memory, reassembly and sessions
stay as they are.
"""

import json
import struct
import sys
import time

from attacks import LISTEN_PORT, Tap, make
from support import LabTest, Options, counters, injector_tool, judged, main, measure, wan

PER_SECOND = 20_000
SECONDS = 2
SECONDS_THOROUGH = 20
# Distinct frames of a flood; the injector repeats them.
DISTINCT = 4096
OVERHEARD = 1000
# What an overloaded machine's injector and the victim's own ring may lose of them.
INJECTED_MIN = 0.5
COUNTED_MIN = 0.98
# The path is slow enough that its rate and not a CPU bounds the flow.
GOODPUT_SHARE_MIN = 0.8
# Of the path's rate: headers take a tenth of it, and a full queue makes pauses.
AFTER_SHARE_MIN = 0.7
GROWTH_KIB_MAX = 4096
WARM_UPS_MAX = 8
BUFFERS_GROWTH_MAX = 256
# Of all pools while the flood lasts: a tenth of a second of it is twice that.
BUFFERS_IN_USE_MAX = 1024
# A copy of what is overheard before the path overtakes nothing if it comes so much later: a full
# queue there takes 120 ms. One that does is a first arrival, and the path one that reorders.
ECHO_DELAY_MS = 400
# The path carries some 4,000 a second.
ECHO_COPIES = 5


class Flood(LabTest):
    path = wan.Path(delay_ms=10, rate_mbit=50)

    def test_forged_replayed_duplicated(self):
        self.seconds = SECONDS_THOROUGH if Options.thorough else SECONDS
        tunnel = self.tunnel()
        self.warm_up(tunnel)
        for kind in ("forged header", "replayed", "duplicated"):
            with self.subTest(kind):
                self.endure(tunnel, kind)

    @judged
    def endure(self, tunnel, kind):
        figures = self.flood(tunnel, kind)
        print(json.dumps(figures), file=sys.stderr)
        self.check(**figures)

    def warm_up(self, tunnel):
        """Lets lanes begin, and memory be taken that is taken once."""
        resident = 0
        for _ in range(WARM_UPS_MAX):
            self.earlier = self.goodput(tunnel)
            before, resident = resident, tunnel.b.resident_kib()
            if resident - before < GROWTH_KIB_MAX / 4:
                break

    def flood(self, tunnel, kind):
        """Measures one flood, and the goodput after it; that before was measured already."""
        victim = tunnel.b
        before, resident = self.look(victim), victim.resident_kib()
        flow = measure.TcpFlow(self.lab, tunnel.target, seconds=self.seconds, omit=1)
        injector = self.inject(kind)
        in_use_most = 0
        deadline = time.monotonic() + self.seconds + 30
        while injector.running() and time.monotonic() < deadline:
            in_use_most = max(in_use_most, self.look(victim)["in_use"])
            time.sleep(0.1)
        disturbed = flow.finish().mbit_per_s
        self.assertEqual(self.lab.stop(injector), 0, injector.tail())
        sent = json.loads(injector.output())
        time.sleep(1)
        after, grown = self.look(victim), victim.resident_kib() - resident
        around = [self.earlier, self.goodput(tunnel)]
        self.earlier = around[-1]
        return {
            "kind": kind, "sent": sent, "undisturbed_mbit_per_s": around,
            "disturbed_mbit_per_s": disturbed, "resident_growth_kib": grown,
            "in_use_most": in_use_most, "before": before, "after": after,
        }  # fmt: skip

    def goodput(self, tunnel):
        return measure.tcp_goodput(self.lab, tunnel.target, seconds=self.seconds, omit=1).mbit_per_s

    def inject(self, kind):
        """Starts the injector, which ends by itself."""
        if kind == "duplicated":
            plan = ("echo", wan.LEFT, wan.RIGHT, PER_SECOND, self.seconds)
            plan = (*plan, ECHO_DELAY_MS, LISTEN_PORT, ECHO_COPIES)
        else:
            tap = Tap(self.lab)
            self.addCleanup(tap.close)
            overheard = tap.overhear(OVERHEARD)
            file = self.lab.directory / "flood.frames"
            with open(file, "wb") as out:
                for frame in make(kind, overheard, DISTINCT, seed=1):
                    out.write(struct.pack("!H", len(frame)) + frame)
            plan = ("send", wan.RIGHT, file, PER_SECOND, self.seconds)
        return self.lab.start("injector", (injector_tool(), *plan), "wan")

    @staticmethod
    def look(gateway):
        document = gateway.stats()
        names = ("stream_resets", "stream_jumps", "sessions_established")
        return {
            "drops": counters.drops(document),
            "in_use": sum(in_use for _, _, in_use in counters.pools(document)),
            "missed": counters.figure(document, "wan_rx_missed"),
            **{name: counters.figure(document, name) for name in names},
        }

    def check(
        self, *, kind, sent, before, after, undisturbed_mbit_per_s, disturbed_mbit_per_s,
        resident_growth_kib, in_use_most,
    ):  # fmt: skip
        reasons = counters.REASONS_OF_INJECTION["replayed" if kind == "duplicated" else kind]
        counted = sum(
            after["drops"].get(reason, 0) - before["drops"].get(reason, 0) for reason in reasons
        )
        missed = after["missed"] - before["missed"]
        self.assertGreater(sent["sent"], INJECTED_MIN * PER_SECOND * self.seconds, sent)
        self.assertEqual(sent["overrun"], 0)
        self.assertGreaterEqual(counted + missed, COUNTED_MIN * sent["sent"], (reasons, after))
        for name in ("stream_resets", "stream_jumps", "sessions_established"):
            self.assertEqual(after[name], before[name], name)
        self.assertLessEqual(after["in_use"] - before["in_use"], BUFFERS_GROWTH_MAX)
        self.assertLessEqual(in_use_most, BUFFERS_IN_USE_MAX)
        self.assertLessEqual(resident_growth_kib, GROWTH_KIB_MAX)
        share = disturbed_mbit_per_s / max(undisturbed_mbit_per_s)
        self.assertGreaterEqual(share, GOODPUT_SHARE_MIN)
        # Who is slow when a flood is over was harmed by it.
        self.assertGreaterEqual(undisturbed_mbit_per_s[-1], self.path.rate_mbit * AFTER_SHARE_MIN)


if __name__ == "__main__":
    main()
