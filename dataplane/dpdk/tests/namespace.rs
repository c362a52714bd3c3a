//! af_packet and tap ports on the kernel's interfaces, in a network namespace of their own.
//!
//! Each test runs itself again inside a fresh namespace, which needs root; without it the test says
//! that it was skipped.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::eal;
use shardgate_core::buffer::{Buffer, BufferPool};
use shardgate_core::limits::HEADROOM;
use shardgate_core::wire::checksum::{fold, sum};
use shardgate_dpdk::{
    Burst, Error, Mbuf, Pool, Port, PortConfig, PortStats, RxQueue, TxQueue, af_packet,
};

/// True in the process that runs inside the namespace.
fn inside(test: &str) -> bool {
    const MARK: &str = "SHARDGATE_TEST_IN_NAMESPACE";
    if std::env::var_os(MARK).is_some() {
        // Multicast listener reports and router solicitations would enter the wire.
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("our own setting");
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("likewise");
        return true;
    }
    let name = format!("dpdkw-{}-{test}", std::process::id());
    if !ip(&["netns", "add", &name]) {
        // Not by a macro: the harness would keep it to itself, because the test passes.
        let reason = "cannot make a network namespace (needs root and iproute2)";
        let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
        return false;
    }
    let namespace = Namespace(name);
    let this = std::env::current_exe().expect("this program");
    let mut child = Command::new("ip")
        .args(["netns", "exec", &namespace.0])
        .arg(this)
        .args(["--exact", test, "--nocapture"])
        .env(MARK, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("ip is there");
    let mut stdout = child.stdout.take().expect("it is piped");
    let said = std::thread::spawn(move || std::io::read_to_string(&mut stdout));
    let end = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if Instant::now() > end {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
            panic!("{test} did not end within a minute");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let said = said.join().expect("no panic").expect("text");
    // A filter that matches no test succeeds as well.
    assert!(
        status.success() && said.contains("1 passed"),
        "inside its namespace:\n{said}"
    );
    false
}

struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    let status = Command::new("ip")
        .args(arguments)
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// A wire: two interfaces, `left` and `right`, that are each other's far end.
fn wire(mtu: u16) {
    let mtu = mtu.to_string();
    assert!(ip(&[
        "link", "add", "left", "type", "veth", "peer", "name", "right"
    ]));
    for end in ["left", "right"] {
        assert!(ip(&["link", "set", end, "mtu", &mtu, "up"]));
    }
}

fn pool_for(name: &str, mtu: u16, count: usize) -> Pool {
    Pool::new(
        eal(),
        name,
        count,
        af_packet::mbuf_room(mtu),
        0,
        None,
        false,
    )
    .expect("a pool")
}

fn config(pool: &Pool, mtu: u16) -> PortConfig {
    PortConfig {
        rx_pools: vec![pool.clone()],
        tx_queues: 1,
        rx_descriptors: 512,
        tx_descriptors: 512,
        mtu,
        promiscuous: true,
    }
}

/// A started port with one queue each way.
fn start(device: &str, pool: &Pool, mtu: u16) -> (Port, RxQueue, TxQueue) {
    let port = Port::create(eal(), device).expect("the device opens");
    let (mut rx, mut tx) = port.configure(&config(pool, mtu)).expect("it starts");
    let (rx, tx) = (rx.pop().expect("a queue"), tx.pop().expect("a queue"));
    (port, rx, tx)
}

/// An Ethernet frame of `len` bytes with these tags (type and value), filled with `seed`'s pattern.
fn frame(tags: &[(u16, u16)], ether_type: u16, len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0x02, 0, 0, 0, 0, seed, 0x02, 0, 0, 0, 1, seed];
    for (kind, value) in tags {
        bytes.extend(kind.to_be_bytes());
        bytes.extend(value.to_be_bytes());
    }
    bytes.extend(ether_type.to_be_bytes());
    let header = bytes.len();
    bytes.extend((header..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)));
    bytes
}

fn mbuf(pool: &mut Pool, bytes: &[u8]) -> Mbuf {
    let mut mbuf = pool.alloc().expect("the pool has more");
    mbuf.append(bytes.len())
        .expect("room")
        .copy_from_slice(bytes);
    mbuf
}

fn send(tx: &mut TxQueue, pool: &mut Pool, frames: &[Vec<u8>]) {
    let mut burst: Burst = Burst::new();
    for chunk in frames.chunks(burst.capacity()) {
        burst.extend(chunk.iter().map(|bytes| mbuf(pool, bytes)));
        assert_eq!(tx.burst(&mut burst), chunk.len());
    }
}

/// Frames received until `count` are there, or nothing came for 300 ms.
fn receive(rx: &mut RxQueue, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut burst = Burst::new();
    let mut last = Instant::now();
    while frames.len() < count && last.elapsed() < Duration::from_millis(300) {
        if rx.burst(&mut burst) > 0 {
            last = Instant::now();
        }
        frames.extend(burst.drain(..).map(|mbuf| {
            assert_eq!(mbuf.port(), rx.port().id());
            assert!(mbuf.headroom() >= HEADROOM - 4);
            mbuf.data().to_vec()
        }));
    }
    frames
}

const VLAN: u16 = 0x8100;

/// Untagged, priority-tagged, tagged and doubly tagged frames, up to what the MTU allows.
fn assorted(mtu: u16) -> Vec<Vec<u8>> {
    let largest = usize::from(mtu) + 14;
    let mut frames = Vec::new();
    for (seed, len) in (0..).zip([60, 61, 64, 128, 590, 1000, largest - 1, largest]) {
        frames.push(frame(&[], 0x88b5, len, seed));
        frames.push(frame(&[(VLAN, 0xe000)], 0x88b5, len, seed));
        frames.push(frame(&[(VLAN, 0x6fff)], 0x88b5, len + 4, seed));
        frames.push(frame(&[(VLAN, 100), (VLAN, 200)], 0x88b5, len, seed));
    }
    frames
}

fn carries_everything_both_ways(mtu: u16) {
    wire(mtu);
    let mut pool = pool_for("wire", mtu, 1023);
    {
        let (left_port, mut left_rx, mut left_tx) = start("net_af_packet0,iface=left", &pool, mtu);
        let (right_port, mut right_rx, mut right_tx) =
            start("net_af_packet1,iface=right", &pool, mtu);
        let frames = assorted(mtu);
        let n = frames.len() as u64;

        send(&mut left_tx, &mut pool, &frames);
        assert!(
            receive(&mut right_rx, frames.len()) == frames,
            "left to right"
        );
        send(&mut right_tx, &mut pool, &frames);
        assert!(
            receive(&mut left_rx, frames.len()) == frames,
            "right to left"
        );
        assert!(
            receive(&mut right_rx, 1).is_empty(),
            "nobody hears its own frames"
        );

        for port in [&left_port, &right_port] {
            let stats = port.stats().expect("counters");
            let expected = PortStats {
                ipackets: n,
                opackets: n,
                ibytes: stats.ibytes,
                obytes: stats.obytes,
                ..PortStats::default()
            };
            assert_eq!(stats, expected);
            assert!(port.promiscuous() && port.link_up());
        }
        assert_eq!(left_rx.dropped() + right_rx.dropped(), 0);
        let info = left_port.info().expect("information");
        assert_eq!((info.driver.as_str(), info.max_mtu), ("net_af_packet", mtu));
        assert_eq!((info.max_rx_queues, info.max_tx_queues), (1, 1));
    }
    assert_eq!(pool.available(), 1023);
    drop(start("net_af_packet0,iface=left", &pool, mtu));
}

#[test]
fn af_packet_carries_every_frame_of_a_1500_byte_wire() {
    if inside("af_packet_carries_every_frame_of_a_1500_byte_wire") {
        carries_everything_both_ways(1500);
    }
}

#[test]
fn af_packet_carries_jumbo_frames() {
    if inside("af_packet_carries_jumbo_frames") {
        carries_everything_both_ways(9000);
    }
}

#[test]
fn af_packet_holds_a_host_s_burst() {
    if inside("af_packet_holds_a_host_s_burst") {
        wire(1500);
        let mut pool = pool_for("burst", 1500, 4095);
        let (port, mut rx, _) = start("net_af_packet0,iface=left", &pool, 1500);
        let (_, _, mut tx) = start("net_af_packet1,iface=right", &pool, 1500);
        let frames: Vec<_> = (0..2000)
            .map(|i| frame(&[], 0x88b5, 1514, i as u8))
            .collect();
        send(&mut tx, &mut pool, &frames);
        assert_eq!(receive(&mut rx, 2000).len(), 2000, "{:?}", port.stats());
    }
}

#[test]
fn af_packet_refuses_what_would_overflow_or_truncate() {
    if inside("af_packet_refuses_what_would_overflow_or_truncate") {
        wire(9000);
        let jumbo = pool_for("jumbo", 9000, 63);
        let plain = pool_for("plain", 1500, 63);
        let create = |device| Port::create(eal(), device);
        let bad = |device| matches!(create(device), Err(Error::BadDevice { .. }));
        assert!(bad("net_af_packet0,iface=absent"));
        assert!(bad("net_af_packet0,iface=left,framesz=2048"), "truncates");
        assert!(
            bad("net_af_packet0,iface=left,blocksz=4096"),
            "smaller than a frame"
        );
        {
            let port = create("net_af_packet0,iface=left").expect("it opens");
            let refused = port.configure(&config(&plain, 1500)).err();
            assert!(
                matches!(refused, Some(Error::MbufTooSmall { mtu: 9000, .. })),
                "{refused:?}"
            );
            let refused = port.configure(&config(&jumbo, 9001)).err();
            let text = refused.map(|error| error.to_string()).unwrap_or_default();
            assert!(text.contains("ip link set left mtu 9001"), "{text}");
            // The interface may be larger than what the gateway sends.
            port.configure(&config(&jumbo, 1500)).expect("it starts");
        }
        assert!(ip(&["link", "set", "left", "mtu", "1500"]));
        let port = create("net_af_packet0,iface=left").expect("it opens");
        assert!(ip(&["link", "set", "left", "mtu", "9000"]));
        let refused = port.configure(&config(&plain, 1500)).err();
        assert!(
            matches!(refused, Some(Error::MbufTooSmall { .. })),
            "raised in between: {refused:?}"
        );
    }
}

#[test]
fn af_packet_spreads_over_its_queues_without_loss() {
    if inside("af_packet_spreads_over_its_queues_without_loss") {
        wire(1500);
        let mut pool = pool_for("queues", 1500, 2047);
        {
            let port = Port::create(eal(), "net_af_packet0,iface=left,qpairs=2").expect("opens");
            let two = PortConfig {
                rx_pools: vec![pool.clone(), pool.clone()],
                tx_queues: 2,
                ..config(&pool, 1500)
            };
            let (mut rx, mut tx) = port.configure(&two).expect("it starts");
            let (_, mut far_rx, mut far_tx) = start("net_af_packet1,iface=right", &pool, 1500);
            let frames: Vec<_> = (0..64).map(|i| udp(i, &[0; 30])).collect();
            send(&mut far_tx, &mut pool, &frames);
            let got: Vec<_> = rx
                .iter_mut()
                .map(|queue| receive(queue, 64).len())
                .collect();
            assert_eq!(got.iter().sum::<usize>(), 64);
            assert!(got.iter().all(|&n| n > 0), "flows are spread: {got:?}");
            for queue in &mut tx {
                send(queue, &mut pool, &frames[..8]);
                assert_eq!(receive(&mut far_rx, 8), frames[..8]);
            }
        }
        assert_eq!(pool.available(), 2047);
    }
}

/// The driver's own sockets would have the kernel put the fragments together.
#[test]
fn af_packet_leaves_fragments_alone() {
    if inside("af_packet_leaves_fragments_alone") {
        wire(1500);
        let mut pool = pool_for("fragments", 1500, 255);
        let (_, mut rx, _) = start("net_af_packet0,iface=left", &pool, 1500);
        let (_, _, mut tx) = start("net_af_packet1,iface=right", &pool, 1500);
        let frames: Vec<_> = (0..6)
            .map(|i| {
                let mut frame = udp(7, &[i as u8; 1472]);
                let more = if i < 5 { 0x2000 } else { 0 };
                let field: u16 = more | (i * (1480 / 8));
                frame[20..22].copy_from_slice(&field.to_be_bytes());
                checksum(&mut frame);
                frame
            })
            .collect();
        send(&mut tx, &mut pool, &frames);
        assert!(receive(&mut rx, frames.len()) == frames);
    }
}

#[test]
fn af_packet_never_hands_over_a_cut_frame() {
    if inside("af_packet_never_hands_over_a_cut_frame") {
        // The MTU is raised under a running port, as a stand-in for a host's offloads.
        wire(1500);
        let mut pool = pool_for("cut", 9000, 255);
        let (_, mut rx, _) = start("net_af_packet0,iface=left", &pool, 1500);
        for end in ["left", "right"] {
            assert!(ip(&["link", "set", end, "mtu", "9000"]));
        }
        let (_, _, mut tx) = start("net_af_packet1,iface=right", &pool, 9000);
        // A ring frame of 2048 bytes has room for 1982.
        let frames: Vec<_> = [1981, 1982, 1983, 9014, 60]
            .map(|len| frame(&[], 0x88b5, len, 1))
            .into();
        send(&mut tx, &mut pool, &frames);
        let whole: Vec<_> = frames
            .iter()
            .filter(|frame| frame.len() <= 1982)
            .cloned()
            .collect();
        assert!(receive(&mut rx, frames.len()) == whole);
    }
}

#[test]
fn af_packet_counts_what_a_full_ring_loses() {
    if inside("af_packet_counts_what_a_full_ring_loses") {
        wire(1500);
        let mut pool = pool_for("missed", 1500, 1023);
        let (port, mut rx, _) = start("net_af_packet0,iface=left,framecnt=64", &pool, 1500);
        let (_, _, mut tx) = start("net_af_packet1,iface=right", &pool, 1500);
        let frames: Vec<_> = (0..100).map(|i| frame(&[], 0x88b5, 200, i)).collect();
        for round in 1..=2 {
            send(&mut tx, &mut pool, &frames);
            assert_eq!(receive(&mut rx, 100), frames[..64]);
            for _ in 0..2 {
                let stats = port.stats().expect("counters");
                assert_eq!((stats.ipackets, stats.imissed), (round * 64, round * 36));
            }
        }
    }
}

/// A frame that the kernel sends on the interface is not one that came in.
#[test]
fn af_packet_does_not_hear_its_own_host() {
    if inside("af_packet_does_not_hear_its_own_host") {
        wire(1500);
        let pool = pool_for("host", 1500, 255);
        for queues in ["1", "2"] {
            let port = Port::create(eal(), &format!("net_af_packet0,iface=left,qpairs={queues}"));
            let queues = queues.parse().expect("a number");
            let all = PortConfig {
                rx_pools: vec![pool.clone(); queues],
                tx_queues: queues,
                ..config(&pool, 1500)
            };
            let (mut rx, _tx) = port.expect("it opens").configure(&all).expect("it starts");
            let (_, mut far, _) = start("net_af_packet1,iface=right", &pool, 1500);
            // An address makes the kernel ask who has its neighbour's.
            let address = ["addr", "replace", "10.1.2.3/24", "dev", "left"];
            assert!(ip(&address));
            let socket = std::net::UdpSocket::bind("10.1.2.3:0").expect("a socket");
            socket
                .send_to(b"x", "10.1.2.4:9")
                .expect("it is queued behind the question");
            assert!(
                !receive(&mut far, 1).is_empty(),
                "the far end hears the question"
            );
            for queue in &mut rx {
                assert!(receive(queue, 1).is_empty());
            }
        }
    }
}

/// A UDP packet in a frame; `port` tells the flows apart.
fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00];
    let total = (28 + payload.len()) as u16;
    bytes.extend([0x45, 0]);
    bytes.extend(total.to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    for field in [port, 9, total - 20, 0] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(payload);
    checksum(&mut bytes);
    bytes
}

/// Fills in the checksum of a frame's IPv4 header.
fn checksum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let checksum = !fold(sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn tap_carries_frames_to_and_from_the_kernel() {
    if inside("tap_carries_frames_to_and_from_the_kernel") {
        let mut pool = pool_for("tap", 1500, 1023);
        {
            let (port, mut rx, mut tx) = start("net_tap0,iface=tap0", &pool, 1500);
            assert!(ip(&["link", "set", "tap0", "up"]));
            assert_eq!(port.info().expect("information").driver, "net_tap");
            let (_, mut kernel_rx, mut kernel_tx) = start("net_af_packet0,iface=tap0", &pool, 1500);
            let frames = assorted(1500);
            send(&mut tx, &mut pool, &frames);
            assert!(
                receive(&mut kernel_rx, frames.len()) == frames,
                "to the kernel"
            );
            send(&mut kernel_tx, &mut pool, &frames);
            assert!(receive(&mut rx, frames.len()) == frames, "from the kernel");
            assert_eq!(rx.dropped(), 0);
        }
        assert_eq!(pool.available(), 1023);
    }
}
