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
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from fnmatch import fnmatch

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

# What the tests need of the lab; they import it from here, since here the path is set.
from labkit import counters, machine, measure, registry, thin, wan  # noqa: E402, F401
from labkit.gateway import (  # noqa: E402, F401
    PLACEMENTS,
    Gateway,
    make_keys,
    make_preshared_key,
)
from labkit.lab import Lab, default_binary  # noqa: E402
from labkit.process import (  # noqa: E402, F401
    LabError,
    end_all,
    identity,
    is_running,
    run,
    say,
    socket_within,
    stat_field,
)
from labkit.registry import NODES  # noqa: E402, F401

SUMMARY = "summary:"
# How often something is measured before a busy machine counts as a failure.
ATTEMPTS = 4
# How the reason begins if a hypervisor disturbed every one of them.
INCONCLUSIVE = "inconclusive"
# A share of the CPU time: a stall of 50 ms or two in a run of some seconds.
STOLEN_MAX = 0.02
# Of half a second: all CPUs gone for 100 ms, which many tests do not mean to bear.
STOLEN_AT_ONCE_MAX = 0.2
# EAL's folders of a lab's gateways and emulators; the tests of DPDK have others.
LAB_RUNTIME = re.compile(r"/run/dpdk/shardgate-(emulate-|[a-z][a-z0-9-]*-gw-)")


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
        """Two gateways until the test ends, or an attempt of it (see `judged`)."""
        gateways = self.lab.shardgate(**options)
        attempt = getattr(self, "during_attempt", None)
        return attempt.enter_context(gateways) if attempt else self.enterContext(gateways)

    def in_each_placement(self, check, **tunnel):
        """Calls `check(tunnel, placement)` with gateways of each placement, with these settings."""
        settings = self.settings(**tunnel)
        for placement in PLACEMENTS:
            with (
                self.subTest(placement),
                self.lab.shardgate(placement=placement, settings=settings) as gateways,
            ):
                check(gateways, placement)


def judged(check):
    """Decorates a check of a test: what fails while this machine is disturbed is done once more.

    What passes has passed; what fails undisturbed has failed, and so has what fails every time. If it
    was CPU time stolen from this machine each time, nothing is known: such a check is skipped, and
    the summary says so. A check notes in `test.disturbances` what it knows of; stolen CPU time is
    seen here.
    """

    @functools.wraps(check)
    def again(test, *args, **kwargs):
        robbed_each_time = True
        for attempt in range(ATTEMPTS):
            cpu = machine.CpuTime()
            test.attempt, test.disturbances = attempt, []
            try:
                # The next attempt needs what this one has in use.
                with contextlib.ExitStack() as test.during_attempt:
                    return check(test, *args, **kwargs)
            except (AssertionError, LabError) as error:
                robbed = stolen(cpu)
                robbed_each_time = robbed_each_time and bool(robbed)
                reason = next(filter(None, [*test.disturbances, robbed]), None)
                if not reason:
                    raise
                if attempt + 1 == ATTEMPTS:
                    if robbed_each_time:
                        raise unittest.SkipTest(f"{INCONCLUSIVE}, {robbed}") from error
                    raise
                say(f"failed while {reason}, so once more: {str(error)[:200]}")
            finally:
                test.during_attempt = None
            # Such work comes in bursts.
            time.sleep(2**attempt)
        return None

    again.is_judged = True
    return again


def stolen(cpu):
    """That too much was stolen since `cpu`, as a disturbance; or None."""
    share, worst = cpu.stolen_share(), _watch.worst_since(cpu)
    if share > STOLEN_MAX:
        return f"{100 * share:.0f} % of the CPU time went to other machines"
    if worst > STOLEN_AT_ONCE_MAX:
        return f"{100 * worst:.0f} % of the CPU time of half a second went to other machines"
    return None


def wait_for(test, what, condition, *, timeout=5.0):
    """Waits until a condition holds; returns how long that took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout:
            test.fail(f"not {what} after {timeout:g} s")
        time.sleep(0.02)
    return time.monotonic() - started


def leftovers():
    """Everything that labs of this process and its children could leave on the machine.

    Labs that others have in use may come and go meanwhile: what is theirs is not in it. What the
    machine was before all labs is what counts of it as long as there are any.
    """
    with machine.record() as record:
        others = [name for name in registry.labs() if _is_in_use_by_others(name)]
        theirs = {one for name in others for one in registry.namespaces(name)}
        files = {one for name in others for one in registry.read_state(name).files}
        idle = not registry.labs()
        return {
            "namespaces": sorted(set(_names("/run/netns")) - theirs),
            "labs": sorted(set(registry.labs()) - set(others)),
            "eal": [
                path
                for path in map("/run/dpdk/{}".format, _names("/run/dpdk"))
                if LAB_RUNTIME.match(path) and not any(fnmatch(path, one) for one in files)
            ],
            "machine": machine.settings() if idle else record.get("found"),
            "record": bool(record) and idle,
            "links": _names("/sys/class/net"),
        }


def _names(folder):
    return sorted(os.listdir(folder)) if os.path.exists(folder) else []


def _is_in_use_by_others(name):
    try:
        owner = registry.read_state(name).owner
    except LabError:
        return False
    if owner is None or not is_running(owner):
        return False
    # Up from the owner to whoever started it: is it this process?
    pid = owner[0]
    try:
        while pid > 1 and pid != os.getpid():
            pid = int(stat_field(pid, 3))
    except FileNotFoundError:
        return False
    return pid != os.getpid()


def interruptible(command, **options):
    """A child that listens to SIGINT even if this process was told to ignore it."""
    default = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, preexec_fn=default, **options)


_watch = machine.CpuWatch()
_tool_folder = contextlib.ExitStack()


@functools.cache
def compiled(name, *sources):
    """A C program of ci/, with what such programs share, compiled once per run."""
    folder = _tool_folder.enter_context(tempfile.TemporaryDirectory(prefix="shardgate-"))
    path = pathlib.Path(folder, name)
    common = ROOT / "ci" / "common"
    sources = [common / "tool.c", *(ROOT / "ci" / name / source for source in sources)]
    strict = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
    run("cc", *strict, "-I", common, "-o", path, *sources)
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
    """Adds the logs of whatever ran to a failure, and knows who failed on a robbed machine."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._cpu = machine.CpuTime()
        # How far the CPU time of each test that ran was stolen, if it was.
        self.robbed = {}

    def startTest(self, test):
        self._cpu = machine.CpuTime()
        super().startTest(test)

    def stopTest(self, test):
        super().stopTest(test)
        reason = stolen(self._cpu)
        # A judged one was tried again already, and failed undisturbed.
        if reason and not hasattr(getattr(test, test._testMethodName), "is_judged"):
            self.robbed[test.id()] = reason

    def failed(self):
        """The tests that failed, each once: ids."""
        found = [getattr(test, "test_case", test) for test, _ in self.failures + self.errors]
        return list(dict.fromkeys(test.id() for test in found))

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


def run_again_what_was_robbed(suite, module):
    """Runs tests; those that failed while CPU time was stolen from this machine run once more.

    Processes that start, answer and end within seconds do not when nothing runs for seconds. What
    passes then has passed, what fails on an undisturbed machine or every time has failed. Returns
    the result of the first run, and the ids of those that failed for good.
    """
    runner = unittest.TextTestRunner(stream=sys.stderr, verbosity=2, resultclass=_Result)
    first = result = runner.run(suite)
    failed = result.failed()
    for attempt in range(1, ATTEMPTS):
        again = [name for name in failed if name in result.robbed]
        if not again:
            break
        for name in again:
            say(f"{name} failed while {result.robbed[name]}, so once more")
        time.sleep(2**attempt)
        names = [name.removeprefix(f"{module.__name__}.") for name in again]
        result = runner.run(unittest.defaultTestLoader.loadTestsFromNames(names, module))
        failed = [name for name in failed if name not in again] + result.failed()
    return first, failed


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
    # What an earlier run left would go during a test, and look like that test's doing.
    with machine.record() as record:
        registry.sweep(record)
    _watch.start()
    with _tool_folder:
        result, failed = run_again_what_was_robbed(suite, module)
    # This machine can make a lab, so there is no other reason to skip.
    inconclusive = {
        f"{getattr(test, 'test_case', test)}: {reason}"
        for test, reason in result.skipped
        if reason.startswith(INCONCLUSIVE)
    }
    refused = [reason for _, reason in result.skipped if not reason.startswith(INCONCLUSIVE)]
    failed = len(failed) + len(refused)
    passed = max(0, result.testsRun - failed - len(inconclusive))
    reasons = "; ".join(sorted(inconclusive)) or "none"
    print(f"{SUMMARY} {passed} passed, {failed} failed, {len(inconclusive)} skipped ({reasons})")
    sys.exit(1 if failed else 0)
