//! The official vectors for extensions.

use super::selection::equivalent_policy;
use super::*;

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

/// Whether everything of `part` is at its place in `whole`.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|found| holds(found, value))),
        _ => whole == part,
    }
}
