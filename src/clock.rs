//! Points in time, and the clock that gives them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The largest error of a clock under which no request is paid for twice: ten minutes.
///
/// The clocks of machines differ from each other and from the time of a chain, and they jump. A payment whose goods
/// did not come can settle until its `validBefore`, by the time of the chain. bursar counts it as unresolved, and signs
/// no other payment for the same request, until this much later by its own clock.
/// [`Ledger::reconcile`](crate::Ledger::reconcile) ends the wait earlier: it proves by the time of the chain that the
/// payment did not settle.
///
/// ```
/// use bursar::clock::CLOCK_BOUND;
///
/// assert_eq!(CLOCK_BOUND.as_secs(), 600);
/// ```
pub const CLOCK_BOUND: Duration = Duration::from_secs(600);

/// A point in time, in milliseconds since the Unix epoch.
///
/// ```
/// use std::time::Duration;
///
/// use bursar::Timestamp;
///
/// let start = Timestamp::from_secs(1_740_668_494);
/// assert_eq!(start.to_string(), "2025-02-27T15:01:34Z");
/// let end = start.after(Duration::from_secs(60));
/// assert_eq!(start.until(end), Duration::from_secs(60));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest point in time. No window reaches beyond it.
    pub(crate) const MAX: Self = Self(i64::MAX);

    /// Creates a point in time from milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Creates a point in time from seconds since the Unix epoch. Saturates at the latest one.
    #[must_use]
    pub fn from_secs(secs: u64) -> Self {
        Self(i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1000))
    }

    /// Returns the milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Returns the whole seconds since the Unix epoch, or zero before it.
    #[must_use]
    pub fn secs(self) -> u64 {
        u64::try_from(self.0.div_euclid(1000)).unwrap_or(0)
    }

    /// Returns the point in time that is later by `duration`. Saturates at the latest one.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// Returns the point in time that is earlier by `duration`. Saturates at the earliest one.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// Returns the duration until `later`, or zero if `later` has passed.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }
}

impl Timestamp {
    /// Returns the beginning of the calendar month (UTC).
    pub(crate) fn start_of_month(self) -> Self {
        let month = |at: jiff::Timestamp| {
            let first = at.to_zoned(jiff::tz::TimeZone::UTC).date().first_of_month();
            first.to_zoned(jiff::tz::TimeZone::UTC).ok()
        };
        let start = jiff::Timestamp::from_millisecond(self.0)
            .ok()
            .and_then(month);
        start.map_or(Self(i64::MIN), |start| {
            Self(start.timestamp().as_millisecond())
        })
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self::default().after(since),
            Err(error) => Self::default().before(error.duration()),
        }
    }
}

/// Writes RFC 3339 in UTC: `2025-02-27T15:01:34Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => f.pad(&time.to_string()),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A source of the current time.
///
/// Limits and authorizations use wall-clock time, because EIP-3009 does. A function that returns a
/// [`Timestamp`] is a clock. Use one in tests:
///
/// ```
/// use bursar::Timestamp;
/// use bursar::clock::Clock;
///
/// let clock = || Timestamp::from_secs(1_740_668_494);
/// assert_eq!(clock.now().secs(), 1_740_668_494);
/// ```
pub trait Clock: Send + Sync + 'static {
    /// Returns the current time.
    fn now(&self) -> Timestamp;
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has nothing to hold")]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

impl<F: Fn() -> Timestamp + Send + Sync + 'static> Clock for F {
    fn now(&self) -> Timestamp {
        self()
    }
}
