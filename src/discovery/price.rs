//! Advertised prices.

use serde_json::{Value, json};
use url::Url;

use super::listing::text_at;
use crate::money::Usd;
use crate::text;
use crate::x402::PaymentRequired;

/// The number of offers of an item that bursar reads. Each one needs a read of the ledger.
const MAX_OFFERS: usize = 8;

/// The advertised price of a service. The price in its 402 decides.
///
/// ```
/// use bursar::discovery::Price;
///
/// assert_eq!(Price::Unknown.to_string(), "?");
/// assert_eq!(Price::Unknown.dollars(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Price {
    /// A price in a token, from the offer that bursar would choose.
    Token(crate::money::TokenAmount),
    /// A price in dollars.
    Dollars {
        /// The lowest price.
        least: Usd,
        /// The highest price.
        most: Usd,
    },
    /// There is no price, or bursar cannot sign for any offer.
    Unknown,
}

impl Price {
    /// Returns the highest price in dollars, if it is known.
    #[must_use]
    pub fn dollars(&self) -> Option<Usd> {
        match self {
            Self::Token(amount) => amount.dollars(),
            Self::Dollars { most, .. } => Some(*most),
            Self::Unknown => None,
        }
    }
}

/// Writes `0.01 USDC`, `$0.01`, `$0.01-1.00` or `?`.
impl std::fmt::Display for Price {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(amount) => amount.fmt(f),
            Self::Dollars { least, most } if least == most => f.pad(&format!("${most}")),
            Self::Dollars { least, most } => f.pad(&format!("${least}-{most}")),
            Self::Unknown => f.pad("?"),
        }
    }
}

/// The price in a list, as it is written there.
#[derive(Clone, Debug)]
pub(super) enum AdvertisedPrice {
    /// There is no price.
    Nothing,
    Offers(Box<PaymentRequired>),
    Dollars {
        least: Usd,
        most: Usd,
    },
    /// Only payment protocols that bursar does not support.
    OtherProtocols(String),
}

impl AdvertisedPrice {
    /// Reads offers in the form of a 402 for `url`.
    pub(super) fn offers(version: u64, accepts: &Value, url: &Url) -> Result<Self, String> {
        if accepts.as_array().is_none_or(Vec::is_empty) {
            return Ok(Self::Nothing);
        }
        let accepts: Vec<&Value> = accepts
            .as_array()
            .into_iter()
            .flatten()
            .take(MAX_OFFERS)
            .collect();
        let required = json!({ "x402Version": version, "accepts": accepts, "resource": { "url": url.as_str() } });
        let required = PaymentRequired::from_json(required.to_string().as_bytes());
        required
            .map(|required| Self::Offers(Box::new(required)))
            .map_err(|error| error.to_string())
    }

    /// Reads `x-payment-info` of an OpenAPI operation. These forms occur:
    ///
    /// * `price: {mode, currency, amount | min, max}` with `protocols`, the present form of
    ///   [agentcash](https://agentcash.dev/docs/discovery)
    /// * `pricingMode` with `price`, or with `minPrice` and `maxPrice`, its earlier form
    /// * `amount`, `currency` and `method`, the form of the Machine Payments Protocol, which is not x402
    ///
    /// An offer in `protocols` or `accepts` takes precedence over a price in dollars.
    pub(super) fn payment_info(info: &Value, url: &Url) -> Result<Self, String> {
        if let Some(others) = other_protocols(info) {
            return Ok(Self::OtherProtocols(others));
        }
        if let Some(offers) = protocol_offers(info) {
            return Self::offers(2, &offers, url);
        }
        if info.get("price").is_none()
            && info.get("method").is_some()
            && info.get("intent").is_some()
        {
            return Ok(Self::OtherProtocols("mpp".to_owned()));
        }
        dollars(info)
    }
}

/// Returns the names of the protocols, if x402 is not one of them.
fn other_protocols(info: &Value) -> Option<String> {
    let protocols = info.get("protocols")?.as_array()?;
    let names = protocols.iter().flat_map(|protocol| match protocol {
        Value::String(name) => vec![name.as_str()],
        Value::Object(object) => object.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    });
    let names: Vec<&str> = names.take(8).collect();
    let foreign = !names.is_empty() && !names.iter().any(|name| name.eq_ignore_ascii_case("x402"));
    foreign.then(|| text::excerpt(&names.join(", ")))
}

/// Returns whole offers, which some documents have in place of a protocol's name.
fn protocol_offers(info: &Value) -> Option<Value> {
    if let Some(accepts) = info.get("accepts").filter(|accepts| accepts.is_array()) {
        return Some(accepts.clone());
    }
    let protocols = info.get("protocols")?.as_array()?;
    let offers: Vec<Value> = protocols
        .iter()
        .filter_map(|protocol| protocol.get("x402"))
        .filter(|offer| is_offer(offer))
        .cloned()
        .collect();
    (!offers.is_empty()).then_some(Value::Array(offers))
}

fn is_offer(offer: &Value) -> bool {
    ["scheme", "network", "asset", "payTo", "amount"]
        .iter()
        .all(|field| offer.get(field).is_some())
}

fn dollars(info: &Value) -> Result<AdvertisedPrice, String> {
    let currency = text_at(info, "/price/currency")
        .or_else(|| text_at(info, "/currency"))
        .unwrap_or("USD");
    if !["USD", "USDC"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(currency))
    {
        return Err(format!("a price is in `{currency}`; expected USD"));
    }
    let amount = |pointers: [&str; 2]| {
        let written = pointers
            .iter()
            .find_map(|pointer| number(info.pointer(pointer)?));
        written.map(|written| {
            written
                .parse::<Usd>()
                .map_err(|error| format!("a price of `{written}`: {error}"))
        })
    };
    let fixed = amount(["/price/amount", "/price"]).transpose()?;
    let least = amount(["/price/min", "/minPrice"]).transpose()?;
    let most = amount(["/price/max", "/maxPrice"]).transpose()?;
    match (fixed, least, most) {
        (Some(price), ..) => Ok(AdvertisedPrice::Dollars {
            least: price,
            most: price,
        }),
        (None, Some(least), Some(most)) if least > most => {
            Err("the lowest price exceeds the highest".to_owned())
        }
        (None, least, Some(most)) => Ok(AdvertisedPrice::Dollars {
            least: least.unwrap_or(Usd::ZERO),
            most,
        }),
        // A minimum alone is no price.
        (None, _, None) => Ok(AdvertisedPrice::Nothing),
    }
}

/// Returns a number as text, from a JSON number or string.
fn number(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usd;

    fn read(info: &Value) -> Result<AdvertisedPrice, String> {
        AdvertisedPrice::payment_info(info, &"https://api.example.com/report".parse().unwrap())
    }

    #[test]
    fn every_form_of_a_price_is_read() {
        let x402 = json!([{ "x402": {} }]);
        for (info, expected) in [
            (
                json!({ "price": { "mode": "fixed", "currency": "USD", "amount": "0.01" }, "protocols": x402 }),
                "0.01-0.01",
            ),
            (
                json!({ "price": { "mode": "dynamic", "currency": "USD", "min": "0.01", "max": "2" } }),
                "0.01-2.00",
            ),
            (
                json!({ "pricingMode": "fixed", "price": "$0.02", "protocols": ["x402", "mpp"] }),
                "0.02-0.02",
            ),
            (
                json!({ "pricingMode": "range", "minPrice": "0.5", "maxPrice": 1 }),
                "0.50-1.00",
            ),
            (json!({ "price": { "amount": 0.05 } }), "0.05-0.05"),
        ] {
            match read(&info) {
                Ok(AdvertisedPrice::Dollars { least, most }) => {
                    assert_eq!(format!("{least}-{most}"), expected, "{info}")
                }
                other => panic!("{info}: {other:?}"),
            }
        }
        for info in [
            json!({ "pricingMode": "quote" }),
            json!({}),
            json!({ "price": { "min": "0.01" } }),
        ] {
            assert!(
                matches!(read(&info), Ok(AdvertisedPrice::Nothing)),
                "{info}"
            );
        }
        for info in [
            json!({ "price": { "amount": "cheap" } }),
            json!({ "price": { "amount": "0.0000001" } }),
            json!({ "price": { "amount": "1", "currency": "EUR" } }),
            json!({ "price": { "min": "2", "max": "1" } }),
            json!({ "price": { "amount": "-1" } }),
        ] {
            assert!(read(&info).is_err(), "{info}");
        }
    }

    #[test]
    fn other_protocols_are_recognized() {
        for info in [
            json!({ "protocols": [{ "mpp": { "method": "tempo" } }], "price": { "amount": "1" } }),
            json!({ "amount": "1000", "currency": "0x20c0", "intent": "charge", "method": "tempo" }),
        ] {
            assert!(
                matches!(read(&info), Ok(AdvertisedPrice::OtherProtocols(_))),
                "{info}"
            );
        }
    }

    #[test]
    fn an_offer_takes_precedence_over_a_price_in_dollars() {
        let offer = json!({ "scheme": "exact", "network": "eip155:8453", "amount": "80000", "maxTimeoutSeconds": 300,
            "asset": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "payTo": "0x1664530DC2A1CA350B1dbaD1Fc1F1a70c90fe4de" });
        let asked =
            read(&json!({ "price": { "amount": "0.01" }, "protocols": [{ "x402": offer }] }));
        assert!(
            matches!(asked, Ok(AdvertisedPrice::Offers(required)) if required.offers().len() == 1)
        );
    }

    #[test]
    fn prices_are_displayed() {
        let dollars = |least, most| Price::Dollars { least, most };
        assert_eq!(dollars(usd!("0.01"), usd!("0.01")).to_string(), "$0.01");
        assert_eq!(dollars(usd!("0.01"), usd!("1")).to_string(), "$0.01-1.00");
        assert_eq!(Price::Unknown.to_string(), "?");
    }
}
