"""The laboratory: two sites, two gateways and a WAN, in network namespaces on one machine.

    host-a ── gw-a ── wan ── gw-b ── host-b

`Lab` (lab.py) owns everything and takes it down whatever happens; it can carry traffic by plain
routing, through wireguard-go, or through two shardgate gateways. The rest serves it:

    process.py   children, namespaces, sockets inside namespaces
    registry.py  which labs there are, whose they are, how one goes
    machine.py   what belongs to the whole machine (hugepages, backlog) and is shared by labs
    wan.py       what lies between the gateways: the emulator, or a plain bridge
    gateway.py   a shardgate gateway: its configuration, its process, its statistics
    counters.py  where in the statistics each figure stands; the only place that knows
    measure.py   ping and iperf3
    thin.py      a thin flow of UDP, and how late each datagram is
    table.py     text tables

Python's standard library only, so that a bare Debian can run it.
"""
