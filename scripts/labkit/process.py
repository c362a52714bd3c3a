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
    """Progress, on stderr."""
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


def end(pid, *, patience=8.0):
    """Ends a process that need not be a child: SIGTERM, then SIGKILL. True if it was alive."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and alive(pid):
        time.sleep(0.05)
    if alive(pid):
        os.kill(pid, signal.SIGKILL)
    return True


def alive(pid):
    """True while a process runs (a zombie does not)."""
    try:
        return stat_field(pid, 2) != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def started_at(pid):
    """A process's start time in ticks: with the pid, its identity."""
    return int(stat_field(pid, 21))


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
        self.started = started_at(self.pid)
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
