#!/usr/bin/env python3
"""The demo, twice in a row, and once kept: it works, and it leaves nothing behind."""

import json
import signal
import subprocess
import time
import unittest

from support import ROOT, Options, interruptible, leftovers, main, run

DEMO = ROOT / "scripts" / "demo"
SHORT = ("--seconds", "1", "--pings", "20")
CARRIERS = ["no tunnel", "wireguard-go", "shardgate"]


class Demo(unittest.TestCase):
    def setUp(self):
        self.before = leftovers()
        self.addCleanup(lambda: self.assertEqual(leftovers(), self.before))

    def command(self, *options):
        return [DEMO, "--binary", Options.binary, *SHORT, *options]

    def test_twice_in_a_row_the_second_kept(self):
        report = json.loads(run(*self.command("--json", "--no-hugepages"), timeout=180).stdout)
        self.assertEqual([path["name"] for path in report["paths"]], ["clean", "lossy"])
        for path in report["paths"]:
            self.assertEqual([row["carrier"] for row in path["rows"]], CARRIERS)
            for row in path["rows"]:
                self.assertGreater(row["tcp"]["mbit_per_s"], 0, row)
                self.assertGreaterEqual(row["ping"]["median_ms"], 40, row)
        self.assertEqual(leftovers(), self.before)
        kept = self.command("--placement", "lcores", "--keep", "--name", "sgkept")
        text = run(*kept, timeout=180).stdout
        for word in (*CARRIERS, "machine", "DPDK", "gw-a", "gw-b", "shards sent"):
            self.assertIn(word, text)
        answer = run(ROOT / "scripts/lab", "enter", "sgkept", "host-a", "ping", "-c3", "10.80.0.2")
        self.assertIn("bytes from 10.80.0.2", answer.stdout)
        run(ROOT / "scripts/lab", "down", "sgkept")

    def test_wrong_arguments_are_told_before_anything_is_built(self):
        # Where cargo would be, something that fails.
        builds = ("env", "CARGO=false", "SHARDGATE=")
        for options, says in (
            (("--seconds", "0"), "argument --seconds"),
            (("--frobnicate",), "unrecognized arguments: --frobnicate"),
        ):
            done = run(*builds, DEMO, *options, check=False)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(says, done.stderr.splitlines()[-1])
        # Who names a program by $SHARDGATE wants no other.
        named = (*builds, "SHARDGATE=/nowhere/shardgate")
        done = run(*named, DEMO, *SHORT, "--no-hugepages", check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("/nowhere/shardgate is missing", done.stderr)
        self.assertNotIn("building", done.stderr)

    def test_settings_that_are_refused_are_told_before_anything_is_measured(self):
        command = self.command("--no-hugepages", "--set", "tunnel.repair=nope")
        done = run(*command, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn('tunnel.repair: "nope" does not fit', done.stderr.splitlines()[-1])
        self.assertNotIn("measuring", done.stderr)

    def test_interrupted(self):
        command = self.command("--no-hugepages")
        with interruptible(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as child:
            said = []
            for line in child.stderr:
                said.append(line)
                if "shardgate" in line:
                    break
            # The gateways are up by then, and something is measured.
            time.sleep(2)
            child.send_signal(signal.SIGINT)
            said.append(child.communicate(timeout=30)[1])
            self.assertEqual(child.returncode, 130, "".join(said))


if __name__ == "__main__":
    main()
