"""The five namespaces, what runs in them, and the certainty that nothing stays behind."""

import contextlib
import json
import os
import pathlib
import secrets
import signal
import sys
import time

from . import counters, machine, registry, wan
from .gateway import Gateway
from .machine import LABS
from .measure import await_answer
from .process import LabError, Process, identity, run, say, within
from .registry import NODES, PLAIN_NODES

# (namespace, interface, namespace, interface, which network)
LINKS = (
    ("host-a", "lan0", "gw-a", "lan0", "lan"),
    ("gw-a", "wan0", "wan", wan.LEFT, "wan"),
    ("wan", wan.RIGHT, "gw-b", "wan0", "wan"),
    ("gw-b", "lan0", "host-b", "lan0", "lan"),
)
# With a shared bottleneck each side of the WAN is a switch, to which a host without a gateway is
# joined beside the gateway; the emulator lies between the switches.
SHARED_LINKS = (
    ("host-a", "lan0", "gw-a", "lan0", "lan"),
    ("gw-a", "wan0", "wan", "gw-port-a", "wan"),
    ("plain-a", "wan0", "wan", "plain-port-a", "wan"),
    ("wan", "path-port-a", "wan", wan.LEFT, "wan"),
    ("wan", wan.RIGHT, "wan", "path-port-b", "wan"),
    ("wan", "plain-port-b", "plain-b", "wan0", "wan"),
    ("wan", "gw-port-b", "gw-b", "wan0", "wan"),
    ("gw-b", "lan0", "host-b", "lan0", "lan"),
)
OFFLOADS = ("rx", "off", "tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off")
TCP_BUFFER_BYTES = 64 << 20
WIREGUARD_MTU = 1420
WIREGUARD_PORT = 51820
WIREGUARD_TRIES = 3
# Longer than lcores take to publish what they counted; each gateway probes the other once a second.
SETTLING_S = 0.1
SETTLING_LOOKS_MAX = 20
# Three processes (two gateways, the emulator); the pools of each fit in this.
HUGEPAGES_MIB_PER_PROCESS = 384


def default_binary():
    """Where cargo puts the program, unless SHARDGATE names it."""
    root = pathlib.Path(__file__).resolve().parents[2]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    return pathlib.Path(os.environ.get("SHARDGATE", target / "release" / "shardgate"))


class Tunnel:
    """Two running gateways."""

    def __init__(self, a, b, target):
        self.a = a
        self.b = b
        self.target = target

    @property
    def both(self):
        return (self.a, self.b)

    def stats(self):
        """Both documents, as soon as nothing moves, so that all figures are of one moment.

        A gateway counts at its ports at once, and what its lcores did a little later.
        """
        looks = [[gateway.stats() for gateway in self.both]]
        while len(looks) < 2 or counters.moved(*looks[-2:]) and len(looks) < SETTLING_LOOKS_MAX:
            time.sleep(SETTLING_S)
            looks.append([gateway.stats() for gateway in self.both])
        return looks[-1]


class Lab:
    """Use it in a `with` block: leaving the block takes everything down.

    Traffic goes by `plain()`, `wireguard()` or `shardgate()`, each a context that yields what the
    far host is to be addressed by (for shardgate, a `Tunnel`).
    """

    def __init__(
        self,
        *,
        path=None,
        lan_mtu=1500,
        wan_mtu=1500,
        hugepages="auto",
        binary=None,
        name=None,
        orphan=False,
        shared=False,
    ):
        self.name = name or f"sg{secrets.token_hex(2)}"
        if not registry.NAME.fullmatch(self.name):
            raise LabError(f"'{self.name}': {registry.NAME_RULE}")
        self.path = path
        self.lan_mtu = lan_mtu
        self.wan_mtu = wan_mtu
        self.hugepages = hugepages
        self.binary = pathlib.Path(binary or default_binary())
        self.directory = LABS / self.name
        self.orphan = orphan
        self.nodes = (*NODES, *PLAIN_NODES) if shared else NODES
        self.links = SHARED_LINKS if shared else LINKS
        self.wan = None
        self._processes = []
        # What is on the list of labs; nothing as long as the name may be another lab's.
        self._state = None

    # Coming and going

    def __enter__(self):
        if os.geteuid() != 0:
            raise LabError("the lab makes network namespaces: run it as root")
        if self.path and not self.binary.exists():
            raise LabError(f"{self.binary} is missing: cargo build --release -p shardgate")
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _leave)
        try:
            self._make()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None and not issubclass(kind, (SystemExit, KeyboardInterrupt)):
            # Another's `scripts/lab down` may have taken the logs.
            with contextlib.suppress(OSError):
                self.show_logs()
        # Nothing may interrupt taking down; a second Ctrl-C least of all.
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
        try:
            for process in reversed(self._processes):
                process.stop()
            if self._state:
                # An interrupt may have come before it was noted what an emulator leaves.
                for process in self._processes:
                    self.sweep_up(registry.files_of_emulator(process.pid))
                with machine.record() as record:
                    registry.remove(self.name, record)
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _make(self):
        with machine.record() as record:
            registry.sweep(record)
            registry.require_free(self.name)
            self._state = registry.State(identity(os.getpid()))
            registry.add(self.name, self._state)
            self._claim_machine(record)
        for node in self.nodes:
            run("ip", "netns", "add", self.namespace(node))
            self.inside(node, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
            self.inside(node, "ip", "link", "set", "lo", "up")
        for link in self.links:
            self._make_link(*link)
        for side, far in (("a", "b"), ("b", "a")):
            host = f"host-{side}"
            self.inside(host, "ip", "address", "add", f"{self.flat(side)}/24", "dev", "lan0")
            self.inside(host, "ip", "address", "add", f"{self.routed(side)}/24", "dev", "lan0")
            self.inside(
                host, "ip", "route", "add", f"{self.routed_net(far)}/24",
                "via", self.routed_gateway(side),
            )  # fmt: skip
            self._widen_buffers(host)
            if f"plain-{side}" in self.nodes:
                self._join_plain_host(side)
        self.set_path(self.path)

    def introduce_hosts(self):
        """Hosts know each other's hardware address for good.

        Linux confirms a neighbour every half minute or so, asks once a second, and drops the address
        if the tunnel was down three times it asked: no judge of how soon the tunnel is up.
        """
        for side, far in (("a", "b"), ("b", "a")):
            self.inside(
                f"host-{side}", "ip", "neighbour", "replace", self.flat(far),
                "lladdr", mac(f"host-{far}", "lan0"), "dev", "lan0", "nud", "permanent",
            )  # fmt: skip

    def _widen_buffers(self, host):
        for name in ("rmem", "wmem"):
            value = f"net.ipv4.tcp_{name}=4096 131072 {TCP_BUFFER_BYTES}"
            self.inside(host, "sysctl", "-qw", value)

    def _join_plain_host(self, side):
        """Gives a plain host its address and makes its side's switch."""
        host, switch = f"plain-{side}", f"switch-{side}"
        self.inside(host, "ip", "address", "add", f"{self.beside(side)}/24", "dev", "wan0")
        self._widen_buffers(host)
        ports = [f"{what}-port-{side}" for what in ("gw", "plain", "path")]
        wan.make_bridge(self, switch, ports)

    def _claim_machine(self, record):
        """Settles whether hugepages are used: afterwards `hugepages` is True or False."""
        need = 0 if self.hugepages in ("off", False) else 3 * HUGEPAGES_MIB_PER_PROCESS
        try:
            machine.claim(record, hugepages_mib=need)
        except LabError as error:
            if self.hugepages != "auto":
                raise
            say(f"without hugepages: {error}")
            need = 0
        self.hugepages = need > 0

    def _make_link(self, left, left_device, right, right_device, network):
        mtu = self.lan_mtu if network == "lan" else self.wan_mtu
        run(
            "ip", "link", "add", left_device, "mtu", mtu, "address", mac(left, left_device),
            "netns", self.namespace(left), "type", "veth",
            "peer", "name", right_device, "mtu", mtu, "address", mac(right, right_device),
            "netns", self.namespace(right),
        )  # fmt: skip
        for node, device in ((left, left_device), (right, right_device)):
            self.inside(node, "ethtool", "-K", device, *OFFLOADS)
            self.inside(node, "ip", "link", "set", device, "txqueuelen", 10_000, "up")

    def leave_up(self):
        """Ends this program and leaves the lab as it is; for labs made with `orphan`."""
        self._state.owner = None
        registry.write_state(self.directory, self._state)
        sys.stdout.flush()
        # Not an ordinary exit: that would leave the `with` blocks and take the lab down.
        os._exit(0)

    def how_to_look(self, *, routed=False):
        """What somebody may want to do with a lab that stays up."""
        target = self.routed("b") if routed else self.flat("b")
        lines = [
            f"The lab {self.name} is up: host-a reaches host-b at {target}.",
            f"  scripts/lab enter {self.name} host-a ping {target}",
        ]
        if not routed:
            lines.append(f"  scripts/lab enter {self.name} gw-a {self.binary} stats")
        lines.append(f"  logs and configuration: {self.directory}")
        lines.append(f"To take it down: scripts/lab down {self.name}")
        return "\n".join(lines)

    def show_logs(self):
        for process in self._processes:
            say(process.tail())

    # Names and addresses

    def namespace(self, node):
        return f"{self.name}-{node}"

    @staticmethod
    def flat(side):
        """A host's address when the sites are one network (shardgate, layer 2)."""
        return {"a": "10.80.0.1", "b": "10.80.0.2"}[side]

    @staticmethod
    def routed(side):
        """A host's address when the gateways route (plain, wireguard-go)."""
        return {"a": "10.81.1.2", "b": "10.81.2.2"}[side]

    @staticmethod
    def routed_gateway(side):
        return {"a": "10.81.1.1", "b": "10.81.2.1"}[side]

    @staticmethod
    def routed_net(side):
        return {"a": "10.81.1.0", "b": "10.81.2.0"}[side]

    @staticmethod
    def wan_address(side):
        return {"a": "10.82.0.1", "b": "10.82.0.2"}[side]

    @staticmethod
    def beside(side):
        """A plain host's address, in the network of the gateways' WAN ports."""
        return {"a": "10.82.0.11", "b": "10.82.0.12"}[side]

    # Running things

    def inside(self, node, *command, **options):
        """Runs a command to its end inside a node."""
        return run(*within(self.namespace(node), *command), **options)

    def start(self, name, command, node, *, env=None):
        """Starts a process inside a node; the lab stops it if nobody else does."""
        process = Process(
            name, command, self.directory,
            namespace=self.namespace(node), orphan=self.orphan, env=env,
        )  # fmt: skip
        self._processes.append(process)
        return process

    def stop(self, process):
        """Stops a process that `start` made; returns its exit code."""
        exit_code = process.stop()
        self._processes.remove(process)
        return exit_code

    def kill(self, process):
        """SIGKILL: a crash."""
        process.child.kill()
        process.child.wait()
        self._processes.remove(process)

    def sweep_up(self, pattern):
        """Notes files that a process leaves behind, orderly or not, for when the lab ends."""
        if pattern not in self._state.files:
            self._state.files.append(pattern)
            registry.write_state(self.directory, self._state)

    def set_path(self, path):
        """Changes what lies between the gateways; returns the counters of what lay there."""
        counters = self.cut()
        self.path = path
        self.wan = wan.Emulator(self, path) if path else wan.Bridge(self)
        self.wan.start()
        return counters

    def cut(self):
        """Takes away what lies between the gateways; returns its counters."""
        counters = self.wan.stop() if self.wan else None
        self.wan = None
        return counters

    def link_counters(self, node):
        """The kernel's counters of a node's interfaces, as `ip -s -j link` names them."""
        links = json.loads(self.inside(node, "ip", "-s", "-j", "link").stdout)
        return {link["ifname"]: link["stats64"] for link in links}

    @contextlib.contextmanager
    def silent_hosts(self):
        """The hosts send nothing of their own: no ARP, which comes when nobody expects it."""
        for side in "ab":
            self.inside(f"host-{side}", "ip", "link", "set", "lan0", "arp", "off")
        try:
            yield
        finally:
            for side in "ab":
                self.inside(f"host-{side}", "ip", "link", "set", "lan0", "arp", "on")

    # Carrying traffic

    @contextlib.contextmanager
    def _kernel_gateways(self):
        """The gateways' kernels own addresses and route; yields the stack that undoes it."""
        with contextlib.ExitStack() as undo:
            for side in "ab":
                node = f"gw-{side}"
                for address, device in (
                    (self.routed_gateway(side), "lan0"),
                    (self.wan_address(side), "wan0"),
                ):
                    self.inside(node, "ip", "address", "add", f"{address}/24", "dev", device)
                    undo.callback(self.inside, node, "ip", "address", "flush", "dev", device)
                self.inside(node, "sysctl", "-qw", "net.ipv4.ip_forward=1")
                undo.callback(self.inside, node, "sysctl", "-qw", "net.ipv4.ip_forward=0")
            yield undo

    def _route(self, side, *how):
        far = "b" if side == "a" else "a"
        node = f"gw-{side}"
        self.inside(node, "ip", "route", "replace", f"{self.routed_net(far)}/24", *how)

    @contextlib.contextmanager
    def plain(self):
        """No tunnel: the gateways route. Yields host-b's address."""
        with self._kernel_gateways():
            self._route("a", "via", self.wan_address("b"))
            self._route("b", "via", self.wan_address("a"))
            yield self._reached(self.routed("b"))

    @contextlib.contextmanager
    def wireguard(self):
        """wireguard-go between the gateways. Yields host-b's address."""
        with self._kernel_gateways() as undo:
            # Seen once, on a machine robbed of its CPUs: a pair whose handshake never ended.
            # Another pair is another try.
            for tries_left in reversed(range(WIREGUARD_TRIES)):
                pair = undo.enter_context(contextlib.ExitStack())
                processes = self._start_wireguard(pair)
                try:
                    target = self._reached(self.routed("b"))
                    break
                except LabError as error:
                    said = "\n".join(process.tail() for process in processes)
                    if not tries_left:
                        raise LabError(f"{error}\n{said}") from None
                    say(f"wireguard-go is started again: {error}\n{said}")
                    pair.close()
            yield target

    def _start_wireguard(self, undo):
        keys = {side: run("wg", "genkey").stdout for side in "ab"}
        public = {side: run("wg", "pubkey", stdin=keys[side]).stdout.strip() for side in "ab"}
        processes = []
        for side, far in (("a", "b"), ("b", "a")):
            node, device = f"gw-{side}", f"{self.name}wg{side}"
            process = self.start(
                f"wireguard-{side}", ("wireguard-go", "-f", device), node,
                env={"LOG_LEVEL": "verbose"},
            )  # fmt: skip
            processes.append(process)
            undo.callback(self.stop, process)
            control = registry.wireguard_socket(self.name, side)
            self.sweep_up(str(control))
            process.wait_until(control.exists, "up")
            key_file = self.directory / f"wireguard-{side}.key"
            key_file.touch(mode=0o600)
            key_file.write_text(keys[side])
            self.inside(
                node, "wg", "set", device, "listen-port", WIREGUARD_PORT,
                "private-key", key_file, "peer", public[far], "allowed-ips", "0.0.0.0/0",
                "endpoint", f"{self.wan_address(far)}:{WIREGUARD_PORT}",
            )  # fmt: skip
            self.inside(node, "ip", "link", "set", device, "mtu", WIREGUARD_MTU, "up")
            self._route(side, "dev", device)
        return processes

    @contextlib.contextmanager
    def shardgate(self, *, placement="inline", settings=(), wait=True):
        """Two gateways. Yields the `Tunnel`, with traffic flowing unless told not to wait."""
        gateways = [
            Gateway(self, side, placement=placement, hugepages=self.hugepages, settings=settings)
            for side in "ab"
        ]
        try:
            for gateway in gateways:
                gateway.launch()
            for gateway in gateways:
                gateway.wait_until_healthy()
            if wait:
                self._reached(self.flat("b"))
            yield Tunnel(*gateways, self.flat("b"))
        finally:
            for gateway in gateways:
                if gateway.process and gateway.process in self._processes:
                    self.stop(gateway.process)

    def refusal(self, *, placement="inline", settings=()):
        """The one line with which the program refuses such gateways, or None."""
        gateway = Gateway(
            self, "a", placement=placement, hugepages=self.hugepages, settings=settings
        )
        return gateway.refusal()

    def require(self, placements, settings):
        """Ends with the program's line if it refuses such gateways: before anything is measured."""
        for placement in placements:
            line = self.refusal(placement=placement, settings=settings)
            if line:
                raise LabError(line)

    def _reached(self, target, *, timeout=15):
        """Waits until host-a has an answer from host-b; returns the target."""
        if not await_answer(self.namespace("host-a"), target, timeout=timeout):
            raise LabError(f"host-a does not reach {target} after {timeout:g} s")
        return target


def mac(node, device):
    """A fixed, locally administered address for each end of each link."""
    if any((node, device) in (link[:2], link[2:4]) for link in LINKS):
        number = NODES.index(node) * 2 + (device in ("wan0", wan.RIGHT))
    else:
        ends = [end for link in SHARED_LINKS for end in (link[:2], link[2:4])]
        number = 0x80 + ends.index((node, device))
    return f"02:53:47:00:00:{number:02x}"


def _leave(number, _frame):
    raise SystemExit(128 + number)
