"""Where in a gateway's statistics each figure stands; the only place that knows.

A figure is a path into the document. `*` goes through every element of a list or every value of
an object, and what several elements say is summed.
"""

FIGURES = {
    # Frames, as the LAN port's side of the gateway counts them.
    "lan_rx_frames": "ports.lan0.rx_packets",
    "lan_tx_frames": "ports.lan0.tx_packets",
    "lan_rx_missed": "ports.lan0.rx_missed",
    # Datagrams, as the WAN port counts them.
    "wan_rx_datagrams": "ports.wan0.rx_packets",
    "wan_tx_datagrams": "ports.wan0.tx_packets",
    # Shards.
    "shards_sent": "peers.*.shards_sent",
    "shards_received": "peers.*.shards_received",
    # Delivery.
    "frames_delivered": "peers.*.frames_delivered",
    "frames_straggled": "peers.*.frames_straggled",
    "frames_lost": "peers.*.frames_lost",
}
# What a person wants to see of a run.
SUMMARY = (
    "lan_rx_frames", "shards_sent", "shards_received", "frames_delivered", "frames_straggled",
    "frames_lost",
)  # fmt: skip
DROPS = "drops"
UNITS = "units"
POOLS = "pools"

# Reasons for the death of what an attacker or a bad line puts on the WAN.
REASONS_OF_INJECTION = {
    "garbage": ("malformed", "version", "kind", "unknown_receiver", "not_for_us"),
    "truncated": ("malformed", "forged"),
    "forged": ("forged",),
    "unknown receiver": ("unknown_receiver",),
    "replayed": ("replayed", "too_old", "duplicate"),
    "bad checksum": ("outer_checksum",),
}


def figure(document, name):
    """One figure of a statistics document or a final report, summed."""
    return sum(_numbers(document, FIGURES[name].split(".")))


def drops(document):
    """Deaths by reason; only those that happened."""
    return {reason: count for reason, count in _at(document, DROPS).items() if count}


def dropped(document, reasons):
    """Deaths for any of these reasons."""
    found = _at(document, DROPS)
    return sum(found[reason] for reason in reasons)


def units(document):
    """Per crypto unit: its name and how many shards it sealed and opened."""
    return [(unit["name"], unit["sealed"], unit["opened"]) for unit in _at(document, UNITS)]


def pools(document):
    """Per pool: its name, size, and how many of its buffers are in use."""
    return [(pool["name"], pool["size"], pool["in_use"]) for pool in _at(document, POOLS)]


def _at(document, path):
    for step in path.split("."):
        document = document[step]
    return document


def _numbers(value, steps):
    if not steps:
        yield value
    elif steps[0] == "*":
        for element in value.values() if isinstance(value, dict) else value:
            yield from _numbers(element, steps[1:])
    elif isinstance(value, list):
        # A list of named things is addressed by name.
        for element in value:
            if element.get("name") == steps[0]:
                yield from _numbers(element, steps[1:])
    else:
        yield from _numbers(value[steps[0]], steps[1:])
