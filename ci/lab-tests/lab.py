#!/usr/bin/env python3
"""The lab without shardgate: it carries traffic, leaves nothing behind, and its judge sees."""

import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

from support import (
    ROOT,
    Lab,
    LabError,
    LabTest,
    Options,
    Stream,
    end_all,
    identity,
    integrity_tool,
    interruptible,
    leftovers,
    machine,
    main,
    measure,
    registry,
    run,
    wait_for,
)

LAB = ROOT / "scripts" / "lab"
BRIDGE = ("type", "bridge", "mcast_snooping", "0")


class Bridged(LabTest):
    """A bridge lies between the gateways."""

    path = None
    lan_mtu = 1500

    def test_plain_routing_carries_ping_and_tcp(self):
        with self.lab.plain() as target:
            ping = measure.ping(self.lab.namespace("host-a"), target, count=20)
            self.assertEqual(ping.lost_percent, 0)
            self.assertGreater(measure.tcp_goodput(self.lab, target, seconds=1).mbit_per_s, 1)

    def test_wireguard_carries_ping_and_tcp(self):
        with self.lab.wireguard() as target:
            ping = measure.ping(self.lab.namespace("host-a"), target, count=20)
            self.assertEqual(ping.lost_percent, 0)
            self.assertGreater(measure.tcp_goodput(self.lab, target, seconds=1).mbit_per_s, 1)

    def test_wireguard_that_does_not_answer_is_started_again(self):
        real, said = self.lab._reached, io.StringIO()
        answers = [LabError("no answer"), None]

        def second_time(target):
            error = answers.pop(0)
            if error:
                raise error
            return real(target)

        with (
            unittest.mock.patch.object(self.lab, "_reached", second_time),
            contextlib.redirect_stderr(said),
            self.lab.wireguard() as target,
        ):
            self.assertEqual(measure.ping(self.lab.namespace("host-a"), target).lost_percent, 0)
        self.assertIn("wireguard-go is started again: no answer", said.getvalue())
        self.assertIn("UAPI listener started", said.getvalue())

    def test_carriers_leave_the_gateways_without_addresses(self):
        for carrier in (self.lab.plain, self.lab.wireguard):
            with carrier():
                pass
            for node in ("gw-a", "gw-b"):
                addresses = self.lab.inside(node, "ip", "-4", "-o", "address").stdout
                self.assertEqual(addresses.count("inet"), 1, addresses)


class Judge(LabTest):
    """The integrity tool, with the gateways' LAN and WAN ports bridged by their kernels."""

    path = None
    lan_mtu = 9000
    plan = {"frames": 20_000, "flows": 64}

    def setUp(self):
        for node in ("gw-a", "gw-b"):
            # A bridge that snoops on multicast speaks itself.
            self.lab.inside(node, "ip", "link", "add", "br0", *BRIDGE)
            self.lab.inside(node, "sysctl", "-qw", "net.ipv6.conf.br0.disable_ipv6=1")
            self.lab.inside(node, "ip", "link", "set", "lan0", "master", "br0")
            self.addCleanup(self.lab.inside, node, "ip", "link", "del", "br0")
            self.lab.inside(node, "ip", "link", "set", "br0", "up")
            self.lab.inside(node, "ip", "link", "set", "wan0", "master", "br0")

    def test_sees_nothing_wrong_where_nothing_is(self):
        sent, got = Stream(self.lab, **self.plan).finish()
        self.assertEqual(sent["sent"], 20_000 + 3 * 64)
        self.assertEqual(got["received"], sent["sent"])
        for figure in ("wrong", "duplicates", "out_of_order", "foreign", "impossible", "missing"):
            self.assertEqual(got[figure], 0, got)

    def test_counts_exactly_the_harm_that_was_done(self):
        # A process in the place of gw-b's bridge: it loses, doubles, damages and delays.
        self.lab.inside("gw-b", "ip", "link", "set", "lan0", "nomaster")
        harm = self.lab.start(
            "harm", (integrity_tool(), "harm", "wan0", "lan0", "--every", "100"), "gw-b"
        )
        harm.wait_until(lambda: "ready" in harm.log.read_text(), "ready")
        sent, got = Stream(self.lab, **self.plan).finish()
        self.assertEqual(self.lab.stop(harm), 0)
        done = json.loads(harm.output())
        self.assertEqual(done["seen"], sent["sent"])
        for figure in ("lost", "doubled", "damaged", "delayed"):
            self.assertGreater(done[figure], 0)
        self.assertEqual(got["wrong"], done["damaged"])
        self.assertEqual(got["duplicates"], done["doubled"])
        self.assertEqual(got["out_of_order"], done["delayed"])
        self.assertEqual(got["missing"], done["lost"] + done["damaged"] + done["held_back"])


def keeper_command(name, *, carrier="wireguard", hugepages="off", then="time.sleep(60)"):
    """A program that makes a lab, says `up`, and does `then`."""
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "scripts")!r})
sys.dont_write_bytecode = True
from labkit.lab import Lab
with Lab(hugepages={hugepages!r}, name={name!r}) as lab, lab.{carrier}():
    print("up", flush=True)
    {then}
"""
    return [sys.executable, "-c", code]


def keeper(test, name="sgkilled", *, stderr=None, **plan):
    """Starts such a program."""
    child = interruptible(
        keeper_command(name, **plan), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=stderr, text=True,
    )  # fmt: skip
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe:
            test.addCleanup(pipe.close)
    return child


def kept(test, *plan, **more):
    """Such a program, as soon as its lab is up."""
    child = keeper(test, *plan, **more)
    test.assertEqual(child.stdout.readline().strip(), "up")
    return child


class NothingLeft(unittest.TestCase):
    """However a lab ends, the machine is as it was."""

    def setUp(self):
        self.before = leftovers()

    def tearDown(self):
        self.assertEqual(leftovers(), self.before)

    def test_after_an_ordinary_end_with_hugepages(self):
        with Lab(hugepages="on", binary=Options.binary) as lab, lab.wireguard():
            self.assertNotEqual(leftovers(), self.before)

    def test_after_a_failed_step(self):
        with self.assertRaises(ZeroDivisionError):
            with Lab(hugepages="off") as lab, lab.plain():
                print(1 // 0)

    def test_two_labs_at_once(self):
        with Lab(hugepages="on") as one, one.plain():
            with Lab(hugepages="on") as other, other.wireguard() as target:
                self.assertTrue(measure.reaches(other.namespace("host-a"), target))
            self.assertTrue(measure.reaches(one.namespace("host-a"), one.routed("b")))

    def test_after_a_signal(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number.name):
                child = kept(self)
                child.send_signal(number)
                child.wait(20)
                self.assertEqual(leftovers(), self.before)

    def test_after_a_failure_that_nobody_hears_of(self):
        # With something that runs, whose log is shown when the lab fails.
        fails = "lab.start('idle', ('sleep', '60'), 'host-a'); sys.stdin.read(); 1 // 0"
        child = kept(self, then=fails, stderr=subprocess.PIPE)
        child.stderr.close()
        child.stdin.close()
        self.assertEqual(child.wait(20), 1)

    def test_a_name_that_is_taken_stays_with_its_lab(self):
        with Lab(hugepages="off", name="sgtaken") as lab, lab.plain() as target:
            with self.assertRaisesRegex(LabError, "a lab named sgtaken exists"):
                Lab(hugepages="off", name="sgtaken").__enter__()
            self.assertTrue(measure.reaches(lab.namespace("host-a"), target))

    def test_a_namespace_of_nobodys_lab_stays(self):
        run("ip", "netns", "add", "sgtaken-wan")
        try:
            with self.assertRaisesRegex(LabError, "a namespace sgtaken-wan exists"):
                Lab(hugepages="off", name="sgtaken").__enter__()
            self.assertIn("sgtaken-wan", leftovers()["namespaces"])
        finally:
            run("ip", "netns", "del", "sgtaken-wan")


class Stale(unittest.TestCase):
    """A lab whose owner was killed is swept away by the next one; any other lab is not."""

    def setUp(self):
        self.before = leftovers()
        self.addCleanup(lambda: self.assertEqual(leftovers(), self.before))

    def killed(self, name="sgkilled", *, hugepages="off"):
        """Leaves a lab without an owner; returns the owner's pid."""
        child = kept(self, name, hugepages=hugepages)
        child.kill()
        child.wait(20)
        self.assertIn(name, leftovers()["labs"])
        return child.pid

    def test_the_next_lab_sweeps_it_away(self):
        owner = self.killed()
        listed = run(LAB, "list").stdout
        self.assertRegex(listed, rf"(?m)^sgkilled +its owner, process {owner}, is dead: ")
        with contextlib.redirect_stderr(io.StringIO()) as heard, Lab(hugepages="off"):
            pass
        line = f"lab sgkilled: taken down, as its owner, process {owner}, is dead"
        self.assertEqual(
            [one for one in heard.getvalue().splitlines() if "sgkilled" in one], [line]
        )

    def test_down_stale_sweeps_it_away(self):
        self.killed()
        self.assertEqual(run(LAB, "down", "--stale").stderr.count("lab sgkilled: taken down"), 1)

    def test_what_the_dead_lab_did_to_the_machine_is_undone(self):
        """The next lab must not take the dead one's hugepages for what it found."""
        with Lab(hugepages="off"):
            self.killed(hugepages="on")
            with Lab(hugepages="off"):
                self.assertNotIn("sgkilled", registry.labs())

    def test_labs_that_start_at_once_sweep_it_away_once(self):
        self.killed()
        children = [
            keeper(self, f"sgnext{at}", carrier="plain", stderr=subprocess.PIPE) for at in range(4)
        ]
        for child in children:
            self.assertEqual(child.stdout.readline().strip(), "up")
        for child in children:
            child.terminate()
        heard = [child.communicate(timeout=30)[1] for child in children]
        self.assertEqual(sum(text.count("lab sgkilled: taken down") for text in heard), 1, heard)

    def test_labs_with_an_owner_and_labs_left_up_stay(self):
        child = kept(self, "sgowned")
        run(LAB, "up", "--bridge", "--carrier", "plain", "--no-hugepages", "--name", "sgkept")
        self.addCleanup(run, LAB, "down", "sgkept")
        with Lab(hugepages="off", name="sgnext"):
            listed = run(LAB, "list").stdout
        self.assertRegex(listed, rf"(?m)^sgowned +of process {child.pid}$")
        self.assertRegex(listed, r"(?m)^sgkept +left up on purpose$")
        for name in ("sgowned", "sgkept"):
            self.assertTrue(measure.reaches(f"{name}-host-a", Lab.routed("b")), name)
        child.terminate()
        child.wait(20)

    def test_who_is_not_there_is_not_entered(self):
        with Lab(hugepages="off", name="sgentered"):
            for name, node, says in (
                ("nope", "host-a", "no lab named nope; scripts/lab list"),
                ("sgentered", "plain-a", "lab sgentered has no plain-a"),
            ):
                done = run(LAB, "enter", name, node, check=False)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(says, done.stderr.splitlines()[-1])
            self.assertEqual(run(LAB, "enter", "sgentered", "host-a", "true").returncode, 0)

    def test_damaged_states_are_named_and_stop_nothing(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="shardgate-")))
        canary = folder / "canary"
        canary.write_text("sings")
        hostile = {"owner": [1 << 22, 1], "files": [str(canary)]}
        states = {
            "sgbad0": None,
            "sgbad1": b'{"owner": [12, 3',
            "sgbad2": b"[]",
            "sgbad3": json.dumps(hostile).encode(),
            "sgbad4": b'{"owner": [true, "x"], "files": []}',
            "sgbad5": b"[" * 20_000,
            "sgbad6": b"0" * 100_000,
            "sgbad7": b'{"owner": null, "files": ["/run/dpdk/shardgate-emulate-../../x"]}',
            "sgbad8": b"\xff\x00",
            "sgbad9": os.mkfifo,
        }
        # After them in the list: none of them may stop the sweep.
        self.killed("sgzkilled")
        for name, state in states.items():
            directory = registry.LABS / name
            directory.mkdir()
            self.addCleanup(run, LAB, "down", name, check=False)
            if callable(state):
                state(directory / registry.STATE_FILE)
            elif state is not None:
                (directory / registry.STATE_FILE).write_bytes(state)
        link = registry.LABS / "sglink"
        link.symlink_to(folder)
        self.addCleanup(link.unlink)
        heard = run(LAB, "down", "--stale").stderr
        self.assertIn("lab sgzkilled: taken down", heard)
        for name in states:
            self.assertRegex(
                heard, rf"(?m)^lab {name}: left as it is: its state file .*down {name}"
            )
        self.assertEqual(heard.count("\nlab "), len(states), heard)
        for name in states:
            run(LAB, "down", name)
        self.assertEqual(canary.read_text(), "sings")

    def test_a_damaged_record_of_the_machine_is_named_and_stops_nothing(self):
        for found in (
            "",
            '{"found": {"backlog": "all"}}',
            "[" * 20_000,
            '{"found": {"backlog": -1}}',
        ):
            with self.subTest(found[:20]):
                with machine.record() as record:
                    record["found"] = None
                machine.RECORD.write_text(found)
                with contextlib.redirect_stderr(io.StringIO()) as heard, Lab(hugepages="off"):
                    pass
                self.assertEqual(heard.getvalue().count("machine.json: damaged"), 1)

    def test_comparing_leaves_other_peoples_labs_out(self):
        """A lab that somebody else has in use may come and go during a test."""
        said = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()), "said")
        # Its parent ends at once, so that it is no descendant of this process.
        shell = ("sh", "-c", '"$@" >"$0" 2>&1 & echo $!', said, *keeper_command("sgother"))
        owner = identity(int(run(*shell).stdout))
        self.addCleanup(end_all, [owner])
        wait_for(self, "up", lambda: said.read_text() == "up\n", timeout=20)
        self.assertIn("sgother", registry.labs())
        self.assertEqual(leftovers(), self.before)
        with Lab(hugepages="on", name="sgnext"):
            self.assertNotEqual(leftovers(), self.before)
        self.assertEqual(leftovers(), self.before)
        end_all([owner])
        self.assertNotIn("sgother", registry.labs())


if __name__ == "__main__":
    main()
