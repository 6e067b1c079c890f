//! Shares of a limit.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::U256;
use serde::{Serialize, Serializer};

/// One whole: a million millionths.
const WHOLE: u32 = 1_000_000;

/// A share of a limit: more than nothing, and at most the whole limit. It is exact to a millionth.
///
/// [`Policy::warn_at`](crate::Policy::warn_at) takes one, or anything that converts to one: a number such as `0.8`, or
/// a text such as `"80%"`.
///
/// ```
/// use bursar::policy::Share;
///
/// let share = Share::try_from(0.8)?;
/// assert_eq!(share, "80%".parse()?);
/// assert_eq!(share.to_string(), "80%");
/// assert!(Share::try_from(1.01).is_err());
/// # Ok::<(), bursar::policy::ShareError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

/// The error for a number or a text that is no share of a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a share of a limit; write one above 0 and at most 1, such as 0.8 or \"80%\""
)]
pub struct ShareError {
    text: String,
}

impl Share {
    /// Returns the share in millionths, from 1 to 1,000,000.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Returns the smallest number of units that is at least this share of `max`.
    pub(crate) fn of(self, max: U256) -> U256 {
        let (whole, share) = (U256::from(WHOLE), U256::from(self.0));
        // The parts are smaller than `max`, so that no product overflows.
        let (quotient, rest) = max.div_rem(whole);
        let rest = rest.saturating_mul(share).div_ceil(whole);
        quotient.saturating_mul(share).saturating_add(rest)
    }

    /// Reads a decimal number, and moves its point by `places` to the right. Further digits are cut off.
    fn read(number: &str, places: usize) -> Option<Self> {
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let is_number = (number.bytes().any(|byte| byte.is_ascii_digit()))
            && [whole, part]
                .iter()
                .all(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let part = part.get(..places).unwrap_or(part);
        let digits = format!("{whole}{part:0<places$}");
        let millionths = digits.parse().ok().filter(|_| is_number)?;
        (1..=WHOLE)
            .contains(&millionths)
            .then_some(Self(millionths))
    }
}

impl TryFrom<f64> for Share {
    type Error = ShareError;

    /// Reads the decimal digits of the number, so that `0.8` is exactly eight tenths.
    fn try_from(share: f64) -> Result<Self, ShareError> {
        let text = share.to_string();
        Self::read(&text, 6).ok_or(ShareError { text })
    }
}

impl TryFrom<&str> for Share {
    type Error = ShareError;

    fn try_from(text: &str) -> Result<Self, ShareError> {
        text.parse()
    }
}

/// Reads `80%` or `0.8`.
impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let read = match text.strip_suffix('%') {
            Some(percent) => Self::read(percent.trim_end(), 4),
            None => Self::read(text, 6),
        };
        read.ok_or_else(|| ShareError {
            text: crate::text::excerpt(text),
        })
    }
}

/// Writes the share in per cent, such as `80%` or `12.5%`.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:05}", self.0);
        let (whole, part) = digits.split_at(digits.len().saturating_sub(4));
        let part = part.trim_end_matches('0');
        let point = if part.is_empty() { "" } else { "." };
        f.pad(&format!("{whole}{point}{part}%"))
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_exactly_from_numbers_and_texts() {
        for (number, millionths) in [
            (0.8, 800_000),
            (0.1, 100_000),
            (1.0, 1_000_000),
            (0.57, 570_000),
            (0.000_001, 1),
            (1.0 / 3.0, 333_333),
        ] {
            assert_eq!(Share::try_from(number).unwrap().millionths(), millionths);
        }
        for (text, millionths) in [
            ("80%", 800_000),
            ("80 %", 800_000),
            ("100%", 1_000_000),
            ("12.5%", 125_000),
            ("0.0001%", 1),
            ("0.8", 800_000),
            (".8", 800_000),
            ("1", 1_000_000),
        ] {
            assert_eq!(text.parse::<Share>().unwrap().millionths(), millionths);
        }
    }

    #[test]
    fn a_number_that_is_no_share_is_refused() {
        for number in [
            0.0,
            -0.5,
            1.000_001,
            80.0,
            f64::NAN,
            f64::INFINITY,
            1e-9,
            1e300,
        ] {
            assert!(Share::try_from(number).is_err(), "{number}");
        }
        for text in [
            "", "%", ".", "0%", "101%", "-1%", "+0.5", "0.8.1", "1e-1", "8 0%", "٨٠%", "80%%",
        ] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_of_any_limit_is_exact_and_rounded_up() {
        let of = |share: f64, max: u64| Share::try_from(share).unwrap().of(U256::from(max));
        for (share, max, units) in [
            (0.8, 10, 8),
            (0.8, 3, 3),
            (0.8, 1, 1),
            (0.8, 0, 0),
            (1.0, 7, 7),
            (0.5, 5, 3),
            (0.57, 100, 57),
        ] {
            assert_eq!(of(share, max), U256::from(units), "{share} of {max}");
        }
        assert_eq!(Share::try_from(1.0).unwrap().of(U256::MAX), U256::MAX);
        assert_eq!(of(0.5, u64::MAX), U256::from(1_u64 << 63));
    }

    #[test]
    fn a_share_is_shown_in_per_cent() {
        for (share, text) in [
            (0.8, "80%"),
            (1.0, "100%"),
            (0.125, "12.5%"),
            (0.000_001, "0.0001%"),
            (0.05, "5%"),
        ] {
            assert_eq!(Share::try_from(share).unwrap().to_string(), text);
        }
    }
}
