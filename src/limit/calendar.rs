//! Windows that follow the calendar of a time zone.

use std::fmt;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};

use super::window::Length;
use crate::clock::Timestamp;

/// A period of the calendar.
///
/// ```
/// use bursar::{Policy, usd};
/// use bursar::policy::Period;
///
/// let policy = Policy::new().calendar(Period::Month, "Europe/Berlin", usd!("50"));
/// # let _ = policy;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Period {
    /// A day, from midnight to midnight.
    Day,
    /// A week, from midnight on Monday.
    Week,
    /// A month, from midnight on its first day.
    Month,
    /// A year, from midnight on January 1.
    Year,
}

impl Period {
    /// Returns the name of the period, in texts and in databases. Do not reword it.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// Returns the period of this name.
    #[cfg(feature = "sqlite")]
    pub(crate) fn of_key(key: &str) -> Option<Self> {
        [Self::Day, Self::Week, Self::Month, Self::Year]
            .into_iter()
            .find(|period| period.key() == key)
    }
}

/// Returns the time zone of an IANA name such as `Europe/Berlin`, or of `UTC`. Otherwise returns an error text.
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
    name: Arc<str>,
}

impl Calendar {
    /// Returns the calendar of an IANA zone name such as `Europe/Berlin`, or of `UTC`.
    pub(crate) fn new(period: Period, zone: &str) -> Result<Self, String> {
        Ok(Self {
            period,
            zone: time_zone(zone)?,
            name: zone.into(),
        })
    }

    #[cfg(feature = "toml")]
    pub(crate) const fn period(&self) -> Period {
        self.period
    }

    /// Returns the name of the time zone.
    pub(crate) fn zone_name(&self) -> &str {
        &self.name
    }

    pub(super) fn length(&self) -> Length {
        Length::Calendar(self.period, Arc::clone(&self.name))
    }

    /// Returns the time at which the period of `now` began.
    ///
    /// Outside the years that the calendar knows (±9999), a period has no beginning, and everything counts.
    pub(crate) fn start(&self, now: Timestamp) -> Timestamp {
        self.edges(now)
            .map_or(Timestamp::from_millis(i64::MIN), |(start, _)| start)
    }

    /// Returns the time at which the period of `now` will end.
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

/// Writes `month (Europe/Berlin)`.
impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.period.key(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn periods_begin_and_end_at_midnight_of_the_zone() {
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
