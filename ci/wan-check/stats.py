"""Exact bounds and the judgement of one measured direction of a path.

Every statistical bound has a false-alarm probability of ALPHA; a run makes fewer than a hundred
such comparisons, so a correct emulator fails one run in more than 10,000. Bounds that are not
statistical (an emulator's own lateness) are stated as such, in milliseconds.
"""

import functools
import math
from dataclasses import dataclass, field

ALPHA = 1e-6
# Normal quantile of ALPHA / 2.
Z = 4.8916
# A term of a tail so far below ALPHA adds nothing to it.
NEGLIGIBLE = 1e-12
# How late a departure may be on a machine that shares its cores, median: not statistical.
LATE_MEDIAN_MS = 0.5
# How unevenly late; it blurs a distribution, by at most its density (0.4 / sigma) times this.
LATE_SPREAD_MS = 0.1
# Two clocks (the kernel's and the TSC) and the rounding of a sleep: a frame is not earlier.
EARLY_MS = 0.03
# Between two looks of an adaptive poller: 50 us of sleep, and the kernel's wake-up.
LOOK_MS = 0.15


@dataclass
class Profile:
    """The path that is expected; names and units are those of the command line."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    rate: float = 0.0  # Mbit/s; 0 is unlimited
    queue_frames: int = 0
    loss: float = 0.0
    burst: float = 1.0
    reorder: float = 0.0
    reorder_ms: float = 5.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    mtu: int = 1500

    def flags(self):
        """Flags of `shardgate emulate`; what is at its default is left out."""
        for name, value in vars(self).items():
            if value != getattr(Profile, name):
                yield "--" + name.replace("_", "-")
                yield str(value)

    def queue_limit(self):
        """Frames that wait at the bottleneck: one BDP of full frames, at least 100."""
        bdp_bits = self.rate * 1e6 * 2 * self.delay_ms / 1e3
        return self.queue_frames or max(100, math.ceil(bdp_bits / (1514 * 8)))


@dataclass
class Copy:
    """One arrival: seconds from the entry to here, and how many bits differ."""

    at: float
    flips: int = 0
    flips_first_half: int = 0


@dataclass
class Measured:
    """One direction: frames in the order in which they entered the emulator."""

    frame_len: int
    entered: list = field(default_factory=list)  # (sequence number, time)
    arrived: dict = field(default_factory=dict)  # sequence number -> [Copy], in order of arrival
    order: list = field(default_factory=list)  # sequence numbers as they arrived


@dataclass
class Row:
    what: str
    measured: float
    low: float
    high: float
    note: str = ""
    timing: bool = False  # a machine that is busy with other things can push it out of its bounds

    def passed(self):
        return self.low <= self.measured <= self.high


def log_pmf(k, n, p):
    if p <= 0.0 or p >= 1.0:
        return 0.0 if k == (n if p >= 1.0 else 0) else -math.inf
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + k * math.log(p) + (n - k) * math.log1p(-p)


@functools.cache
def binomial_range(n, p, alpha=ALPHA):
    """Least and greatest count whose tail, itself included, is above alpha / 2."""
    middle = min(n, max(0, round(n * p)))

    def edge(step):
        # Terms fall from the middle outwards: out to where they no longer matter ...
        terms = [math.exp(log_pmf(middle, n, p))]
        while 0 <= middle + step * len(terms) <= n and terms[-1] > NEGLIGIBLE * alpha:
            terms.append(math.exp(log_pmf(middle + step * len(terms), n, p)))
        # ... and back, until what was passed is enough.
        tail, at = 0.0, len(terms)
        while at > 1 and tail <= alpha / 2:
            at -= 1
            tail += terms[at]
        return middle + step * (at if tail > alpha / 2 else 0)

    return edge(-1), edge(1)


def share(what, hits, trials, p, note="binomial"):
    low, high = binomial_range(trials, p)
    scale = max(trials, 1)
    return Row(what, hits / scale, low / scale, high / scale, f"{note}, n = {trials}")


def normal_cdf(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


def losses(profile, measured):
    """The chain of losses by its two transitions: both are plain binomials, whatever the burst."""
    lost = [seq not in measured.arrived for seq, _ in measured.entered]
    pairs = list(zip(lost, lost[1:]))
    after_good = [b for a, b in pairs if not a]
    after_bad = [b for a, b in pairs if a]
    if profile.burst == 1:
        enter, stay = profile.loss, profile.loss
    else:
        enter = profile.loss / (profile.burst * (1 - profile.loss))
        stay = 1 - 1 / profile.burst
    rows = [share("lost after a frame that was not", sum(after_good), len(after_good), enter)]
    if profile.loss > 0:
        rows.append(share("lost after a frame that was", sum(after_bad), len(after_bad), stay))
        # The same twice over for readers: the share, whose error neighbours widen, and the runs.
        n, correlation = len(lost), stay - enter
        error = math.sqrt(
            profile.loss * (1 - profile.loss) / n * (1 + correlation) / (1 - correlation)
        )
        rows.append(
            Row("loss", sum(lost) / n, profile.loss - Z * error, profile.loss + Z * error, "normal")
        )
        runs = sum(1 for a, b in pairs if a and not b)
        ended = sum(after_bad) + runs
        mean, run_error = 1 / (1 - stay), math.sqrt(stay) / (1 - stay) / math.sqrt(max(runs, 1))
        rows.append(
            Row(
                "mean run of losses",
                ended / max(runs, 1),
                mean - Z * run_error,
                mean + Z * run_error,
                f"normal, {runs} runs",
            )
        )
    return rows


def delays(profile, measured):
    """Delay and jitter; a median does not see the few that `reorder` sent the longer way."""
    sample = [copy.at * 1e3 for copies in measured.arrived.values() for copy in copies]
    if not sample:
        return [Row("delay, any frame", 0, 1, math.inf, "nothing arrived")]
    sample.sort()
    n, delay, sigma = len(sample), profile.delay_ms, profile.jitter_ms
    median = sample[n // 2]
    if sigma == 0:
        return [
            Row("delay, least, ms", sample[0], delay - EARLY_MS, delay + LATE_MEDIAN_MS, "exact"),
            Row("delay, median, ms", median, delay - EARLY_MS, delay + LATE_MEDIAN_MS, "lateness"),
            # A busy machine delays some frames by a time slice; that is not the emulator's doing.
            Row("delay, p99, ms", sample[n * 99 // 100], delay, math.inf, "for information"),
        ]
    mean = sum(sample) / n
    deviation = math.sqrt(sum((x - mean) ** 2 for x in sample) / (n - 1))
    mean_error, deviation_error = Z * sigma / math.sqrt(n), Z * sigma / math.sqrt(2 * n)
    # The distribution, moved by the measured lateness: Dvoretzky, Kiefer, Wolfowitz.
    late = mean - delay
    apart = max(
        max(abs(normal_cdf((x - mean) / sigma) - i / n), abs(normal_cdf((x - mean) / sigma) - (i + 1) / n))
        for i, x in enumerate(sample)
    )
    bound = math.sqrt(math.log(2 / ALPHA) / (2 * n)) + 0.4 * LATE_SPREAD_MS / sigma
    return [
        Row("delay, mean, ms", mean, delay - EARLY_MS - mean_error,
            delay + LATE_MEDIAN_MS + mean_error, "normal, lateness"),
        Row("jitter, ms", deviation, sigma - deviation_error,
            sigma + deviation_error + 0.05 * sigma, "normal, lateness"),
        Row("distance from normal", apart, 0, bound, f"DKW, moved by {late:.3f} ms"),
    ]


def arrivals(profile, measured):
    """Duplicates, corruption and order."""
    copies = [copy for copies in measured.arrived.values() for copy in copies]
    counts = [len(copies) for copies in measured.arrived.values()]
    corrupted = [copy for copy in copies if copy.flips]
    rows = [
        share("duplicated", sum(1 for c in counts if c > 1), len(counts), profile.duplicate),
        Row("arrived three times", sum(1 for c in counts if c > 2), 0, 0, "never"),
        share("corrupted", len(corrupted), len(copies), profile.corrupt),
    ]
    if profile.corrupt:
        flips = sum(copy.flips for copy in corrupted)
        first = sum(copy.flips_first_half for copy in corrupted)
        most = max(copy.flips for copy in corrupted) if corrupted else 0
        rows.append(Row("most bits flipped", most, 1, 3, "one to a few"))
        rows.append(share("bits flipped in the first half", first, flips, 0.5))
    if profile.jitter_ms == 0:
        # Order, unlike delay, does not suffer when the machine stalls the emulator as a whole.
        newest, overtaken = -1, 0
        for seq in measured.order:
            overtaken += seq < newest
            newest = max(newest, seq)
        row = share("overtaken", overtaken, len(copies), profile.reorder)
        # The last ones have nobody behind them to overtake them.
        row.low *= 0.99
        rows.append(row)
    return rows


def throughput(profile, measured):
    """Rate and queue of an overloaded link."""
    entered = dict(measured.entered)
    frame_ms = measured.frame_len * 8 / profile.rate / 1e3
    out = sorted((entered[seq] + copies[0].at, copies[0].at) for seq, copies in measured.arrived.items())
    # Between a frame that waited and the one before it, the link was never idle.
    gaps = [
        at - before
        for (before, _), (at, way) in zip(out, out[1:])
        if way * 1e3 > profile.delay_ms + 1.5 * frame_ms
    ]
    if not gaps:
        return [Row("frames that waited", 0, 1, math.inf, "the link was never full")]
    rate = len(gaps) * measured.frame_len * 8 / sum(gaps) / 1e6
    delays_ms = sorted(copies[0].at * 1e3 for copies in measured.arrived.values())
    # Half of the frames and more meet a queue that has been full for long.
    waited = delays_ms[len(delays_ms) * 6 // 10]
    full = profile.delay_ms + (profile.queue_limit() + 1) * frame_ms
    return [
        Row("rate, Mbit/s", rate, 0.99 * profile.rate, 1.01 * profile.rate, "1 %"),
        # The last place in the queue is free for up to one frame's time before it is taken.
        # An emulator that sleeps between looks offers it that much later to the queue.
        Row("delay behind a full queue, ms", waited, full - frame_ms - LOOK_MS,
            full + LATE_MEDIAN_MS, "exact, lateness"),
    ]


def judge(profile, measured):
    """Rows of the table for one direction; those that apply to this profile."""
    if profile.rate:
        return timing(throughput(profile, measured))
    return losses(profile, measured) + timing(delays(profile, measured)) + arrivals(profile, measured)


def timing(rows):
    for row in rows:
        row.timing = True
    return rows
