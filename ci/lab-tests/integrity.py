#!/usr/bin/env python3
"""Integrity through a bad WAN, judged by hashes at the hosts.

A stream of numbered, hashed frames crosses reordering, duplication, 1 % corruption and 1 % loss.
Nothing wrong may be delivered and nothing twice; order holds inside a flow except for stragglers
that the gateways count; every missing frame has a reason; and what the gateways counted agrees
with the kernel's and the emulator's counters. `--thorough` sends a million frames.
"""

import time

from support import PLACEMENTS, LabTest, Options, Stream, counters, main, wan

DISAGREEMENT_MAX = 0.001
QUICK, THOROUGH = 100_000, 1_000_000
RATE = 15_000
FLOWS = 256


class Mangled(LabTest):
    path = wan.MANGLED
    size_max = 1514
    rate = RATE
    lan_mtu = 1500

    def test_nothing_wrong_nothing_twice_nothing_unexplained(self):
        for placement in PLACEMENTS:
            with self.subTest(placement):
                self.cross(placement)

    def cross(self, placement):
        # The million goes through one placement; the other shows that it is no different.
        thorough = Options.thorough and placement == PLACEMENTS[0]
        with self.lab.shardgate(placement=placement) as tunnel:
            # A lane begins with the first frame that arrives, so what is lost before it is unknown
            # to the far end: let every lane begin.
            Stream(
                self.lab, rate=self.rate, frames=20 * FLOWS, flows=FLOWS, size_max=128, seed=2,
                idle=1,
            ).finish()  # fmt: skip
            self.settle()
            before = [gateway.stats() for gateway in tunnel.both]
            links = self.links()
            stream = Stream(
                self.lab, rate=self.rate, frames=THOROUGH if thorough else QUICK, flows=FLOWS,
                size_max=self.size_max,
            )  # fmt: skip
            sent, got = stream.finish()
            self.settle()
            after = [gateway.stats() for gateway in tunnel.both]
            moved = {name: self.links()[name] - count for name, count in links.items()}
        self.assertEqual(got["not_read"], 0, "the judge itself was too slow")
        for figure in ("wrong", "duplicates", "foreign", "impossible"):
            self.assertEqual(got[figure], 0, got)
        grown = [Growth(*pair) for pair in zip(before, after, strict=True)]
        self.check_order_and_absence(sent, got, *grown)
        self.check_outside(sent, got, moved, *grown)

    def check_order_and_absence(self, sent, got, near, far):
        self.assertLessEqual(got["out_of_order"], far("frames_straggled"), got)
        # What never entered a shard died at the near end by reason, or was missed by its port.
        entered = near("lan_rx_frames") - near.entrance_drops()
        unseen = sent["sent"] - near("lan_rx_frames")
        self.assertLessEqual(unseen, near("lan_rx_missed"), "frames that no one counted")
        lost = entered - far("frames_delivered")
        # Hosts send a frame of their own now and then, so more may have entered than was sent.
        below = got["missing_below_newest"] - max(0, sent["sent"] - entered)
        # A place that was passed over and not filled later is a lost frame. Flows share
        # lanes, so the lanes know of at least what is missing below each flow's newest frame.
        explained = far("frames_passed_over") - far("frames_recovered") + far.delivery_drops()
        self.assertLessEqual(below, explained, (got, lost, counters.drops(far.after)))
        surplus = explained - lost
        self.assertLessEqual(surplus, DISAGREEMENT_MAX * sent["sent"], (got, lost))

    def check_outside(self, sent, got, moved, near, far):
        """The gateways' counters beside the kernel's and the hosts'."""
        taken = near("lan_rx_frames") + near("lan_rx_missed")
        arrived = far("wan_rx_datagrams") + far("wan_rx_missed")
        for what, inside, outside in (
            ("frames into gw-a", taken, moved["gw-a lan0 rx"]),
            ("frames out of gw-b", far("lan_tx_frames"), moved["gw-b lan0 tx"]),
            ("frames to host-b", far("lan_tx_frames"), got["received"]),
            ("frames from host-a", taken, sent["sent"]),
            ("datagrams out of gw-a", near("wan_tx_datagrams"), moved["gw-a wan0 tx"]),
            ("datagrams into gw-b", arrived, moved["gw-b wan0 rx"]),
        ):
            self.assert_close(what, inside, outside)

    def assert_close(self, what, inside, outside):
        self.assertGreater(outside, 0, what)
        off = abs(inside - outside)
        self.assertLessEqual(off, max(3, DISAGREEMENT_MAX * outside), (what, inside, outside))

    def links(self):
        return {
            f"{node} {device} {way}": self.lab.link_counters(node, device)[way]["packets"]
            for node in ("gw-a", "gw-b")
            for device in ("lan0", "wan0")
            for way in ("rx", "tx")
        }

    @staticmethod
    def settle():
        """Longer than the path, every hold and the counters' own interval."""
        time.sleep(1)


class MangledJumbo(Mangled):
    """Frames up to 9000 bytes over a WAN of 1500."""

    size_max = 9014
    rate = 3000
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
        return counters.figure(self.after, name) - counters.figure(self.before, name)

    def _drops(self, reasons):
        return counters.dropped(self.after, reasons) - counters.dropped(self.before, reasons)

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
            Stream(self.lab, rate=5000, frames=20_000, flows=64).finish()
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
            f"{node} {way}": self.lab.link_counters(node, "wan0")[way]["packets"]
            for node in ("gw-a", "gw-b")
            for way in ("rx", "tx")
        }


if __name__ == "__main__":
    main()
