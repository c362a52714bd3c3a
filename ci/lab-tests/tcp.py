#!/usr/bin/env python3
"""TCP through both gateways: both directions, several flows, and a clean path well used."""

import sys

from support import PLACEMENTS, LabTest, counters, judged, main, measure, wan

# Of a flow without a tunnel, in the same lab: headers take a tenth, and a test's short flow has much
# of its start in it. What a gateway is worth is measured by scripts/compare.
CLEAN_SHARE_MIN = 0.6
SECONDS = 4
CONNECTIONS = 4


class Tcp(LabTest):
    path = wan.CLEAN

    def test_clean_path_in_each_placement(self):
        for placement in PLACEMENTS:
            with self.subTest(placement):
                self.assert_fast(placement, {}, {"reverse": True})

    def test_several_flows_at_once(self):
        self.assert_fast(PLACEMENTS[0], {"streams": 8})

    def test_connections_come_and_go(self):
        self.lab.set_path(self.path)
        tunnel = self.tunnel()
        for _ in range(CONNECTIONS):
            found = measure.tcp_goodput(self.lab, tunnel.target, seconds=1)
            self.assertGreater(found.bytes, 100_000)

    @judged
    def assert_fast(self, placement, *plans):
        """Each plan of a flow is carried fast enough, through one pair of gateways."""
        self.lab.set_path(self.path)
        with self.lab.plain() as target:
            plain = measure.tcp_goodput(self.lab, target, seconds=SECONDS)
        with self.lab.shardgate(placement=placement) as tunnel:
            before = tunnel.stats()
            speeds = [
                measure.tcp_goodput(self.lab, tunnel.target, seconds=SECONDS, **plan)
                for plan in plans
            ]
            after = tunnel.stats()
        self.disturbances.append(counters.disturbance(self.lab.cut(), before, after))
        for plan, found in zip(plans, speeds, strict=True):
            share = found.mbit_per_s / plain.mbit_per_s
            print(f"{placement} {plan}: {share:.2f} of {plain.mbit_per_s:.0f}", file=sys.stderr)
            self.assertGreater(share, CLEAN_SHARE_MIN, (plan, found.as_json()))


if __name__ == "__main__":
    main()
