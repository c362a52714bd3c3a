#!/usr/bin/env python3
"""The demo, twice in a row, and once kept: it works, and it leaves nothing behind."""

import json
import signal
import subprocess
import time
import unittest

from support import ROOT, Options, interruptible, leftovers, main, run

DEMO = ROOT / "scripts" / "demo"
CARRIERS = ["no tunnel", "wireguard-go", "shardgate"]


class Demo(unittest.TestCase):
    def setUp(self):
        self.before = leftovers()
        self.addCleanup(lambda: self.assertEqual(leftovers(), self.before))

    def demo(self, *options):
        command = [DEMO, "--binary", Options.binary, "--seconds", "2", *options]
        return run(*command, timeout=180).stdout

    def test_twice_in_a_row(self):
        report = json.loads(self.demo("--json", "--no-hugepages"))
        self.assertEqual([path["name"] for path in report["paths"]], ["clean", "lossy"])
        for path in report["paths"]:
            self.assertEqual([row["carrier"] for row in path["rows"]], CARRIERS)
            for row in path["rows"]:
                self.assertGreater(row["tcp"]["mbit_per_s"], 0, row)
                self.assertGreaterEqual(row["ping"]["median_ms"], 40, row)
        self.assertEqual(leftovers(), self.before)
        text = self.demo("--placement", "lcores")
        for word in (*CARRIERS, "machine", "DPDK", "gw-a", "gw-b", "shards sent"):
            self.assertIn(word, text)

    def test_kept_lab_stays_and_goes(self):
        text = self.demo("--keep", "--name", "sgkept", "--no-hugepages")
        self.assertIn("shardgate", text)
        answer = run(ROOT / "scripts/lab", "enter", "sgkept", "host-a", "ping", "-c3", "10.80.0.2")
        self.assertIn("bytes from 10.80.0.2", answer.stdout)
        run(ROOT / "scripts/lab", "down", "sgkept")

    def test_interrupted(self):
        command = [DEMO, "--binary", Options.binary, "--no-hugepages"]
        child = interruptible(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(child.stderr.close)
        time.sleep(8)
        child.send_signal(signal.SIGINT)
        self.assertEqual(child.wait(30), 130, child.stderr.read().decode())


if __name__ == "__main__":
    main()
