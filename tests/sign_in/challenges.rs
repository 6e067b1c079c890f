//! Challenges of sellers, true and false.

use super::*;

#[tokio::test]
async fn a_seller_that_asks_for_sign_ins_for_ever_gets_one_in_a_call() {
    let route = report().sign_in_fault(SignInFault::Refuses);
    let me = Route::get("/me")
        .sign_in_only()
        .sign_in_fault(SignInFault::Refuses);
    let seller = open_all([route, me]).await;
    let client = always();
    for _ in 0..2 {
        let paid = get(&client, &seller, "/report").await;
        assert_eq!(paid.payment_status(), PaymentStatus::Paid);
    }
    assert_eq!(
        wire(&seller, "/report"),
        ["plain", "signed in", "paid", "plain", "signed in", "paid"]
    );
    let error = refused(&client, &seller, "/me").await;
    assert_eq!(error.kind(), ErrorKind::NotPayable);
    assert_eq!(error.status().unwrap(), 402);
    assert!(
        error.to_string().contains("does not accept the sign-in"),
        "{error}"
    );
    assert_eq!(wire(&seller, "/me"), ["plain", "signed in"]);
}

#[tokio::test]
async fn a_false_challenge_is_never_signed_and_the_report_is_paid() {
    for fault in [
        SignInFault::OtherDomain,
        SignInFault::OtherUri,
        SignInFault::Expired,
        SignInFault::Old,
        SignInFault::Future,
        SignInFault::NotYet,
        SignInFault::ForgesLine,
        SignInFault::OnlySolana,
        SignInFault::Garbage,
    ] {
        let route = report().sign_in_fault(fault.clone());
        let me = Route::get("/me")
            .sign_in_only()
            .sign_in_fault(fault.clone());
        let seller = open_all([route, me]).await;
        let client = always();
        for _ in 0..2 {
            let paid = get(&client, &seller, "/report").await;
            assert_eq!(paid.payment_status(), PaymentStatus::Paid, "{fault:?}");
        }
        let error = refused(&client, &seller, "/me").await;
        let kind = match fault {
            SignInFault::OnlySolana => ErrorKind::NotPayable,
            _ => ErrorKind::Malformed,
        };
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        assert_eq!(seller.sign_ins(), [], "{fault:?}");
        assert_eq!(wire(&seller, "/report"), ["plain", "paid", "plain", "paid"]);
        assert_eq!(wire(&seller, "/me"), ["plain"]);
    }
}

#[tokio::test]
async fn no_seller_gets_two_payments_or_two_sign_ins_in_a_call() {
    let away = "http://127.0.0.1:9/".to_owned();
    let faults = [
        SignInFault::OtherDomain,
        SignInFault::OtherUri,
        SignInFault::RepeatsChallenge,
        SignInFault::Expired,
        SignInFault::Old,
        SignInFault::Future,
        SignInFault::NotYet,
        SignInFault::ForgesLine,
        SignInFault::OnlySolana,
        SignInFault::Garbage,
        SignInFault::Refuses,
        SignInFault::DoublesPrice,
        SignInFault::Status(503),
        SignInFault::Redirects(away),
    ];
    let names: Vec<_> = faults.iter().map(SignInFault::name).collect();
    assert_eq!(names, SignInFault::NAMES, "every fault is tried");
    for fault in faults {
        for sign_in in [SignIn::Known, SignIn::Always] {
            let seller = open(report().sign_in_fault(fault.clone())).await;
            let client = signing_in(sign_in).build().unwrap();
            for call in 1..=3 {
                drop(client.get(seller.url("/report")).send().await);
                let (sign_ins, requests) = (seller.sign_ins(), wire(&seller, "/report"));
                assert!(sign_ins.len() <= call, "{fault:?} {requests:?}");
                assert!(requests.len() <= 3 * call, "{fault:?} {requests:?}");
                assert!(!requests.contains(&"both"), "{fault:?} {requests:?}");
                let transfers = seller.settlements().len() + seller.settle_presented();
                assert!(transfers <= call, "{fault:?} {requests:?}");
                let mut nonces: Vec<_> = sign_ins.iter().map(|known| &known.nonce).collect();
                nonces.sort();
                nonces.dedup();
                assert_eq!(
                    nonces.len(),
                    sign_ins.len(),
                    "{fault:?}: one challenge, two answers"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_challenge_is_answered_once_by_all_clients_of_a_process() {
    let fault = SignInFault::RepeatsChallenge;
    let route = report().sign_in_fault(fault.clone());
    let me = Route::get("/me").sign_in_only().sign_in_fault(fault);
    let seller = open_all([route, me]).await;
    let first = always();
    // The first sign-in is of a stranger, so the report is paid.
    get(&first, &seller, "/report").await;
    assert_eq!(seller.sign_ins().len(), 1);
    for client in [first.clone(), always()] {
        let paid = get(&client, &seller, "/report").await;
        assert_eq!(paid.payment_status(), PaymentStatus::Paid);
    }
    assert_eq!(seller.sign_ins().len(), 1);
    get(&first, &seller, "/me").await;
    for client in [first, always()] {
        let error = refused(&client, &seller, "/me").await;
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.to_string().contains("repeats a challenge"), "{error}");
    }
    assert_eq!(seller.sign_ins().len(), 2);
}

#[tokio::test]
async fn many_calls_at_once_each_answer_a_challenge_of_their_own() {
    let seller = open(report().sign_in()).await;
    let client = known();
    get(&client, &seller, "/report").await;
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (client, url) = (client.clone(), seller.url("/report"));
            tokio::spawn(async move { client.get(url).send().await.unwrap() })
        })
        .collect();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.payment_status(), PaymentStatus::NotPaid);
        assert_eq!(answer.text().await.unwrap(), "the report");
    }
    let mut nonces: Vec<_> = seller
        .sign_ins()
        .into_iter()
        .map(|sign_in| sign_in.nonce)
        .collect();
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 8);
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn a_sign_in_goes_to_the_url_that_asked_and_no_further() {
    let stranger = open(report()).await;
    let away = SignInFault::Redirects(stranger.url("/report").into());
    let seller = open(report().sign_in_fault(away)).await;
    let client = always();
    let answer = get(&client, &seller, "/report").await;
    assert_eq!(answer.status(), 307);
    assert_eq!(answer.redirect_target(), Some(stranger.url("/report")));
    assert!(stranger.requests().is_empty());
    assert_eq!(wire(&seller, "/report"), ["plain", "signed in"]);
    assert!(purchases(&client).await.is_empty());

    // Within the origin, the redirect is followed without the sign-in.
    let here = SignInFault::Redirects("/elsewhere".to_owned());
    let elsewhere = Route::get("/elsewhere").body("the goods");
    let seller = open_all([report().sign_in_fault(here), elsewhere]).await;
    let answer = get(&client, &seller, "/report").await;
    assert_eq!(answer.text().await.unwrap(), "the goods");
    assert_eq!(wire(&seller, "/elsewhere"), ["plain"]);
}

#[tokio::test]
async fn an_error_that_answers_a_sign_in_reaches_the_caller_and_nothing_is_paid() {
    for status in [400, 403, 500] {
        let seller = open(report().sign_in_fault(SignInFault::Status(status))).await;
        let client = always();
        let answer = get(&client, &seller, "/report").await;
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(answer.payment_status(), PaymentStatus::NotPaid);
        assert_eq!(wire(&seller, "/report"), ["plain", "signed in"]);
        assert!(purchases(&client).await.is_empty());
    }
}

#[tokio::test]
async fn a_query_that_the_challenge_repeats_does_not_spoil_the_payment() {
    let seller = open(report().sign_in()).await;
    let client = known();
    let path = "/report?key=k-4f09a27c";
    let paid = get(&client, &seller, path).await;
    assert_eq!(paid.payment_status(), PaymentStatus::Paid);
    // The seller compares the URL of its challenge, so a payment without the query leaves the challenge out.
    let requests = seller.requests();
    let payment = requests[1].payment.as_ref().unwrap();
    let payment = payment.json.as_ref().unwrap();
    assert!(!payment.to_string().contains("k-4f09a27c"), "{payment}");
    // Official sellers remember the buyer by the path of this URL.
    assert_eq!(payment["resource"]["url"], seller.url("/report").as_str());
    // The sign-in has the URL as the seller wrote it.
    get(&client, &seller, path).await;
    let sign_in = &seller.sign_ins()[0];
    assert!(sign_in.accepted);
    let json: Value = serde_json::from_slice(&STANDARD.decode(&sign_in.header).unwrap()).unwrap();
    assert_eq!(json["uri"], seller.url(path).as_str());
    let stored = format!("{:?}", purchases(&client).await);
    assert!(!stored.contains("k-4f09a27c"), "{stored}");
}

#[tokio::test]
async fn a_sign_in_follows_the_clock_of_the_client() {
    let clock = TestClock::default();
    let seller = Paywall::builder()
        .route(Route::get("/me").sign_in_only())
        .clock(clock.clone());
    let seller = seller.start().await.unwrap();
    let agent = |clock: TestClock| {
        let client = signing_in(SignIn::Always).clock(clock);
        client.build().unwrap()
    };
    assert_eq!(
        get(&agent(clock.clone()), &seller, "/me").await.status(),
        200
    );
    for (ahead, signs) in [(0, true), (4, true), (6, false)] {
        let late = clock.clone();
        let late = TestClock::starting_at(
            bursar::clock::Clock::now(&late).after(Duration::from_secs(60 * ahead)),
        );
        let sent = agent(late).get(seller.url("/me")).send().await;
        assert_eq!(sent.is_ok(), signs, "{ahead} minutes ahead");
    }
}

#[tokio::test]
async fn false_terms_after_a_sign_in_meet_the_whole_policy() {
    let terms = FalseTerms::Price(100);
    let false_later = report()
        .sign_in_fault(SignInFault::Refuses)
        .fault_once(Fault::TermsWithStatus(402))
        .fault_once(Fault::TermsWithStatus(402))
        .fault_once(Fault::Terms(terms));
    let seller = open(false_later).await;
    let client = known();
    get(&client, &seller, "/report").await;
    let error = refused(&client, &seller, "/report").await;
    assert_eq!(error.denial().unwrap().rule, Rule::PerPayment);
    assert_eq!(
        wire(&seller, "/report"),
        ["plain", "paid", "plain", "signed in"]
    );
    assert_eq!(seller.settlements().len(), 1);
}
