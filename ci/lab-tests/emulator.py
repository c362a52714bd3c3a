#!/usr/bin/env python3
"""The WAN emulator does what its profile says, judged from outside by ci/wan-check."""

import subprocess
import sys
import unittest

from support import ROOT, Options, judged, leftovers, main

WAN_CHECK = ROOT / "ci" / "wan-check" / "wan_check.py"


class Emulator(unittest.TestCase):
    def check(self, *options):
        done = subprocess.run(
            [sys.executable, "-B", WAN_CHECK, *options],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_judge_can_fail(self):
        self.check("--self-test")

    def test_every_statistic(self):
        for case in ("faults", "jitter", "rate", "mtu", "throughput"):
            with self.subTest(case):
                before = leftovers()
                self.judge(case)
                self.assertEqual(leftovers(), before)

    @judged
    def judge(self, case):
        self.check("--emulator", Options.binary, "--case", case)


if __name__ == "__main__":
    main()
