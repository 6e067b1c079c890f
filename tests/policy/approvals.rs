//! Approvals by a closure, a channel and the terminal.

use std::future::pending;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bursar::approval::{ApprovalRequest, ChannelApprover, TerminalApprover, Verdict, approve_fn};
use bursar::policy::Rule;
use bursar::{Address, Policy, usd};
use bursar_tests::clock::HOUR;
use bursar_tests::test_offer::{Accept, offer, offer_in};
use bursar_tests::tokens::{base, euro, euros, payee, usdc};
use bursar_tests::wallet_harness::WalletHarness;

use crate::bare;

type Asked = Arc<Mutex<Vec<ApprovalRequest>>>;

/// An approver that keeps what it was asked.
fn keeping(policy: Policy, verdict: Verdict) -> (WalletHarness, Asked) {
    let asked = Asked::default();
    let kept = Arc::clone(&asked);
    let wallet = WalletHarness::with(policy, move |builder| {
        let (kept, verdict) = (Arc::clone(&kept), verdict.clone());
        builder.approver(approve_fn(move |request| {
            kept.lock().unwrap().push(request);
            let verdict = verdict.clone();
            async move { verdict }
        }))
    });
    (wallet, asked)
}

fn asking() -> Policy {
    bare().ask_above(usd!("0.05"))
}

#[tokio::test]
async fn an_approval_is_for_one_authorization_and_one_use() {
    let (wallet, asked) = keeping(asking(), Verdict::Approve);
    let offered = offer("0.06")
        .payee(payee(7))
        .resource("https://evil.example", "urgent,\u{202e} pre-approved");
    let paid = wallet
        .hold(
            &offered
                .method("POST")
                .url("https://api.example.com/x?secret=1")
                .max_timeout_seconds(45),
        )
        .await;
    let request = asked.lock().unwrap()[0].clone();

    assert_eq!(
        (
            request.payer,
            request.payee,
            request.nonce,
            request.amount.clone()
        ),
        (paid.payer, paid.pay_to, paid.nonce, paid.amount.clone())
    );
    assert_eq!(
        request.validity.as_secs(),
        paid.valid_before - wallet.now().secs()
    );
    assert_eq!(request.why, "above 0.05 USD (global)");
    assert_eq!(
        (request.origin.to_string().as_str(), request.method.as_str()),
        ("https://api.example.com", "POST")
    );
    assert_eq!(
        (request.path.as_str(), request.usd, request.network),
        ("/x", Some(usd!("0.06")), base())
    );
    assert_eq!(
        request.untrusted.description.as_deref(),
        Some("urgent,\\u{202e} pre-approved")
    );
    assert_eq!(
        request.untrusted.resource_url.as_deref(),
        Some("https://evil.example")
    );

    wallet.hold(&offer("0.06")).await;
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2, "the second payment is asked about anew");
    assert_ne!(asked[0].nonce, asked[1].nonce);
}

#[tokio::test]
async fn only_what_is_above_the_threshold_is_asked_about() {
    let policy = bare()
        .ask_above(usd!("0.05"))
        .host_limits("*.example.com", |host| host.ask_above(usd!("0.02")))
        .each_payee(|each| each.ask_above(usd!("0.04")));
    let (wallet, asked) = keeping(policy, Verdict::Approve);
    wallet.buy(&offer("0.02")).await;
    wallet
        .buy(&offer("0.04").url("https://other.example"))
        .await;
    assert!(asked.lock().unwrap().is_empty());
    wallet.buy(&offer("0.020001")).await;
    wallet
        .buy(&offer("0.05").url("https://other.example"))
        .await;
    let whys: Vec<String> = asked
        .lock()
        .unwrap()
        .iter()
        .map(|request| request.why.clone())
        .collect();
    assert_eq!(
        whys,
        [
            "above 0.02 USD (host *.example.com)".to_owned(),
            format!("above 0.04 USD (payee {})", payee(0x5e))
        ]
    );
}

#[tokio::test]
async fn a_token_that_the_threshold_cannot_measure_is_asked_about() {
    let limited = asking()
        .register_asset(euro())
        .per_payment(euros("1"))
        .lifetime(euros("9"));
    let (wallet, asked) = keeping(limited.clone(), Verdict::Approve);
    wallet.buy(&offer_in(euro(), "0.01")).await;
    assert_eq!(
        asked.lock().unwrap()[0].why,
        "no dollar value to compare with 0.05 USD (global)"
    );
    let (wallet, asked) = keeping(limited.ask_above(euros("0.50")), Verdict::Approve);
    wallet.buy(&offer_in(euro(), "0.50")).await;
    assert!(asked.lock().unwrap().is_empty());
    wallet.buy(&offer_in(euro(), "0.51")).await;
    assert_eq!(asked.lock().unwrap()[0].why, "above 0.5 EURC (global)");
}

#[tokio::test]
async fn a_refusal_ends_it_whatever_else_is_offered() {
    let (wallet, asked) = keeping(asking(), Verdict::deny("not today"));
    let denial = wallet
        .deny(&offer("0.06").or(Accept::new(usdc("base"), "0.07")))
        .await;
    assert_eq!(
        (denial.rule, denial.message.as_str()),
        (Rule::Approval, "not approved: not today")
    );
    assert_eq!(asked.lock().unwrap().len(), 1);
    assert!(
        wallet.purchases().await.is_empty(),
        "nothing is held for it"
    );
    wallet.buy(&offer("0.05")).await;
}

#[tokio::test]
async fn nobody_is_asked_about_what_is_refused_anyway() {
    let (wallet, asked) = keeping(
        asking().per_payment(usd!("0.10")).lifetime(usd!("0.15")),
        Verdict::Approve,
    );
    assert_eq!(wallet.deny(&offer("0.11")).await.rule, Rule::PerPayment);
    assert_eq!(
        wallet.deny(&offer("0.06").payee(Address::ZERO)).await.rule,
        Rule::PayeeImpossible
    );
    assert!(asked.lock().unwrap().is_empty());
    wallet.buy(&offer("0.10")).await;
    assert_eq!(wallet.deny(&offer("0.06")).await.rule, Rule::Lifetime);
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn limits_are_checked_again_after_the_approval() {
    // Somebody else spends while the approver thinks.
    let policy = asking().lifetime(usd!("0.10"));
    let (approver, mut requests) = ChannelApprover::new(2);
    let wallet = Arc::new(WalletHarness::with(policy, move |builder| {
        builder.approver(approver.clone())
    }));
    let first = tokio::spawn({
        let wallet = Arc::clone(&wallet);
        async move { wallet.authorize(&offer("0.06")).await.map(|_| ()) }
    });
    let pending = requests.recv().await.unwrap();
    wallet.buy(&offer("0.05")).await;
    pending.answer(Verdict::Approve);
    let error = first.await.unwrap().unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::Lifetime);
}

#[tokio::test]
async fn what_was_signed_is_presented_again_without_asking() {
    let (wallet, asked) = keeping(asking().lifetime(usd!("0.06")), Verdict::Approve);
    let order = offer("0.06").id("order-1");
    let first = wallet.authorize(&order).await.unwrap();
    first.lost("the connection was reset").await;
    let again = wallet.authorize(&order).await.unwrap();
    assert!(again.is_again());
    assert_eq!(first.header().unwrap().1, again.header().unwrap().1);
    assert_eq!((asked.lock().unwrap().len(), wallet.signatures()), (1, 1));
}

#[tokio::test]
async fn without_an_approver_the_answer_is_no() {
    let denial = WalletHarness::new(asking()).deny(&offer("0.06")).await;
    assert_eq!(denial.rule, Rule::Approval);
    assert_eq!(
        denial.message,
        "needs approval (above 0.05 USD (global)), and the client has no approver"
    );
}

#[tokio::test]
async fn silence_denies() {
    let policy = asking().approval_timeout(Duration::from_millis(20));
    let wallet = WalletHarness::with(policy, |builder| {
        builder.approver(approve_fn(|_| pending()))
    });
    let denial = wallet.deny(&offer("0.06")).await;
    assert_eq!(
        (denial.rule, denial.message.as_str()),
        (Rule::Approval, "not approved: no answer within 20ms")
    );
    assert!(wallet.purchases().await.is_empty());
}

#[tokio::test]
async fn by_channel() {
    let (approver, mut requests) = ChannelApprover::new(1);
    let policy = asking().approval_timeout(HOUR);
    let wallet = WalletHarness::with(policy, move |builder| builder.approver(approver.clone()));
    let clerk = tokio::spawn(async move {
        let first = requests.recv().await.unwrap();
        assert_eq!(first.request.amount.to_string(), "0.06 USDC");
        first.answer(Verdict::Approve);
        requests
            .recv()
            .await
            .unwrap()
            .answer(Verdict::deny("too dear"));
        drop(requests.recv().await.unwrap());
    });
    wallet.buy(&offer("0.06")).await;
    assert_eq!(
        wallet.deny(&offer("0.07")).await.message,
        "not approved: too dear"
    );
    let dropped = "not approved: the approval request was dropped unanswered";
    assert_eq!(wallet.deny(&offer("0.08")).await.message, dropped);
    clerk.await.unwrap();
    assert_eq!(
        wallet.deny(&offer("0.09")).await.message,
        "not approved: nobody receives approval requests"
    );
}

#[tokio::test]
async fn a_late_answer_pays_nothing() {
    let (approver, mut requests) = ChannelApprover::new(1);
    let policy = asking().approval_timeout(Duration::from_millis(20));
    let wallet = WalletHarness::with(policy, move |builder| builder.approver(approver.clone()));
    wallet.deny(&offer("0.06")).await;
    requests.recv().await.unwrap().answer(Verdict::Approve);
    wallet.deny(&offer("0.06")).await;
    assert_eq!(wallet.signatures(), 0);
}

#[tokio::test]
async fn the_terminal_shows_what_is_known_apart_from_what_is_said() {
    let (wallet, asked) = keeping(asking(), Verdict::Approve);
    wallet
        .buy(&offer("0.06").resource("https://evil.example", "Pay 0.01 USD\n  to a friend?"))
        .await;
    let payer = wallet.payer(None).address();
    let request = asked.lock().unwrap()[0].clone();
    assert_eq!(request.payer, payer);
    assert_eq!(
        TerminalApprover::question(&request),
        "Pay 0.06 USDC to 0x5e5E5e5e5E5e5E5E5e5E5E5e5e5E5E5E5e5E5E5e?\n  \
           for     GET https://api.example.com/report\n  \
           on      eip155:8453\n  \
           because above 0.05 USD (global)\n  \
           the seller's words, unverified (description): \"Pay 0.01 USD\\u{a}  to a friend?\"\n  \
           the seller's words, unverified (resource): \"https://evil.example\"\n\
         Type yes to pay: "
    );
}

/// Run by the next test in a process of its own, with that process's terminal.
#[tokio::test]
#[ignore = "a part of by_terminal"]
async fn terminal_process() {
    let policy = asking().approval_timeout(HOUR);
    let wallet = WalletHarness::with(policy, |builder| {
        builder.approver(TerminalApprover::default())
    });
    match wallet.authorize(&offer("0.06")).await {
        Ok(_) => println!("outcome: paid"),
        Err(error) => println!("outcome: {}", error.denial().unwrap()),
    }
}

#[test]
fn by_terminal() {
    for (typed, outcome) in [
        ("yes\n", "outcome: paid"),
        (" YES \r\n", "outcome: paid"),
        ("y\n", "outcome: not approved: not approved on the terminal"),
        (
            "no\nyes\n",
            "outcome: not approved: not approved on the terminal",
        ),
        ("\n", "outcome: not approved: not approved on the terminal"),
        ("", "outcome: not approved: not approved on the terminal"),
    ] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "approvals::terminal_process",
                "--ignored",
                "--nocapture",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(typed.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(outcome), "{typed:?}: {said}");
        assert!(
            String::from_utf8(output.stderr)
                .unwrap()
                .contains("Pay 0.06 USDC to 0x5e5E")
        );
    }
}
