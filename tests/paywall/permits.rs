//! Payments through Permit2: offers, verification, settlement, faults, and the chain as a node shows it.

use alloy::primitives::{Address, B256, U256, address, hex, keccak256};
use bursar::{Network, Timestamp, usd};
use bursar_testing::{FalseTerms, Fault, Forgery, Node, NodeFault, PaymentMethod, Paywall, Route};
use bursar_tests::paywall::report;
use bursar_tests::tokens::usdc;
use k256::ecdsa::SigningKey;
use reqwest::Response;
use serde_json::{Value, json};

use crate::{NOW, PAYEE, Payment, decode, http, open_at_now, pay, terms};

const PERMIT2: Address = address!("000000000022D473030F116dDEE9F6B43aC78BA3");
const EXACT_PROXY: Address = address!("402085c248EeA27D92E8b30b2C58ed07f9E20001");
const UPTO_PROXY: Address = address!("4020A4f3b7b90ccA423B9fabCc0CE57C6C240002");
const FACILITATOR: Address = address!("70997970C51812dc3A010C7d01b50e0d17dc79C8");
const BASE_SEPOLIA: Network = Network::from_chain_id(84_532);

/// A permit made by hand, to be made wrongly.
#[derive(Clone)]
struct Permit {
    key: SigningKey,
    from: Address,
    token: Address,
    amount: U256,
    spender: Address,
    nonce: U256,
    deadline: u64,
    to: Address,
    facilitator: Option<Address>,
    valid_after: u64,
    chain_id: u64,
}

impl Permit {
    /// Returns a permit for the price of the report.
    fn new(method: PaymentMethod) -> Self {
        let Payment { key, from, .. } = Payment::new();
        let upto = method == PaymentMethod::Upto;
        Self {
            key,
            from,
            token: usdc("base-sepolia").address(),
            amount: U256::from(10_000),
            spender: if upto { UPTO_PROXY } else { EXACT_PROXY },
            nonce: U256::from(0x1234),
            deadline: NOW + 60,
            to: PAYEE,
            facilitator: upto.then_some(FACILITATOR),
            valid_after: 0,
            chain_id: 84_532,
        }
    }

    fn with(method: PaymentMethod, change: impl FnOnce(&mut Self)) -> Self {
        let mut permit = Self::new(method);
        change(&mut permit);
        permit
    }

    fn signature(&self) -> String {
        fn hash(text: &str, words: &[B256]) -> B256 {
            keccak256([keccak256(text).as_slice(), &words.concat()].concat())
        }
        let number = |number: u64| B256::from(U256::from(number));
        let permissions = "TokenPermissions(address token,uint256 amount)";
        let witness = match self.facilitator {
            None => "Witness(address to,uint256 validAfter)",
            Some(_) => "Witness(address to,address facilitator,uint256 validAfter)",
        };
        let members = [Some(self.to), self.facilitator].into_iter().flatten();
        let mut members: Vec<B256> = members.map(|address| address.into_word()).collect();
        members.push(number(self.valid_after));
        let permit = format!(
            "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,Witness witness){permissions}{witness}"
        );
        let permitted = hash(permissions, &[self.token.into_word(), self.amount.into()]);
        let content = hash(
            &permit,
            &[
                permitted,
                self.spender.into_word(),
                self.nonce.into(),
                number(self.deadline),
                hash(witness, &members),
            ],
        );
        let domain = hash(
            "EIP712Domain(string name,uint256 chainId,address verifyingContract)",
            &[
                keccak256("Permit2"),
                number(self.chain_id),
                PERMIT2.into_word(),
            ],
        );
        let digest = keccak256([&[0x19, 1][..], domain.as_slice(), content.as_slice()].concat());
        let (signature, recovery) = self.key.sign_prehash_recoverable(digest.as_slice());
        let v = 27 + u8::from(recovery.is_y_odd());
        hex::encode_prefixed([&signature.to_bytes()[..], &[v]].concat())
    }

    fn payload(&self) -> Value {
        let mut witness = json!({ "to": self.to, "validAfter": self.valid_after.to_string() });
        if let Some(facilitator) = self.facilitator {
            witness["facilitator"] = json!(facilitator);
        }
        json!({
            "signature": self.signature(),
            "permit2Authorization": {
                "from": self.from,
                "permitted": { "token": self.token, "amount": self.amount.to_string() },
                "spender": self.spender,
                "nonce": self.nonce.to_string(),
                "deadline": self.deadline.to_string(),
                "witness": witness,
            },
        })
    }

    fn payment(&self, required: &Value) -> Value {
        json!({ "x402Version": 2, "accepted": required["accepts"][0], "payload": self.payload() })
    }
}

/// Takes the terms and pays them with this permit.
async fn buy(paywall: &Paywall, permit: &Permit) -> Response {
    let payment = permit.payment(&terms(paywall, "/report").await);
    pay(paywall, "/report", &payment).await
}

/// Returns the status and the reason with which a permit is refused.
async fn refusal(route: Route, permit: &Permit) -> (u16, String) {
    let paywall = open_at_now(route).await;
    let response = buy(&paywall, permit).await;
    assert!(paywall.settlements().is_empty());
    let terms = decode(&response, "payment-required");
    assert!(
        terms["accepts"][0].is_object(),
        "a refusal states the terms"
    );
    let reason = terms["error"].as_str().unwrap().to_owned();
    (response.status().as_u16(), reason)
}

fn upto() -> Route {
    report().upto()
}

const METHODS: [PaymentMethod; 2] = [PaymentMethod::Permit2, PaymentMethod::Upto];

fn route(method: PaymentMethod) -> Route {
    report().paid_by([method])
}

#[tokio::test]
async fn offers_through_permit2_have_the_fields_of_the_official_server() {
    let every = [
        PaymentMethod::Eip3009,
        PaymentMethod::Permit2,
        PaymentMethod::Upto,
    ];
    let paywall = open_at_now(report().paid_by(every).v1_and_v2()).await;
    let common = json!({
        "scheme": "exact",
        "network": "eip155:84532",
        "amount": "10000",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
        "maxTimeoutSeconds": 60,
        "extra": { "name": "USDC", "version": "2" },
    });
    let [eip3009, mut permit2, mut upto] = [common.clone(), common.clone(), common];
    permit2["extra"]["assetTransferMethod"] = "permit2".into();
    upto["scheme"] = "upto".into();
    upto["extra"]["assetTransferMethod"] = "permit2".into();
    upto["extra"]["facilitatorAddress"] = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".into();
    let required = terms(&paywall, "/report").await;
    assert_eq!(required["accepts"], json!([eip3009, permit2, upto]));
    // Version 1 has EIP-3009 alone.
    let body: Value = crate::get(&paywall, "/report").await.json().await.unwrap();
    assert_eq!(body["accepts"].as_array().unwrap().len(), 1);
    let impossible = Paywall::builder().route(report().permit2().v1()).start();
    assert!(
        impossible
            .await
            .unwrap_err()
            .to_string()
            .contains("Permit2")
    );
}

#[tokio::test]
async fn a_permit_is_settled_with_a_receipt() {
    for method in METHODS {
        let paywall = open_at_now(route(method)).await;
        let permit = Permit::new(method);
        let response = buy(&paywall, &permit).await;
        assert_eq!(response.status(), 200);
        let receipt = decode(&response, "payment-response");
        let settled = paywall.settlements().remove(0);
        assert_eq!(receipt["success"], true);
        assert_eq!(receipt["transaction"], settled.transaction.to_string());
        assert_eq!(receipt["payer"], json!(permit.from.to_checksum(None)));
        // Only `upto` reports the amount.
        let amount = (method == PaymentMethod::Upto).then_some("10000");
        assert_eq!(receipt.get("amount").and_then(Value::as_str), amount);
        let signed = settled.permit.unwrap();
        assert_eq!((signed.method(), signed.amount), (method, permit.amount));
        let transfer = settled.authorization;
        assert_eq!(
            (transfer.from, transfer.to, transfer.value, transfer.nonce),
            (permit.from, PAYEE, permit.amount, permit.nonce.into())
        );
        assert_eq!(paywall.paid_by(permit.from), permit.amount);
        let presented = paywall.requests().remove(1).payment.unwrap();
        assert_eq!(presented.permit, Some(signed));
        assert_eq!(presented.authorization, None);
        assert!(!format!("{presented:?}").contains(&permit.signature()[2..]));
    }
}

#[tokio::test]
async fn every_part_of_a_permit_is_verified() {
    type Change = fn(&mut Permit);
    let cases: [(Change, &str); 11] = [
        (|permit| permit.spender = PERMIT2, "invalid_permit2_spender"),
        (
            |permit| permit.to = FACILITATOR,
            "invalid_permit2_recipient_mismatch",
        ),
        (
            |permit| permit.deadline = NOW + 5,
            "permit2_deadline_expired",
        ),
        (
            |permit| permit.valid_after = NOW + 1,
            "permit2_not_yet_valid",
        ),
        (
            |permit| permit.amount = U256::from(9_999),
            "permit2_amount_mismatch",
        ),
        (
            |permit| permit.amount = U256::from(10_001),
            "permit2_amount_mismatch",
        ),
        (
            |permit| permit.amount = U256::MAX,
            "permit2_amount_mismatch",
        ),
        (|permit| permit.token = PAYEE, "permit2_token_mismatch"),
        (|permit| permit.from = PAYEE, "invalid_permit2_signature"),
        (|permit| permit.chain_id = 8453, "invalid_permit2_signature"),
        (
            |permit| permit.key = SigningKey::from_slice(&[8; 32]).unwrap(),
            "invalid_permit2_signature",
        ),
    ];
    for method in METHODS {
        for (change, reason) in cases {
            let refused = refusal(route(method), &Permit::with(method, change)).await;
            assert_eq!(refused, (402, reason.to_owned()), "{method:?}");
        }
        let last: [Change; 2] = [
            |permit| permit.deadline = NOW + 6,
            |permit| permit.valid_after = NOW,
        ];
        for change in last {
            let paywall = open_at_now(route(method)).await;
            let response = buy(&paywall, &Permit::with(method, change)).await;
            assert_eq!(response.status(), 200, "{method:?}");
        }
    }
}

#[tokio::test]
async fn a_permit_for_one_scheme_does_not_pay_the_other() {
    // The proxy of the other scheme.
    let exact = Permit::new(PaymentMethod::Permit2);
    assert_eq!(refusal(upto(), &exact).await.1, "unsupported_payload_type");
    let ceiling = Permit::new(PaymentMethod::Upto);
    assert_eq!(
        refusal(report().permit2(), &ceiling).await.1,
        "invalid_permit2_spender"
    );
    // A witness with a facilitator is not the witness of `exact`.
    let mixed = Permit::with(PaymentMethod::Upto, |permit| permit.spender = EXACT_PROXY);
    assert_eq!(
        refusal(report().permit2(), &mixed).await.1,
        "invalid_permit2_signature"
    );
    let other = Permit::with(PaymentMethod::Upto, |permit| {
        permit.facilitator = Some(PAYEE)
    });
    assert_eq!(refusal(upto(), &other).await.1, "upto_facilitator_mismatch");

    // As the official facilitator, the seller takes either message for an `exact` offer.
    for route in [report(), report().permit2()] {
        let paywall = open_at_now(route).await;
        assert_eq!(buy(&paywall, &exact).await.status(), 200);
        let transfer = Payment::new().v2(&terms(&paywall, "/report").await);
        assert_eq!(pay(&paywall, "/report", &transfer).await.status(), 200);
        assert_eq!(
            paywall.settlements().len(),
            2,
            "nothing excludes one by the other"
        );
    }
    // `upto` takes no EIP-3009, and version 1 takes no permit.
    let paywall = open_at_now(upto()).await;
    let transfer = Payment::new().v2(&terms(&paywall, "/report").await);
    let refused = decode(
        &pay(&paywall, "/report", &transfer).await,
        "payment-required",
    );
    assert_eq!(refused["error"], "unsupported_payload_type");
    let paywall = open_at_now(report().v1()).await;
    let mut payment = Payment::new().v1();
    payment["payload"] = exact.payload();
    let refused: Value = pay(&paywall, "/report", &payment)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(refused["error"], "unsupported_payload_type");
}

#[tokio::test]
async fn one_nonce_of_permit2_pays_once_by_exact_and_upto_together() {
    let paywall = Paywall::builder()
        .route(Route::get("/exact").price(usd!("0.01")).permit2())
        .route(Route::get("/upto").price(usd!("0.01")).upto())
        .clock(|| Timestamp::from_secs(NOW))
        .start()
        .await
        .unwrap();
    let pay_at = async |path, permit: &Permit| {
        let payment = permit.payment(&terms(&paywall, path).await);
        pay(&paywall, path, &payment).await
    };
    let (exact, upto) = (Permit::new(METHODS[0]), Permit::new(METHODS[1]));
    let used = || paywall.is_permit_used(BASE_SEPOLIA, exact.from, exact.nonce);
    assert!(!used());
    assert_eq!(pay_at("/exact", &exact).await.status(), 200);
    assert!(used());
    let refused = pay_at("/upto", &upto).await;
    assert_eq!(refused.status(), 402);
    assert_eq!(
        decode(&refused, "payment-required")["error"],
        "permit2_simulation_failed"
    );
    assert_eq!(
        (paywall.settlements().len(), paywall.settle_presented()),
        (1, 0)
    );

    // The owner invalidates a nonce before it is used.
    let next = Permit::with(METHODS[1], |permit| permit.nonce = U256::MAX);
    paywall.invalidate_permit(BASE_SEPOLIA, next.from, next.nonce);
    assert!(paywall.is_permit_used(BASE_SEPOLIA, next.from, next.nonce));
    assert_eq!(pay_at("/upto", &next).await.status(), 402);
    // Another owner has nonces of his own.
    assert!(!paywall.is_permit_used(BASE_SEPOLIA, PAYEE, next.nonce));
}

#[tokio::test]
async fn a_missing_allowance_is_answered_with_412_and_payments_use_it_up() {
    let asset = usdc("base-sepolia");
    for method in METHODS {
        let permit = |nonce: u64| Permit::with(method, |permit| permit.nonce = U256::from(nonce));
        let paywall = Paywall::builder()
            .route(route(method))
            .allowance(permit(0).from, 15_000)
            .clock(|| Timestamp::from_secs(NOW))
            .start()
            .await
            .unwrap();
        let allowance = || paywall.allowance_of(&asset, permit(0).from);
        assert_eq!(allowance(), 15_000);
        assert_eq!(buy(&paywall, &permit(1)).await.status(), 200);
        assert_eq!(allowance(), 5_000);
        let refused = buy(&paywall, &permit(2)).await;
        assert_eq!(refused.status(), 412);
        let terms = decode(&refused, "payment-required");
        assert_eq!(terms["error"], "permit2_allowance_required");
        assert_eq!(terms["accepts"][0]["amount"], "10000");
        // The seller keeps the permit, and the payer approves later.
        assert_eq!(paywall.settle_presented(), 0);
        paywall.set_allowance(&asset, permit(0).from, U256::MAX);
        assert_eq!(paywall.settle_presented(), 1);
        assert_eq!(
            allowance(),
            U256::MAX,
            "an approval without limit is not counted down"
        );
        // The balance is looked at first.
        paywall.set_balance(permit(0).from, 9_999);
        paywall.set_allowance(&asset, permit(0).from, U256::ZERO);
        let refused = decode(&buy(&paywall, &permit(3)).await, "payment-required");
        assert_eq!(refused["error"], "permit2_insufficient_balance");
    }
}

#[tokio::test]
async fn upto_charges_by_the_request_and_names_the_charge() {
    let route = upto().charge_by(|request| match request.target.as_str() {
        "/report?all" => usd!("0.01"),
        "/report?none" => usd!("0"),
        "/report?more" => usd!("0.010001"),
        _ => usd!("0.0025"),
    });
    let paywall = open_at_now(route).await;
    for (number, (path, charged)) in [
        ("/report?all", "10000"),
        ("/report", "2500"),
        ("/report?none", "0"),
    ]
    .into_iter()
    .enumerate()
    {
        let permit = Permit::with(METHODS[1], |permit| permit.nonce = U256::from(number));
        let payment = permit.payment(&terms(&paywall, path).await);
        let response = pay(&paywall, path, &payment).await;
        assert_eq!(response.status(), 200);
        let receipt = decode(&response, "payment-response");
        assert_eq!(
            (&receipt["success"], &receipt["amount"]),
            (&true.into(), &charged.into())
        );
        assert_eq!(receipt["transaction"] == "", charged == "0");
        let used = paywall.is_permit_used(BASE_SEPOLIA, permit.from, permit.nonce);
        assert_eq!(used, charged != "0");
    }
    let moved = paywall.settlements();
    let moved: Vec<_> = moved
        .iter()
        .map(|settled| settled.authorization.value)
        .collect();
    assert_eq!(moved, [10_000, 2_500].map(U256::from));

    let above = Permit::with(METHODS[1], |permit| permit.nonce = U256::from(9));
    let payment = above.payment(&terms(&paywall, "/report?more").await);
    let refused = pay(&paywall, "/report?more", &payment).await;
    assert_eq!(refused.status(), 402);
    let claim = decode(&refused, "payment-response");
    assert_eq!(claim["success"], false);
    assert_eq!(
        claim["errorReason"],
        "invalid_upto_evm_payload_settlement_exceeds_amount"
    );
    // The permits that charged nothing or were refused are still good for their ceiling.
    assert_eq!(paywall.settle_presented(), 2);
    assert_eq!(paywall.paid_by(above.from), 32_500);

    // Another method is not charged by use.
    let paywall = open_at_now(report().permit2().charge(usd!("0.001"))).await;
    buy(&paywall, &Permit::new(METHODS[0])).await;
    assert_eq!(paywall.settlements()[0].authorization.value, 10_000);
    let fine = upto().charge(usd!("0.000001")).asset(usdc("base-sepolia"));
    assert!(Paywall::builder().route(fine).start().await.is_ok());
}

#[tokio::test]
async fn a_seller_misbehaves_with_the_amount() {
    let above = Forgery::AboveCeiling;
    // The fault, the amount that moves, and the amount in the receipt.
    let cases = [
        (Fault::ForgedReceipt(above), 2_500, json!("10001")),
        (Fault::ForgedReceipt(Forgery::Amount), 2_500, json!("1")),
        (Fault::ForgedReceipt(Forgery::NoAmount), 2_500, Value::Null),
        (
            Fault::ReceiptAmount("\"12.5\"".to_owned()),
            2_500,
            json!("12.5"),
        ),
        (Fault::ReceiptAmount("2500".to_owned()), 2_500, json!(2_500)),
        (
            Fault::ReceiptAmount("not JSON".to_owned()),
            2_500,
            Value::Null,
        ),
        (Fault::ChargeCeiling, 10_000, json!("2500")),
        (Fault::SettleTwice, 2_500, json!("2500")),
    ];
    for (fault, moved, claimed) in cases {
        let paywall = open_at_now(upto().charge(usd!("0.0025")).fault(fault.clone())).await;
        let permit = Permit::new(METHODS[1]);
        let response = buy(&paywall, &permit).await;
        assert_eq!(response.status(), 200, "{fault:?}");
        let receipt = decode(&response, "payment-response");
        assert_eq!(receipt["success"], true, "{fault:?}");
        assert_eq!(
            receipt.get("amount").unwrap_or(&Value::Null),
            &claimed,
            "{fault:?}"
        );
        assert_eq!(paywall.settlements().len(), 1, "{fault:?}");
        assert_eq!(paywall.paid_by(permit.from), moved, "{fault:?}");
        assert_eq!(paywall.settle_presented(), 0, "{fault:?}");
    }
}

#[tokio::test]
async fn a_seller_asks_again_for_another_method_or_facilitator() {
    let stranger = Address::repeat_byte(0x55);
    let facilitator = || FalseTerms::Facilitator(stranger.to_checksum(None));
    let switched = |method| FalseTerms::Method(method);
    // The route, the change, the permit that pays the new terms, and the extra fields of the new offer.
    let exact = Permit::new(METHODS[0]);
    let ceiling = Permit::new(METHODS[1]);
    let other = Permit::with(METHODS[1], |permit| permit.facilitator = Some(stranger));
    let cases = [
        (
            report(),
            switched(METHODS[0]),
            &exact,
            ("exact", json!("permit2"), Value::Null),
        ),
        (
            report(),
            switched(METHODS[1]),
            &ceiling,
            (
                "upto",
                json!("permit2"),
                json!(FACILITATOR.to_checksum(None)),
            ),
        ),
        (
            upto(),
            switched(METHODS[0]),
            &exact,
            ("exact", json!("permit2"), Value::Null),
        ),
        (
            upto(),
            facilitator(),
            &other,
            ("upto", json!("permit2"), json!(stranger.to_checksum(None))),
        ),
    ];
    for (route, lie, permit, (scheme, method, facilitator)) in cases {
        let paywall = open_at_now(route.fault_once(Fault::Requote(lie.clone()))).await;
        let required = terms(&paywall, "/report").await;
        let first = if required["accepts"][0]["scheme"] == "upto" {
            Permit::with(METHODS[1], |permit| permit.nonce = U256::from(5)).payment(&required)
        } else {
            Payment::new().v2(&required)
        };
        let again = pay(&paywall, "/report", &first).await;
        assert_eq!(again.status(), 402);
        let required = decode(&again, "payment-required");
        let offer = &required["accepts"][0];
        assert_eq!(offer["scheme"], scheme, "{lie:?}");
        let extra = |name: &str| offer["extra"].get(name).unwrap_or(&Value::Null).clone();
        assert_eq!(
            (extra("assetTransferMethod"), extra("facilitatorAddress")),
            (method, facilitator),
            "{lie:?}"
        );
        let response = pay(&paywall, "/report", &permit.payment(&required)).await;
        assert_eq!(response.status(), 200, "{lie:?}");
        // A buyer that signs for both pays both.
        assert_eq!(paywall.settle_presented(), 1);
    }
    // Back to EIP-3009, and an offer without a facilitator.
    let paywall = open_at_now(upto().fault(Fault::Terms(switched(PaymentMethod::Eip3009)))).await;
    let extra = terms(&paywall, "/report").await["accepts"][0]["extra"].clone();
    assert_eq!(extra, json!({ "name": "USDC", "version": "2" }));
    let paywall = open_at_now(upto().fault(Fault::Terms(FalseTerms::NoFacilitator))).await;
    let refused = decode(&buy(&paywall, &ceiling).await, "payment-required");
    assert_eq!(refused["error"], "upto_facilitator_mismatch");
}

/// Calls a method of a node.
async fn call(node: &Node, method: &str, params: Value) -> Value {
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let response = http()
        .post(node.url().clone())
        .json(&request)
        .send()
        .await
        .unwrap();
    let answer: Value = response.json().await.unwrap();
    answer["result"].clone()
}

/// Calls a function of a contract with two words. Returns the word that it returns.
async fn read(node: &Node, to: Address, function: &str, words: [B256; 2]) -> U256 {
    let data = [&keccak256(function)[..4], &words.concat()].concat();
    let transaction = json!({ "to": to, "data": hex::encode_prefixed(data) });
    let word = call(node, "eth_call", json!([transaction, "latest"])).await;
    word.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_node_shows_settlements_through_permit2_as_the_contracts_write_them() {
    let paywall = open_at_now(upto().charge(usd!("0.0025"))).await;
    let node = paywall.node(BASE_SEPOLIA).await.unwrap();
    let nonce = (U256::from(7) << 8) | U256::from(255);
    let permit = Permit::with(METHODS[1], |permit| permit.nonce = nonce);
    let owner = permit.from.into_word();
    let bitmap = async |word: u64| {
        let words = [owner, U256::from(word).into()];
        read(&node, PERMIT2, "nonceBitmap(address,uint256)", words).await
    };
    let allowance = async |spender: Address| {
        let words = [owner, spender.into_word()];
        read(&node, permit.token, "allowance(address,address)", words).await
    };
    assert_eq!(
        (bitmap(7).await, allowance(PERMIT2).await),
        (U256::ZERO, U256::MAX)
    );
    assert_eq!(allowance(UPTO_PROXY).await, U256::ZERO);
    paywall.set_allowance(&usdc("base-sepolia"), permit.from, U256::from(10_000));
    buy(&paywall, &permit).await;
    assert_eq!(allowance(PERMIT2).await, U256::from(7_500));
    assert_eq!(
        (bitmap(7).await, bitmap(0).await),
        (U256::from(1) << 255, U256::ZERO)
    );
    for (fault, word) in [
        (NodeFault::SaysUnused, U256::ZERO),
        (NodeFault::SaysUsed, U256::MAX),
    ] {
        node.fault(fault);
        assert_eq!(bitmap(7).await, word);
    }
    for (fault, approved) in [
        (NodeFault::SaysNotApproved, U256::ZERO),
        (NodeFault::SaysApproved, U256::MAX),
    ] {
        node.fault(fault);
        assert_eq!(allowance(PERMIT2).await, approved);
    }
    node.clear_faults();

    // The token has used no nonce of EIP-3009.
    let words = [owner, nonce.into()];
    let state = read(
        &node,
        permit.token,
        "authorizationState(address,bytes32)",
        words,
    )
    .await;
    assert_eq!(state, U256::ZERO);

    let settled = paywall.settlements().remove(0);
    let hash = settled.transaction.to_string();
    let receipt = call(&node, "eth_getTransactionReceipt", json!([hash])).await;
    let transfer = keccak256("Transfer(address,address,uint256)");
    let logs = receipt["logs"].as_array().unwrap();
    assert_eq!(logs.len(), 2);
    assert_eq!(logs[0]["address"], json!(permit.token.to_string()));
    assert_eq!(
        logs[0]["topics"],
        json!([transfer, owner, PAYEE.into_word()])
    );
    assert_eq!(logs[0]["data"], json!(B256::from(U256::from(2_500))));
    assert_eq!(logs[1]["address"], json!(UPTO_PROXY.to_string()));
    assert_eq!(logs[1]["topics"], json!([keccak256("Settled()")]));
    let filter = json!({
        "address": permit.token, "topics": [transfer, owner, PAYEE.into_word()],
        "fromBlock": format!("{:#x}", NOW - 5), "toBlock": "latest",
    });
    assert_eq!(
        call(&node, "eth_getLogs", json!([filter])).await,
        json!([logs[0]])
    );

    let sent = call(&node, "eth_getTransactionByHash", json!([hash])).await;
    assert_eq!(sent["to"], json!(UPTO_PROXY.to_string()));
    assert_eq!(sent["from"], json!(FACILITATOR.to_string()));
    let input = hex::decode(sent["input"].as_str().unwrap()).unwrap();
    assert_eq!(input[..4], [0xff, 0x11, 0xe7, 0xb4]);
    let word = |index: usize| U256::from_be_slice(&input[4 + 32 * index..36 + 32 * index]);
    assert_eq!(
        (word(1), word(2), word(4)),
        (permit.amount, nonce, U256::from(2_500))
    );
    // The signature starts where its offset says, with its length.
    let offset = usize::try_from(word(9)).unwrap();
    assert_eq!(word(offset / 32), U256::from(65));
    let signature = hex::encode_prefixed(&input[36 + offset..36 + offset + 65]);
    assert_eq!(signature, permit.signature());

    // An owner invalidates a nonce: no transfer, and an event of Permit2.
    paywall.invalidate_permit(BASE_SEPOLIA, permit.from, U256::from(3));
    assert_eq!(bitmap(0).await, U256::from(8));
    let event = keccak256("UnorderedNonceInvalidation(address,uint256,uint256)");
    let filter = json!({
        "address": PERMIT2, "topics": [event, owner],
        "fromBlock": format!("{:#x}", NOW - 5), "toBlock": "latest",
    });
    let logs = call(&node, "eth_getLogs", json!([filter])).await;
    let words = [U256::ZERO, U256::from(8)].map(B256::from).concat();
    assert_eq!(logs[0]["data"], hex::encode_prefixed(words));
    assert_eq!(logs.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_permit_can_be_settled_in_the_second_of_its_deadline_and_not_later() {
    use bursar_tests::clock::TestClock;
    use std::time::Duration;

    for (seconds, transfers) in [(60, 1), (61, 0)] {
        let clock = TestClock::default();
        let paywall = Paywall::builder()
            .route(upto().fault(Fault::StatusBeforeSettle(500)))
            .clock(clock.clone())
            .start()
            .await
            .unwrap();
        let deadline = bursar::clock::Clock::now(&clock).secs() + 60;
        let permit = Permit::with(METHODS[1], |permit| permit.deadline = deadline);
        assert_eq!(buy(&paywall, &permit).await.status(), 500);
        clock.advance(Duration::from_secs(seconds));
        assert_eq!(paywall.settle_presented(), transfers, "after {seconds} s");
    }
}

/// Returns the extension with which the payer of [`Permit::new`] approves Permit2 by EIP-2612.
fn token_permit(amount: u64, nonce: u64) -> Value {
    let Payment { key, from, .. } = Payment::new();
    let name = "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)";
    let [amount, nonce, deadline] = [amount, nonce, NOW + 60].map(U256::from);
    let words = [
        keccak256(name),
        from.into_word(),
        PERMIT2.into_word(),
        amount.into(),
        nonce.into(),
        deadline.into(),
    ];
    let separator = usdc("base-sepolia").domain_separator();
    let content = keccak256(words.concat());
    let digest = keccak256([&[0x19, 1][..], separator.as_slice(), content.as_slice()].concat());
    let (signature, recovery) = key.sign_prehash_recoverable(digest.as_slice());
    let signature = [
        &signature.to_bytes()[..],
        &[27 + u8::from(recovery.is_y_odd())],
    ]
    .concat();
    json!({
        "from": from, "asset": usdc("base-sepolia").address(), "spender": PERMIT2,
        "amount": amount.to_string(), "nonce": nonce.to_string(), "deadline": deadline.to_string(),
        "signature": hex::encode_prefixed(signature), "version": "1",
    })
}

/// Returns a signed transaction of the payer of [`Permit::new`] that calls a token.
fn signed_call(nonce: u8, data: &[u8]) -> String {
    fn prefixed(short: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        match u8::try_from(length).unwrap() {
            length @ 0..56 => [&[short + length], content].concat(),
            length => [&[short + 56, length], content].concat(),
        }
    }
    fn number(bytes: &[u8]) -> Vec<u8> {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        match &bytes[zeros..] {
            [digit @ 0..0x80] => vec![*digit],
            digits => prefixed(0x80, digits),
        }
    }
    let fields = [
        number(&84_532_u64.to_be_bytes()),
        number(&[nonce]),
        number(&100_000_000_u64.to_be_bytes()),
        number(&2_000_000_000_u64.to_be_bytes()),
        number(&70_000_u64.to_be_bytes()),
        prefixed(0x80, usdc("base-sepolia").address().as_slice()),
        number(&[]),
        prefixed(0x80, data),
        prefixed(0xc0, &[]),
    ]
    .concat();
    let digest = keccak256([&[2][..], &prefixed(0xc0, &fields)].concat());
    let (signature, recovery) = Payment::new()
        .key
        .sign_prehash_recoverable(digest.as_slice());
    let (r, s) = signature.split_bytes();
    let parity = number(&[u8::from(recovery.is_y_odd())]);
    let signed = [fields, parity, number(&r), number(&s)].concat();
    hex::encode_prefixed([&[2][..], &prefixed(0xc0, &signed)].concat())
}

fn signed_approval(nonce: u8, spender: Address, amount: U256) -> String {
    let words = [spender.into_word(), amount.into()].concat();
    signed_call(
        nonce,
        &[&keccak256("approve(address,uint256)")[..4], &words].concat(),
    )
}

/// Pays with this permit, and with an extension whose `info` is completed.
async fn buy_with(paywall: &Paywall, permit: &Permit, name: &str, own: Value) -> Response {
    let required = terms(paywall, "/report").await;
    let mut payment = permit.payment(&required);
    payment["extensions"] = required["extensions"].clone();
    let info = payment["extensions"][name]["info"].as_object_mut().unwrap();
    info.extend(own.as_object().unwrap().clone());
    pay(paywall, "/report", &payment).await
}

/// Opens a seller to whom the payer has approved nothing.
async fn open_without_allowance(route: Route) -> Paywall {
    Paywall::builder()
        .route(route)
        .allowance(Payment::new().from, 0)
        .clock(|| Timestamp::from_secs(NOW))
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn an_approval_by_eip_2612_comes_with_the_payment_and_is_used_once() {
    const NAME: &str = "eip2612GasSponsoring";
    let asset = usdc("base-sepolia");
    let charge = usdc("base-sepolia").parse_units("0.0025").unwrap();
    let paywall = open_without_allowance(upto().charge(usd!("0.0025")).sponsors_permits()).await;
    let node = paywall.node(BASE_SEPOLIA).await.unwrap();
    let permit = |nonce: u64| Permit::with(METHODS[1], |permit| permit.nonce = U256::from(nonce));
    let owner = permit(0).from;
    let nonce = async || {
        read(
            &node,
            asset.address(),
            "nonces(address)",
            [owner.into_word(), B256::ZERO],
        )
        .await
    };
    // Without the approval, with one for another nonce, and with one for another amount.
    assert_eq!(buy(&paywall, &permit(1)).await.status(), 412);
    let refused = buy_with(&paywall, &permit(1), NAME, token_permit(10_000, 1)).await;
    assert_eq!(refused.status(), 412);
    let refused = buy_with(&paywall, &permit(1), NAME, token_permit(20_000, 0)).await;
    assert_eq!(
        decode(&refused, "payment-required")["error"],
        "permit2_simulation_failed"
    );
    assert_eq!((nonce().await, paywall.approvals().len()), (U256::ZERO, 0));

    let response = buy_with(&paywall, &permit(1), NAME, token_permit(10_000, 0)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(nonce().await, 1);
    let approval = paywall.approvals().remove(0);
    let settled = paywall.settlements().remove(0);
    assert_eq!(
        (approval.owner, approval.amount),
        (owner, U256::from(10_000))
    );
    assert_eq!(approval.transaction, settled.transaction);
    assert_eq!(settled.authorization.value, charge);
    assert_eq!(paywall.allowance_of(&asset, owner), U256::from(7_500));
    let hash = settled.transaction.to_string();
    let receipt = call(&node, "eth_getTransactionReceipt", json!([hash])).await;
    let events: Vec<_> = receipt["logs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|log| &log["topics"][0])
        .collect();
    let names = [
        "Approval(address,address,uint256)",
        "Transfer(address,address,uint256)",
        "SettledWithPermit()",
    ];
    assert_eq!(
        events,
        names
            .map(|name| json!(keccak256(name)))
            .iter()
            .collect::<Vec<_>>()
    );
    let sent = call(&node, "eth_getTransactionByHash", json!([hash])).await;
    assert!(sent["input"].as_str().unwrap().starts_with("0x016c1748"));

    // The rest of the allowance is too small, and the token does not take the permit again.
    let refused = buy_with(&paywall, &permit(2), NAME, token_permit(10_000, 0)).await;
    assert_eq!(refused.status(), 412);

    // A seller makes the approval and does not settle.
    let route = report()
        .permit2()
        .sponsors_permits()
        .fault(Fault::ApproveUnsettled);
    let paywall = open_without_allowance(route).await;
    let permit = Permit::new(METHODS[0]);
    let response = buy_with(&paywall, &permit, NAME, token_permit(10_000, 0)).await;
    assert_eq!(
        (response.status().as_u16(), paywall.settlements().len()),
        (502, 0)
    );
    assert_eq!(paywall.allowance_of(&asset, owner), U256::from(10_000));
    assert_eq!(paywall.settle_presented(), 1);
}

#[tokio::test]
async fn a_signed_approval_comes_with_the_payment_or_through_a_node() {
    const NAME: &str = "erc20ApprovalGasSponsoring";
    let asset = usdc("base-sepolia");
    let owner = Payment::new().from;
    let paywall = open_without_allowance(report().permit2().sponsors_approvals()).await;
    let node = paywall.node(BASE_SEPOLIA).await.unwrap();
    let count = async || call(&node, "eth_getTransactionCount", json!([owner, "pending"])).await;
    let info = |transaction: String| {
        json!({
            "from": owner, "asset": asset.address(), "spender": PERMIT2, "amount": "15000",
            "signedTransaction": transaction,
        })
    };
    let approval = signed_approval(0, PERMIT2, U256::from(15_000));
    let refused = buy_with(
        &paywall,
        &Permit::new(METHODS[0]),
        NAME,
        info(signed_approval(1, PERMIT2, U256::MAX)),
    )
    .await;
    assert_eq!(refused.status(), 412, "the transaction has another nonce");
    assert_eq!(count().await, "0x0");
    let response = buy_with(
        &paywall,
        &Permit::new(METHODS[0]),
        NAME,
        info(approval.clone()),
    )
    .await;
    assert_eq!(response.status(), 200);
    assert_eq!(count().await, "0x1");
    assert_eq!(paywall.allowance_of(&asset, owner), U256::from(5_000));
    let made = paywall.approvals().remove(0);
    assert_eq!(
        (made.amount, made.asset),
        (U256::from(15_000), asset.address())
    );
    assert_ne!(made.transaction, paywall.settlements()[0].transaction);

    // The owner sends one itself.
    let send = async |transaction: String| {
        let request = json!({
            "jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [transaction],
        });
        let response = http()
            .post(node.url().clone())
            .json(&request)
            .send()
            .await
            .unwrap();
        response.json::<Value>().await.unwrap()
    };
    for (transaction, refusal) in [
        (approval, "nonce too low"),
        (signed_approval(2, PERMIT2, U256::MAX), "nonce too high"),
        (
            signed_approval(1, PAYEE, U256::MAX),
            "the simulated chain takes approvals of Permit2",
        ),
        (
            signed_call(1, &[7; 40]),
            "the simulated chain takes approvals of Permit2",
        ),
        (
            "0x02c0".to_owned(),
            "the simulated chain takes transactions of EIP-1559",
        ),
        (
            "0x".to_owned(),
            "the simulated chain takes transactions of EIP-1559",
        ),
    ] {
        assert_eq!(send(transaction).await["error"]["message"], refusal);
    }
    node.fault(NodeFault::LosesTransactions);
    let lost = send(signed_approval(1, PERMIT2, U256::MAX)).await;
    assert!(lost["result"].is_string());
    node.fault(NodeFault::Unavailable);
    send(signed_approval(1, PERMIT2, U256::MAX)).await;
    node.clear_faults();
    assert_eq!(count().await, "0x1", "neither node has taken a transaction");
    let transaction = signed_approval(1, PERMIT2, U256::MAX);
    let hash = send(transaction.clone()).await["result"].clone();
    assert_eq!(hash, json!(keccak256(hex::decode(transaction).unwrap())));
    assert_eq!(paywall.allowance_of(&asset, owner), U256::MAX);
    let receipt = call(&node, "eth_getTransactionReceipt", json!([hash])).await;
    assert_eq!(receipt["status"], "0x1");
    assert_eq!(receipt["logs"][0]["topics"][2], json!(PERMIT2.into_word()));
    let sent = call(&node, "eth_getTransactionByHash", json!([hash])).await;
    assert_eq!(sent["from"], json!(owner.to_string()));
    assert_eq!(sent["to"], json!(asset.address().to_string()));
    for method in [
        "eth_gasPrice",
        "eth_maxPriorityFeePerGas",
        "eth_estimateGas",
        "eth_getBalance",
    ] {
        assert!(
            call(&node, method, json!([{}, "latest"])).await.is_string(),
            "{method}"
        );
    }
    // An approval used no nonce of EIP-3009.
    let words = [owner.into_word(), B256::ZERO];
    let used = read(
        &node,
        asset.address(),
        "authorizationState(address,bytes32)",
        words,
    )
    .await;
    assert_eq!(used, U256::ZERO);
}
