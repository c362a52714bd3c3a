"""Shows shardgate beside no tunnel and beside wireguard-go, over a clean and over a lossy WAN.

Makes two sites, two gateways and an emulated WAN in network namespaces, measures ping and TCP
(cubic) from host to host, prints one table, and takes everything down again.
"""

import argparse
import contextlib
import json
import sys

from . import counters, measure, options, wan
from .machine import versions
from .process import LabError, say
from .table import number, table

PATHS = (("clean", wan.CLEAN), ("lossy", wan.LOSSY))
CARRIERS = ("no tunnel", "wireguard-go", "shardgate")
HEADER = ("", "ping median", "95 %", "pings lost", "TCP cubic", "repeats by TCP")
LINE = 78


def main():
    parser = options.parser("scripts/demo", __doc__)
    options.add_lab_options(parser)
    parser.add_argument(
        "--seconds", type=options.count, default=8, help="length of a TCP run (default: 8)"
    )
    parser.add_argument("--pings", type=options.count, default=150, help="default: 150")
    parser.add_argument("--keep", action="store_true", help="leave the lab up at the end")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    # What scripts/demo asks for before it installs and builds.
    parser.add_argument("--only-parse", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_parse:
        return
    try:
        with contextlib.ExitStack() as stack:
            lab = options.lab_of(arguments, path=PATHS[0][1], orphan=arguments.keep)
            stack.enter_context(lab)
            lab.require([arguments.placement], arguments.settings)
            report = measure_all(lab, arguments)
            print(json.dumps(report) if arguments.json else as_text(report), flush=True)
            if arguments.keep:
                stack.enter_context(shardgate(lab, arguments))
                say(lab.how_to_look())
                lab.leave_up()
    except LabError as error:
        sys.exit(f"scripts/demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def measure_all(lab, arguments):
    """Every path, every carrier; returns the document that --json prints."""
    report = {
        "versions": dict(versions(lab.binary)),
        "placement": arguments.placement,
        "hugepages": lab.hugepages,
        "seconds": arguments.seconds,
        "paths": [],
    }
    for name, path in PATHS:
        if lab.path != path:
            lab.set_path(path)
        rows, gateways = [], {}
        for carrier in CARRIERS:
            say(f"measuring: {path.describe()}: {carrier}")
            with carried(lab, carrier, arguments) as (target, tunnel):
                rows.append({"carrier": carrier, **measure_one(lab, target, arguments)})
                if tunnel:
                    gateways = {gateway.side: gateway.stats() for gateway in tunnel.both}
        report["paths"].append(
            {"name": name, "path": path.describe(), "rows": rows, "gateways": gateways}
        )
    return report


@contextlib.contextmanager
def carried(lab, carrier, arguments):
    """Yields the far host's address and, for shardgate, the tunnel."""
    if carrier == "shardgate":
        with shardgate(lab, arguments) as tunnel:
            yield tunnel.target, tunnel
    else:
        with lab.plain() if carrier == "no tunnel" else lab.wireguard() as target:
            yield target, None


def shardgate(lab, arguments):
    return lab.shardgate(placement=arguments.placement, settings=arguments.settings)


def measure_one(lab, target, arguments):
    ping = measure.ping(lab.namespace("host-a"), target, count=arguments.pings)
    goodput = measure.tcp_goodput(lab, target, seconds=arguments.seconds)
    return {"ping": ping.as_json(), "tcp": goodput.as_json()}


def as_text(report):
    lines = [f"{name + ':':14} {text}" for name, text in report["versions"].items()]
    lines.append(f"{'gateways:':14} two, on DPDK af_packet; crypto units {report['placement']},")
    lines[-1] += f" {'with' if report['hugepages'] else 'without'} hugepages"
    lines.append(f"{'TCP:':14} cubic, one flow, {report['seconds']} s, buffers up to 64 MiB")
    rows = []
    for path in report["paths"]:
        rows += [None] if rows else []
        rows.append((path["path"],))
        for row in path["rows"]:
            ping, tcp = row["ping"], row["tcp"]
            rows.append(
                (
                    f"  {row['carrier']}",
                    number(ping["median_ms"], 2, " ms"),
                    number(ping["p95_ms"], 2, " ms"),
                    number(ping["lost_percent"], 1, " %"),
                    number(tcp["mbit_per_s"], 1, " Mbit/s"),
                    str(tcp["retransmits"]),
                )
            )
    lines += ["", table(HEADER, rows), ""]
    for path in report["paths"]:
        lines.append(f"What the gateways counted ({path['path']}):")
        for side, document in path["gateways"].items():
            lines += gateway_lines(side, document)
    return "\n".join(lines)


def gateway_lines(side, document):
    """A gateway's own counters, wrapped."""
    words = [
        f"{counters.figure(document, name)} {name.replace('_', ' ')}" for name in counters.SUMMARY
    ]
    words += [f"{count} dropped: {reason}" for reason, count in counters.drops(document).items()]
    words += [
        f"unit {name}: {sealed} sealed, {opened} opened"
        for name, sealed, opened in counters.units(document)
    ]
    line = f"  gw-{side}: "
    for word in words:
        if len(line) + len(word) > LINE:
            yield line.rstrip()
            line = " " * 8
        line += f"{word}; " if word is not words[-1] else word
    yield line


if __name__ == "__main__":
    main()
