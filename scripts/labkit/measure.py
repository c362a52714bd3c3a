"""Ping and iperf3, as numbers."""

import json
import re
import statistics
import subprocess

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


def await_answer(namespace, target, *, timeout=15):
    """Pings until one is answered; True if that was in time."""
    command = ["ping", "-n", "-c", 1, "-i", 0.05, "-w", timeout, target]
    return run(*within(namespace, *command), check=False, timeout=timeout + 10).returncode == 0


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


class TcpFlow:
    """A running iperf3 from host-a to host-b (or back), or between two other nodes."""

    def __init__(
        self,
        lab,
        target,
        *,
        seconds=8,
        congestion="cubic",
        reverse=False,
        streams=1,
        omit=0,
        nodes=("host-a", "host-b"),
        begin=True,
    ):
        self.lab = lab
        self.limit_s = omit + seconds + 40
        self.node, server = nodes
        self.client = None
        listen = ("iperf3", "-s", "-1", "-p", IPERF_PORT, "--forceflush")
        self.server = lab.start(f"iperf3-{server}", listen, server)
        self.command = ["iperf3", "-c", target, "-p", IPERF_PORT, "-C", congestion, "-t", seconds]
        self.command += ["-P", streams, "-O", omit, "-J", "--connect-timeout", 10_000]
        if reverse:
            self.command.append("-R")
        try:
            self.server.wait_until(lambda: "Server listening" in self.server.output(), "listening")
            if begin:
                self.begin()
        except BaseException:
            lab.stop(self.server)
            raise

    def begin(self):
        """Starts the client, if it was not to start at once."""
        self.client = self.lab.start(f"iperf3-{self.node}", self.command, self.node)

    def finish(self):
        """Waits for its end; returns the `Goodput`."""
        try:
            self.client.child.wait(self.limit_s)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"iperf3: no end after {self.limit_s:g} s") from error
        finally:
            self.lab.stop(self.client)
            self.lab.stop(self.server)
        said = self.client.output()
        report = json.loads(said) if said.startswith("{") else {}
        if "error" in report or "sum_received" not in report.get("end", {}):
            raise LabError(f"iperf3: {report.get('error') or self.client.tail()}")
        return Goodput(report)


def tcp_goodput(lab, target, **options):
    """TCP goodput by iperf3, as `TcpFlow` has it."""
    return TcpFlow(lab, target, **options).finish()
