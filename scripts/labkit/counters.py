"""Where in a gateway's statistics each figure stands; the only place that knows.

A figure is a path into the document. `*` goes through every element of a list or every value of
an object, and what several elements say is summed.
"""

FIGURES = {
    # Frames on the LAN port, as its driver counts them.
    "lan_rx_frames": "ports.lan0.rx_frames",
    "lan_tx_frames": "ports.lan0.tx_frames",
    "lan_rx_missed": "ports.lan0.rx_missed",
    # Datagrams on the WAN port.
    "wan_rx_datagrams": "ports.wan0.rx_frames",
    "wan_tx_datagrams": "ports.wan0.tx_frames",
    "wan_rx_missed": "ports.wan0.rx_missed",
    # Frames that got a place in a lane, and so in a shard.
    "frames_entered": "peers.*.streams_out.*.frames",
    # Source shards sent for the first time; and everything that was numbered, and so sealed: those,
    # repeats, repair, and feedback.
    "shards_sent": "peers.*.streams_out.*.shards",
    "numbered": "peers.*.streams_out.*.numbered",
    "shards_received": "peers.*.streams_in.*.shards",
    # Delivery. A frame whose place in its lane was passed over is lost, unless it is recovered:
    # then it is delivered late, as a straggler.
    "frames_delivered": "peers.*.streams_in.*.frames",
    "frames_straggled": "peers.*.streams_in.*.stragglers",
    "frames_passed_over": "peers.*.streams_in.*.frames_skipped",
    "frames_recovered": "peers.*.streams_in.*.frames_recovered",
    # How often a stream was begun anew, and a key agreed on.
    "stream_resets": "peers.*.streams_in.*.resets",
    "stream_jumps": "peers.*.streams_in.*.jumps",
    "sessions_established": "sessions.*.sessions_established",
    # What the control thread sends by itself: handshakes, ARP.
    "control_frames": "network.sent",
}
FIGURES_OF_PORTS = ("lan_rx_frames", "lan_tx_frames", "wan_rx_datagrams", "wan_tx_datagrams")
# Of the emulator: frames that died without the model, and what its lateness (p99) may be.
WAYS = ("left_to_right", "right_to_left")
OVERFLOWS_OF_EMULATOR = ("no_buffer_drops", "tx_full_drops", "rx_missed", "rx_no_mbuf", "tx_errors")
LATENESS_MS_MAX = 10
# What a person wants to see of a run.
SUMMARY = (
    "lan_rx_frames", "shards_sent", "shards_received", "frames_delivered", "frames_straggled",
    "frames_passed_over", "frames_recovered",
)  # fmt: skip
DROPS = "drops"
UNITS = "units"
# A final report says how the pools were left; a running gateway, how they are.
POOLS = ("pools_at_exit", "pools")

# Frames that died before they entered a shard. (`queue_control` also counts late repairs of losses
# that a receiver passed on; there are none without a full queue.)
REASONS_AT_ENTRANCE = (
    "no_session", "no_path", "no_peer", "frame_size", "not_linear", "no_buffer", "key_exhausted",
    "ring_full", "queue_control",
)  # fmt: skip
# Frames that had a place in their lane and were not delivered all the same. (`incomplete` counts
# the remains of frames whose places were passed over, and those are counted already.)
REASONS_AT_DELIVERY = ("tx_full",)
# What was numbered and counted as sent, and did not leave the WAN port.
REASONS_AT_WAN_EXIT = ("seal_failed", "ring_full", "no_buffer", "tx_full", "stopping")

# What the streams of a peer count. A program without one of them is an older one: that is `None`,
# and a dash in a table.
OF_STREAMS = (
    # What was added to the source shards, by cause.
    "source_bytes", "repeats_sent", "repeat_bytes", "repair_sent", "repair_bytes",
    "tail_repair_sent", "tail_repair_bytes", "feedback_sent", "feedback_bytes", "over_budget",
    "queue_signals", "queue_marks",
    # What was missing, and what became of it.
    "holes", "holes_filled", "holes_recovered", "holes_given_up", "holes_passed_on",
    "shards_asked", "asked_needlessly", "asks_deferred", "shards_repeated", "shards_rebuilt",
    "repairs_needless", "rebuilt_wrong",
)  # fmt: skip
STREAMS = ("streams_in", "streams_out")
# What every datagram costs: Ethernet, IPv4, UDP. And every shard, whatever the settings: that,
# clear header, shard header, tag (wire/SPEC.md).
BYTES_PER_DATAGRAM = 14 + 20 + 8
BYTES_PER_SHARD = BYTES_PER_DATAGRAM + 16 + 24 + 16
# What is sent beyond source shards, by name: how many datagrams, and their bytes when sealed.
ADDITIONS = {
    "repeats": ("repeats_sent", "repeat_bytes"),
    "repair": ("repair_sent", "repair_bytes"),
    "tail_repair": ("tail_repair_sent", "tail_repair_bytes"),
    "feedback": ("feedback_sent", "feedback_bytes"),
}

# Reasons for the death of what an attacker or a bad line puts on the WAN.
HANDSHAKE = "handshake.rejected"
REASONS_OF_INJECTION = {
    "garbage": (
        "malformed", "version", "kind", "unknown_receiver", "not_negotiated", "handshake",
    ),
    "truncated": ("malformed", "forged"),
    "forged": ("forged",),
    "renumbered": ("forged",),
    "unknown receiver": ("unknown_receiver",),
    "other version": ("version",),
    "replayed": ("replayed", "too_old", "duplicate"),
    "bad checksum": ("outer_checksum",),
    "false init": ("handshake", "malformed", "ring_full"),
    # A forged shard may bear a number that a real one had.
    "forged header": ("forged", "replayed", "too_old", "duplicate"),
    "wild": ("not_for_us", "malformed", "outer_checksum", "fragment"),
}  # fmt: skip


def figure(document, name):
    """One figure of a statistics document or a final report, summed."""
    return sum(_numbers(document, FIGURES[name].split(".")))


def growth(before, after, name):
    """By how much one figure of a gateway grew."""
    return figure(after, name) - figure(before, name)


def drops(document):
    """Deaths by reason; only those that happened."""
    return {reason: count for reason, count in _at(document, DROPS).items() if count}


def growth_of_drops(before, after):
    """By how much the deaths grew, by reason, over lists of documents of the gateways."""
    grown = {}
    for early, late in zip(before, after, strict=True):
        counted = _at(early, DROPS)
        for reason, count in _at(late, DROPS).items():
            grown[reason] = grown.get(reason, 0) + count - counted[reason]
    return {reason: count for reason, count in grown.items() if count}


def dropped(document, reasons):
    """Deaths for any of these reasons."""
    found = _at(document, DROPS)
    return sum(found[reason] for reason in reasons)


def injected(document, reason):
    """Like `dropped`; "handshake" stands for every reason to reject a handshake message."""
    if reason == "handshake":
        return sum(_at(document, HANDSHAKE).values())
    return dropped(document, (reason,))


def of_streams(document, name):
    """A counter of a gateway's streams, summed over both directions; None if there is none."""
    found = [
        stream[name]
        for peer in _at(document, "peers")
        for direction in STREAMS
        for stream in peer[direction]
        if name in stream
    ]
    return sum(found) if found else None


def growth_of_streams(before, after):
    """By how much each counter of the streams grew, over lists of documents of the gateways."""
    grown = {}
    for name in OF_STREAMS:
        pairs = [
            (of_streams(early, name) or 0, of_streams(late, name))
            for early, late in zip(before, after, strict=True)
        ]
        known = [late - early for early, late in pairs if late is not None]
        grown[name] = sum(known) if known else None
    return grown


def moved(before, after):
    """True if anything entered or left a port between two lists of documents."""
    return any(
        figure(early, name) != figure(late, name)
        for early, late in zip(before, after, strict=True)
        for name in FIGURES_OF_PORTS
    )


def all_that_moved(before, after):
    """Every number of a document that is another one later, by its path; for a person to read."""
    early = dict(_leaves(before, ""))
    moved = {path: late - early.get(path, 0) for path, late in _leaves(after, "")}
    return {path: grown for path, grown in moved.items() if grown}


def wan_bytes(before, after):
    """Where the bytes that left the WAN ports went, over lists of documents of the gateways.

    Payload, its shards' headers, what was added by cause, each with its outer headers; and the
    rest, which is what the control threads send: handshakes, ARP.
    """
    pairs = list(zip(before, after, strict=True))

    def grown(path):
        steps = path.split(".")
        return sum(
            sum(_numbers(late, steps)) - sum(_numbers(early, steps)) for early, late in pairs
        )

    account = {
        "payload": grown("peers.*.streams_out.*.payload_bytes"),
        "headers": BYTES_PER_SHARD * grown("peers.*.streams_out.*.shards"),
    }
    counted = growth_of_streams(before, after)
    for name, (sent, sealed) in ADDITIONS.items():
        account[name] = (counted[sealed] or 0) + BYTES_PER_DATAGRAM * (counted[sent] or 0)
    account["rest"] = grown("ports.wan0.tx_bytes") - sum(account.values())
    return account


def bytes_added(account):
    """What was sent beyond payload and the headers of its shards, as a share of that payload:
    repair, repeats, feedback, handshakes. None if nothing was carried."""
    payload = account["payload"]
    added = sum(account.values()) - payload - account["headers"]
    return added / payload if payload > 0 else None


def queue_between(document, way, since, until):
    """Mean queue of one direction of the emulator between two times (seconds since the epoch), as
    frames and milliseconds; None if the path has no queue or the time is outside its run."""
    queue = document[way].get("queue")
    if not queue or not queue["window_frames"]:
        return None
    length = queue["window_ms"] / 1e3
    weighed = frames = delay = 0.0
    for index, mean in enumerate(queue["window_frames"]):
        begin = document["started_unix_s"] + index * length
        overlap = min(until, begin + length) - max(since, begin)
        if overlap > 0:
            weighed += overlap
            frames += overlap * mean
            delay += overlap * queue["window_delay_ms"][index]
    return {"frames": frames / weighed, "delay_ms": delay / weighed} if weighed else None


def emulated(document, way):
    """The emulator's counters for one direction."""
    counts = document[way]
    return {
        "received": counts["received"],
        "lost": counts["lost"]
        + counts["held_at_end"]
        + sum(count for name, count in counts.items() if name.endswith("_drops")),
        "duplicated": counts["duplicated"],
        "sent": counts["sent"],
    }


def disturbance(emulator, before, after):
    """What this machine's other work did to a run, in a few words; None if that was nothing.

    A ring overflows when its reader gets no CPU: that is no path's loss. And an emulator that comes
    too late is no path.
    """
    ways = [emulator[way] for way in WAYS]
    overflowed = sum(way[name] for way in ways for name in OVERFLOWS_OF_EMULATOR) + sum(
        growth(early, late, name)
        for early, late in zip(before, after, strict=True)
        for name in ("lan_rx_missed", "wan_rx_missed")
    )
    late_ms = max(way["lateness_us"]["p99"] for way in ways) / 1e3
    if overflowed:
        return f"{overflowed} frames overflowed"
    if late_ms > LATENESS_MS_MAX:
        return f"the emulator was {late_ms:.0f} ms late"
    return None


def units(document):
    """Per crypto unit: its name and how much it sealed and opened."""
    return [
        (f"{unit['kind']} on lcore {unit['lcore']}", unit["sealed"], unit["opened"])
        for unit in _at(document, UNITS)
    ]


def pools(document):
    """Per pool: its name, size, and how many of its buffers are in use."""
    found = next(document[name] for name in POOLS if name in document)
    return [(pool["name"], pool["size"], pool["in_use"]) for pool in found]


def _at(document, path):
    for step in path.split("."):
        document = document[step]
    return document


def _leaves(value, path):
    if isinstance(value, dict):
        for name, element in value.items():
            yield from _leaves(element, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from _leaves(element, f"{path}.{index}")
    elif type(value) in (int, float):
        yield path, value


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
