#!/usr/bin/env python3
"""Every kind of frame crosses the tunnel: small, jumbo, tagged, broadcast, IPv6 and unknown."""

import time

from support import LabTest, Stream, counters, main, measure, wan

# IPv4 packets: the least that ping can time, around a shard, around the WAN, and the LAN itself.
PACKET_SIZES = (44, 64, 576, 1414, 1500, 1501, 4000, 9000)
IPV4_AND_ICMP = 28
IPV6_SETTING = "net.ipv6.conf.lan0.disable_ipv6"


class AnyFrame(LabTest):
    """Jumbo LANs behind a WAN of 1500 bytes that loses nothing."""

    path = wan.Path(delay_ms=1)
    lan_mtu = 9000

    def all_answered(self, target, **options):
        host = self.lab.namespace("host-a")
        found = measure.ping(host, target, count=10, interval=0.05, **options)
        self.assertEqual(found.lost_percent, 0, options)
        self.assertEqual(found.duplicates, 0, options)

    def test_pings_from_the_smallest_to_jumbo(self):
        def check(tunnel, _):
            for size in PACKET_SIZES:
                unfragmented = ("-M", "do")
                self.all_answered(tunnel.target, size=size - IPV4_AND_ICMP, extra=unfragmented)

        self.in_each_placement(check)

    def test_broadcast(self):
        def check(_tunnel, _placement):
            self.all_answered("10.80.0.255", extra=("-b",))

        self.lab.inside("host-b", "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_broadcasts=0")
        self.in_each_placement(check)

    def test_ipv6(self):
        def check(_tunnel, _placement):
            for size in (16, 1452, 8952):
                self.all_answered("fd53:47::2", size=size)

        for node, address in (("host-a", "fd53:47::1/64"), ("host-b", "fd53:47::2/64")):
            self.lab.inside(node, "sysctl", "-qw", f"{IPV6_SETTING}=0")
            self.addCleanup(self.lab.inside, node, "sysctl", "-qw", f"{IPV6_SETTING}=1")
            self.lab.inside(node, "ip", "address", "add", address, "dev", "lan0", "nodad")
        self.in_each_placement(check)

    def test_every_kind_unharmed(self):
        """IPv4, IPv6, VLAN-tagged, broadcast, urgent and unknown frames, bit for bit."""

        def check(tunnel, _placement):
            for size_max in (1514, 9014):
                plan = {"frames": 8000, "flows": 64, "size_max": size_max}
                sent, got = Stream(self.lab, rate=4000, **plan).finish()
                self.assertEqual(got["received"], sent["sent"], got)
                for figure in ("wrong", "duplicates", "foreign", "impossible"):
                    self.assertEqual(got[figure], 0, got)
                # A sending unit that waits for a CPU longer than a hold lasts makes stragglers.
                time.sleep(0.1)  # the counters' own interval, generously
                stragglers = counters.figure(tunnel.b.stats(), "frames_straggled")
                self.assertLessEqual(got["out_of_order"], stragglers, got)

        self.in_each_placement(check)


if __name__ == "__main__":
    main()
