"""A shardgate gateway in its namespace: configuration, process, statistics."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import re
import socket
import time

from . import registry
from .process import LabError, run, socket_within

STATS_PORT = 9460
LISTEN_PORT = 4600
PLACEMENTS = ("inline", "lcores")


def as_toml(settings):
    """Writes nested dictionaries as TOML; a list of dictionaries is an array of tables."""
    return "\n".join(_tables(settings, ())) + "\n"


def _tables(table, path):
    plain = {k: v for k, v in table.items() if not _is_table(v)}
    for key, value in plain.items():
        yield f"{key} = {_value(value)}"
    for key, value in table.items():
        if not _is_table(value):
            continue
        name = ".".join((*path, key))
        for item in value if isinstance(value, list) else [value]:
            yield ""
            yield f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
            yield from _tables(item, (*path, key))


def _is_table(value):
    return isinstance(value, dict) or (
        isinstance(value, list) and value != [] and isinstance(value[0], dict)
    )


def _value(value):
    # JSON's strings, numbers, booleans and arrays of them are TOML's.
    return json.dumps(value)


def parse_setting(text):
    """`section.key=value` as ((section, key), value); a value that is not JSON is a string."""
    name, found, value = text.partition("=")
    path = tuple(name.split("."))
    if not found or len(path) != 2 or not all(path):
        raise LabError(f"'{text}' is not section.key=value")
    with contextlib.suppress(json.JSONDecodeError):
        value = json.loads(value)
    return path, value


def make_keys(lab, node):
    """A key pair made by the program itself; returns (private key file, public key)."""
    private = lab.directory / f"{node}.key"
    if not private.exists():
        run(lab.binary, "keygen", "--out", private)
    return private, run(lab.binary, "pubkey", private).stdout.strip()


def make_preshared_key(lab, name="preshared.key"):
    path = lab.directory / name
    if not path.exists():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(base64.b64encode(os.urandom(32)) + b"\n")
    return path


class Gateway:
    """One of the two gateways, `a` or `b`."""

    def __init__(self, lab, side, *, placement="inline", hugepages=True, settings=()):
        self.lab = lab
        self.side = side
        self.node = f"{lab.name}-gw-{side}"
        self.namespace = lab.namespace(f"gw-{side}")
        self.process = None
        self.configuration = self._configuration(placement, hugepages)
        for (section, key), value in settings:
            self.configuration.setdefault(section, {})[key] = value

    def _configuration(self, placement, hugepages):
        other = "b" if self.side == "a" else "a"
        private, _ = make_keys(self.lab, self.node)
        _, peer_key = make_keys(self.lab, f"{self.lab.name}-gw-{other}")
        path = {
            "name": "wan",
            "port": "wan0",
            "remote": f"{self.lab.wan_address(other)}:{LISTEN_PORT}",
        }
        return {
            "node": {"name": self.node, "private_key_file": str(private)},
            "dpdk": {"hugepages": "required" if hugepages else "off"},
            "pipeline": {"crypto": placement},
            "port": [
                {
                    "name": "lan0",
                    "device": "net_af_packet0,iface=lan0",
                    "role": "lan",
                    "mtu": self.lab.lan_mtu,
                },
                {
                    "name": "wan0",
                    "device": "net_af_packet1,iface=wan0",
                    "role": "wan",
                    "mtu": self.lab.wan_mtu,
                    "address": f"{self.lab.wan_address(self.side)}/24",
                },
            ],
            "peer": [
                {
                    "name": f"{self.lab.name}-gw-{other}",
                    "public_key": peer_key,
                    "preshared_key_file": str(make_preshared_key(self.lab)),
                    "lan": "lan0",
                    "path": [path],
                }
            ],
            "tunnel": {"listen_port": LISTEN_PORT},
            "stats": {"listen": f"127.0.0.1:{STATS_PORT}"},
        }

    @property
    def file(self):
        return self.lab.directory / f"{self.node}.toml"

    def refusal(self):
        """The one line with which the program refuses this configuration, or None."""
        self.file.write_text(as_toml(self.configuration))
        command = (self.lab.binary, "run", "--config", self.file, "--check")
        done = self.lab.inside(f"gw-{self.side}", *command, check=False)
        if done.returncode == 0:
            return None
        lines = [line for line in done.stderr.splitlines() if not line.startswith("note")]
        line = lines[-1] if lines else f"--check ended with {done.returncode}"
        # Which file and line it was does not matter: the lab wrote it.
        return re.sub(rf"^shardgate: ({re.escape(str(self.file))}:(\d+: )? ?)?", "", line)

    def start(self):
        """Starts the process and waits until it says that it is healthy."""
        self.launch()
        self.wait_until_healthy()

    def launch(self):
        """Starts the process."""
        self.file.write_text(as_toml(self.configuration))
        # EAL's runtime folder; it stays when the process ends.
        self.lab.sweep_up(registry.files_of_gateway(self.lab.name, self.side))
        self.process = self.lab.start(
            f"gw-{self.side}", (self.lab.binary, "run", "--config", self.file), f"gw-{self.side}"
        )

    def wait_until_healthy(self):
        """It says so when every lcore loops and the ports have link."""
        self.process.wait_until(self.healthy, "healthy")

    def stop(self):
        """SIGTERM; returns the final report that it prints."""
        started = time.monotonic()
        exit_code = self.lab.stop(self.process)
        if exit_code != 0:
            raise LabError(f"gw-{self.side} ended with {exit_code}:\n{self.process.tail()}")
        try:
            report = json.loads(self.process.output())
        except json.JSONDecodeError as error:
            raise LabError(f"gw-{self.side}: its last words are not JSON: {error}") from error
        report["stopped_in_s"] = time.monotonic() - started
        return report

    def kill(self):
        """SIGKILL: a crash."""
        self.lab.kill(self.process)

    def get(self, path):
        """GET from the stats endpoint, which listens inside the namespace; (status, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", STATS_PORT, timeout=5)
        connection.sock = socket_within(self.namespace, socket.AF_INET, socket.SOCK_STREAM)
        connection.sock.settimeout(5)
        with contextlib.closing(connection):
            connection.sock.connect(("127.0.0.1", STATS_PORT))
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def healthy(self):
        try:
            return self.get("/healthz")[0] == 200
        except OSError:
            return False

    def stats(self):
        """The whole statistics document."""
        status, body = self.get("/stats")
        if status != 200:
            raise LabError(f"gw-{self.side}: GET /stats answered {status}")
        return json.loads(body)

    def crypto_threads(self):
        """The threads of its crypto lcores, in the order of the lcores."""
        names = {}
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            # EAL names a thread after its lcore.
            found = re.fullmatch(r"\D*?(\d+)", task.joinpath("comm").read_text().strip())
            if found:
                names[int(found[1])] = int(task.name)
        lcores = [lcore["id"] for lcore in self.stats()["lcores"] if lcore["kind"] == "crypto"]
        missing = [lcore for lcore in lcores if lcore not in names]
        if missing:
            raise LabError(f"gw-{self.side}: no thread of lcore {missing[0]}")
        return [names[lcore] for lcore in lcores]

    def resident_kib(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise LabError(f"gw-{self.side} has no resident memory")
