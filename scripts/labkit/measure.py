"""Ping and iperf3, as numbers."""

import json
import re
import statistics

from .process import LabError, run, within

IPERF_PORT = 5201


class Ping:
    """Round-trip times of one series, in milliseconds."""

    def __init__(self, sent, times_ms, duplicates):
        self.sent = sent
        self.times_ms = sorted(times_ms)
        self.duplicates = duplicates

    @property
    def lost_percent(self):
        return 100.0 * (self.sent - len(self.times_ms)) / self.sent

    @property
    def median_ms(self):
        return statistics.median(self.times_ms) if self.times_ms else None

    def quantile_ms(self, share):
        if not self.times_ms:
            return None
        return self.times_ms[min(len(self.times_ms) - 1, int(share * len(self.times_ms)))]

    def as_json(self):
        return {
            "sent": self.sent,
            "received": len(self.times_ms),
            "duplicates": self.duplicates,
            "lost_percent": self.lost_percent,
            "median_ms": self.median_ms,
            "p95_ms": self.quantile_ms(0.95),
            "max_ms": self.times_ms[-1] if self.times_ms else None,
        }


def ping(namespace, target, *, count=100, interval=0.02, size=56, wait=1, extra=()):
    """Sends `count` echo requests of `size` payload bytes; loss is a result, not an error."""
    command = ["ping", "-n", "-c", count, "-i", interval, "-s", size, "-W", wait, *extra, target]
    done = run(*within(namespace, *command), check=False, timeout=count * interval + wait + 10)
    if "packets transmitted" not in done.stdout:
        raise LabError(f"ping said: {(done.stderr or done.stdout).strip()}")
    answers = [line for line in done.stdout.splitlines() if " time=" in line]
    duplicates = [line for line in answers if "DUP!" in line]
    times = [
        float(re.search(r" time=([\d.]+)", line).group(1)) for line in answers if "DUP!" not in line
    ]
    sent = int(re.search(r"(\d+) packets transmitted", done.stdout).group(1))
    return Ping(sent, times, len(duplicates))


def reaches(namespace, target, *, attempts=1, extra=()):
    """True if one of a few pings is answered."""
    return ping(namespace, target, count=attempts, interval=0.1, extra=extra).times_ms != []


class Goodput:
    """One iperf3 run, as the receiver saw it."""

    def __init__(self, report):
        end = report["end"]
        self.mbit_per_s = end["sum_received"]["bits_per_second"] / 1e6
        self.bytes = end["sum_received"]["bytes"]
        self.retransmits = end.get("sum_sent", {}).get("retransmits")
        self.report = report

    def as_json(self):
        return {
            "mbit_per_s": self.mbit_per_s,
            "bytes": self.bytes,
            "retransmits": self.retransmits,
        }


def tcp_goodput(lab, target, *, seconds=8, congestion="cubic", reverse=False, streams=1):
    """TCP goodput from host-a to host-b (or back), by iperf3."""
    server = lab.start(
        "iperf3-server", ("iperf3", "-s", "-1", "-p", IPERF_PORT, "--forceflush"), "host-b"
    )
    try:
        server.wait_until(lambda: "Server listening" in server.output(), "listening")
        command = ["iperf3", "-c", target, "-p", IPERF_PORT, "-C", congestion, "-t", seconds]
        command += ["-P", streams, "-J", "--connect-timeout", 10_000]
        if reverse:
            command.append("-R")
        done = run(*within(lab.namespace("host-a"), *command), check=False, timeout=seconds + 40)
        report = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        if "error" in report or "sum_received" not in report.get("end", {}):
            raise LabError(f"iperf3: {report.get('error') or done.stderr.strip()}")
        return Goodput(report)
    finally:
        lab.stop(server)
