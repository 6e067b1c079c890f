//! What a list says that something costs.

use serde_json::{Value, json};
use url::Url;

use super::listing::text_at;
use crate::{PaymentRequired, Usd, text};

/// Offers of an item beyond this many are not looked at: each costs a look into the books.
const MAX_OFFERS: usize = 8;

/// What a list says that something costs. The live 402 decides.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Price {
    /// In a token, by an x402 offer: the one that would be paid, or that bursar would prefer.
    Token(crate::TokenAmount),
    /// In dollars.
    Dollars {
        /// At least.
        least: Usd,
        /// At most.
        most: Usd,
    },
    /// It is not said, or only in offers that cannot be signed for.
    Unknown,
}

impl Price {
    /// The most that it costs in dollars, where that is known.
    #[must_use]
    pub fn dollars(&self) -> Option<Usd> {
        match self {
            Self::Token(amount) => amount.dollars(),
            Self::Dollars { most, .. } => Some(*most),
            Self::Unknown => None,
        }
    }
}

/// `0.01 USDC`, `$0.01`, `$0.01-1.00` or `?`.
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

/// What a list says must be paid.
#[derive(Clone, Debug)]
pub(super) enum AdvertisedPrice {
    /// Nothing is said.
    Nothing,
    Offers(Box<PaymentRequired>),
    Dollars {
        least: Usd,
        most: Usd,
    },
    /// It is paid for by protocols that bursar does not speak.
    Otherwise(String),
}

impl AdvertisedPrice {
    /// Offers as a seller would make them in a 402 for `url`.
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

    /// `x-payment-info` of an OpenAPI operation, in the forms that are found:
    ///
    /// * `price: {mode, currency, amount | min, max}` with `protocols`, as
    ///   [agentcash](https://agentcash.dev/docs/discovery) has it now,
    /// * `pricingMode` with `price` or `minPrice` and `maxPrice`, as it had it before,
    /// * `amount`, `currency` and `method`, as the Machine Payments Protocol has it, which is not x402.
    ///
    /// An offer in `protocols` or `accepts` is taken before a price in words.
    pub(super) fn payment_info(info: &Value, url: &Url) -> Result<Self, String> {
        if let Some(others) = other_protocols(info) {
            return Ok(Self::Otherwise(others));
        }
        if let Some(offers) = protocol_offers(info) {
            return Self::offers(2, &offers, url);
        }
        if info.get("price").is_none()
            && info.get("method").is_some()
            && info.get("intent").is_some()
        {
            return Ok(Self::Otherwise("mpp".to_owned()));
        }
        dollars(info)
    }
}

/// The protocols by name, if x402 is none of them.
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

/// Whole offers, which some put where the protocol is named.
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
            Err("a price is at least more than at most".to_owned())
        }
        (None, least, Some(most)) => Ok(AdvertisedPrice::Dollars {
            least: least.unwrap_or(Usd::ZERO),
            most,
        }),
        // "From a cent" is no price.
        (None, _, None) => Ok(AdvertisedPrice::Nothing),
    }
}

/// A number as it is written, in a string or not.
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
    fn prices_are_read_in_every_form_that_is_found() {
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
    fn other_protocols_are_told_from_x402() {
        for info in [
            json!({ "protocols": [{ "mpp": { "method": "tempo" } }], "price": { "amount": "1" } }),
            json!({ "amount": "1000", "currency": "0x20c0", "intent": "charge", "method": "tempo" }),
        ] {
            assert!(
                matches!(read(&info), Ok(AdvertisedPrice::Otherwise(_))),
                "{info}"
            );
        }
    }

    #[test]
    fn an_offer_is_taken_before_a_price_in_words() {
        let offer = json!({ "scheme": "exact", "network": "eip155:8453", "amount": "80000", "maxTimeoutSeconds": 300,
            "asset": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "payTo": "0x1664530DC2A1CA350B1dbaD1Fc1F1a70c90fe4de" });
        let asked =
            read(&json!({ "price": { "amount": "0.01" }, "protocols": [{ "x402": offer }] }));
        assert!(
            matches!(asked, Ok(AdvertisedPrice::Offers(required)) if required.offers().len() == 1)
        );
    }

    #[test]
    fn prices_are_shown_short() {
        let dollars = |least, most| Price::Dollars { least, most };
        assert_eq!(dollars(usd!("0.01"), usd!("0.01")).to_string(), "$0.01");
        assert_eq!(dollars(usd!("0.01"), usd!("1")).to_string(), "$0.01-1.00");
        assert_eq!(Price::Unknown.to_string(), "?");
    }
}
