//! Mistakes in a policy that is written in code.

use std::time::Duration;

use bursar::policy::{Period, PolicyError};
use bursar::{Error, ErrorKind, Ledger, Payer, Policy, usd};
use bursar_tests::clock::SECOND;
use bursar_tests::signatures::wallet;
use bursar_tests::tokens::{euro, euros};

fn build(policy: Policy) -> Result<Payer, Error> {
    Payer::builder()
        .signer(wallet())
        .policy(policy)
        .ledger(Ledger::memory())
        .build()
}

#[test]
fn a_wallet_without_a_policy_does_not_build() {
    let error = Payer::builder()
        .signer(wallet())
        .ledger(Ledger::memory())
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Builder);
    assert!(
        error.to_string().contains("a wallet needs a policy"),
        "{error}"
    );
}

#[test]
fn mistakes_in_code_come_out_when_the_wallet_is_built() {
    let policy = || Policy::new().allow_network("base");
    for (policy, words) in [
        (Policy::new(), "names no network"),
        (
            Policy::new().allow_network("bas"),
            "`bas` is not an EVM network",
        ),
        (
            policy().allow_network("base-sepolia"),
            "only a policy with mix_testnets allows both",
        ),
        (
            policy().deny_network("eip155:0"),
            "`eip155:0` is not an EVM network",
        ),
        (
            policy().network_limits("nowhere", |limits| limits),
            "`nowhere` is not an EVM network",
        ),
        (
            policy().host_limits("https://a.example", |host| host),
            "`https://a.example` is not a host",
        ),
        (
            policy().origin_limits("a.example", |origin| origin),
            "`a.example` is not an origin",
        ),
        (
            policy().domain_limits("api.example.com", |limits| limits),
            "write `example.com`",
        ),
        (
            policy().domain_limits("*.example.com", |limits| limits),
            "write `example.com`",
        ),
        (
            policy().allow_host("a*.example"),
            "`a*.example` is not a host",
        ),
        (
            policy().deny_host("a.example:443"),
            "`a.example:443` is not a host",
        ),
        (
            policy().rolling(Duration::ZERO, usd!("1")),
            "a window must be longer than zero",
        ),
        (
            policy().tag_limits("x", |tag| tag.payments(Duration::ZERO, 1)),
            "a window must be longer than zero",
        ),
        (
            policy().calendar(Period::Day, "Mars/Base", usd!("1")),
            "time zone `Mars/Base` is not known here",
        ),
        (
            policy().host_limits("a.example", |host| {
                host.calendar(Period::Day, "", usd!("1"))
            }),
            "time zone `` is not known here",
        ),
        (
            policy().max_validity(5 * SECOND),
            "max_validity must be at least 6 s",
        ),
        (
            policy().host_limits("a.example", |host| host.max_validity(SECOND)),
            "max_validity must be at least 6 s",
        ),
        (
            policy().per_payment(euros("1")),
            "the policy has an amount of EURC@eip155:8453",
        ),
        (
            policy().tag_limits("x", |tag| tag.ask_above(euros("1"))),
            "the policy has an amount of EURC@eip155:8453",
        ),
        (
            policy()
                .register_asset(euro().pegged_to_dollar())
                .per_payment(euros("1")),
            "the policy has an amount of EURC@eip155:8453",
        ),
    ] {
        let error = build(policy).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Builder);
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(Policy::new().check(), Err(PolicyError::NoNetwork));
    assert!(build(policy().allow_network("base-sepolia").mix_testnets()).is_ok());
    assert!(build(policy().domain_limits("Example.CO.UK.", |limits| limits)).is_ok());
}
