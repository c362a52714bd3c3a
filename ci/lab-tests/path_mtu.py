#!/usr/bin/env python3
"""The MTU of a path is found by probes: at the start, and when it shrinks under traffic.

The path drops longer packets silently, as one does whose ICMP is filtered. The gateways' ports have
1500 bytes, and no setting says otherwise.
"""

import time

from support import LabTest, counters, judged, main, measure, thin, wait_for, wan

# 100 Mbit/s, 20 ms each way.
PATH = wan.Path(delay_ms=20, rate_mbit=100)
SHORT, SHORTER = 1400, 1300
# Frames a second, bytes: each is one full shard at 1500, and two at 1400.
RATE, SIZE = 300, 1360
# Once the path is there again: to be found, RFC 8899's probes and a TCP sender's timer included.
FOUND_WITHIN_S = 3
FLOW_SECONDS = 14


class PathMtu(LabTest):
    path = PATH.but(mtu=SHORT)

    def found(self, gateways):
        """What each gateway sends at the most."""
        return [self.path_to_peer(gateway)["path_mtu_bytes"] for gateway in gateways.both]

    @staticmethod
    def path_to_peer(gateway):
        return gateway.stats()["peers"][0]["path"]

    def sessions(self, gateways):
        names = ("sessions_established", "stream_resets", "stream_jumps")
        looks = [gateway.stats() for gateway in gateways.both]
        return [[counters.figure(document, name) for name in names] for document in looks]

    @judged
    def test_a_short_path_loses_nothing_and_is_found(self):
        self.lab.set_path(PATH.but(mtu=SHORT))
        gateways = self.tunnel()
        flow = thin.Flow(self.lab, gateways.target, seconds=2, rate=RATE, size=SIZE)
        delays = flow.finish(linger=0.5)
        self.assertEqual(delays.lost, 0, delays.as_json())
        wait_for(self, "found", lambda: self.found(gateways) == [SHORT, SHORT])
        path = self.path_to_peer(gateways.a)
        self.assertEqual(path["path_mtu_state"], "search_complete")
        self.assertGreater(path["mtu_probes_sent"], path["mtu_probes_acked"])
        self.assertGreater(measure.tcp_goodput(self.lab, gateways.target, seconds=2).mbit_per_s, 10)

    @judged
    def test_a_path_that_shrinks_under_traffic_is_found(self):
        self.lab.set_path(PATH)
        gateways = self.tunnel()
        wait_for(self, "found", lambda: self.found(gateways) == [1500, 1500])
        before = self.sessions(gateways)
        tcp = measure.TcpFlow(self.lab, gateways.target, seconds=FLOW_SECONDS)
        plan = {"seconds": FLOW_SECONDS, "rate": RATE, "size": SIZE}
        flow = thin.Flow(self.lab, gateways.target, **plan)
        time.sleep(2)
        self.lab.set_path(PATH.but(mtu=SHORTER))
        back = time.monotonic_ns()
        # The way back carries acknowledgements alone, and those are short: nothing has to be found.
        wait_for(
            self,
            "found",
            lambda: SHORTER - 20 <= self.found(gateways)[0] <= SHORTER,
            timeout=FOUND_WITHIN_S,
        )
        delays, goodput = flow.finish(linger=0.5), tcp.finish()
        path = self.path_to_peer(gateways.a)
        self.assertEqual(path["mtu_black_holes"], 1, path)
        self.assertEqual(path["path_mtu_bytes"], SHORTER)
        self.assertEqual(self.sessions(gateways), before)
        # Every later frame passes, but for those that a queue or its control let go.
        late = [at for at in delays.arrivals_ns if at > back + FOUND_WITHIN_S * 10**9]
        seconds = (delays.arrivals_ns[-1] - back) / 1e9 - FOUND_WITHIN_S
        self.assertGreater(seconds, 2)
        self.assertGreater(len(late), 0.97 * RATE * seconds)
        # The TCP flow that was there lives, at full speed.
        intervals = [one["sum"]["bits_per_second"] / 1e6 for one in goodput.report["intervals"]]
        self.assertGreater(sum(intervals[-2:]) / 2, 30, intervals)
        log = gateways.a.process.log.read_text()
        self.assertRegex(log, r"path MTU changed.*from=1500 to=1\d\d\d")


if __name__ == "__main__":
    main()
