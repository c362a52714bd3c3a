"""The lab: three network namespaces, the emulator in the middle, frames in and out.

    host a ── a0 ═ al │ emulator │ bl ═ b0 ── host b

Frames are watched by the kernel's own time stamps (SO_TIMESTAMPNS) at four places: where they
enter the emulator (al, bl: what its rx ring sees) and where they arrive (a0, b0).
"""

import ctypes
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import time
import zlib

from stats import Copy, Measured

ETHERTYPE = 0x88B5  # IEEE 802 local experimental
PROBE, DATA = 1, 2
HEADER = 14
# Sequence number and kind, three times over: a majority of them survives three flipped bits.
LABEL = struct.Struct(">IHH")
SCM_TIMESTAMPNS = 35
SO_TIMESTAMPNS = 35
SO_RCVBUFFORCE = 33
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_IGNORE_OUTGOING = 23
PACKET_QDISC_BYPASS = 20
RECEIVE_BUFFER = 256 << 20
# The emulator is what is measured, not the machine's other work.
NICENESS = -20


def run(*command):
    subprocess.run(command, check=True, capture_output=True, text=True)


class Namespace:
    """A network namespace, entered by sockets that are made in it."""

    def __init__(self, name):
        self.name = name
        run("ip", "netns", "add", name)
        for key in ("all", "default"):
            run("ip", "netns", "exec", name, "sysctl", "-qw", f"net.ipv6.conf.{key}.disable_ipv6=1")

    def socket(self, interface):
        """A packet socket bound to an interface of this namespace; it stays in it."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/self/ns/net") as home, open(f"/run/netns/{self.name}") as there:
            if libc.setns(there.fileno(), 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
                made.bind((interface, ETHERTYPE))
            finally:
                libc.setns(home.fileno(), 0x40000000)
        return made

    def delete(self):
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)


class Lab:
    """Namespaces, veths and watching sockets. Use it with `with`: it cleans up whatever happens."""

    def __init__(self, prefix="wancheck", mtu=1500):
        self.names = [f"{prefix}-{os.getpid()}-{end}" for end in ("a", "wan", "b")]
        self.mtu = mtu
        self.namespaces = []

    def __enter__(self):
        try:
            self.namespaces = [Namespace(name) for name in self.names]
            a, wan, b = self.namespaces
            self.link(a, "a0", wan, "al")
            self.link(b, "b0", wan, "bl")
        except BaseException:
            self.__exit__()
            raise
        return self

    def link(self, host, host_end, wan, wan_end):
        run("ip", "link", "add", host_end, "netns", host.name, "mtu", str(self.mtu), "type", "veth",
            "peer", "name", wan_end, "netns", wan.name, "mtu", str(self.mtu))
        for namespace, interface in ((host, host_end), (wan, wan_end)):
            inside = ("ip", "netns", "exec", namespace.name)
            # Frames with partial checksums or of several segments exist on no wire.
            run(*inside, "ethtool", "-K", interface, "tx", "off", "rx", "off", "gso", "off",
                "tso", "off", "gro", "off")
            run(*inside, "ip", "link", "set", "dev", interface, "up", "arp", "off")

    def __exit__(self, *_):
        for namespace in self.namespaces:
            namespace.delete()

    def tap(self, where):
        """A socket that sees what arrives at one of a0, al, bl, b0, with the kernel's time."""
        namespace = self.namespaces[{"a": 0, "b": 2}[where[0]] if where[1] == "0" else 1]
        tap = namespace.socket(where)
        tap.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        tap.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        tap.setblocking(False)
        return tap


class Frames:
    """Frames of one length that carry their number, and the judge of what became of one."""

    def __init__(self, length):
        self.length = length
        fill = random.Random(length).randbytes(length - HEADER - 3 * LABEL.size)
        self.fill = fill
        self.ethernet = b"\x02\0\0\0\0\x01" + b"\x02\0\0\0\0\x02" + struct.pack(">H", ETHERTYPE)

    def make(self, seq, kind=DATA):
        label = LABEL.pack(seq, kind, zlib.crc32(seq.to_bytes(4)) & 0xFFFF)
        third = len(self.fill) // 3
        return b"".join((self.ethernet, label, self.fill[:third], label, self.fill[third:2 * third],
                         label, self.fill[2 * third:]))

    def read(self, frame):
        """(seq, kind) by majority of the three labels; None if there is no such label."""
        third = len(self.fill) // 3
        if len(frame) != self.length:
            return None
        starts = (HEADER, HEADER + LABEL.size + third, HEADER + 2 * (LABEL.size + third))
        a, b, c = (int.from_bytes(frame[s:s + LABEL.size]) for s in starts)
        seq, kind, check = LABEL.unpack(((a & b) | (a & c) | (b & c)).to_bytes(LABEL.size))
        if check != zlib.crc32(seq.to_bytes(4)) & 0xFFFF:
            return None
        return seq, kind

    def copy(self, frame, seq, kind, at):
        """What arrived, compared bit by bit with what was sent."""
        sent = self.make(seq, kind)
        if frame == sent:
            return Copy(at)
        differ = bytes(x ^ y for x, y in zip(frame, sent))
        half = HEADER + (self.length - HEADER) // 2
        bits = [int.from_bytes(part).bit_count() for part in (differ, differ[:half])]
        return Copy(at, bits[0], bits[1])


class Watch:
    """Reads taps until it is told to stop; keeps (time, frame) of every tap."""

    def __init__(self, taps):
        self.taps = taps
        self.seen = [[] for _ in taps]
        self.poll = select.poll()
        self.index = {}
        for i, tap in enumerate(taps):
            self.poll.register(tap, select.POLLIN)
            self.index[tap.fileno()] = i

    def until(self, deadline, done=lambda: False):
        while (left := deadline - time.monotonic()) > 0 and not done():
            for fd, _ in self.poll.poll(min(left, 0.05) * 1e3):
                i = self.index[fd]
                self.drain(self.taps[i], self.seen[i])

    @staticmethod
    def drain(tap, seen):
        while True:
            try:
                frame, control, _, _ = tap.recvmsg(16384, 64)
            except BlockingIOError:
                return
            for level, kind, data in control:
                if level == socket.SOL_SOCKET and kind == SCM_TIMESTAMPNS:
                    seconds, nanoseconds = struct.unpack("qq", data)
                    seen.append((seconds * 10**9 + nanoseconds, frame))

    def close(self):
        for tap in self.taps:
            tap.close()

    def dropped(self):
        """Frames that the checker itself has missed."""
        return sum(
            struct.unpack("II", tap.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
            for tap in self.taps
        )


def send_paced(socket_, frames, count, per_second):
    """Sends `count` numbered frames at an even pace, a millisecond's worth at a time."""
    start = time.monotonic()
    sent = 0
    while sent < count:
        due = min(count, int((time.monotonic() - start) * per_second) + 1)
        while sent < due:
            try:
                socket_.send(frames.make(sent))
                sent += 1
            except OSError:  # the interface's queue is full for a moment
                time.sleep(0.0005)
        time.sleep(0.001)


def flood(lab, emulator, frame_len, seconds):
    """Sends from a0 without a pause; frames a second offered, arrived in the best second, and
    arrived for each second of CPU time that the emulator took."""
    sender = lab.namespaces[0].socket("a0")
    sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    child = os.fork()
    if child == 0:
        hurry()
        frame = Frames(60).ethernet.ljust(frame_len, b"x")
        send = sender.send
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(1000):
                try:
                    send(frame)
                except OSError:
                    pass
        os._exit(0)

    def counted(where, namespace, name):
        file = f"/sys/class/net/{where}/statistics/{name}"
        inside = ("ip", "netns", "exec", lab.names[namespace], "cat", file)
        return time.monotonic(), int(subprocess.run(inside, capture_output=True, check=True).stdout)

    sent, arrived, cpu = [], [], []
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG) is None:
        sent.append(counted("a0", 0, "tx_packets"))
        arrived.append(counted("b0", 2, "rx_packets"))
        cpu.append(emulator.cpu_seconds())
        time.sleep(1)

    def rates(samples):
        return [(n1 - n0) / (t1 - t0) for (t0, n0), (t1, n1) in zip(samples, samples[1:])]

    per_cpu_second = (arrived[-1][1] - arrived[0][1]) / (cpu[-1] - cpu[0])
    return max(rates(sent)), max(rates(arrived)), per_cpu_second


def hurry():
    """Puts a child process before the machine's other work, as far as it may.

    Linux shares CPUs out to sessions first (autogroup), so the child becomes one of its own.
    """
    os.setsid()
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        with open("/proc/self/autogroup", "w") as autogroup:
            autogroup.write(str(NICENESS))
    except OSError:
        pass


class Emulator:
    """The emulator as a process in the middle namespace."""

    def __init__(self, lab, command, profile, seed):
        devices = (("--left", "al", 0), ("--right", "bl", 1))
        arguments = [
            text
            for flag, interface, i in devices
            for text in (flag, f"net_af_packet{i},iface={interface}")
        ]
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", lab.names[1], *command, "emulate", *arguments,
             *profile.flags(), "--seed", str(seed)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hurry)

    def cpu_seconds(self):
        """What it has used so far, in user and kernel mode."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        """Asks it to end and gives back what it printed."""
        self.process.terminate()
        try:
            out, err = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit("wan-check: the emulator did not end within 20 s of SIGTERM")
        finally:
            # EAL leaves an empty folder there for every process.
            shutil.rmtree(f"/run/dpdk/shardgate-emulate-{self.process.pid}", ignore_errors=True)
        if self.process.returncode != 0:
            raise SystemExit(f"wan-check: the emulator failed: {err.strip()}")
        return out


def await_emulator(lab, emulator, frames, watch, timeout=30):
    """Sends probes both ways until one has come through each way."""
    senders = [lab.namespaces[0].socket("a0"), lab.namespaces[2].socket("b0")]
    deadline = time.monotonic() + timeout

    def through():
        return all(any(frames.read(f) for _, f in watch.seen[i]) for i in (1, 3))

    while time.monotonic() < deadline and emulator.alive() and not through():
        for sender in senders:
            sender.send(frames.make(0, PROBE))
        watch.until(time.monotonic() + 0.1)
    if not through():
        emulator.stop()
        raise SystemExit("wan-check: nothing came through the emulator")


def measure(lab, command, profile, frame_len, per_second, seconds, seed):
    """Runs the emulator and traffic both ways; gives [Measured, Measured] and what it printed."""
    frames = Frames(frame_len)
    # Entry and arrival of a to b, then of b to a.
    watch = Watch([lab.tap(where) for where in ("al", "b0", "bl", "a0")])
    emulator = Emulator(lab, command, profile, seed)
    try:
        await_emulator(lab, emulator, frames, watch)
        way = (profile.delay_ms + 10 * profile.jitter_ms + 2 * profile.reorder_ms) / 1e3 + 1
        watch.until(time.monotonic() + way)
        children = []
        for namespace, interface in ((0, "a0"), (2, "b0")):
            sender = lab.namespaces[namespace].socket(interface)
            child = os.fork()
            if child == 0:
                try:
                    hurry()
                    send_paced(sender, frames, int(per_second * seconds), per_second)
                finally:
                    os._exit(0)
            children.append(child)
        watch.until(time.monotonic() + 4 * seconds + 30,
                    lambda: all(os.waitid(os.P_PID, c, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                                for c in children))
        for child in children:
            os.waitpid(child, 0)
        watch.until(time.monotonic() + way + (1 if profile.rate else 0))
    except BaseException:
        emulator.process.kill()
        emulator.process.communicate()
        raise
    report = emulator.stop()
    if watch.dropped():
        raise SystemExit("wan-check: the checker itself missed frames; nothing can be said")
    return [gather(frames, *watch.seen[i:i + 2]) for i in (0, 2)], report


def gather(frames, entries, arrivals):
    """Puts entries and arrivals of one direction together."""
    measured = Measured(frames.length)
    entered = {}
    for at, frame in entries:
        label = frames.read(frame)
        if label and label[1] == DATA:
            entered[label[0]] = at
            measured.entered.append((label[0], at / 1e9))
    for at, frame in arrivals:
        label = frames.read(frame)
        if label and label[1] == DATA:
            seq = label[0]
            copy = frames.copy(frame, seq, DATA, (at - entered[seq]) / 1e9)
            measured.arrived.setdefault(seq, []).append(copy)
            measured.order.append(seq)
    return measured
