//! For state machines: scripts of what happens on real links.

use super::Seed;
use crate::script::Writer;

/// The steps of the receiver's scripts, by number.
mod receiver_step {
    pub const AGGREGATE: u8 = 0;
    pub const NEXT: u8 = 1;
    pub const AGAIN: u8 = 2;
    pub const MUTATED: u8 = 3;
    pub const HOSTILE_SOURCE: u8 = 4;
    pub const REPAIR: u8 = 5;
    pub const HOSTILE_REPAIR: u8 = 6;
    pub const EXTENT: u8 = 7;
    pub const NOT_SENT: u8 = 8;
    pub const MICROSECONDS: u8 = 9;
    pub const MILLISECONDS: u8 = 10;
    pub const POLL: u8 = 11;
    pub const FEEDBACK: u8 = 12;
    pub const ROUND_TRIP: u8 = 13;
    pub const RESTART: u8 = 14;
    pub const DRAIN: u8 = 15;
}

/// Places, habits, bounds, and the first sequence number.
fn receiver_of(places: u8, habits: u8, bounds: u8, base: u32) -> Writer {
    Writer::default().bytes(&[places, habits, bounds]).u32(base)
}

/// An aggregate of one frame.
fn frame(script: Writer, len: u16, lane: u8) -> Writer {
    script
        .bytes(&[receiver_step::AGGREGATE, 0])
        .u16(len)
        .bytes(&[lane])
}

/// Frames, one to an aggregate, of which every third is only delivered after the others.
fn reordered(script: Writer, lane: u8) -> Writer {
    use receiver_step::*;
    let script = (0..9).fold(script, |script, _| frame(script, 200, lane));
    let script = (0..9u8)
        .filter(|back| back % 3 != 1)
        .fold(script, |script, back| {
            script
                .bytes(&[AGAIN, 8 - back, 0, 0, MICROSECONDS])
                .u16(300)
                .bytes(&[POLL, 0])
        });
    (0..9u8)
        .filter(|back| back % 3 == 1)
        .fold(script, |script, back| {
            script.bytes(&[AGAIN, 8 - back, 0, 0])
        })
}

pub(super) fn receiver() -> Vec<Seed> {
    use receiver_step::*;
    let in_order = (0..6).fold(receiver_of(3, 0, 0, 0), |script, _| {
        frame(script, 700, 1).bytes(&[NEXT, 0])
    });
    let spanning = frame(receiver_of(0, 0, 0, 0), 1_500, 0)
        .bytes(&[AGAIN, 0, 0, 0, AGAIN, 2, 0, 0, AGAIN, 1, 0, 0])
        .bytes(&[AGAIN, 5, 0, 0, AGAIN, 4, 0, 0, AGAIN, 3, 0, 0]);
    let incomplete = (0..4).fold(receiver_of(0, 0, 0x0c, 0), |script, _| {
        frame(script, 1_500, 2).bytes(&[AGAIN, 0, 0, 0, AGAIN, 3, 0, 0])
    });
    let asked = reordered(receiver_of(3, 0, 0, 0), 0)
        .bytes(&[ROUND_TRIP])
        .u16(5_000)
        .bytes(&[4, MILLISECONDS])
        .u16(30)
        .bytes(&[POLL, 0, FEEDBACK])
        .u16(1_400)
        .bytes(&[AGAIN, 4, 1, 0]);
    let repaired = (0..8)
        .fold(receiver_of(1, 0, 0, 0), |script, _| frame(script, 250, 3))
        .bytes(&[AGAIN, 7, 0, 0, AGAIN, 6, 0, 0, AGAIN, 4, 0, 0])
        .bytes(&[REPAIR, 7, 0, 1, 0, REPAIR, 7, 0, 2, 0, REPAIR, 3, 2, 3, 0]);
    let ended = frame(reordered(receiver_of(3, 0, 0, 0), 4), 100, 4)
        .bytes(&[EXTENT])
        .u16(0)
        .u16(0xfffc)
        .bytes(&[0, NOT_SENT, 2])
        .u16(0)
        .u16(0xffff)
        .bytes(&[MILLISECONDS])
        .u16(900)
        .bytes(&[POLL, 0]);
    let hostile = frame(receiver_of(2, 0, 0, 0xffff_fffe), 1_000, 0)
        .bytes(&[NEXT, 0, MUTATED, 0, 1])
        .u16(30)
        .bytes(&[0xff])
        .u16(20)
        .bytes(&[1, 0, 0, HOSTILE_SOURCE])
        .u16(40)
        .bytes(&[1, 3, 0b1110_0110, 40, 1])
        .u16(7)
        .bytes(&[60, 2])
        .u16(9)
        .u32(77)
        .u16(0)
        .bytes(&[0, 0, HOSTILE_REPAIR, 0, 3, 9])
        .u16(0xfff8)
        .u32(5)
        .bytes(&[20])
        .bytes(&[0x55; 31])
        .bytes(&[0, 0]);
    let restarted = frame(
        reordered(receiver_of(3, 0, 1, 9), 5).bytes(&[RESTART]),
        80,
        5,
    )
    .bytes(&[NEXT, 0, DRAIN]);
    vec![
        ("in-order", in_order.0),
        (
            "reordered",
            reordered(receiver_of(3, 0, 0, 0xffff_fffa), 1).0,
        ),
        (
            "reordered-unordered-lanes",
            reordered(receiver_of(3, 1, 0, 0), 1).0,
        ),
        (
            "four-held-at-most",
            reordered(receiver_of(3, 0x20, 3, 0), 3).0,
        ),
        ("frame-of-six-shards", spanning.0),
        ("incomplete-frames", incomplete.0),
        ("asked-for", asked.0),
        ("repaired", repaired.0),
        ("ended", ended.0),
        ("hostile", hostile.0),
        ("restarted", restarted.0),
    ]
}

/// The habits of an endpoint: of its receiver two, its own, and repair.
fn endpoint_of(habits: [u8; 5]) -> Writer {
    Writer::default().bytes(&habits)
}

/// Frames that are sent at once, and time for them to get there.
fn traffic(script: Writer, frames: u8) -> Writer {
    (0..frames).fold(script, |script, _| {
        script
            .bytes(&[0])
            .u16(900)
            .bytes(&[1, 1, 3])
            .u16(900)
            .bytes(&[2])
    })
}

/// A feedback message, `place` says on which path with which number; then its blocks, a zero, and
/// how long ago it came.
fn message(script: Writer, place: u8, blocks: &[u8]) -> Writer {
    script.bytes(&[5, place]).bytes(blocks).bytes(&[0, 0])
}

/// A report of the newest, seen so many microseconds ago, with runs of (gap, len).
fn report(style: u8, back: &[u8], ago: u16, runs: &[(u8, u8)]) -> Vec<u8> {
    let script = Writer::default()
        .bytes(&[1, (runs.len() as u8) << 3, style])
        .bytes(back)
        .bytes(&[0, 0])
        .u16(20_000)
        .u16(21_000)
        .bytes(&[0])
        .u16(ago)
        .u16(100);
    runs.iter()
        .fold(script, |script, &(gap, len)| script.bytes(&[gap, len]))
        .0
}

/// A request for so many shards back from the newest.
fn wanted(count: u8, back: u16) -> Vec<u8> {
    Writer::default().bytes(&[3, count]).u16(back).bytes(&[1]).0
}

pub(super) fn endpoint() -> Vec<Seed> {
    let usual = [0; 5];
    let reported = message(
        traffic(endpoint_of(usual), 6),
        0,
        &report(0, &[], 20_000, &[(0, 3), (1, 2)]),
    );
    let asked = [
        report(0, &[], 30_000, &[(0, 1)]),
        wanted(5, 5),
        wanted(200, 200),
    ]
    .concat();
    let asked = message(traffic(endpoint_of(usual), 6), 0, &asked)
        .bytes(&[4])
        .u16(40)
        .bytes(&[2]);
    let impossible = [
        report(3, &[255; 8], 20_000, &[(255, 255), (0, 255)]),
        report(2, &[200], 20_000, &[(255, 255)]),
        report(0xf8, &[1; 8], 9, &[(0, 0)]),
    ];
    let impossible = impossible.iter().fold(
        traffic(endpoint_of([0xc0, 0, 0, 0, 0]), 4),
        |script, block| message(script, 0, block).bytes(&[3]).u16(1_500),
    );
    let future = message(
        traffic(endpoint_of(usual), 3),
        0,
        &report(0x80, &[], 50_000, &[(0, 2)]),
    );
    let repaired = traffic(endpoint_of([0, 0, 0x20, 4, 16]), 12)
        .bytes(&[4])
        .u16(60)
        .bytes(&[2]);
    let probed = message(
        endpoint_of(usual)
            .bytes(&[14, 0])
            .u16(77)
            .bytes(&[3])
            .u16(9_000),
        0,
        &[&[6, 0][..], &[0; 8], &[5], &[9; 12], &[8]].concat(),
    );
    let keys = traffic(
        traffic(endpoint_of(usual), 2)
            .bytes(&[10, 0])
            .u16(300)
            .bytes(&[1, 1, 2, 9])
            .u16(0),
        2,
    );
    let paths = traffic(
        traffic(endpoint_of([0xc0, 0, 0, 0, 0]), 2)
            .bytes(&[11])
            .u16(500)
            .bytes(&[1, 13, 0, 13, 1, 11])
            .u16(0)
            .bytes(&[0x81]),
        2,
    );
    let received = endpoint_of(usual)
        .bytes(&[12, 3, 7])
        .u16(3)
        .bytes(&[0, 1, 0b1010_0001, 40, 1])
        .u16(0)
        .u32(0)
        .u16(0)
        .bytes(&[0, 0, 0, 8, 0, 1, 3])
        .u16(0)
        .u32(0)
        .bytes(&[9])
        .bytes(&[3; 20])
        .bytes(&[0, 0, 0, 4])
        .u16(300)
        .bytes(&[2, 16, 2, 16, 0]);
    let starved = traffic(endpoint_of(usual).bytes(&[17, 1, 0]), 4).bytes(&[17, 255, 255, 2]);
    vec![
        ("reported", reported.0),
        ("asked", asked.0),
        ("impossible-reports", impossible.0),
        ("echo-from-the-future", future.0),
        ("standing-repair", repaired.0),
        ("probed", probed.0),
        ("keys", keys.0),
        ("paths", paths.0),
        ("received", received.0),
        ("starved", starved.0),
    ]
}

/// Two sites of the same habits, and what becomes of their datagrams.
fn pair_of(habits: [u8; 5], fates: &[u8]) -> Writer {
    let sites = Writer::default().bytes(&habits).bytes(&habits);
    sites.bytes(&[fates.len() as u8]).bytes(fates)
}

/// Frames at both sites, some milliseconds apart.
fn talk(script: Writer, frames: u8) -> Writer {
    (0..frames).fold(script, |script, n| {
        script
            .bytes(&[0, n & 1])
            .u16(300 + u16::from(n) * 97)
            .bytes(&[n % 3, 2, 40 + n])
    })
}

pub(super) fn pair() -> Vec<Seed> {
    const LOSS: u8 = 5;
    const TWICE: u8 = 6;
    const CORRUPT: u8 = 7;
    let lossy = [0, 0, LOSS, 0, 0, 0, 0];
    let usual = [0; 5];
    let bursts: Vec<u8> = [vec![0; 30], vec![LOSS; 9]].concat();
    let late = |by: u8| by << 3;
    vec![
        ("kind", talk(pair_of(usual, &[]), 20).0),
        ("losing", talk(pair_of(usual, &lossy), 24).0),
        ("losing-bursts", talk(pair_of(usual, &bursts), 24).0),
        (
            "reordering",
            talk(pair_of(usual, &[0, late(1), late(3), 0, late(9)]), 24).0,
        ),
        (
            "repeating",
            talk(pair_of(usual, &[TWICE, 0, 0, TWICE]), 20).0,
        ),
        (
            "corrupting",
            talk(pair_of(usual, &[0, 0, 0, CORRUPT, 0, CORRUPT | 0x20]), 20).0,
        ),
        (
            "repair-alone",
            talk(pair_of([4, 0, 0x28, 4, 16], &lossy), 24).0,
        ),
        (
            "small-shards",
            talk(pair_of([0, 0, 0x07, 1, 0], &lossy), 20).0,
        ),
        (
            "fixed-hold-unordered",
            talk(pair_of([0x21, 0x0f, 0, 0, 0], &lossy), 20).0,
        ),
        (
            "nothing-added",
            talk(pair_of([0, 0, 0xc0, 0, 0], &lossy), 20).0,
        ),
        (
            "tail",
            talk(pair_of(usual, &[0, 0, 0, 0, LOSS]), 5)
                .bytes(&[3, 200])
                .0,
        ),
    ]
}
