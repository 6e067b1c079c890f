//! The selection of purchases for a report, and its time zone.

use std::fmt;

use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};

use crate::clock::Timestamp;
use crate::ledger::{DenialCount, Filter, Purchase};
use crate::origin::HostPattern;

/// The selection of purchases for a report. A purchase must meet all conditions that are set.
///
/// ```
/// use bursar::report::{Selection, Zone};
///
/// let selection = Selection::new()
///     .host("*.example.com".parse()?)
///     .tag("research")
///     .zone(Zone::named("UTC")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Serialize)]
pub struct Selection {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    #[serde(serialize_with = "as_text")]
    host: Option<HostPattern>,
    tag: Option<String>,
    agent: Option<String>,
    zone: Zone,
}

#[expect(clippy::ref_option, reason = "serde gives it so")]
fn as_text<S: Serializer>(host: &Option<HostPattern>, serializer: S) -> Result<S::Ok, S::Error> {
    host.as_ref().map(ToString::to_string).serialize(serializer)
}

impl Selection {
    /// Returns a selection of all purchases, with days in UTC.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects purchases that were reserved at or after this time.
    #[must_use]
    pub const fn since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    /// Selects purchases that were reserved before this time.
    #[must_use]
    pub const fn until(mut self, until: Timestamp) -> Self {
        self.until = Some(until);
        self
    }

    /// Selects purchases from this host, or from the hosts of this pattern.
    #[must_use]
    pub fn host(mut self, host: HostPattern) -> Self {
        self.host = Some(host);
        self
    }

    /// Selects purchases with this tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Selects purchases by this agent.
    #[must_use]
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.agent = Some(agent.into());
        self
    }

    /// Counts days in this time zone.
    #[must_use]
    pub fn zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// Returns the time zone in which the report counts days.
    #[must_use]
    pub const fn zone_of_days(&self) -> &Zone {
        &self.zone
    }

    /// Returns the conditions that the ledger can apply itself.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            since: self.since,
            until: self.until,
            host: self.host.clone(),
            tag: self.tag.clone(),
            agent: self.agent.clone(),
            ..Filter::all()
        }
    }

    /// Returns whether some of these denials can be in the selection. Their tags and agents are not known.
    pub(super) fn selects_denials(&self, denials: &DenialCount) -> bool {
        let host = denials.host.as_deref();
        let is_host = |pattern: &HostPattern| host.is_some_and(|host| pattern.matches(host));
        self.tag.is_none()
            && self.agent.is_none()
            && self.since.is_none_or(|since| denials.last_at >= since)
            && self.until.is_none_or(|until| denials.first_at < until)
            && self.host.as_ref().is_none_or(is_host)
    }

    pub(super) fn selects(&self, purchase: &Purchase) -> bool {
        self.filter().passes(purchase)
    }
}

/// The conditions, such as `since 2026-11-01T00:00:00Z, tag research`, or `all purchases`.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions = [
            self.since.map(|since| format!("since {since}")),
            self.until.map(|until| format!("before {until}")),
            self.host.as_ref().map(|host| format!("host {host}")),
            self.tag
                .as_deref()
                .map(|tag| format!("tag {}", crate::text::excerpt(tag))),
            self.agent
                .as_deref()
                .map(|agent| format!("agent {}", crate::text::excerpt(agent))),
        ];
        let conditions: Vec<String> = conditions.into_iter().flatten().collect();
        if conditions.is_empty() {
            f.write_str("all purchases")
        } else {
            f.write_str(&conditions.join(", "))
        }
    }
}

/// The time zone of the days in a report. The default is UTC.
#[derive(Clone, Debug)]
pub struct Zone {
    zone: TimeZone,
    name: String,
}

impl Default for Zone {
    fn default() -> Self {
        Self {
            zone: TimeZone::UTC,
            name: "UTC".to_owned(),
        }
    }
}

/// The name of a time zone that this machine does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownZone(String);

impl Zone {
    /// Returns the zone with an IANA name such as `Europe/Berlin`, or `UTC`.
    ///
    /// # Errors
    /// Returns an error if this machine does not know the name.
    pub fn named(name: &str) -> Result<Self, UnknownZone> {
        crate::limit::time_zone(name)
            .map(|zone| Self {
                zone,
                name: name.to_owned(),
            })
            .map_err(UnknownZone)
    }

    /// Returns the day of a time, such as `2026-11-23`, or `None` beyond the years ±9999.
    pub(super) fn day(&self, at: Timestamp) -> Option<String> {
        self.date(at).map(|date| date.to_string())
    }

    fn date(&self, at: Timestamp) -> Option<Date> {
        Some(
            jiff::Timestamp::from_millisecond(at.millis())
                .ok()?
                .to_zoned(self.zone.clone())
                .date(),
        )
    }

    fn midnight(&self, date: Date) -> Option<Timestamp> {
        let start = date.to_zoned(self.zone.clone()).ok()?;
        Some(Timestamp::from_millis(start.timestamp().as_millisecond()))
    }

    /// Parses a date, which stands for its midnight in this zone, or a time in RFC 3339.
    #[must_use]
    pub fn moment(&self, text: &str) -> Option<Timestamp> {
        match text.parse::<Date>() {
            Ok(date) if text.len() == "2026-11-23".len() => self.midnight(date),
            _ => Some(Timestamp::from_millis(
                text.parse::<jiff::Timestamp>().ok()?.as_millisecond(),
            )),
        }
    }

    /// Returns the begin of the last `days` calendar days. The day of `now` is the last of them.
    #[must_use]
    pub fn last_days(&self, days: u32, now: Timestamp) -> Option<Timestamp> {
        let before = i64::from(days).saturating_sub(1).max(0);
        self.midnight(self.date(now)?.checked_sub(before.days()).ok()?)
    }
}

/// Writes the name.
impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}
