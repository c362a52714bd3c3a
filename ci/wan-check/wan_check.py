#!/usr/bin/env python3
"""Checks the WAN emulator from outside: what enters, what leaves, and when.

    wan_check.py --emulator target/release/shardgate     as root; exits 1 if a statistic is off
    wan_check.py --self-test                             no root: can the judge fail?

It shares no code with the emulator. A table shows every statistic with its bounds; a correct
emulator is outside of one of them in less than one run of 10,000. Every run is also judged
against profiles that are slightly wrong, and each of those must fail. See stats.py for the
bounds and lab.py for the set-up.
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import random
import socket
import struct
import sys
import time

import lab as labs
from stats import Copy, Measured, Profile, Row, judge

# Each case: profile, frame length, frames a second in each direction, seconds.
CASES = {
    "faults": (
        Profile(delay_ms=20, loss=0.02, burst=3, reorder=0.01, duplicate=0.02, corrupt=0.03),
        300, 5000, 15,
    ),
    "jitter": (Profile(delay_ms=20, jitter_ms=2, loss=0.05), 300, 5000, 8),
    # 4,000 frames a second where 2,500 fit; the queue is the least there is, 100 frames.
    "rate": (Profile(delay_ms=20, rate=20), 1000, 4000, 6),
}

# Profiles that are not what was run; each must fail against the case's measurement. They are so
# far off that the measurement's own chance does not hide it, also less than once in 10,000 runs.
WRONG = {
    "faults": [
        {"delay_ms": 19}, {"delay_ms": 21}, {"loss": 0.03}, {"loss": 0.012}, {"burst": 1},
        {"burst": 2}, {"burst": 5}, {"reorder": 0.014}, {"reorder": 0}, {"duplicate": 0.026},
        {"duplicate": 0}, {"corrupt": 0.038}, {"corrupt": 0},
    ],
    "jitter": [
        {"jitter_ms": 2.3}, {"jitter_ms": 1.8}, {"jitter_ms": 0}, {"delay_ms": 21},
        {"loss": 0.065}, {"loss": 0.038}, {"burst": 2},
    ],
    "rate": [{"rate": 21}, {"rate": 19}, {"queue_frames": 120}, {"queue_frames": 80}, {"delay_ms": 25}],
}

# If the emulator got no CPU for so long (p99, by its own account), its times say nothing.
BUSY_US = 1000
# What one lcore is to forward over af_packet, of any size.
FRAMES_PER_SECOND = 150_000
# Counters of frames that died without the model.
NOT_BY_THE_MODEL = ("no_buffer_drops", "tx_full_drops", "rx_missed", "rx_no_mbuf", "tx_errors")
# How often a case is measured before a busy machine counts as a failure.
ATTEMPTS = 4
SELF_TEST_SEEDS = 5


def table(title, rows):
    print(f"\n{title}")
    print(f"  {'':<34}{'measured':>12}{'least':>12}{'most':>12}")
    for row in rows:
        verdict = "ok" if row.passed() else "FAIL"
        print(f"  {row.what:<34}{row.measured:>12.5g}{row.low:>12.5g}{row.high:>12.5g}"
              f"  {verdict:<4}  {row.note}")
    return all(row.passed() for row in rows)


def compare_counts(measured, report):
    """The emulator's own counts against what was seen: equal within 0.1 % of the frames, and as
    many as there were probes, which are lost and doubled too but not looked at."""
    deaths = ("lost", "queue_drops", "mtu_drops", "held_at_end", *NOT_BY_THE_MODEL)
    copies = [copies for copies in measured.arrived.values()]
    lost = sum(1 for seq, _ in measured.entered if seq not in measured.arrived)
    slack = len(measured.entered) / 1000
    probes = report["received"] + report["rx_missed"] - len(measured.entered)
    return [
        Row(what, theirs, ours - slack, ours + slack + probes, f"its count; {ours} seen")
        for what, theirs, ours in (
            ("did not arrive", sum(report[name] for name in deaths), lost),
            ("arrived twice", report["duplicated"], sum(1 for same in copies if len(same) > 1)),
            ("with flipped bits", report["corrupted"], sum(1 for same in copies for c in same if c.flips)),
        )
    ]


def wrong_profiles(name, profile, measured):
    """True if every wrong expectation fails against this measurement."""
    caught = True
    for change in WRONG[name]:
        failed = [row.what for row in judge(dataclasses.replace(profile, **change), measured)
                  if not row.passed()]
        text = ", ".join(f"{key} = {value}" for key, value in change.items())
        print(f"  expecting {text:<24} {'is caught by: ' + failed[0] if failed else 'PASSES: FAIL'}")
        caught = caught and bool(failed)
    return caught


def check_case(name, command, seed):
    profile, frame_len, per_second, seconds = CASES[name]
    for attempt in range(ATTEMPTS):
        with labs.Lab() as lab:
            both, out = labs.measure(lab, command, profile, frame_len, per_second, seconds, seed + attempt)
        report = json.loads(out)
        directions = (report["left_to_right"], report["right_to_left"])
        failed = []
        for direction, counts, measured in zip(("a to b", "b to a"), directions, both):
            rows = judge(profile, measured) + compare_counts(measured, counts)
            table(f"{name}, {direction}: {' '.join(profile.flags())}; seed {seed + attempt}", rows)
            failed += [row for row in rows if not row.passed()]
        late = max(counts["lateness_us"]["p99"] for counts in directions)
        print(f"  the emulator's own lateness, p99: {late:.0f} us")
        # A stall of the emulator makes it late, and a long one overflows its rx ring. Nothing else
        # may be wrong without being a failure.
        overflow = sum(counts[name] for counts in directions for name in NOT_BY_THE_MODEL)
        stalled = late > BUSY_US and all(row.timing for row in failed) or overflow > 0
        if not (failed and stalled):
            break
        print(f"  this machine is too busy ({overflow} frames overflowed); once more")
    print("  the same frames against wrong profiles:")
    return wrong_profiles(name, profile, both[0]) and not failed


def check_mtu(command, seed):
    """Frames at and above the MTU, VLAN tags, and the smallest frames: deterministic."""
    profile = Profile(delay_ms=1, mtu=4000)
    tag = struct.pack(">HH", 0x8100, (5 << 13) | 42)
    ethernet = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02"
    kind = struct.pack(">H", labs.ETHERTYPE)

    def frame(payload_len, tags=b""):
        return ethernet + tags + kind + random.Random(payload_len).randbytes(payload_len)

    sent = {
        "of 46 bytes": (frame(46), True),
        "of the MTU": (frame(4000), True),
        "one byte longer": (frame(4001), False),
        "tagged, of the MTU": (frame(4000, tag), True),
        "tagged, one byte longer": (frame(4001, tag), False),
        "tagged, small": (frame(100, tag), True),
    }
    passed = True
    with labs.Lab(mtu=4200) as lab:
        frames = labs.Frames(300)
        watch = labs.Watch([lab.tap(where) for where in ("al", "b0", "bl", "a0")])
        # Tags are looked for in whole frames, so this socket takes every ethertype.
        arrivals = whole_frames(lab, "b0")
        emulator = labs.Emulator(lab, command, profile, seed)
        try:
            labs.await_emulator(lab, emulator, frames, watch)
            sender = lab.namespaces[0].socket("a0")
            for data, _ in sent.values():
                sender.send(data)
            time.sleep(0.5)
            arrived = []
            while True:
                try:
                    arrived.append(read_whole(arrivals))
                except BlockingIOError:
                    break
        except BaseException:
            emulator.process.kill()
            emulator.process.communicate()
            raise
        report = json.loads(emulator.stop())
    print(f"\nmtu: {' '.join(profile.flags())}; seed {seed}")
    for what, (data, expected) in sent.items():
        fine = (data in arrived) == expected
        print(f"  {what:<34}{'arrived' if data in arrived else 'dropped':>12}  {'ok' if fine else 'FAIL'}")
        passed = passed and fine
    counted = report["left_to_right"]["mtu_drops"]
    print(f"  {'counted as longer than the MTU':<34}{counted:>12}  {'ok' if counted == 2 else 'FAIL'}")
    return passed and counted == 2


def check_throughput(command, seed):
    """Frames a second on one core, one way, offered as fast as one sender can.

    By the clock if the machine is free; else by the CPU time that the emulator took, which is a
    lower bound, since it also polls in vain.
    """
    passed = True
    print(f"\nthroughput, a to b: --delay-ms 1; at least {FRAMES_PER_SECOND} frames a second")
    for frame_len in (60, 1514):
        with labs.Lab() as lab:
            frames = labs.Frames(60)
            watch = labs.Watch([lab.tap(where) for where in ("al", "b0", "bl", "a0")])
            emulator = labs.Emulator(lab, command, Profile(delay_ms=1), seed)
            try:
                labs.await_emulator(lab, emulator, frames, watch)
                watch.close()
                offered, best, per_cpu = labs.flood(lab, emulator, frame_len, seconds=4)
            except BaseException:
                emulator.process.kill()
                emulator.process.communicate()
                raise
            counts = json.loads(emulator.stop())["left_to_right"]
        fine = max(best, per_cpu) >= FRAMES_PER_SECOND
        passed = passed and fine
        print(f"  {frame_len:>5} bytes: {offered:>8.0f} a second offered, {best:>8.0f} arrived in the best"
              f" second, {per_cpu:>8.0f} per second of CPU  {'ok' if fine else 'FAIL'}")
        print(f"               rx ring full {counts['rx_missed']}, no buffer"
              f" {counts['no_buffer_drops']}, tx full {counts['tx_full_drops']}, lateness p50"
              f" {counts['lateness_us']['p50']:.0f} us, p99 {counts['lateness_us']['p99']:.0f} us")
    return passed


ETH_P_ALL = 3
PACKET_AUXDATA = 8


def whole_frames(lab, interface):
    made = lab.namespaces[2].socket(interface)
    made.bind((interface, ETH_P_ALL))
    made.setsockopt(labs.SOL_PACKET, PACKET_AUXDATA, 1)
    made.setsockopt(labs.SOL_PACKET, labs.PACKET_IGNORE_OUTGOING, 1)
    made.setblocking(False)
    return made


def read_whole(tap):
    """A frame with its VLAN tag back in place: the kernel hands it over beside the frame."""
    data, control, _, _ = tap.recvmsg(16384, 128)
    for level, kind, aux in control:
        if level == labs.SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", aux[:20])
            if status & 0x10:  # TP_STATUS_VLAN_VALID
                return data[:12] + struct.pack(">HH", tpid or 0x8100, tci) + data[12:]
    return data


OTHERS = {"mtu": check_mtu, "throughput": check_throughput}


def synthetic(profile, frame_len, count, per_second, seed):
    """A measurement as a perfect path would give it, made here, independent of the emulator."""
    draw = random.Random(seed)
    measured = Measured(frame_len)
    bad = draw.random() < profile.loss
    stay = profile.loss if profile.burst == 1 else 1 - 1 / profile.burst
    enter = profile.loss if profile.burst == 1 else profile.loss / (profile.burst * (1 - profile.loss))
    idle_at, out, waiting = 0.0, [], collections.deque()
    for seq in range(count):
        now = seq / per_second
        measured.entered.append((seq, now))
        sent_at = now
        if profile.rate:
            while waiting and waiting[0] <= now:
                waiting.popleft()
            if len(waiting) > profile.queue_limit():
                continue
            sent_at = max(now, idle_at) + frame_len * 8 / profile.rate / 1e6
            idle_at = sent_at
            waiting.append(sent_at)
        lost, bad = bad, draw.random() < (stay if bad else enter)
        for _ in range(0 if lost else 1 + (draw.random() < profile.duplicate)):
            delay = max(0.0, draw.gauss(profile.delay_ms, profile.jitter_ms)) / 1e3
            if draw.random() < profile.reorder:
                delay += profile.reorder_ms * draw.uniform(0.5, 1.5) / 1e3
            delay += draw.expovariate(1 / 20e-6)
            flips = draw.randint(1, 3) if draw.random() < profile.corrupt else 0
            first = sum(draw.random() < 0.5 for _ in range(flips))
            out.append((sent_at + delay, seq, Copy(sent_at + delay - now, flips, first)))
    for _, seq, copy in sorted(out, key=lambda item: item[:2]):
        measured.arrived.setdefault(seq, []).append(copy)
        measured.order.append(seq)
    return measured


def self_test():
    """The judge accepts a perfect path, over many seeds, and catches every wrong one."""
    jobs = [(name, seed) for name in CASES for seed in range(SELF_TEST_SEEDS)]
    with multiprocessing.Pool() as pool:
        results = pool.map(self_test_case, jobs, chunksize=1)
    print("\n".join(text for text, _ in results))
    return all(passed for _, passed in results)


def self_test_case(job):
    """One perfect path; the last of a case is also held against the wrong profiles."""
    name, seed = job
    profile, frame_len, per_second, seconds = CASES[name]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        measured = synthetic(profile, frame_len, per_second * seconds, per_second, seed)
        passed = table(f"{name}, a perfect path, seed {seed}", judge(profile, measured))
        if seed == SELF_TEST_SEEDS - 1:
            passed = wrong_profiles(name, profile, measured) and passed
    return said.getvalue(), passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--emulator", help="the program whose `emulate` command is checked")
    parser.add_argument("--case", choices=[*CASES, *OTHERS], action="append", help="only these")
    parser.add_argument("--seed", type=int, help="of the emulator; random if not given")
    parser.add_argument("--self-test", action="store_true", help="check the judge, without root")
    options = parser.parse_args()
    if options.self_test:
        passed = self_test()
    elif not options.emulator:
        parser.error("name the program: --emulator target/release/shardgate, or use --self-test")
    elif os.geteuid() != 0:
        parser.error("network namespaces and packet sockets need root")
    else:
        seed = options.seed if options.seed is not None else random.randrange(1 << 32)
        command = [os.path.abspath(options.emulator)]
        results = [
            OTHERS[case](command, seed) if case in OTHERS else check_case(case, command, seed)
            for case in options.case or [*CASES, *OTHERS]
        ]
        passed = all(results)
    print("\nwan-check: " + ("passed" if passed else "FAILED"))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
