"""What belongs to the whole machine: hugepages and the receive backlog.

Several labs may run at once, so the first one records what it found and the last one puts that
back. The record lives beside the labs' own folders and is guarded by a lock.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import shutil

from .process import LabError, alive, run, started_at

LABS = pathlib.Path("/run/shardgate-lab")
RECORD = LABS / "machine.json"
PAGE_COUNT = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
PAGES_FREE = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
PAGE_MOUNT = pathlib.Path("/dev/hugepages")
BACKLOG = pathlib.Path("/proc/sys/net/core/netdev_max_backlog")
# Every veth hop goes through one per-CPU queue of this many packets: 1000 overflow in bursts.
BACKLOG_PACKETS = 20_000
MIB_PER_PAGE = 2


class Machine:
    """One lab's claim on the machine's settings."""

    def __init__(self, lab_name, owner_pid):
        self.lab_name = lab_name
        self.owner = [owner_pid, started_at(owner_pid)]

    def claim(self, *, hugepages_mib=0):
        """Raises the backlog and reserves hugepages; returns how many MiB of them are free."""
        with _record() as record:
            _forget_the_dead(record)
            if not record["users"]:
                record["found"] = {
                    "backlog": int(BACKLOG.read_text()),
                    "pages": _read(PAGE_COUNT),
                    "mounted": os.path.ismount(PAGE_MOUNT),
                    "mount_point": PAGE_MOUNT.exists(),
                }
            record["users"][self.lab_name] = self.owner
            if int(BACKLOG.read_text()) < BACKLOG_PACKETS:
                BACKLOG.write_text(str(BACKLOG_PACKETS))
            return _reserve(hugepages_mib // MIB_PER_PAGE) if hugepages_mib else 0

    def keep(self):
        """The lab outlives this process: only `release` ends the claim."""
        with _record() as record:
            record["users"][self.lab_name] = None

    def release(self):
        """Ends the claim; the last one puts back what the first one found."""
        with _record() as record:
            if record["users"].pop(self.lab_name, "absent") == "absent":
                return
            _forget_the_dead(record)
            if record["users"]:
                return
            found = record.pop("found")
            BACKLOG.write_text(str(found["backlog"]))
            if not found["mounted"] and os.path.ismount(PAGE_MOUNT):
                run("umount", PAGE_MOUNT)
            if not found["mount_point"] and PAGE_MOUNT.exists():
                PAGE_MOUNT.rmdir()
            if found["pages"] is not None and _read(PAGE_COUNT) != found["pages"]:
                PAGE_COUNT.write_text(str(found["pages"]))


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
    return free * MIB_PER_PAGE


@contextlib.contextmanager
def _record():
    with _locked_folder():
        record = {"users": {}}
        if RECORD.exists():
            record = json.loads(RECORD.read_text())
        try:
            yield record
        finally:
            if record["users"]:
                RECORD.write_text(json.dumps(record))
            else:
                RECORD.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    LABS.rmdir()


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


def _forget_the_dead(record):
    for name, owner in list(record["users"].items()):
        if owner and not (alive(owner[0]) and started_at(owner[0]) == owner[1]):
            del record["users"][name]


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
