//! The official vectors for Permit2: `exact` and `upto`.

use super::*;
use alloy::primitives::hex;

use crate::permit2::{Approval, PermitTransfer, TokenPermit, TransactionTerms, domain_separator};
use crate::x402::{Additions, Sponsor, Sponsored, offers_gas};

/// Returns the permit that the official client signs for a quote.
fn permit(quote: &Quote) -> PermitTransfer {
    let deadline = NOW.checked_add(quote.window().as_secs()).unwrap();
    PermitTransfer::new(
        quote.asset().clone(),
        (signer().address(), quote.pay_to()),
        quote.value(),
        quote.facilitator(),
        (0, deadline),
        U256::from_be_bytes(NONCE.0),
    )
}

/// From the seller's terms to the payment, every step equal to the official client's. Returns the payment.
async fn signed(required: &PaymentRequired, official: &Value) -> String {
    let permit = permit(&quote(required).unwrap());
    let ours: Value = serde_json::from_str(&permit.typed_data_json()).unwrap();
    assert_eq!(ours["types"]["EIP712Domain"], official["domainTypes"]);
    for name in ["PermitWitnessTransferFrom", "TokenPermissions", "Witness"] {
        assert_eq!(ours["types"][name], official["types"][name]);
    }
    for part in ["primaryType", "domain", "message"] {
        assert_eq!(ours[part].to_string(), official[part].to_string());
    }
    assert_eq!(
        domain_separator(permit.asset().network()),
        hash(official, "/domainSeparator")
    );
    assert_eq!(permit.struct_hash(), hash(official, "/structHash"));
    assert_eq!(permit.digest(), hash(official, "/digest"));
    assert_eq!(permit.from(), address(official, "/recovered"));
    let signature = signer().sign_permit(&permit).await.unwrap();
    assert_eq!(signature.to_hex(), text(official, "/signature"));
    let proof = PaymentProof::permit(&permit, &signature);
    let json = encode_payment(required, 0, &proof, ADDITIONS).unwrap();
    let header = encode_header(&json);
    let read = decode_authorization(&header).unwrap();
    assert_eq!(
        (read.to, read.value, read.valid_before),
        (permit.to(), permit.value(), permit.valid_before())
    );
    assert_eq!(read.by, quote(required).unwrap().by());
    assert_eq!(version_1_header(&header), None);
    String::from_utf8(json).unwrap()
}

/// A row whose whole payment is ours.
pub(super) async fn reproduce_permit(row: &Value, required: &PaymentRequired) {
    let json = signed(required, &row["typedData"]).await;
    assert_eq!(json, row["paymentPayload"].to_string());
    if let Some(header) = row.get("headerValue").and_then(Value::as_str) {
        assert_eq!(encode_header(json.as_bytes()), header);
    }
}

/// `other_schemes.json`: `upto` and `exact` by Permit2 are signed as the official client signs them. The two others are
/// recognised, named in the refusal and never signed.
#[tokio::test]
async fn other_schemes() {
    let vectors = vectors!("other_schemes");
    let upto = &vectors["upto_permit2"];
    let terms = required(&upto["paymentRequired"]);
    let json = signed(&terms, &upto["typedData"][0]).await;
    assert_eq!(json, upto["paymentPayload"].to_string());
    let offer = quote(&terms).unwrap();
    assert_eq!(
        (offer.scheme(), offer.method()),
        (Scheme::Upto, TransferMethod::Permit2)
    );
    assert_eq!(offer.to_string(), "up to 5 USDC");
    for (name, scheme) in [
        ("batch_settlement", "batch-settlement"),
        ("auth_capture_eip3009", "auth-capture"),
    ] {
        assert_eq!(
            quote(&required(&vectors[name]["paymentRequired"])),
            Err(Unpayable::Scheme(scheme.to_owned()))
        );
    }
    // The sponsored approvals are extensions. Everything else is the same.
    let permit = &vectors["permit2_with_eip2612"]["typedData"][0];
    for name in ["permit2_with_eip2612", "permit2_with_erc20_approval"] {
        let row = &vectors[name];
        let json = signed(&required(&row["paymentRequired"]), permit).await;
        let (ours, official): (Value, _) =
            (serde_json::from_str(&json).unwrap(), &row["paymentPayload"]);
        for part in ["payload", "resource", "accepted"] {
            assert_eq!(ours[part].to_string(), official[part].to_string(), "{name}");
        }
    }
    assert_eq!(vectors.as_object().unwrap().len(), 5);
}

/// `permit2_with_eip2612`: the approval that the seller's facilitator sends, and the whole payment.
#[tokio::test]
async fn the_sponsored_approval_is_the_official_one() {
    let vectors = vectors!("other_schemes");
    let row = &vectors["permit2_with_eip2612"];
    let terms = required(&row["paymentRequired"]);
    let permit = permit(&quote(&terms).unwrap());
    assert!(offers_gas(&terms, 0, Sponsor::Permit));
    let token = TokenPermit::new(
        permit.asset().clone(),
        permit.from(),
        permit.value(),
        U256::from(7),
        permit.deadline(),
    );
    let official = &row["typedData"][1];
    let ours: Value = serde_json::from_str(&token.typed_data_json()).unwrap();
    assert_eq!(ours["types"]["EIP712Domain"], official["domainTypes"]);
    assert_eq!(ours["types"]["Permit"], official["types"]["Permit"]);
    for part in ["primaryType", "domain", "message"] {
        assert_eq!(ours[part].to_string(), official[part].to_string());
    }
    assert_eq!(token.struct_hash(), hash(official, "/structHash"));
    assert_eq!(token.digest(), hash(official, "/digest"));
    let signature = signer().sign_token_permit(&token).await.unwrap();
    assert_eq!(signature.to_hex(), text(official, "/signature"));
    let proof = PaymentProof::permit(&permit, &signer().sign_permit(&permit).await.unwrap());
    let added = Additions {
        sponsored: Some(&Sponsored::permit(&token, &signature)),
        ..ADDITIONS
    };
    let json = encode_payment(&terms, 0, &proof, added).unwrap();
    let ours: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(ours, row["paymentPayload"]);
}

/// The transaction of `permit2_with_erc20_approval`, bit for bit. bursar approves exact amounts; the official client approves
/// the largest number.
#[tokio::test]
async fn the_approval_of_permit2_is_the_official_transaction() {
    let vectors = vectors!("other_schemes");
    let row = &vectors["permit2_with_erc20_approval"];
    let unsigned = &row["unsignedTx"][0];
    let number = |field: &str| -> u128 { text(unsigned, field).parse().unwrap() };
    let terms = TransactionTerms {
        nonce: unsigned["nonce"].as_u64().unwrap(),
        gas: number("/gas").try_into().unwrap(),
        max_fee: number("/maxFeePerGas"),
        max_priority_fee: number("/maxPriorityFeePerGas"),
    };
    let required = required(&row["paymentRequired"]);
    let asset = quote(&required).unwrap().asset().clone();
    assert_eq!(asset.address(), address(unsigned, "/to"));
    let approval = Approval::new(asset, U256::MAX, terms);
    assert_eq!(
        hex::encode_prefixed(approval.calldata()),
        text(unsigned, "/data")
    );
    let signature = signer().sign_approval(&approval).await.unwrap();
    let raw = approval.signed(&signature).unwrap();
    let info = "/paymentPayload/extensions/erc20ApprovalGasSponsoring/info/signedTransaction";
    assert_eq!(hex::encode_prefixed(raw), text(row, info));

    // The whole payment that carries it.
    assert!(offers_gas(&required, 0, Sponsor::Transaction));
    assert!(!offers_gas(&required, 0, Sponsor::Permit));
    let permit = permit(&quote(&required).unwrap());
    let proof = PaymentProof::permit(&permit, &signer().sign_permit(&permit).await.unwrap());
    let sponsored = Sponsored::transaction(permit.from(), &approval, &signature).unwrap();
    let added = Additions {
        sponsored: Some(&sponsored),
        ..ADDITIONS
    };
    let json = encode_payment(&required, 0, &proof, added).unwrap();
    let ours: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(ours, row["paymentPayload"]);
}
