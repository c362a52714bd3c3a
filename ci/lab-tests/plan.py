#!/usr/bin/env python3
"""What a live gateway says of its plan while the path begins to lose and stops again: its file of
decisions, `GET /decisions` and `sim plan --replay` tell one story, in order and with its reasons.
"""

import datetime
import json
import time

from support import LabTest, Options, judged, main, run, thin, wait_for, wan

CLEAN = wan.CLEAN
LOSSY = CLEAN.but(loss_percent=2)
# Frames a second, bytes: bulk.
RATE, SIZE = 1000, 1000
CLEAN_SECONDS, LOSSY_SECONDS = 2, 4
# A row of the repair table a second, and patience if a fall was regretted.
BACK_SECONDS = 25
# What loss the sender may take this one for when it begins to repair: it has seen few by then.
LOSS_PPM = (2_000, 100_000)
OF_LOSSES = ("loss", "events")
FILE = "plan-a.jsonl"


def seconds(decision):
    """When, as `time.time` says it."""
    return datetime.datetime.fromisoformat(decision["time"]).timestamp()


def repaired(plan):
    return plan["repair"] is not None


class Plan(LabTest):
    """200 Mbit/s, 20 ms each way; 2 % lost for some seconds."""

    path = CLEAN

    def begin(self):
        """Gateways of which gw-a writes down its decisions."""
        if self.lab.path != CLEAN:
            self.lab.set_path(CLEAN)
        self.file = self.lab.directory / FILE
        self.file.unlink(missing_ok=True)
        tunnel = self.tunnel()
        tunnel.a.stop()
        tunnel.a.configuration["stats"]["decisions_file"] = FILE
        tunnel.a.start()
        self.await_path(tunnel)
        return tunnel

    def await_path(self, tunnel):
        """Until a probe of gw-a has come back over the path as it is now."""

        def echoes():
            return tunnel.a.stats()["peers"][0]["path"]["echoes"]

        before = echoes()
        wait_for(self, "probed", lambda: echoes() > before, timeout=10)

    def change_path(self, tunnel, path):
        """Between two flows, so that nothing of them is lost; returns when it was done."""
        self.lab.set_path(path)
        changed = time.time()
        self.await_path(tunnel)
        return changed

    def flow(self, tunnel, length):
        return thin.Flow(self.lab, tunnel.target, seconds=length, rate=RATE, size=SIZE)

    def stream(self, tunnel):
        return tunnel.a.stats()["peers"][0]["streams_out"][0]

    def lines(self):
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    @judged
    def test_a_loss_that_comes_and_goes_is_told_with_its_reason(self):
        tunnel = self.begin()
        self.flow(tunnel, CLEAN_SECONDS).finish(linger=0.2)
        lossy_at = self.change_path(tunnel, LOSSY)
        self.flow(tunnel, LOSSY_SECONDS).finish(linger=0.2)
        label = self.stream(tunnel)["plan"]["label"]
        self.assertIn(label, ("LOSSY", "BURSTY"))
        self.check_table(tunnel, label)
        clean_at = self.change_path(tunnel, CLEAN)
        flow = self.flow(tunnel, BACK_SECONDS)
        wait_for(
            self,
            "clean again",
            lambda: self.stream(tunnel)["plan"]["label"] == "CLEAN",
            timeout=BACK_SECONDS,
        )
        flow.stop()
        self.check_answer(tunnel)
        last = tunnel.a.stop()
        decisions = self.lines()
        self.check_story(decisions, lossy_at, clean_at)
        # None is lost on the way, and each can be made again.
        changes = last["peers"][0]["streams_out"][0]["plan_changes"]
        self.assertEqual(len(decisions), changes)
        status = {"state": "recording", "written": changes, "dropped": 0}
        self.assertEqual(last["decisions"], status)
        self.assertEqual([decision["number"] for decision in decisions], [*range(changes)])
        self.check_replay(self.file, changes)
        self.check_a_changed_input(decisions)

    def check_story(self, decisions, lossy_at, clean_at):
        first = decisions[0]
        self.assertEqual((first["from"]["n"], first["to"]["reason"]), (0, "start"))
        changes = [
            (seconds(it), it) for it in decisions if repaired(it["from"]) != repaired(it["to"])
        ]
        # With an outage or a queue in between it may have rested.
        begun_at, begun = changes[0]
        self.assertTrue(repaired(begun["to"]), begun)
        self.assertTrue(lossy_at - 1 < begun_at < clean_at, (lossy_at, begun_at, clean_at))
        self.assertIn(begun["to"]["reason"], OF_LOSSES)
        self.assertEqual(begun["from"]["label"], "CLEAN")
        self.assertIn(begun["to"]["label"], ("LOSSY", "BURSTY"))
        loss = begun["inputs"]["radio_loss_ppm"]
        self.assertTrue(LOSS_PPM[0] < loss["value"] < LOSS_PPM[1], loss)
        self.assertGreater(loss["count"], RATE)
        ended_at, ended = changes[-1]
        self.assertGreater(ended_at, clean_at)
        self.assertFalse(repaired(ended["to"]))
        self.assertIn(ended["to"]["reason"], OF_LOSSES)
        self.assertEqual(ended["to"]["label"], "CLEAN")
        # One row after the other, on the way down.
        self.assertEqual(ended["state"]["loss"]["at"], 1)
        times = [seconds(decision) for decision in decisions]
        self.assertEqual(times, sorted(times))

    def check_table(self, tunnel, label):
        """A person sees it in one line."""
        text = self.lab.inside("gw-a", Options.binary, "stats").stdout
        (block,) = [block for block in text.split("\n\n") if block.startswith("plan for")]
        line = block.splitlines()[1]
        self.assertIn(f" {label} ", line)
        self.assertRegex(line, r" 1/\d+ over \d+ ")

    def check_answer(self, tunnel):
        """The endpoint shows the end of what the file holds."""
        status, body = tunnel.a.get("/decisions")
        self.assertEqual(status, 200)
        answer = json.loads(body)
        self.assertEqual(answer["missed"], 0)
        shown, written = answer["decisions"], self.lines()
        self.assertGreater(len(shown), 3)
        at = shown[0]["number"]
        self.assertEqual(shown, written[at : at + len(shown)])
        saved = self.lab.directory / "answer.json"
        saved.write_bytes(body)
        self.check_replay(saved, len(shown))

    def check_replay(self, file, count):
        command = (Options.binary, "sim", "plan", "--replay", file)
        report = json.loads(run(*command, "--json").stdout)
        found = {name: report[name] for name in ("different", "unconnected", "missing", "streams")}
        self.assertEqual(found, {"different": 0, "unconnected": 0, "missing": 0, "streams": 1})
        self.assertEqual(len(report["decisions"]), count)
        self.assertIn("each replays to the same plan", run(*command).stdout)

    def check_a_changed_input(self, decisions):
        """Nothing but losses can have begun repair."""
        (begun, *_) = [it for it in decisions if repaired(it["to"]) and not repaired(it["from"])]
        begun["inputs"]["radio_loss_ppm"] = begun["inputs"]["events_milli_per_s"] = None
        changed = self.lab.directory / "changed.jsonl"
        changed.write_text("".join(json.dumps(decision) + "\n" for decision in decisions))
        done = run(Options.binary, "sim", "plan", "--replay", changed, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("DIFFERENT: ", done.stdout)


if __name__ == "__main__":
    main()
