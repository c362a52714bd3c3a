"""Datagrams that nobody should send, made from one that somebody did."""

import random
import socket
import struct

from support import socket_within, wan

ETHERNET, IPV4, UDP = 14, 20, 8
PAYLOAD = ETHERNET + IPV4 + UDP
CLEAR_HEADER = 16
LISTEN_PORT = 4600
KIND_DATA = 4


class Tap:
    """A place on the WAN from which datagrams are overheard and injected towards gw-b."""

    def __init__(self, lab):
        self.ear = _packet_socket(lab.namespace("wan"), wan.LEFT)
        self.mouth = _packet_socket(lab.namespace("wan"), wan.RIGHT)

    def close(self):
        self.ear.close()
        self.mouth.close()

    def overhear(self, count):
        """Data datagrams from gw-a, as whole frames."""
        frames = []
        self.ear.settimeout(5)
        while len(frames) < count:
            frame, address = self.ear.recvfrom(4096)
            if address[2] != socket.PACKET_OUTGOING and is_data(frame):
                frames.append(frame)
        return frames

    def inject(self, frame):
        self.mouth.send(frame)


def _packet_socket(namespace, device):
    opened = socket_within(namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    opened.bind((device, 3))
    return opened


def is_data(frame):
    return (
        len(frame) > PAYLOAD + CLEAR_HEADER
        and frame[12:14] == b"\x08\x00"
        and frame[23] == socket.IPPROTO_UDP
        and struct.unpack_from("!H", frame, ETHERNET + IPV4 + 2)[0] == LISTEN_PORT
        and frame[PAYLOAD] & 0x0F == KIND_DATA
    )


def folded(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) & 1:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def carried_by(frame, payload):
    """The frame with another UDP payload, lengths and checksums right."""
    head = bytearray(frame[:PAYLOAD])
    struct.pack_into("!H", head, ETHERNET + 2, IPV4 + UDP + len(payload))
    struct.pack_into("!H", head, ETHERNET + 10, 0)
    ip = bytes(head[ETHERNET : ETHERNET + IPV4])
    struct.pack_into("!H", head, ETHERNET + 10, 0xFFFF - folded(ip))
    struct.pack_into("!HH", head, ETHERNET + IPV4 + 4, UDP + len(payload), 0)
    pseudo = bytes(head[26:34]) + struct.pack("!HH", socket.IPPROTO_UDP, UDP + len(payload))
    value = 0xFFFF - folded(pseudo + bytes(head[ETHERNET + IPV4 :]) + payload)
    struct.pack_into("!H", head, ETHERNET + IPV4 + 6, value or 0xFFFF)
    return bytes(head) + payload


def garbage(frame, chance):
    return carried_by(frame, chance.randbytes(chance.randrange(1, 1400)))


def truncated(frame, chance):
    payload = frame[PAYLOAD:]
    return carried_by(frame, payload[: chance.randrange(0, len(payload) - 1)])


def forged(frame, chance):
    payload = bytearray(frame[PAYLOAD:])
    payload[chance.randrange(CLEAR_HEADER, len(payload))] ^= 1 << chance.randrange(8)
    return carried_by(frame, bytes(payload))


def renumbered(frame, chance):
    """A number far ahead, which a receiver that believes it would move its window to."""
    payload = bytearray(frame[PAYLOAD:])
    struct.pack_into("!Q", payload, 8, chance.randrange(1 << 40, 1 << 60))
    return carried_by(frame, bytes(payload))


def forged_header(frame, chance):
    """A clear header that could be the next one's, and nothing true behind it."""
    payload = bytearray(frame[PAYLOAD : PAYLOAD + CLEAR_HEADER])
    (path_number,) = struct.unpack_from("!Q", payload, 8)
    struct.pack_into("!Q", payload, 8, path_number + chance.randrange(1 << 15))
    return carried_by(frame, bytes(payload) + chance.randbytes(chance.randrange(41, 1400)))


def unknown_receiver(frame, chance):
    payload = bytearray(frame[PAYLOAD:])
    payload[4:8] = bytes(byte ^ 0xA5 for byte in payload[4:8])
    return carried_by(frame, bytes(payload))


def other_version(frame, chance):
    payload = bytearray(frame[PAYLOAD:])
    payload[0] ^= 0x70
    return carried_by(frame, bytes(payload))


def replayed(frame, chance):
    return frame


def bad_checksum(frame, chance):
    damaged = bytearray(frame)
    damaged[chance.randrange(PAYLOAD, len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def false_init(frame, chance):
    """A handshake's first message that was not made with anybody's key."""
    return carried_by(frame, bytes([0x11]) + chance.randbytes(chance.randrange(15, 300)))


def wild(frame, chance):
    """Anything an Ethernet card could receive."""
    shape = chance.randrange(4)
    if shape == 0:
        return frame[:12] + chance.randbytes(chance.randrange(2, 1400))
    if shape == 1:
        return frame[: chance.randrange(15, PAYLOAD)]
    damaged = bytearray(frame)
    if shape == 2:
        # A header length that is not the header's.
        damaged[ETHERNET] = 0x40 | (5 + chance.randrange(1, 16)) % 16
    else:
        struct.pack_into("!H", damaged, ETHERNET + 6, chance.randrange(1, 0x2000))
    return bytes(damaged)


# Each makes one frame out of an overheard one and a source of chance.
ATTACKS = {
    "garbage": garbage,
    "truncated": truncated,
    "forged": forged,
    "forged header": forged_header,
    "renumbered": renumbered,
    "unknown receiver": unknown_receiver,
    "other version": other_version,
    "replayed": replayed,
    "bad checksum": bad_checksum,
    "false init": false_init,
    "wild": wild,
}


def make(name, frames, count, seed):
    """`count` datagrams of one kind, made from overheard ones."""
    chance = random.Random(seed)
    return [ATTACKS[name](chance.choice(frames), chance) for _ in range(count)]
