#!/usr/bin/env python3
"""A wrong key passes nothing, in either direction, and the right one does again."""

import time

from support import (
    Gateway,
    LabTest,
    Stream,
    counters,
    main,
    make_keys,
    make_preshared_key,
    measure,
)


class WrongKey(LabTest):
    def passes_nothing(self, settings_of_b):
        """Starts the tunnel with one gateway's peer section changed; nothing may come through."""
        gateways = [Gateway(self.lab, side, hugepages=self.lab.hugepages) for side in "ab"]
        gateways[1].configuration["peer"][0].update(settings_of_b)
        try:
            for gateway in gateways:
                gateway.start()
            streams = [
                Stream(self.lab, sender, rate=500, frames=1000, flows=32)
                for sender in ("host-a", "host-b")
            ]
            # They are sent in two seconds, and in that time the gateways try more than once.
            time.sleep(3)
            for stream in streams:
                _, got = stream.stop()
                self.assertEqual(got["received"], 0, got)
                self.assertEqual(got["foreign"], 0, got)
            for gateway in gateways:
                self.assertEqual(counters.figure(gateway.stats(), "frames_delivered"), 0)
                self.assertGreater(
                    counters.dropped(gateway.stats(), ("no_session",)), 0, "no reason given"
                )
        finally:
            for gateway in gateways:
                if gateway.process:
                    self.lab.stop(gateway.process)

    def test_unknown_public_key(self):
        _, stranger = make_keys(self.lab, "stranger")
        self.passes_nothing({"public_key": stranger})

    def test_other_preshared_key(self):
        other = make_preshared_key(self.lab, "other.key")
        self.passes_nothing({"preshared_key_file": str(other)})

    def test_right_keys_pass(self):
        tunnel = self.tunnel()
        self.assertTrue(measure.reaches(self.lab.namespace("host-a"), tunnel.target))


if __name__ == "__main__":
    main()
