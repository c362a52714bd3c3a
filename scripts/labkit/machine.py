"""What belongs to the whole machine: hugepages and the receive backlog.

Several labs may run at once, so the first one records what it found and the last one puts that
back. The record lives beside the labs' own folders; its lock is that of all labs' coming and going.
"""

import collections
import contextlib
import fcntl
import json
import os
import pathlib
import platform
import shutil
import threading
import time

from .process import LabError, run, say

LABS = pathlib.Path("/run/shardgate-lab")
RECORD = LABS / "machine.json"
PAGE_COUNT = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
PAGES_FREE = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
PAGE_MOUNT = pathlib.Path("/dev/hugepages")
BACKLOG = pathlib.Path("/proc/sys/net/core/netdev_max_backlog")
# Every veth hop goes through one per-CPU queue of this many packets: 1000 overflow in bursts.
BACKLOG_PACKETS = 20_000
MIB_PER_PAGE = 2


def settings():
    """What labs change on the machine, as it is now."""
    return {
        "backlog": int(BACKLOG.read_text()),
        "pages": _read(PAGE_COUNT),
        "mounted": os.path.ismount(PAGE_MOUNT),
        "mount_point": PAGE_MOUNT.exists(),
    }


def claim(record, *, hugepages_mib=0):
    """Raises the backlog and reserves hugepages for a lab more."""
    # What was found stays true until it is put back, even if those who found it died.
    record.setdefault("found", settings())
    if int(BACKLOG.read_text()) < BACKLOG_PACKETS:
        BACKLOG.write_text(str(BACKLOG_PACKETS))
    if hugepages_mib:
        _reserve(hugepages_mib // MIB_PER_PAGE)


def put_back(record):
    """Leaves the machine as the first lab found it; for the last one."""
    found = record.get("found")
    if found is None:
        return
    BACKLOG.write_text(str(found["backlog"]))
    if not found["mounted"] and os.path.ismount(PAGE_MOUNT):
        run("umount", PAGE_MOUNT)
    if not found["mount_point"] and PAGE_MOUNT.exists():
        PAGE_MOUNT.rmdir()
    if found["pages"] is not None and _read(PAGE_COUNT) != found["pages"]:
        PAGE_COUNT.write_text(str(found["pages"]))
    del record["found"]


def _read(path):
    return int(path.read_text()) if path.exists() else None


def _reserve(pages):
    if not PAGE_COUNT.exists():
        raise LabError("this kernel has no 2 MiB hugepages; use --no-hugepages")
    if not os.path.ismount(PAGE_MOUNT):
        PAGE_MOUNT.mkdir(exist_ok=True)
        run("mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "nodev", PAGE_MOUNT)
    missing = pages - _read(PAGES_FREE)
    if missing > 0:
        PAGE_COUNT.write_text(str(_read(PAGE_COUNT) + missing))
    free = _read(PAGES_FREE)
    if free < pages:
        raise LabError(
            f"only {free * MIB_PER_PAGE} of {pages * MIB_PER_PAGE} MiB of hugepages could be"
            " reserved; free some memory or use --no-hugepages"
        )


@contextlib.contextmanager
def record():
    """Takes the lock of all labs; yields what is recorded, and keeps what becomes of it."""
    with _locked_folder():
        kept = _load()
        try:
            yield kept
        finally:
            if kept:
                fresh = RECORD.with_suffix(".new")
                fresh.write_text(json.dumps(kept))
                fresh.rename(RECORD)
            else:
                RECORD.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    LABS.rmdir()


def _load():
    if not RECORD.exists():
        return {}
    try:
        found = json.loads(RECORD.read_bytes())["found"]
        numbers = [found["backlog"], 0 if found["pages"] is None else found["pages"]]
        flags = [found["mounted"], found["mount_point"]]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        numbers, flags = [], []
    if len(numbers) == 2 and all(type(one) is int and 0 <= one < 1 << 31 for one in numbers):
        if all(type(one) is bool for one in flags):
            return {"found": found}
    say(f"{RECORD}: damaged; the backlog and the hugepages stay as they are now")
    return {}


@contextlib.contextmanager
def _locked_folder():
    while True:
        LABS.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(LABS, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # Whoever held the lock before may have removed the folder.
            if LABS.exists() and os.stat(LABS).st_ino == os.fstat(handle).st_ino:
                yield
                return
        finally:
            os.close(handle)


class CpuTime:
    """What this machine's CPUs did since now, as far as the kernel knows."""

    # Columns of the first line of /proc/stat (proc(5)): user to steal.
    COLUMNS, STEAL = 8, 7

    def __init__(self):
        self.began = self._look()
        self.began_at = time.monotonic()

    def stolen_share(self):
        """Which share of the time a hypervisor gave to others that this machine could have used.

        Nothing in here runs meanwhile, whatever its priority.
        """
        spent = [late - early for early, late in zip(self.began, self._look(), strict=True)]
        return spent[self.STEAL] / max(1, sum(spent))

    def _look(self):
        line = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0]
        return [int(word) for word in line.split()[1 : 1 + self.COLUMNS]]


class CpuWatch(threading.Thread):
    """Looks at what is stolen piece by piece: half a second without CPUs is little of a minute."""

    PIECE_S = 0.5
    # An hour of pieces.
    PIECES_MAX = 7200

    def __init__(self):
        super().__init__(daemon=True)
        # When each piece ended, on CLOCK_MONOTONIC, and the share of it that was stolen.
        self.pieces = collections.deque(maxlen=self.PIECES_MAX)

    def run(self):
        while True:
            cpu = CpuTime()
            time.sleep(self.PIECE_S)
            self.pieces.append((time.monotonic(), cpu.stolen_share()))

    def worst_since(self, cpu):
        """The largest share of a piece that ended since this `CpuTime`; 0 if none did."""
        since = [share for ended, share in list(self.pieces) if ended > cpu.began_at]
        return max(since, default=0)


def versions(binary=None):
    """What a figure depends on: the machine and the programs, as pairs to print."""
    cpu = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory_kib = int(pathlib.Path("/proc/meminfo").read_text().split()[1])
    system = "unknown"
    for line in pathlib.Path("/etc/os-release").read_text().splitlines():
        if line.startswith("PRETTY_NAME="):
            system = line.split("=", 1)[1].strip('"')
    facts = [
        ("machine", f"{len(os.sched_getaffinity(0))} CPUs, {cpu}, {memory_kib >> 20} GiB"),
        ("system", f"{system}, Linux {platform.release()}"),
    ]
    if binary:
        facts.append(("shardgate", _first_line(binary, "--version")))
        facts.append(("commit", _commit(binary)))
    facts.append(("DPDK", _first_line("pkg-config", "--modversion", "libdpdk")))
    facts.append(("wireguard-go", _first_line("wireguard-go", "--version")))
    facts.append(("iperf3", _first_line("iperf3", "--version")))
    return [(name, text) for name, text in facts if text]


def _first_line(program, *arguments):
    if not shutil.which(program):
        return ""
    lines = run(program, *arguments, check=False).stdout.strip().splitlines()
    return lines[0] if lines else ""


def _commit(binary):
    folder = pathlib.Path(__file__).resolve().parent
    done = run("git", "-C", folder, "describe", "--always", "--dirty", check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
