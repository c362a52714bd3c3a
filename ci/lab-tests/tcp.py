#!/usr/bin/env python3
"""TCP through both gateways: both directions, several flows, and a clean path well used."""

from support import PLACEMENTS, LabTest, counters, main, measure, wan

CLEAN_MBIT_MIN = 120
SECONDS = 4
CONNECTIONS = 4


class Tcp(LabTest):
    path = wan.CLEAN

    def test_clean_path_in_each_placement(self):
        for placement in PLACEMENTS:
            self.assert_fast(placement, {}, {"reverse": True})

    def test_several_flows_at_once(self):
        self.assert_fast(PLACEMENTS[0], {"streams": 8})

    def test_connections_come_and_go(self):
        self.lab.set_path(self.path)
        tunnel = self.tunnel()
        for _ in range(CONNECTIONS):
            found = measure.tcp_goodput(self.lab, tunnel.target, seconds=1)
            self.assertGreater(found.bytes, 100_000)

    def assert_fast(self, placement, *plans):
        """Each plan of a flow is carried fast enough, through one pair of gateways."""
        for plan, found in self.undisturbed(lambda: self.speeds(placement, plans)):
            with self.subTest(placement, **plan):
                self.assertGreater(found.mbit_per_s, CLEAN_MBIT_MIN, found.as_json())

    def speeds(self, placement, plans):
        """Goodput by plan; and what disturbed that."""
        self.lab.set_path(self.path)
        with self.lab.shardgate(placement=placement) as tunnel:
            before = tunnel.stats()
            found = [
                (plan, measure.tcp_goodput(self.lab, tunnel.target, seconds=SECONDS, **plan))
                for plan in plans
            ]
            after = tunnel.stats()
        return found, counters.disturbance(self.lab.cut(), before, after)


if __name__ == "__main__":
    main()
