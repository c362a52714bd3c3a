#!/usr/bin/env python3
"""SIGTERM under load: both gateways say what they did, exit 0, and have given every buffer back."""

import signal
import time

from support import LabTest, Stream, counters, main, wan

STOPPED_IN_S_MAX = 5.0


class Shutdown(LabTest):
    path = wan.Path(delay_ms=5)

    def test_final_report_under_load(self):
        self.in_each_placement(self.stop_under_load)

    def stop_under_load(self, tunnel, placement):
        streams = [
            Stream(self.lab, host, rate=8000, frames=10_000_000, flows=64)
            for host in ("host-a", "host-b")
        ]
        time.sleep(2)
        reports = [gateway.stop() for gateway in tunnel.both]
        for stream in streams:
            stream.stop()
        for gateway, report in zip(tunnel.both, reports, strict=True):
            with self.subTest(f"gw-{gateway.side}"):
                self.check(report, placement)

    def check(self, report, placement):
        self.assertLess(report["stopped_in_s"], STOPPED_IN_S_MAX)
        found = counters.pools(report)
        self.assertTrue(found)
        for name, size, in_use in found:
            self.assertEqual(in_use, 0, f"pool {name} of {size}")
        units = counters.units(report)
        self.assertGreaterEqual(len(units), 2 if placement == "lcores" else 1)
        for name, sealed, opened in units:
            self.assertGreater(sealed, 0, f"unit {name} sealed nothing")
            self.assertGreater(opened, 0, f"unit {name} opened nothing")
        sent = counters.figure(report, "shards_sent")
        self.assertGreater(sent, 1000)
        # Numbered just before the peer's key was put away: they name their reason.
        unsealed = counters.dropped(report, ("seal_failed",))
        numbered = counters.figure(report, "numbered")
        self.assertEqual(sum(sealed for _, sealed, _ in units) + unsealed, numbered)

    def test_interrupt_ends_as_orderly(self):
        with self.lab.shardgate() as tunnel:
            for gateway in tunnel.both:
                process = gateway.process
                self.assertEqual(process.stop(signal.SIGINT), 0)

    def test_second_signal_ends_it_at_once(self):
        with self.lab.shardgate() as tunnel:
            for gateway in tunnel.both:
                gateway.process.child.terminate()
                gateway.process.child.terminate()
                # 1 if the second signal came before the orderly end.
                self.assertIn(gateway.process.child.wait(STOPPED_IN_S_MAX), (0, 1))


if __name__ == "__main__":
    main()
