//! The scalars of a configuration file.

use std::net::SocketAddr;
use std::time::Duration;

use alloy::primitives::Address;
use url::Url;

use super::error::did_you_mean;
use super::reader::{Scalar, Unfit};
use crate::credential::Preference;
use crate::limit::{Period, Share, time_zone};
use crate::money::{TransferMethod, Usd, parse_address, parse_coins};
use crate::policy::SignIn;
use crate::text::excerpt;
use crate::x402::Scheme;

/// A string that is not empty.
pub(super) struct Text(pub(super) String);

/// An amount such as `0.10 USD` or `2.5 EURC@base`. Its token is looked up later.
pub(super) struct AmountText(pub(super) String);

/// A token such as `USDC@base` or `0x…@base`. It is looked up later.
pub(super) struct AssetText(pub(super) String);

/// The name of an HTTP header.
pub(super) struct HeaderText(pub(super) String);

/// The name of a time zone.
pub(super) struct Zone(pub(super) String);

/// A percentage.
pub(super) struct Percent(pub(super) u32);

/// An amount of the coin of a network, in wei.
pub(super) struct Wei(pub(super) u128);

/// An HTTP status.
pub(super) struct Status(pub(super) u16);

/// The number of a call in a month, counted from 1.
pub(super) struct CallNumber(pub(super) u64);

/// A number of bytes.
pub(super) struct Size(pub(super) u64);

/// The version of the file's format.
pub(super) struct Version;

/// The dollar peg of a token.
pub(super) struct DollarPeg;

/// The payees that a seller may name.
#[derive(Clone, Copy)]
pub(super) enum Payee {
    Free,
    Pinned,
    Only(Address),
}

/// The treatment of a `resource.url` of another origin.
#[derive(Clone, Copy)]
pub(super) enum ForeignResource {
    Record,
    Refuse,
}

fn malformed<T>(written: &str, expected: &str) -> Result<T, Unfit> {
    Err(Unfit::Because(format!(
        "`{}` is not {expected}",
        excerpt(written)
    )))
}

fn not_empty(written: &str) -> Result<String, Unfit> {
    if written.is_empty() {
        return Err(Unfit::Because("the string is empty".to_owned()));
    }
    Ok(written.to_owned())
}

/// Returns the choice of a name, or an error that suggests the closest name.
fn choose<T: Copy>(written: &str, expected: &str, choices: &[(&str, T)]) -> Result<T, Unfit> {
    let chosen = choices.iter().find(|(name, _)| *name == written);
    chosen.map(|(_, choice)| *choice).ok_or_else(|| {
        let advice = did_you_mean(written, choices.iter().map(|(name, _)| *name));
        Unfit::Because(format!("`{}` is not {expected}{advice}", excerpt(written)))
    })
}

impl Scalar for bool {
    const EXPECTED: &'static str = "`true` or `false`";

    fn from_flag(flag: bool) -> Result<Self, Unfit> {
        Ok(flag)
    }
}

impl Scalar for u8 {
    const EXPECTED: &'static str = "a whole number such as 6";

    fn from_number(number: u64) -> Result<Self, Unfit> {
        number.try_into().map_err(|_| Unfit::Value)
    }
}

impl Scalar for u32 {
    const EXPECTED: &'static str = "a number of payments such as 60";

    fn from_number(number: u64) -> Result<Self, Unfit> {
        number.try_into().map_err(|_| Unfit::Value)
    }
}

impl Scalar for u64 {
    const EXPECTED: &'static str = "a number of calls such as 1000";

    fn from_number(number: u64) -> Result<Self, Unfit> {
        Ok(number)
    }
}

impl Scalar for CallNumber {
    const EXPECTED: &'static str = "the number of a call, counted from 1";

    fn from_number(number: u64) -> Result<Self, Unfit> {
        if number == 0 {
            return Err(Unfit::Value);
        }
        Ok(Self(number))
    }
}

impl Scalar for Status {
    const EXPECTED: &'static str = "a status from 100 to 999";

    fn from_number(number: u64) -> Result<Self, Unfit> {
        let status = number.try_into().ok();
        status
            .filter(|status| (100..1000).contains(status))
            .map(Self)
            .ok_or(Unfit::Value)
    }
}

impl Scalar for Version {
    const EXPECTED: &'static str = "1, the only version that this bursar reads";

    fn from_number(number: u64) -> Result<Self, Unfit> {
        if number == 1 {
            Ok(Self)
        } else {
            Err(Unfit::Value)
        }
    }
}

impl Scalar for Text {
    const EXPECTED: &'static str = "a string";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        not_empty(text).map(Self)
    }
}

impl Scalar for AmountText {
    const EXPECTED: &'static str = "a string such as \"0.10 USD\" or \"2.5 EURC@base\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        not_empty(text).map(Self)
    }
}

impl Scalar for AssetText {
    const EXPECTED: &'static str = "a token such as \"USDC@base\" or \"0x…@base\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        not_empty(text).map(Self)
    }
}

impl Scalar for HeaderText {
    const EXPECTED: &'static str = "the name of a header such as \"x-api-key\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        match text.parse::<http::HeaderName>() {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => malformed(
                text,
                "the name of a header; write a name such as `x-api-key`",
            ),
        }
    }
}

impl Scalar for Zone {
    const EXPECTED: &'static str = "a time zone such as \"Europe/Berlin\" or \"UTC\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        time_zone(text).map_err(Unfit::Because)?;
        Ok(Self(text.to_owned()))
    }
}

impl Scalar for Url {
    const EXPECTED: &'static str = "a URL such as \"https://x402.org/facilitator\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        text.parse()
            .map_err(|error: url::ParseError| Unfit::Because(error.to_string()))
    }
}

impl Scalar for Address {
    const EXPECTED: &'static str =
        "an address such as \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        address(text).map_err(Unfit::Because)
    }
}

pub(super) fn address(text: &str) -> Result<Address, String> {
    parse_address(text).ok_or_else(|| {
        format!(
            "`{}` is not an address, or its checksum is wrong",
            excerpt(text)
        )
    })
}

impl Scalar for Payee {
    const EXPECTED: &'static str = "\"free\", \"pinned\", an address or an array of addresses";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        if text.starts_with("0x") {
            return Address::from_text(text).map(Self::Only);
        }
        choose(
            text,
            Self::EXPECTED,
            &[("free", Self::Free), ("pinned", Self::Pinned)],
        )
    }
}

impl Scalar for ForeignResource {
    const EXPECTED: &'static str = "\"record\" or \"refuse\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        choose(
            text,
            Self::EXPECTED,
            &[("record", Self::Record), ("refuse", Self::Refuse)],
        )
    }
}

impl Scalar for SignIn {
    const EXPECTED: &'static str = "\"never\", \"known\" or \"always\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        let choices = Self::ALL.map(|choice| (choice.name(), choice));
        choose(text, Self::EXPECTED, &choices)
    }
}

impl Scalar for Scheme {
    const EXPECTED: &'static str = "\"exact\" or \"upto\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        choose(
            text,
            Self::EXPECTED,
            &Self::ALL.map(|one| (one.name(), one)),
        )
    }
}

impl Scalar for TransferMethod {
    const EXPECTED: &'static str = "\"eip3009\" or \"permit2\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        choose(
            text,
            Self::EXPECTED,
            &Self::ALL.map(|one| (one.name(), one)),
        )
    }
}

impl Scalar for Period {
    const EXPECTED: &'static str = "\"day\", \"week\", \"month\" or \"year\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        choose(
            text,
            Self::EXPECTED,
            &[
                ("day", Self::Day),
                ("week", Self::Week),
                ("month", Self::Month),
                ("year", Self::Year),
            ],
        )
    }
}

impl Scalar for Preference {
    const EXPECTED: &'static str = "\"key\", \"pay\", \"never pay\", \"never key\" or \"cheapest\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        choose(
            text,
            Self::EXPECTED,
            &[
                ("key", Self::KeyFirst),
                ("pay", Self::PayFirst),
                ("never pay", Self::NeverPay),
                ("never key", Self::NeverKey),
                ("cheapest", Self::Cheapest),
            ],
        )
    }
}

impl Scalar for DollarPeg {
    const EXPECTED: &'static str = "\"USD\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        if text == "USD" {
            Ok(Self)
        } else {
            Err(Unfit::Value)
        }
    }
}

impl Scalar for Usd {
    const EXPECTED: &'static str = "a string such as \"0.10 USD\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        dollars(text)
            .unwrap_or_else(|| {
                Err(format!(
                    "`{}` has no currency; write it like `0.10 USD`",
                    excerpt(text)
                ))
            })
            .map_err(Unfit::Because)
    }
}

/// Reads `0.10 USD` or `$0.10`, and returns `None` for an amount of anything else.
pub(super) fn dollars(text: &str) -> Option<Result<Usd, String>> {
    let is_dollars = text.starts_with('$') || text.ends_with(" USD");
    is_dollars.then(|| {
        text.parse()
            .map_err(|error| format!("`{}` is {error}", excerpt(text)))
    })
}

impl Scalar for Duration {
    const EXPECTED: &'static str = "a string such as \"90s\", \"5m\", \"24h\" or \"7d\"";

    /// Reads a whole number with a unit, longer than zero.
    fn from_text(text: &str) -> Result<Self, Unfit> {
        let units = [('s', 1_u64), ('m', 60), ('h', 3600), ('d', 86_400)];
        let read = |(unit, seconds): (char, u64)| {
            let count = digits(text.strip_suffix(unit)?)?;
            let length = count.checked_mul(seconds)?;
            Some(Self::from_secs(length)).filter(|length| !length.is_zero())
        };
        match units.into_iter().find_map(read) {
            Some(length) => Ok(length),
            None => malformed(
                text,
                "a length of time; write one such as `90s`, `5m`, `24h` or `7d`",
            ),
        }
    }
}

impl Scalar for SocketAddr {
    const EXPECTED: &'static str = "an address with a port such as \"127.0.0.1:8402\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        match text.parse() {
            Ok(address) => Ok(address),
            Err(_) => malformed(
                text,
                "an address with a port; write one such as `127.0.0.1:8402`",
            ),
        }
    }
}

impl Scalar for Size {
    const EXPECTED: &'static str = "a string such as \"512 KiB\" or \"16 MiB\"";

    /// Reads a whole number of kibibytes or mebibytes, from 1 KiB to 1 GiB.
    fn from_text(text: &str) -> Result<Self, Unfit> {
        const LARGEST: u64 = 1 << 30;
        let read =
            |(unit, bytes): (&str, u64)| digits(text.strip_suffix(unit)?)?.checked_mul(bytes);
        let size = [(" KiB", 1024), (" MiB", 1024 * 1024)]
            .into_iter()
            .find_map(read);
        match size.filter(|size| (1..=LARGEST).contains(size)) {
            Some(size) => Ok(Self(size)),
            None => malformed(
                text,
                "a size up to 1024 MiB; write one such as `512 KiB` or `16 MiB`",
            ),
        }
    }
}

impl Scalar for Percent {
    const EXPECTED: &'static str = "a string such as \"20%\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        let percent = text.strip_suffix('%').and_then(digits);
        match percent.and_then(|percent| percent.try_into().ok()) {
            Some(percent) => Ok(Self(percent)),
            None => malformed(text, "a percentage; write one such as `20%`"),
        }
    }
}

impl Scalar for Wei {
    const EXPECTED: &'static str = "an amount of the network's coin such as \"0.00002\"";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        match parse_coins(text) {
            Some(wei) => Ok(Self(wei)),
            None => malformed(
                text,
                "an amount of the network's coin; write whole coins with at most 18 decimals, such as `0.00002`",
            ),
        }
    }
}

impl Scalar for Share {
    const EXPECTED: &'static str = "a share of a limit such as \"80%\" or 0.8";

    fn from_text(text: &str) -> Result<Self, Unfit> {
        match text.parse().ok().filter(|_| text.ends_with('%')) {
            Some(share) => Ok(share),
            None => no_share(text),
        }
    }

    fn from_number(number: u64) -> Result<Self, Unfit> {
        let text = number.to_string();
        text.parse().or_else(|_| no_share(&text))
    }

    fn from_decimal(number: f64) -> Result<Self, Unfit> {
        Self::try_from(number).or_else(|_| no_share(&number.to_string()))
    }
}

fn no_share(written: &str) -> Result<Share, Unfit> {
    malformed(
        written,
        "a share of a limit; write one above 0% and at most 100%, such as `80%`, or 0.8",
    )
}

/// Reads digits and nothing else.
fn digits(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}
