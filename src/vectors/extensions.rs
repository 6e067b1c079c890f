//! The official vectors for extensions.

use super::selection::equivalent_policy;
use super::*;
use crate::sign_in::{Challenge, Refusal, SIGN_IN_WITH_X};
use crate::signer::AnySigner;

/// Returns the JSON that bursar sends for the extensions that a seller declares.
fn extended(declared: &Value, identifier: &str) -> String {
    let declared: Box<RawValue> = to_raw_value(declared).unwrap();
    serde_json::to_string(&Extensions {
        declared: &declared,
        added: crate::x402::Additions {
            identifier,
            ..ADDITIONS
        },
    })
    .unwrap()
}

/// `extensions.json`: the identifier is added as the official client adds it.
#[tokio::test]
async fn payment_identifier() {
    let vectors = vectors!("extensions");
    let vectors = &vectors["payment_identifier"];
    let declared = &vectors["declaredByServer"];
    for appended in ["afterAppendCustom", "afterAppendGenerated"] {
        let id = text(&vectors[appended], "/payment-identifier/info/id");
        assert_eq!(extended(declared, id), vectors[appended].to_string());
    }
    for row in rows(&vectors["validity"]) {
        assert_eq!(row["valid"], is_identifier(text(row, "/id")), "{row}");
    }
    let row = json!({ "registeredNetworks": ["base-sepolia"], "spendControls": "(default)" });
    let payer = Payer::builder()
        .signer(signer())
        .policy(equivalent_policy(&row))
        .ledger(Ledger::memory())
        .build()
        .unwrap();
    let terms = &vectors!("exact_v2_default_assets")[1]["paymentRequired"];
    let request = PurchaseRequest::new("GET", "https://api.example.com/premium-data", b"").unwrap();
    let _payment = payer.authorize(&required(terms), &request).await.unwrap();
    let purchases = payer
        .ledger()
        .purchases(&crate::ledger::Filter::all())
        .await
        .unwrap();
    assert!(
        is_identifier(&purchases[0].identifier),
        "{}",
        purchases[0].identifier
    );
}

/// The form of a `payment-identifier`, as its schema has it.
fn is_identifier(id: &str) -> bool {
    (16..=128).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// `extensions.json`: an extension that we do not speak is echoed untouched, as the official
/// merge leaves of it when the client adds nothing.
#[test]
fn other_extensions() {
    let vectors = vectors!("extensions");
    let sign_in = &vectors["sign_in_with_x"];
    let offers = &vectors["offer_receipt"]["offer"];
    let declared = [
        vectors["builder_code"]["declaredByServer"].clone(),
        json!({ "sign-in-with-x": { "info": sign_in["serverInfo"], "supportedChains": [sign_in["chain"]] } }),
        json!({ "offer-receipt": { "info": { "offers": [offers] } } }),
        vectors["merge_rule"]["serverExt"].clone(),
    ];
    for declared in declared {
        assert_eq!(
            extended(&declared, "pay_my_custom_id_12345"),
            declared.to_string()
        );
    }
    let merge = &vectors["merge_rule"];
    assert!(holds(&merge["merged"], &merge["serverExt"]));
    assert!(!holds(&merge["clientExt"], &merge["serverExt"]));
}

/// The extension of `extensions.json` with this information, as a seller declares it.
fn challenge(info: &Value, chain: &Value, url: &str) -> Result<Challenge, Refusal> {
    let declared = json!({ "info": info, "supportedChains": [chain] });
    let declared = to_raw_value(&declared).unwrap();
    let issued = Timestamp::from_secs(NOW);
    Challenge::read(&declared, &url.parse().unwrap(), issued)
}

/// `extensions.json`: message, hash, signature and header of a sign-in, bit for bit.
#[tokio::test]
async fn sign_in_with_x() {
    let vectors = vectors!("extensions");
    let vectors = &vectors["sign_in_with_x"];
    let signer = AnySigner::new(signer());
    let minimal = &vectors["minimal"];
    let chain = json!({ "chainId": minimal["info"]["chainId"], "type": minimal["info"]["type"] });
    for (info, chain, expected) in [
        (&vectors["serverInfo"], &vectors["chain"], vectors),
        (&minimal["info"], &chain, minimal),
    ] {
        let challenge = challenge(info, chain, text(info, "/uri")).unwrap();
        let message = challenge.message(signer.address(), |_| false).unwrap();
        assert_eq!(message.text(), text(expected, "/message"));
        let signature = signer.sign_in(&message).await.unwrap();
        let header = message.header(&signature, false).unwrap();
        let payload: Value =
            serde_json::from_slice(&decode_header(header.as_bytes()).unwrap()).unwrap();
        assert_eq!(payload, expected["payload"]);
        if let Some(official) = expected.get("headerValue") {
            assert_eq!(header, official.as_str().unwrap());
            assert_eq!(message.digest(), hash(expected, "/eip191Hash"));
        }
    }
    assert_eq!(
        text(vectors, "/headerName").to_ascii_lowercase(),
        SIGN_IN_WITH_X.as_str()
    );
}

/// `extensions.json`: the origins for which the official client refuses the challenge.
#[test]
fn sign_in_with_x_of_another_origin() {
    let vectors = vectors!("extensions");
    let vectors = &vectors["sign_in_with_x"];
    let (info, chain) = (&vectors["serverInfo"], &vectors["chain"]);
    let refused = rows(&vectors["originBinding"]);
    assert_eq!(refused.len(), 3);
    for row in refused {
        let refusal = challenge(info, chain, text(row, "/url")).unwrap_err();
        let of_domain = text(row, "/error").starts_with("SIWX challenge domain");
        assert_eq!(matches!(refusal, Refusal::Domain(..)), of_domain, "{row}");
        assert_eq!(matches!(refusal, Refusal::Origin(..)), !of_domain, "{row}");
    }
}

/// Whether everything of `part` is at its place in `whole`.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|found| holds(found, value))),
        _ => whole == part,
    }
}
