#!/usr/bin/env python3
"""A gateway is killed and started again: traffic flows within five seconds."""

import time

from support import LabTest, counters, main, measure, wait_for, wan

FLOWS_AGAIN_S_MAX = 5.0


class Restart(LabTest):
    path = wan.Path(delay_ms=10)

    def test_after_kill_of_either_gateway(self):
        tunnel = self.tunnel()
        for gateway in (tunnel.b, tunnel.a):
            with self.subTest(gateway.side):
                gateway.kill()
                time.sleep(0.5)
                self.assertFalse(self.flows(tunnel), "who answers?")
                started = time.monotonic()
                gateway.start()
                wait_for(self, "flowing", lambda: self.flows(tunnel), timeout=FLOWS_AGAIN_S_MAX)
                self.assertLess(time.monotonic() - started, FLOWS_AGAIN_S_MAX)
                # And it is more than one packet that got through.
                found = measure.ping(self.lab.namespace("host-a"), tunnel.target, count=50)
                self.assertEqual(found.lost_percent, 0)

    def test_after_an_orderly_stop(self):
        tunnel = self.tunnel()
        tunnel.b.stop()
        tunnel.b.start()
        wait_for(self, "flowing", lambda: self.flows(tunnel), timeout=FLOWS_AGAIN_S_MAX)

    def test_started_long_before_its_peer(self):
        tunnel = self.tunnel()
        tunnel.a.kill()
        tunnel.b.stop()
        tunnel.b.start()
        time.sleep(8)
        self.assertEqual(counters.figure(tunnel.b.stats(), "frames_delivered"), 0)
        tunnel.a.start()
        wait_for(self, "flowing", lambda: self.flows(tunnel), timeout=FLOWS_AGAIN_S_MAX)

    def flows(self, tunnel):
        return measure.reaches(self.lab.namespace("host-a"), tunnel.target)


if __name__ == "__main__":
    main()
