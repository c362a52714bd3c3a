"""What lies between the two gateways: an emulated path, or a plain bridge."""

import dataclasses
import json
import socket
import time

from .process import LabError, run, socket_within, within

PROBE_ETHERTYPE = 0x88B5  # IEEE: local experiments
LEFT, RIGHT = "left", "right"


@dataclasses.dataclass(frozen=True)
class Path:
    """A WAN path, the same in both directions; zero or None means without."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    rate_mbit: float | None = None
    loss_percent: float = 0.0
    burst: float = 1.0
    reorder_percent: float = 0.0
    duplicate_percent: float = 0.0
    corrupt_percent: float = 0.0
    queue_frames: int | None = None
    seed: int = 1

    def but(self, **changes):
        """The same path with some properties changed."""
        return dataclasses.replace(self, **changes)

    @property
    def round_trip_ms(self):
        return 2 * self.delay_ms

    def arguments(self):
        """The emulator's command line for this path."""
        options = {
            "--delay-ms": self.delay_ms,
            "--jitter-ms": self.jitter_ms,
            "--rate": self.rate_mbit,
            "--loss": self.loss_percent / 100,
            "--burst": self.burst,
            "--reorder": self.reorder_percent / 100,
            "--duplicate": self.duplicate_percent / 100,
            "--corrupt": self.corrupt_percent / 100,
            "--queue-frames": self.queue_frames,
        }
        words = [word for pair in options.items() if pair[1] for word in pair]
        return [*words, "--seed", self.seed]

    def describe(self):
        """In words, for a table's heading."""
        parts = [f"{self.rate_mbit:g} Mbit/s" if self.rate_mbit else "no rate limit"]
        parts.append(f"{self.delay_ms:g} ms each way")
        for value, name in (
            (self.loss_percent, "loss"),
            (self.reorder_percent, "reordered"),
            (self.duplicate_percent, "duplicated"),
            (self.corrupt_percent, "corrupted"),
        ):
            if value:
                parts.append(f"{value:g} % {name}")
        if not self.loss_percent:
            parts.append("no loss")
        return ", ".join(parts)


# The queue is the emulator's default: one product of bandwidth and round trip.
CLEAN = Path(delay_ms=20, rate_mbit=200)
LOSSY = Path(delay_ms=20, rate_mbit=200, loss_percent=1)
UNLIMITED = Path()
MANGLED = Path(
    delay_ms=5, loss_percent=1, reorder_percent=2, duplicate_percent=1, corrupt_percent=1
)
PATHS = {"clean": CLEAN, "lossy": LOSSY, "unlimited": UNLIMITED, "mangled": MANGLED}


class Bridge:
    """A kernel bridge: proves the rest of the lab, and serves tests that need no path."""

    def __init__(self, lab):
        self.lab = lab
        self.namespace = lab.namespace("wan")

    def start(self):
        # A bridge that snoops on multicast speaks itself.
        kind = ("type", "bridge", "mcast_snooping", "0")
        run(*within(self.namespace, "ip", "link", "add", "wanbr", *kind))
        run(*within(self.namespace, "sysctl", "-qw", "net.ipv6.conf.wanbr.disable_ipv6=1"))
        for port in (LEFT, RIGHT):
            run(*within(self.namespace, "ip", "link", "set", port, "master", "wanbr"))
        run(*within(self.namespace, "ip", "link", "set", "wanbr", "up"))
        wait_until_carries(self.lab)

    def stop(self):
        run(*within(self.namespace, "ip", "link", "del", "wanbr"), check=False)
        return None


class Emulator:
    """`shardgate emulate` between the two WAN links."""

    def __init__(self, lab, path):
        self.lab = lab
        self.path = path
        self.process = None

    def start(self):
        command = [self.lab.binary, "emulate"]
        command += ["--left", f"net_af_packet0,iface={LEFT}"]
        command += ["--right", f"net_af_packet1,iface={RIGHT}"]
        command += self.path.arguments()
        self.process = self.lab.start("emulator", command, "wan")
        self.lab.sweep_up(f"/run/dpdk/shardgate-emulate-{self.process.pid}")
        wait_until_carries(self.lab, self.process)

    def stop(self):
        """Stops it and returns its counters."""
        exit_code = self.lab.stop(self.process)
        if exit_code != 0:
            raise LabError(f"the emulator ended with {exit_code}:\n{self.process.tail()}")
        return json.loads(self.process.output())


def wait_until_carries(lab, process=None, *, timeout=20.0):
    """Sends probe frames over the WAN, both ways, until one has arrived on each side."""
    with (
        probe_socket(lab.namespace("gw-a")) as a,
        probe_socket(lab.namespace("gw-b")) as b,
    ):
        for sender, receiver in ((a, b), (b, a)):
            deadline = time.monotonic() + timeout
            while not _probe(sender, receiver):
                if process:
                    process.require_running()
                if time.monotonic() > deadline:
                    raise LabError(f"the WAN carries nothing after {timeout:g} s")


def probe_socket(namespace):
    opened = socket_within(
        namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(PROBE_ETHERTYPE)
    )
    opened.bind(("wan0", PROBE_ETHERTYPE))
    opened.settimeout(0.2)
    return opened


def _probe(sender, receiver):
    source = sender.getsockname()[4]
    frame = b"\xff" * 6 + source + PROBE_ETHERTYPE.to_bytes(2, "big") + bytes(46)
    sender.send(frame)
    try:
        return receiver.recv(2048)[6:12] == source
    except TimeoutError:
        return False
