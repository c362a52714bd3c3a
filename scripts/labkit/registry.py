"""Which labs there are, whose they are, and how one is taken down: by its owner, or by others.

A lab is a folder in /run/shardgate-lab, named as the lab, with a state file. The state says who
owns the lab (the process that takes it down, or nobody, if it was left up on purpose) and which
files it leaves behind; its namespaces follow from its name. Labs come and go under one lock
(machine.record), so whoever holds it sees no lab half made: a lab whose owner is dead stays dead,
and the next one that comes sweeps it away.
"""

import contextlib
import dataclasses
import glob
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess

from . import machine
from .machine import LABS
from .process import LabError, end_all, is_running, processes_within, run, say

NODES = ("host-a", "gw-a", "wan", "gw-b", "host-b")
PLAIN_NODES = ("plain-a", "plain-b")
# A device's name (lab, "wg", side) has 15 characters at most.
NAME = re.compile(r"[a-z][a-z0-9-]{0,10}")
NAME_RULE = "a lab's name is up to 11 of a-z, 0-9 and -"
STATE_FILE = "state.json"
STATE_BYTES_MAX = 1 << 16
# Where a lab is made before it gets its name: one at a time, as the lock says.
UNNAMED = LABS / ".new"
EMULATOR_FILES = re.compile(r"/run/dpdk/shardgate-emulate-[0-9]+")
WIREGUARD_SOCKETS = pathlib.Path("/run/wireguard")


@dataclasses.dataclass
class State:
    """What a lab's state file says."""

    # (pid, start time); None: left up on purpose.
    owner: tuple[int, int] | None
    # Glob patterns of files that stay when their makers end.
    files: list[str] = dataclasses.field(default_factory=list)

    @property
    def stale(self):
        """True if the lab has nobody any more who would take it down."""
        return self.owner is not None and not is_running(self.owner)


def labs():
    """The names of the labs that are there, whatever their state."""
    names = os.listdir(LABS) if LABS.exists() else []
    return sorted(
        name
        for name in names
        if NAME.fullmatch(name) and stat.S_ISDIR(os.lstat(LABS / name).st_mode)
    )


def namespaces(name):
    """Every namespace that a lab of this name could have."""
    return [f"{name}-{node}" for node in (*NODES, *PLAIN_NODES)]


def add(name, state):
    """Puts a lab of this name on the list. The caller holds the lock, and was told it is free."""
    shutil.rmtree(UNNAMED, ignore_errors=True)
    UNNAMED.mkdir(mode=0o700)
    write_state(UNNAMED, state)
    UNNAMED.rename(LABS / name)


def require_free(name):
    """Refuses a name whose lab, or one of whose namespaces, is there."""
    if os.path.lexists(LABS / name):
        raise LabError(f"a lab named {name} exists: scripts/lab down {name}")
    for namespace in namespaces(name):
        if os.path.lexists(f"/run/netns/{namespace}"):
            raise LabError(f"a namespace {namespace} exists, of no lab: choose another name")


def write_state(directory, state):
    """Replaces a lab's state in one step."""
    fresh = directory / f"{STATE_FILE}.new"
    fresh.write_text(json.dumps(dataclasses.asdict(state)))
    fresh.rename(directory / STATE_FILE)


def read_state(name):
    """A lab's state; LabError says in a few words what is wrong with its file."""
    try:
        found = json.loads(_small_file(LABS / name / STATE_FILE))
    except OSError as error:
        raise LabError(f"its state file cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise LabError("its state file is cut short or is not JSON") from None
    # An older program said nothing of the owner.
    if not isinstance(found, dict) or not _is_owner(found.get("owner", "unknown")):
        raise LabError("its state file does not say whose it is")
    files = found.get("files")
    if not isinstance(files, list) or not all(_is_file_of(name, file) for file in files):
        raise LabError("its state file names files that are no lab's")
    return State(tuple(found["owner"]) if found["owner"] else None, files)


def _small_file(path):
    # Neither a link, nor a pipe that nobody writes to.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("no file")
        data = file.read(STATE_BYTES_MAX + 1)
    if len(data) > STATE_BYTES_MAX:
        raise ValueError("too long")
    return data


def _is_owner(owner):
    if owner is None:
        return True
    numbers = owner if isinstance(owner, list) else []
    return len(numbers) == 2 and all(type(number) is int and number > 0 for number in numbers)


def files_of_gateway(name, side):
    """EAL's runtime folder of a gateway."""
    return f"/run/dpdk/shardgate-{name}-gw-{side}-*"


def wireguard_socket(name, side):
    return WIREGUARD_SOCKETS / f"{name}wg{side}.sock"


def files_of_emulator(pid):
    """EAL's runtime folder of an emulator."""
    return f"/run/dpdk/shardgate-emulate-{pid}"


def _files_by_name(name):
    """What a lab of this name could leave behind without saying so."""
    return [*(files_of_gateway(name, side) for side in "ab"),
            *(str(wireguard_socket(name, side)) for side in "ab")]  # fmt: skip


def _is_file_of(name, file):
    known = _files_by_name(name)
    return isinstance(file, str) and (file in known or EMULATOR_FILES.fullmatch(file) is not None)


def take_down(name):
    """Ends whatever runs in a lab's namespaces and removes what it made; safe to call twice.

    A lab whose state cannot be read goes by its name alone.
    """
    try:
        files = read_state(name).files
    except LabError:
        files = []
    there = [one for one in namespaces(name) if os.path.lexists(f"/run/netns/{one}")]
    # Whoever is in there was started there by this lab (an iperf3 client, a shell).
    within = processes_within(there)
    end_all(within)
    files += [files_of_emulator(pid) for pid, _ in within]
    for namespace in there:
        run("ip", "netns", "del", namespace, check=False)
    for pattern in dict.fromkeys((*files, *_files_by_name(name))):
        for path in glob.glob(pattern):
            _remove(path)
    with contextlib.suppress(OSError):
        WIREGUARD_SOCKETS.rmdir()
    for namespace in there:
        if os.path.lexists(f"/run/netns/{namespace}"):
            raise LabError(f"the namespace {namespace} cannot be removed")
    _remove(LABS / name)


def _remove(path):
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def remove(name, record):
    """Takes a lab down, and with the last one what it did to the machine; under the lock."""
    take_down(name)
    if not labs():
        machine.put_back(record)


def sweep(record):
    """Removes every lab whose owner is dead, and says so in a line each; under the lock.

    What is wrong with one lab is said and stops nothing.
    """
    for name in labs():
        try:
            state = read_state(name)
            if state.stale:
                remove(name, record)
                say(f"lab {name}: taken down, as its owner, process {state.owner[0]}, is dead")
        except (LabError, OSError, subprocess.SubprocessError) as error:
            say(f"lab {name}: left as it is: {error}; scripts/lab down {name} removes it")


def describe(name):
    """What is to be said of a lab in a list."""
    try:
        state = read_state(name)
    except LabError as error:
        return f"damaged: {error}"
    if state.owner is None:
        return "left up on purpose"
    if state.stale:
        return f"its owner, process {state.owner[0]}, is dead: scripts/lab down --stale"
    return f"of process {state.owner[0]}"
