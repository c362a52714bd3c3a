#!/usr/bin/env python3
"""What repair coding, asking again, the holds, the predictor and queue control do to a lossy path.

Two steady flows of UDP cross it from host to host, one that gateways find bulk and one that they
find interactive. Each setting is changed alone, and what the hosts see has to change with it.
"""

import dataclasses

from support import LabTest, Options, counters, judged, machine, main, measure, stolen, thin, wan

PATH = wan.LOSSY.but(loss_percent=2)
# Frames a second, bytes, UDP port. Interactive are flows of small frames, below 200 a second.
BULK = (2000, 1000, thin.PORT)
INTERACTIVE = (160, 160, thin.PORT + 1)
SECONDS, SECONDS_THOROUGH = 3, 60
# By how much a feature lowers the loss of frames, at least.
REPAIR_FACTOR = 5
ASKING_FACTOR = 20
# The loss that is seen without help, as a factor of the path's: frames of two shards lose more.
LOSS_SPREAD = (0.7, 1.6)
# Shorter than an answer takes, and longer than several; and how much later a slow predictor asks.
SHORT_HOLD_MS, LONG_HOLD_MS = 5, 250
ASKED_LATER_MS = 60
# So slow that one TCP flow fills its queue, whatever else this machine has to do.
BOTTLENECK = wan.CLEAN.but(rate_mbit=50)
QUEUE_CONTROL_SECONDS = 3


@dataclasses.dataclass
class Seen:
    """Of one run: the flows' delays, and what the gateways counted."""

    bulk: thin.Delays
    interactive: thin.Delays
    counted: dict
    # Frames that gw-a let go on purpose, or never saw: no path lost them.
    let_go: int
    # What else this machine did meanwhile, or None.
    disturbed: str | None

    @property
    def lost(self):
        """Frames of both flows that died between the gateways."""
        return self.bulk.lost + self.interactive.lost - self.let_go

    @property
    def lost_share(self):
        return self.lost / (self.bulk.sent + self.interactive.sent)

    def late_ms(self, share):
        """By how much so large a share of the bulk frames was later than the path, at most."""
        return self.bulk.quantile_ms(share) - PATH.delay_ms

    def __str__(self):
        flows = {name: getattr(self, name).as_json() for name in ("bulk", "interactive")}
        return f"{flows}, let go {self.let_go}, {self.counted}"


class Lossy(LabTest):
    """200 Mbit/s, 20 ms each way, 2 % independent loss."""

    path = PATH
    # Without any help; every other run differs from it in one respect.
    plain = {
        "retransmit": False,
        "repair": "off",
        "bulk_hold_ms": SHORT_HOLD_MS,
        "interactive_hold_ms": SHORT_HOLD_MS,
    }
    runs = {}

    def with_(self, **changes):
        """What is seen with the plain settings but for these; each combination is run once, and
        once more for a check that is made again, if it was disturbed."""
        key = tuple(sorted(changes.items()))
        attempt, seen = self.runs.get(key, (None, None))
        if not seen or (seen.disturbed and self.attempt and attempt is not self.disturbances):
            seen = self.run_with(self.plain | changes)
            self.runs[key] = (self.disturbances, seen)
        self.disturbances.append(seen.disturbed)
        return seen

    def run_with(self, tunnel):
        settings = self.settings(**tunnel)
        cpu = machine.CpuTime()
        # The same losses for everybody.
        self.lab.set_path(self.path)
        seconds = SECONDS_THOROUGH if Options.thorough else SECONDS
        with self.lab.shardgate(settings=settings) as gateways:
            before = gateways.stats()
            flows = [
                thin.Flow(
                    self.lab, gateways.target, seconds=seconds, rate=rate, size=size, port=port
                )
                for rate, size, port in (BULK, INTERACTIVE)
            ]
            delays = [flow.finish(linger=0.5) for flow in flows]
            after = gateways.stats()
        disturbed = counters.disturbance(self.lab.cut(), before, after) or stolen(cpu)
        for flow in delays:
            self.assertEqual(flow.duplicates, 0)
        let_go = counters.growth(before[0], after[0], "lan_rx_missed") + sum(
            counters.growth_of_drops(before[:1], after[:1]).get(reason, 0)
            for reason in counters.REASONS_AT_ENTRANCE
        )
        return Seen(*delays, counters.growth_of_streams(before, after), let_go, disturbed)

    def assert_counted(self, seen, *names):
        for name in names:
            self.assertIsNotNone(seen.counted[name], f"no counter {name}: {seen}")
            self.assertGreater(seen.counted[name], 0, f"{name}: {seen}")

    def assert_lowered(self, seen, factor):
        bare = self.with_()
        self.assertGreater(bare.lost, 0, "the path loses nothing: nothing is shown")
        self.assertLessEqual(seen.lost_share, bare.lost_share / factor, seen)

    @judged
    def test_without_help_the_loss_is_the_paths(self):
        bare = self.with_()
        low, high = (PATH.loss_percent / 100 * factor for factor in LOSS_SPREAD)
        self.assertTrue(low <= bare.lost_share <= high, bare)

    @judged
    def test_repair_alone(self):
        seen = self.with_(repair="1/8")
        self.assert_counted(seen, "repair_sent", "shards_rebuilt")
        self.assertFalse(seen.counted["repeats_sent"], "it was told not to repeat")
        self.assert_lowered(seen, REPAIR_FACTOR)

    @judged
    def test_asking_alone(self):
        seen = self.with_(retransmit=True, bulk_hold_ms=LONG_HOLD_MS)
        self.assert_counted(seen, "shards_asked", "repeats_sent", "feedback_sent")
        self.assertFalse(seen.counted["repair_sent"], "it was told not to code")
        self.assert_lowered(seen, ASKING_FACTOR)

    @judged
    def test_the_predictor_says_when_to_ask(self):
        patient = {"retransmit": True, "bulk_hold_ms": LONG_HOLD_MS}
        early = self.with_(**patient)
        late = self.with_(**patient, predictor=f"fixed:{ASKED_LATER_MS}ms")
        self.assert_counted(late, "shards_asked", "repeats_sent")
        # A lost frame comes a round trip after it was asked for. Those behind it wait for it, and
        # of these there are more than half.
        more = late.late_ms(0.5) - early.late_ms(0.5)
        self.assertGreater(more, ASKED_LATER_MS / 2, (str(early), str(late)))

    @judged
    def test_each_hold_keeps_the_order_of_its_own_flows(self):
        """What waits for a repeat leaves in order; what may not wait for so long overtakes it."""
        short = self.with_(retransmit=True)
        for held, other in (("bulk", "interactive"), ("interactive", "bulk")):
            long = self.with_(retransmit=True, **{f"{held}_hold_ms": LONG_HOLD_MS})
            overtaken = [getattr(seen, held).reordered for seen in (short, long)]
            self.assertGreater(overtaken[0], 0, short)
            self.assertLess(overtaken[1], overtaken[0] / 3, long)
            self.assertGreater(getattr(long, other).reordered, 0, long)
            if held == "bulk":
                # Far more than one frame in ten is behind one that is missing.
                more = long.late_ms(0.9) - short.late_ms(0.9)
                self.assertGreater(more, SHORT_HOLD_MS, (str(short), str(long)))

    @judged
    def test_queue_control_signals_under_load(self):
        signals = {switch: self.signals_with(queue_control=switch) for switch in (False, True)}
        self.assertEqual(signals[False], 0)
        self.assertGreater(signals[True], 0)

    def signals_with(self, **tunnel):
        """How often queue control spoke to a TCP flow at a bottleneck."""
        self.lab.set_path(BOTTLENECK)
        with self.lab.shardgate(settings=self.settings(**tunnel)) as gateways:
            before = gateways.stats()
            measure.tcp_goodput(self.lab, gateways.target, seconds=QUEUE_CONTROL_SECONDS)
            after = gateways.stats()
        self.disturbances.append(counters.disturbance(self.lab.cut(), before, after))
        return counters.growth_of_streams(before, after)["queue_signals"]


if __name__ == "__main__":
    main()
