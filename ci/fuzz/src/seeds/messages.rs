//! For parsers: real messages.

use shardgate_core::buffer::{Buffer, HeapBuffer, HeapPool};
use shardgate_core::lane::Lane;
use shardgate_core::repair::combine;
use shardgate_core::seal::{SealBudget, Unsealed};
use shardgate_core::sender::{Departure, SenderConfig, StreamSender};
use shardgate_core::seq::Seq;
use shardgate_core::time::Time;
use shardgate_core::wire::feedback::{BlockType, BlockWriter, Range, Report};
use shardgate_core::wire::handshake::{
    HandshakeKind, MAC_LEN, PAYLOAD_LEN, Payload, emit, put_mac1,
};
use shardgate_core::wire::outer::OuterTemplate;
use shardgate_core::wire::shard::SourceHeader;
use shardgate_erasure::Coder;

use super::Seed;
use crate::world::{ORIGIN, Tagged, frame};

/// The shards of an aggregate of frames of these lengths.
fn aggregate(lens: &[usize], payload_max: usize) -> Vec<Unsealed<HeapBuffer>> {
    let config = SenderConfig {
        shards_min: 1,
        shards_max: 64,
        payload_max,
        checksum: true,
    };
    let mut sender = StreamSender::new(0, config);
    for (number, len) in (0..).zip(lens) {
        let offered = sender.offer(HeapBuffer::from_bytes(&frame(number, *len)), Lane(3));
        assert!(offered.is_ok(), "an aggregate has room for a few frames");
    }
    let mut shards = Vec::new();
    let departure = Departure {
        now: Time(1_000_000_000),
        path: 0,
        budget: &mut SealBudget::new(0x0123_4567, ORIGIN, 1, Time::ZERO),
        credit: 64,
        pool: &mut HeapPool::new(64, 2_048),
    };
    sender.close(departure, |shard| shards.push(shard));
    shards
}

fn sealed(shard: Unsealed<HeapBuffer>) -> Vec<u8> {
    let sealed = shard.seal(&Tagged).expect("there is room for a tag");
    sealed.into_buffer().data().to_vec()
}

fn plaintexts(lens: &[usize]) -> Vec<Vec<u8>> {
    let shards = aggregate(lens, 256);
    shards
        .iter()
        .map(|shard| shard.plaintext().to_vec())
        .collect()
}

pub(super) fn outer() -> Vec<Seed> {
    let framed = |local: &str, remote: &str, payload: &[u8]| {
        let (local, remote) = (
            local.parse().expect("an address"),
            remote.parse().expect("an address"),
        );
        let template = OuterTemplate::new([2; 6], [4; 6], local, remote).expect("one family");
        let mut buffer = HeapBuffer::from_bytes(payload);
        assert!(template.prepend(&mut buffer), "there is headroom");
        buffer.data().to_vec()
    };
    let ipv4 = |payload: &[u8]| framed("10.9.0.1:4600", "10.9.0.2:4601", payload);
    let ipv6 = |payload: &[u8]| framed("[fd00::1]:4600", "[fd00::2]:4601", payload);
    let changed = |mut frame: Vec<u8>, at: usize, value: u8| {
        frame[at] = value;
        frame
    };
    let mut padded = ipv4(b"short");
    padded.resize(60, 0);
    let mut with_options = ipv4(b"options");
    with_options.splice(34..34, [1; 8]);
    with_options[14] = 0x47;
    with_options[17] += 8;
    vec![
        ("ipv4", ipv4(&sealed(aggregate(&[60], 1_414).remove(0)))),
        ("ipv6", ipv6(&sealed(aggregate(&[60], 1_394).remove(0)))),
        ("ipv4-empty", ipv4(b"")),
        ("ipv6-odd", ipv6(b"odd")),
        ("ipv4-padded", padded),
        ("ipv4-options", with_options),
        ("ipv4-fragment", changed(ipv4(b"fragment"), 20, 0x20)),
        ("ipv4-icmp", changed(ipv4(b"icmp"), 23, 1)),
        ("ipv6-icmp", changed(ipv6(b"icmp"), 20, 58)),
        ("ipv6-fragment", changed(ipv6(b"fragment"), 20, 44)),
        (
            "ipv4-no-checksum",
            changed(changed(ipv4(b"none"), 40, 0), 41, 0),
        ),
        ("arp", changed(ipv4(b"arp"), 13, 6)),
        ("vlan", changed(changed(ipv4(b"vlan"), 12, 0x81), 13, 0)),
    ]
}

pub(super) fn header() -> Vec<Seed> {
    let data = sealed(aggregate(&[60], 1_414).remove(0));
    let kind = |kind: u8| {
        let mut datagram = data.clone();
        datagram[0] = kind;
        datagram
    };
    vec![
        ("data", data.clone()),
        ("feedback", kind(0x15)),
        ("init", kind(0x11)),
        ("response", kind(0x12)),
        ("cookie", kind(0x13)),
        ("no-kind", kind(0x16)),
        ("other-version", kind(0x24)),
        ("no-room-for-a-tag", data[..32].to_vec()),
        ("one-byte", data[..33].to_vec()),
    ]
}

pub(super) fn shard() -> Vec<Seed> {
    let spanning = plaintexts(&[300, 100]);
    let sources = || {
        spanning
            .iter()
            .map(|shard| SourceHeader::parse(shard).expect("its own shard"))
    };
    let repair = |count: usize| {
        let mut buffer = HeapBuffer::new(128, 512);
        let made = combine(Coder::new(), 5, 77, sources().take(count), &mut buffer);
        assert!(made.is_some(), "there is room for a symbol");
        buffer.data().to_vec()
    };
    let mut repeat = spanning[1].clone();
    repeat[0] |= shardgate_core::wire::shard::FLAG_REPEAT;
    vec![
        ("one-frame", plaintexts(&[60]).remove(0)),
        ("three-frames", plaintexts(&[60, 70, 80]).remove(0)),
        ("first-of-two", spanning[0].clone()),
        ("second-of-two", spanning[1].clone()),
        ("repeat", repeat),
        ("repair-of-one", repair(1)),
        ("repair-of-two", repair(2)),
    ]
}

pub(super) fn feedback() -> Vec<Seed> {
    type Write = fn(&mut BlockWriter<'_, HeapBuffer>) -> bool;
    let message = |blocks: &[Write]| {
        let mut buffer = HeapBuffer::new(0, 1_500);
        let mut writer = BlockWriter::new(&mut buffer, 1_400);
        assert!(blocks.iter().all(|write| write(&mut writer)));
        buffer.data().to_vec()
    };
    const REPORT: Report = Report {
        path: 0,
        largest: 99,
        received: 90,
        received_bytes: 90_000,
        rebuilt: 2,
        late: 1,
        delay_min_us: 20_000,
        delay_mean_us: 21_000,
        ce_marks: 0,
        echo_sent_at_us: 1_000_000,
        echo_held_us: 300,
    };
    let report: Write = |writer| writer.report(&REPORT, &[]);
    let runs: Write = |writer| {
        let ranges = [(0, 10), (3, 60), (1, 2), (u16::MAX, u16::MAX)];
        writer.report(&REPORT, &ranges.map(|(gap, len)| Range { gap, len }))
    };
    let many_runs: Write = |writer| writer.report(&REPORT, &[Range { gap: 1, len: 1 }; 64]);
    let wanted: Write = |writer| writer.seqs(BlockType::Wanted, (5..9).map(Seq)) == 4;
    let not_sent: Write = |writer| writer.seqs(BlockType::NotSent, (1..2).map(Seq)) == 1;
    let challenge: Write = |writer| writer.challenge(0x0102_0304_0506_0708, 9);
    let echo: Write = |writer| writer.echo(0x0102_0304_0506_0708, 9, 10);
    let extent: Write = |writer| writer.extent(Seq(100), Seq(4));
    let close: Write = |writer| writer.close();
    let padding = [&[5, 0, 0, 8][..], &[0; 8]].concat();
    vec![
        ("report", message(&[report])),
        ("report-with-runs", message(&[runs])),
        ("report-with-many-runs", message(&[many_runs])),
        ("report-and-wanted", message(&[report, wanted, challenge])),
        ("wanted-twice", message(&[wanted, wanted])),
        ("not-sent", message(&[not_sent, extent])),
        ("challenge", message(&[challenge])),
        ("echo", message(&[echo])),
        ("close", message(&[close])),
        ("padding", [message(&[challenge]), padding].concat()),
        (
            "everything",
            message(&[runs, wanted, not_sent, challenge, echo, extent, close]),
        ),
    ]
}

pub(super) fn handshake() -> Vec<Seed> {
    let payload = |version_min, version_max| Payload {
        version_min,
        version_max,
        sender_index: 0x0102_0304,
        timestamp_ns: 1_700_000_000_000_000_000,
        incarnation: 0x2122_2324_2526_2728,
        streams: 2,
        paths: 1,
        lanes: 256,
        window: 128,
        features: 0,
    };
    let message = |kind: HandshakeKind, receiver_index, payload_len: usize| {
        let noise = vec![0xaa; kind.noise_overhead() + payload_len];
        let mut out = vec![0; 512];
        let len = emit(kind, receiver_index, 0x0506_0708, &noise, &mut out).expect("it fits");
        out.truncate(len);
        put_mac1(&mut out, &[0xbb; MAC_LEN]).expect("it is long enough");
        out
    };
    let both = |first: Payload, second: Payload| [first.encode(), second.encode()].concat();
    let mut cookie = message(HandshakeKind::Init, 0, PAYLOAD_LEN);
    cookie[0] = 0x13;
    let mut longer = payload(1, 1).encode().to_vec();
    longer[3] += 4;
    longer.extend([1, 2, 3, 4]);
    vec![
        ("init", message(HandshakeKind::Init, 0, PAYLOAD_LEN)),
        (
            "init-of-later-version",
            message(HandshakeKind::Init, 0, PAYLOAD_LEN + 20),
        ),
        ("response", message(HandshakeKind::Response, 7, PAYLOAD_LEN)),
        ("cookie", cookie),
        ("payloads-alike", both(payload(1, 1), payload(1, 1))),
        ("payloads-that-overlap", both(payload(1, 3), payload(2, 9))),
        ("payloads-apart", both(payload(1, 1), payload(2, 2))),
        ("payload-of-later-version", longer),
    ]
}

/// A frame behind the longest that fits a shard.
pub(super) fn classify() -> Vec<Seed> {
    let ethernet = |tags: &[u16], ethertype: u16, packet: &[u8]| {
        let mut frame = 1_408u16.to_le_bytes().to_vec();
        frame.extend([2; 12]);
        for tag in tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 7]);
        }
        frame.extend(ethertype.to_be_bytes());
        frame.extend_from_slice(packet);
        frame
    };
    let ipv4 = |tos: u8, protocol: u8, body: &[u8]| {
        let mut packet = vec![
            0x45,
            tos,
            0,
            20 + body.len() as u8,
            0,
            0,
            0x40,
            0,
            64,
            protocol,
            0,
            0,
        ];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend_from_slice(body);
        packet
    };
    let ipv6 = |class: u8, next: u8, body: &[u8]| {
        let mut packet = vec![
            0x60 | class >> 4,
            class << 4,
            0,
            0,
            0,
            body.len() as u8,
            next,
            64,
        ];
        packet.extend([0xfd; 32]);
        packet.extend_from_slice(body);
        packet
    };
    let tcp = |flags: u8, options: &[u8]| {
        let words = 5 + options.len().div_ceil(4) as u8;
        let mut segment = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, words << 4, flags];
        segment.extend([0xff, 0xff, 0x12, 0x34, 0, 0]);
        segment.extend_from_slice(options);
        segment.resize(usize::from(words) * 4, 0);
        segment
    };
    let udp = |port: u8| vec![0x9c, 0x40, 0, port, 0, 12, 0, 0, 1, 2, 3, 4];
    let syn = tcp(
        2,
        &[
            2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
        ],
    );
    let odd = tcp(2, &[1, 2, 4, 5, 180]);
    let mut fragment = ipv4(0, 6, &syn);
    fragment[7] = 1;
    let mut truncated = ethernet(&[], 0x0800, &ipv4(0, 6, &syn));
    truncated.truncate(50);
    vec![
        ("syn-ipv4", ethernet(&[], 0x0800, &ipv4(0, 6, &syn))),
        ("syn-ipv6", ethernet(&[], 0x86dd, &ipv6(0, 6, &syn))),
        ("syn-odd-option", ethernet(&[], 0x0800, &ipv4(0, 6, &odd))),
        (
            "syn-two-tags",
            ethernet(&[0x88a8, 0x8100], 0x0800, &ipv4(0, 6, &syn)),
        ),
        ("syn-cut", truncated),
        (
            "ack-ecn",
            ethernet(&[], 0x0800, &ipv4(2, 6, &tcp(0x10, &[]))),
        ),
        (
            "ack-ecn-ipv6",
            ethernet(&[], 0x86dd, &ipv6(1, 6, &tcp(0x10, &[]))),
        ),
        ("fragment", ethernet(&[], 0x0800, &fragment)),
        ("udp", ethernet(&[], 0x0800, &ipv4(3, 17, &udp(99)))),
        ("dns", ethernet(&[0x8100], 0x0800, &ipv4(0, 17, &udp(53)))),
        ("dns-ipv6", ethernet(&[], 0x86dd, &ipv6(0, 17, &udp(53)))),
        ("voice", ethernet(&[], 0x0800, &ipv4(46 << 2, 17, &udp(99)))),
        ("ping", ethernet(&[], 0x0800, &ipv4(0, 1, &[8, 0, 0, 0]))),
        (
            "ping-ipv6",
            ethernet(&[], 0x86dd, &ipv6(0, 58, &[128, 0, 0, 0])),
        ),
        ("arp", ethernet(&[], 0x0806, &[0; 28])),
    ]
}
