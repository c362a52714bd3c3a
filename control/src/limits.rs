//! Every bound of the control program, in one place, each with its reason.

use std::time::Duration;

/// Peers of one gateway: each may hold five of the 1024 key slots at once (two previous keys, the
/// current one, an unconfirmed answer, an attempt of our own).
pub const PEERS_MAX: usize = 200;

/// Ports of one gateway: the dataplane names them by small integers, and no machine has more.
pub const PORTS_MAX: usize = 64;

/// Bytes of a configuration file: a thousand peers fit; a device file or a log does not.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a key file: 44 characters and some white space.
pub const KEY_FILE_BYTES_MAX: u64 = 256;

/// First retries of an unanswered init. Short, so that one lost datagram or a restarted peer
/// costs a second. All retries come up to a quarter earlier, at random, so that two gateways do
/// not stay in step.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);

/// How many retries use [`RETRY_FIRST`].
pub const RETRIES_FIRST: u32 = 3;

/// The retries after them: longer than any round trip, for a response to an init that was
/// repeated meanwhile is of no use.
pub const RETRY_SECOND: Duration = Duration::from_secs(2);

/// How many retries use [`RETRY_SECOND`].
pub const RETRIES_SECOND: u32 = 5;

/// All later retries: a peer that comes back while only we know its address is found within 5 s.
pub const RETRY_LATER: Duration = Duration::from_secs(4);

/// The responder of a session begins the next handshake this much after the initiator should have.
pub const RESPONDER_GRACE: Duration = Duration::from_secs(10);

/// Nothing heard for this long although challenges went out: the peer is silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(3);

/// What a peer sealed before it said close is opened for so long: its last frames may overtake
/// one another.
pub const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Challenges on a path that is up: they show that the peer lives, and measure the RTT.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Challenges until a new key is confirmed.
pub const PROBE_INTERVAL_UNCONFIRMED: Duration = Duration::from_millis(200);

/// An answer that the initiator has not confirmed by then is given up: its keys go.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an init of ours beats a simultaneous one of the peer: longer than most round trips,
/// shorter than a retry.
pub const TIE_WINDOW: Duration = Duration::from_millis(700);

/// Responses that fail to authenticate before an attempt stops looking at any.
pub const RESPONSE_FAILURES_MAX: u8 = 4;

/// Inits per second from a peer's known address that may cost a DH, and the burst above it.
pub const INITS_KNOWN: (u32, u32) = (10, 20);

/// The same for one unknown source address.
pub const INITS_UNKNOWN_SOURCE: (u32, u32) = (5, 10);

/// The same for all unknown source addresses together: at 0.3 ms each, a thirtieth of a CPU.
pub const INITS_UNKNOWN_TOTAL: (u32, u32) = (100, 100);

/// Buckets that unknown source addresses are hashed into.
pub const SOURCE_BUCKETS: usize = 256;

/// Frames taken from the dataplane in one turn of the control loop, so that timers are served
/// under any flood.
pub const FRAMES_PER_TURN: usize = 64;

/// Answers to ARP requests per second and port, and the burst above it.
pub const ARP_REPLIES: (u32, u32) = (200, 50);

/// Answers to ICMP echo requests per second and port, and the burst above it.
pub const ECHO_REPLIES: (u32, u32) = (1000, 100);

/// An ARP request is repeated after this.
pub const ARP_RETRY: Duration = Duration::from_secs(1);

/// A resolved neighbour is asked again after this; until it answers, the old address serves.
pub const ARP_REFRESH: Duration = Duration::from_secs(30);

/// An answer that comes later than this after our last request was not asked for.
pub const ARP_ANSWER_WINDOW: Duration = Duration::from_secs(3);

/// A neighbour nobody has used for this long is forgotten.
pub const NEIGHBOUR_IDLE: Duration = Duration::from_secs(60);

/// Neighbours held: one next hop per peer, and what peers that move leave behind for a minute.
pub const NEIGHBOURS_MAX: usize = 2 * PEERS_MAX;

/// The control loop's sleep while something is under way, and when nothing is.
pub const TURN_BUSY: Duration = Duration::from_micros(200);
/// See [`TURN_BUSY`].
pub const TURN_IDLE: Duration = Duration::from_millis(1);

/// How long the loop counts as busy after the last event.
pub const BUSY_AFTER_EVENT: Duration = Duration::from_millis(50);

/// How often the stats of sessions are renewed.
pub const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// How long a stop waits until the lcores have taken up the word to close.
pub const CLOSE_WAIT: Duration = Duration::from_millis(200);

/// Connections that the stats endpoint serves at once; the next one waits until a place is free.
pub const STATS_CONNECTIONS_MAX: usize = 8;

/// Bytes of a request's head: as few as hyper takes.
pub const STATS_REQUEST_BYTES_MAX: usize = 8192;

/// A client that has not sent its request by then is dropped; `shardgate stats` waits as long for
/// each step of the answer.
pub const STATS_TIMEOUT: Duration = Duration::from_secs(2);

/// All the time of a connection: to send the request, and as much again to take the answer.
pub const STATS_CONNECTION_TIME: Duration = Duration::from_secs(4);

/// Arrivals in a record file: 32 MB, which `sim predict` takes.
pub const RECORDS_MAX: u64 = 2_000_000;

/// Arrivals written in a turn of the control loop: half a millisecond's work, and 4 million a second.
pub const RECORDS_PER_TURN: usize = 4_096;

/// Decisions taken from the lcores in a turn of the control loop: each is a line to be written, 10 µs.
pub const DECISIONS_PER_TURN: usize = 64;

/// Decisions of all streams that are kept to be shown: 8 MB of JSON.
pub const DECISIONS_SHOWN: usize = 4_096;

/// Of one stream at least and at most: five minutes of a path that stays have 30.
pub const DECISIONS_SHOWN_OF_STREAM: (usize, usize) = (4, 32);

/// Lines a minute and stream that go into a decisions file, on average, and at once: ten times what a
/// path that stays makes.
pub const DECISION_LINES_PER_MINUTE: u32 = 60;

/// Bytes of a decisions file: some 120,000 lines, two weeks of one stream whose path stays.
pub const DECISIONS_FILE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a decision's line that `sim plan` reads: a gateway writes 2,500 at the most.
pub const DECISION_LINE_BYTES_MAX: usize = 16 << 10;

/// Decisions that `sim plan` replays: a decisions file that is full.
pub const DECISIONS_REPLAYED_MAX: usize = 200_000;

/// How often what the models have learned is saved: a crash costs no more than that.
pub const STATE_SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// Addresses of one name that `shardgate stats` tries: `localhost` has two.
pub const STATS_ADDRESSES_MAX: usize = 4;

/// How long a stop waits until the state file is written: a disk that takes longer may never answer.
pub const STATE_END_WAIT: Duration = Duration::from_secs(3);

/// Bytes of an answer that `shardgate stats` reads.
pub const STATS_ANSWER_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(PEERS_MAX * 5 < shardgate_core::limits::KEY_SLOTS);
const _: () = assert!(TIE_WINDOW.as_nanos() * 4 < RETRY_FIRST.as_nanos() * 3);
