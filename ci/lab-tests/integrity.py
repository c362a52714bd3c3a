#!/usr/bin/env python3
"""Integrity through a bad WAN, judged by hashes at the hosts.

A stream of numbered, hashed frames crosses reordering, duplication, 1 % corruption and 1 % loss.
Nothing wrong may be delivered and nothing twice; order holds inside a flow except for stragglers
that the gateways count; every missing frame is counted by a reason, frame by frame, from the
sending host to the receiving one; and what the gateways counted agrees with the kernel's and the
emulator's counters. `--thorough` sends a million frames.
"""

import json
import sys
import time

from support import NODES, PLACEMENTS, LabTest, Options, Stream, counters, main, wan

DISAGREEMENT_MAX = 0.001
THOROUGH = 1_000_000
RATE = 15_000
FLOWS = 256


class Mangled(LabTest):
    path = wan.MANGLED
    size_max = 1514
    rate = RATE
    quick = 100_000
    lan_mtu = 1500

    def test_nothing_wrong_nothing_twice_nothing_unexplained(self):
        for placement in PLACEMENTS:
            with self.subTest(placement):
                self.cross(placement)

    def cross(self, placement):
        # The million goes through one placement; the other shows that it is no different.
        thorough = Options.thorough and placement == PLACEMENTS[0]
        frames = THOROUGH if thorough else self.quick
        with self.lab.shardgate(placement=placement) as tunnel, self.lab.silent_hosts():
            # A lane begins with the first frame that arrives, so what is lost before it is unknown
            # to the far end: let every lane begin. And let every flow show that it is not sparse,
            # so that none changes lanes within the stream, where it may overtake itself uncounted.
            Stream(
                self.lab, rate=self.rate, frames=20 * FLOWS, flows=FLOWS, size_max=self.size_max,
                seed=2, idle=1,
            ).finish()  # fmt: skip
            self.settle()
            before, links = tunnel.stats(), self.links()
            stream = Stream(
                self.lab, rate=self.rate, frames=frames, flows=FLOWS, size_max=self.size_max,
                idle=1,
            )  # fmt: skip
            sent, got = stream.finish()
            self.settle()
            after, late = tunnel.stats(), self.links()
        moved = {name: late[name] - count for name, count in links.items()}
        near, far = (Growth(*pair) for pair in zip(before, after, strict=True))
        try:
            self.check(sent, got, moved, near, far)
        except AssertionError:
            evidence = {"sent": sent, "got": got, "links": moved}
            evidence |= {"gw-a": near.everything(), "gw-b": far.everything()}
            print(json.dumps(evidence), file=sys.stderr)
            raise

    def check(self, sent, got, moved, near, far):
        self.assertEqual(got["not_read"], 0, "the judge itself was too slow")
        for figure in ("wrong", "duplicates", "foreign", "impossible"):
            self.assertEqual(got[figure], 0, got)
        self.assertLessEqual(got["out_of_order"], far("frames_straggled"), got)
        self.check_way(sent, got, moved, near, far)
        self.check_absence(sent, got, near, far)
        for what, inside, outside in (
            ("datagrams out of gw-a", near("wan_tx_datagrams"), moved["gw-a wan0 tx packets"]),
            (
                "datagrams into gw-b",
                far("wan_rx_datagrams") + far("wan_rx_missed"),
                moved["gw-b wan0 rx packets"],
            ),
        ):
            self.assert_close(what, inside, outside)

    def check_way(self, sent, got, moved, near, far):
        """No frame vanishes between two places that count: hosts, kernels, ports, lanes."""
        for what, before, after in (
            ("from host-a to gw-a", sent["sent"], moved["gw-a lan0 rx packets"]),
            (
                "into gw-a's port",
                moved["gw-a lan0 rx packets"],
                near("lan_rx_frames") + near("lan_rx_missed"),
            ),
            (
                "into lanes, or dead by a reason",
                near("lan_rx_frames"),
                near("frames_entered") + near.entrance_drops(),
            ),
            (
                "out of lanes to gw-b's port",
                far("frames_delivered") - far.delivery_drops(),
                far("lan_tx_frames"),
            ),
            ("out of gw-b", far("lan_tx_frames"), moved["gw-b lan0 tx packets"]),
            ("from gw-b to host-b", moved["gw-b lan0 tx packets"], got["received"]),
        ):
            self.assertEqual(before, after, what)

    def check_absence(self, sent, got, near, far):
        """Every missing frame has a reason."""
        outside = near("lan_rx_missed") + near.entrance_drops() + far.delivery_drops()
        lost = near("frames_entered") - far("frames_delivered")
        self.assertEqual(got["missing"], outside + lost, got)
        # A place that was passed over and not filled later is a lost frame. Flows share lanes, so
        # the lanes know of at least what is missing below each flow's newest frame.
        explained = far("frames_passed_over") - far("frames_recovered")
        self.assertLessEqual(got["missing_below_newest"], outside + explained, got)
        self.assertLessEqual(explained - lost, DISAGREEMENT_MAX * sent["sent"], got)

    def assert_close(self, what, inside, outside):
        self.assertGreater(outside, 0, what)
        off = abs(inside - outside)
        self.assertLessEqual(off, max(3, DISAGREEMENT_MAX * outside), (what, inside, outside))

    def links(self):
        """The kernel's counters of every port."""
        return {
            f"{node} {device} {way} {name}": count
            for node in NODES
            for device, ways in self.lab.link_counters(node).items()
            for way in ("rx", "tx")
            for name, count in ways[way].items()
        }

    @staticmethod
    def settle():
        """Longer than the path, every hold and the counters' own interval."""
        time.sleep(1)


class MangledJumbo(Mangled):
    """Frames up to 9000 bytes over a WAN of 1500."""

    size_max = 9014
    rate = 3000
    quick = 30_000
    lan_mtu = 9000

    def cross(self, placement):
        if Options.thorough or placement == PLACEMENTS[0]:
            super().cross(placement)


class Growth:
    """By how much a gateway's figures grew between two looks."""

    def __init__(self, before, after):
        self.before = before
        self.after = after

    def __call__(self, name):
        return counters.growth(self.before, self.after, name)

    def _drops(self, reasons):
        return counters.dropped(self.after, reasons) - counters.dropped(self.before, reasons)

    def everything(self):
        """All that moved, for the evidence of a failure."""
        return counters.all_that_moved(self.before, self.after)

    def entrance_drops(self):
        return self._drops(counters.REASONS_AT_ENTRANCE)

    def delivery_drops(self):
        return self._drops(counters.REASONS_AT_DELIVERY)


class EmulatorAgrees(LabTest):
    """The emulator's own counters, the kernel's and the gateways' tell one story."""

    path = wan.LOSSY

    def test_datagrams_sent_lost_and_received(self):
        before = self.wan_links()
        with self.lab.shardgate() as tunnel:
            Stream(self.lab, rate=8000, frames=20_000, flows=64, idle=1).finish()
            time.sleep(1)
            documents = [gateway.stats() for gateway in tunnel.both]
        moved = {name: count - before[name] for name, count in self.wan_links().items()}
        emulator = self.lab.set_path(wan.UNLIMITED)
        for way, (near, far) in (("left_to_right", "ab"), ("right_to_left", "ba")):
            counts = counters.emulated(emulator, way)
            self.assert_close(f"{way}, in", counts["received"], moved[f"gw-{near} tx"])
            self.assert_close(f"{way}, out", counts["sent"], moved[f"gw-{far} rx"])
            self.assertEqual(
                counts["received"] + counts["duplicated"] - counts["lost"], counts["sent"]
            )
        arrived = counters.figure(documents[1], "wan_rx_datagrams")
        self.assert_close("datagrams into gw-b", arrived, moved["gw-b rx"])

    assert_close = Mangled.assert_close

    def wan_links(self):
        return {
            f"{node} {way}": self.lab.link_counters(node)["wan0"][way]["packets"]
            for node in ("gw-a", "gw-b")
            for way in ("rx", "tx")
        }


if __name__ == "__main__":
    main()
