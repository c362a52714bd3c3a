"""What the namespace tests share: a lab per class, the integrity tool, and a summary line.

Each test file runs alone (`ci/lab-tests/frames.py`, `--help`), or all of them from scripts/test.
A machine that cannot make a lab skips them and says why; anything else that is missing fails.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

# What the tests need of the lab; they import it from here, since here the path is set.
from labkit import counters, measure, thin, wan  # noqa: E402, F401
from labkit.gateway import (  # noqa: E402, F401
    PLACEMENTS,
    Gateway,
    make_keys,
    make_preshared_key,
)
from labkit.lab import Lab, default_binary  # noqa: E402
from labkit.machine import BACKLOG, LABS, PAGE_COUNT  # noqa: E402
from labkit.process import run, socket_within  # noqa: E402, F401

SUMMARY = "summary:"


class Options:
    """What the command line said; tests read it."""

    hugepages = "off"
    thorough = False
    binary = default_binary()


def machine_lacks():
    """Why this machine cannot make a lab, or None."""
    if os.geteuid() != 0:
        return "not root"
    probe = (
        "ip link add shardgate0 type veth peer name shardgate1 && python3 -c 'import socket;"
        ' socket.socket(socket.AF_PACKET, socket.SOCK_RAW).bind(("shardgate0", 3))\''
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", probe], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return f"no namespaces, veth or packet sockets ({done.stderr.strip()})"
    return None


class LabTest(unittest.TestCase):
    """Tests that share one lab; a subclass says what lies between its gateways."""

    path = wan.UNLIMITED
    lan_mtu = 1500

    @classmethod
    def setUpClass(cls):
        cls.lab = cls.enterClassContext(
            Lab(
                path=cls.path,
                lan_mtu=cls.lan_mtu,
                hugepages=Options.hugepages,
                binary=Options.binary,
            )
        )

    def show_logs(self):
        self.lab.show_logs()

    def settings(self, **tunnel):
        """Settings of [tunnel]; fails with the program's own line if it refuses them."""
        found = [(("tunnel", key), value) for key, value in tunnel.items()]
        line = self.lab.refusal(settings=found)
        if line:
            self.fail(f"refused: {line}")
        return found

    def tunnel(self, **options):
        """Two gateways until the test ends."""
        return self.enterContext(self.lab.shardgate(**options))

    def in_each_placement(self, check, **tunnel):
        """Calls `check(tunnel, placement)` with gateways of each placement, with these settings."""
        settings = self.settings(**tunnel)
        for placement in PLACEMENTS:
            with (
                self.subTest(placement),
                self.lab.shardgate(placement=placement, settings=settings) as gateways,
            ):
                check(gateways, placement)

    def wait_for(self, what, condition, *, timeout=5.0):
        """Waits until a condition holds; returns how long that took."""
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > timeout:
                self.fail(f"not {what} after {timeout:g} s")
            time.sleep(0.02)
        return time.monotonic() - started


def leftovers():
    """Everything a lab could leave on the machine."""
    return {
        "namespaces": run("ip", "netns", "list").stdout.split(),
        "labs": sorted(path.name for path in LABS.glob("*")) if LABS.exists() else [],
        "eal": [path.name for path in pathlib.Path("/run/dpdk").glob("shardgate-sg*")],
        "backlog": BACKLOG.read_text(),
        "pages": PAGE_COUNT.read_text() if PAGE_COUNT.exists() else None,
        "mounts": pathlib.Path("/proc/mounts").read_text().count("hugetlbfs"),
        "links": sorted(os.listdir("/sys/class/net")),
    }


_tool_folder = contextlib.ExitStack()


@functools.cache
def compiled(name, *sources):
    """A C program of ci/, compiled once per run."""
    folder = _tool_folder.enter_context(tempfile.TemporaryDirectory(prefix="shardgate-"))
    path = pathlib.Path(folder, name)
    sources = [ROOT / "ci" / name / source for source in sources]
    run("cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", path, *sources)
    return path


def integrity_tool():
    """The sender and receiver of ci/integrity."""
    return compiled("integrity", "main.c", "frames.c")


def injector_tool():
    """What puts frames on a device at a rate."""
    return compiled("injector", "main.c")


class Stream:
    """Frames with hashes, in one direction."""

    def __init__(self, lab, sender="host-a", *, rate=20_000, idle=3, **plan):
        receiver = "host-b" if sender == "host-a" else "host-a"
        words = [word for name, value in plan.items() for word in (_flag(name), value)]
        tool = integrity_tool()
        self.lab = lab
        self.receiver = lab.start(
            f"receive-{receiver}", (tool, "receive", "lan0", "--idle", idle, *words), receiver
        )
        self.receiver.wait_until(lambda: "ready" in self.receiver.log.read_text(), "ready")
        self.sender = lab.start(
            f"send-{sender}", (tool, "send", "lan0", "--rate", rate, *words), sender
        )

    def finish(self, *, timeout=600):
        """Waits for both ends; returns (what was sent, what was received)."""
        both = (self.sender, self.receiver)
        return tuple(_report(self.lab, process, timeout) for process in both)

    def stop(self):
        """Stops sending at once, then reads both reports."""
        return tuple(
            json.loads(_stopped(self.lab, process)) for process in (self.sender, self.receiver)
        )


def _flag(name):
    return f"--{name.replace('_', '-')}"


def _report(lab, process, timeout):
    process.child.wait(timeout)
    return json.loads(_stopped(lab, process))


def _stopped(lab, process):
    if lab.stop(process) != 0:
        raise AssertionError(f"{process.name} failed:\n{process.tail()}")
    return process.output()


class _Result(unittest.TextTestResult):
    """Adds the logs of whatever ran to a failure."""

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._logs(test)

    def addError(self, test, err):
        super().addError(test, err)
        self._logs(test)

    @staticmethod
    def _logs(test):
        if hasattr(test, "show_logs"):
            test.show_logs()


def main():
    """Runs a file's tests; exit code 1 if one failed."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("tests", nargs="*", help="names of classes or Class.test (default: all)")
    parser.add_argument("--binary", type=pathlib.Path, default=Options.binary)
    parser.add_argument("--hugepages", choices=("auto", "on", "off"), default=Options.hugepages)
    parser.add_argument("--thorough", action="store_true", help="the full counts")
    arguments = parser.parse_args()
    Options.binary = arguments.binary
    Options.hugepages = arguments.hugepages
    Options.thorough = arguments.thorough
    loader = unittest.defaultTestLoader
    module = sys.modules["__main__"]
    suite = (
        loader.loadTestsFromNames(arguments.tests, module)
        if arguments.tests
        else loader.loadTestsFromModule(module)
    )
    count = suite.countTestCases()
    reason = machine_lacks()
    if reason:
        print(f"{SUMMARY} 0 passed, 0 failed, {count} skipped ({reason})")
        return
    with _tool_folder:
        result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2, resultclass=_Result).run(
            suite
        )
    # This machine can make a lab, so there is no reason to skip.
    failed = len(result.failures) + len(result.errors) + len(result.skipped)
    passed = max(0, result.testsRun - failed)
    print(f"{SUMMARY} {passed} passed, {failed} failed, 0 skipped (none)")
    sys.exit(1 if failed else 0)
