#!/usr/bin/env python3
"""The learned predictor in running gateways: what they record is what their counters say and what
`sim predict` reads, their judgement of it adds up, and what was learned survives a restart.
"""

import collections
import json
import stat
import struct
import time

from support import LabTest, Options, counters, judged, main, measure, run, thin, wan

# 200 Mbit/s, 20 ms each way; 1 % lost, and 5 % 2.5 to 7.5 ms late.
PATH = wan.REORDERED
# Frames a second, bytes: bulk.
RATE, SIZE = 2000, 1000
SECONDS, SECONDS_THOROUGH = 4, 60
RECORD_LEN = 16
# Number, sent, received, round trip, path and stream, kind.
RECORD = struct.Struct("!IIIHBB")
FIRST, REPEAT, REPAIR = range(3)
# What keeps an authentic, new shard from being placed.
NOT_PLACED = ("duplicate", "too_old", "shard_checksum")
# The record and the judge see of a path's losses and lateness what chance leaves of it.
SPREAD = (0.5, 2)
# Who says one half of everything (Brier).
COIN = 0.25
# What a line of the log about the file has.
LINE_OF_STATE = "tunnel.state_file"


def models(document):
    """The models of the peer's streams."""
    found = [
        stream["predictor"] for peer in document["peers"] for stream in peer["streams_in"]
    ]
    return [predictor["model"] for predictor in found]


def learned(document):
    return sum(model["learned"] for model in models(document))


class PredictorTest(LabTest):
    path = PATH

    def tunnel_with(self, **stats_and_state):
        """Gateways with the model, of which gw-b has files of its own."""
        tunnel = self.tunnel(settings=self.settings(predictor="model"))
        tunnel.b.stop()
        for name, value in stats_and_state.items():
            section = "stats" if name == "record_file" else "tunnel"
            tunnel.b.configuration[section][name] = value
            self.lab.directory.joinpath(value).unlink(missing_ok=True)
        self.start(tunnel)
        return tunnel

    def start(self, tunnel):
        tunnel.b.start()
        namespace = self.lab.namespace("host-a")
        self.assertTrue(measure.await_answer(namespace, tunnel.target, timeout=10))

    def send(self, tunnel):
        """A steady bulk flow from host-a to host-b."""
        seconds = SECONDS_THOROUGH if Options.thorough else SECONDS
        flow = thin.Flow(self.lab, tunnel.target, seconds=seconds, rate=RATE, size=SIZE)
        delays = flow.finish(linger=1.5)
        self.assertGreater(len(delays.delays_ms), 0.9 * delays.sent)
        return delays


class Recording(PredictorTest):
    @judged
    def test_the_record_is_what_the_counters_say_and_what_the_judge_reads(self):
        tunnel = self.tunnel_with(record_file="b.rec")
        self.send(tunnel)
        running = tunnel.b.stats()["record"]
        self.assertEqual(running["state"], "recording")
        tunnel.a.stop()
        # What is on the way arrives.
        time.sleep(0.2)
        last = tunnel.b.stop()
        record, file = last["record"], self.lab.directory / "b.rec"
        self.assertEqual((record["state"], record["dropped"]), ("complete", 0))
        self.assertGreaterEqual(record["recorded"], running["recorded"])
        self.assertEqual(file.stat().st_size, RECORD_LEN * (1 + record["recorded"]))
        found = list(RECORD.iter_unpack(file.read_bytes()[RECORD_LEN:]))
        self.check_counters(last, collections.Counter(kind for *_, kind in found))
        self.check_judge(file, found)

    def check_counters(self, last, kinds):
        """All that was recorded was placed, was repair, or was dropped by a name."""
        self.assertGreater(min(kinds[kind] for kind in (FIRST, REPEAT, REPAIR)), 0, kinds)
        self.assertEqual(kinds[REPAIR], counters.of_streams(last, "repairs"))
        placed = sum(
            stream["shards"] - stream["shards_rebuilt"]
            for peer in last["peers"]
            for stream in peer["streams_in"]
        )
        dropped = counters.dropped(last, NOT_PLACED)
        self.assertEqual(kinds[FIRST] + kinds[REPEAT], placed + dropped, (kinds, last["drops"]))

    def check_judge(self, file, found):
        """`sim predict` sees the shards and the losses that the file's numbers say."""
        options = ("--policy", "rack", "--seeds", 1, "--shards", 1_000_000, "--json")
        done = run(Options.binary, "sim", "predict", "--trace", file, *options, timeout=150)
        streams = collections.defaultdict(list)
        for number, _, _, _, lane, kind in found:
            streams[lane >> 3].append((number, kind))
        channels = json.loads(done.stdout)["channels"]
        self.assertEqual(len(channels), len(streams))
        for channel, (stream, arrivals) in zip(channels, sorted(streams.items()), strict=True):
            self.assertIn(f"stream {stream}", channel["name"])
            numbers = {number for number, _ in arrivals}
            missing = max(numbers) - min(numbers) + 1 - len(numbers)
            first = sum(kind == FIRST for _, kind in arrivals)
            self.assertEqual(channel["shards"], first + missing)
            lost = channel["lost_per_1000"] / 1000
            self.assertAlmostEqual(lost * channel["shards"], missing, delta=0.5)
            self.assert_about(missing / (len(numbers) + missing), PATH.loss_percent)
            self.assert_about(channel["late_per_1000"] / 1000, PATH.reorder_percent)

    def assert_about(self, share, percent):
        low, high = (percent / 100 * factor for factor in SPREAD)
        self.assertTrue(low < share < high, (share, percent))


class Judgement(PredictorTest):
    @judged
    def test_what_it_says_of_itself_adds_up(self):
        tunnel = self.tunnel_with()
        self.send(tunnel)
        document = tunnel.b.stats()
        (stream,) = document["peers"][0]["streams_in"]
        predictor = stream["predictor"]
        self.assertEqual((predictor["policy"], predictor["deciding"]), ("model", "model"))
        self.assertIsNone(predictor["fallback_reason"])
        model = predictor["model"]
        # Of each missing shard an arrival is predicted, and those that came are compared.
        holes = stream["holes"]
        self.assertGreater(holes, 100)
        self.assertGreater(model["expected"]["published"], holes / 2)
        expected = model["expected"]
        self.assertLessEqual(expected["published"], holes)
        self.assertGreater(expected["filled"], expected["published"] / 2)
        self.assertEqual(sum(bin["holes"] for bin in expected["ratio"]), expected["filled"])
        errors = expected["sooner"]["count"] + expected["later"]["count"]
        self.assertEqual(errors, expected["filled"])
        # Each fate is in one bin; what was predicted lies in the bin.
        fates = sum(bin["holes"] for bin in model["reliability"])
        self.assertEqual(fates, model["learned"])
        self.assertLessEqual(fates, holes)
        for bin in model["reliability"]:
            if bin["holes"]:
                self.assertTrue(bin["from"] <= bin["predicted"] <= bin["to"] + 1e-6, bin)
                self.assertTrue(0 <= bin["observed"] <= 1, bin)
        losses = sum(bin["holes"] * (bin["observed"] or 0) for bin in model["reliability"])
        self.assertAlmostEqual(losses, model["losses"], delta=0.5)
        self.assertLess(model["brier"], COIN)
        self.assertGreater(model["ask_delay_mean_ms"], 0)
        self.assertGreater(model["rack_ask_delay_mean_ms"], 0)
        self.assertEqual(model["late_asked_share"], model["late_asked"] / model["late"])
        # A person sees it in one line.
        text = self.lab.inside("gw-b", Options.binary, "stats").stdout
        (line,) = [line for line in text.split("\n\n") if line.startswith("predictor for")]
        self.assertIn(" model ", line)

    def test_a_policy_that_does_not_learn_has_no_figures(self):
        with self.lab.shardgate(settings=self.settings(predictor="rack")) as tunnel:
            found = tunnel.b.stats()["peers"][0]["streams_in"][0]["predictor"]
        expected = {"policy": "rack", "deciding": "rack", "fallback_reason": None, "model": None}
        self.assertEqual(found, expected)


class Restart(PredictorTest):
    @judged
    def test_what_was_learned_survives_a_restart(self):
        tunnel = self.tunnel_with(state_file="b.state")
        file = self.lab.directory / "b.state"
        self.assertEqual(tunnel.b.stats()["state"]["restored_streams"], 0)
        cold = learned(tunnel.b.stats())
        self.send(tunnel)
        last = tunnel.b.stop()
        self.assertGreater(learned(last), cold + 100)
        self.assertEqual(last["state"]["failures"], 0)
        self.assertGreater(last["state"]["saves"], 0)
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.start(tunnel)
        again = tunnel.b.stats()
        self.assertEqual(again["state"]["restored_streams"], 1)
        self.assertGreaterEqual(learned(again), learned(last))
        # The judgement is this run's own.
        fates = sum(bin["holes"] for bin in models(again)[0]["reliability"])
        self.assertEqual(fates, learned(again) - learned(last))

    @judged
    def test_a_file_of_no_use_is_a_cold_start_and_one_line(self):
        tunnel = self.tunnel_with(state_file="b.state")
        self.send(tunnel)
        tunnel.b.stop()
        file = self.lab.directory / "b.state"
        good = file.read_bytes()
        for name, spoil in (
            ("damaged", lambda: file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))),
            ("version", lambda: file.write_bytes(good[:15] + b"\x02" + good[16:])),
            ("no state file", lambda: file.write_bytes(b"something else")),
            ("too long", lambda: file.write_bytes(bytes(16 << 20))),
            ("not a regular file", lambda: (file.unlink(), file.mkdir())),
        ):
            with self.subTest(name):
                spoil()
                self.start(tunnel)
                document = tunnel.b.stats()
                lines = [
                    line
                    for line in tunnel.b.process.log.read_text().splitlines()
                    if LINE_OF_STATE in line
                ]
                self.assertEqual(len(lines), 1, lines)
                self.assertIn(name, lines[0])
                self.assertEqual(document["state"]["restored_streams"], 0)
                tunnel.b.stop()
        file.rmdir()


if __name__ == "__main__":
    main()
