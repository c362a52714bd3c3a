#!/usr/bin/env python3
"""What repair coding, asking again and the predictor do to a lossy path, from host to host.

Not among the tests of scripts/test as long as the features are not all there: it is run by hand,
`python3 ci/lab-tests/lossy.py`. (What is executable here is run by scripts/test.)
"""

from support import LabTest, Options, counters, main, measure, thin, wan

LOSS = wan.LOSSY.loss_percent / 100
RATE = 1000
SIZE = 1000
SECONDS, SECONDS_THOROUGH = 20, 120
# By how much a feature lowers the loss of frames, at least.
REPAIR_FACTOR = 5
ASKING_FACTOR = 20
# The loss that is seen without help, as a factor of the path's: frames of two shards lose more.
LOSS_SPREAD = (0.7, 1.6)
SHORT_HOLD_MS, LONG_HOLD_MS = 5, 80


class Lossy(LabTest):
    """200 Mbit/s, 20 ms each way, 1 % independent loss; a steady flow of UDP."""

    path = wan.LOSSY

    def steady(self, **tunnel):
        """A steady flow with these settings; returns its delays, and what the streams counted."""
        settings = self.settings(**tunnel)
        # The same losses for everybody.
        self.lab.set_path(self.path)
        seconds = SECONDS_THOROUGH if Options.thorough else SECONDS
        with self.lab.shardgate(settings=settings) as gateways:
            before = [gateway.stats() for gateway in gateways.both]
            flow = thin.Flow(self.lab, gateways.target, seconds=seconds, rate=RATE, size=SIZE)
            delays = flow.finish(linger=2)
            after = [gateway.stats() for gateway in gateways.both]
        self.assertEqual(delays.duplicates, 0)
        return delays, counters.growth_of_streams(before, after)

    def bare(self):
        delays, _ = self.steady(retransmit=False, repair="off")
        return delays

    def assert_counted(self, counted, name):
        self.assertIsNotNone(counted[name], f"no counter {name}: {counted}")
        self.assertGreater(counted[name], 0, name)

    def assert_lowered(self, delays, bare, factor):
        self.assertGreater(bare.lost, 0, "the path loses nothing: nothing is shown")
        self.assertLessEqual(delays.lost_share, bare.lost_share / factor, delays.as_json())

    def test_without_help_the_loss_is_the_paths(self):
        bare = self.bare()
        low, high = (LOSS * factor for factor in LOSS_SPREAD)
        self.assertTrue(low <= bare.lost_share <= high, bare.as_json())

    def test_repair_alone(self):
        delays, counted = self.steady(retransmit=False, repair="1/8")
        self.assert_counted(counted, "repair_sent")
        self.assert_counted(counted, "shards_rebuilt")
        self.assertFalse(counted["repeats_sent"], "it was told not to repeat")
        self.assert_lowered(delays, self.bare(), REPAIR_FACTOR)

    def test_asking_alone(self):
        delays, counted = self.steady(retransmit=True, repair="off")
        for name in ("shards_asked", "repeats_sent", "feedback_sent"):
            self.assert_counted(counted, name)
        self.assertFalse(counted["repair_sent"], "it was told not to code")
        self.assert_lowered(delays, self.bare(), ASKING_FACTOR)

    def test_queue_control_signals_under_load(self):
        settings = self.settings(queue_control=True)
        self.lab.set_path(wan.CLEAN)
        with self.lab.shardgate(settings=settings) as gateways:
            before = [gateway.stats() for gateway in gateways.both]
            measure.tcp_goodput(self.lab, gateways.target, seconds=8)
            after = [gateway.stats() for gateway in gateways.both]
        self.assert_counted(counters.growth_of_streams(before, after), "queue_signals")

    def test_the_hold_is_seen_by_a_thin_flow(self):
        """A lost frame holds those behind it in its lane for as long as the predictor says."""
        held = {}
        for hold_ms in (SHORT_HOLD_MS, LONG_HOLD_MS):
            delays, _ = self.steady(
                retransmit=False, repair="off", predictor=f"fixed:{hold_ms}ms",
                bulk_hold_ms=hold_ms,
            )  # fmt: skip
            # The frame behind a lost one comes a millisecond later and waits out the hold; one in
            # a hundred is lost, so that far more than one in a hundred waits.
            held[hold_ms] = delays.quantile_ms(0.99) - self.path.delay_ms
        self.assertGreater(held[LONG_HOLD_MS], LONG_HOLD_MS / 2, held)
        self.assertLess(held[SHORT_HOLD_MS], 3 * SHORT_HOLD_MS, held)
        self.assertGreater(held[LONG_HOLD_MS], 3 * held[SHORT_HOLD_MS], held)


if __name__ == "__main__":
    main()
