#!/usr/bin/env python3
"""Every kind of frame crosses the tunnel: small, jumbo, tagged, broadcast, IPv6 and unknown."""

from support import PLACEMENTS, LabTest, Stream, main, measure, wan


class AnyFrame(LabTest):
    """Jumbo LANs behind a WAN of 1500 bytes that loses nothing."""

    path = wan.Path(delay_ms=1)
    lan_mtu = 9000

    def setUp(self):
        self.host = self.lab.namespace("host-a")

    def answered(self, tunnel, **options):
        found = measure.ping(self.host, tunnel.target, count=10, interval=0.05, **options)
        self.assertEqual(found.lost_percent, 0, options)
        self.assertEqual(found.duplicates, 0, options)

    def each_placement(self):
        for placement in PLACEMENTS:
            with self.subTest(placement), self.lab.shardgate(placement=placement) as tunnel:
                yield tunnel

    def test_pings_from_the_smallest_to_jumbo(self):
        for tunnel in self.each_placement():
            # Sizes of the IP packet, less its 28 bytes of headers; never fragmented by the host.
            for packet in (28 + 8, 64, 576, 1414, 1500, 1501, 4000, 9000):
                self.answered(tunnel, size=packet - 28, extra=("-M", "do"))

    def test_broadcast(self):
        for tunnel in self.each_placement():
            self.lab.inside("host-b", "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_broadcasts=0")
            found = measure.ping(self.host, "10.80.0.255", count=10, interval=0.05, extra=("-b",))
            self.assertEqual(found.lost_percent, 0)
            self.answered(tunnel)

    def test_ipv6(self):
        for side in "ab":
            self.lab.inside(f"host-{side}", "sysctl", "-qw", "net.ipv6.conf.lan0.disable_ipv6=0")
            self.addCleanup(
                self.lab.inside,
                f"host-{side}",
                "sysctl",
                "-qw",
                "net.ipv6.conf.lan0.disable_ipv6=1",
            )
            address = f"fd53:47::{1 if side == 'a' else 2}/64"
            self.lab.inside(f"host-{side}", "ip", "address", "add", address, "dev", "lan0", "nodad")
        for _ in self.each_placement():
            for size in (16, 1452, 8952):
                found = measure.ping(self.host, "fd53:47::2", count=10, interval=0.05, size=size)
                self.assertEqual(found.lost_percent, 0, size)

    def test_every_kind_unharmed(self):
        """IPv4, IPv6, VLAN-tagged, broadcast, urgent and unknown frames, bit for bit."""
        for _ in self.each_placement():
            for sizes in ((60, 1514), (60, 9014)):
                stream = Stream(
                    self.lab, rate=4000, frames=8000, flows=64,
                    size_min=sizes[0], size_max=sizes[1],
                )  # fmt: skip
                sent, got = stream.finish()
                self.assertEqual(got["received"], sent["sent"], got)
                for figure in ("wrong", "duplicates", "out_of_order", "foreign", "impossible"):
                    self.assertEqual(got[figure], 0, got)


if __name__ == "__main__":
    main()
