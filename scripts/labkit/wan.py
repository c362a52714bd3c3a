"""What lies between the two gateways: an emulated path, or a plain bridge."""

import dataclasses
import json
import pathlib
import socket
import time
import tomllib

from . import registry
from .process import LabError, run, socket_within, within

PROBE_ETHERTYPE = 0x88B5  # IEEE: local experiments
LEFT, RIGHT = "left", "right"
# The profiles that the simulator and the emulator share.
PROFILES_FILE = pathlib.Path(__file__).resolve().parents[2] / "dataplane/sim/profiles.toml"


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
    # Longest packet, bytes; None is the emulator's default, 1500.
    mtu: int | None = None
    seed: int = 1
    # The emulator's FILE:NAME that says all this, and what was changed since.
    profile: str | None = None
    changed: frozenset = frozenset()

    @classmethod
    def of_profile(cls, fields, profile=None):
        """From the `path` of a profile file."""
        known = {"delay_ms": "delay_ms", "jitter_ms": "jitter_ms", "rate": "rate_mbit",
                 "burst": "burst", "queue_frames": "queue_frames", "mtu": "mtu"}  # fmt: skip
        values = {known[key]: value for key, value in fields.items() if key in known}
        for key in ("loss", "reorder", "duplicate", "corrupt"):
            values[f"{key}_percent"] = round(100 * fields.get(key, 0.0), 9)
        return cls(**values, profile=profile)

    def but(self, **changes):
        """The same path with some properties changed."""
        return dataclasses.replace(self, **changes, changed=self.changed | set(changes))

    @property
    def round_trip_ms(self):
        return 2 * self.delay_ms

    def arguments(self):
        """The emulator's command line for this path."""
        options = {
            "delay_ms": ("--delay-ms", self.delay_ms),
            "jitter_ms": ("--jitter-ms", self.jitter_ms),
            "rate_mbit": ("--rate", self.rate_mbit),
            "loss_percent": ("--loss", self.loss_percent / 100),
            "burst": ("--burst", self.burst),
            "reorder_percent": ("--reorder", self.reorder_percent / 100),
            "duplicate_percent": ("--duplicate", self.duplicate_percent / 100),
            "corrupt_percent": ("--corrupt", self.corrupt_percent / 100),
            "queue_frames": ("--queue-frames", self.queue_frames),
            "mtu": ("--mtu", self.mtu),
        }
        words = ["--profile", self.profile] if self.profile else []
        for name, (option, value) in options.items():
            # What the profile says it says alone; zero is the emulator's own default.
            if name in self.changed or (value and not self.profile):
                words += [option, value]
        return [*words, "--seed", self.seed]

    def describe(self):
        """In words, for a table's heading."""
        parts = [f"{self.rate_mbit:g} Mbit/s" if self.rate_mbit else "no rate limit"]
        parts.append(f"{self.delay_ms:g} ms each way")
        if self.jitter_ms:
            parts[-1] += f" +- {self.jitter_ms:g} ms"
        burst = f" in runs of {self.burst:g}" if self.burst > 1 else ""
        for value, name in (
            (self.loss_percent, f"loss{burst}"),
            (self.reorder_percent, "reordered"),
            (self.duplicate_percent, "duplicated"),
            (self.corrupt_percent, "corrupted"),
        ):
            if value:
                parts.append(f"{value:g} % {name}")
        if not self.loss_percent:
            parts.append("no loss")
        if self.mtu:
            parts.append(f"MTU {self.mtu}")
        return ", ".join(parts)


def of_file(file):
    """The single paths of a profile file, by name."""
    singles = tomllib.loads(file.read_text()).get("single", [])
    return {
        single["name"]: Path.of_profile(single["path"], f"{file}:{single['name']}")
        for single in singles
    }


# The paths that figures are quoted for. Without a queue of its own a path has the emulator's
# default: one product of bandwidth and round trip.
MEASURED = of_file(PROFILES_FILE)
CLEAN = MEASURED["clean"]
LOSSY = MEASURED["loss_1"]
UNLIMITED = Path()
MANGLED = Path(
    delay_ms=5, loss_percent=1, reorder_percent=2, duplicate_percent=1, corrupt_percent=1
)
# Reordered is 2.5 to 7.5 ms late, the emulator's default.
REORDERED = LOSSY.but(reorder_percent=5)
PATHS = {
    **MEASURED,
    "unlimited": UNLIMITED,
    "mangled": MANGLED,
    "reordered": REORDERED,
    "reordered_near": REORDERED.but(delay_ms=5),
}


class Bridge:
    """A kernel bridge: proves the rest of the lab, and serves tests that need no path."""

    def __init__(self, lab):
        self.lab = lab
        self.namespace = lab.namespace("wan")

    def start(self):
        make_bridge(self.lab, "wanbr", (LEFT, RIGHT))
        wait_until_carries(self.lab)

    def stop(self):
        run(*within(self.namespace, "ip", "link", "del", "wanbr"), check=False)
        return None


def make_bridge(lab, name, ports):
    """A bridge in the WAN's namespace that forwards and says nothing itself."""
    namespace = lab.namespace("wan")
    # A bridge that snoops on multicast speaks itself.
    kind = ("type", "bridge", "mcast_snooping", "0")
    run(*within(namespace, "ip", "link", "add", name, *kind))
    run(*within(namespace, "sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1"))
    for port in ports:
        run(*within(namespace, "ip", "link", "set", port, "master", name))
    run(*within(namespace, "ip", "link", "set", name, "up"))


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
        self.lab.sweep_up(registry.files_of_emulator(self.process.pid))
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
