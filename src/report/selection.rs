//! Which purchases a report is about, and whose days it counts in.

use std::fmt;

use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};

use crate::ledger::{Filter, Purchase};
use crate::{HostPattern, PolicyError, Timestamp};

/// Which purchases a report adds up. All conditions must hold.
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
    /// Everything, in days of UTC.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reserved at or after this moment.
    #[must_use]
    pub const fn since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    /// Reserved before this moment.
    #[must_use]
    pub const fn until(mut self, until: Timestamp) -> Self {
        self.until = Some(until);
        self
    }

    /// To this host, or hosts of this pattern.
    #[must_use]
    pub fn host(mut self, host: HostPattern) -> Self {
        self.host = Some(host);
        self
    }

    /// With this tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// By this agent.
    #[must_use]
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.agent = Some(agent.into());
        self
    }

    /// In days of this zone.
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

    /// What the books can select by themselves.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            since: self.since,
            until: self.until,
            tag: self.tag.clone(),
            agent: self.agent.clone(),
            ..Filter::all()
        }
    }

    pub(super) fn selects(&self, entry: &Purchase) -> bool {
        self.filter().passes(entry)
            && self
                .host
                .as_ref()
                .is_none_or(|host| host.matches(entry.origin.host()))
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

/// A time zone to count days in: UTC unless named.
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

impl Zone {
    /// The zone of an IANA name such as `Europe/Berlin`, or `UTC`.
    ///
    /// # Errors
    /// When this machine does not know it.
    pub fn named(name: &str) -> Result<Self, PolicyError> {
        crate::limit::time_zone(name)
            .map(|zone| Self {
                zone,
                name: name.to_owned(),
            })
            .map_err(PolicyError::TimeZone)
    }

    /// The day of a moment, `2026-11-23`; `None` beyond the calendar's years (±9999).
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

    /// The moment that a text names: a date, which begins at its midnight here, or RFC 3339.
    #[must_use]
    pub fn moment(&self, text: &str) -> Option<Timestamp> {
        match text.parse::<Date>() {
            Ok(date) if text.len() == "2026-11-23".len() => self.midnight(date),
            _ => Some(Timestamp::from_millis(
                text.parse::<jiff::Timestamp>().ok()?.as_millisecond(),
            )),
        }
    }

    /// When the last so many calendar days began, the day of `now` included.
    #[must_use]
    pub fn last_days(&self, days: u32, now: Timestamp) -> Option<Timestamp> {
        let before = i64::from(days).saturating_sub(1).max(0);
        self.midnight(self.date(now)?.checked_sub(before.days()).ok()?)
    }
}

/// The name.
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
