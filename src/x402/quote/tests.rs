use super::*;

fn terms(change: (&str, &str)) -> PaymentRequired {
    let json = r#"{"x402Version":2,"accepts":[{"scheme":"exact","network":"eip155:84532","amount":"10000",
        "asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
        "maxTimeoutSeconds":60,"extra":{"name":"USDC","version":"2"}}]}"#;
    assert!(json.contains(change.0), "{}", change.0);
    PaymentRequired::from_json(json.replace(change.0, change.1).as_bytes()).unwrap()
}

fn read(from: &str, to: &str) -> Result<Quote, Unpayable> {
    Quote::read(&terms((from, to)), 0, AssetRegistry::stablecoins())
}

#[test]
fn an_amount_that_is_not_canonical_is_refused() {
    assert_eq!(read("\"10000\"", "\"0\"").unwrap().value(), U256::ZERO);
    let max = U256::MAX.to_string();
    assert_eq!(
        read("\"10000\"", &format!("\"{max}\"")).unwrap().value(),
        U256::MAX
    );
    let over = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
    for bad in [
        "01000", "+1000", " 1000", "1e3", "-1", "1_000", "0x10", "1000.0", "", "１０", over,
    ] {
        assert_eq!(
            read("\"10000\"", &format!("\"{bad}\"")),
            Err(Unpayable::Amount(text::excerpt(bad))),
            "{bad}"
        );
    }
    for integer in ["1e4", "10000.0", "-1", "true", "{}"] {
        assert!(read("\"10000\"", integer).is_err(), "{integer}");
    }
    let twice = |second: &str| read("\"amount\":", &format!("\"{second},\"amount\":"));
    assert!(matches!(
        twice("maxAmountRequired\":\"1\""),
        Err(Unpayable::Contradiction(words)) if words == "`maxAmountRequired` and `amount` have different values"
    ));
    assert!(twice("max_amount_required\":10000").is_ok());
    assert_eq!(read("\"amount\":\"10000\",", ""), Err(Unpayable::NoAmount));
}

#[test]
fn the_window_is_a_positive_number_of_at_least_six_seconds() {
    for (written, seconds) in [
        ("6", 6),
        ("60.9", 60),
        ("6e1", 60),
        ("1e300", u64::MAX),
        ("1576800000", 1_576_800_000),
    ] {
        assert_eq!(
            read("60", written).unwrap().window().as_secs(),
            seconds,
            "{written}"
        );
    }
    for (lenient, seconds) in [("\"90\"", 90), ("null", 60)] {
        assert_eq!(read("60", lenient).unwrap().window().as_secs(), seconds);
    }
    for bad in ["0", "-1", "\"-60\"", "\"\"", "[]", "-0.0"] {
        assert!(
            matches!(
                read("60", bad),
                Err(Unpayable::Window(_) | Unpayable::Malformed(_))
            ),
            "{bad}"
        );
    }
    assert_eq!(read("60", "5"), Err(Unpayable::WindowTooShort(5)));
    assert_eq!(read("60", "0.5"), Err(Unpayable::WindowTooShort(0)));
}

#[test]
fn the_token_and_its_domain_come_from_the_registry() {
    assert!(matches!(
        read("\"USDC\"", "\"USD Coin\""),
        Err(Unpayable::Domain { .. })
    ));
    assert!(matches!(
        read("\"version\":\"2\"", "\"version\":\"9\""),
        Err(Unpayable::Domain { .. })
    ));
    assert!(read("{\"name\":\"USDC\",\"version\":\"2\"}", "{}").is_ok());
    assert!(matches!(
        read("84532", "8453"),
        Err(Unpayable::Asset { .. })
    ));
    assert!(matches!(
        read(
            "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "0x1111111111111111111111111111111111111111"
        ),
        Err(Unpayable::Asset { .. })
    ));
}

#[test]
fn an_unknown_way_to_pay_is_not_payable() {
    let extra = |field: &str| read("\"name\"", &format!("{field},\"name\""));
    assert!(extra("\"assetTransferMethod\":\"eip3009\"").is_ok());
    for method in ["erc7710", "EIP3009", "Permit2"] {
        assert_eq!(
            extra(&format!("\"assetTransferMethod\":\"{method}\"")),
            Err(Unpayable::TransferMethod(method.to_owned()))
        );
    }
    assert_eq!(
        extra("\"paymentFlow\":\"upfront\"").unwrap().flow(),
        Flow::Upfront
    );
    assert_eq!(
        extra("\"paymentFlow\":\"mystery\""),
        Err(Unpayable::Flow("mystery".to_owned()))
    );
    assert_eq!(
        read("exact", "uptO"),
        Err(Unpayable::Scheme("uptO".to_owned()))
    );
    assert!(matches!(
        read("eip155:84532", "solana:x"),
        Err(Unpayable::Network(_))
    ));
}

#[test]
fn an_offer_is_for_permit2_if_it_says_so() {
    let permit2 = |extra: &str| read("\"name\":\"USDC\",\"version\":\"2\"", extra);
    let method = "\"assetTransferMethod\":\"permit2\"";
    // The domain is that of Permit2, whatever the offer says about the token's.
    for extra in [method, &format!("{method},\"name\":\"another\"")] {
        let quote = permit2(extra).unwrap();
        assert_eq!(quote.payment_method(), PaymentMethod::Permit2, "{extra}");
        assert_eq!(quote.facilitator(), None);
        assert_eq!(quote.to_string(), "0.01 USDC");
    }
    let version_1 = |json: &str| {
        let v1 = json.replace("\"x402Version\":2", "\"x402Version\":1");
        let v1 = v1.replace("eip155:84532", "base-sepolia");
        let required = PaymentRequired::from_json(v1.as_bytes()).unwrap();
        Quote::read(&required, 0, AssetRegistry::stablecoins())
    };
    let json = |scheme: &str, extra: &str| {
        format!(
            "{{\"x402Version\":2,\"accepts\":[{{\"scheme\":\"{scheme}\",\"network\":\"eip155:84532\",\"amount\":\"1\",\
             \"asset\":\"0x036CbD53842c5426634e7929541eC2318f3dCF7e\",\
             \"payTo\":\"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\",\"extra\":{{{extra}}}}}]}}"
        )
    };
    assert_eq!(
        version_1(&json("exact", method)),
        Err(Unpayable::TransferMethod("permit2".to_owned()))
    );
    assert_eq!(
        version_1(&json("upto", "")),
        Err(Unpayable::Scheme("upto".to_owned()))
    );
    // A token that only Permit2 can move is not paid by an offer that does not say so.
    let igra = json("exact", "")
        .replace("eip155:84532", "eip155:38833")
        .replace(
            "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "0xA5b8BF902b2844dA17d4506cc827F7f1681735E7",
        );
    let required = PaymentRequired::from_json(
        igra.to_lowercase()
            .replace("x402version", "x402Version")
            .as_bytes(),
    )
    .unwrap();
    assert_eq!(
        Quote::read(&required, 0, AssetRegistry::stablecoins()),
        Err(Unpayable::TransferMethod("eip3009".to_owned()))
    );
}

#[test]
fn an_upto_offer_needs_its_facilitator() {
    let upto = |extra: &str| {
        let terms = terms(("\"scheme\":\"exact\"", "\"scheme\":\"upto\""));
        let json = terms.offers()[0]
            .json()
            .replace("\"name\":\"USDC\",\"version\":\"2\"", extra);
        let json = format!("{{\"x402Version\":2,\"accepts\":[{json}]}}");
        let required = PaymentRequired::from_json(json.as_bytes()).unwrap();
        Quote::read(&required, 0, AssetRegistry::stablecoins())
    };
    let facilitator = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    for extra in [
        format!("\"facilitatorAddress\":\"{facilitator}\""),
        format!("\"assetTransferMethod\":\"permit2\",\"facilitatorAddress\":\"{facilitator}\""),
        format!("\"facilitator_address\":\"{}\"", facilitator.to_lowercase()),
    ] {
        let quote = upto(&extra).unwrap();
        assert_eq!(quote.payment_method(), PaymentMethod::Upto, "{extra}");
        assert_eq!(quote.facilitator(), facilitator.parse().ok(), "{extra}");
        assert_eq!(quote.to_string(), "up to 0.01 USDC");
        assert_eq!(quote.amount().to_string(), "0.01 USDC");
    }
    for (wrong, shown) in [
        ("", ""),
        (
            "\"facilitatorAddress\":\"0x70997970c51812dc3A010C7d01b50e0d17dc79C8\"",
            "0x70997970c51812dc3A010C7d01b50e0d17dc79C8",
        ),
        (
            "\"facilitatorAddress\":\"0x0000000000000000000000000000000000000000\"",
            "0x0000000000000000000000000000000000000000",
        ),
        ("\"facilitatorAddress\":\"bob\"", "bob"),
    ] {
        assert_eq!(
            upto(wrong),
            Err(Unpayable::Facilitator(shown.to_owned())),
            "{wrong}"
        );
    }
    assert_eq!(
        upto(&format!(
            "\"assetTransferMethod\":\"eip3009\",\"facilitatorAddress\":\"{facilitator}\""
        )),
        Err(Unpayable::TransferMethod("eip3009".to_owned()))
    );
}

#[test]
fn exact_by_eip3009_is_preferred_to_permit2_and_both_to_a_ceiling() {
    let eip3009 = read("\"10000\"", "\"20000\"").unwrap();
    let permit2 = read("\"name\"", "\"assetTransferMethod\":\"permit2\",\"name\"").unwrap();
    let facilitator = Address::repeat_byte(7);
    let upto = read("\"10000\"", "\"1\"")
        .unwrap()
        .paid_by(By::Upto { facilitator });
    assert!(eip3009.preference() < permit2.preference());
    assert!(permit2.preference() < upto.preference());
}

#[test]
fn an_offer_that_names_its_domain_is_preferred() {
    let cheap = read("{\"name\":\"USDC\",\"version\":\"2\"}", "{}").unwrap();
    let expensive = read("\"10000\"", "\"20000\"").unwrap();
    assert!(expensive.preference() < cheap.preference());
}

#[test]
fn version_1_can_pay_only_the_first_offer_of_a_network() {
    let offer = |network: &str, asset: &str| {
        format!(
            r#"{{"scheme":"exact","network":"{network}","maxAmountRequired":"1","asset":"{asset}","maxTimeoutSeconds":60,
            "payTo":"0x209693bc6afc0c5328ba36faf03c514ef312287c","resource":"https://a.example/"}}"#
        )
    };
    let sepolia = offer("base-sepolia", "0x036CbD53842c5426634e7929541eC2318f3dCF7e");
    let base = offer("base", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913");
    let json = format!(r#"{{"x402Version":1,"accepts":[{sepolia},{sepolia},{base}]}}"#);
    let required = PaymentRequired::from_json(json.as_bytes()).unwrap();
    let quotes = Quote::read_all(&required, AssetRegistry::stablecoins());
    assert!(quotes[0].is_ok() && quotes[2].is_ok());
    assert_eq!(quotes[1], Err(Unpayable::NotFirst));
}

#[test]
fn a_payee_with_a_wrong_checksum_is_refused() {
    assert!(matches!(
        read("0x209693Bc", "0x209693bc"),
        Err(Unpayable::Payee(_))
    ));
    assert!(
        read(
            "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
            "0x209693bc6afc0c5328ba36faf03c514ef312287c"
        )
        .is_ok()
    );
}
