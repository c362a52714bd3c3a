#!/usr/bin/env python3
"""The lab without shardgate: it carries traffic, leaves nothing behind, and its judge sees."""

import json
import signal
import subprocess
import time
import unittest

from support import (
    ROOT,
    Lab,
    LabTest,
    Options,
    Stream,
    integrity_tool,
    leftovers,
    main,
    measure,
    run,
)

BRIDGE = ("type", "bridge", "mcast_snooping", "0")
KEEPER = "import time; print('up', flush=True); time.sleep(60)"


class Bridged(LabTest):
    """A bridge lies between the gateways."""

    path = None
    lan_mtu = 1500

    def test_plain_routing_carries_ping_and_tcp(self):
        with self.lab.plain() as target:
            ping = measure.ping(self.lab.namespace("host-a"), target, count=20)
            self.assertEqual(ping.lost_percent, 0)
            self.assertGreater(measure.tcp_goodput(self.lab, target, seconds=1).mbit_per_s, 1)

    def test_wireguard_carries_ping_and_tcp(self):
        with self.lab.wireguard() as target:
            ping = measure.ping(self.lab.namespace("host-a"), target, count=20)
            self.assertEqual(ping.lost_percent, 0)
            self.assertGreater(measure.tcp_goodput(self.lab, target, seconds=1).mbit_per_s, 1)

    def test_carriers_leave_the_gateways_without_addresses(self):
        for carrier in (self.lab.plain, self.lab.wireguard):
            with carrier():
                pass
            for node in ("gw-a", "gw-b"):
                addresses = self.lab.inside(node, "ip", "-4", "-o", "address").stdout
                self.assertEqual(addresses.count("inet"), 1, addresses)


class Judge(LabTest):
    """The integrity tool, with the gateways' LAN and WAN ports bridged by their kernels."""

    path = None
    lan_mtu = 9000
    plan = {"frames": 20_000, "flows": 64}

    def setUp(self):
        for node in ("gw-a", "gw-b"):
            # A bridge that snoops on multicast speaks itself.
            self.lab.inside(node, "ip", "link", "add", "br0", *BRIDGE)
            self.lab.inside(node, "sysctl", "-qw", "net.ipv6.conf.br0.disable_ipv6=1")
            self.lab.inside(node, "ip", "link", "set", "lan0", "master", "br0")
            self.addCleanup(self.lab.inside, node, "ip", "link", "del", "br0")
            self.lab.inside(node, "ip", "link", "set", "br0", "up")
            self.lab.inside(node, "ip", "link", "set", "wan0", "master", "br0")

    def test_sees_nothing_wrong_where_nothing_is(self):
        sent, got = Stream(self.lab, **self.plan).finish()
        self.assertEqual(sent["sent"], 20_000 + 3 * 64)
        self.assertEqual(got["received"], sent["sent"])
        for figure in ("wrong", "duplicates", "out_of_order", "foreign", "impossible", "missing"):
            self.assertEqual(got[figure], 0, got)

    def test_counts_exactly_the_harm_that_was_done(self):
        # A process in the place of gw-b's bridge: it loses, doubles, damages and delays.
        self.lab.inside("gw-b", "ip", "link", "set", "lan0", "nomaster")
        harm = self.lab.start(
            "harm", (integrity_tool(), "harm", "wan0", "lan0", "--every", "100"), "gw-b"
        )
        harm.wait_until(lambda: "ready" in harm.log.read_text(), "ready")
        sent, got = Stream(self.lab, **self.plan).finish()
        self.assertEqual(self.lab.stop(harm), 0)
        done = json.loads(harm.output())
        self.assertEqual(done["seen"], sent["sent"])
        for figure in ("lost", "doubled", "damaged", "delayed"):
            self.assertGreater(done[figure], 0)
        self.assertEqual(got["wrong"], done["damaged"])
        self.assertEqual(got["duplicates"], done["doubled"])
        self.assertEqual(got["out_of_order"], done["delayed"])
        self.assertEqual(got["missing"], done["lost"] + done["damaged"] + done["held_back"])


class NothingLeft(unittest.TestCase):
    """However a lab ends, the machine is as it was."""

    def setUp(self):
        self.before = leftovers()

    def tearDown(self):
        self.assertEqual(leftovers(), self.before)

    def test_after_an_ordinary_end_with_hugepages(self):
        with Lab(hugepages="on", binary=Options.binary) as lab, lab.wireguard():
            self.assertNotEqual(leftovers(), self.before)

    def test_after_a_failed_step(self):
        with self.assertRaises(ZeroDivisionError):
            with Lab(hugepages="off") as lab, lab.plain():
                print(1 // 0)

    def test_two_labs_at_once(self):
        with Lab(hugepages="on") as one, one.plain():
            with Lab(hugepages="on") as other, other.wireguard() as target:
                self.assertTrue(measure.reaches(other.namespace("host-a"), target))
            self.assertTrue(measure.reaches(one.namespace("host-a"), one.routed("b")))

    def test_after_a_signal(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number.name):
                child = self.start_keeper()
                child.send_signal(number)
                child.wait(20)
                self.assertEqual(leftovers(), self.before)

    def test_after_being_killed_the_next_down_cleans_up(self):
        child = self.start_keeper()
        child.kill()
        child.wait(20)
        run(ROOT / "scripts" / "lab", "down", "sgkilled")

    def start_keeper(self):
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r});"
            "sys.dont_write_bytecode = True;"
            "from labkit.lab import Lab\n"
            f"with Lab(hugepages='off', name='sgkilled') as lab, lab.wireguard():\n    {KEEPER}"
        )
        child = subprocess.Popen(["python3", "-c", code], stdout=subprocess.PIPE, text=True)
        self.addCleanup(child.stdout.close)
        self.assertEqual(child.stdout.readline().strip(), "up")
        time.sleep(0.1)
        return child


if __name__ == "__main__":
    main()
