//! A change of a plan as JSON: what was planned before and since, and all that it was made from, so
//! that it can be made again.
//!
//! The names are those of the stats where the stats have them. All numbers are whole, so nothing is
//! lost by writing them.

use std::fmt;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use shardgate_core::plan::{
    Breaker, Decision, Figure, Held, Inputs, Label, Level, Limits, Pace, Plan, Reason, Repair,
    RepairMode, State,
};
use shardgate_core::time::Time;

use super::Wall;

/// Rises when a member comes, goes or changes its meaning: who replays needs all of them.
pub const SCHEMA_VERSION: u32 = 1;

/// A change of the plan of a stream that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The time of day.
    pub time: Wall,
    /// The peer that the stream goes to.
    pub peer: String,
    /// The stream.
    pub stream: u8,
    /// The path that it takes.
    pub path: u8,
    /// The how manieth of the stream since the gateway started, from 0.
    pub number: u64,
    /// When by the lcores' clock, from what, to what, and by which inputs.
    pub decision: Decision,
}

/// Why a text is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It ends too soon.
    #[error("it is cut off: remove what is left of it")]
    CutOff,
    /// Of another version of the program.
    #[error(
        "it has schema_version {0}, and this program reads {SCHEMA_VERSION}: use the program that \
         wrote it"
    )]
    Version(u64),
    /// Anything else.
    #[error("{0}: it is no decision of a gateway")]
    Malformed(String),
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        serde_json::from_str(text).map_err(|error| why(text, &error))
    }
}

/// What is wrong with a text that was not read.
pub fn why(text: &str, error: &serde_json::Error) -> RecordError {
    #[derive(Deserialize)]
    struct Versioned {
        schema_version: u64,
    }
    if error.is_eof() {
        return RecordError::CutOff;
    }
    match serde_json::from_str::<Versioned>(text) {
        Ok(Versioned { schema_version }) if schema_version != u64::from(SCHEMA_VERSION) => {
            RecordError::Version(schema_version)
        }
        // Of its place the column is of use; the line is the caller's to count.
        _ => RecordError::Malformed(error.to_string().replace("line 1 column", "column")),
    }
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<P> {
    schema_version: u32,
    time: Wall,
    at_ns: u64,
    peer: P,
    stream: u8,
    path: u8,
    number: u64,
    #[serde(with = "PlanDef")]
    from: Plan,
    #[serde(with = "PlanDef")]
    to: Plan,
    #[serde(with = "InputsDef")]
    inputs: Inputs,
    #[serde(with = "StateDef")]
    state: State,
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Decision {
            at,
            before,
            inputs,
            plan,
        } = self.decision;
        Line {
            schema_version: SCHEMA_VERSION,
            time: self.time,
            at_ns: at.as_nanos(),
            peer: self.peer.as_str(),
            stream: self.stream,
            path: self.path,
            number: self.number,
            from: before.plan,
            to: plan,
            inputs,
            state: before,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let line = Line::<String>::deserialize(deserializer)?;
        if line.schema_version != SCHEMA_VERSION {
            return Err(de::Error::custom("schema_version"));
        }
        Ok(Self {
            time: line.time,
            peer: line.peer,
            stream: line.stream,
            path: line.path,
            number: line.number,
            decision: Decision {
                at: Time(line.at_ns),
                before: State {
                    plan: line.from,
                    ..line.state
                },
                inputs: line.inputs,
                plan: line.to,
            },
        })
    }
}

/// A plan by itself.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct PlanJson(#[serde(with = "PlanDef")] pub Plan);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Plan", deny_unknown_fields)]
struct PlanDef {
    #[serde(with = "label")]
    label: Label,
    #[serde(rename = "n")]
    split: u8,
    #[serde(rename = "payload_bytes")]
    payload: u16,
    #[serde(rename = "repair", with = "repair")]
    standing: Option<Repair>,
    #[serde(with = "repair")]
    reactive: Option<Repair>,
    delay_ms: u8,
    added_permille: u16,
    #[serde(with = "reason")]
    reason: Reason,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Inputs", deny_unknown_fields)]
struct InputsDef {
    #[serde(with = "LimitsDef")]
    limits: Limits,
    #[serde(with = "figure")]
    round_trip_us: Figure,
    #[serde(with = "figure")]
    round_trip_min_us: Figure,
    #[serde(with = "figure")]
    loss_ppm: Figure,
    #[serde(with = "figure")]
    radio_loss_ppm: Figure,
    #[serde(with = "figure")]
    burst_milli: Figure,
    #[serde(with = "figure")]
    recent_burst_milli: Figure,
    #[serde(with = "figure")]
    events_milli_per_s: Figure,
    #[serde(with = "figure")]
    since_loss_us: Figure,
    #[serde(with = "figure")]
    delivery_bytes_per_s: Figure,
    #[serde(with = "figure")]
    queue_us: Figure,
    #[serde(with = "figure")]
    crypto_permille: Figure,
    reports: u64,
    unanswered: u64,
    unanswered_us: u64,
    #[serde(rename = "competing")]
    is_competing: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Limits", deny_unknown_fields)]
struct LimitsDef {
    #[serde(with = "mode")]
    repair: RepairMode,
    asks: bool,
    #[serde(rename = "payload_max_bytes")]
    payload_max: u16,
    window_max: u16,
    shards_max: u8,
}

/// What is remembered beside the plan, which stands in `from`.
#[derive(Serialize, Deserialize)]
#[serde(remote = "State", deny_unknown_fields)]
struct StateDef {
    #[serde(skip)]
    plan: Plan,
    #[serde(with = "LevelDef")]
    loss: Level,
    #[serde(with = "LevelDef")]
    burst: Level,
    #[serde(with = "LevelDef")]
    split: Level,
    #[serde(with = "LevelDef")]
    delay: Level,
    #[serde(with = "LevelDef")]
    relief: Level,
    #[serde(with = "HeldDef")]
    split_due: Held,
    #[serde(with = "PaceDef")]
    pace: Pace,
    #[serde(with = "PaceDef")]
    split_pace: Pace,
    #[serde(with = "PaceDef")]
    relief_pace: Pace,
    #[serde(with = "BreakerDef")]
    breaker: Breaker,
    #[serde(rename = "hopeless")]
    is_hopeless: bool,
    #[serde(with = "split_at")]
    split_at: (u64, u64),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Level", deny_unknown_fields)]
struct LevelDef {
    at: u8,
    #[serde(rename = "high_since_ns", with = "moment")]
    high_since: Option<Time>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Held", deny_unknown_fields)]
struct HeldDef {
    least: u8,
    #[serde(rename = "since_ns", with = "moment")]
    since: Option<Time>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Pace", deny_unknown_fields)]
struct PaceDef {
    #[serde(rename = "fell_at_ns", with = "moment")]
    fell_at: Option<Time>,
    #[serde(rename = "regretted")]
    is_regretted: bool,
    regrets: u8,
    #[serde(rename = "judged_at_ns", with = "time")]
    judged_at: Time,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Breaker", deny_unknown_fields)]
struct BreakerDef {
    step: u8,
    reports: u64,
    strikes: u64,
    #[serde(rename = "half_since_ns", with = "moment")]
    half_since: Option<Time>,
    #[serde(rename = "sound_since_ns", with = "moment")]
    sound_since: Option<Time>,
}

/// Declares how a type is written as another one that serde knows.
macro_rules! as_other {
    ($name:ident: $type:ty as $other:ty, $to:expr, $from:expr) => {
        mod $name {
            use super::*;

            pub fn serialize<S: Serializer>(
                value: &$type,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                let to: fn($type) -> $other = $to;
                to(*value).serialize(serializer)
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<$type, D::Error> {
                let from: fn($other) -> Result<$type, Wrong> = $from;
                from(<$other>::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

/// A value that a text of the right shape may not have.
struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A measured figure; `null` stands for one that nobody has measured.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FigureJson {
    value: u64,
    count: u64,
    age_us: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RepairJson {
    every: u8,
    window: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ModeJson {
    Word(Word),
    Fixed(RepairJson),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Off,
    Auto,
}

/// Delivery rate and round trip when n was right last.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitAtJson {
    delivery_bytes_per_s: u64,
    round_trip_us: u64,
}

as_other!(time: Time as u64, |time| time.as_nanos(), |nanos| Ok(Time(nanos)));
as_other!(
    moment: Option<Time> as Option<u64>,
    |time| time.map(Time::as_nanos),
    |nanos| Ok(nanos.map(Time))
);
as_other!(
    figure: Figure as Option<FigureJson>,
    |Figure { value, count, age_us }| (count > 0).then_some(FigureJson { value, count, age_us }),
    |figure| match figure {
        None => Ok(Figure::UNKNOWN),
        Some(FigureJson { count: 0, .. }) => Err(Wrong("a figure with a count of 0 is null".into())),
        Some(FigureJson { value, count, age_us }) => Ok(Figure { value, count, age_us }),
    }
);
as_other!(
    repair: Option<Repair> as Option<RepairJson>,
    |repair| repair.map(|Repair { every, window }| RepairJson { every, window }),
    |repair| Ok(repair.map(|RepairJson { every, window }| Repair { every, window }))
);
as_other!(
    mode: RepairMode as ModeJson,
    |mode| match mode {
        RepairMode::Off => ModeJson::Word(Word::Off),
        RepairMode::Auto => ModeJson::Word(Word::Auto),
        RepairMode::Fixed { every, window } => ModeJson::Fixed(RepairJson { every, window }),
    },
    |mode| Ok(match mode {
        ModeJson::Word(Word::Off) => RepairMode::Off,
        ModeJson::Word(Word::Auto) => RepairMode::Auto,
        ModeJson::Fixed(RepairJson { every, window }) => RepairMode::Fixed { every, window },
    })
);
as_other!(
    split_at: (u64, u64) as SplitAtJson,
    |(delivery_bytes_per_s, round_trip_us)| SplitAtJson { delivery_bytes_per_s, round_trip_us },
    |at| Ok((at.delivery_bytes_per_s, at.round_trip_us))
);
as_other!(
    label: Label as String,
    |label| label.name().into(),
    |name| {
        let label = Label::ALL.into_iter().find(|label| label.name() == name);
        label.ok_or_else(|| unknown("label", &name))
    }
);
as_other!(
    reason: Reason as String,
    |reason| reason.name().into(),
    |name| {
        let reason = Reason::ALL.into_iter().find(|reason| reason.name() == name);
        reason.ok_or_else(|| unknown("reason", &name))
    }
);

fn unknown(what: &str, name: &str) -> Wrong {
    let shown: String = name.chars().take(20).collect();
    Wrong(format!("there is no {what} {shown:?}"))
}
