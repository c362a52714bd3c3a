#!/usr/bin/env python3
"""The programs that measure: they end with figures, go on where they were, and leave nothing."""

import io
import itertools
import json
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import types
import unittest
from unittest import mock

from support import (
    ROOT,
    Lab,
    LabTest,
    Options,
    counters,
    interruptible,
    judged,
    leftovers,
    machine,
    main,
    measure,
    run,
    run_again_what_was_robbed,
    stolen,
    thin,
    wan,
)

SCRIPTS = ROOT / "scripts"
STAMPED = (socket.SOL_SOCKET, thin.SO_TIMESTAMPNS)
TCP_SECONDS = 1
QUICK = ("--rounds", "1", "--seconds", str(TCP_SECONDS), "--no-hugepages")
FRAME_BYTES_MAX = 1514
REPORTS_PER_S_MAX = 500  # wire/SPEC.md, section 6


class Program(unittest.TestCase):
    def setUp(self):
        before = leftovers()
        self.addCleanup(lambda: self.assertEqual(leftovers(), before))
        folder = tempfile.TemporaryDirectory(prefix="shardgate-")
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name, "out.json")

    def command(self, name, *options):
        return [SCRIPTS / name, "--binary", Options.binary, *QUICK, *options]

    def document(self, name, *options):
        done = run(*self.command(name, "--json", *options), timeout=180)
        return json.loads(done.stdout), done.stderr

    def refuses(self, part, name, *options):
        done = run(*self.command(name, *options), check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, "")
        self.assertIn(part, done.stderr.strip().splitlines()[-1])


    def says_only_the_refusal(self, name):
        done = run(*self.command(name, "--set", "tunnel.repair=nope"), check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertIn('tunnel.repair: "nope" does not fit', done.stderr.splitlines()[-1])
        self.assertNotIn("round 1", done.stderr)


class Experiment(Program):
    def experiment(self, *options):
        grid = ("--paths", "loss_1", "--repair", "off", "--retransmit", "default")
        return self.document("experiment", "--out", self.out, "--pings", "20", *grid, *options)

    @judged
    def test_measures_refuses_and_goes_on(self):
        wrong = "fixed:soon"
        options = ("--hold", "5", "40", "--predictor", "default", wrong)
        document, said = self.experiment(*options)
        cells = document["cells"]
        self.assertEqual(len(cells), 4)
        for cell in cells:
            if cell["configuration"].get("predictor") == wrong:
                self.assertIn("tunnel.predictor", cell["refused"])
                self.assertNotIn("\n", cell["refused"])
                self.assertEqual(cell["rounds"], {})
            else:
                self.assertIsNone(cell["refused"])
                self.check(cell["rounds"]["1"])
        self.assertEqual(said.count("left out:"), 2, said)
        again, said = self.experiment("--hold", "5", "40")
        self.assertIn("0 of 2 measurements", said)
        self.assertEqual(again["cells"], cells)
        shown = run(*self.command("experiment", "--out", self.out, "--show")).stdout
        self.assertIn("goodput", shown)
        self.assertIn("refused:", shown)
        # A table holds what was measured alike.
        self.refuses("another seconds", "experiment", "--out", self.out, "--seconds", "2")

    def check(self, found):
        self.assertGreater(found["tcp"]["mbit_per_s"], 0)
        self.assertGreaterEqual(found["ping"]["median_ms"], 40)
        self.assertGreaterEqual(found["thin"]["p50_ms"], 20)
        self.assertLess(found["thin"]["p50_ms"], 200)
        self.assertEqual(len(found["thin_delays_ms"]), found["thin"]["received"])
        self.assertGreater(found["thin"]["received"], 0.8 * found["thin"]["sent"])
        self.assertGreaterEqual(found["queue"]["delay_ms"], 0)
        self.assertTrue(-0.01 < found["bytes_added"] < 0.3, found["bytes_added"])

    def test_wrong_input_is_one_line(self):
        self.refuses("--out", "experiment")
        self.refuses("invalid choice: 'nowhere'", "experiment", "--out", "x", "--paths", "nowhere")
        self.refuses("give another --out", "experiment", "--out", "/nowhere/x")
        self.refuses("nothing was measured", "experiment", "--out", self.out, "--show")
        self.out.write_text("[]")
        self.refuses("give another --out", "experiment", "--out", self.out)

    def test_interrupted_keeps_what_it_has(self):
        command = self.command("experiment", "--out", self.out, "--hold", "1", "2", "3", "4", "5")
        child = interruptible(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(child.stderr.close)
        deadline = time.monotonic() + 60
        while not self.measured() and time.monotonic() < deadline:
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        self.assertEqual(child.wait(30), 130, child.stderr.read().decode())
        self.assertTrue(self.measured())

    def measured(self):
        if not self.out.exists():
            return 0
        return sum(len(cell["rounds"]) for cell in json.loads(self.out.read_text())["cells"])


class Fairness(Program):
    @judged
    def test_two_flows_at_one_bottleneck(self):
        document, _ = self.document("fairness", "--settle", "1", "--seconds", "2")
        (results,) = document["rounds"]
        self.assertEqual(list(results), ["plain", "wireguard-go", "shardgate"])
        for carrier, found in results.items():
            both = found["tunnelled"]["mbit_per_s"] + found["beside"]["mbit_per_s"]
            # They share 200 Mbit/s, and neither is shut out.
            self.assertTrue(100 < both < 200, (carrier, both))
            self.assertTrue(0.02 < found["share"] < 0.98, (carrier, found["share"]))
            self.assertGreater(found["queue"]["frames"], 1)

    def test_a_path_without_a_rate_is_refused(self):
        self.refuses("no bottleneck", "fairness", "--path", "unlimited")

    def test_wrong_figures_of_a_path_are_refused_by_range(self):
        for option, value, says in (
            ("--rate-mbit", "-3", "'-3' is not a number from 0.001 to 400000"),
            ("--rate-mbit", "fast", "'fast' is not a number"),
            ("--loss-percent", "101", "from 0 to 100"),
            ("--burst", "nan", "from 1 to 1000000"),
            ("--queue-frames", "1.5", "'1.5' is not a whole number"),
            ("--seed", "-1", "'-1' is not a whole number from 0"),
        ):
            self.refuses(f"argument {option}: ", "fairness", option, value)
            self.refuses(says, "fairness", option, value)

    def test_refused_settings_are_told_before_anything_is_measured(self):
        self.says_only_the_refusal("fairness")


class Compare(Program):
    def test_refused_settings_are_told_before_anything_is_measured(self):
        self.says_only_the_refusal("compare")

    def test_shares_of_the_own_clean_run(self):
        options = ("--paths", "clean", "burst_1", "unlimited", "--rivals", "plain", "inline")
        for setting in ("tunnel.repair=off", "tunnel.retransmit=false"):
            options += ("--set", setting)
        document, _ = self.document("compare", "--pings", "20", *options)
        clean, burst, other = (path["rivals"]["inline"] for path in document["paths"])
        speeds = [found["mbit_per_s"]["median"] for found in (clean, burst)]
        self.assertIsNone(clean["of_own_clean"])
        self.assertEqual(burst["of_own_clean"], speeds[1] / speeds[0])
        self.assertIsNone(other["of_own_clean"], "another rate and delay")
        (found,) = document["paths"][0]["rounds"]
        self.check_account(found["inline"])
        self.assertEqual(clean["bytes_added"], found["inline"]["bytes_added"])
        self.assertIsNone(document["paths"][0]["rivals"]["plain"]["bytes_added"])

    def test_a_robbed_measurement_is_made_again_and_the_least_robbed_kept(self):
        # Nobody's share is below nothing: every measurement counts as robbed.
        options = ("--paths", "unlimited", "--rivals", "plain", "--stolen-max", "-1")
        document, said = self.document("compare", "--pings", "1", *options)
        self.assertEqual(said.count("went to other machines: again"), 4, said)
        self.assertEqual(said.count("went to other machines: kept the least robbed"), 1, said)
        (found,) = document["paths"][0]["rounds"]
        share = document["paths"][0]["rivals"]["plain"]["stolen_share"]
        self.assertEqual(share, found["plain"]["stolen_share"])
        told = [float(line.split()[0]) for line in said.splitlines() if "went to" in line]
        self.assertEqual(round(100 * share, 1), min(told))

    def check_account(self, found):
        """Every byte that left the WAN ports has its cause; here shards, feedback and no more."""
        account, counted = found["wan_bytes"], found["counters"]
        for name in ("repeats", "repair", "tail_repair"):
            self.assertEqual(account[name], 0, account)
        outer = 42 * counted["feedback_sent"]
        self.assertEqual(account["feedback"], counted["feedback_bytes"] + outer)
        self.assertGreater(account["feedback"], 0)
        # A report when nothing came for 2 ms is the most frequent feedback there is.
        self.assertLess(counted["feedback_sent"], 2 * REPORTS_PER_S_MAX * (TCP_SECONDS + 3))
        # The rest is what the control threads sent, less what was counted and died before a port.
        died = sum(found["drops"].get(reason, 0) for reason in counters.REASONS_AT_WAN_EXIT)
        self.assertGreaterEqual(account["rest"], -FRAME_BYTES_MAX * died, found)
        self.assertLessEqual(account["rest"], FRAME_BYTES_MAX * found["control_frames"], found)
        added = account["feedback"] + account["rest"]
        self.assertAlmostEqual(found["bytes_added"], added / account["payload"])


class Profiles(unittest.TestCase):
    """The lab's idea of a path is the emulator's."""

    @judged
    def test_the_emulator_takes_a_profile_and_changes_of_it(self):
        path = wan.MEASURED["loss_1"]
        self.assertEqual((path.delay_ms, path.rate_mbit, path.loss_percent), (20, 200, 1))
        with Lab(path=path, hugepages="off", binary=Options.binary) as lab:
            for changed, low, high in ((path, 1, 100), (path.but(loss_percent=0), 0, 0)):
                lab.set_path(changed)
                with lab.plain() as target:
                    found = thin.Flow(lab, target, seconds=2, rate=1000).finish()
                self.assertGreaterEqual(found.quantile_ms(0), 20)
                self.assertTrue(low <= found.lost <= high, found.as_json())


class Judged(unittest.TestCase):
    """A check that fails each time, by what disturbed it."""

    def verdict(self, *, robbed, disturbed=None):
        with mock.patch("support.stolen", side_effect=robbed), mock.patch("time.sleep"):
            self.checked(disturbed)

    @judged
    def checked(self, disturbed):
        self.disturbances.append(disturbed)
        self.fail("as ever")

    def test_undisturbed_it_has_failed(self):
        with self.assertRaises(AssertionError):
            self.verdict(robbed=[None])
        self.assertEqual(self.attempt, 0)

    def test_disturbed_by_itself_each_time_it_has_failed(self):
        with self.assertRaises(AssertionError):
            self.verdict(robbed=["robbed", "robbed", "robbed", None], disturbed="late")
        self.assertEqual(self.attempt, 3)

    def test_robbed_each_time_nothing_is_known(self):
        with self.assertRaisesRegex(unittest.SkipTest, "inconclusive, robbed"):
            self.verdict(robbed=["robbed"] * 4)
        self.assertEqual(self.attempt, 3)


class Attempts(LabTest):
    """A judged test whose gateways are up when it fails: the next attempt starts its own."""

    path = None

    def test_gateways_end_with_the_attempt(self):
        # Whatever fails in the second has failed.
        robbed = ["robbed", None]
        with mock.patch("support.stolen", side_effect=robbed), mock.patch("time.sleep"):
            self.check_second_attempt()
        self.assertEqual(self.attempt, 1)

    @judged
    def check_second_attempt(self):
        tunnel = self.tunnel()
        self.assertEqual(self.attempt, 1)
        # It ends orderly only if it was the only one at its ports.
        tunnel.b.stop()


class Again(unittest.TestCase):
    """A file's tests, on a machine that is robbed."""

    def run_tests(self, *, robbed, fails):
        """Runs one test that fails so often; returns the ids that failed, and how often it ran."""
        runs = itertools.count(1)

        class Sample(unittest.TestCase):
            def test(self):
                self.assertGreater(next(runs), fails)

        module = types.ModuleType("sample")
        module.Sample = Sample
        Sample.__module__, Sample.__qualname__ = "sample", "Sample"
        suite = unittest.defaultTestLoader.loadTestsFromModule(module)
        with (
            mock.patch("support.stolen", side_effect=robbed),
            mock.patch("time.sleep"),
            mock.patch("sys.stderr", io.StringIO()),
        ):
            first, failed = run_again_what_was_robbed(suite, module)
        self.assertEqual(first.testsRun, 1)
        return failed, next(runs) - 1

    def test_what_passes_runs_once(self):
        self.assertEqual(self.run_tests(robbed=["robbed"], fails=0), ([], 1))

    def test_undisturbed_it_has_failed(self):
        self.assertEqual(self.run_tests(robbed=[None], fails=1), (["sample.Sample.test"], 1))

    def test_robbed_it_runs_again_and_passes(self):
        self.assertEqual(self.run_tests(robbed=["robbed"] * 3, fails=2), ([], 3))

    def test_robbed_and_then_not_it_has_failed(self):
        found = self.run_tests(robbed=["robbed", None], fails=9)
        self.assertEqual(found, (["sample.Sample.test"], 2))

    def test_robbed_each_time_it_has_failed(self):
        found = self.run_tests(robbed=["robbed"] * 4, fails=9)
        self.assertEqual(found, (["sample.Sample.test"], 4))


class Robbed(unittest.TestCase):
    """Whether a machine counts as robbed, of pieces of half a second."""

    def reason(self, shares, *, of_all=0.0):
        cpu, watch = machine.CpuTime(), machine.CpuWatch()
        watch.pieces.append((cpu.began_at - 1, 0.9))
        watch.pieces.extend((cpu.began_at + 0.5 * i, share) for i, share in enumerate(shares, 1))
        cpu.stolen_share = lambda: of_all
        with mock.patch("support._watch", watch):
            return stolen(cpu)

    def test_little_at_a_time_is_borne(self):
        self.assertIsNone(self.reason([0.01] * 60, of_all=0.01))

    def test_much_of_the_whole_is_not(self):
        self.assertIn("3 % of the CPU time", self.reason([0.03] * 60, of_all=0.03))

    def test_half_a_second_of_a_minute_is_not(self):
        self.assertIn("70 % of the CPU time of half", self.reason([0.0, 0.7] + [0.0] * 100))

    def test_the_watch_looks(self):
        cpu, watch = machine.CpuTime(), machine.CpuWatch()
        with (
            mock.patch.object(machine.CpuWatch, "PIECE_S", 0.01),
            mock.patch.object(machine.CpuTime, "stolen_share", lambda _: 0.5),
        ):
            watch.start()
            while len(watch.pieces) < 3:
                time.sleep(0.01)
        self.assertEqual(watch.worst_since(cpu), 0.5)


class Clocks:
    """Two clocks of which a reader now and then loses the CPU."""

    APART_NS = 1_700_000_000_000_000_000

    def __init__(self, pauses_ns):
        self.now_ns = 0
        # How long each look at a clock takes; the last goes on for ever.
        self.pauses_ns = list(pauses_ns)

    def monotonic_ns(self):
        self.now_ns += self.pauses_ns.pop(0) if len(self.pauses_ns) > 1 else self.pauses_ns[0]
        return self.now_ns

    def realtime_ns(self):
        return self.monotonic_ns() + self.APART_NS

    def arrival_ns(self, at_ns):
        """What thin says of a datagram that arrived at this time of the monotonic clock."""
        stamp = thin.TIMESPEC.pack(*divmod(at_ns + self.APART_NS, 1_000_000_000))
        ancillary = [(socket.SOL_SOCKET, 1, b"other"), (*STAMPED, stamp)]
        return thin.arrival_ns(ancillary, self.monotonic_ns, self.realtime_ns)


class Arrival(unittest.TestCase):
    """A receiver that loses the CPU while it reads two clocks measures the path all the same."""

    ARRIVED_NS = 123_456_789
    SETTLED = [1_000_000_000, 100]
    TICK_NS = 200

    def assert_right(self, clocks, *, within_ns=TICK_NS):
        self.assertAlmostEqual(clocks.arrival_ns(self.ARRIVED_NS), self.ARRIVED_NS, delta=within_ns)

    def test_undisturbed(self):
        self.assert_right(Clocks(self.SETTLED))

    def test_interrupted_at_every_read(self):
        for place in range(6):
            with self.subTest(place):
                pauses = [1_000_000_000, *[100] * place, 8_000_000, 100]
                self.assert_right(Clocks(pauses))

    def test_interrupted_time_and_again(self):
        for place in range(3):
            with self.subTest(place):
                interrupted = [100, 100, 100]
                interrupted[place] = 3_000_000
                self.assert_right(Clocks([1_000_000_000, *interrupted * 4, 100]))

    def test_a_slow_machine_is_right_within_what_a_read_takes(self):
        self.assert_right(Clocks([1_000_000_000, 40_000]), within_ns=40_000)

    def test_never_in_the_future(self):
        # The realtime clock was set back between the arrival and the look.
        clocks = Clocks([1_000, 100])
        self.assertLessEqual(clocks.arrival_ns(500_000_000), clocks.now_ns)

    def test_without_a_stamp_it_is_now(self):
        clocks = Clocks([1_000, 100])
        found = thin.arrival_ns([(1, 1, b"")], clocks.monotonic_ns, clocks.realtime_ns)
        self.assertEqual(found, 1_000)

    def test_the_kernels_stamp_is_taken(self):
        """A datagram that lay in the buffer for a while arrived when it came."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.setsockopt(*STAMPED, 1)
            receiver.bind(("127.0.0.1", 0))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                before = time.monotonic_ns()
                sender.sendto(b"x", receiver.getsockname())
                after = time.monotonic_ns()
            time.sleep(0.2)
            arrived = thin.arrival_ns(receiver.recvmsg(16, 64)[1])
        # Loopback delivers at once, or as soon as its own thread gets a CPU.
        self.assertGreaterEqual(arrived, before - thin.CLOCK_READ_NS)
        self.assertLess(arrived, after + 100_000_000)


class Thin(unittest.TestCase):
    """A thin flow sees what the emulator does."""

    @judged
    def test_delay_loss_and_duplicates(self):
        path = wan.Path(delay_ms=30, loss_percent=10, duplicate_percent=10)
        with Lab(path=path, hugepages="off", binary=Options.binary) as lab, lab.plain() as target:
            found = thin.Flow(lab, target, seconds=2, rate=1000).finish()
            self.assertTrue(0.05 < found.lost_share < 0.15, found.as_json())
            self.assertTrue(100 < found.duplicates < 260, found.as_json())
            self.assertEqual(found.reordered, 0)
            self.assertTrue(30 <= found.quantile_ms(0.5) < 32, found.as_json())
            lab.set_path(wan.Path(delay_ms=30, jitter_ms=5))
            found = thin.Flow(lab, target, seconds=2, rate=1000).finish()
            self.assertEqual((found.lost, found.duplicates), (0, 0))
            self.assertGreater(found.reordered, 100)
            # A normal distribution's 99 % are 2.33 deviations above its mean.
            self.assertTrue(39 < found.quantile_ms(0.99) < 45, found.as_json())

    @judged
    def test_a_saturating_flow_fills_the_queue(self):
        path = wan.Path(delay_ms=10, rate_mbit=20, queue_frames=100)
        with Lab(path=path, hugepages="off", binary=Options.binary) as lab, lab.plain() as target:
            flow = measure.TcpFlow(lab, target, seconds=6)
            time.sleep(2)
            found = thin.Flow(lab, target, seconds=3).finish(linger=0.5)
            flow.finish()
            report = lab.cut()
        # 100 full frames at 20 Mbit/s are 60 ms; a cubic flow keeps some of them there.
        queue = report["left_to_right"]["queue"]
        self.assertTrue(50 < queue["delay_ms"]["max"] < 62, queue["delay_ms"])
        self.assertTrue(15 < found.quantile_ms(0.5) < 75, found.as_json())
        self.assertGreater(queue["delay_ms"]["mean"], 5)


if __name__ == "__main__":
    main()
