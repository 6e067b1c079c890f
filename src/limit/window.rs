//! Windows: which charges a limit adds up, by time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Period;
use crate::clock::Timestamp;

/// The start of a window that has no start.
pub(crate) const BEGINNING: Timestamp = Timestamp::from_millis(i64::MIN);

/// The time of a purchase that decides whether it lies in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::enum_variant_names,
    reason = "the variants have the names of the columns"
)]
pub(crate) enum Moment {
    /// The last moment at which the money can leave the wallet.
    CountsAt,
    /// The moment of the reservation.
    ReservedAt,
    /// The moment at which an unresolved authorization expires.
    ExpiresAt,
}

impl Moment {
    pub(crate) const ALL: [Self; 3] = [Self::CountsAt, Self::ReservedAt, Self::ExpiresAt];

    /// Returns the name of the moment in databases: of its column.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::CountsAt => "counts_at",
            Self::ReservedAt => "reserved_at",
            Self::ExpiresAt => "expires_at",
        }
    }
}

/// The window of a limit: a moment of each purchase, and how long that moment stays in the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) moment: Moment,
    pub(crate) length: Length,
}

/// How long a charge stays in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// For the life of the ledger.
    Ever,
    /// For this many milliseconds after its moment.
    Millis(i64),
    /// To the end of a period in the time zone of this name.
    Calendar(Period, Arc<str>),
}

impl Length {
    /// Returns the length in whole milliseconds.
    pub(crate) fn of(duration: Duration) -> Self {
        Self::Millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }
}

impl Window {
    /// Whether charges leave the window.
    pub(crate) fn ends(&self) -> bool {
        self.length != Length::Ever
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl Window {
    /// Returns the name of the window in databases, such as `counts_at 3600000ms`.
    ///
    /// This is a storage format. Change it only together with the schema version. It has nothing to do with the
    /// `Display` text of a limit, which people read and which may be reworded.
    pub(crate) fn key(&self) -> String {
        let moment = self.moment.key();
        match &self.length {
            Length::Ever => format!("{moment} ever"),
            Length::Millis(millis) => format!("{moment} {millis}ms"),
            Length::Calendar(period, zone) => format!("{moment} {} {zone}", period.key()),
        }
    }

    /// Reads a window from its key.
    #[cfg(feature = "sqlite")]
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let (moment, length) = key.split_once(' ')?;
        let moment = Moment::ALL
            .into_iter()
            .find(|known| known.key() == moment)?;
        let length = match (length.strip_suffix("ms"), length.split_once(' ')) {
            _ if length == "ever" => Length::Ever,
            (_, Some((period, zone))) => Length::Calendar(Period::of_key(period)?, zone.into()),
            (Some(millis), None) => Length::Millis(millis.parse().ok()?),
            (None, None) => return None,
        };
        Some(Self { moment, length }).filter(|window| window.key() == key)
    }
}

/// A window at one point in time: the charges whose moment is later than `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since {
    pub(crate) moment: Moment,
    pub(crate) after: Timestamp,
}

/// A duration in its largest unit that divides it evenly: `500ms`, `90s`, `5m`, `24h` or `7d`.
pub(crate) struct ShortDuration(pub(crate) Duration);

impl fmt::Display for ShortDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (unit, name) = [
            (86_400_000_u128, "d"),
            (3_600_000, "h"),
            (60_000, "m"),
            (1000, "s"),
        ]
        .into_iter()
        .find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit))
        .unwrap_or((1, "ms"));
        write!(f, "{}{name}", millis.checked_div(unit).unwrap_or(millis))
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::super::{Calendar, LimitKind};
    use super::*;
    use crate::usd;

    #[test]
    fn keys_of_windows_are_a_storage_format_and_do_not_change() {
        let max = || usd!("1").into();
        let minute = Duration::from_secs(60);
        let calendar = |period| {
            let calendar = Calendar::new(period, "Europe/Berlin").unwrap();
            LimitKind::Calendar(calendar, max())
        };
        for (kind, key) in [
            (LimitKind::Rolling(minute, max()), "counts_at 60000ms"),
            (
                LimitKind::Rolling(Duration::MAX, max()),
                "counts_at 9223372036854775807ms",
            ),
            (calendar(Period::Day), "counts_at day Europe/Berlin"),
            (calendar(Period::Week), "counts_at week Europe/Berlin"),
            (calendar(Period::Month), "counts_at month Europe/Berlin"),
            (calendar(Period::Year), "counts_at year Europe/Berlin"),
            (LimitKind::Lifetime(max()), "counts_at ever"),
            (LimitKind::Exposure(max()), "expires_at 0ms"),
            (LimitKind::Payments(minute, 1), "reserved_at 60000ms"),
            (LimitKind::LoopGuard(minute, 1), "reserved_at 60000ms"),
            (LimitKind::CircuitBreaker(minute, 1), "reserved_at 60000ms"),
        ] {
            let window = kind.window().unwrap();
            assert_eq!(window.key(), key);
            assert_eq!(Window::parse(key), Some(window));
        }
        assert!(LimitKind::PerPayment(max()).window().is_none());
    }

    #[test]
    fn other_texts_are_not_windows() {
        for text in [
            "",
            "ever",
            "counts_at",
            "counts_at ",
            "spent ever",
            "counts_at 1h",
            "counts_at 01ms",
            "counts_at decade UTC",
            "counts_at  ever",
        ] {
            assert_eq!(Window::parse(text), None, "{text}");
        }
    }
}
