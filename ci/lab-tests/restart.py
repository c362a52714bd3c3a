#!/usr/bin/env python3
"""A gateway is killed and started again under load: traffic flows within a second of the handshake.

All the while hashed frames and a thin flow cross in both directions. What counts is when each host
has got ten of the flow's frames after the first gateway says that a session is established: one
frame is no flow.
"""

import datetime
import json
import sys
import time

from support import LabTest, Options, Stream, counters, main, measure, thin, wait_for, wan

FLOWS_AGAIN_S_MAX = 1.0
# From the start of a process to the session: EAL, ports, one handshake.
SESSION_S_MAX = 10.0
RESTARTS, RESTARTS_THOROUGH = 10, 100
LOAD_PER_SECOND = 2000
# Five milliseconds apart: as exactly is known when it flows again.
BEATS_PER_SECOND = 200
FRAMES_OF_A_FLOW = 10
LONG = {"seconds": 3600, "rate": BEATS_PER_SECOND}
ESTABLISHED = "session established"


def sessions_of(gateway):
    """When its sessions were established, seconds since the epoch; the log has microseconds."""
    lines = gateway.process.log.read_text().splitlines()
    stamps = [line.split()[0] for line in lines if ESTABLISHED in line]
    return [datetime.datetime.fromisoformat(stamp).timestamp() for stamp in stamps]


class UnderLoad(LabTest):
    path = wan.Path(delay_ms=10)

    def test_flows_within_a_second_of_the_handshake(self):
        tunnel = self.tunnel()
        self.lab.introduce_hosts()
        hosts = ("host-a", "host-b")
        flows = {
            there: thin.Flow(self.lab, address, nodes=(here, there), **LONG)
            for here, there, address in (
                ("host-a", "host-b", self.lab.flat("b")),
                ("host-b", "host-a", self.lab.flat("a")),
            )
        }
        plan = {"rate": LOAD_PER_SECOND, "frames": 10_000_000, "flows": 64, "idle": 60}
        streams = [Stream(self.lab, host, **plan) for host in hosts]
        time.sleep(0.5)
        count = RESTARTS_THOROUGH if Options.thorough else RESTARTS
        restarts = [self.restart(tunnel, number) for number in range(count)]
        arrivals = {host: self.arrivals(flow) for host, flow in flows.items()}
        for stream in streams:
            _, got = stream.stop()
            self.assertGreater(got["received"], LOAD_PER_SECOND * count / 10)
            for figure in ("wrong", "duplicates", "foreign"):
                self.assertEqual(got[figure], 0, got)
        found = [self.flows_again(arrivals, since) for since in restarts]
        print(json.dumps({"flows_again_s": found}), file=sys.stderr)
        for number, after_s in enumerate(found):
            with self.subTest(number):
                for host, seconds in after_s.items():
                    self.assertIsNotNone(seconds, f"{host}: it never flowed again")
                    self.assertLess(seconds, FLOWS_AGAIN_S_MAX, host)

    def restart(self, tunnel, number):
        """Kills and starts a gateway, each in its turn; returns when there was a session again."""
        gateway, other = tunnel.both if number % 2 else reversed(tunnel.both)
        before = len(sessions_of(other))
        resets = counters.figure(other.stats(), "stream_resets")
        gateway.kill()
        gateway.start()
        wait_for(
            self, "in session on both sides",
            lambda: sessions_of(gateway) and len(sessions_of(other)) > before,
            timeout=SESSION_S_MAX,
        )  # fmt: skip
        since = min(sessions_of(gateway)[0], sessions_of(other)[before])
        # Long enough to flow. If it does not, the next restart's traffic counts in its place, and
        # that comes more than a second later.
        time.sleep(0.4)
        self.assertGreater(counters.figure(other.stats(), "stream_resets"), resets)
        return since

    def arrivals(self, flow):
        """When the flow's frames arrived, seconds since the epoch."""
        apart_ns, _ = thin.clocks_apart_ns(time.monotonic_ns, time.time_ns)
        return [(at - apart_ns) / 1e9 for at in flow.stop().arrivals_ns]

    @staticmethod
    def flows_again(arrivals, since):
        """How long after that each host has got a few frames."""
        found = {}
        for host, times in arrivals.items():
            later = [at - since for at in times if at > since]
            found[host] = later[FRAMES_OF_A_FLOW - 1] if len(later) >= FRAMES_OF_A_FLOW else None
        return found


class Restart(LabTest):
    path = wan.Path(delay_ms=10)

    def test_after_kill_nobody_answers_and_then_every_packet_passes(self):
        tunnel = self.tunnel()
        for gateway in (tunnel.b, tunnel.a):
            with self.subTest(gateway.side):
                gateway.kill()
                time.sleep(0.5)
                self.assertFalse(self.flows(tunnel), "who answers?")
                gateway.start()
                self.assert_flows(tunnel)
                found = measure.ping(self.lab.namespace("host-a"), tunnel.target, count=50)
                self.assertEqual(found.lost_percent, 0)

    def test_after_an_orderly_stop(self):
        tunnel = self.tunnel()
        tunnel.b.stop()
        tunnel.b.start()
        self.assert_flows(tunnel)

    def test_started_long_before_its_peer(self):
        tunnel = self.tunnel()
        tunnel.a.kill()
        tunnel.b.stop()
        tunnel.b.start()
        # Longer than the first tries are apart.
        time.sleep(4)
        self.assertEqual(counters.figure(tunnel.b.stats(), "frames_delivered"), 0)
        tunnel.a.start()
        self.assert_flows(tunnel)

    def flows(self, tunnel):
        return measure.reaches(self.lab.namespace("host-a"), tunnel.target)

    def assert_flows(self, tunnel, *, timeout=5):
        namespace = self.lab.namespace("host-a")
        answered = measure.await_answer(namespace, tunnel.target, timeout=timeout)
        self.assertTrue(answered, f"not flowing after {timeout} s")


if __name__ == "__main__":
    main()
