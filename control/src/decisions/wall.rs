//! The time of day, as RFC 3339 writes it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const SECOND: u64 = 1_000_000_000;
const MICROSECOND: u64 = 1_000;
const DAY: u64 = 86_400;

/// Characters of a time: `2026-01-31T23:59:59.123456Z`.
const LEN: usize = 27;

/// Nanoseconds since 1970, UTC; written with microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(pub u64);

fn days_of_year(year: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    365 + u64::from(is_leap)
}

fn days_of_months(year: u64) -> [u64; 12] {
    let february = days_of_year(year) - 337;
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// Year, month and day of a day since 1970; there are 584 years in a `u64` of nanoseconds.
fn date(mut day: u64) -> (u64, u64, u64) {
    let (mut year, mut month) = (1970, 1);
    while day >= days_of_year(year) {
        day -= days_of_year(year);
        year += 1;
    }
    for days in days_of_months(year) {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    (year, month, day + 1)
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / SECOND;
        let micros = self.0 % SECOND / MICROSECOND;
        let (year, month, day) = date(seconds / DAY);
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

impl FromStr for Wall {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
            let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
            let clock = number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?;
            let years: u64 = (1970..year).map(days_of_year).sum();
            let months = usize::try_from(month.checked_sub(1)?).ok()?;
            let months = days_of_months(year).get(..months)?.iter().sum::<u64>();
            let days = years + months + day.checked_sub(1)?;
            let micros = (days * DAY + clock) * 1_000_000 + number(20, 26)?;
            micros.checked_mul(MICROSECOND).map(Self)
        };
        // Nothing but what it is written as: no other hour, no 30th of February.
        read()
            .filter(|wall| text.len() == LEN && wall.to_string() == text)
            .ok_or_else(|| {
                let shown: String = text.chars().take(LEN).collect();
                format!("{shown:?} is no time such as 2026-01-31T23:59:59.123456Z")
            })
    }
}

impl Serialize for Wall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_those_that_date_prints() {
        // `date -u -d @SECONDS +%FT%TZ`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_868_799, "2000-02-29T23:59:59"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_767_225_599, "2025-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            let wall = Wall(seconds * SECOND + 45_000);
            let text = format!("{text}.000045Z");
            assert_eq!(wall.to_string(), text);
            assert_eq!(text.parse(), Ok(wall));
        }
        for wrong in [
            "",
            "2025-02-29T00:00:00.000000Z",
            "2025-00-01T00:00:00.000000Z",
            "2025-01-00T00:00:00.000000Z",
            "2025-01-01T24:00:00.000000Z",
            "2025-01-01 00:00:00.000000Z",
            "2025-01-01T00:00:00.000000+",
            "2025-01-01T00:00:00Z",
            "1969-12-31T23:59:59.000000Z",
            "9999-12-31T23:59:59.000000Z",
            "+025-01-01T00:00:00.000000Z",
            "202é-01-01T00:00:00.000000",
        ] {
            assert!(wrong.parse::<Wall>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_time_is_read_as_it_was_written(micros in 0..u64::MAX / MICROSECOND) {
            let wall = Wall(micros * MICROSECOND);
            prop_assert_eq!(wall.to_string().parse(), Ok(wall));
        }

        #[test]
        fn nothing_that_is_read_does_harm(text in any::<String>(), digits in "[0-9:TZ.-]{27}") {
            let _ = (text.parse::<Wall>(), digits.parse::<Wall>());
        }
    }
}
