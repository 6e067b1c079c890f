//! Windows that follow the calendar of a time zone.

use std::fmt;

use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};

use crate::Timestamp;

/// A unit of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Period {
    /// From midnight.
    Day,
    /// From Monday's midnight.
    Week,
    /// From the first of the month.
    Month,
    /// From the first of January.
    Year,
}

/// The time zone of an IANA name such as `Europe/Berlin`, or `UTC`; else what is wrong.
pub(crate) fn time_zone(name: &str) -> Result<TimeZone, String> {
    let found = if name == "UTC" {
        Ok(TimeZone::UTC)
    } else {
        TimeZone::get(name)
    };
    found.map_err(|_| {
        format!(
            "time zone `{}` is not known here",
            crate::text::excerpt(name)
        )
    })
}

/// A period in a time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Calendar {
    period: Period,
    zone: TimeZone,
    name: String,
}

impl Calendar {
    /// `zone` is an IANA name such as `Europe/Berlin`, or `UTC`.
    pub(crate) fn new(period: Period, zone: &str) -> Result<Self, String> {
        Ok(Self {
            period,
            zone: time_zone(zone)?,
            name: zone.to_owned(),
        })
    }

    /// The name of its zone.
    pub(crate) fn zone_name(&self) -> &str {
        &self.name
    }

    /// When the period that `now` lies in began.
    ///
    /// Beyond the calendar's years (±9999) the window has no beginning: everything counts.
    pub(crate) fn start(&self, now: Timestamp) -> Timestamp {
        self.edges(now)
            .map_or(Timestamp::from_millis(i64::MIN), |(start, _)| start)
    }

    /// When it ends.
    pub(crate) fn end(&self, now: Timestamp) -> Timestamp {
        self.edges(now).map_or(Timestamp::MAX, |(_, end)| end)
    }

    fn edges(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let now = jiff::Timestamp::from_millisecond(now.millis())
            .ok()?
            .to_zoned(self.zone.clone());
        let (first, length) = match self.period {
            Period::Day => (now.date(), 1.day()),
            Period::Week => {
                let since_monday = i64::from(now.weekday().to_monday_zero_offset());
                (now.date().checked_sub(since_monday.days()).ok()?, 1.week())
            }
            Period::Month => (now.date().first_of_month(), 1.month()),
            Period::Year => (now.date().first_of_year(), 1.year()),
        };
        let start = first.to_zoned(self.zone.clone()).ok()?;
        let end = first
            .checked_add(length)
            .ok()?
            .to_zoned(self.zone.clone())
            .ok()?;
        Some((stamp(&start), stamp(&end)))
    }
}

fn stamp(zoned: &Zoned) -> Timestamp {
    Timestamp::from_millis(zoned.timestamp().as_millisecond())
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = match self.period {
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
            Period::Year => "year",
        };
        write!(f, "{period} ({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn periods_begin_and_end_by_the_zone_s_clock() {
        let now = at("2025-03-30T10:00:00Z"); // the day Berlin goes to summer time
        for (period, zone, start, end) in [
            (
                Period::Day,
                "UTC",
                "2025-03-30T00:00:00Z",
                "2025-03-31T00:00:00Z",
            ),
            (
                Period::Day,
                "Europe/Berlin",
                "2025-03-29T23:00:00Z",
                "2025-03-30T22:00:00Z",
            ),
            (
                Period::Week,
                "UTC",
                "2025-03-24T00:00:00Z",
                "2025-03-31T00:00:00Z",
            ),
            (
                Period::Month,
                "Europe/Berlin",
                "2025-02-28T23:00:00Z",
                "2025-03-31T22:00:00Z",
            ),
            (
                Period::Year,
                "America/New_York",
                "2025-01-01T05:00:00Z",
                "2026-01-01T05:00:00Z",
            ),
        ] {
            let calendar = Calendar::new(period, zone).unwrap();
            assert_eq!(
                (calendar.start(now), calendar.end(now)),
                (at(start), at(end)),
                "{calendar}"
            );
        }
    }

    #[test]
    fn unknown_zones_are_refused() {
        assert!(Calendar::new(Period::Day, "Europe/Atlantis").is_err());
    }
}
