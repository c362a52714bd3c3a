#!/usr/bin/env python3
"""TCP through both gateways: both directions, several flows, and a clean path well used."""

from support import LabTest, main, measure, wan

CLEAN_MBIT_MIN = 120


class Tcp(LabTest):
    path = wan.CLEAN

    def test_clean_path_in_each_placement(self):
        def check(tunnel, _):
            for reverse in (False, True):
                found = measure.tcp_goodput(self.lab, tunnel.target, seconds=4, reverse=reverse)
                self.assertGreater(found.mbit_per_s, CLEAN_MBIT_MIN, found.as_json())

        self.in_each_placement(check)

    def test_several_flows_at_once(self):
        tunnel = self.tunnel()
        found = measure.tcp_goodput(self.lab, tunnel.target, seconds=4, streams=8)
        self.assertGreater(found.mbit_per_s, CLEAN_MBIT_MIN, found.as_json())

    def test_connections_come_and_go(self):
        tunnel = self.tunnel()
        for _ in range(5):
            found = measure.tcp_goodput(self.lab, tunnel.target, seconds=1)
            self.assertGreater(found.bytes, 100_000)


if __name__ == "__main__":
    main()
