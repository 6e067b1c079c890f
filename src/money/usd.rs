//! Exact amounts of US dollars.

use std::fmt;
use std::str::FromStr;

/// An amount of US dollars in whole micro-dollars (10⁻⁶ USD).
///
/// One micro-dollar is one atomic unit of USDC. Write an amount in code with [`usd!`](crate::usd),
/// which the compiler checks, or parse it from text. There is no conversion from a float or from a
/// bare integer.
///
/// ```
/// use bursar::{Usd, usd};
///
/// assert_eq!(usd!("0.05").micros(), 50_000);
/// assert_eq!("$1.50".parse::<Usd>()?.to_string(), "1.50");
/// assert!("0.0000001".parse::<Usd>().is_err()); // finer than a micro-dollar
/// # Ok::<(), bursar::money::ParseUsdError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(u64);

/// Micro-dollars in a dollar.
const SCALE: u64 = 1_000_000;
const DECIMALS: usize = 6;

impl Usd {
    /// Zero dollars.
    pub const ZERO: Self = Self(0);
    /// The largest amount, 9.2 trillion dollars. Every amount fits into a signed 64-bit column.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// Creates an amount from micro-dollars (10⁻⁶ USD). Saturates at [`Usd::MAX`].
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// Returns the amount in micro-dollars (10⁻⁶ USD).
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Returns the sum, or `None` if it exceeds [`Usd::MAX`].
    ///
    /// ```
    /// use bursar::{Usd, usd};
    ///
    /// assert_eq!(usd!("0.05").checked_add(usd!("0.01")), Some(usd!("0.06")));
    /// assert_eq!(Usd::MAX.checked_add(usd!("0.01")), None);
    /// ```
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) if sum <= Self::MAX.0 => Some(Self(sum)),
            _ => None,
        }
    }

    /// Returns the sum, at most [`Usd::MAX`].
    ///
    /// Use it to add up spending. Never use it to compute a remainder.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        match self.checked_add(other) {
            Some(sum) => sum,
            None => Self::MAX,
        }
    }

    /// Returns `self` minus `used`, or zero if `used` is larger.
    #[must_use]
    pub const fn saturating_sub(self, used: Self) -> Self {
        Self(self.0.saturating_sub(used.0))
    }

    /// Parses an amount such as `1`, `0.05`, `$1.50` or `1.50 USD`.
    ///
    /// The text has at most six decimals. It has no sign, no exponent and no separators.
    ///
    /// # Errors
    /// Returns an error if the text has another form, has more than six decimals, or exceeds
    /// [`Usd::MAX`].
    pub const fn parse(text: &str) -> Result<Self, ParseUsdError> {
        match parse_decimal(strip_currency(text.as_bytes()), DECIMALS) {
            Ok(micros) if micros <= Self::MAX.0 => Ok(Self(micros)),
            Ok(_) => Err(ParseUsdError::TooLarge),
            Err(error) => Err(error),
        }
    }
}

/// Removes `$` at the beginning and ` USD` at the end.
const fn strip_currency(mut text: &[u8]) -> &[u8] {
    if let [b'$', rest @ ..] = text {
        text = rest;
    }
    if let [rest @ .., b' ', b'U', b'S', b'D'] = text {
        text = rest;
    }
    text
}

const fn parse_decimal(text: &[u8], decimals: usize) -> Result<u64, ParseUsdError> {
    let mut value: u64 = 0;
    let mut fraction: Option<usize> = None;
    let mut digits_before = 0_usize;
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (*byte, fraction) {
            (b'0'..=b'9', seen) => {
                match seen {
                    None => digits_before = digits_before.saturating_add(1),
                    Some(n) if n >= decimals => return Err(ParseUsdError::TooFine),
                    Some(n) => fraction = Some(n.saturating_add(1)),
                }
                match push_digit(value, *byte) {
                    Some(next) => value = next,
                    None => return Err(ParseUsdError::TooLarge),
                }
            }
            (b'.', None) if digits_before > 0 => fraction = Some(0),
            _ => return Err(ParseUsdError::Malformed),
        }
    }
    if digits_before == 0 || matches!(fraction, Some(0)) {
        return Err(ParseUsdError::Malformed);
    }
    let mut missing = match fraction {
        Some(n) => decimals.saturating_sub(n),
        None => decimals,
    };
    while missing > 0 {
        match value.checked_mul(10) {
            Some(next) => value = next,
            None => return Err(ParseUsdError::TooLarge),
        }
        missing = missing.saturating_sub(1);
    }
    Ok(value)
}

const fn push_digit(value: u64, byte: u8) -> Option<u64> {
    match value.checked_mul(10) {
        Some(shifted) => shifted.checked_add(byte.wrapping_sub(b'0') as u64),
        None => None,
    }
}

/// Writes the exact amount without a currency sign and with at least two decimals: `0.05`, `1.00`,
/// `0.000125`.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.checked_div(SCALE).unwrap_or_default();
        let micros = self.0.checked_rem(SCALE).unwrap_or_default();
        if f.width().is_none() && f.precision().is_none() {
            let (mut fraction, mut places) = (micros, 6_usize);
            while places > 2 && fraction % 10 == 0 {
                fraction /= 10;
                places = places.saturating_sub(1);
            }
            return write!(f, "{whole}.{fraction:0places$}");
        }
        let fraction = format!("{micros:06}");
        let kept = fraction.trim_end_matches('0').len().max(2);
        f.pad(&format!(
            "{whole}.{}",
            fraction.get(..kept).unwrap_or(&fraction)
        ))
    }
}

impl FromStr for Usd {
    type Err = ParseUsdError;

    fn from_str(text: &str) -> Result<Self, ParseUsdError> {
        Self::parse(text.trim())
    }
}

impl serde::Serialize for Usd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The error of parsing a [`Usd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseUsdError {
    /// The text has another form than `1`, `0.05`, `$1.50` or `1.50 USD`.
    #[error("not an amount of dollars; expected a form like `0.05`, `$0.05` or `0.05 USD`")]
    Malformed,
    /// The amount has more than six decimals.
    #[error("finer than a micro-dollar; at most six decimals")]
    TooFine,
    /// The amount exceeds [`Usd::MAX`].
    #[error("above the largest amount, 9223372036854.775807 dollars")]
    TooLarge,
}

/// Creates an amount of US dollars from a literal that the compiler checks.
///
/// ```
/// use bursar::usd;
///
/// assert_eq!(usd!("0.05").micros(), 50_000);
/// ```
///
/// A literal that is not an amount does not compile:
///
/// ```compile_fail
/// bursar::usd!("5 cents");
/// ```
#[macro_export]
macro_rules! usd {
    ($text:literal) => {
        const {
            match $crate::Usd::parse($text) {
                Ok(amount) => amount,
                Err(_) => panic!("not an amount of dollars; write usd!(\"0.05\")"),
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_exactly() {
        for (text, micros, shown) in [
            ("0", 0, "0.00"),
            ("1", 1_000_000, "1.00"),
            ("$0.10", 100_000, "0.10"),
            ("1.50 USD", 1_500_000, "1.50"),
            ("0.000001", 1, "0.000001"),
            ("00.5", 500_000, "0.50"),
            (
                "9223372036854.775807",
                i64::MAX as u64,
                "9223372036854.775807",
            ),
        ] {
            let amount: Usd = text.parse().unwrap();
            assert_eq!(
                (amount.micros(), amount.to_string().as_str()),
                (micros, shown),
                "{text}"
            );
            assert_eq!(shown.parse::<Usd>().unwrap(), amount);
        }
    }

    #[test]
    fn text_that_is_not_an_amount_is_refused() {
        use ParseUsdError::{Malformed, TooFine, TooLarge};
        for (text, error) in [
            ("", Malformed),
            ("-1", Malformed),
            ("+1", Malformed),
            ("1.", Malformed),
            (".5", Malformed),
            ("1e-7", Malformed),
            ("1,000", Malformed),
            ("1.50USDT", Malformed),
            ("1.2.3", Malformed),
            ("$", Malformed),
            ("0.0000001", TooFine),
            ("9223372036854.775808", TooLarge),
            ("99999999999999999999", TooLarge),
        ] {
            assert_eq!(text.parse::<Usd>(), Err(error), "{text}");
        }
    }

    #[test]
    fn sums_are_checked() {
        assert_eq!(Usd::MAX.checked_add(Usd::from_micros(1)), None);
        assert_eq!(usd!("1").saturating_sub(usd!("2")), Usd::ZERO);
    }

    #[test]
    fn dollars_are_written_alike_with_and_without_a_width() {
        for micros in [0, 1, 10, 99_999, 100_000, 1_230_000, 1_234_560, u64::MAX] {
            let usd = Usd::from_micros(micros);
            assert_eq!(format!("{usd:>40}").trim_start(), usd.to_string());
            assert_eq!(format!("{usd:.3}"), usd.to_string()[..3]);
        }
    }
}
