//! The official vectors, made by the official npm packages (`tests/vectors/README.md`), one test for
//! each file.
//!
//! bursar derives its nonces from purchases, so the fixed nonce of the vectors is put in below the
//! wallet here. `tests/transcripts.rs` does the same to a whole wallet.

use alloy::primitives::{Address, B256, U256, b256};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::eip3009::check_signature;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::money::ParseUsdError;
use crate::money::{Asset, AssetRegistry, TokenAmount, TransferMethod};
use crate::money::{Network, Usd};
use crate::payment::Payer;
use crate::policy::{Policy, PolicyError, Rule};
use crate::request::PurchaseRequest;
use crate::signer::{LocalSigner, Signature, Signer, TransferAuthorization};
use crate::x402::{
    Extensions, PaymentProof, PaymentRequired, Quote, Scheme, SettlementResponse, Unpayable,
    Version, WireError, decode_authorization, decode_header, encode_header, encode_payment,
    version_1_header,
};

/// `Date.now()` of the vectors, in seconds.
const NOW: u64 = 1_740_672_094;
const NONCE: B256 = b256!("f3746613c2d920b5fdabc0856f2aeb2d4f88ee6037b8cc5d04a71a4462f13480");
/// The time by which version 1 clients date their authorizations back, in seconds.
const V1_BACKDATE: u64 = 600;

macro_rules! vectors {
    ($file:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!(
            "../../tests/vectors/",
            $file,
            ".json"
        )))
        .unwrap()
    };
}

mod extensions;
mod permit2;

/// bursar adds nothing to extensions that ask for nothing.
const ADDITIONS: crate::x402::Additions<'_> = crate::x402::Additions {
    identifier: "",
    sponsored: None,
};
mod selection;

use permit2::reproduce_permit;

/// The elements of an array.
fn rows(vectors: &Value) -> &[Value] {
    vectors.as_array().unwrap()
}

/// The text at a JSON pointer.
fn text<'a>(row: &'a Value, pointer: &str) -> &'a str {
    row.pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer} of {row}"))
}

fn number(row: &Value, pointer: &str) -> u64 {
    text(row, pointer).parse().unwrap()
}

fn hash(row: &Value, pointer: &str) -> B256 {
    text(row, pointer).parse().unwrap()
}

fn address(row: &Value, pointer: &str) -> Address {
    text(row, pointer).parse().unwrap()
}

/// Anvil's account 0.
fn signer() -> LocalSigner {
    LocalSigner::from_hex(&text(&vectors!("meta"), "/privateKey").into()).unwrap()
}

fn required(json: &Value) -> PaymentRequired {
    PaymentRequired::from_json(json.to_string().as_bytes()).unwrap()
}

fn quote(required: &PaymentRequired) -> Result<Quote, Unpayable> {
    Quote::read(required, 0, AssetRegistry::stablecoins())
}

/// Returns the authorization that the official client signs for a quote.
fn authorization(quote: &Quote) -> TransferAuthorization {
    let valid_after = match quote.version() {
        Version::V1 => NOW - V1_BACKDATE,
        Version::V2 => 0,
    };
    let valid_before = NOW.checked_add(quote.window().as_secs()).unwrap();
    let parties = (signer().address(), quote.pay_to());
    TransferAuthorization::new(
        quote.asset().clone(),
        parties,
        quote.value(),
        (valid_after, valid_before),
        NONCE,
    )
}

/// From the seller's terms to the header, every step equal to the official client's.
async fn reproduce(row: &Value, required: &PaymentRequired) {
    let authorization = authorization(&quote(required).unwrap());
    same_typed_data(&authorization, &row["typedData"]);
    let signature = signer().sign(&authorization).await.unwrap();
    assert_eq!(signature.to_hex(), text(row, "/typedData/signature"));
    assert_eq!(
        check_signature(&authorization, &signature).unwrap(),
        signature
    );
    assert_eq!(authorization.from(), address(row, "/typedData/recovered"));
    let json = encode_payment(
        required,
        0,
        &PaymentProof::transfer(&authorization, &signature),
        ADDITIONS,
    )
    .unwrap();
    assert_eq!(
        str::from_utf8(&json).unwrap(),
        row["paymentPayload"].to_string()
    );
    assert_eq!(encode_header(&json), text(row, "/headerValue"));
    if let Some(name) = row.get("headerName").and_then(Value::as_str) {
        assert_eq!(required.version().payment_header(), name);
    }
}

fn same_typed_data(authorization: &TransferAuthorization, official: &Value) {
    let ours: Value = serde_json::from_str(&authorization.typed_data_json()).unwrap();
    assert_eq!(ours["types"]["EIP712Domain"], official["domainTypes"]);
    assert_eq!(
        ours["types"]["TransferWithAuthorization"],
        official["types"]["TransferWithAuthorization"]
    );
    for part in ["primaryType", "domain", "message"] {
        assert_eq!(ours[part].to_string(), official[part].to_string());
    }
    assert_eq!(
        authorization.asset().domain_separator(),
        hash(official, "/domainSeparator")
    );
    assert_eq!(authorization.struct_hash(), hash(official, "/structHash"));
    assert_eq!(authorization.digest(), hash(official, "/digest"));
}

/// `exact_v2_default_assets.json`: 22 tokens are paid with EIP-3009, and 6 with Permit2.
#[tokio::test]
async fn default_assets() {
    let vectors = vectors!("exact_v2_default_assets");
    let mut counted = (0, 0);
    for row in rows(&vectors) {
        let required = required(&row["paymentRequired"]);
        let terms = &row["paymentRequired"]["accepts"][0];
        let network: Network = text(terms, "/network").parse().unwrap();
        let asset = AssetRegistry::stablecoins()
            .find(network, address(terms, "/asset"))
            .unwrap();
        assert_eq!(asset.symbol(), text(row, "/symbol"));
        assert_eq!(
            u64::from(asset.decimals()),
            row["decimals"].as_u64().unwrap()
        );
        assert_eq!(
            (asset.eip712_name(), asset.eip712_version()),
            (text(terms, "/extra/name"), text(terms, "/extra/version"))
        );
        match text(row, "/method") {
            "eip3009" => {
                assert_eq!(asset.transfer_method(), TransferMethod::Eip3009);
                reproduce(row, &required).await;
                counted.0 += 1;
            }
            _ => {
                assert_eq!(asset.transfer_method(), TransferMethod::Permit2);
                reproduce_permit(row, &required).await;
                counted.1 += 1;
            }
        }
    }
    assert_eq!(counted, (22, 6));
}

/// `exact_v2_variants.json`: addresses in lower case, extreme amounts, unknown fields, Unicode. The
/// terms are read from the header as it came.
#[tokio::test]
async fn variants() {
    let vectors = vectors!("exact_v2_variants");
    for row in rows(&vectors) {
        let required =
            PaymentRequired::from_header(text(row, "/paymentRequiredHeader").as_bytes()).unwrap();
        assert_eq!(
            required.offers()[0].json(),
            row["paymentRequired"]["accepts"][0].to_string()
        );
        assert_eq!(
            required.resource_url(),
            Some(text(row, "/paymentRequired/resource/url"))
        );
        match text(row, "/label") {
            "permit2_usdc" => reproduce_permit(row, &required).await,
            _ => reproduce(row, &required).await,
        }
    }
    assert_eq!(rows(&vectors).len(), 11);
}

/// `exact_v1.json`: networks by name, terms in the body.
#[tokio::test]
async fn version_1() {
    let vectors = vectors!("exact_v1");
    for row in rows(&vectors) {
        let required = required(&row["paymentRequiredBody"]);
        assert_eq!(required.version(), Version::V1);
        assert_eq!(
            required.resource_url(),
            Some("https://api.example.com/premium-data")
        );
        let network: Network = text(row, "/network").parse().unwrap();
        assert_eq!(network.name(), Some(text(row, "/network")));
        assert_eq!(
            network.chain_id(),
            row["typedData"]["domain"]["chainId"].as_u64().unwrap()
        );
        reproduce(row, &required).await;
    }
    assert_eq!(rows(&vectors).len(), 12);
}

/// Every token of the vectors can be paid with, and has their domain separator. Tokens that the vectors leave out have the
/// one that viem 2.57.20 computes, or are held against Circle's contracts in `money::registry`.
#[test]
fn registry() {
    let (v2, v1) = (vectors!("exact_v2_default_assets"), vectors!("exact_v1"));
    let official = rows(&v2)
        .iter()
        .filter(|row| row["method"] == "eip3009")
        .chain(rows(&v1))
        .map(|row| {
            let domain = &row["typedData"]["domain"];
            (
                domain["chainId"].as_u64().unwrap(),
                address(domain, "/verifyingContract"),
                hash(row, "/typedData/domainSeparator"),
            )
        });
    let computed = [
        (
            10_143,
            "0x534b2f3A21130d7a60830c2Df862319e593943A3",
            "0xf1090f5a61ddee19528cecc447be0f91c7205fc2b34dd271fc0de87809a0a48d",
        ),
        (
            5042,
            "0x3600000000000000000000000000000000000000",
            "0x940506929bba468048a19b567f4f0d534714bc06604b5c3017e5d16785ccdf84",
        ),
        (
            5_042_002,
            "0x3600000000000000000000000000000000000000",
            "0x361191522483d32a83e70ae7183b4b9629442c13a78bc9921d6f707911c8c6b0",
        ),
        (
            11_124,
            "0xe4C7fBB0a626ed208021ccabA6Be1566905E2dFc",
            "0x24182604958ec086dc72cef93bb634012f105d9f11d2d0b7ddee93f388cdc91a",
        ),
        (
            41_923,
            "0x12a272A581feE5577A5dFa371afEB4b2F3a8C2F8",
            "0xd75f4fd044c684299c0aa1c289a66c1912ca50570f70e73c4f99922699c4ee58",
        ),
        (
            324_705_682,
            "0x2e08028E3C4c2356572E096d8EF835cD5C6030bD",
            "0x9c66d10c4bfde137b77b28f21e155cb5aa5acec7c1ae89d30a5467e11a74fc86",
        ),
    ];
    let computed = computed.map(|(chain, asset, separator)| {
        (chain, asset.parse().unwrap(), separator.parse().unwrap())
    });
    let mut expected: Vec<(u64, Address, B256)> = official.chain(computed).collect();
    expected.sort_unstable();
    expected.dedup();

    let payable = AssetRegistry::stablecoins()
        .iter()
        .filter(|asset| asset.transfer_method() == TransferMethod::Eip3009);
    let mut found: Vec<(u64, Address, B256)> = payable
        .map(|asset| {
            (
                asset.network().chain_id(),
                asset.address(),
                asset.domain_separator(),
            )
        })
        .collect();
    found.sort_unstable();
    let missing: Vec<_> = expected.iter().filter(|row| !found.contains(row)).collect();
    assert_eq!(missing, [&(0, Address::ZERO, B256::ZERO); 0]);
    assert_eq!((expected.len(), found.len()), (34, 45));
}

/// `headers.json`: receipts.
#[test]
fn receipt_headers() {
    let vectors = vectors!("headers");
    for row in rows(&vectors["paymentResponse"]) {
        let (encoded, decoded) = (text(row, "/encoded"), &row["decoded"]);
        assert_eq!(encode_header(row["json"].to_string().as_bytes()), encoded);
        assert_eq!(
            decode_header(encoded.as_bytes()).unwrap(),
            row["json"].to_string().as_bytes()
        );
        same_receipt(
            &SettlementResponse::from_header(encoded.as_bytes()).unwrap(),
            decoded,
        );
        let pending = text(row, "/label") == "settle_pending";
        assert_eq!(
            SettlementResponse::from_header(encoded.as_bytes())
                .unwrap()
                .is_pending(),
            pending
        );
    }
    assert_eq!(rows(&vectors["paymentResponse"]).len(), 5);
}

fn same_receipt(ours: &SettlementResponse, official: &Value) {
    assert_eq!(official["success"], ours.success);
    assert_eq!(official["transaction"], *ours.transaction);
    assert_eq!(official["network"], *ours.network);
    let optional = [
        ("payer", &ours.payer),
        ("amount", &ours.amount),
        ("errorReason", &ours.error_reason),
        ("errorMessage", &ours.error_message),
    ];
    for (name, value) in optional {
        assert_eq!(
            official.get(name).and_then(Value::as_str),
            value.as_deref(),
            "{name}"
        );
    }
}

/// `headers.json`: bursar accepts the headers of the official decoder, and also plain JSON, the URL-safe alphabet and
/// white space, which sellers send.
#[test]
fn odd_headers() {
    let vectors = vectors!("headers");
    for row in rows(&vectors["decodeEdgeCases"]) {
        let read = PaymentRequired::from_header(text(row, "/value").as_bytes());
        match text(row, "/label") {
            // The alphabet and the white space are read. The JSON of these two is cut off.
            "base64url_chars" | "whitespace" => {
                assert!(matches!(read, Err(WireError::Json(_))), "{row}")
            }
            "empty" | "not_json" => assert!(matches!(read, Err(WireError::Json(_))), "{row}"),
            "plain_json" | "unpadded" => assert!(read.unwrap().offers().is_empty()),
            unknown => panic!("{unknown}"),
        }
        let decoded = decode_header(text(row, "/value").as_bytes())
            .ok()
            .and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        let official = row["officialTsResult"].get("value");
        let lenient = decoded.as_ref().filter(|_| row["label"] == "plain_json");
        assert_eq!(decoded.as_ref(), official.or(lenient), "{row}");
    }
    assert_eq!(rows(&vectors["decodeEdgeCases"]).len(), 6);
}

/// `spec_examples.json`: the headers that the specification prints, and its signature.
#[test]
fn specification() {
    let vectors = vectors!("spec_examples");
    for row in rows(&vectors["headers"]) {
        let (value, decoded) = (text(row, "/value").as_bytes(), &row["decoded"]);
        let json = decode_header(value).unwrap();
        assert_eq!(str::from_utf8(&json).unwrap(), decoded.to_string());
        assert_eq!(encode_header(&json).as_bytes(), value);
        match text(row, "/header") {
            "PAYMENT-REQUIRED" => {
                let required = PaymentRequired::from_header(value).unwrap();
                assert_eq!(
                    required.error(),
                    Some("PAYMENT-SIGNATURE header is required")
                );
                assert_eq!(quote(&required).unwrap().value(), U256::from(10_000));
            }
            "PAYMENT-RESPONSE" | "X-PAYMENT-RESPONSE" => {
                same_receipt(&SettlementResponse::from_header(value).unwrap(), decoded)
            }
            "PAYMENT-SIGNATURE" | "X-PAYMENT" => {
                assert_eq!(
                    decoded["payload"]["signature"],
                    vectors["eip3009_example"]["signature"]
                )
            }
            unknown => panic!("{unknown}"),
        }
    }
    assert_eq!(rows(&vectors["headers"]).len(), 7);

    let example = &vectors["eip3009_example"];
    let authorization = spec_authorization(example);
    assert_eq!(
        authorization.asset().domain_separator(),
        hash(example, "/domainSeparator")
    );
    assert_eq!(authorization.struct_hash(), hash(example, "/structHash"));
    assert_eq!(authorization.digest(), hash(example, "/digest"));
    let signature =
        Signature::new(alloy::primitives::hex::decode(text(example, "/signature")).unwrap());
    assert_eq!(
        check_signature(&authorization, &signature).unwrap(),
        signature
    );
    assert_eq!(authorization.from(), address(example, "/recovered"));
}

fn spec_authorization(example: &Value) -> TransferAuthorization {
    let (domain, message) = (&example["domain"], &example["message"]);
    let network = Network::from_chain_id(domain["chainId"].as_u64().unwrap());
    let asset = AssetRegistry::stablecoins()
        .find(network, address(domain, "/verifyingContract"))
        .unwrap();
    TransferAuthorization::new(
        asset.clone(),
        (address(message, "/from"), address(message, "/to")),
        U256::from(number(message, "/value")),
        (
            number(message, "/validAfter"),
            number(message, "/validBefore"),
        ),
        hash(message, "/nonce"),
    )
}

/// The anchors, written out: whatever happens to the files, these hold.
#[tokio::test]
async fn anchors() {
    let meta = vectors!("meta");
    assert_eq!(
        (meta["now"].as_u64(), hash(&meta, "/nonce")),
        (Some(NOW), NONCE)
    );
    let usdc = |network: &str| {
        AssetRegistry::stablecoins()
            .find_symbol(network.parse().unwrap(), "USDC")
            .unwrap()
            .clone()
    };
    let separator = |network: &str| usdc(network).domain_separator();
    assert_eq!(
        separator("base-sepolia"),
        b256!("71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818")
    );
    assert_eq!(
        separator("base"),
        b256!("02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f")
    );
    assert_eq!(
        separator("ethereum"),
        b256!("06c37168a7db5138defc7866392bb87a741f9b3d104deb5094588ce041cae335")
    );

    let payee: Address = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
        .parse()
        .unwrap();
    let of = |network: &str, from: Address, valid_after: u64| {
        TransferAuthorization::new(
            usdc(network),
            (from, payee),
            U256::from(10_000),
            (valid_after, 1_740_672_154),
            NONCE,
        )
    };
    let sepolia = of("base-sepolia", signer().address(), 0);
    assert_eq!(
        sepolia.digest(),
        b256!("4f4985a0c4a7592c738a9d385dac72ed9932049a3a642b4923659213c54fa8c6")
    );
    assert_eq!(
        signer().sign(&sepolia).await.unwrap().to_hex(),
        "0x887688bfda2adc60488cb21d8355641dc7e6cae2acf979a4e510569110fbeb6912bfec8521359ee79ecbd2c6f8ba9ada97d499a910f5c0d4e274d0da99b8f3561c",
    );
    let base = of("base", signer().address(), 0);
    assert_eq!(
        base.digest(),
        b256!("8bad68561cdef1c3d7b20cd036f029b9d540810e1c3d9a9d34d26e32e080a6a4")
    );
    let specification = of(
        "base-sepolia",
        "0x857b06519E91e3A54538791bDbb0E22373e36b66"
            .parse()
            .unwrap(),
        1_740_672_089,
    );
    assert_eq!(
        specification.digest(),
        b256!("f256992871671abcb27ff92885a7afa46218724e5fc0bac35d050115aa1d22e6")
    );
}

/// `money_and_networks.json`: how amounts of dollars are read.
#[test]
fn money() {
    // Where the official client reads an amount and we refuse.
    let refused = [
        ("$0.0000001", ParseUsdError::TooFine), // read as zero there: a limit of nothing is a mistake
        ("1.50 USDT", ParseUsdError::Malformed), // a limit is in dollars, not in a token
        ("$ 3", ParseUsdError::Malformed),
    ];
    let vectors = vectors!("money_and_networks");
    let (mut same, mut stricter, mut numbers) = (0, 0, 0);
    for row in rows(&vectors["money"]) {
        // There is no way from a float to dollars here, by design.
        let Some(input) = row["input"].as_str() else {
            numbers += 1;
            continue;
        };
        let ours = input.parse::<Usd>();
        match refused.iter().find(|(text, _)| *text == input) {
            Some((_, error)) => {
                assert_eq!(ours, Err(*error), "{input}");
                stricter += 1;
            }
            None => {
                let official = row
                    .get("atomic6")
                    .map(|units| units.as_str().unwrap().parse::<u64>().unwrap());
                assert_eq!(ours.ok().map(Usd::micros), official, "{input}");
                same += 1;
            }
        }
    }
    assert_eq!((same, stricter, numbers), (14, 3, 4));
}

/// `money_and_networks.json`: networks are named one by one. Patterns are refused, so that no policy
/// pays on a chain that its author never thought of.
#[test]
fn network_patterns() {
    let vectors = vectors!("money_and_networks");
    let (mut plain, mut patterns) = (0, 0);
    for row in rows(&vectors["networks"]) {
        let (pattern, network) = (text(row, "/pattern"), text(row, "/network"));
        if pattern.contains('*') {
            assert!(pattern.parse::<Network>().is_err(), "{pattern}");
            assert!(
                Policy::new().allow_network(pattern).check().is_err(),
                "{pattern}"
            );
            patterns += 1;
        } else {
            let same = network.parse::<Network>() == pattern.parse::<Network>();
            assert_eq!(row["matches"], same, "{pattern} {network}");
            plain += 1;
        }
    }
    assert_eq!((plain, patterns), (3, 4));
}
