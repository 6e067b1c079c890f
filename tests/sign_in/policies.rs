//! The policy of sign-ins.

use super::*;

#[tokio::test]
async fn no_one_is_signed_in_unless_the_policy_says_so() {
    let never_here = policy()
        .sign_in(SignIn::Always)
        .host_limits("127.0.0.1", |host| host.sign_in(SignIn::Never));
    for policy in [policy(), policy().sign_in(SignIn::Never), never_here] {
        let seller = open(report().sign_in()).await;
        let client = client().policy(policy).build().unwrap();
        for _ in 0..2 {
            let paid = get(&client, &seller, "/report").await;
            assert_eq!(paid.payment_status(), PaymentStatus::Paid);
        }
        assert_eq!(seller.sign_ins(), []);
        assert_eq!(seller.settlements().len(), 2);
    }
    let here = policy().host_limits("127.0.0.1", |host| host.sign_in(SignIn::Known));
    let seller = open(report().sign_in()).await;
    let client = client().policy(here).build().unwrap();
    get(&client, &seller, "/report").await;
    get(&client, &seller, "/report").await;
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn a_request_can_refuse_to_sign_in() {
    let seller = open_all([report().sign_in(), Route::get("/me").sign_in_only()]).await;
    let client = always();
    get(&client, &seller, "/report").await;
    let request = client.get(seller.url("/report")).no_sign_in();
    let paid = request.send().await.unwrap();
    assert_eq!(paid.payment_status(), PaymentStatus::Paid);
    let error = client.get(seller.url("/me")).no_sign_in().send().await;
    let error = error.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::SignIn);
    let unpaid = client.get(seller.url("/report")).no_payment().send().await;
    assert_eq!(unpaid.unwrap().status(), 402);
    let unpaid = client.get(seller.url("/me")).no_payment().send().await;
    assert_eq!(unpaid.unwrap().status(), 402);
    // The first request signed in, as `always` says, and the seller did not know it.
    assert_eq!(seller.sign_ins().len(), 1);
    assert!(!seller.sign_ins()[0].accepted);
}

#[tokio::test]
async fn a_route_that_wants_a_sign_in_alone_is_denied_where_the_policy_does_not_allow_it() {
    let seller = open_all([report(), Route::get("/me").sign_in_only()]).await;
    let client = client().build().unwrap();
    let error = refused(&client, &seller, "/me").await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    let denial = error.denial().unwrap();
    assert_eq!(denial.rule, Rule::SignIn);
    for hint in ["sign_in = \"always\"", "Policy::sign_in", "127.0.0.1"] {
        assert!(denial.message.contains(hint), "{denial}");
    }
    let denials = client.ledger().unwrap().denials().await.unwrap();
    assert_eq!((denials[0].rule, denials[0].count), (Rule::SignIn, 1));

    // A known seller is one from which this wallet has bought something.
    let client = known();
    let denial = refused(&client, &seller, "/me").await;
    assert!(
        denial.to_string().contains("has bought nothing"),
        "{denial}"
    );
    assert_eq!(seller.sign_ins(), []);
    get(&client, &seller, "/report").await;
    assert_eq!(get(&client, &seller, "/me").await.status(), 200);
    assert_eq!(seller.sign_ins().len(), 1);
}

#[tokio::test]
async fn a_host_that_is_not_paid_is_not_told_who_comes() {
    let seller = open(Route::get("/me").sign_in_only()).await;
    let switch = FreezeSwitch::new();
    switch.freeze("an audit");
    let frozen_ledger = Ledger::memory();
    frozen_ledger.freeze("an audit").await.unwrap();
    let always = || signing_in(SignIn::Always);
    let lists = |policy: Policy| always().policy(policy.sign_in(SignIn::Always));
    for (client, rule) in [
        (lists(policy().deny_host("127.0.0.1")), Rule::Host),
        (lists(policy().allow_host("a.example")), Rule::Host),
        (always().freeze_switch(switch), Rule::Frozen),
        (always().ledger(frozen_ledger), Rule::Frozen),
    ] {
        let client = client.build().unwrap();
        let error = refused(&client, &seller, "/me").await;
        assert_eq!(error.denial().unwrap().rule, rule);
    }
    assert_eq!(seller.sign_ins(), []);
}

#[tokio::test]
async fn the_policy_shows_where_it_signs_in() {
    let text = r#"
version = 1
networks = ["base-sepolia"]
[global]
sign_in = "known"
[[host]]
match = "tracker.example.com"
sign_in = "never"
[[origin]]
match = "https://me.example.com"
sign_in = "always"
"#;
    let policy = Policy::from_toml(text).unwrap();
    let effective = policy.effective().to_string();
    for line in [
        "sign_in = \"known\"",
        "sign_in = \"never\"",
        "sign_in = \"always\"",
    ] {
        assert!(effective.contains(line), "{effective}");
    }
    let again = Policy::from_toml(&effective).unwrap();
    assert_eq!(again.effective().to_string(), effective);
    let none = Policy::new().allow_network("base-sepolia");
    assert!(none.effective().to_string().contains("sign_in = \"never\""));
    let wrong = Policy::from_toml(&text.replace("\"known\"", "\"know\"")).unwrap_err();
    assert!(wrong.to_string().contains("known"), "{wrong}");
    let misplaced = text.replace("[global]", "[each.origin]");
    let misplaced = Policy::from_toml(&misplaced).unwrap_err();
    assert!(
        misplaced.to_string().contains("`sign_in` is a setting"),
        "{misplaced}"
    );

    let client = client().policy(policy).build().unwrap();
    let explained = async |host: &str| {
        let url = format!("https://{host}/report");
        let request = bursar::PurchaseRequest::new("GET", &url, b"").unwrap();
        client.explain(&request, usd!("0.01")).await.unwrap()
    };
    let known = explained("api.example.com").await;
    assert_eq!(known.sign_in, SignIn::Known);
    assert!(known.to_string().contains("sign_in = \"known\""), "{known}");
    assert_eq!(json!(known)["sign_in"], "known");
    let never = explained("tracker.example.com").await;
    assert!(!never.to_string().contains("sign_in"), "{never}");
    assert_eq!(explained("me.example.com").await.sign_in, SignIn::Always);
}
