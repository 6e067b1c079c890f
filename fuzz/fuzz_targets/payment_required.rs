//! A seller's terms, from the header and from a body, and the quotes that are made of them.

#![no_main]

use bursar::fuzzing;
use bursar::money::AssetRegistry;
use bursar::x402::{Flow, Offer, PaymentRequired, Quote, Scheme};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    // What is no header may be a body, and every body can be a header.
    drop(PaymentRequired::from_header(data));
    let Ok(required) = PaymentRequired::from_json(data) else {
        return;
    };
    let again = PaymentRequired::from_header(fuzzing::header(data).as_bytes());
    if data.len() < 48 * 1024 {
        assert_eq!(
            again.expect("a body in base64 is a header").offers().len(),
            required.offers().len()
        );
    }
    assert!(required.offers().len() <= 256);
    let quotes = Quote::read_all(&required, AssetRegistry::stablecoins());
    for (offer, quote) in required.offers().iter().zip(&quotes) {
        match quote {
            Ok(quote) => agrees(quote, offer),
            Err(reason) => assert!(!fuzzing::has_long_hex(&reason.to_string()), "{reason}"),
        }
    }
    // Sellers can sign their offers. Nothing but a signature of the payee is verified; that text says so.
    let url = "https://api.example.com/premium-data"
        .parse()
        .expect("a URL");
    for shown in fuzzing::offer_signatures(&required, &url) {
        assert!(!fuzzing::has_long_hex(&shown), "{shown}");
        assert!(
            shown.len() < 2_000 && !shown.contains(char::is_control),
            "{shown:?}"
        );
    }
});

/// The texts and numbers of a field, in any spelling of its name.
fn texts(object: &Value, field: &str) -> Vec<String> {
    let plain = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    let fields = object.as_object().into_iter().flatten();
    let named = fields.filter(|(name, _)| plain(name) == field);
    let texts = named.filter_map(|(_, value)| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    });
    texts.collect()
}

/// All that is signed is what the offer says, and what the registry knows.
fn agrees(quote: &Quote, offer: &Offer) {
    // What nests deeper than `Value` reads has only unknown fields so deep.
    let Ok(offer) = serde_json::from_str::<Value>(offer.json()) else {
        return;
    };
    // A field may have another spelling. Every spelling of it says the same.
    let all = |field: &str, is_right: &dyn Fn(&str) -> bool| {
        let texts = texts(&offer, field);
        assert!(
            texts.iter().all(|text| is_right(text)),
            "{field}: {texts:?}"
        );
        !texts.is_empty()
    };
    let same = |address: bursar::Address| {
        move |written: &str| written.eq_ignore_ascii_case(&address.to_string())
    };
    assert!(all("scheme", &|text| text == quote.scheme().name()));
    assert!(all("network", &|text| text.parse().ok()
        == Some(quote.network())));
    assert!(all("payto", &same(quote.pay_to())));
    assert!(all("asset", &same(quote.asset().address())));
    // A large integer is a floating-point number in `Value`.
    let value = quote.value().to_string();
    let is_value = |text: &str| text == value || text.contains('e');
    assert!(all("amount", &is_value) | all("maxamountrequired", &is_value));
    let known = AssetRegistry::stablecoins().find(quote.network(), quote.asset().address());
    assert_eq!(known, Some(quote.asset()));
    assert!(quote.window().as_secs() >= 6);
    let extra = |field: &str| -> Vec<String> {
        let members = offer.as_object().into_iter().flatten();
        let extra = members.filter(|(name, _)| name.eq_ignore_ascii_case("extra"));
        extra.flat_map(|(_, extra)| texts(extra, field)).collect()
    };
    let methods = extra("assettransfermethod");
    assert!(methods.iter().all(|name| name == quote.method().name()));
    let facilitator = quote.facilitator();
    assert_eq!(facilitator.is_some(), quote.scheme() == Scheme::Upto);
    if let Some(facilitator) = facilitator {
        let named = extra("facilitatoraddress");
        assert!(!named.is_empty() && named.iter().all(|text| same(facilitator)(text)));
    }
    let flows = extra("paymentflow");
    let is_plain = flows.iter().all(|flow| flow == "authorization");
    assert_eq!(is_plain, quote.flow() == Flow::Authorization);
    let dollars = quote
        .dollars()
        .map(|dollars| bursar::primitives::U256::from(dollars.micros()));
    assert!(dollars.is_none_or(|micros| quote.asset().decimals() != 6 || micros == quote.value()));
}
