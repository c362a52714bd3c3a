"""Children and namespaces: start, watch, stop; only ever what was started here, by its pid."""

import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
LOG_TAIL_LINES = 30

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """A step of the lab failed; the message is for the person who ran it."""


def say(text):
    """Progress, on stderr. Nobody may be listening any more: then the work goes on unheard."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def run(*command, check=True, timeout=60, stdin=""):
    """Runs a command to its end and returns it with its output as text."""
    done = subprocess.run(
        [str(word) for word in command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode != 0:
        why = (done.stderr or done.stdout).strip()
        raise LabError(f"`{' '.join(done.args)}` failed ({done.returncode}): {why}")
    return done


def within(namespace, *command):
    """The command line that runs `command` inside a namespace; it keeps its pid."""
    return ("ip", "netns", "exec", namespace, *command)


@contextlib.contextmanager
def entered(namespace):
    """Moves this thread into a network namespace: sockets made meanwhile belong there."""
    with (
        open("/proc/thread-self/ns/net", "rb") as home,
        open(f"/run/netns/{namespace}", "rb") as there,
    ):
        _setns(there)
        try:
            yield
        finally:
            _setns(home)


def _setns(handle):
    if _libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
        raise LabError(f"cannot enter a namespace: {os.strerror(ctypes.get_errno())}")


def socket_within(namespace, *arguments):
    """A socket of a namespace, usable from outside it."""
    with entered(namespace):
        return socket.socket(*arguments)


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_all(identities, *, patience=8.0):
    """Ends processes that need not be children: SIGTERM, and SIGKILL for who does not listen."""
    for number, limit in ((signal.SIGTERM, patience), (signal.SIGKILL, 2.0)):
        identities = [one for one in identities if is_running(one)]
        for pid, _ in identities:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + limit
        while any(map(is_running, identities)) and time.monotonic() < deadline:
            time.sleep(0.02)


def identity(pid):
    """A process for as long as the machine is up: its pid and its start time in ticks."""
    return (pid, int(stat_field(pid, 21)))


def is_running(process):
    """True while the process of this identity runs; a zombie does not."""
    pid, started = process
    try:
        return stat_field(pid, 2) != "Z" and identity(pid) == (pid, started)
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_within(namespaces):
    """The identities of whoever is in one of these network namespaces, but for this process."""
    wanted = set()
    for namespace in namespaces:
        with contextlib.suppress(FileNotFoundError):
            wanted.add(_inode(f"/run/netns/{namespace}"))
    found = []
    for name in os.listdir("/proc"):
        # It may end meanwhile; and who may not be looked at, as a container's init, is not ours.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if name.isdecimal() and _inode(f"/proc/{name}/ns/net") in wanted:
                found.append(identity(int(name)))
    return [one for one in found if one[0] != os.getpid()]


def _inode(path):
    status = os.stat(path)
    return (status.st_dev, status.st_ino)


def stat_field(pid, index):
    """A field of /proc/PID/stat, counted from 0; the command name may hold spaces."""
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return ([pid, "comm"] + text.rsplit(")", 1)[1].split())[index]


class Process:
    """A child with its two log files."""

    def __init__(self, name, command, directory, *, namespace=None, orphan=False, env=None):
        self.name = name
        # A process that is started again gets files of its own.
        stem, again = name, 1
        while pathlib.Path(directory, f"{stem}.out").exists():
            again += 1
            stem = f"{name}-{again}"
        self.out = pathlib.Path(directory, f"{stem}.out")
        self.log = pathlib.Path(directory, f"{stem}.log")
        line = within(namespace, *command) if namespace else command
        with open(self.out, "xb") as out, open(self.log, "xb") as log:
            self.child = subprocess.Popen(
                [str(word) for word in line],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env={**os.environ, **(env or {})},
                # Ctrl-C is for the lab, which stops its children in order.
                start_new_session=True,
                preexec_fn=None if orphan else _die_with_parent,
            )
        self.pid = self.child.pid
        self.exit_code = None

    def running(self):
        return self.child.poll() is None

    def require_running(self):
        if not self.running():
            raise LabError(f"{self.name} ended with {self.child.returncode}:\n{self.tail()}")

    def wait_until(self, ready, what, *, timeout=20.0):
        """Polls `ready` while the child lives; its end or the timeout is an error."""
        deadline = time.monotonic() + timeout
        while not ready():
            self.require_running()
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: not {what} after {timeout:g} s\n{self.tail()}")
            time.sleep(0.05)

    def stop(self, signal_number=signal.SIGTERM, *, patience=8.0):
        """Ends the child and returns its exit code; a child that does not listen is killed."""
        if self.running():
            self.child.send_signal(signal_number)
            try:
                self.child.wait(patience)
            except subprocess.TimeoutExpired:
                say(f"{self.name} did not end within {patience:g} s: killed")
                self.child.kill()
                self.child.wait()
        self.exit_code = self.child.returncode
        return self.exit_code

    def output(self):
        return self.out.read_text(errors="replace")

    def tail(self, lines=LOG_TAIL_LINES):
        """The last lines of what it said, for an error message."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        text += self.output().splitlines()[-lines:]
        return "\n".join(f"    {self.name}: {line}" for line in text or ["(silent)"])
