#!/usr/bin/env python3
"""Every kind of frame crosses the tunnel: small, jumbo, tagged, broadcast, IPv6 and unknown."""

from support import LabTest, Stream, counters, main, measure, wan

# IPv4 packets: the least that ping can time, around a shard, around the WAN, and the LAN itself.
PACKET_SIZES = (44, 64, 576, 1414, 1500, 1501, 4000, 9000)
IPV4_AND_ICMP = 28
IPV6_SETTING = "net.ipv6.conf.lan0.disable_ipv6"


class AnyFrame(LabTest):
    """Jumbo LANs behind a WAN of 1500 bytes that loses nothing."""

    path = wan.Path(delay_ms=1)
    lan_mtu = 9000

    def test_pings_broadcasts_and_every_kind_of_frame(self):
        self.lab.inside("host-b", "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_broadcasts=0")
        self.in_each_placement(self.all_checks)

    def all_checks(self, tunnel, _placement):
        for check in (self.every_kind, self.sizes, self.broadcast, self.ipv6):
            with self.subTest(check.__name__):
                check(tunnel)

    def sizes(self, tunnel):
        """Pings from the smallest to jumbo."""
        for size in PACKET_SIZES:
            self.all_answered(tunnel.target, size=size - IPV4_AND_ICMP, extra=("-M", "do"))

    def broadcast(self, _tunnel):
        self.all_answered("10.80.0.255", extra=("-b",))

    def ipv6(self, _tunnel):
        hosts = (("host-a", "fd53:47::1/64"), ("host-b", "fd53:47::2/64"))
        for node, address in hosts:
            self.lab.inside(node, "sysctl", "-qw", f"{IPV6_SETTING}=0")
            self.lab.inside(node, "ip", "address", "add", address, "dev", "lan0", "nodad")
        try:
            for size in (16, 1452, 8952):
                self.all_answered("fd53:47::2", size=size)
        finally:
            for node, _ in hosts:
                self.lab.inside(node, "sysctl", "-qw", f"{IPV6_SETTING}=1")

    def every_kind(self, tunnel):
        """IPv4, IPv6, VLAN-tagged, broadcast, urgent and unknown frames, bit for bit."""
        for size_max in (1514, 9014):
            plan = {"frames": 8000, "flows": 64, "size_max": size_max}
            before = tunnel.stats()[1]
            sent, got = Stream(self.lab, rate=4000, **plan).finish()
            self.assertEqual(got["received"], sent["sent"], got)
            for figure in ("wrong", "duplicates", "foreign", "impossible"):
                self.assertEqual(got[figure], 0, got)
            # A sending unit that waits for a CPU longer than a hold lasts makes stragglers.
            stragglers = counters.growth(before, tunnel.stats()[1], "frames_straggled")
            self.assertLessEqual(got["out_of_order"], stragglers, got)

    def all_answered(self, target, **options):
        host = self.lab.namespace("host-a")
        found = measure.ping(host, target, count=10, interval=0.02, **options)
        self.assertEqual(found.lost_percent, 0, options)
        self.assertEqual(found.duplicates, 0, options)


if __name__ == "__main__":
    main()
