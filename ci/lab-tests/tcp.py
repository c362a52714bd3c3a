#!/usr/bin/env python3
"""TCP through both gateways: both directions, several flows, and a clean path well used."""

import random
import socket
import sys
import threading

from support import PLACEMENTS, LabTest, counters, judged, main, measure, socket_within, wan

# Of a flow without a tunnel, in the same lab: headers take a tenth, and a test's short flow has much
# of its start in it. What a gateway is worth is measured by scripts/compare.
CLEAN_SHARE_MIN = 0.6
SECONDS = 4
CONNECTIONS = 8
BYTES_EACH_WAY = 300_000
PORT = 7007
# So long nothing comes only if the tunnel has lost the connection.
PATIENCE_S = 30


class Tcp(LabTest):
    path = wan.CLEAN

    def test_clean_path_in_each_placement(self):
        for placement in PLACEMENTS:
            with self.subTest(placement):
                self.assert_fast(placement, {}, {"reverse": True})

    def test_several_flows_at_once(self):
        self.assert_fast(PLACEMENTS[0], {"streams": 8})

    def test_connections_come_and_go(self):
        self.lab.set_path(self.path)
        tunnel = self.tunnel()
        with self.listener() as listener:
            for number in range(CONNECTIONS):
                sent = random.Random(number).randbytes(BYTES_EACH_WAY)
                self.assertEqual(self.echoed(listener, tunnel.target, sent), sent)

    def listener(self):
        made = self.socket_at("host-b")
        made.bind(("", PORT))
        made.listen()
        return made

    def echoed(self, listener, target, data):
        """What comes back of `data` through one connection, which both ends close."""
        echo = threading.Thread(target=echo_one, args=(listener,))
        echo.start()
        with self.socket_at("host-a") as client:
            client.connect((target, PORT))
            sending = threading.Thread(target=send_all, args=(client, data))
            sending.start()
            back = b"".join(iter(lambda: client.recv(1 << 16), b""))
            sending.join()
        echo.join()
        return back

    def socket_at(self, node):
        made = socket_within(self.lab.namespace(node), socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(PATIENCE_S)
        return made

    @judged
    def assert_fast(self, placement, *plans):
        """Each plan of a flow is carried fast enough, through one pair of gateways."""
        self.lab.set_path(self.path)
        with self.lab.plain() as target:
            plain = measure.tcp_goodput(self.lab, target, seconds=SECONDS)
        with self.lab.shardgate(placement=placement) as tunnel:
            before = tunnel.stats()
            speeds = [
                measure.tcp_goodput(self.lab, tunnel.target, seconds=SECONDS, **plan)
                for plan in plans
            ]
            after = tunnel.stats()
        self.disturbances.append(counters.disturbance(self.lab.cut(), before, after))
        for plan, found in zip(plans, speeds, strict=True):
            share = found.mbit_per_s / plain.mbit_per_s
            print(f"{placement} {plan}: {share:.2f} of {plain.mbit_per_s:.0f}", file=sys.stderr)
            self.assertGreater(share, CLEAN_SHARE_MIN, (plan, found.as_json()))


def send_all(stream, data):
    stream.sendall(data)
    stream.shutdown(socket.SHUT_WR)


def echo_one(listener):
    """Sends back what comes through the next connection, until its other end has closed."""
    stream, _ = listener.accept()
    with stream:
        stream.settimeout(PATIENCE_S)
        for data in iter(lambda: stream.recv(1 << 16), b""):
            stream.sendall(data)


if __name__ == "__main__":
    main()
